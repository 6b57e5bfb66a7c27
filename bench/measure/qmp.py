"""QEMU's monitor protocol, as much of it as is needed here. One thread's."""

import json
import socket
from pathlib import Path

from measure.failure import Failure

_PATIENCE_SECONDS = 600


class Qmp:
    """A connection. Every call raises Failure for what QEMU refuses, or where it has ended."""

    def __init__(self, path: Path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_PATIENCE_SECONDS)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r")
        self._events: list[dict] = []
        self._read()  # the greeting
        self.execute("qmp_capabilities")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, **arguments) -> object:
        """Names have "_" for QMP's "-"."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        message = {"execute": command} | ({"arguments": named} if named else {})
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Failure(f"QEMU refuses {command}: {answer['error']['desc']}")
            self._events.append(answer)

    def forget_events(self) -> None:
        self._events.clear()

    def wait_event(self, name: str, accept=lambda data: True) -> dict:
        """The data of the first event of that name that is accepted and was not waited for yet; others before it are
        forgotten."""
        return self._wait_event(name, accept).get("data", {})

    def wait_event_time(self, name: str) -> float:
        """The same, when it happened: seconds of the epoch, by QEMU's clock."""
        stamp = self._wait_event(name, lambda data: True)["timestamp"]
        return stamp["seconds"] + stamp["microseconds"] / 1e6

    def _wait_event(self, name: str, accept) -> dict:
        while True:
            event = self._events.pop(0) if self._events else self._read()
            if event.get("event") == name and accept(event.get("data", {})):
                return event

    def _read(self) -> dict:
        try:
            line = self._lines.readline()
        except OSError as error:
            raise Failure(f"QEMU does not answer: {error}") from None
        if not line:
            raise Failure("QEMU has ended")
        return json.loads(line)
