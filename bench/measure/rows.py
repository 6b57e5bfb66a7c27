"""What the programs have in common that measure rows of work: options, room for the guests, output."""

import argparse
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

from measure import machine, report
from measure.bench import Bench, Sizes
from measure.program import PROJECT, add_build_option, ensure_built, require_programs, tell
from measure.sizes import MIB
from measure.work import Measured, Work, measure

_QEMUS_OWN = 512 * MIB  # what QEMUs and the programs need besides the guests' RAM


def _choice_of(works: Sequence[Work]) -> Callable[[str], list[Work]]:
    def parse(text: str) -> list[Work]:
        keys = set(text.replace(",", ""))
        unknown = keys - {work.key for work in works}
        if unknown or not keys:
            raise argparse.ArgumentTypeError(f"no row is called {', '.join(sorted(unknown)) or 'so'}")
        return [work for work in works if work.key in keys]

    return parse


def make_parser(description: str, works: Sequence[Work]) -> argparse.ArgumentParser:
    rows = "\n".join(f"  {work.key}  {work.title}" for work in works)
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"rows:\n{rows}\n\nexit status: 0 measured, whatever came of it; 1 failed; 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=_choice_of(works), default=works, metavar="KEYS",
                        help="rows to measure, as a,c; default: all")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5; one more warms up")
    parser.add_argument("--dir", type=Path, default=Path("."), metavar="DIR",
                        help="on the file system to measure; default: the current directory")
    parser.add_argument("--ram-dir", type=Path, default=Path("/dev/shm"), metavar="DIR",
                        help="for the guests' RAM; default: /dev/shm")
    parser.add_argument("--scale", type=float, default=1, metavar="N", help="divides all sizes; default: 1")
    parser.add_argument("--channels", type=int, default=8, metavar="N", help="of vmsave and QEMU; default: 8")
    parser.add_argument("--io-engine", choices=("uring", "sync"), default="uring", help="of vmsave; default: uring")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="every single run")
    parser.add_argument("--charts", type=Path, metavar="DIR", help="SVG, by gnuplot")
    add_build_option(parser)
    parser.add_argument("--qemus", type=Path, default=PROJECT / "build/qemu", metavar="DIR",
                        help="as tests/get-qemus unpacks them; default: build/qemu")
    return parser


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.scale <= 0 or not 1 <= arguments.channels <= 256:
        parser.error("--rounds and --channels are at least 1 (channels at most 256), and --scale is above 0")
    return arguments


@contextmanager
def make_bench(name: str, arguments: argparse.Namespace, sizes: Sizes) -> Iterator[Bench]:
    """With a directory for its files, which goes with them."""
    build = ensure_built(arguments.build)
    qemu, old_qemu = (arguments.qemus.resolve() / version / "qemu-system-x86_64" for version in ("10", "7.2"))
    require_programs(build / "bin/vmsave", qemu, old_qemu)
    with tempfile.TemporaryDirectory(prefix=f"vmsave-{name}.", dir=arguments.dir.resolve()) as scratch:
        yield Bench(
            programs=build / "bin",
            qemu=str(qemu),
            old_qemu=str(old_qemu),
            directory=Path(scratch),
            ram_directory=arguments.ram_dir,
            channels=arguments.channels,
            engine=arguments.io_engine,
            sizes=sizes,
        )


def require_room(work: Work, bench: Bench) -> None:
    guests = work.memory(bench.sizes)
    machine.require_memory(guests + _QEMUS_OWN, f"row {work.key}")
    machine.require_space(bench.ram_directory, guests, f"row {work.key}")
    machine.require_space(bench.directory, 2 * work.payload(bench.sizes), f"row {work.key}")


def measure_rows(works: Sequence[Work], bench: Bench, arguments: argparse.Namespace, facts: Mapping[str, str],
                 describe: Callable[[Measured, int], str]) -> list[Measured]:
    """Each is printed as soon as it is there."""
    print(report.facts_list(facts) + "\n", flush=True)
    results: list[Measured] = []
    for work in works:
        results.append(measure(work, bench, arguments.rounds, tell))
        print(describe(results[-1], arguments.rounds), flush=True)
        if arguments.csv:
            report.write_csv(arguments.csv, facts, results)
    return results
