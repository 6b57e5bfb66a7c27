"""What a piece of work costs: time, CPU of every process involved, bytes to and from the disk, memory."""

import os
import resource
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from measure.failure import Failure

_SAMPLE_SECONDS = 0.01
_SECTOR = 512


@dataclass
class Usage:
    """Of one run. `cpu` is that of all processes named in bench/README.md, `peak` the largest amount of anonymous
    memory: what a program has of its own, without the guest's RAM that it maps."""

    wall: float
    cpu: float
    written: int = 0
    read: int = 0
    on_disk: int = 0
    peak: int = 0

    def add(self, other: "Usage") -> None:
        """What another process did meanwhile; the time stays."""
        self.cpu += other.cpu
        self.written += other.written
        self.read += other.read


def process_cpu(pid: int) -> float:
    """CPU seconds of a process, with those of threads that have ended, to the nanosecond: /proc/PID/stat has the same
    in hundredths. See clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


def thread_cpu(pid: int, thread: int) -> float:
    """The same of one thread of a process. The clocks of others' threads cannot be read."""
    return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9


def anonymous_memory(pid: int) -> int:
    """Bytes; 0 of a process that has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


class PeakMemory:
    """Looks at a process again and again, from __enter__ to __exit__."""

    def __init__(self, pid: int):
        self.peak = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, anonymous_memory(self._pid))
            if self._ended.wait(_SAMPLE_SECONDS):
                return


def _wait(pid: int) -> tuple[int, resource.struct_rusage]:
    try:
        return os.wait4(pid, 0)[1:]
    except BaseException:  # we are to stop: it does not go on without us
        os.kill(pid, signal.SIGTERM)
        os.wait4(pid, 0)
        raise


def run(command: Sequence[str], output: Path) -> Usage:
    """Runs a program to its end. Its CPU includes that of children that it waited for: vmsave's guard, fio's jobs.
    `output`: where its standard output and error go. Raises Failure with them where it fails."""
    with output.open("wb") as sink:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, sink.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, sink.fileno(), 2),
        ]
        start = time.monotonic()
        try:
            pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
        except OSError as error:
            raise Failure(f"cannot run {command[0]}: {error.strerror}") from None
    with PeakMemory(pid) as memory:
        status, spent = _wait(pid)
        wall = time.monotonic() - start
    if status != 0:
        said = output.read_text(errors="replace").strip()
        code = os.waitstatus_to_exitcode(status)
        raise Failure(f"{subprocess.list2cmdline(command)}\nended with status {code}: {said}")
    return Usage(
        wall=wall,
        cpu=spent.ru_utime + spent.ru_stime,
        written=spent.ru_oublock * _SECTOR,
        read=spent.ru_inblock * _SECTOR,
        peak=memory.peak,
    )


class ProcessMeter:
    """What a process that lives on, QEMU, spends from now on; without what the thread `apart` does."""

    def __init__(self, pid: int, apart: int | None = None):
        self._pid = pid
        self._apart = apart
        self._start = time.monotonic()
        self._cpu = self._cpu_now()
        self._io = self._io_now()

    def _cpu_now(self) -> float:
        apart = thread_cpu(self._pid, self._apart) if self._apart is not None else 0.0
        return process_cpu(self._pid) - apart

    def _io_now(self) -> tuple[int, int]:
        fields = dict(line.split(": ") for line in Path(f"/proc/{self._pid}/io").read_text().splitlines())
        return int(fields["write_bytes"]), int(fields["read_bytes"])

    def spent(self) -> Usage:
        wall = time.monotonic() - self._start
        written, read = self._io_now()
        return Usage(
            wall=wall,
            cpu=self._cpu_now() - self._cpu,
            written=written - self._io[0],
            read=read - self._io[1],
        )


def on_disk(path: Path) -> int:
    """Bytes of a file that take space."""
    return path.stat().st_blocks * _SECTOR


def sync_file(path: Path) -> Usage:
    """fsync: for those who leave that to others. The CPU is what this thread spent in it."""
    start, cpu = time.monotonic(), time.thread_time()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Usage(wall=time.monotonic() - start, cpu=time.thread_time() - cpu)


def forget_cached(path: Path) -> None:
    """Its pages leave the page cache, so that reading it reads the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
