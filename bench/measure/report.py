"""What was measured as text and as CSV. Pure, but for the writing of the file."""

import csv
from dataclasses import fields
from pathlib import Path
from typing import Mapping, Sequence

from measure.sizes import GIB, format_size
from measure.statistics import Spread, Verdict, spread
from measure.work import Measured, Target

_FIGURES = {"wall": "time", "cpu": "CPU", "peak": "own memory"}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, its columns aligned."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |"

    return "\n".join([line(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])


def in_digits(figure: float) -> str:
    return f"{figure:.2f}" if figure < 10 else f"{figure:.1f}"


def in_milliseconds(seconds: float) -> str:
    return f"{in_digits(seconds * 1000)} ms"


def with_range(figures: Spread) -> str:
    return f"{in_digits(figures.median)} ({in_digits(figures.low)}..{in_digits(figures.high)})"


def figures_table(measured: Measured) -> str:
    payload = measured.work.payload(measured.sizes)

    def row(name: str) -> list[str]:
        def size(figure: str) -> str:
            return format_size(measured.spread(name, figure).median)

        rates = spread([payload / GIB / wall for wall in measured.figures(name, "wall")])
        times = [measured.spread(name, "wall"), rates, measured.spread(name, "cpu")]
        return [name, *map(with_range, times), *map(size, ("written", "read", "on_disk", "peak"))]

    header = ["", "seconds", "GiB/s", "CPU s", "written", "read", "on disk", "own memory"]
    return table(header, [row(name) for name in measured.contenders])


def outcome(verdict: Verdict) -> str:
    if verdict.reached:
        return f"reached, {abs(verdict.excess):.0%} to spare"
    return f"missed by {verdict.excess:.0%}"


def _targets_row(measured: Measured, target: Target, figures: Mapping[str, str]) -> list[str]:
    verdict = measured.verdict(target)
    if target.theirs is None:
        unit = format_size if target.figure == "peak" else in_milliseconds
        figure, limit = f"at most {unit(verdict.figure.median)}", unit(verdict.limit)
    else:
        figure, limit = with_range(verdict.figure), in_digits(verdict.limit)
    return [target.name(), figures[target.figure], figure, f"<= {limit}", outcome(verdict)]


def targets_table(measured: Measured, figures: Mapping[str, str] = _FIGURES) -> str:
    """`figures`: what those of the targets are called."""
    rows = [_targets_row(measured, target, figures) for target in measured.targets()]
    return table(["ratio", "of", "figure (least..most)", "target", ""], rows)


def describe(measured: Measured, rounds: int) -> str:
    work = measured.work
    payload = format_size(work.payload(measured.sizes))
    return (
        f"## {work.key}: {work.title} ({payload}; medians of {rounds} rounds)\n\n"
        f"{figures_table(measured)}\n\n{targets_table(measured)}\n"
    )


def facts_list(facts: Mapping[str, str]) -> str:
    width = max(map(len, facts)) + 1
    return "\n".join(f"{name + ':':<{width}} {fact}" for name, fact in facts.items())


def write_csv(path: Path, facts: Mapping[str, str], results: Sequence[Measured]) -> None:
    """Every single run; what the machine was stands in front, in lines that start with "#". Seconds and bytes.
    REQUIRES: a result, and usage of the same kind in all."""
    with path.open("w", newline="") as file:
        file.writelines(f"# {line}\n" for line in facts_list(facts).split("\n"))
        rows = csv.writer(file)
        columns = [field.name for field in fields(results[0].samples[0].usage)]
        rows.writerow(["work", "title", "contender", "round", "place", "payload", *columns])
        for measured in results:
            work = measured.work
            for sample in measured.samples:
                usage = [getattr(sample.usage, name) for name in columns]
                head = [work.key, work.title, sample.contender, sample.round, sample.place]
                rows.writerow([*head, work.payload(measured.sizes), *usage])
