"""Exporters at work: each in a thread of its own, so that none disturbs the books or another.

One that raises is tried again, later each time; one that hangs is said to, and left alone. The
Prometheus page is the exception: it is made within the commit, since it touches nothing but
memory, and whoever waits for a commit may look at the page after it.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from wattledger.errors import ExportFailed, WattledgerError
from wattledger.model import Snapshot
from wattledger.model.exporting import Backlog, ExporterStatus
from wattledger.outbox import Outbox
from wattledger.ports import Clock, Exporter, RunOutbox
from wattledger.units import NS_PER_S, seconds

log = logging.getLogger(__name__)

HANG_NS = 60 * NS_PER_S
FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 300.0
LONGEST_ASKED_RETRY_S = 3600.0
LONGEST_PAUSE_S = 86_400.0
BACKLOG_AGE_NS = 30 * NS_PER_S
UNEXPECTED = "unexpected"


@dataclass(frozen=True, slots=True)
class Tools:
    """What an exporter is given; implements `ports.ExporterTools`."""

    clock: Clock
    job_labels: tuple[str, ...]
    commit_interval_ns: int
    created_timestamps: bool = False
    outbox: Outbox | None = None

    def with_outbox(self, outbox: Outbox | None) -> Tools:
        """The same with the ended runs of one exporter."""
        return replace(self, outbox=outbox)

    @property
    def runs(self) -> RunOutbox:
        """The ended runs.

        Raises:
            LookupError: its plugin does not say that it delivers runs.
        """
        if self.outbox is None:
            raise LookupError("this exporter's plugin does not say that it delivers runs")
        return self.outbox


class _Health:
    """What is known of one exporter; an `ExporterStatus` in the making."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turned = False
        self.up = False
        self.last_success_ns = 0
        self.errors: dict[str, int] = {}
        self.reason = ""
        self.message = ""
        self.hint = ""
        self.failures = 0

    def succeeded(self, wall_ns: int) -> None:
        if self.turned and not self.up:
            log.info("exporter %s delivers again", self.name)
        self.turned = self.up = True
        self.last_success_ns, self.failures = wall_ns, 0
        self.reason = self.message = self.hint = ""

    def failed(self, error: BaseException) -> None:
        """Count it; said once, and once more where the reason is another one."""
        known = isinstance(error, WattledgerError)
        reason = str(error.reason) if isinstance(error, ExportFailed) else UNEXPECTED
        before, self.reason = self.reason, reason
        self.message = error.message if isinstance(error, WattledgerError) else _told(error)
        self.hint = error.hint if isinstance(error, WattledgerError) else ""
        self.turned, self.up = True, False
        self.failures += 1
        self.errors = {**self.errors, reason: self.errors.get(reason, 0) + 1}
        if reason != before:
            log.warning(
                "exporter %s: %s; it is tried again",
                self.name,
                error if known else f"unexpected error {self.message}",
                exc_info=None if known else error,
            )

    def status(self, hanging_s: float = 0.0, hangs: int = 0) -> ExporterStatus:
        message, hint = self.message, self.hint
        if hanging_s:
            message = f"its turn has not ended for {hanging_s:.0f} s"
            hint = "the others go on; a restart of the daemon tries it anew"
        return ExporterStatus(
            exporter=self.name,
            up=self.up and not hanging_s,
            last_success_ns=self.last_success_ns,
            errors=self.errors | ({"hang": hangs} if hangs else {}),
            message=message,
            hint=hint,
        )


