"""Questions to the books, over a connection that cannot write.

Inside the daemon a reader stands beside the writer. SQLite before 3.51.3 can corrupt a WAL, but
only through two connections that write or checkpoint at once (https://www.sqlite.org/wal.html,
"The WAL-reset bug"); this one does neither: it is opened with `mode=ro`, and a read-only
connection never checkpoints, not even when it is closed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wattledger.errors import LedgerError
from wattledger.ledger import database, migrations
from wattledger.ledger.draft import Footprint
from wattledger.ledger.restate import find_stale, load_restatements
from wattledger.ledger.run_exports import count_backlog, waiting_runs
from wattledger.ledger.settle import priced_slots
from wattledger.ledger.storage import Lock, check_file
from wattledger.ledger.totals import find_totals, first_slot_s
from wattledger.model import TotalsRow
from wattledger.model.exporting import Backlog, EndedRun
from wattledger.model.jobbooks import JobDetail, JobQuery, JobRow, Waste
from wattledger.model.restating import Restatement, Stale
from wattledger.model.settling import PricedSlot

if TYPE_CHECKING:
    from wattledger.ledger.audit import AuditCursor, Record

# What few ask is imported by the first question: a node where nobody asks does not pay for it.
T = TypeVar("T")
MAX_FINDINGS = 100


class LedgerReader:
    """Totals over spans of time. Implements `ports.TotalsReader`; safe from any thread."""

    def __init__(self, path: Path, *, mode: str = "ro", lock: Lock | None = None) -> None:
        """Remembers where; the file is opened by the first question.

        Args:
            path: the ledger, which a writer has made.
            mode: `ro` beside a writer; `rw` where the caller holds the lock.
            lock: released with the reader.
        """
        self._path = Path(os.path.realpath(path))
        self._mode = mode
        self._lock = lock
        self._one_at_a_time = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def totals(
        self, since_ns: int, until_ns: int, by: str, uid: int | None = None
    ) -> list[TotalsRow]:
        """Amounts of the slots that begin in [since, until), in the order of their groups.

        What is older than the ledger's grain of 5 minutes counts where its hour begins. By job or
        user, only those of this uid, unless that is None.

        Raises:
            ValueError: no such grouping, or a uid where it has no meaning.
            LedgerError: the ledger cannot be read.
        """
        span = first_slot_s(since_ns), first_slot_s(until_ns)
        return self._ask(lambda connection: find_totals(connection, *span, by, uid))

    def jobs(self, asked: JobQuery) -> list[JobRow]:
        """The runs that are asked for, with their totals, in the order that is asked for.

        Raises:
            ValueError: no such state or order.
            LedgerError: the ledger cannot be read.
        """
        from wattledger.ledger.job_queries import list_jobs

        return self._ask(lambda connection: list_jobs(connection, asked))

    def job(self, manager: str, job_id: str, uid: int | None = None) -> JobDetail | None:
        """All about one job, of the runs that are this user's or (None) all; None: there are none.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        from wattledger.ledger.job_queries import find_job

        return self._ask(lambda connection: find_job(connection, manager, job_id, uid))

    def waste(self, since_ns: int, until_ns: int, by: str, uid: int | None = None) -> Waste:
        """What was held without use, of the slots that begin in [since, until); by this user only.

        What is older than the ledger's grain of 5 minutes counts where its hour begins.

        Raises:
            ValueError: no such grouping.
            LedgerError: the ledger cannot be read.
        """
        from wattledger.ledger.waste_queries import find_waste

        since_s, until_s = first_slot_s(since_ns), first_slot_s(until_ns)
        return self._ask(lambda connection: find_waste(connection, since_s, until_s, by, uid))

    def priced_slots(self, since_ns: int, until_ns: int) -> list[PricedSlot]:
        """What the slots that begin in [since, until) were priced with; see `settle.priced_slots`.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        span = first_slot_s(since_ns), first_slot_s(until_ns)
        return self._ask(lambda connection: priced_slots(connection, *span))

    def stale(self, since_ns: int, until_ns: int) -> list[Stale]:
        """What begins in [since, until) and is still to be restated; see `find_stale`.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        span = first_slot_s(since_ns), first_slot_s(until_ns)
        return self._ask(lambda connection: find_stale(connection, *span))

    def restatements(self) -> tuple[Restatement, ...]:
        """All that were ever made, in that order.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self._ask(load_restatements)

    def audit(
        self, since_ns: int, until_ns: int, after: AuditCursor | None, most: int
    ) -> tuple[list[Record], AuditCursor | None]:
        """A page of the books as records that can be recomputed; see `audit_page`.

        Raises:
            ValueError: `after` is not what a page gave.
            LedgerError: the ledger cannot be read.
        """
        from wattledger.ledger.audit import audit_page

        span = first_slot_s(since_ns), first_slot_s(until_ns)
        return self._ask(lambda connection: audit_page(connection, *span, after, most))

    def ended_runs(
        self, exporter: str, most: int, now_ns: int, but: Collection[tuple[int, int]] = ()
    ) -> list[EndedRun]:
        """Ended runs that an exporter is to deliver next; see `waiting_runs`.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self._ask(lambda connection: waiting_runs(connection, exporter, most, now_ns, but))

    def backlog(self, exporter: str) -> Backlog:
        """How many ended runs an exporter has not delivered.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self._ask(lambda connection: count_backlog(connection, exporter))

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        with self._one_at_a_time:
            try:
                return question(self._open())
            except (*database.SQL_ERRORS, database.Damaged) as error:
                self._close_connection()
                raise LedgerError(*database.explain(error, self._path)) from error

    def another(self) -> LedgerReader:
        """One with a connection of its own, so that a long question to it holds up no other."""
        return LedgerReader(self._path, mode=self._mode)

    def check(self, footprint: Footprint, most: int = MAX_FINDINGS) -> list[str]:
        """The first findings of `findings`.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with closing(self.findings(footprint)) as found:
            return list(islice(found, most))

    def findings(self, footprint: Footprint) -> Generator[str, None, None]:
        """See `check_books`; all of it sees the books of one moment, and nobody asks meanwhile.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        from wattledger.ledger.check import check_books

        with self._one_at_a_time:
            try:
                connection = self._open()
                database.check_content(connection)
                connection.execute("BEGIN")
                try:
                    yield from check_books(connection, footprint)
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except database.Damaged as error:
                yield str(error)
            except database.SQL_ERRORS as error:
                self._close_connection()
                raise LedgerError(*database.explain(error, self._path)) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = database.open_plain(self._path, self._mode)
            connection.execute("PRAGMA query_only = ON")
            self._connection = connection
        return self._connection

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Closes the connection and lets go of the lock, if it has one."""
        with self._one_at_a_time:
            self._close_connection()
        if self._lock is not None:
            self._lock.release()


