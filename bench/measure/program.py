"""What bench/compare and bench/nvme have in common as programs."""

import argparse
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from measure.failure import Failure
from measure.machine import build_warning, load_warning

_PROJECT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Build:
    directory: Path
    qemu: str
    old_qemu: str

    @property
    def programs(self) -> Path:
        return self.directory / "bin"


def add_build_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--build", type=Path, metavar="DIR",
                        help="a build directory to measure as it is; default: build/release, brought up to date by "
                        "bench/setup")
    parser.add_argument("--qemus", type=Path, default=_PROJECT / "build/qemu", metavar="DIR",
                        help="as tests/get-qemus unpacks them; default: build/qemu")


def ensure_built(arguments: argparse.Namespace) -> Build:
    if arguments.build is None:
        subprocess.run([_PROJECT / "bench/setup"], check=True, stdout=sys.stderr)
    directory = arguments.build or _PROJECT / "build/release"
    build = Build(
        directory.resolve(),
        *(str(arguments.qemus.resolve() / version / "qemu-system-x86_64") for version in ("10", "7.2")),
    )
    needed = [str(build.programs / "vmsave"), build.qemu, build.old_qemu, "fio"]
    for program in needed:
        if shutil.which(program) is None:
            raise Failure(f"{program} is not there: bench/setup installs and builds what is needed")
    for warning in (build_warning(build.directory), load_warning()):
        if warning:
            print(f"WARNING: {warning}: the figures say little", file=sys.stderr)
    return build


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
