"""Charts as SVG, drawn by gnuplot: one unit in each, dark text on white, so that they can be read on any page."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from measure.failure import Failure
from measure.statistics import Spread

_INK = "#24292f"
_FAINT = "#d0d7de"
_TARGET = "#cf222e"
_COLOURS = ("#0969da", "#bf8700", "#1a7f37", "#8250df", "#cf222e", "#57606a", "#1b7c83", "#bc4c00", "#e85aad")
_CHARACTER = 7.2  # pixels, about: gnuplot knows no font of the reader's


@dataclass(frozen=True)
class Bar:
    label: str
    figure: Spread
    limit: float | None = None  # a line is drawn there


@dataclass(frozen=True)
class Curve:
    label: str
    points: Sequence[tuple[float, Spread]]


def _text(words: str) -> str:
    return '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _colour(name: str) -> str:
    return f'linecolor rgb "{name}"'


def _head(path: Path, title: str, width: int, height: int) -> str:
    return f"""
set terminal svg size {width},{height} dynamic noenhanced font "sans-serif,13" background "#ffffff"
set output {_text(str(path))}
set title {_text(title)} textcolor rgb "{_INK}"
set border 3 linecolor rgb "{_INK}"
set tics nomirror textcolor rgb "{_INK}"
set key textcolor rgb "{_INK}"
"""


def bars_script(path: Path, title: str, unit: str, bars: Sequence[Bar]) -> str:
    """Lying bars, the first one on top, each with its range; targets are lines across them."""
    count = len(bars)
    rows = [(count - i, bar) for i, bar in enumerate(bars)]
    data = "\n".join(
        f"{at} {bar.figure.median} {bar.figure.low} {bar.figure.high} {max(bar.figure.high, bar.limit or 0)}"
        for at, bar in rows
    )
    limits = "\n".join(f"{at} {bar.limit}" for at, bar in rows if bar.limit is not None)
    ticks = ", ".join(f"{_text(bar.label)} {at}" for at, bar in rows)
    plots = [
        f'$bars using ($2/2):1:($2/2):(0.32) with boxxyerror fillstyle solid noborder {_colour(_COLOURS[0])} notitle',
        f'$bars using 2:1:3:4 with xerrorbars pointtype 0 linewidth 1.5 {_colour(_INK)} notitle',
        f'$bars using 5:1:(sprintf("%.2f", $2)) with labels left offset 1,0 textcolor rgb "{_INK}" notitle',
    ]
    if limits:
        line = f'with vectors nohead linewidth 3 {_colour(_TARGET)} title "target: no more than this"'
        plots.append(f"$limits using 2:($1-0.45):(0):(0.9) {line}")
    margin = 20 + _CHARACTER * max(len(bar.label) for bar in bars)
    width = int(margin + max(560, _CHARACTER * len(title) - margin))
    height = 130 + 34 * count
    return f"""{_head(path, "", width, height)}
set label 1 {_text(title)} at screen 0.5, screen {1 - 20 / height} center textcolor rgb "{_INK}"
set tmargin at screen {1 - 40 / height}
set lmargin at screen {margin / width}
set rmargin at screen {1 - 40 / width}
$bars << EOD
{data}
EOD
$limits << EOD
{limits}
EOD
set xlabel {_text(unit)} textcolor rgb "{_INK}"
set xrange [0:{1.25 * max(max(bar.figure.high, bar.limit or 0) for bar in bars)}]
set yrange [0.4:{count + 0.6}]
set ytics ({ticks})
set grid xtics linecolor rgb "{_FAINT}" linetype 1
set key below
plot {", ".join(plots)}
"""


def curves_script(path: Path, title: str, axis: str, unit: str, curves: Sequence[Curve], powers: bool = False) -> str:
    """Over a logarithmic axis of powers of two, with ranges; figures from 0 on, or with `powers` of ten."""
    scale = "set logscale y 10" if powers else "set yrange [0:*]"
    blocks, plots = [], []
    for i, curve in enumerate(curves):
        points = "\n".join(f"{x} {figure.median} {figure.low} {figure.high}" for x, figure in curve.points)
        blocks.append(f"$curve{i} << EOD\n{points}\nEOD")
        look = f'linewidth 2 pointtype 7 pointsize 0.6 {_colour(_COLOURS[i % len(_COLOURS)])}'
        name = f"title {_text(curve.label)}" if len(curves) > 1 else "notitle"
        plots.append(f"$curve{i} using 1:2:3:4 with yerrorlines {look} {name}")
    places = sorted({x for curve in curves for x, _ in curve.points})
    ticks = ", ".join(f'"{x:g}" {x}' for x in places)
    return f"""{_head(path, title, 860, 420)}
{chr(10).join(blocks)}
set xlabel {_text(axis)} textcolor rgb "{_INK}"
set ylabel {_text(unit)} textcolor rgb "{_INK}"
set logscale x 2
set xrange [{places[0] / 1.2}:{places[-1] * 1.2}]
{scale}
set xtics ({ticks})
set grid ytics linecolor rgb "{_FAINT}" linetype 1
set key outside below
plot {", ".join(plots)}
"""


def draw(script: str) -> None:
    run = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise Failure(f"gnuplot: {run.stderr.strip()}")