def open_reader_offline(path: Path) -> LedgerReader:
    """A reader for when the daemon is stopped; it holds the ledger's lock until it is closed.

    Under the lock it is the only connection, so it may be one that can put the log of a killed
    daemon in order (a read-only one could leave side files behind); it asks questions only.

    Raises:
        LedgerLocked: the daemon is running: ask it instead.
        LedgerError: there is no ledger, it cannot be read, or is of another version.
    """
    path = Path(os.path.realpath(path))
    try:
        there = path.is_file()
    except OSError as error:
        raise LedgerError(
            f"the ledger {path} cannot be seen: {error.strerror}",
            "ask as root, or as the user that the daemon runs as",
        ) from error
    if not there:
        raise LedgerError(
            f"there is no ledger at {path}", "name it with --ledger, or start the daemon"
        )
    check_file(path)
    lock = Lock(path)
    try:
        known = len(migrations.SCRIPTS)
        connection = database.open_plain(path, "rw")
        try:
            migrations.check_ours(connection, path)
            version = migrations.check_version(connection, path, known)
        finally:
            connection.close()
        if version < known:
            raise LedgerError(
                f"the ledger {path} is of an older version (schema {version}, this one is {known})",
                "start the daemon once: it brings it up to date",
            )
    except database.SQL_ERRORS as error:
        lock.release()
        raise LedgerError(*database.explain(error, path)) from error
    except BaseException:
        lock.release()
        raise
    return LedgerReader(path, mode="rw", lock=lock)
