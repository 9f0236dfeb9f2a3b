"""What the HTTP floor asks of the daemon and of its books."""

from __future__ import annotations

from typing import Any, Protocol

from wattledger.model import Snapshot, TotalsRow
from wattledger.model.jobbooks import JobDetail, JobQuery, JobRow, Waste
from wattledger.model.restating import Restatement
from wattledger.model.running import RunRequest, RunResult, RunTicket
from wattledger.model.settle_report import RestateResult, SettleResult, Verified


class TotalsReader(Protocol):
    """Queries over the committed entries; may be called from any one thread at a time."""

    def totals(
        self, since_ns: int, until_ns: int, by: str, uid: int | None = None
    ) -> list[TotalsRow]:
        """Amounts of the slots that begin in [since, until), grouped.

        Args:
            since_ns: wall clock.
            until_ns: wall clock.
            by: `all`, `device`, `kind`, `payee`, `job`, `user`, `hour` or `day` (UTC).
            uid: by job or user: only this user's; None: all.
        """
        ...

    def jobs(self, asked: JobQuery) -> list[JobRow]:
        """The runs that are asked for, with their totals."""
        ...

    def job(self, manager: str, job_id: str, uid: int | None = None) -> JobDetail | None:
        """All about one job: of this user's runs of it, or of all; None: there are none."""
        ...

    def waste(self, since_ns: int, until_ns: int, by: str, uid: int | None = None) -> Waste:
        """What was held without use, of the slots that begin in [since, until).

        Args:
            since_ns: wall clock.
            until_ns: wall clock.
            by: `user` or `account`.
            uid: only what this user held; None: all.
        """
        ...


class Daemon(Protocol):
    """What the HTTP floor may ask of the running daemon."""

    def snapshot(self) -> Snapshot | None:
        """The latest snapshot; None before the first commit attempt."""
        ...

    def totals(
        self, since_ns: int, until_ns: int, by: str, uid: int | None = None
    ) -> list[TotalsRow]:
        """See `TotalsReader.totals`."""
        ...

    def jobs(self, asked: JobQuery) -> list[JobRow]:
        """See `TotalsReader.jobs`."""
        ...

    def job(self, manager: str, job_id: str, uid: int | None = None) -> JobDetail | None:
        """See `TotalsReader.job`."""
        ...

    def waste(self, since_ns: int, until_ns: int, by: str, uid: int | None = None) -> Waste:
        """See `TotalsReader.waste`."""
        ...

    def settle(self, days: int | None, wait_s: float) -> SettleResult:
        """Settle the last so many days by what was published since; None: the whole window.

        Who asks while it is done joins and waits for it. Blocks for `wait_s` at the most.
        """
        ...

    def restate(self, made: Restatement, wait_s: float) -> RestateResult:
        """Record what somebody says of the site's past, and bring it to the entries.

        What is in force already is not recorded again. Blocks for `wait_s` at the most.
        """
        ...

    def restatements(self) -> tuple[Restatement, ...]:
        """All that were ever made, in that order. Blocks."""
        ...

    def verify(self) -> Verified:
        """The differences between the books and what is recomputed of them. Blocks."""
        ...

    def audit(
        self, since_ns: int, until_ns: int, after: tuple[int | str, ...] | None, most: int
    ) -> tuple[list[dict[str, Any]], tuple[int | str, ...] | None]:
        """A page of the books as records that can be recomputed, and where the next begins.

        Raises:
            ValueError: `after` is not what a page gave.
        """
        ...

    def begin_run(self, request: RunRequest) -> RunTicket:
        """Measure a process and its descendants from now on. May block for some ms.

        Raises:
            RunRefused: with the reason.
        """
        ...

    def finish_run(
        self, run_id: str, uid: int | None, exit_code: int | None, *, at_once: bool = False
    ) -> RunResult | None:
        """The receipt of a command that has ended; None: not all is booked yet, ask again soon.

        Never blocks.

        Args:
            run_id: as `begin_run` gave it.
            uid: who asks; None: somebody who may finish everybody's.
            exit_code: of the command; None: not told.
            at_once: what is known now has to do.

        Raises:
            RunRefused: there is no such command of theirs.
        """
        ...

    def run_result(self, run_id: str, uid: int | None) -> RunResult:
        """What a command has cost so far, or in all if it ended a short while ago.

        Raises:
            RunRefused: there is no such command of theirs.
        """
        ...

    def release(self, duration_ns: int) -> str:
        """Commit, close NVML for this long (0: take it up again now) and say so in a sentence.

        Blocks until every handle is closed.

        Raises:
            MeterUnavailable: the driver call in flight does not return, so it cannot be closed.
        """
        ...
