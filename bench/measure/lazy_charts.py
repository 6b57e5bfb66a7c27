"""The charts of bench/lazy."""

import math
from pathlib import Path
from typing import Sequence

from measure.charts import Bar, Curve, bars_script, curves_script, draw
from measure.restores import QEMUS, on
from measure.sizes import GIB
from measure.statistics import Spread
from measure.work import Measured

_MOMENTS = {"running": "running", "first_tick": "first tick", "wall": "all RAM there"}
_LATENCIES = {"demand_p50": "half of them", "demand_p99": "99 of 100", "demand_most": "the longest"}
_DENSE = "ace"


def _limit(measured: Measured, name: str, figure: str) -> float | None:
    bounds = [target.limit for target in measured.targets() if (target.figure, target.ours, target.theirs) ==
              (figure, name, None)]
    return bounds[0] if bounds else None


def _draw_ways(measured: Measured, qemu: str, directory: Path) -> None:
    names = [name for name in measured.contenders if name.endswith(on("", qemu))]
    bars = [
        Bar(f"{name.removesuffix(on('', qemu))}: {what}", measured.spread(name, figure), _limit(measured, name, figure))
        for name in names
        for figure, what in _MOMENTS.items()
    ]
    title = f"Restore of a {measured.work.title}, cold cache, QEMU {qemu}: shorter bars are better"
    draw(bars_script(directory / f"lazy-{measured.work.key}-qemu{qemu}.svg", title, "seconds", bars))


def _draw_latency(results: Sequence[Measured], directory: Path) -> None:
    bars = []
    for measured in results:
        for name in measured.contenders:
            for figure, what in _LATENCIES.items():
                spread, limit = measured.spread(name, figure), _limit(measured, name, figure)
                if not math.isnan(spread.median):
                    bars.append(Bar(f"{measured.work.key}, {name}: {what}", _times(1000, spread),
                                    None if limit is None else 1000 * limit))
    if bars:
        title = "How long the guest waits for a page it needs, while its RAM is filled in"
        draw(bars_script(directory / "lazy-latency.svg", title, "milliseconds", bars))


def _times(factor: float, spread: Spread) -> Spread:
    return Spread(factor * spread.median, factor * spread.low, factor * spread.high)


def _draw_growth(results: Sequence[Measured], directory: Path) -> None:
    dense = [measured for measured in results if measured.work.key in _DENSE]
    if len(dense) < 2:
        return
    names = dense[0].contenders
    curves = [
        Curve(name, [(measured.work.memory(measured.sizes) / GIB, measured.spread(name, "running"))
                     for measured in dense])
        for name in names
    ]
    title = "Seconds until a dense guest of growing size runs, cold cache"
    draw(curves_script(directory / "lazy-running.svg", title, "RAM of the guest, GiB", "seconds", curves, powers=True))


def draw_restores(results: Sequence[Measured], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for measured in results:
        for qemu in QEMUS:
            _draw_ways(measured, qemu, directory)
    _draw_latency(results, directory)
    _draw_growth(results, directory)
