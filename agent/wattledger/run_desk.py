"""Where commands are registered and get their receipts: between HTTP's threads and the books.

A command that ends asks for a reading at its very end: all meters take a turn at once (one such
turn a second over all commands; else the next regular one serves), the books take it in and are
committed, and the receipt is what they then say. Nobody blocks for it: who waits asks again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from wattledger.errors import RunRefused
from wattledger.jobs.runs import RunRegistry
from wattledger.jobs.runs.run import Run
from wattledger.model import Instant
from wattledger.model.jobs import JobRun
from wattledger.model.receipts import Receipt
from wattledger.model.running import RunRequest, RunResult, RunTicket
from wattledger.ports import Clock
from wattledger.units import NS_PER_S

READING_NS = NS_PER_S  # between two readings on request
PATIENCE_NS = 3 * NS_PER_S // 2  # with a counter that does not move
KEPT_NS = 600 * NS_PER_S  # a receipt, for those who lost the answer
MAX_KEPT = 512


class Turns(Protocol):
    """A meter's thread, as `services.MeterThread`."""

    def read_now(self) -> None:
        """Take a turn at once."""
        ...

    def read_up_to_ns(self) -> int:
        """When the last turn began whose report can be drained."""
        ...


@dataclass(slots=True)
class _Ended:
    """A command that has ended a short while ago."""

    uid: int
    at_ns: int
    result: RunResult
    is_written: bool = False


