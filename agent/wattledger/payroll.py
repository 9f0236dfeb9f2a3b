"""Between the jobs of the node and its books: who pays, and what is remembered of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain

from wattledger.core import tally_note
from wattledger.core.holding import payer_of
from wattledger.core.summing import Summing
from wattledger.core.tally import Settled, settle
from wattledger.core.tally_note import Command
from wattledger.core.usage import Payers
from wattledger.model import (
    AttributedInterval,
    Batch,
    Books,
    DeviceInfo,
    EnergyInterval,
    Instant,
    Kind,
    Payee,
    PayeeKind,
    Price,
    Quality,
    Usage,
)
from wattledger.model.embodied import NO_EMBODIED
from wattledger.model.jobs import RUN, Holding, JobKey, JobRun, Survey
from wattledger.model.measuring import Process
from wattledger.model.receipts import Receipt
from wattledger.model.running import KnownRun
from wattledger.ports import Jobs
from wattledger.units import NS_PER_S

BUSY_NOTE = "node_busy"
RUNS_NOTE = "runs"
KEPT_NS = 600 * NS_PER_S  # a receipt, after the command's end
MAX_KEPT = 512
MANY_JOBS = 32


def remembered_runs(books: Books) -> tuple[JobRun, ...]:
    """The runs that the ledger knows as running, alive at least until the books were written."""
    return tuple(
        replace(book.run, last_seen_ns=max(book.run.last_seen_ns, books.books_ns))
        for book in books.jobs.runs.values()
        if not book.run.end_ns
    )


def known_runs(books: Books) -> tuple[KnownRun, ...]:
    """The commands that were being measured when the books were written."""
    commands, _ = tally_note.read(books.notes.get(RUNS_NOTE, ""))
    return tuple(command.known for command in commands)


class Payroll:
    """Keeps the surveys' runs for the next commit.

    `receipt` may be called from any thread, everything else from one.
    """

    def __init__(
        self,
        jobs: Jobs | None,
        policy: str,
        books: Books,
        boot_id: str,
        summing: Summing | None = None,
    ) -> None:
        """A payroll that goes on where the books end.

        Args:
            jobs: who is on the node; None: nobody is looked for.
            policy: one of `core.usage.POLICIES`.
            books: the committed books.
            boot_id: of this boot.
            summing: what is summed up beside the books; None: money and contracts only.
        """
        self._jobs = jobs
        self._summing = summing or Summing(NO_EMBODIED, 0)
        self._boot_id = boot_id
        note = books.notes.get(RUNS_NOTE, "")
        commands, self._tallies = tally_note.read(note)
        self._commands = {command.run.payee: command for command in commands}
        self._steps = {c.run.payee: c.outer for c in commands if c.outer is not None}
        self._gone: dict[Payee, int] = {}  # ended command → when, on CLOCK_BOOTTIME
        self._tallied = threading.Lock()
        self._notes_runs = bool(note)
        steps = [command.run for command in commands if command.outer is not None]
        self._payers = Payers(
            policy,
            remembered=[r for r in (*remembered_runs(books), *steps) if r.boot_id == boot_id],
            busy_ns=_busy_before(books.notes.get(BUSY_NOTE, ""), boot_id),
        )
        self._survey: Survey | None = None
        self._held: dict[Payee, tuple[Holding, ...]] = {}
        self._ended: dict[Payee, JobRun] = {}
        self._earned_uj: dict[JobKey, int] = {}
        self._since_ns = 0

    def look(
        self,
        now: Instant,
        busy_ns: int | None,
        processes: Mapping[str, tuple[Process, ...]],
        devices: tuple[DeviceInfo, ...] = (),
    ) -> None:
        """Survey the node once; see `ports.Jobs`.

        Args:
            now: this moment.
            busy_ns: see there.
            processes: see there.
            devices: all of them, those that have left included.
        """
        self._summing.see(devices, now.boottime_ns)
        if self._jobs is None:
            return
        survey = self._jobs.survey(now, busy_ns, processes)
        for run in survey.ended:  # with what it held to its end
            before = self._ended.get(run.payee, run)  # one is told of again with its user's name
            held = self._held.get(run.payee, run.holdings) or before.holdings
            self._ended[run.payee] = replace(run, holdings=held)
        for payee in survey.runs:
            self._ended.pop(payee, None)
        told = chain(survey.runs, (run.payee for run in survey.ended))
        if self._commands or any(payee.manager == RUN for payee in told):
            self._note_commands(survey)
        self._payers.observe(survey)
        self._survey = survey
        gpus = dict.fromkeys((*survey.processes, *(claim.device for claim in survey.claims)))
        self._held = self._payers.holdings(gpus)
        self._since_ns = self._since_ns or now.boottime_ns

    def _note_commands(self, survey: Survey) -> None:
        """Which commands are measured, and inside of what."""
        now_ns = survey.at.boottime_ns
        with self._tallied:
            self._steps.update(survey.steps)
            for payee, run in survey.runs.items():
                if payee.manager == RUN:
                    if payee not in survey.steps:  # it may have been one
                        self._steps.pop(payee, None)
                    known = self._commands.get(payee)
                    claims = [c for c in survey.claims if c[:2] == (RUN, payee.job_id)]
                    self._commands[payee] = Command(
                        replace(run, holdings=self._held.get(payee, ())),
                        self._steps.get(payee),
                        tuple(claim.device for claim in claims if claim.source == "run"),
                        known.since_ns if known is not None else payee.start_ns,
                    )
                    self._gone.pop(payee, None)
            for run in survey.ended:
                known = self._commands.get(run.payee)
                if known is None and run.payee.manager == RUN:  # it came and went
                    known = Command(run, None, (), run.payee.start_ns)
                if known is not None:
                    self._commands[run.payee] = known._replace(run=self._ended[run.payee])
            for payee in self._commands:
                if payee not in survey.runs:
                    self._gone.setdefault(payee, now_ns)
            for payee, when_ns in list(self._gone.items()):
                if now_ns - when_ns > KEPT_NS or len(self._gone) > MAX_KEPT:
                    self._tallies.drop(payee)
                    del self._gone[payee], self._commands[payee]
                    self._steps.pop(payee, None)
        for payee in [payee for payee in self._ended if payee in self._steps]:
            del self._ended[payee]  # its job is in the books, it is not

    def usage(
        self, interval: EnergyInterval, kind: Kind, *, processes: int | None, floor_uw: int
    ) -> Usage:
        """Who pays for an interval; see `core.usage.Payers.usage`."""
        return self._payers.usage(interval, kind, processes=processes, floor_uw=floor_uw)

    def settle(
        self,
        interval: EnergyInterval,
        usage: Usage,
        kind: Kind,
        price_at: Callable[[int], Price],
    ) -> Settled:
        """Split an interval over its payees, and tally what it cost each command.

        Args:
            interval: what was measured.
            usage: who used the device.
            kind: of it.
            price_at: the price of a slot, by its start in Unix seconds.
        """
        settled = settle(interval, usage, self._steps)
        self._pay(settled.attributed)
        self._summing.charge(settled.attributed, settled.usage, kind)
        if self._commands:
            with self._tallied:
                held = self._summing.rates.held
                self._tallies.book(settled, kind, price_at, self._steps, held)
        return settled

    @property
    def is_crowded(self) -> bool:
        """Many jobs run, and nobody may ask for a command's receipt at any moment."""
        return (
            self._survey is not None and len(self._survey.runs) >= MANY_JOBS and not self._commands
        )

    @property
    def measures_commands(self) -> bool:
        """Whether somebody may ask for a command's receipt at any moment."""
        return bool(self._commands)

    def decide(self, device: str, *, used: bool) -> None:
        """Whether a held device was used at all since it was last told."""
        if self._commands:
            with self._tallied:
                self._tallies.decide(device, used=used)

    def receipt(self, run_id: str) -> Receipt | None:
        """What a command has cost so far; None: it is not known (yet, or any more)."""
        with self._tallied:
            command = next((c for p, c in self._commands.items() if p.job_id == run_id), None)
            if command is None:
                return None
            payee = command.run.payee
            payer = payer_of(payee, self._steps)
            step_of = JobKey(payer.manager, payer.job_id) if payer != payee else None
            cells, weights, sums = self._tallies.sums(payee)
            return Receipt(command.run, step_of, cells, command.since_ns, weights, sums)

    def _pay(self, attributed: AttributedInterval) -> None:
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
            if payee not in self._steps
        )
        return (*self._ended.values(), *running)

    def notes(self) -> dict[str, str]:
        """Up to where the node's CPU time is booked, and the commands, as texts for the ledger."""
        busy_ns = self._survey.busy_ns if self._survey is not None else None
        notes = {BUSY_NOTE: json.dumps({"boot_id": self._boot_id, "busy_ns": busy_ns})}
        if self._commands or self._notes_runs:
            living = [c for payee, c in self._commands.items() if payee not in self._gone]
            notes[RUNS_NOTE] = tally_note.write(living, self._tallies)
            self._notes_runs = True
        return notes

    def complete(self, batch: Batch, books: Books, now: Instant) -> Batch:
        """A batch with what is summed up beside its amounts; see `Summing.complete`."""
        return self._summing.complete(batch, books.notes, now.boottime_ns)

    def committed(self) -> None:
        """The last batch is written, and with it the ended runs."""
        self._ended.clear()
        self._summing.committed()

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
