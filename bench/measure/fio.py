"""fio: what the disk could do."""

import json
from dataclasses import dataclass
from pathlib import Path

from measure import usage
from measure.usage import Usage


@dataclass(frozen=True)
class FioJob:
    """Sequential. `jobs` share the bytes, each in a stretch of its own."""

    direction: str  # "write" or "read"
    size: int
    block: int = 1 << 20
    depth: int = 32
    engine: str = "io_uring"
    direct: bool = True
    jobs: int = 1
    offset: int = 0

    def command(self, file: Path) -> list[str]:
        share = self.size // self.jobs // self.block * self.block
        command = [
            "fio", "--name=limit", f"--filename={file}", f"--rw={self.direction}", f"--size={share}",
            f"--bs={self.block}", f"--ioengine={self.engine}", f"--iodepth={self.depth}",
            f"--direct={int(self.direct)}", f"--numjobs={self.jobs}", f"--offset={self.offset}",
            f"--offset_increment={share}", "--thread", "--group_reporting", "--output-format=json",
        ]
        if self.direction == "write":
            return command + ["--end_fsync=1"]
        return command + ["--readonly", "--invalidate=1"]


def run(job: FioJob, file: Path, output: Path) -> Usage:
    """The time is fio's own, without its start. A file to write is made anew, allocated ahead as fio does by default,
    and synced; one to read must be there."""
    if job.direction == "write":
        file.unlink(missing_ok=True)
    spent = usage.run(job.command(file), output)
    text = output.read_text()
    result = json.loads(text[text.index("{"):])["jobs"][0][job.direction]
    spent.wall = result["runtime"] / 1000
    if job.direction == "write":
        spent.on_disk = usage.on_disk(file)
    return spent
