"""A QEMU with the test guest, which keeps checking its RAM and tells of it."""

from dataclasses import dataclass
from pathlib import Path

from measure.console import Console
from measure.guest import Guest, RamShape, write_ram
from measure.sizes import GIB, MIB

# Of machine type pc-i440fx: what a larger guest has below 4 GiB, all that the test guest looks after.
_MOST_BELOW = 7 * GIB // 2
_BELOW_OF_LARGER = 3 * GIB

_LOOKED_AT_IN_A_TICK = 2 * MIB
_TICKS_OF_A_PASS = (4, 1000)


@dataclass(frozen=True)
class TickingShape:
    """A share `used` of `size` bytes is not zero. The guest looks at all of that below 4 GiB; with `window`, at so many
    bytes that lie scattered among the rest."""

    size: int
    used: float
    window: int | None = None

    @property
    def below(self) -> int:
        return self.size if self.size < _MOST_BELOW else _BELOW_OF_LARGER

    @property
    def payload(self) -> int:
        return int(self.size * self.used)

    @property
    def percent(self) -> int:
        """Of what is below 4 GiB: what the guest fills and looks at."""
        return round(100 * (self.used if self.window is None else self.window / self.below))

    @property
    def ticks_of_pass(self) -> int:
        least, most = _TICKS_OF_A_PASS
        return min(max(self.below * self.percent // 100 // _LOOKED_AT_IN_A_TICK, least), most)

    def kernel_options(self) -> str:
        return f"check=filled fill={self.percent} passes={self.ticks_of_pass} tick=1 seed=7"

    def written_ahead(self) -> tuple[int, RamShape]:
        """Where random memory starts that the guest finds and leaves alone, and its shape."""
        start = self.below if self.window is None else 0
        size = self.size - start
        return start, RamShape(size, int(size * self.used), self.used >= 0.5)


class TickingGuest(Guest):
    """`console` and `processor`, the thread that runs the guest's code, are there within the `with` block."""

    processor: int

    def __init__(self, kernel: Path, shape: TickingShape, qemu: str, directory: Path, name: str, machine: str,
                 ram: Path | None = None, incoming: bool = False):
        self.shape = shape
        self._kernel = kernel
        self._console_socket = directory / f"{name}.console"
        self._console: Console | None = None
        super().__init__(qemu, directory, name, shape.size, machine, ram, incoming)

    def _make_command(self, qemu: str, machine: str, incoming: bool) -> list[str]:
        chardev = f"socket,id=console,path={self._console_socket},server=on,wait=off"
        return super()._make_command(qemu, machine, incoming) + [
            "-kernel", str(self._kernel), "-append", self.shape.kernel_options(),
            "-chardev", chardev, "-serial", "chardev:console",
        ]

    def __enter__(self) -> "TickingGuest":
        super().__enter__()
        try:
            self._console = Console(self._console_socket)
            self.processor = self.qmp.execute("query-cpus-fast")[0]["thread-id"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        super().__exit__()
        if self._console is not None:
            self._console.close()

    @property
    def console(self) -> Console:
        return self._console

    def boot(self) -> None:
        """It fills its memory and begins to look at it."""
        self.console.behind(self.console.first(), 1)

    def look_at_all(self) -> float:
        """Seconds in which it looks once at all that it looks at, from now on."""
        begun = self.console.last()
        return self.console.behind(begun, self.shape.ticks_of_pass).at - begun.at


def write_ticking_ram(path: Path, shape: TickingShape) -> None:
    start, random = shape.written_ahead()
    write_ram(path, random, start)
