"""Settling and restating within the daemon: a thread, and a ledger that writes it bit by bit.

The thread fetches and compares, once a day and when it is asked to; what it finds goes into the
next commits of the sampling thread, the only one that writes.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Protocol

from wattledger.errors import WattledgerError
from wattledger.model import Batch, Books, Instant, LedgerStatus
from wattledger.model.restating import Restatement, Stale, says_anew
from wattledger.model.settle_report import RestateResult, SettleReport, SettleResult
from wattledger.model.settling import Settlement
from wattledger.ports import Clock, Ledger
from wattledger.restater import RestatingBooks, record, restate, restated_total
from wattledger.settler import DAY_NS, Settler, SettleSources, SettlingBooks, Stopped
from wattledger.units import kwh, seconds

log = logging.getLogger(__name__)

SWITCHED_OFF = "settling is switched off by grid.settle_window"
SLOTS_PER_COMMIT = 32  # hundreds of entries: 20 ms more of a commit
Correction = Settlement | Restatement | Stale


class SettlingLedger:
    """A `ports.Ledger` that adds corrections to the commits, a few to each."""

    def __init__(self, ledger: Ledger, most: int = SLOTS_PER_COMMIT) -> None:
        """Args: ledger: the books. most: of one commit."""
        self._ledger = ledger
        self._most = most
        self._waiting: deque[Correction] = deque()
        self._changed = threading.Condition()
        self._stopped = False

    @property
    def books(self) -> Books:
        """The committed state."""
        return self._ledger.books

    @property
    def status(self) -> LedgerStatus:
        """The ledger's health."""
        return self._ledger.status

    def commit(self, batch: Batch, now: Instant) -> Books:
        """Write a batch with the corrections that come next; see `ports.Ledger.commit`.

        Raises:
            CommitFailed: nothing of it was written; the corrections stay here, too.
        """
        with self._changed:
            part = tuple(islice(self._waiting, self._most))
        books = self._ledger.commit(with_corrections(batch, part) if part else batch, now)
        if part:
            with self._changed:
                for _ in part:
                    self._waiting.popleft()
                self._changed.notify_all()
        return books

    def close(self) -> None:
        """Close the books."""
        self._ledger.close()

    # ── the settling thread ─────────────────────────────────────────────────────────────────────

    def settle(
        self, corrections: Sequence[Correction], hurry: Callable[[], None] | None = None
    ) -> None:
        """Have settlements, restatements and what is stale written, and wait for it.

        Args:
            corrections: one thread's at a time.
            hurry: asks for a commit, where somebody waits for it; None: there is time.

        Raises:
            Stopped: they are not written any more.
        """
        with self._changed:
            self._waiting.extend(corrections)
            while self._waiting and not self._stopped:
                if hurry is not None:
                    hurry()
                self._changed.wait()
            if self._stopped:
                raise Stopped

    def stop(self) -> None:
        """Nobody waits any more; what is not written yet is found again by the next process."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


def with_corrections(batch: Batch, part: Sequence[Correction]) -> Batch:
    """A batch that writes corrections, too."""
    return replace(
        batch,
        settlements=tuple(one for one in part if isinstance(one, Settlement)),
        restatements=tuple(one for one in part if isinstance(one, Restatement)),
        stale=tuple(one for one in part if isinstance(one, Stale)),
    )


class DeskBooks(SettlingBooks, RestatingBooks, Protocol):
    """What is asked of the books."""


class SettleDesk:
    """Settles and restates once a day, and when it is asked to; for any thread."""

    def __init__(
        self,
        ledger: SettlingLedger,
        books: DeskBooks,
        clock: Clock,
        ask_commit: Callable[[], None],
        first_s: float,
    ) -> None:
        """A desk that has not started.

        Args:
            ledger: takes the settlements.
            books: to compare with; read in the desk's own thread.
            clock: time.
            ask_commit: commits soon.
            first_s: how long after the start it settles of itself for the first time.
        """
        self._ledger = ledger
        self._books = books
        self._clock = clock
        self._ask_commit = ask_commit
        self._rest_s = first_s
        self._sources = SettleSources((), "")
        self._window_ns = 0
        self._asked_ns = 0  # the window that somebody waits for; 0: nobody does
        self._made: list[Restatement] = []  # not in the books yet, and somebody waits for it
        self._doing = 0  # of these, those that are being done
        self._begun = self._ended = 0
        self._is_asked = False  # the one that is under way
        self._result = SettleResult(False)
        self._failure = ""  # of the last look at what is restated
        self._trouble: set[str] = set()  # sources, and "" for another basis: what was said
        self._changed = threading.Condition()
        self._stopped = False

    def configure(self, sources: SettleSources, window_ns: int) -> None:
        """Settle by these sources, within this window, from the next time on."""
        with self._changed:
            self._sources, self._window_ns = sources, window_ns

    def start(self) -> None:
        """Begin, in a daemon thread."""
        threading.Thread(target=self._run, name="settle", daemon=True).start()

    def stop(self) -> None:
        """End soon; nothing is waited for."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._ledger.stop()

    def settle(self, window_ns: int | None, wait_s: float) -> SettleResult:
        """Settle now, or join those who asked before and wait for it.

        Args:
            window_ns: of slots of the last so many nanoseconds, at most the window configured;
                None: all of that.
            wait_s: how long to wait here.
        """
        with self._changed:
            if not self._window_ns:
                return SettleResult(True, message=SWITCHED_OFF)
            if window_ns is None or window_ns > self._window_ns:
                window_ns = self._window_ns
            joins = self._is_asked and self._begun > self._ended
            number = self._begun if joins else self._begun + 1
            if not joins:
                self._asked_ns = max(self._asked_ns, window_ns, 1)
                self._changed.notify_all()
            ended = self._changed.wait_for(lambda: self._stopped or self._ended >= number, wait_s)
            return self._result if ended and not self._stopped else SettleResult(False)

    def restate(self, made: Restatement, wait_s: float) -> RestateResult:
        """Record a restatement and bring it to the entries that it covers; wait for it.

        One whose factors are in force already is not recorded again: who asks again goes on
        waiting for what was asked first.

        Args:
            made: what somebody says.
            wait_s: how long to wait here.

        Raises:
            LedgerError: the books cannot be read.
        """
        with self._changed:
            is_new = says_anew(made, (*self._ledger.books.restatements, *self._made))
            if is_new or self._begun == self._ended:
                self._made.append(made)  # where it is not new, what is left of it is looked for
                self._changed.notify_all()
            number = self._begun + (len(self._made) > self._doing)
            ended = self._changed.wait_for(lambda: self._stopped or self._ended >= number, wait_s)
            if self._stopped or not ended:
                return RestateResult(False, made, is_new)
            if self._failure:
                return RestateResult(True, made, is_new, message=self._failure)
        return RestateResult(True, made, is_new, restated_total(self._books, made))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopped or self._asked_ns > 0 or bool(self._made), self._rest_s
                )
                if self._stopped:
                    return
                asked_ns, self._asked_ns = self._asked_ns, 0
                made, self._doing = tuple(self._made), len(self._made)
                hurry = self._ask_commit if asked_ns or made else None
                if hurry is None:
                    self._rest_s = seconds(DAY_NS)
                window_ns = asked_ns or (0 if made else self._window_ns)
                self._is_asked = asked_ns > 0
                self._begun += 1
                sources, known = self._sources, self._ledger.books.restatements
            take = partial(self._ledger.settle, hurry=hurry)
            result, failure = self._result, ""
            try:
                failure = self._restate(made, known, take)
                if window_ns:
                    settler = Settler(sources, self._books, self._clock, take)
                    result = self._settle(settler, window_ns)
            except Stopped:
                return
            with self._changed:
                del self._made[: len(made)]
                self._doing = 0
                self._ended, self._result, self._failure = self._begun, result, failure
                self._changed.notify_all()

    def _settle(self, settler: Settler, window_ns: int) -> SettleResult:
        try:
            result = SettleResult(True, settler.settle(window_ns))
        except Stopped:
            raise
        except WattledgerError as error:
            log.warning("the past could not be settled: %s", error)
            return SettleResult(True, message=str(error))
        except Exception:
            # Whatever a provider sent must not end the settling for good.
            log.exception("the past could not be settled")
            return SettleResult(True, message="an unexpected error; the log tells more")
        self._say(result.report)
        return result

    def _restate(
        self,
        made: Sequence[Restatement],
        known: Sequence[Restatement],
        take: Callable[[Sequence[Correction]], None],
    ) -> str:
        """Returns why it could not be done; empty where it was."""
        for one in record(made, known, take):
            log.info("restated by %s: %s (%s)", one.author, one.factors, one.reason)
        try:
            changed = restate(self._books, self._clock.now().wall_ns, take)
        except WattledgerError as error:
            log.warning("the past could not be restated: %s", error)
            return str(error)
        except Stopped:
            raise
        except Exception:
            log.exception("the past could not be restated")
            return "an unexpected error; the log tells more"
        if changed:
            log.info("restated: %d slots and hours", changed)
        return ""

    def _say(self, report: SettleReport | None) -> None:
        """Say what is new; what goes wrong day after day is said when it begins."""
        if report is None:
            return
        if report.changed_slots:
            log.info(
                "settled: %d prices of 5 minutes are published otherwise or anew; %.3f of %.3f kWh "
                "of the window are settled",
                report.changed_slots,
                kwh(report.total.settled.energy_uj),
                kwh(report.total.amounts.energy_uj),
            )
        trouble = dict(report.problems)
        if report.other_basis_uj:
            trouble[""] = ""
        for name in trouble.keys() - self._trouble:
            if name:
                log.warning("grid source %s, asked for its past: %s", name, trouble[name])
            else:
                log.warning(
                    "%.3f kWh are not settled: their price was published on another basis only",
                    kwh(report.other_basis_uj),
                )
        self._trouble = set(trouble)
