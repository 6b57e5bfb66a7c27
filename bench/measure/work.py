"""A piece of work that several contenders do, and the rounds in which they do it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Callable, Mapping, Sequence

from measure.bench import Bench, Sizes
from measure.failure import Failure
from measure.sizes import format_size
from measure.statistics import Spread, Verdict, pairwise_ratios, spread
from measure.usage import Usage

# Does the work once, from the same start as everybody else.
Contender = Callable[[], Usage]


@dataclass(frozen=True)
class Target:
    """`figure` of `ours`, as a ratio to that of `theirs` where it is named, is at most `limit`."""

    figure: str  # a field of Usage
    ours: str
    theirs: str | None
    limit: float

    def name(self) -> str:
        return f"{self.ours} / {self.theirs}" if self.theirs else self.ours


@dataclass(frozen=True)
class Work:
    """`contenders`: what is needed for the work stands ready within that context. `targets`, `payload` (bytes that are
    moved) and `memory` (bytes that guests take at most) follow from the sizes. `least`: the share of the payload that
    every run moves."""

    key: str
    title: str
    contenders: Callable[[Bench], AbstractContextManager[Mapping[str, Contender]]]
    targets: Callable[[Sizes], Sequence[Target]]
    payload: Callable[[Sizes], int]
    memory: Callable[[Sizes], int]
    least: float = 0.9


@dataclass(frozen=True)
class Sample:
    contender: str
    round: int
    place: int  # which of its round, from 1 on
    usage: Usage


@dataclass
class Measured:
    """All samples of one work. Every round has one of each contender."""

    work: Work
    sizes: Sizes
    contenders: list[str]
    samples: list[Sample] = field(default_factory=list)

    def figures(self, contender: str, figure: str) -> list[float]:
        """Round by round."""
        return [getattr(sample.usage, figure) for sample in self.samples if sample.contender == contender]

    def spread(self, contender: str, figure: str) -> Spread:
        return spread(self.figures(contender, figure))

    def verdict(self, target: Target) -> Verdict:
        ours = self.figures(target.ours, target.figure)
        if target.theirs is None:
            return Verdict(Spread(max(ours), min(ours), max(ours)), target.limit)  # a bound holds in every round
        return Verdict(spread(pairwise_ratios(ours, self.figures(target.theirs, target.figure))), target.limit)

    def targets(self) -> Sequence[Target]:
        return self.work.targets(self.sizes)


def require_moved(usage: Usage, payload: int, name: str, least: float = 0.9) -> None:
    """Raises Failure where less was done than is claimed: an incomplete file, an image that came from the page cache.
    The firmware may have zeroed a little."""
    moved = max(usage.on_disk, usage.read)
    if moved < least * payload:
        raise Failure(f"{name} moved {format_size(moved)} of {format_size(payload)}: that is no comparison")


def orders(names: Sequence[str], rounds: int) -> list[list[str]]:
    """Who comes when: everybody is first in turn; an even number of them also comes behind each of the others as often
    (a Williams design), so that nobody always finds what the same one left behind."""
    count = len(names)
    places = [(i + 1) // 2 if i % 2 else -i // 2 for i in range(count)]
    return [[names[(place + turn) % count] for place in places] for turn in range(rounds)]


def measure(work: Work, bench: Bench, rounds: int, tell: Callable[[str], None]) -> Measured:
    """After a round that does not count. In it QEMU maps the guest's memory, as that of a guest that has run has."""
    with work.contenders(bench) as contenders:
        measured = Measured(work, bench.sizes, list(contenders))
        for round_number, names in enumerate(orders(list(contenders), rounds + 1)):
            for place, name in enumerate(names, 1):
                when = f"round {round_number} of {rounds}" if round_number > 0 else "warming up"
                tell(f"{work.key}: {when}, {name}")
                usage = contenders[name]()
                require_moved(usage, work.payload(bench.sizes), name, work.least)
                if round_number > 0:
                    measured.samples.append(Sample(name, round_number, place, usage))
    return measured
