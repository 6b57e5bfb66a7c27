"""QEMU's own ways to save a guest to a file and to load it."""

import struct
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from measure.failure import Failure
from measure.guest import Guest
from measure.usage import PeakMemory, ProcessMeter, Usage, anonymous_memory, on_disk, sync_file

_FAST = 1 << 40  # bytes per second: no limit


@dataclass(frozen=True)
class Way:
    capabilities: tuple[str, ...] = ()
    parameters: tuple[tuple[str, object], ...] = ()


PLAIN_STREAM = Way()


def mapped_ram(channels: int) -> Way:
    """What `virsh save --parallel-channels --bypass-cache` asks of QEMU."""
    return Way(
        ("mapped-ram", "multifd"),
        (("multifd-channels", channels), ("direct-io", True), ("zero-page-detection", "multifd")),
    )


@contextmanager
def _prepared(guest: Guest, way: Way, **more) -> Iterator[None]:
    def set_capabilities(state: bool) -> None:
        wanted = [{"capability": name, "state": state} for name in way.capabilities]
        if wanted:
            guest.qmp.execute("migrate-set-capabilities", capabilities=wanted)

    set_capabilities(True)
    guest.qmp.execute("migrate-set-parameters", **dict(way.parameters) | more)
    yield
    if ("direct-io", True) in way.parameters:
        guest.qmp.execute("migrate-set-parameters", **{"direct-io": False})
    set_capabilities(False)


def _await_end(guest: Guest) -> None:
    ends = ("completed", "failed", "cancelled")
    end = guest.qmp.wait_event("MIGRATION", lambda data: data["status"] in ends)["status"]
    if end != "completed":
        raise Failure(f"QEMU's migration {end}: {guest.qmp.execute('query-migrate').get('error-desc', '')}")


def _measured(guest: Guest, command: str, uri: str) -> Usage:
    guest.qmp.forget_events()
    before = anonymous_memory(guest.pid)
    with PeakMemory(guest.pid) as memory:
        meter = ProcessMeter(guest.pid)
        guest.qmp.execute(command, uri=uri)
        _await_end(guest)
        usage = meter.spent()
    usage.peak = memory.peak - before
    return usage


def save(guest: Guest, way: Way, path: Path) -> Usage:
    """From `migrate` to its end, and until the file is synced: vmsave's images are, too."""
    with _prepared(guest, way, **{"max-bandwidth": _FAST}):
        usage = _measured(guest, "migrate", f"file:{path}")
        sync = sync_file(path)
    usage.add(sync)
    usage.wall += sync.wall
    usage.on_disk = on_disk(path)
    return usage


def load(guest: Guest, way: Way, path: Path, offset: int) -> Usage:
    """From `migrate-incoming` to its end. `offset`: where in the file QEMU's stream starts."""
    with _prepared(guest, way):
        return _measured(guest, "migrate-incoming", f"file:{path},offset={offset}")


def stream_start(image: Path) -> int:
    """Of an image of vmsave's; see "Save header" in format/FORMAT.md."""
    with image.open("rb") as file:
        header = file.read(92)
    return 92 + struct.unpack_from("<I", header, 20)[0]
