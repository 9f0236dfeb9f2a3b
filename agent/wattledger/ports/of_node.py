"""What the sampler asks of the edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

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
    SourceStatus,
)
from wattledger.model.jobs import Survey
from wattledger.model.measuring import Process


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
