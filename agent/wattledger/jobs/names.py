"""Users' names by uid, without waiting: a directory server may take its time, or be down."""

from __future__ import annotations

import logging
import pwd
import queue
import threading
from collections.abc import Callable

_MAX_KNOWN = 20_000
_MAX_WAITING = 1_000
NAME_CHARS = 128

log = logging.getLogger(__name__)


def lookup(uid: int) -> str:
    """The system's name for a uid; empty: it has none. May block as long as NSS does."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""


class UserNames:
    """Names as they become known; a thread of its own asks for them."""

    def __init__(self, ask: Callable[[int], str] = lookup) -> None:
        """Args: ask: the name of a uid, empty where there is none; may block."""
        self._ask = ask
        self._names: dict[int, str] = {}
        self._waiting: queue.Queue[int] = queue.Queue(_MAX_WAITING)
        self._thread: threading.Thread | None = None

    def name(self, uid: int) -> str:
        """The name (the uid, where there is none), or nothing until that is known. Never blocks."""
        known = self._names.get(uid)
        if known is not None:
            return known
        if len(self._names) < _MAX_KNOWN and not self._waiting.full():
            self._names[uid] = ""
            self._waiting.put_nowait(uid)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="names", daemon=True)
                self._thread.start()
        return ""

    def settle(self) -> None:
        """Wait until all that was asked for is answered; for tests."""
        self._waiting.join()

    def _run(self) -> None:
        while True:
            uid = self._waiting.get()
            try:
                self._names[uid] = self._ask(uid)[:NAME_CHARS] or str(uid)
            except Exception:
                log.exception("the name of uid %d could not be looked up", uid)
            finally:
                self._waiting.task_done()
