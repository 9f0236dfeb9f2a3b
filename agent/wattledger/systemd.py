"""The process and who runs it: signals in, notifications out."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

NOTIFY_TIMEOUT_S = 1.0


class Signals:
    """Signals taken by a thread of their own.

    A Python signal handler runs inside whatever the main thread is doing; one that sets an Event
    may find that Event's lock held by the very code it interrupted, and wait for ever. So the
    signals are blocked before any thread starts, and one thread waits for them.
    """

    def __init__(self, actions: Mapping[signal.Signals, Callable[[], None]]) -> None:
        """Block the signals; call it before any thread is started."""
        self._actions = actions
        signal.pthread_sigmask(signal.SIG_BLOCK, set(actions))

    def start(self) -> None:
        """Act on them from now on; those that came meanwhile are not lost."""
        threading.Thread(target=self._run, name="signals", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._actions[signal.Signals(signal.sigwait(set(self._actions)))]()


class Notifier:
    """Messages to systemd by its notification socket (sd_notify(3)); silent without one."""

    def __init__(self, address: str | None = None) -> None:
        """Args: address: as in `$NOTIFY_SOCKET`, which is taken when None."""
        self._address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address

    @property
    def supervised(self) -> bool:
        """Somebody started this process who starts it again when it fails."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """The service works; `systemctl status` shows the status line."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog. Called by the sampling loop only: it is what must not hang."""
        self._send("WATCHDOG=1")

    def reloading(self, now_monotonic_ns: int) -> None:
        """A reload begins; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_monotonic_ns // 1000}")

    def stopping(self) -> None:
        """The service is ending."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(NOTIFY_TIMEOUT_S)  # a full queue must not hold the sampling loop
                sock.connect(address)
                sock.sendall(message.encode())
        except OSError as error:
            log.debug("systemd could not be told: %s", error)
