"""The seams: what the sampler asks of the edges, and what the exporters ask of the agent.

Each is one small protocol; tests pass a fake of the same shape (`tests/fakes.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from wattledger.model import (
    Batch,
    Books,
    GridChoice,
    GridSignal,
    Instant,
    LedgerStatus,
    MeterReport,
    MeterStatus,
    SiteFactors,
    Snapshot,
    SourceStatus,
    TotalsRow,
)
from wattledger.model.exporting import EndedRun
from wattledger.model.jobbooks import JobDetail, JobQuery, JobRow, Waste
from wattledger.model.jobs import Survey
from wattledger.model.measuring import Process
from wattledger.model.restating import Restatement
from wattledger.model.running import RunRequest, RunResult, RunTicket
from wattledger.model.settle_report import RestateResult, SettleResult, Verified


class Clock(Protocol):
    """Time, so that tests can hold it in their hands."""

    def now(self) -> Instant:
        """This moment on all three clocks."""
        ...

    @property
    def boot_id(self) -> str:
        """The kernel's id of this boot."""
        ...


class Meter(Protocol):
    """A source of readings. Opened lazily by the first `read`, used from one thread only."""

    @property
    def name(self) -> str:
        """The `meter` label: `nvml`, `cpu`, `constant`, …"""
        ...

    @property
    def interval_ns(self) -> int:
        """How often it wants to be read; may change as its devices come and go."""
        ...

    def read(self) -> MeterReport:
        """One turn: read everything once. May block for as long as a driver blocks.

        Raises:
            MeterUnavailable: nothing of it can be read now; `retry_after_s` says when to ask again.
        """
        ...

    def close(self) -> None:
        """Let go of every handle and file; the next `read` opens them again. Never raises."""
        ...


class MeterFeed(Protocol):
    """A meter in a thread of its own, as the sampler sees it: what it brought, and its health."""

    def drain(self) -> list[MeterReport]:
        """The reports since the last call, oldest first. Never blocks."""
        ...

    def statuses(self) -> tuple[MeterStatus, ...]:
        """The health of the meter, or of each that stands behind it."""
        ...


class Jobs(Protocol):
    """Which jobs run on this node and what they use; used from the sampling thread only."""

    def survey(
        self,
        now: Instant,
        busy_ns: int | None = None,
        processes: Mapping[str, tuple[Process, ...]] = ...,
    ) -> Survey:
        """Look around once. Never blocks on anything but the kernel.

        Args:
            now: this moment.
            busy_ns: CPU time that the node was busy, as counted since boot; None: unknown.
            processes: GPU → the processes that its driver lists.
        """
        ...


class Grid(Protocol):
    """Carbon intensity at an instant: never waits, always answers (the table is last)."""

    def at(self, wall_ns: int) -> GridChoice:
        """The best signal known for this instant."""
        ...

    def signals(self) -> tuple[GridSignal, ...]:
        """The last good signals, to be kept over a restart."""
        ...

    def statuses(self) -> tuple[SourceStatus, ...]:
        """The health of each source."""
        ...


class Site(Protocol):
    """What the site adds to each kWh, at an instant: never waits, always answers."""

    def at(self, wall_ns: int) -> SiteFactors:
        """The factors in force at this instant; those of now where they are not known."""
        ...

    def statuses(self) -> tuple[SourceStatus, ...]:
        """The health of whoever is asked for them."""
        ...

    def note(self) -> str:
        """What is to be kept over a restart."""
        ...


class Ledger(Protocol):
    """The books. One writer; all calls from the sampling thread."""

    @property
    def books(self) -> Books:
        """The committed state."""
        ...

    @property
    def status(self) -> LedgerStatus:
        """Its health; cheap."""
        ...

    def commit(self, batch: Batch, now: Instant) -> Books:
        """Write one batch in one transaction and return the new committed state.

        Raises:
            CommitFailed: nothing of it was written; the batch is still the caller's.
        """
        ...

    def close(self) -> None:
        """Checkpoint, close, unlock."""
        ...


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


# ── exporters: what leaves the node, and what a plugin of somebody else's implements ────────────


class RunOutbox(Protocol):
    """Ended runs that one exporter is to deliver: each waits in the ledger until it says so.

    What is said here is written with the next commit. A daemon that is killed before delivers
    again: at least once, with the same `EndedRun.record_id`.
    """

    def waiting(self, most: int) -> Sequence[EndedRun]:
        """Those that come next, at most so many; none that something was said of already.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        ...

    def delivered(self, runs: Sequence[EndedRun]) -> None:
        """A receiver has acknowledged these: they do not wait any more."""
        ...

    def refused(self, runs: Sequence[EndedRun]) -> None:
        """A receiver will never take these: they are kept, counted, and tried again in a day."""
        ...


class ExporterTools(Protocol):
    """What the daemon gives an exporter."""

    @property
    def clock(self) -> Clock:
        """Time."""
        ...

    @property
    def job_labels(self) -> tuple[str, ...]:
        """`jobs.labels`: what may leave the node of jobs besides their ids."""
        ...

    @property
    def commit_interval_ns(self) -> int:
        """How often there is a new snapshot."""
        ...

    @property
    def created_timestamps(self) -> bool:
        """`http.created_timestamps`: the page tells when a series was first booked."""
        ...

    @property
    def runs(self) -> RunOutbox:
        """The ended runs; only for a plugin that `delivers_runs`."""
        ...


class Exporter(Protocol):
    """What takes the books out of the node. All calls come from one thread of its own."""

    def export(self, snapshot: Snapshot) -> float:
        """Take the newest snapshot out. May block: nothing waits for it but its own next turn.

        Returns:
            Seconds after which it wants its next turn; 0: with the next commit.

        Raises:
            ExportFailed: it could not, and is tried again. Anything else that is raised is logged
                as a fault of the exporter, which is tried again, too.
        """
        ...

    def close(self, last: Snapshot | None) -> None:
        """The daemon ends: a last delivery where that is quick, then let go of everything.

        The daemon waits half a second, and leaves without it then.

        Args:
            last: the snapshot of the last commit; None: there was none.
        """
        ...


class ExporterPlugin(Protocol):
    """What an entry point of the group `wattledger.exporters` names; see exporters/README.md.

    Finding it must load nothing heavy: whoever checks a configuration loads it, too.
    """

    @property
    def settings(self) -> type[Any]:
        """A frozen dataclass whose fields are made by `wattledger.setting.setting`.

        The table `[exporters.NAME]` becomes one of these, checked key by key by the fields' types.
        """
        ...

    @property
    def delivers_runs(self) -> bool:
        """Whether it delivers ended runs: the ledger then keeps each until it is delivered."""
        ...

    def faults(self, settings: Any) -> Sequence[tuple[str, str]]:
        """What the settings may not say together, and what they need that is not there.

        Returns:
            (Key, or empty for the table; a sentence with the remedy), for each fault.
        """
        ...

    def make(self, settings: Any, tools: ExporterTools) -> Exporter:
        """An exporter, made in its own thread: here is the place to load what is heavy."""
        ...