class RunDesk:
    """Registers commands and gives receipts; for any thread."""

    def __init__(
        self,
        registry: RunRegistry | None,
        clock: Clock,
        meters: Sequence[Turns],
        receipt: Callable[[str], Receipt | None],
        ask_commit: Callable[[], None],
        read_at_ns: Callable[[str], int | None] = lambda _: None,
    ) -> None:
        """A desk for all commands of a node.

        Args:
            registry: the commands; None: none are measured.
            clock: time.
            meters: all of them.
            receipt: what the books say of a command; None: nothing yet.
            ask_commit: have all that was read booked and committed, soon.
            read_at_ns: CLOCK_MONOTONIC of a device's last reading in the books; None: not told.
        """
        self._registry = registry
        self._clock = clock
        self._meters = tuple(meters)
        self._receipt = receipt
        self._ask_commit = ask_commit
        self._read_at_ns = read_at_ns
        self._lock = threading.Lock()
        self._read_asked_ns = -READING_NS
        self._commit_asked_ns = 0
        self._behind: set[str] = set()  # commands whose GPUs' counters had not moved at their end
        self._all_ended: dict[str, _Ended] = {}

    # ── for the sampling thread ─────────────────────────────────────────────────────────────────

    def read_up_to_ns(self) -> int:
        """Up to when all meters have been read; asked before their reports are drained."""
        return min((meter.read_up_to_ns() for meter in self._meters), default=0)

    def close(self, up_to_ns: int) -> bool:
        """The books are committed with all that the meters read in turns until then.

        Returns:
            Whether commands have ended with that; once this is committed too, `answer` is to be
            called.
        """
        ended = False
        for run in self._registry.running() if self._registry else ():
            finish = run.finish
            if finish is None or finish.monotonic_ns > up_to_ns:
                continue
            if not self._is_read(run.payee.job_id, finish):
                self._behind.add(run.payee.job_id)
            else:
                self._end(run, finish, complete=True)
                ended = True
        return ended

    def answer(self) -> None:
        """Those who wait for receipts may have them: a daemon that starts anew knows of the end."""
        with self._lock:
            for ended in self._all_ended.values():
                ended.is_written = True

    # ── for HTTP ────────────────────────────────────────────────────────────────────────────────

    def begin(self, request: RunRequest) -> RunTicket:
        """Measure a process and its descendants from now on.

        Raises:
            RunRefused: with the reason.
        """
        if self._registry is None:
            raise RunRefused(
                "off",
                "this daemon measures no commands",
                "`run` is not among jobs.managers; `wattledger run` then measures by itself",
            )
        return self._registry.register(request)

    def finish(
        self, run_id: str, uid: int | None, exit_code: int | None, *, at_once: bool = False
    ) -> RunResult | None:
        """The receipt of a command that has ended; None: not all is booked yet, ask again soon.

        Args:
            run_id: as `begin` gave it.
            uid: who asks; None: somebody who may finish everybody's.
            exit_code: of the command.
            at_once: what is known now has to do.

        Raises:
            RunRefused: there is no such command of theirs.
        """
        if run_id not in self._all_ended:
            try:
                run, finish = self._known_registry(run_id).finish(run_id, uid, exit_code)
            except RunRefused:
                if run_id not in self._all_ended:  # ended in this very moment
                    raise
            else:
                if at_once:
                    return self._end(run, finish, complete=False)
                self._hurry(run_id, finish)
                return None
        ended = self._ended(run_id, uid)
        return ended.result if ended.is_written or at_once else None

    def result(self, run_id: str, uid: int | None) -> RunResult:
        """What a command has cost so far, or in all if it ended a short while ago.

        Raises:
            RunRefused: there is no such command of theirs.
        """
        if run_id in self._all_ended:
            return self._ended(run_id, uid).result
        run = self._known_registry(run_id).get(run_id, uid)
        return RunResult(self._receipt_of(run, 0), run.exit_code)

    # ── parts ───────────────────────────────────────────────────────────────────────────────────

    def _ended(self, run_id: str, uid: int | None) -> _Ended:
        ended = self._all_ended.get(run_id)
        if ended is None or uid not in (None, ended.uid):
            raise _unknown(run_id)
        return ended

    def _known_registry(self, run_id: str) -> RunRegistry:
        if self._registry is None:
            raise _unknown(run_id)
        return self._registry

    def _is_read(self, run_id: str, finish: Instant) -> bool:
        """The counters of the GPUs that a command held have been seen to move since its end.

        One that is read twice within a tick of its own brings no second reading; one that never
        moves is not waited for.
        """
        if self._clock.now().monotonic_ns - finish.monotonic_ns >= PATIENCE_NS:
            return True
        receipt = self._receipt(run_id)
        held = receipt.run.holdings if receipt is not None else ()
        read_ns = [self._read_at_ns(holding.device) for holding in held]
        return all(at_ns is None or at_ns >= finish.monotonic_ns for at_ns in read_ns)

    def _hurry(self, run_id: str, finish: Instant) -> None:
        """See to it that the books soon hold all up to an instant."""
        at_ns, now_ns = finish.monotonic_ns, self._clock.now().monotonic_ns
        with self._lock:
            if self.read_up_to_ns() >= at_ns:
                if self._commit_asked_ns < at_ns:
                    self._commit_asked_ns = now_ns
                    self._ask_commit()
                elif run_id in self._behind and self._is_read(run_id, finish):
                    self._behind.discard(run_id)
                    self._ask_commit()
            elif self._read_asked_ns < at_ns and now_ns - self._read_asked_ns >= READING_NS:
                self._read_asked_ns = now_ns
                for meter in self._meters:
                    meter.read_now()

    def _end(self, run: Run, finish: Instant, *, complete: bool) -> RunResult:
        result = RunResult(self._receipt_of(run, finish.wall_ns), run.exit_code, complete)
        with self._lock:
            self._behind.discard(run.payee.job_id)
            for old, known in list(self._all_ended.items()):
                if finish.monotonic_ns - known.at_ns < KEPT_NS and len(self._all_ended) < MAX_KEPT:
                    break
                del self._all_ended[old]
            # Known here before it is unknown there: whoever asks finds it in one of both.
            self._all_ended[run.payee.job_id] = _Ended(run.uid, finish.monotonic_ns, result)
        if self._registry is not None:
            self._registry.end(run.payee.job_id)
        return result

    def _receipt_of(self, run: Run, end_ns: int) -> Receipt:
        receipt = self._receipt(run.payee.job_id)
        if receipt is None:  # no survey has seen it yet
            labels = {"name": run.name} if run.name else {}
            record = JobRun(run.payee, run.uid, labels, last_seen_ns=run.payee.start_ns)
            receipt = Receipt(record, run.step_of, since_ns=run.payee.start_ns)
        return replace(receipt, run=replace(receipt.run, end_ns=end_ns))


def _unknown(run_id: str) -> RunRefused:
    return RunRefused("unknown", f"there is no run {run_id[:64]} of yours")
