"""fio, vmsave's engines and whole saves over channels, depth, block size, engine, and with and without the page
cache."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Sequence

from measure import fio, usage
from measure.fio import FioJob
from measure.sizes import GIB, KIB, MIB
from measure.statistics import Spread, pairwise_ratios, spread
from measure.usage import Usage
from measure.work import orders

FIO = "fio"
ENGINE = "vmsave's engine"
SAVE = "vmsave --synthetic"

_FIO_ENGINES = {"uring": "io_uring", "sync": "psync"}
_IN_FLIGHT = 32  # of all channels together: ChannelDepth() in writer/write_options.h


@dataclass(frozen=True)
class Setting:
    direction: str = "write"
    channels: int = 1
    depth: int = 1
    block: int = MIB
    engine: str = "uring"
    direct: bool = True

    def way(self) -> str:
        return f"{self.engine}, {'direct' if self.direct else 'page cache'}"


def channel_depth(channels: int) -> int:
    return min(max(_IN_FLIGHT // channels, 2), 16)


def depths_and_blocks(direction: str, depths: Sequence[int], blocks: Sequence[int]) -> list[Setting]:
    """One channel, past the page cache."""
    return [Setting(direction, depth=depth, block=block) for block in blocks for depth in depths]


def ways_and_channels(channels: Sequence[int]) -> list[Setting]:
    """As vmsave itself writes: 1 MiB, and the depth that it gives so many channels. The sync engine has none."""
    return [
        Setting("write", count, 1 if engine == "sync" else channel_depth(count), MIB, engine, direct)
        for engine, direct in (("uring", True), ("uring", False), ("sync", True), ("sync", False))
        for count in channels
    ]


@dataclass(frozen=True)
class Stand:
    """Where the programs are, and the file system."""

    build: Path
    directory: Path
    size: int

    @property
    def file(self) -> Path:
        return self.directory / "data"

    @property
    def output(self) -> Path:
        return self.directory / "output"

    def by_fio(self, setting: Setting) -> Usage:
        job = FioJob(setting.direction, self.size, setting.block, setting.depth, _FIO_ENGINES[setting.engine],
                     setting.direct, setting.channels)
        return fio.run(job, self.file, self.output)

    def by_engine(self, setting: Setting) -> Usage:
        command = [str(self.build / "bench/vmsave_engine"), str(self.file), str(self.size)]
        command += ["--block", str(setting.block), "--channels", str(setting.channels), "--depth", str(setting.depth)]
        flags = {"--read": setting.direction == "read", "--sync": setting.engine == "sync", "--direct": setting.direct}
        spent = usage.run(command + [flag for flag, is_set in flags.items() if is_set], self.output)
        said = json.loads(self.output.read_text())
        spent.wall, spent.cpu = said["seconds"], said["cpu_seconds"]
        return spent

    def by_save(self, setting: Setting) -> Usage:
        """A whole save of a guest that is in memory already; its CPU, with that of making the guest, tells nothing."""
        command = [str(self.build / "bin/vmsave"), "--synthetic", f"{self.size // KIB}K", "--image-version", "3"]
        command += ["--parallel", str(setting.channels), "--io-engine", setting.engine, "--config", "/dev/null"]
        command += ["--force", "--progress", "json"] + (["--bypass-cache"] if setting.direct else [])
        spent = usage.run([*command, str(self.file)], self.output)
        last = json.loads(self.output.read_text().strip().split("\n")[-1])
        spent.wall, spent.cpu = last["completed"]["seconds"], float("nan")
        return spent

    def runner(self, tool: str) -> Callable[[Setting], Usage]:
        return {FIO: self.by_fio, ENGINE: self.by_engine, SAVE: self.by_save}[tool]


@dataclass
class Swept:
    """Every round has one run of each tool with each setting."""

    size: int
    tools: Sequence[str]
    settings: Sequence[Setting]
    runs: dict[tuple[str, Setting], list[Usage]] = field(default_factory=dict)

    def rates(self, tool: str, setting: Setting) -> Spread:
        """GiB/s."""
        return spread([self.size / GIB / run.wall for run in self.runs[tool, setting]])

    def share(self, tool: str, setting: Setting) -> Spread:
        """Of fio's rate with the same setting, pair by pair."""
        times = [[run.wall for run in self.runs[name, setting]] for name in (FIO, tool)]
        return spread(pairwise_ratios(*times))

    def limit(self) -> tuple[Setting, Spread]:
        """The best that fio does."""
        best = max(self.settings, key=lambda setting: self.rates(FIO, setting).median)
        return best, self.rates(FIO, best)


def sweep(stand: Stand, tools: Sequence[str], settings: Sequence[Setting], rounds: int,
          tell: Callable[[str], None]) -> Swept:
    swept = Swept(stand.size, tools, settings)
    for number, names in enumerate(orders(tools, rounds), 1):
        for setting in settings:
            for tool in names:
                stand_fresh(stand, setting)
                tell(f"round {number} of {rounds}: {tool}, {setting.direction}, {setting.way()}, {setting.channels} "
                     f"channels, depth {setting.depth}, {setting.block // KIB} KiB")
                run = stand.runner(tool)(setting)
                swept.runs.setdefault((tool, setting), []).append(run)
    stand.file.unlink(missing_ok=True)
    return swept


def stand_fresh(stand: Stand, setting: Setting) -> None:
    """Nothing is there to write over, and the disk has nothing left to do; what is read is there, and not cached."""
    if setting.direction == "write":
        stand.file.unlink(missing_ok=True)
        os.sync()
        return
    if not stand.file.exists():
        stand.by_fio(Setting("write", depth=_IN_FLIGHT))
    usage.forget_cached(stand.file)
