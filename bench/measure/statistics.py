"""What many rounds say: medians, and ratios pair by pair. Pure."""

import statistics as library
from dataclasses import dataclass
from typing import Sequence


@dataclass(frozen=True)
class Spread:
    """The median of some figures, and how far apart they lie."""

    median: float
    low: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    """REQUIRES: at least one figure."""
    return Spread(library.median(figures), min(figures), max(figures))


def pairwise_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round: what slows the machine down for a while slows down both of a pair. Rounds in which there was
    nothing to divide by are left out."""
    if len(ours) != len(theirs):
        raise ValueError("every round has one figure of each")
    return [a / b for a, b in zip(ours, theirs) if b > 0]


@dataclass(frozen=True)
class Verdict:
    """A figure beside its target, which is an upper bound."""

    figure: Spread
    limit: float

    @property
    def reached(self) -> bool:
        return self.figure.median <= self.limit

    @property
    def excess(self) -> float:
        """By which share of the target it is missed; negative where there is room."""
        return self.figure.median / self.limit - 1
