"""What bench/compare, bench/lazy and bench/nvme have in common as programs."""

import argparse
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable

from measure.failure import Failure
from measure.machine import build_warning, load_warning

PROJECT = Path(__file__).resolve().parent.parent.parent


def add_build_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--build", type=Path, metavar="DIR",
                        help="a build directory to measure as it is; default: build/release, brought up to date by "
                        "bench/setup")


def ensure_built(build: Path | None) -> Path:
    """The build directory. Warns of what makes figures worthless."""
    if build is None:
        subprocess.run([PROJECT / "bench/setup"], check=True, stdout=sys.stderr)
        build = PROJECT / "build/release"
    for warning in (build_warning(build), load_warning()):
        if warning:
            print(f"WARNING: {warning}: the figures say little", file=sys.stderr)
    return build.resolve()


def require_programs(*programs: Path | str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise Failure(f"{program} is not there: bench/setup installs and builds what is needed")


def tell(line: str) -> None:
    """How far it has come; the line stays only where that is no terminal."""
    end = "\r\033[K" if sys.stderr.isatty() else "\n"
    print(line, end=end, file=sys.stderr, flush=True)


def run_program(name: str, body: Callable[[], None]) -> int:
    """The exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # guests and files do not stay behind
    try:
        body()
    except Failure as failure:
        print(f"{name}: {failure}", file=sys.stderr)
    except subprocess.CalledProcessError:
        print(f"{name}: bench/setup failed", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    else:
        return 0
    return 1
