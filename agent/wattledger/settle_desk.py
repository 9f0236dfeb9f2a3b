"""Settling and restating within the daemon: a thread, and requests to it.

The thread fetches and compares, once a day and when it is asked to; what it finds goes into the
next commits of the sampling thread, the only one that writes; see `SettlingLedger`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from wattledger.errors import WattledgerError
from wattledger.model.restating import Restatement, says_anew
from wattledger.model.settle_report import RestateResult, SettleReport, SettleResult
from wattledger.ports import Clock
from wattledger.restater import RestatingBooks, record, restate, restated_total
from wattledger.settler import DAY_NS, Settler, SettleSources, SettlingBooks, Stopped
from wattledger.settling_ledger import Correction, SettlingLedger
from wattledger.units import kwh, seconds

log = logging.getLogger(__name__)

REMEMBERED = 64  # restatements that somebody may be waiting for
SWITCHED_OFF = "settling is switched off by grid.settle_window"


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
        self._due_s = time.monotonic() + first_s  # when all of the window is looked at again
        self._sources = SettleSources((), "")
        self._window_ns = 0
        self._asked_ns = 0  # the window that somebody waits for; 0: nobody does
        self._made: list[Restatement] = []  # not in the books yet, and somebody waits for it
        self._doing = 0  # of these, those that are being done
        self._begun = self._ended = 0
        self._is_asked = False  # the one that is under way
        self._is_restating = False  # likewise: somebody waits for what it restates
        self._heard: dict[Restatement, tuple[int, bool]] = {}  # when it is done; whether it is new
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
                self._hurry()
            ended = self._changed.wait_for(lambda: self._stopped or self._ended >= number, wait_s)
            return self._result if ended and not self._stopped else SettleResult(False)

    def restate(self, made: Restatement, wait_s: float) -> RestateResult:
        """Record a restatement and bring it to the entries that it covers; wait for it.

        One whose factors are in force already is not recorded again. Who asks again with the very
        same one goes on waiting for that, whatever others have said since.

        Args:
            made: what somebody says.
            wait_s: how long to wait here.

        Raises:
            LedgerError: the books cannot be read.
        """
        with self._changed:
            number, is_new = self._heard.get(made) or self._hear(made)
            ended = self._changed.wait_for(lambda: self._stopped or self._ended >= number, wait_s)
            if self._stopped or not ended:
                return RestateResult(False, made, is_new)
            if self._failure:
                return RestateResult(True, made, is_new, message=self._failure)
        return RestateResult(True, made, is_new, restated_total(self._books, made))

    def _hear(self, made: Restatement) -> tuple[int, bool]:
        """What a restatement that was not asked for before is to wait for, and whether it is new.

        It is remembered for as long as somebody may go on waiting for it.
        """
        known = (*self._ledger.books.restatements, *self._made)
        is_new = made not in known and says_anew(made, known)
        if is_new or self._begun == self._ended:
            self._made.append(made)  # where it is not new, what is left of it is looked for
            self._changed.notify_all()
            self._hurry()
        number = self._begun + (len(self._made) > self._doing)
        while len(self._heard) >= REMEMBERED:
            del self._heard[next(iter(self._heard))]
        self._heard[made] = number, is_new
        return number, is_new

    def _hurry(self) -> None:
        """Ask for a commit if somebody waits, for this run or for the one after it."""
        if self._is_asked or self._is_restating or self._asked_ns or self._made:
            self._ask_commit()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopped or self._asked_ns > 0 or bool(self._made),
                    max(0.0, self._due_s - time.monotonic()),
                )
                if self._stopped:
                    return
                asked_ns, self._asked_ns = self._asked_ns, 0
                made, self._doing = tuple(self._made), len(self._made)
                # However often somebody asks, all of it is looked at once a day.
                is_due = time.monotonic() >= self._due_s
                window_ns = self._window_ns if is_due else asked_ns
                if is_due or asked_ns >= self._window_ns > 0:
                    self._due_s = time.monotonic() + seconds(DAY_NS)
                self._is_asked, self._is_restating = asked_ns > 0, bool(made)
                self._begun += 1
                sources, known = self._sources, self._ledger.books.restatements
            take = partial(self._ledger.settle, hurry=self._hurry)
            result, failure = self._result, ""
            try:
                failure = self._restate(made, known, take)
                if window_ns:
                    settler = Settler(sources, self._books, self._clock, take)
                    result = self._settle(settler, window_ns)
            except Stopped:
                return
            if given_up := self._ledger.take_failure():
                failure = failure or f"not all could be written: {given_up}"
                result = SettleResult(True, message=failure) if window_ns else result
            with self._changed:
                del self._made[: len(made)]
                self._doing = 0
                self._is_asked = self._is_restating = False
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
