"""The seams: what the sampler asks of the edges, and what the exporters ask of the agent.

Each is one small protocol; tests pass a fake of the same shape (`tests/fakes.py`).
"""

from __future__ import annotations

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
    Snapshot,
    SourceStatus,
    TotalsRow,
)


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

    def totals(self, since_ns: int, until_ns: int, by: str) -> list[TotalsRow]:
        """Amounts of the slots that begin in [since, until), grouped.

        Args:
            since_ns: wall clock.
            until_ns: wall clock.
            by: `all`, `device`, `kind`, `payee`, `hour` or `day` (UTC).
        """
        ...


class Daemon(Protocol):
    """What the HTTP floor may ask of the running daemon."""

    def snapshot(self) -> Snapshot | None:
        """The latest snapshot; None before the first commit attempt."""
        ...

    def totals(self, since_ns: int, until_ns: int, by: str) -> list[TotalsRow]:
        """See `TotalsReader.totals`."""
        ...

    def release(self, duration_ns: int) -> str:
        """Commit, close NVML for this long (0: take it up again now) and say so in a sentence.

        Blocks until every handle is closed.

        Raises:
            MeterUnavailable: the driver call in flight does not return, so it cannot be closed.
        """
        ...
