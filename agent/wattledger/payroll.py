"""Between the jobs of the node and its books: who pays, and what is remembered of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from wattledger.core.usage import Payers
from wattledger.model import (
    AttributedInterval,
    Books,
    EnergyInterval,
    Instant,
    Kind,
    Payee,
    PayeeKind,
    Quality,
    Usage,
)
from wattledger.model.jobs import Holding, JobKey, JobRun, Survey
from wattledger.model.measuring import Process
from wattledger.ports import Jobs
from wattledger.units import NS_PER_S

BUSY_NOTE = "node_busy"


def remembered_runs(books: Books) -> tuple[JobRun, ...]:
    """The runs that the ledger knows as running, alive at least until the books were written."""
    return tuple(
        replace(book.run, last_seen_ns=max(book.run.last_seen_ns, books.books_ns))
        for book in books.jobs.runs.values()
        if not book.run.end_ns
    )


class Payroll:
    """Keeps the surveys' runs for the next commit; all methods are called from one thread."""

    def __init__(self, jobs: Jobs | None, policy: str, books: Books, boot_id: str) -> None:
        """A payroll that goes on where the books end.

        Args:
            jobs: who is on the node; None: nobody is looked for.
            policy: one of `core.usage.POLICIES`.
            books: the committed books.
            boot_id: of this boot.
        """
        self._jobs = jobs
        self._boot_id = boot_id
        self._payers = Payers(
            policy,
            remembered=[run for run in remembered_runs(books) if run.boot_id == boot_id],
            busy_ns=_busy_before(books.notes.get(BUSY_NOTE, ""), boot_id),
        )
        self._survey: Survey | None = None
        self._held: dict[Payee, tuple[Holding, ...]] = {}
        self._ended: dict[Payee, JobRun] = {}
        self._earned_uj: dict[JobKey, int] = {}
        self._since_ns = 0

    def look(
        self, now: Instant, busy_ns: int | None, processes: Mapping[str, tuple[Process, ...]]
    ) -> None:
        """Survey the node once; see `ports.Jobs`."""
        if self._jobs is None:
            return
        survey = self._jobs.survey(now, busy_ns, processes)
        for run in survey.ended:  # with what it held to its end
            held = self._held.get(run.payee, run.holdings)
            self._ended[run.payee] = replace(run, holdings=held)
        for payee in survey.runs:
            self._ended.pop(payee, None)
        self._payers.observe(survey)
        self._survey = survey
        gpus = dict.fromkeys((*survey.processes, *(claim.device for claim in survey.claims)))
        self._held = self._payers.holdings(gpus)
        self._since_ns = self._since_ns or now.boottime_ns

    def usage(
        self, interval: EnergyInterval, kind: Kind, *, processes: int | None, floor_uw: int
    ) -> Usage:
        """Who pays for an interval; see `core.usage.Payers.usage`."""
        return self._payers.usage(interval, kind, processes=processes, floor_uw=floor_uw)

    def paid(self, attributed: AttributedInterval) -> None:
        """Count what jobs were booked, for their mean power."""
        if attributed.interval.quality is Quality.RECOVERED:
            return
        for payee, share_uj in attributed.shares:
            if payee.kind is PayeeKind.JOBS:
                key = JobKey(payee.manager, payee.job_id)
                self._earned_uj[key] = self._earned_uj.get(key, 0) + share_uj

    # ── for the commit ──────────────────────────────────────────────────────────────────────────

    def runs(self) -> tuple[JobRun, ...]:
        """The runs as they are now, and those that ended since the last commit."""
        if self._survey is None:
            return ()
        running = (
            replace(run, holdings=self._held.get(payee, ()))
            for payee, run in self._survey.runs.items()
        )
        return (*self._ended.values(), *running)

    def note(self) -> str:
        """Up to where the node's CPU time is booked, as text for the ledger."""
        busy_ns = self._survey.busy_ns if self._survey is not None else None
        return json.dumps({"boot_id": self._boot_id, "busy_ns": busy_ns})

    def committed(self) -> None:
        """The ended runs are written."""
        self._ended.clear()

    def power_uw(self, now: Instant) -> dict[JobKey, int]:
        """The mean power of each job since this was last asked."""
        earned, self._earned_uj = self._earned_uj, {}
        spent_ns, self._since_ns = now.boottime_ns - self._since_ns, now.boottime_ns
        if spent_ns <= 0:
            return {}
        return {key: uj * NS_PER_S // spent_ns for key, uj in earned.items()}


def _busy_before(note: str, boot_id: str) -> int | None:
    """The CPU time of a note of this boot; None: there is none."""
    try:
        known = json.loads(note) if note else {}
        return int(known["busy_ns"]) if known["boot_id"] == boot_id else None
    except (ValueError, TypeError, KeyError):
        return None
