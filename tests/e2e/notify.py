"""systemd's end of sd_notify(3)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

MARK = b"mark of the test's own"
READ_S = 60.0


class NotifySocket:
    """What a service tells systemd, read as it comes: the queue of the kernel is short."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[tuple[float, str]] = []  # (monotonic s, line)
        self._changed = threading.Condition()
        self._marks_sent = self._marks_read = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._read, name="notify", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            with self._changed:
                now = time.monotonic()
                if message == MARK:
                    self._marks_read += 1
                else:
                    self.messages += [(now, line) for line in message.decode().splitlines()]
                self._changed.notify_all()

    def _send(self, message: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.connect(str(self.path))
            end.send(message)

    def _catch_up(self) -> None:
        """Returns when all that was sent before has been read, whoever sent it and has ended."""
        with self._changed:
            self._marks_sent += 1
            mine = self._marks_sent
        self._send(MARK)
        with self._changed:
            assert self._changed.wait_for(lambda: self._marks_read >= mine, READ_S)

    def clear(self) -> None:
        """Forget what was said until now."""
        self._catch_up()
        with self._changed:
            self.messages.clear()

    def lines(self) -> list[str]:
        """What was said until now."""
        self._catch_up()
        with self._changed:
            return [line for _, line in self.messages]

    def wait_for(self, line: str, timeout_s: float, alive: Callable[[], bool]) -> bool:
        """Whether the line came while the process was alive."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not any(found == line for _, found in self.messages):
                if time.monotonic() > deadline or not alive():
                    return False
                self._changed.wait(0.05)
        return True

    def close(self) -> None:
        self._send(b"")
        self._thread.join(5)
        self._socket.close()
        self.path.unlink()
