"""What the figures of a run depend on besides the programs."""

import ctypes
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from measure.failure import Failure
from measure.sizes import format_size

_AT_FDCWD = -100
_STATX_DIOALIGN = 0x2000
_STATX_BYTES = 256
_QUIET_LOAD = 0.5
_DIO_ALIGN_AT = 152  # stx_dio_mem_align, stx_dio_offset_align: statx(2)


def cpu() -> str:
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"


def kernel() -> str:
    return f"{platform.system()} {platform.release()}"


def memory() -> str:
    return format_size(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def available_memory() -> int:
    text = Path("/proc/meminfo").read_text()
    return int(re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)[1]) << 10


def load() -> float:
    return os.getloadavg()[0]


def load_warning() -> str | None:
    """Why figures of this moment say little."""
    return f"other work runs on this machine (load {load():.1f})" if load() > _QUIET_LOAD else None


def file_system(directory: Path) -> str:
    """Like "ext4 on vda (256.0 GiB, write back)", as far as it can be told."""
    device = os.stat(directory).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    kind = "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == number:
            kind = fields[fields.index("-") + 1]
    return f"{kind} on {_device(number)}"


def _device(number: str) -> str:
    directory = Path(f"/sys/dev/block/{number}")
    if not directory.exists():
        return "no block device"
    disk = directory.resolve()
    if (disk / "partition").exists():
        disk = disk.parent
    facts = []
    model = disk / "device/model"
    if model.exists():
        facts.append(model.read_text().strip())
    facts.append(format_size(int((disk / "size").read_text()) * 512))
    facts.append((disk / "queue/write_cache").read_text().strip())
    return f"{disk.name} ({', '.join(facts)})"


def direct_alignment(directory: Path) -> str:
    """What direct I/O asks of memory and file offset."""
    probe = directory / f".alignment.{os.getpid()}"
    probe.touch()
    try:
        found = ctypes.create_string_buffer(_STATX_BYTES)
        ctypes.CDLL(None).statx(_AT_FDCWD, str(probe).encode(), 0, _STATX_DIOALIGN, found)
    finally:
        probe.unlink()
    if not int.from_bytes(found.raw[:4], "little") & _STATX_DIOALIGN:
        return "not told by the kernel"
    words = [int.from_bytes(found.raw[at:at + 4], "little") for at in (_DIO_ALIGN_AT, _DIO_ALIGN_AT + 4)]
    return f"memory {words[0]}, offset {words[1]}" if words[1] else "none: the file system has no direct I/O"


def version(*command: str) -> str:
    """The first line that a program says of its version."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split("\n")[0].strip()


def build_warning(build: Path) -> str | None:
    """Why figures of this build directory say nothing."""
    cache = build / "CMakeCache.txt"
    if not cache.exists():
        return f"how {build} was built is not known"
    settings = dict(re.findall(r"^(\w+):\w+=(.*)$", cache.read_text(), re.MULTILINE))
    if settings.get("VMSAVE_SANITIZE"):
        return f"{build} was built with sanitizers"
    if settings.get("CMAKE_BUILD_TYPE") not in ("Release", "RelWithDebInfo"):
        return f"{build} was built without optimisation ({settings.get('CMAKE_BUILD_TYPE') or 'no build type'})"
    return None


def require_space(directory: Path, size: int, what: str) -> None:
    free = shutil.disk_usage(directory).free
    if free < size:
        raise Failure(
            f"{what} needs {format_size(size)} in {directory}, which has {format_size(free)} left: "
            "choose smaller sizes (--scale)"
        )


def require_memory(size: int, what: str) -> None:
    there = available_memory()
    if there < size:
        raise Failure(
            f"{what} needs {format_size(size)} of memory, and {format_size(there)} are there: "
            "choose smaller sizes (--scale)"
        )
