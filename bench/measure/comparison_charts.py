"""The charts of bench/compare."""

from pathlib import Path
from typing import Sequence

from measure.charts import Bar, Curve, bars_script, curves_script, draw
from measure.sizes import GIB, format_size
from measure.statistics import spread
from measure.work import Measured

_UNITS = {"wall": "time", "cpu": "CPU seconds"}


def _ratio_bars(results: Sequence[Measured], figure: str) -> list[Bar]:
    bars = []
    for measured in results:
        for target in measured.targets():
            if target.figure != figure or target.theirs is None or measured.work.key == "h":
                continue
            verdict = measured.verdict(target)
            bars.append(Bar(f"{measured.work.title}: {target.name()}", verdict.figure, verdict.limit))
    return bars


def _draw_ratios(results: Sequence[Measured], directory: Path) -> None:
    for figure, unit in _UNITS.items():
        bars = _ratio_bars(results, figure)
        if bars:
            title = f"Ratio of {unit}: shorter bars are better"
            draw(bars_script(directory / f"ratio-{figure}.svg", title, f"ratio of {unit}", bars))


def _draw_rates(results: Sequence[Measured], directory: Path) -> None:
    bars = []
    for measured in results:
        if measured.work.key not in "acdfg":
            continue
        payload = measured.work.payload(measured.sizes) / GIB
        for name in measured.contenders:
            rates = spread([payload / wall for wall in measured.figures(name, "wall")])
            bars.append(Bar(f"{measured.work.title}: {name}", rates))
    if bars:
        draw(bars_script(directory / "rate.svg", "Rate: longer bars are better", "GiB/s", bars))


def _draw_growth(measured: Measured, directory: Path) -> None:
    shapes = measured.sizes.growing
    for figure, unit in (("wall", "seconds"), ("cpu", "CPU seconds")):
        points = [(shape.size / GIB, measured.spread(name, figure)) for shape, name in zip(shapes, measured.contenders)]
        title = f"Saving guests of growing size, {format_size(shapes[0].used)} of each in use"
        curve = Curve("vmsave", points)
        draw(curves_script(directory / f"size-{figure}.svg", title, "RAM of the guest, GiB", unit, [curve]))


def draw_comparison(results: Sequence[Measured], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    _draw_ratios(results, directory)
    _draw_rates(results, directory)
    for measured in results:
        if measured.work.key == "h":
            _draw_growth(measured, directory)
