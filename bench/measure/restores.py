"""The rows of bench/lazy: one image, and each way to bring its guest back, on each QEMU that can go it."""

import math
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Iterator

from measure import native, usage
from measure.bench import Bench, Sizes
from measure.failure import Failure
from measure.ticking_guest import TickingGuest, TickingShape
from measure.usage import Usage
from measure.work import Contender, Target, Work

QEMUS = ("10", "7.2")

LAZY = "lazy"
STREAM = "stream"
MULTIFD = "multifd"
MEMORY = "memory"
MAPPED_RAM = "mapped-ram"  # QEMU's own
FIRST = "lazy, first"
SECOND = "lazy, with working set"

_MACHINE = "pc-i440fx-7.2"  # both QEMUs have it

_LONGEST_TO_RUNNING = 0.15
_LONGEST_DEMAND = 0.005
_FULL_OF_EAGER = 1.3
_WINDOW_OF_FIRST = 0.5


@dataclass
class Restored(Usage):
    """All times count from the command on. `wall`: until all RAM is there; `running`: until QEMU told that the guest
    runs, `said`: what vmrestore tells of that; `looked`: until the guest has looked at all that it looks at, and
    `looked_again`: the time that takes once all RAM is there. `cpu` is that of the restore in both processes,
    `qemu_cpu` QEMU's part of it. Not a number where there is nothing to tell."""

    running: float = math.nan
    said: float = math.nan
    first_tick: float = math.nan
    looked: float = math.nan
    looked_again: float = math.nan
    qemu_cpu: float = math.nan
    demands: float = math.nan
    demand_p50: float = math.nan
    demand_p99: float = math.nan
    demand_most: float = math.nan

    @property
    def own_cpu(self) -> float:
        return self.cpu - self.qemu_cpu


Restore = Callable[[TickingGuest, Path], Restored]
Contenders = dict[str, Contender]


def on(way: str, qemu: str) -> str:
    """The contender's name."""
    return f"{way}, QEMU {qemu}"


def restored(spent: Usage, qemu: Usage, said: dict) -> Restored:
    """Of `said`, vmrestore's JSON."""
    result = Restored(**asdict(spent), qemu_cpu=qemu.cpu)
    result.add(qemu)
    if said["via"] == "lazy":
        result.said = said["seconds_to_start"]
        result.demands = said["demands"]
        result.demand_p50 = said["demand_p50_seconds"]
        result.demand_p99 = said["demand_p99_seconds"]
        result.demand_most = said["demand_most_seconds"]
    else:
        result.said = said["seconds"]
    return result


def _by_vmrestore(bench: Bench, *options: str) -> Restore:
    return lambda guest, image: restored(*bench.bring_back(guest, image, *options))


def _by_qemu(bench: Bench) -> Restore:
    way = native.mapped_ram(bench.channels)

    def restore(guest: TickingGuest, image: Path) -> Restored:
        spent = native.load(guest, way, image, native.stream_start(image))
        guest.qmp.execute("cont")
        return Restored(**asdict(spent), qemu_cpu=spent.cpu)

    return restore


def _look_on(guest: TickingGuest, image: Path, restore: Restore) -> Restored:
    start = time.time()
    result = restore(guest, image)
    result.running = guest.qmp.wait_event_time("RESUME") - start
    first = guest.console.first()
    result.first_tick = first.at - start
    result.looked = guest.console.behind(first, guest.shape.ticks_of_pass).at - start
    return result


def _contender(bench: Bench, image: Path, shape: TickingShape, qemu: str, shared: bool, restore: Restore,
               again: bool = False) -> Contender:
    def run() -> Restored:
        path = bench.qemu if qemu == "10" else bench.old_qemu
        with bench.waiting_ticking("restored", shape, _MACHINE, path, shared) as guest:
            usage.forget_cached(image)
            result = _look_on(guest, image, restore)
            if again:
                result.looked_again = guest.look_at_all()
            return result

    return run


@contextmanager
def _image(bench: Bench, shape: TickingShape) -> Iterator[Path]:
    """Of version 3, of a guest that ran; both QEMUs read what the older one wrote."""
    image = bench.fresh("image.sav")
    try:
        with bench.ticking("saved", shape, _MACHINE, bench.old_qemu) as guest:
            bench.vmsave(guest, image, "--image-version", "3", "--from", "memory")
        yield image
    finally:
        image.unlink(missing_ok=True)
        _working_set(image).unlink(missing_ok=True)


