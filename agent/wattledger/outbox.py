"""Between the exporters' threads and the ledger: ended runs out, acknowledgements in.

The sampling thread is the only one that writes; it takes what was acknowledged along with its
commits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice
from typing import Protocol

from wattledger.model import Batch, Books, Instant, LedgerStatus
from wattledger.model.exporting import Backlog, Delivery, EndedRun
from wattledger.ports import Clock, Ledger

DELIVERIES_PER_COMMIT = 500  # some 5 ms more of a commit
# A disk that is full must not grow this without bound; and what has waited for months leaves at
# this many a commit, which takes some percent of a core.
MAX_UNWRITTEN = 500


class RunsReader(Protocol):
    """What is asked of the ledger; for any thread."""

    def ended_runs(
        self, exporter: str, most: int, now_ns: int, but: Collection[tuple[int, int]] = ()
    ) -> list[EndedRun]:
        """See `LedgerReader.ended_runs`."""
        ...

    def backlog(self, exporter: str) -> Backlog:
        """See `LedgerReader.backlog`."""
        ...


class DeliveringLedger:
    """A `ports.Ledger` that writes with each commit what became of ended runs."""

    def __init__(self, ledger: Ledger, most: int = DELIVERIES_PER_COMMIT) -> None:
        """Args: ledger: the books. most: how many are written with one commit."""
        self._ledger = ledger
        self._most = most
        self._unwritten: deque[Delivery] = deque()
        self._lock = threading.Lock()

    @property
    def books(self) -> Books:
        """The committed state."""
        return self._ledger.books

    @property
    def status(self) -> LedgerStatus:
        """The ledger's health."""
        return self._ledger.status

    def commit(self, batch: Batch, now: Instant) -> Books:
        """Write a batch and what became of ended runs; see `ports.Ledger.commit`.

        Raises:
            CommitFailed: nothing of it was written; what became of runs stays here, too.
            ValueError: the batch is not one.
        """
        with self._lock:
            part = tuple(islice(self._unwritten, self._most))
        books = self._ledger.commit(replace(batch, deliveries=part) if part else batch, now)
        with self._lock:
            for _ in part:
                self._unwritten.popleft()
        return books

    def close(self) -> None:
        """Close the books."""
        self._ledger.close()

    # ── the exporters' threads ──────────────────────────────────────────────────────────────────

    def write(self, deliveries: Sequence[Delivery]) -> None:
        """Write this with the next commits."""
        with self._lock:
            self._unwritten.extend(deliveries)

    @property
    def is_behind(self) -> bool:
        """Something was said that is not written yet."""
        return bool(self._unwritten)

    def unwritten(self, exporter: str) -> set[tuple[int, int]]:
        """Of whom something was said that is not written yet: (row, commit it came with)."""
        with self._lock:
            return {(d.payee_id, d.queued) for d in self._unwritten if d.exporter == exporter}


class Outbox:
    """The ended runs of one exporter; implements `ports.RunOutbox`."""

    def __init__(
        self, exporter: str, ledger: DeliveringLedger, reader: RunsReader, clock: Clock
    ) -> None:
        """Args: exporter: its name. ledger: writes. reader: reads. clock: time."""
        self._exporter = exporter
        self._ledger = ledger
        self._reader = reader
        self._clock = clock
        self.delivered_count = 0

    def waiting(self, most: int) -> list[EndedRun]:
        """Those that come next; none while the ledger is far behind with what was said."""
        # Asked for before the ledger is: what is written meanwhile is in neither.
        said = self._ledger.unwritten(self._exporter)
        if len(said) >= MAX_UNWRITTEN:
            return []
        now_ns = self._clock.now().wall_ns
        return self._reader.ended_runs(self._exporter, most, now_ns, said)

    def delivered(self, runs: Sequence[EndedRun]) -> None:
        """A receiver has acknowledged these."""
        self._say(runs, 0)
        self.delivered_count += len(runs)

    def refused(self, runs: Sequence[EndedRun]) -> None:
        """A receiver will never take these."""
        self._say(runs, self._clock.now().wall_ns)

    def backlog(self) -> Backlog:
        """How many are not delivered.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self._reader.backlog(self._exporter)

    def _say(self, runs: Sequence[EndedRun], refused_ns: int) -> None:
        self._ledger.write(
            [Delivery(self._exporter, run.payee_id, run.queued, refused_ns) for run in runs]
        )
