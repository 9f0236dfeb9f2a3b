"""The one writer of the books.

A commit writes absolute values, computed from the committed state in memory and the batch's
increments, in one transaction that also advances `meta.commits`. So a commit that is tried again
cannot book twice, not even when an earlier try reached the disk after all (an fsync that failed
may have written): it writes the same cells over.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from dataclasses import replace
from pathlib import Path

from wattledger.errors import CommitFailed, LedgerError
from wattledger.ledger import rows
from wattledger.ledger.database import SQL_ERRORS, Damaged, connect, explain, size_bytes
from wattledger.ledger.draft import Draft, Footprint, Identities
from wattledger.ledger.job_draft import JobDraft, Read
from wattledger.ledger.rollup import RollUp
from wattledger.ledger.storage import Lock
from wattledger.model import Batch, Books, EntryKey, Instant, LedgerStatus
from wattledger.model.jobbooks import Cell
from wattledger.ports import Clock
from wattledger.units import SLOT_S, slot_of

log = logging.getLogger(__name__)

RECENT_S = 2 * SLOT_S  # entries this near the present slot are kept in memory
MAX_RECENT = 8192


class SqliteLedger:
    """Books in an SQLite file; made by `open_ledger`. Implements `ports.Ledger`."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        lock: Lock,
        books: Books,
        status: LedgerStatus,
        *,
        clock: Clock,
        footprint: Footprint,
        keep_days: int,
        factory: type[sqlite3.Connection],
        linger_ns: int,
        max_series: int,
        exporters: tuple[str, ...] = (),
    ) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = connection
        self._lock = lock
        self._books = books
        self._status = status
        self._clock = clock
        self._footprint = footprint
        self._factory = factory
        self._inode = path.stat().st_ino
        self._identities = Identities()
        self._recent: dict[EntryKey, Cell] = {}
        self._recent_slot_s = 0
        # The committed amounts of what commits of unknown outcome may have changed on disk.
        self._doubtful: dict[EntryKey, Cell] | None = None
        self._read = Read()
        self._linger_ns = linger_ns
        self._max_series = max_series
        self._exporters = exporters
        self._roll_up = RollUp(keep_days)

    @property
    def books(self) -> Books:
        """The committed state."""
        return self._books

    @property
    def status(self) -> LedgerStatus:
        """The ledger's health."""
        return self._status

    def commit(self, batch: Batch, now: Instant) -> Books:
        """Writes one batch in one transaction; see `ports.Ledger.commit`.

        Raises:
            CommitFailed: nothing of it counts; the batch is still the caller's.
            ValueError: the batch is not one: an energy of 0 or less, an unknown device.
        """
        begun_ns = self._clock.now().monotonic_ns
        limits = self._linger_ns, self._max_series
        jobs = JobDraft(self._books.jobs, batch.runs, now, *limits, self._exporters)
        if self._doubtful is None:
            self._read = Read()
        draft = Draft(self._books, batch, now, self._doubtful, jobs, self._read)
        try:
            self._transact(draft)
        except (sqlite3.Error, Damaged, LedgerError, OSError, OverflowError, UnicodeError) as error:
            raise self._failed(error, len(batch.energy_uj)) from error
        self._accept(draft, now)
        if self._connection is not None and self._roll_up.step(self._connection, now):
            self._recent.clear()
        if self._status.message:
            log.warning("the ledger %s is written again", self._path)
        self._status = replace(
            self._status,
            last_commit_ns=now.wall_ns,
            last_commit_duration_ns=self._clock.now().monotonic_ns - begun_ns,
            pending_entries=0,
            message="",
            hint="",
            size_bytes=size_bytes(self._path),
        )
        return self._books

    def _transact(self, draft: Draft) -> None:
        """Returns when the draft is on disk, and raises when it does not count."""
        connection = self._usable_connection()
        committing = False
        try:
            connection.execute("BEGIN IMMEDIATE")
            draft.write(connection, self._identities, self._recent, self._footprint)
            committing = True
            connection.execute("COMMIT")
        except BaseException as error:
            on_disk = self._sequence_after_failure(connection)
            self._identities.forget()
            if committing and on_disk == draft.commits and isinstance(error, sqlite3.Error):
                return  # COMMIT reported an error and was done all the same
            if committing:
                self._doubtful = draft.before | (self._doubtful or {})
            raise

    def _sequence_after_failure(self, connection: sqlite3.Connection) -> int | None:
        """Ends what is left of the transaction and reads how far the file is.

        A connection that cannot even do that is given up; the next commit makes another.
        """
        # On a full disk or an I/O error SQLite rolls back by itself: then ROLLBACK would raise
        # and hide the cause.
        with contextlib.suppress(*SQL_ERRORS):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        with contextlib.suppress(*SQL_ERRORS, Damaged):
            if not connection.in_transaction:
                return rows.sequence(connection)
        with contextlib.suppress(*SQL_ERRORS):
            connection.close()
        self._connection = None
        return None

    def _usable_connection(self) -> sqlite3.Connection:
        try:
            in_place = self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            in_place = False
        if not in_place:
            raise LedgerError(
                f"the ledger {self._path} was moved, deleted or replaced while it was open",
                "put it back, or restart wattledger to go on with what lies there now",
            )
        if self._connection is None:
            self._connection = connect(self._path, self._factory)
        return self._connection

    def _accept(self, draft: Draft, now: Instant) -> None:
        self._books = draft.books
        self._doubtful = None
        self._recent.update(draft.entries)
        slot_s = slot_of(now.wall_ns)
        if slot_s != self._recent_slot_s or len(self._recent) > MAX_RECENT:
            self._recent_slot_s = slot_s
            near = {k: v for k, v in self._recent.items() if abs(k.slot_s - slot_s) <= RECENT_S}
            self._recent = near if len(near) <= MAX_RECENT else {}

    def _failed(self, error: Exception, pending_entries: int) -> CommitFailed:
        if isinstance(error, LedgerError):
            message, hint = error.message, error.hint
        else:
            message, hint = explain(error, self._path)
        failure = CommitFailed(message, hint)
        if message != self._status.message:
            log.error("not written: %s", failure)
        self._status = replace(
            self._status,
            errors=self._status.errors + 1,
            pending_entries=pending_entries,
            message=message,
            hint=hint,
        )
        return failure

    def close(self) -> None:
        """Checkpoints, closes and unlocks; harmless when done twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.execute("UPDATE meta SET clean = 1")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except SQL_ERRORS as error:
                # Committed all the same: the log stays, and the next start reads it.
                log.warning("the ledger %s was not closed in good order: %s", self._path, error)
            with contextlib.suppress(*SQL_ERRORS):
                connection.close()
        self._lock.release()
