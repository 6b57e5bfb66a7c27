"""What bench/nvme measured, as tables, CSV and charts."""

import csv
from dataclasses import astuple, fields
from pathlib import Path
from typing import Mapping, Sequence

from measure.charts import Curve, curves_script, draw
from measure.report import facts_list, in_digits, table, with_range
from measure.sizes import KIB, MIB
from measure.statistics import Spread
from measure.sweep import FIO, Setting, Swept
from measure.usage import Usage

_UNIT = "GiB/s"


def _block(setting: Setting) -> str:
    return f"{setting.block // KIB} KiB" if setting.block < MIB else f"{setting.block // MIB} MiB"


def _row(swept: Swept, setting: Setting) -> list[str]:
    rates = [with_range(swept.rates(tool, setting)) for tool in swept.tools]
    shares = [with_range(swept.share(tool, setting)) for tool in swept.tools if tool != FIO]
    return rates + shares


def _table(swept: Swept, names: Sequence[str], cells) -> str:
    columns = [f"{tool}, {_UNIT}" for tool in swept.tools] + [f"{tool} / fio" for tool in swept.tools if tool != FIO]
    return table([*names, *columns], [[*cells(setting), *_row(swept, setting)] for setting in swept.settings])


def depth_table(swept: Swept) -> str:
    return _table(swept, ("block", "depth"), lambda setting: (_block(setting), str(setting.depth)))


def channels_table(swept: Swept) -> str:
    return _table(swept, ("engine", "channels", "depth"),
                  lambda setting: (setting.way(), str(setting.channels), str(setting.depth)))


def limit_line(swept: Swept) -> str:
    setting, rate = swept.limit()
    return (
        f"fio's limit here: {in_digits(rate.median)} {_UNIT} ({setting.direction}, {setting.way()}, {setting.channels} "
        f"channels, depth {setting.depth}, {_block(setting)})"
    )


def write_csv(path: Path, facts: Mapping[str, str], sweeps: Sequence[Swept]) -> None:
    """Every single run, as in bench/compare."""
    usage_columns = [field.name for field in fields(Usage)]
    with path.open("w", newline="") as file:
        file.writelines(f"# {line}\n" for line in facts_list(facts).split("\n"))
        rows = csv.writer(file)
        rows.writerow(["tool", *(field.name for field in fields(Setting)), "round", "size", *usage_columns])
        for swept in sweeps:
            for (tool, setting), runs in swept.runs.items():
                for number, run in enumerate(runs, 1):
                    rows.writerow([tool, *astuple(setting), number, swept.size, *astuple(run)])


def _points(swept: Swept, tool: str, settings: Sequence[Setting], axis: str) -> list[tuple[float, Spread]]:
    return [(getattr(setting, axis), swept.rates(tool, setting)) for setting in settings]


def draw_depths(swept: Swept, path: Path) -> None:
    blocks = list(dict.fromkeys(setting.block for setting in swept.settings))
    curves = []
    for tool in swept.tools:
        for block in blocks:
            settings = [setting for setting in swept.settings if setting.block == block]
            curves.append(Curve(f"{tool}, {_block(settings[0])}", _points(swept, tool, settings, "depth")))
    direction = swept.settings[0].direction
    title = f"One channel past the page cache, io_uring, {direction}"
    draw(curves_script(path, title, "requests in flight", _UNIT, curves))


def draw_channels(swept: Swept, direct: bool, path: Path) -> None:
    curves = []
    for tool in swept.tools:
        for engine in ("uring", "sync"):
            settings = [setting for setting in swept.settings if (setting.engine, setting.direct) == (engine, direct)]
            curves.append(Curve(f"{tool}, {engine}", _points(swept, tool, settings, "channels")))
    title = f"1 MiB a request, {'past' if direct else 'through'} the page cache, synced"
    draw(curves_script(path, title, "channels", _UNIT, curves))
