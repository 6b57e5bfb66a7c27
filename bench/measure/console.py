"""What the test guest prints, and when; see tests/guest/README.md."""

import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from measure.failure import Failure

_PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Tick:
    number: int
    finding: str
    at: float  # seconds of the epoch


def parse_tick(line: str, at: float) -> Tick | None:
    """Of a whole line; nothing of lines that say something else."""
    match = re.fullmatch(r"tick (\d+) (.*)", line.strip())
    return Tick(int(match[1]), match[2], at) if match else None


class Console:
    """A guest's serial port, from the connection on: a thread notes each tick as it comes. Raises Failure where the
    guest finds its memory wrong, ends, or takes too long."""

    def __init__(self, path: Path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._changed = threading.Condition()
        self._ticks: list[Tick] = []
        self._flaw: Tick | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the guest was first
        self._thread.join()
        self._socket.close()

    def first(self) -> Tick:
        return self._wait(0)

    def behind(self, tick: Tick, count: int) -> Tick:
        """The tick that comes `count` ticks later."""
        return self._wait(tick.number - self.first().number + count)

    def last(self) -> Tick:
        """REQUIRES: there was a first one."""
        with self._changed:
            return self._ticks[-1]

    def _wait(self, place: int) -> Tick:
        with self._changed:
            self._changed.wait_for(lambda: len(self._ticks) > place or self._ended or self._flaw, _PATIENCE_SECONDS)
            if self._flaw:
                raise Failure(f"the guest's memory is wrong: tick {self._flaw.number} {self._flaw.finding}")
            if len(self._ticks) <= place:
                raise Failure("the guest has ended" if self._ended else "the guest does not tick")
            return self._ticks[place]

    def _listen(self) -> None:
        rest = b""
        while True:
            try:
                said = self._socket.recv(1 << 16)
            except OSError:
                said = b""
            now = time.time()
            *lines, rest = (rest + said).split(b"\n")
            ticks = [tick for line in lines if (tick := parse_tick(line.decode(errors="replace"), now))]
            with self._changed:
                self._ticks += ticks
                self._flaw = self._flaw or next((tick for tick in ticks if tick.finding != "ok"), None)
                self._ended = not said
                self._changed.notify_all()
            if not said:
                return
