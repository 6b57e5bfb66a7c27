"""What bench/lazy measured, as tables. Pure."""

import math

from measure.report import in_digits, table, targets_table, with_range
from measure.sizes import format_size
from measure.statistics import Spread
from measure.work import Measured

_NOTHING = "-"
_FIGURES = {
    "running": "time to running",
    "demand_p99": "demand latency, p99",
    "wall": "time to full",
    "looked": "time to RAM verified",
}


def _in_milliseconds(figures: Spread) -> Spread:
    return Spread(*(1000 * figure for figure in (figures.median, figures.low, figures.high)))


def _row(measured: Measured, name: str, again: bool) -> list[str]:
    def cell(figure: str, write) -> str:
        spread = measured.spread(name, figure)
        return _NOTHING if math.isnan(spread.median) else write(spread)

    milliseconds = lambda spread: with_range(_in_milliseconds(spread))
    median = lambda spread: in_digits(spread.median)
    return [
        name,
        cell("running", milliseconds),
        cell("said", lambda spread: in_digits(1000 * spread.median)),
        cell("first_tick", milliseconds),
        cell("looked", with_range),
        *([cell("looked_again", with_range)] if again else []),
        cell("wall", with_range),
        " / ".join(cell(f"demand_{which}", lambda spread: in_digits(1000 * spread.median))
                   for which in ("p50", "p99", "most")),
        cell("demands", lambda spread: f"{spread.median:.0f}"),
        cell("own_cpu", median),
        cell("qemu_cpu", median),
        cell("read", lambda spread: format_size(spread.median)),
    ]


def times_table(measured: Measured) -> str:
    """`looked_again` where it was measured."""
    again = not math.isnan(measured.spread(measured.contenders[0], "looked_again").median)
    header = ["", "running, ms", "as told, ms", "first tick, ms", "RAM verified, s",
              *(["verified again, s"] if again else []), "full, s", "demand p50 / p99 / max, ms", "demands",
              "vmrestore, CPU s", "QEMU, CPU s", "read"]
    return table(header, [_row(measured, name, again) for name in measured.contenders])


def describe(measured: Measured, rounds: int) -> str:
    work = measured.work
    size, payload = format_size(work.memory(measured.sizes)), format_size(work.payload(measured.sizes))
    return (
        f"## {work.key}: {work.title} ({payload} of {size}; medians of {rounds} rounds)\n\n"
        f"{times_table(measured)}\n\n{targets_table(measured, _FIGURES)}\n"
    )