class ExporterThread:
    """Runs one exporter."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Exporter],
        clock: Clock,
        outbox: Outbox | None = None,
        *,
        hang_ns: int = HANG_NS,
    ) -> None:
        """A thread that has not started.

        Args:
            name: of the exporter.
            make: makes it, in the thread.
            clock: time.
            outbox: of the ended runs that it delivers; None: it delivers none.
            hang_ns: a turn that takes longer hangs.
        """
        self._make = make
        self._clock = clock
        self._outbox = outbox
        self._hang_ns = hang_ns
        self._health = _Health(name)
        self._changed = threading.Condition()
        self._snapshot: Snapshot | None = None
        self._stopping = self._started = False
        self._busy_since_ns = 0
        self._hanging = False
        self._hangs = 0
        self._backlog: Backlog | None = None
        self._counted_ns = 0
        self.done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"export-{name}", daemon=True)

    @property
    def name(self) -> str:
        """The exporter's name."""
        return self._health.name

    # ── from the sampling thread ────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin; the first turn is taken with the first snapshot."""
        self._started = True
        self._thread.start()

    def offer(self, snapshot: Snapshot) -> None:
        """Here is a newer snapshot. Never blocks."""
        with self._changed:
            self._snapshot = snapshot
            self._changed.notify_all()

    def stop(self) -> None:
        """Ask for the end; `done` is set when the exporter has let go."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if not self._started:
            self.done.set()

    def status(self) -> ExporterStatus | None:
        """Its health; None: it has not had a turn."""
        health, since_ns = self._health, self._busy_since_ns
        busy_ns = self._clock.now().monotonic_ns - since_ns if since_ns else 0
        hanging = busy_ns > self._hang_ns
        if hanging != self._hanging:
            self._hanging = hanging
            if hanging:
                self._hangs += 1
                log.error("exporter %s: its turn does not end; the others go on", health.name)
            else:
                log.warning("exporter %s: its turn has ended", health.name)
        if not health.turned and not hanging:
            return None
        status = health.status(seconds(busy_ns) if hanging else 0.0, self._hangs)
        if self._outbox is None:
            return status
        return ExporterStatus(
            status.exporter,
            status.up,
            status.last_success_ns,
            status.errors,
            status.message,
            status.hint,
            self._outbox.delivered_count,
            self._backlog,
        )

    # ── the thread ──────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        exporter: Exporter | None = None
        pause_s = 0.0
        seen: Snapshot | None = None
        while True:
            with self._changed:
                if pause_s:
                    self._changed.wait_for(lambda: self._stopping, pause_s)
                else:
                    self._changed.wait_for(lambda s=seen: self._stopping or self._snapshot is not s)  # type: ignore[misc]
                if self._stopping:
                    break
                snapshot = seen = self._snapshot
            if snapshot is None:
                continue
            exporter, pause_s = self._turn(exporter, snapshot)
        if exporter is not None:
            try:
                exporter.close(self._snapshot)
            except Exception:
                log.exception("exporter %s could not be closed", self._health.name)
        self.done.set()

    def _turn(self, exporter: Exporter | None, snapshot: Snapshot) -> tuple[Exporter | None, float]:
        """One turn. Returns the exporter, if it could be made, and how long to leave it alone."""
        self._busy_since_ns = self._clock.now().monotonic_ns
        try:
            exporter = exporter or self._make()
            pause_s = _pause_s(exporter.export(snapshot))
        except BaseException as error:  # noqa: BLE001  (a plugin's exit() ends no thread of ours)
            self._health.failed(error)
            return exporter, patience_s(error, self._health.failures)
        finally:
            self._count_backlog()
            self._busy_since_ns = 0
        self._health.succeeded(self._clock.now().wall_ns)
        return exporter, pause_s

    def _count_backlog(self) -> None:
        now_ns = self._clock.now().monotonic_ns
        if self._outbox is None or (now_ns < self._counted_ns and _is_long(self._backlog)):
            return
        try:
            self._backlog = self._outbox.backlog()
        except WattledgerError:
            self._backlog = None  # the ledger's own metrics say what is wrong with it
        self._counted_ns = now_ns + BACKLOG_AGE_NS


def patience_s(error: BaseException, failures: int) -> float:
    """How long an exporter that failed is left alone: as it asks for, else longer each time.

    Args:
        error: what it raised.
        failures: how many of its turns in a row failed, this one included.
    """
    asked_s: object = error.retry_after_s if isinstance(error, ExportFailed) else None
    # A plugin may say anything. With NaN a thread would wait for nothing, and never sleep.
    if isinstance(asked_s, int | float):
        clamped_s = min(max(asked_s, 0.05), LONGEST_ASKED_RETRY_S)
        if math.isfinite(clamped_s):
            return float(clamped_s)
    usual_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(failures - 1, 10))
    return float(usual_s * random.uniform(0.8, 1.2))  # noqa: S311  (a fleet must not come at once)


def _pause_s(asked_s: float) -> float:
    """What an exporter returned, as a time.

    Raises:
        ValueError: it is none.
    """
    pause_s = float(asked_s)
    if not math.isfinite(pause_s):
        raise ValueError(f"export returned {pause_s}, which is no time to wait")
    return min(max(0.0, pause_s), LONGEST_PAUSE_S)


def _told(error: BaseException) -> str:
    try:
        return repr(error)
    except BaseException:  # noqa: BLE001  (a plugin's own error ends no thread of ours)
        return type(error).__name__


def _is_long(backlog: Backlog | None) -> bool:
    """It takes some ms to count it."""
    return backlog is not None and sum(backlog) > 1_000


class Exporters:
    """All exporters of the daemon, as the sampling thread sees them."""

    def __init__(
        self,
        threads: Sequence[ExporterThread],
        page: Exporter,
        clock: Clock,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Exporters that have not started.

        Args:
            threads: all but the page.
            page: the Prometheus one.
            clock: time.
            close: called at the end, where none hangs.
        """
        self._close = close
        self._threads = tuple(threads)
        self._page = page
        self._clock = clock
        self._page_health = _Health("prometheus")

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def take(self, snapshot: Snapshot) -> None:
        """A commit was made: render its page, and give it to all others. Never raises."""
        try:
            self._page.export(snapshot)
        except Exception as error:  # noqa: BLE001  (the books go on; the page grows old and says so)
            self._page_health.failed(error)
        else:
            self._page_health.succeeded(self._clock.now().wall_ns)
        for thread in self._threads:
            thread.offer(snapshot)

    def statuses(self) -> tuple[ExporterStatus, ...]:
        """The health of those that have had a turn."""
        found = [thread.status() for thread in self._threads]
        page = [self._page_health.status()] if self._page_health.turned else []
        return (*page, *(status for status in found if status is not None))

    def stop(self, wait_s: float) -> None:
        """Ask all for the end, and wait for it, but not for long."""
        for thread in self._threads:
            thread.stop()
        deadline_s = time.monotonic() + wait_s
        left = [t for t in self._threads if not t.done.wait(max(0, deadline_s - time.monotonic()))]
        for thread in left:
            log.warning("exporter %s does not come to an end; leaving without it", thread.name)
        if not left:
            self._close()
