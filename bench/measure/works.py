"""The rows of the comparison. Each context makes guests and images, and yields who does the work with them."""

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable, Iterator

from measure import fio, native, usage
from measure.bench import Bench, Sizes, pages_start
from measure.fio import FioJob
from measure.guest import Guest, RamShape
from measure.sizes import MIB, format_size
from measure.usage import Usage
from measure.work import Contender, Target, Work

VMSAVE = "vmsave"
NO_CHECKSUMS = "vmsave --no-checksums"
VMRESTORE = "vmrestore"
VERIFY = "vmimage verify"
MAPPED_RAM = "QEMU mapped-ram"
VMSAVE_AGAIN = "vmsave, all touched"
LOOKED_AT = "QEMU mapped-ram, all touched"
PLAIN = "QEMU plain stream"
FIO = "fio"

_NEW_MACHINE = "pc-i440fx-10.0"
_OLD_MACHINE = "pc-i440fx-7.2"  # both QEMUs have it

_VERSION_3 = ("--image-version", "3", "--from", "memory")

Contenders = dict[str, Contender]


def _once(path: Path, work: Callable[[Path], Usage]) -> Usage:
    try:
        return work(path)
    finally:
        path.unlink(missing_ok=True)


def _saving(bench: Bench, guest: Guest, *options: str) -> Contender:
    def save() -> Usage:
        guest.make_savable()
        guest.forget_looks()
        return _once(bench.fresh("vmsave.sav"), lambda image: bench.vmsave(guest, image, *options))

    return save


def _saving_natively(bench: Bench, guest: Guest, way: native.Way) -> Contender:
    def save() -> Usage:
        guest.make_savable()
        guest.forget_looks()
        return _once(bench.fresh("qemu.sav"), lambda image: native.save(guest, way, image))

    return save


def _behind_a_look(bench: Bench, guest: Guest, way: native.Way, save: Callable[[Path], Usage]) -> Contender:
    """All of the guest's memory was allocated and mapped by a save of QEMU's that does not count."""
    look = _saving_natively(bench, guest, way)

    def measured() -> Usage:
        look()
        guest.make_savable()
        return _once(bench.fresh("again.sav"), save)

    return measured


def _fio_writing(bench: Bench, size: int) -> Contender:
    job = FioJob("write", size)
    return lambda: _once(bench.fresh("fio.data"), lambda file: fio.run(job, file, bench.file("output")))


@contextmanager
def _save_dense(bench: Bench) -> Iterator[Contenders]:
    with bench.guest("dense", bench.sizes.dense, _NEW_MACHINE) as guest:
        yield {
            VMSAVE: _saving(bench, guest, *_VERSION_3),
            NO_CHECKSUMS: _saving(bench, guest, *_VERSION_3, "--no-checksums"),
            MAPPED_RAM: _saving_natively(bench, guest, native.mapped_ram(bench.channels)),
            FIO: _fio_writing(bench, bench.sizes.dense.used),
        }


@contextmanager
def _save_sparse(bench: Bench) -> Iterator[Contenders]:
    way = native.mapped_ram(bench.channels)
    with bench.guest("sparse", bench.sizes.sparse, _NEW_MACHINE) as guest:
        yield {
            VMSAVE: _saving(bench, guest, *_VERSION_3),
            VMSAVE_AGAIN: _behind_a_look(bench, guest, way, lambda image: bench.vmsave(guest, image, *_VERSION_3)),
            MAPPED_RAM: _saving_natively(bench, guest, way),
            LOOKED_AT: _behind_a_look(bench, guest, way, lambda image: native.save(guest, way, image)),
        }


@contextmanager
def _save_version2(bench: Bench) -> Iterator[Contenders]:
    with bench.guest("dense", bench.sizes.dense, _NEW_MACHINE) as guest:
        yield {
            VMSAVE: _saving(bench, guest, "--image-version", "2", "--from", "memory"),
            PLAIN: _saving_natively(bench, guest, native.PLAIN_STREAM),
        }


@contextmanager
def _image(bench: Bench, shape: RamShape, machine: str) -> Iterator[Path]:
    """Of version 3; the guest that it was made of is gone."""
    image = bench.fresh("image.sav")
    try:
        with bench.guest("saved", shape, machine) as guest:
            bench.vmsave(guest, image, *_VERSION_3)
        yield image
    finally:
        image.unlink(missing_ok=True)


def _restoring(shape: Callable[[Sizes], RamShape]):
    @contextmanager
    def contenders(bench: Bench) -> Iterator[Contenders]:
        size = shape(bench.sizes).size
        way = native.mapped_ram(bench.channels)
        with _image(bench, shape(bench.sizes), _NEW_MACHINE) as image:

            def loading(load: Callable[[Guest], Usage]) -> Contender:
                def restore() -> Usage:
                    with bench.waiting("restored", size, _NEW_MACHINE) as guest:
                        usage.forget_cached(image)
                        return load(guest)

                return restore

            yield {
                VMRESTORE: loading(lambda guest: bench.vmrestore(guest, image, "--via", "memory")),
                MAPPED_RAM: loading(lambda guest: native.load(guest, way, image, native.stream_start(image))),
            }

    return contenders


