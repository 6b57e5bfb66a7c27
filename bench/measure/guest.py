"""A QEMU whose guest stands still, with RAM of a known shape."""

import ctypes
import errno
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from measure.failure import Failure
from measure.qmp import Qmp
from measure.sizes import MIB
from measure.usage import process_cpu

_PIECE = MIB
_START_SECONDS = 60
_IDLE_SHARE = 0.1
_IDLE_SECONDS = 0.3

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2


@dataclass(frozen=True)
class RamShape:
    """`used` bytes of `size` are random. Dense: they come first, in one piece, and the rest was touched but is zero.
    Else they lie in pieces of 1 MiB at equal distances, and the rest was never touched."""

    size: int
    used: int
    dense: bool

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(offset, length) of what is used."""
        count = -(-self.used // _PIECE)
        room = self.size // _PIECE
        for i in range(count):
            place = i if self.dense else i * room // count
            yield place * _PIECE, min(_PIECE, self.used - i * _PIECE)


def write_ram(path: Path, shape: RamShape, start: int = 0) -> None:
    """The file of a memory backend, as a guest would have left it: a hole up to `start`, and the shape behind it."""
    with path.open("wb") as file:
        end = start + shape.size
        file.truncate(end)
        file.seek(start)
        for offset, length in shape.pieces():
            file.seek(start + offset)
            file.write(os.urandom(length))
        if shape.dense:
            for offset in range(file.tell(), end, _PIECE):
                file.write(bytes(min(_PIECE, end - offset)))


def holes(descriptor: int) -> list[tuple[int, int]]:
    """(offset, length) of each."""
    found = []
    size = os.fstat(descriptor).st_size
    at = 0
    while at < size:
        hole = os.lseek(descriptor, at, os.SEEK_HOLE)
        if hole >= size:
            break
        try:
            at = os.lseek(descriptor, hole, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            at = size
        found.append((hole, at - hole))
    return found


def punch(descriptor: int, ranges: list[tuple[int, int]]) -> None:
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    for offset, length in ranges:
        if fallocate(descriptor, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, offset, length) != 0:
            raise Failure(f"cannot give back memory of the guest: {os.strerror(ctypes.get_errno())}")


class Guest:
    """A QEMU process; ends with the `with` block, and its RAM file with it. Without `ram` its RAM is private."""

    def __init__(self, qemu: str, directory: Path, name: str, size: int, machine: str, ram: Path | None = None,
                 incoming: bool = False):
        self.name = name
        self.ram = ram
        self.size = size
        self._untouched: list[tuple[int, int]] = []
        self._log = directory / f"{name}.log"
        self._own_socket = directory / f"{name}.bench.qmp"
        self.socket = directory / f"{name}.qmp"  # for the programs that are measured: QEMU talks to one at a time
        self._command = self._make_command(qemu, machine, incoming)
        self._process: subprocess.Popen | None = None
        self.qmp: Qmp

    def _make_command(self, qemu: str, machine: str, incoming: bool) -> list[str]:
        size = f"{self.size >> 10}K"
        command = [qemu, "-name", self.name, "-accel", "tcg", "-display", "none", "-nodefaults", "-m", size]
        if self.ram is None:
            command += ["-machine", machine]
        else:
            backend = f"memory-backend-file,id=pc.ram,size={size},mem-path={self.ram},share=on"
            command += ["-machine", f"{machine},memory-backend=pc.ram", "-object", backend]
        for path in (self._own_socket, self.socket):
            command += ["-qmp", f"unix:{path},server=on,wait=off"]
        if incoming:
            command += ["-incoming", "defer", "-S"]
        return command

    def __enter__(self) -> "Guest":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             start_new_session=True)  # Ctrl-C is for us, who end it
        try:
            self.qmp = self._connect()
            self.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        if self.ram is not None:
            self.ram.unlink(missing_ok=True)

    # QEMU listens before it is ready, and may still fail then.
    def _connect(self) -> Qmp:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Failure(f"QEMU ended: {self._log.read_text(errors='replace').strip()}")
            try:
                return Qmp(self._own_socket)
            except OSError:
                time.sleep(0.02)
        raise Failure("QEMU does not answer")

    @property
    def pid(self) -> int:
        return self._process.pid

    def boot(self) -> None:
        """The firmware runs until it finds nothing to boot and halts; then the guest stands still."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            before = process_cpu(self.pid)
            time.sleep(_IDLE_SECONDS)
            if process_cpu(self.pid) - before < _IDLE_SHARE * _IDLE_SECONDS:
                break
            if time.monotonic() > deadline:
                raise Failure("the guest's firmware does not come to rest")
        self.qmp.execute("stop")
        self._note_untouched()

    def make_savable(self) -> None:
        """QEMU saves a guest once, and not again until it has run: so it runs, halted, for a moment."""
        if self.qmp.execute("query-status")["status"] == "postmigrate":
            self.qmp.execute("cont")
            self.qmp.execute("stop")

    def forget_looks(self) -> None:
        """What a save only looked at is again as if never touched: reading a hole of shared memory allocates it."""
        if self.ram is None:
            return
        with self.ram.open("r+b") as file:
            punch(file.fileno(), self._untouched)

    def _note_untouched(self) -> None:
        if self.ram is None:
            return
        with self.ram.open("rb") as file:
            self._untouched = holes(file.fileno())
