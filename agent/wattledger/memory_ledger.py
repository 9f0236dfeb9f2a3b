"""Books without a file, for measuring one command where no daemon keeps any."""

from __future__ import annotations

import uuid
from dataclasses import replace

from wattledger.model import Batch, Books, DeviceRecord, Instant, LedgerStatus


class MemoryLedger:
    """A `ports.Ledger` that remembers what its writer goes on from, and no energy.

    What the command used is in its tally; nothing is to be read from these books later.
    """

    def __init__(self, now: Instant) -> None:
        """Args: now: when its epoch begins."""
        self._books = Books(
            epoch=str(uuid.uuid4()),
            epoch_start_ns=now.wall_ns,
            totals={},
            devices={},
            signals=(),
            notes={},
            books_ns=0,
            commits=0,
        )
        self._committed_ns = 0

    @property
    def books(self) -> Books:
        """The state after the last commit; it holds no totals."""
        return self._books

    @property
    def status(self) -> LedgerStatus:
        """Its health: always good."""
        return LedgerStatus("memory", "", last_commit_ns=self._committed_ns)

    def commit(self, batch: Batch, now: Instant) -> Books:
        """Take a batch; never fails."""
        self._committed_ns = now.wall_ns
        self._books = replace(
            self._books,
            devices={info.name: DeviceRecord(info) for info in batch.devices},
            signals=batch.signals,
            notes=batch.notes,
            books_ns=batch.books_ns,
            commits=self._books.commits + 1,
        )
        return self._books

    def close(self) -> None:
        """There is nothing to close."""
