"""What all comparisons share: the programs, where their files lie, how large the guests are."""

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from measure import usage
from measure.failure import Failure
from measure.guest import Guest, RamShape, write_ram
from measure.sizes import GIB, MIB, PAGE, round_up
from measure.ticking_guest import TickingGuest, TickingShape, write_ticking_ram
from measure.usage import ProcessMeter, Usage

# The RAM block that holds a PC's memory comes first in an image; its pages start at a multiple of this.
_PAGES_ALIGNMENT = MIB

# GiB, share in use, window. Where there is a window, the rest of what is in use lies around it.
_TICKING = {
    "1 dense": (1, 0.75, None), "1 sparse": (1, 0.1, None),
    "4 dense": (4, 0.75, None), "4 sparse": (4, 0.1, None),
    "16 dense": (16, 0.75, None), "16 sparse": (16, 0.1, None),
    "4 window": (4, 0.75, 200 * MIB),
}


@dataclass(frozen=True)
class Sizes:
    """The guests. Divided by `scale` all of them are smaller, their shapes the same."""

    dense: RamShape
    sparse: RamShape
    growing: tuple[RamShape, ...]
    ticking: dict[str, TickingShape]

    @staticmethod
    def of(dense: int, sparse: int, scale: float) -> "Sizes":
        def shape(size: float, used: float, is_dense: bool = False) -> RamShape:
            return RamShape(round_up(size / scale, MIB), round_up(used / scale, MIB), is_dense)

        return Sizes(
            shape(dense, dense * 3 / 4, True),
            shape(sparse, sparse / 20),
            tuple(shape(size * GIB, GIB / 2) for size in (1, 2, 4, 8)),
            {name: TickingShape(round_up(size * GIB / scale, MIB), used, window and round_up(window / scale, PAGE))
             for name, (size, used, window) in _TICKING.items()},
        )


@dataclass(frozen=True)
class Bench:
    programs: Path
    qemu: str  # 10, of which the peers are
    old_qemu: str  # 7.2
    directory: Path  # on the file system that is measured
    ram_directory: Path  # of guests' RAM
    channels: int
    engine: str
    sizes: Sizes

    @property
    def test_guest(self) -> Path:
        return self.programs.parent / "tests/guest/guest.elf"

    def file(self, name: str) -> Path:
        return self.directory / name

    def fresh(self, name: str) -> Path:
        """A name for a file that is not there, on a disk that has nothing left to do."""
        path = self.file(name)
        path.unlink(missing_ok=True)
        os.sync()
        return path

    def _transfer(self, progress: str = "off") -> list[str]:
        return ["--parallel", str(self.channels), "--bypass-cache", "--io-engine", self.engine,
                "--config", "/dev/null", "--progress", progress]

    def _run(self, *command: str) -> Usage:
        return usage.run([str(self.programs / command[0]), *command[1:]], self.file("output"))

    def _ram(self, name: str) -> Path:
        return self.ram_directory / f"{self.directory.name}.{name}.ram"

    @contextmanager
    def guest(self, name: str, shape: RamShape, machine: str) -> Iterator[Guest]:
        """With shared RAM, and that much of it in use."""
        ram = self._ram(name)
        try:
            write_ram(ram, shape)
            with Guest(self.qemu, self.directory, name, shape.size, machine, ram) as guest:
                guest.boot()
                yield guest
        finally:
            ram.unlink(missing_ok=True)

    def waiting(self, name: str, size: int, machine: str) -> Guest:
        """With empty shared RAM, waiting for a guest to be loaded."""
        ram = self._ram(name)
        return Guest(self.qemu, self.directory, name, size, machine, ram, incoming=True)

    def waiting_private(self, name: str, size: int, machine: str, qemu: str) -> Guest:
        return Guest(qemu, self.directory, name, size, machine, incoming=True)

    @contextmanager
    def ticking(self, name: str, shape: TickingShape, machine: str, qemu: str) -> Iterator[TickingGuest]:
        """With shared RAM, and running."""
        ram = self._ram(name)
        try:
            write_ticking_ram(ram, shape)
            with TickingGuest(self.test_guest, shape, qemu, self.directory, name, machine, ram) as guest:
                guest.boot()
                yield guest
        finally:
            ram.unlink(missing_ok=True)

    def waiting_ticking(self, name: str, shape: TickingShape, machine: str, qemu: str, shared: bool) -> TickingGuest:
        ram = self._ram(name) if shared else None
        return TickingGuest(self.test_guest, shape, qemu, self.directory, name, machine, ram, incoming=True)

    def vmsave(self, guest: Guest, image: Path, *options: str) -> Usage:
        """The guest stays, so that it can be saved again."""
        meter = ProcessMeter(guest.pid)
        whom = ("--qmp", str(guest.socket), "--after", "pause")
        spent = self._run("vmsave", *whom, *options, *self._transfer(), str(image))
        spent.add(meter.spent())
        spent.on_disk = usage.on_disk(image)
        return spent

    def vmrestore(self, guest: Guest, image: Path, *options: str) -> Usage:
        meter = ProcessMeter(guest.pid)
        whom = ("--qmp", str(guest.socket), "--paused")
        spent = self._run("vmrestore", *whom, *options, *self._transfer(), str(image))
        spent.add(meter.spent())
        return spent

    def bring_back(self, guest: TickingGuest, image: Path, *options: str) -> tuple[Usage, Usage, dict]:
        """The guest runs then. What vmrestore spent and what QEMU did, without the guest's own code; and what vmrestore
        said of it."""
        meter = ProcessMeter(guest.pid, apart=guest.processor)
        whom = ("--qmp", str(guest.socket))
        spent = self._run("vmrestore", *whom, *options, *self._transfer("json"), str(image))
        return spent, meter.spent(), completed(self.file("output").read_text(errors="replace"))

    def verify(self, image: Path) -> Usage:
        return self._run("vmimage", "verify", *self._transfer(), str(image))


def completed(said: str) -> dict:
    """What a program said with --progress json of its work, among other lines. Raises Failure where there is
    nothing."""
    for line in said.splitlines():
        if line.startswith('{"completed":'):
            return json.loads(line)["completed"]
    raise Failure(f"it did not say what it did: {said.strip()}")


def pages_start(stream_start: int, size: int) -> int:
    """Where in an image of fixed offsets the first page of main memory lies, behind its bitmap."""
    return round_up(stream_start + size // 4096 // 8, _PAGES_ALIGNMENT)