@contextmanager
def _save_private(bench: Bench) -> Iterator[Contenders]:
    size = bench.sizes.dense.size
    with ExitStack() as stack:
        with _image(bench, bench.sizes.dense, _OLD_MACHINE) as image:
            guests = [
                stack.enter_context(bench.waiting_private(name, size, _OLD_MACHINE, qemu))
                for name, qemu in (("old", bench.old_qemu), ("new", bench.qemu))
            ]
            for guest in guests:
                bench.vmrestore(guest, image)
        old, new = guests
        yield {
            VMSAVE: _saving(bench, old, "--image-version", "3", "--from", "multifd"),
            MAPPED_RAM: _saving_natively(bench, new, native.mapped_ram(bench.channels)),
        }


@contextmanager
def _verify(bench: Bench) -> Iterator[Contenders]:
    shape = bench.sizes.dense
    with _image(bench, shape, _NEW_MACHINE) as image:
        start = pages_start(native.stream_start(image), shape.size)
        job = FioJob("read", shape.used, offset=start)

        def verify() -> Usage:
            usage.forget_cached(image)
            return bench.verify(image)

        def read() -> Usage:
            usage.forget_cached(image)
            return fio.run(job, image, bench.file("output"))

        yield {VERIFY: verify, FIO: read}


def _sized(shape: RamShape) -> str:
    return f"{VMSAVE}, guest of {format_size(shape.size)}"


@contextmanager
def _save_growing(bench: Bench) -> Iterator[Contenders]:
    with ExitStack() as stack:
        contenders = {}
        for number, shape in enumerate(bench.sizes.growing):
            guest = stack.enter_context(bench.guest(f"size{number}", shape, _NEW_MACHINE))
            contenders[_sized(shape)] = _saving(bench, guest, *_VERSION_3)
        yield contenders


def _against(ours: str, theirs: str, wall: float, cpu: float) -> list[Target]:
    return [Target("wall", ours, theirs, wall), Target("cpu", ours, theirs, cpu)]


_DENSE_TARGETS = [
    *_against(VMSAVE, MAPPED_RAM, 1.0, 0.7),
    Target("wall", VMSAVE, FIO, 1.05),
    Target("cpu", NO_CHECKSUMS, MAPPED_RAM, 0.35),
    Target("wall", VMSAVE, NO_CHECKSUMS, 1.03),
]

_SPARSE_TARGETS = [
    *_against(VMSAVE, MAPPED_RAM, 0.25, 0.25),
    *_against(VMSAVE_AGAIN, LOOKED_AT, 0.25, 0.25),
]

_OWN_MEMORY = 64 * MIB + 32 * MIB  # all channels together have 32 requests of 1 MiB in flight


def _growing_targets(sizes: Sizes) -> list[Target]:
    first, *others = [_sized(shape) for shape in sizes.growing]
    ratios = [target for other in others for target in _against(other, first, 1.1, 1.1)]
    return ratios + [Target("peak", name, None, _OWN_MEMORY) for name in (first, *others)]


def _dense(sizes: Sizes) -> RamShape:
    return sizes.dense


def _sparse(sizes: Sizes) -> RamShape:
    return sizes.sparse


def _work(key: str, title: str, contenders, shape: Callable[[Sizes], RamShape], targets: list[Target]) -> Work:
    """With one guest at a time."""
    used, size = lambda sizes: shape(sizes).used, lambda sizes: shape(sizes).size
    return Work(key, title, contenders, lambda sizes: targets, used, size)


WORKS = [
    _work("a", "save v3, shared RAM", _save_dense, _dense, _DENSE_TARGETS),
    _work("b", "save v3, sparse guest", _save_sparse, _sparse, _SPARSE_TARGETS),
    _work("c", "save v2, shared RAM", _save_version2, _dense, _against(VMSAVE, PLAIN, 0.4, 0.4)),
    _work("d", "restore v3, shared RAM", _restoring(_dense), _dense, _against(VMRESTORE, MAPPED_RAM, 0.9, 0.9)),
    _work("e", "restore v3, sparse guest", _restoring(_sparse), _sparse, _against(VMRESTORE, MAPPED_RAM, 0.5, 0.5)),
    Work(
        "f",
        "save v3, private RAM",
        _save_private,
        targets=lambda sizes: _against(VMSAVE, MAPPED_RAM, 1.2, 2.5),
        payload=lambda sizes: sizes.dense.used,
        memory=lambda sizes: 2 * sizes.dense.size,
    ),
    _work("g", "verify v3", _verify, _dense, [Target("wall", VERIFY, FIO, 1.05)]),
    Work(
        "h",
        "save v3, guests of growing size",
        _save_growing,
        targets=_growing_targets,
        payload=lambda sizes: sizes.growing[0].used,
        memory=lambda sizes: 2 * sum(shape.used for shape in sizes.growing),
    ),
]
