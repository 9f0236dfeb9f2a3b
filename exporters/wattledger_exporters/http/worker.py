"""One thread for what blocks: a query of the ledger, a password's hash, a release of the GPUs.

`concurrent.futures` is not used: the interpreter joins its threads at exit, and a driver call that
hangs must not hold the daemon's exit.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Busy(Exception):
    """The worker has as many jobs waiting as it takes."""


class Worker:
    """Runs jobs one after another in a daemon thread that starts with the first job."""

    def __init__(self, name: str, waiting: int) -> None:
        self._name = name
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(maxsize=waiting)
        self._thread: threading.Thread | None = None

    async def run(self, job: Callable[[], T], timeout_s: float) -> T:
        """The job's result; after `timeout_s` the caller goes on, the job does not stop.

        Raises:
            Busy: too many are waiting.
            TimeoutError: it takes too long.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(set_it: Callable[[Any], None], outcome: object) -> None:
            if not future.done():
                set_it(outcome)

        def work() -> None:
            if future.cancelled():  # whoever asked has gone
                return
            try:
                outcome: tuple[Callable[[Any], None], object] = future.set_result, job()
            except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
                outcome = future.set_exception, error
            with suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(settle, *outcome)

        try:
            self._jobs.put_nowait(work)
        except queue.Full:
            raise Busy from None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return await asyncio.wait_for(future, timeout_s)

    def stop(self) -> None:
        """End the thread after the job in hand; does not wait for it."""
        with suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
        with suppress(queue.Full):
            self._jobs.put_nowait(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