def _working_set(image: Path) -> Path:
    return image.with_name(image.name + ".ws")


def _restores(bench: Bench, qemu: str, shared: bool) -> dict[str, Restore]:
    ways = {LAZY: _by_vmrestore(bench, "--lazy", "--no-record")}
    ways |= {way: _by_vmrestore(bench, "--via", way) for way in (STREAM, MULTIFD)}
    if shared:
        ways[MEMORY] = _by_vmrestore(bench, "--via", MEMORY)
    if qemu == "10":
        ways[MAPPED_RAM] = _by_qemu(bench)
    return ways


def _restoring(name: str, shared: bool):
    @contextmanager
    def contenders(bench: Bench) -> Iterator[Contenders]:
        shape = bench.sizes.ticking[name]
        with _image(bench, shape) as image:
            yield {
                on(way, qemu): _contender(bench, image, shape, qemu, shared, restore)
                for qemu in QEMUS
                for way, restore in _restores(bench, qemu, shared).items()
            }

    return contenders


def _without_working_set(bench: Bench, kept: Path) -> Restore:
    """What it notes is kept aside."""
    lazy = _by_vmrestore(bench, "--lazy")

    def restore(guest: TickingGuest, image: Path) -> Restored:
        result = lazy(guest, image)
        if not _working_set(image).exists():
            raise Failure(f"no working set is beside {image}: the guest needed nothing")
        _working_set(image).replace(kept)
        return result

    return restore


def _with_working_set(bench: Bench, kept: Path) -> Restore:
    lazy = _by_vmrestore(bench, "--lazy", "--no-record")

    def restore(guest: TickingGuest, image: Path) -> Restored:
        working_set = _working_set(image)
        kept.replace(working_set)
        try:
            return lazy(guest, image)
        finally:
            working_set.replace(kept)

    return restore


@contextmanager
def _second_restores(bench: Bench) -> Iterator[Contenders]:
    shape = bench.sizes.ticking["4 window"]
    with _image(bench, shape) as image:
        contenders = {}
        for qemu in QEMUS:
            kept = bench.file(f"{qemu}.ws")
            for way, restore in ((FIRST, _without_working_set(bench, kept)), (SECOND, _with_working_set(bench, kept))):
                contenders[on(way, qemu)] = _contender(bench, image, shape, qemu, False, restore, again=True)
            contenders[on(FIRST, qemu)]()  # so that there is one for a second that comes first in turn
        yield contenders


def _targets(qemu: str) -> list[Target]:
    lazy = on(LAZY, qemu)
    return [
        Target("running", lazy, None, _LONGEST_TO_RUNNING),
        Target("demand_p99", lazy, None, _LONGEST_DEMAND),
        Target("wall", lazy, on(STREAM, qemu), _FULL_OF_EAGER),
        Target("wall", lazy, on(MULTIFD, qemu), _FULL_OF_EAGER),
    ]


def _work(key: str, title: str, name: str, contenders, targets: list[Target]) -> Work:
    def shape(sizes: Sizes) -> TickingShape:
        return sizes.ticking[name]

    # Which pages the test guest fills is chance, and of few pages it is far from their share.
    least = 0.9 if "sparse" not in name else 0.5
    payload, memory = lambda sizes: shape(sizes).payload, lambda sizes: shape(sizes).size
    return Work(key, title, contenders, lambda sizes: targets, payload, memory, least)


def _row(key: str, title: str, name: str, shared: bool = True) -> Work:
    targets = [target for qemu in QEMUS for target in _targets(qemu)]
    return _work(key, title, name, _restoring(name, shared), targets)


RESTORES = [
    _row("a", "guest of 1 GiB, dense", "1 dense"),
    _row("b", "guest of 1 GiB, 10 % in use", "1 sparse"),
    _row("c", "guest of 4 GiB, dense", "4 dense"),
    _row("d", "guest of 4 GiB, 10 % in use", "4 sparse"),
    _row("e", "guest of 16 GiB, dense", "16 dense"),
    _row("f", "guest of 16 GiB, 10 % in use", "16 sparse"),
    _row("g", "guest of 4 GiB, dense, private RAM", "4 dense", shared=False),
    _work("w", "guest of 4 GiB that uses some 210 MiB of it, private RAM", "4 window", _second_restores,
          [Target("looked", on(SECOND, qemu), on(FIRST, qemu), _WINDOW_OF_FIRST) for qemu in QEMUS]),
]
