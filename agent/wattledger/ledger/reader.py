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
from collections.abc import Callable
from pathlib import Path
from time import gmtime, strftime
from typing import TypeVar

from wattledger.errors import LedgerError
from wattledger.ledger import database, migrations
from wattledger.ledger.audit import AuditCursor, Record, audit_page
from wattledger.ledger.check import MAX_FINDINGS, check_books
from wattledger.ledger.draft import Footprint
from wattledger.ledger.job_queries import find_job, list_jobs
from wattledger.ledger.rows import MAX_INTEGER
from wattledger.ledger.run_rows import GROUP_OF_USER
from wattledger.ledger.settle import priced_slots
from wattledger.ledger.storage import Lock, check_file
from wattledger.ledger.waste_queries import find_waste
from wattledger.model import Amounts, Basis, TotalsRow
from wattledger.model.jobbooks import JobDetail, JobQuery, JobRow, Waste
from wattledger.model.pricing import Grade
from wattledger.model.settling import PricedSlot, Settled
from wattledger.model.uncertainty import split, together
from wattledger.units import NS_PER_S, PPM

T = TypeVar("T")

_OF_DEVICE = ("device_id", "JOIN device ON device.id = part.key")
_OF_PAYEE = ("payee_id", "JOIN payee ON payee.id = part.key")
_OF_RUN = ("payee_id", f"{_OF_PAYEE[1]} LEFT JOIN run ON run.payee_id = payee.id")
GROUPS = {
    "all": ("'all'", "0", ""),
    "device": ("device.name", *_OF_DEVICE),
    "kind": ("device.kind", *_OF_DEVICE),
    "payee": ("payee.kind", *_OF_PAYEE),
    "job": (
        "iif(payee.kind = 'jobs', payee.manager || '/' || payee.job_id, '(' || payee.kind || ')')",
        *_OF_RUN,
    ),
    "user": (
        f"iif(payee.kind = 'jobs', {GROUP_OF_USER}, '(' || payee.kind || ')')",
        *_OF_RUN,
    ),
    "hour": ("part.key", "{at} / 3600 * 3600", ""),
    "day": ("part.key", "{at} / 86400 * 86400", ""),
}
"""What a row is called, what the entries are summed up by first, and what tells the one from the
other: so the joins see a handful of rows, not every entry."""
_RUNS_OF = "SELECT payee_id FROM run WHERE uid = {uid:d} AND (end_ns = 0 OR end_ns >= :ended)"
_COARSEST_NS = 86_400 * NS_PER_S
_TIME_FORMATS = {"hour": "%Y-%m-%dT%H:00:00Z", "day": "%Y-%m-%d"}
_LAST_S = 253_402_300_800  # the year 10000
_GRADE = ", ".join(f"price.{column}" for column in Grade._fields)

_PART = """
SELECT {key} AS key, price_id, sum(energy_uj) AS energy_uj, sum(co2e_ug) AS co2e_ug,
       sum(water_onsite_ul) AS onsite_ul, sum(water_grid_ul) AS grid_ul,
       sum(iif(quality = 'estimated', energy_uj, 0)) AS estimated_uj,
       sum(iif(quality = 'integrated', energy_uj, 0)) AS integrated_uj,
       0 AS settled_uj, 0 AS settled_co2e_ug, 0 AS settled_grid_ul
FROM {table} {where} {at} >= :since AND {at} < :until GROUP BY 1, 2
"""
_SETTLED_PART = """
SELECT {key}, price_id, 0, 0, 0, 0, 0, 0, sum(energy_uj), sum(co2e_diff_ug), sum(water_grid_diff_ul)
FROM {table} {where} {at} >= :since AND {at} < :until GROUP BY 1, 2
"""
_TOTALS = """
SELECT {group}, price.basis, price.pue_ppm, {grade}, sum(part.energy_uj), sum(co2e_ug),
       sum(onsite_ul), sum(grid_ul), sum(estimated_uj), sum(integrated_uj), sum(settled_uj),
       sum(settled_co2e_ug), sum(settled_grid_ul)
FROM ({parts}) AS part JOIN price ON price.id = price_id {join}
GROUP BY 1, 2, 3, {grade} ORDER BY 1, 2, 3
"""


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
        if by not in GROUPS:
            raise ValueError(f"{by!r} is no grouping; there are {', '.join(GROUPS)}")
        if uid is not None and by not in ("job", "user"):
            raise ValueError(f"totals by {by} are not any user's")
        span = {"since": _first_slot_s(since_ns), "until": _first_slot_s(until_ns)}
        own = ""
        if uid is not None:  # by their runs: far fewer than there are entries in the time
            # What a run is booked lies before its end, but for what a long outage has coarsened.
            span["ended"] = min(max(since_ns - _COARSEST_NS, 1), MAX_INTEGER)
            own = f"payee_id IN ({_RUNS_OF.format(uid=uid)}) AND"
        query = _totals_query(by, own)
        found = self._ask(lambda connection: connection.execute(query, span).fetchall())
        merged: dict[str, TotalsRow] = {}
        facility: dict[str, int] = {}  # µJ × PPM: more than SQLite's integers hold
        for name, basis, pue_ppm, *rest in found:
            grade, numbers = Grade(*rest[: len(Grade._fields)]), rest[len(Grade._fields) :]
            amounts = Amounts(*numbers[:4])
            text = strftime(_TIME_FORMATS[by], gmtime(name)) if by in _TIME_FORMATS else str(name)
            old = merged.get(text, TotalsRow(text, Amounts(), 0))
            facility[text] = facility.get(text, 0) + numbers[0] * pue_ppm
            merged[text] = TotalsRow(
                text,
                old.amounts.plus(amounts),
                old.estimated_uj + numbers[4],
                tuple(dict.fromkeys((*old.bases, Basis(basis)))),
                facility[text] // PPM,
                old.settled.plus(Settled(*numbers[6:])),
                sure=together(old.sure, split(grade, amounts, numbers[4], numbers[5])),
            )
        return list(merged.values())

    def jobs(self, asked: JobQuery) -> list[JobRow]:
        """The runs that are asked for, with their totals, in the order that is asked for.

        Raises:
            ValueError: no such state or order.
            LedgerError: the ledger cannot be read.
        """
        return self._ask(lambda connection: list_jobs(connection, asked))

    def job(self, manager: str, job_id: str, uid: int | None = None) -> JobDetail | None:
        """All about one job, of the runs that are this user's or (None) all; None: there are none.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self._ask(lambda connection: find_job(connection, manager, job_id, uid))

    def waste(self, since_ns: int, until_ns: int, by: str, uid: int | None = None) -> Waste:
        """What was held without use, of the slots that begin in [since, until); by this user only.

        What is older than the ledger's grain of 5 minutes counts where its hour begins.

        Raises:
            ValueError: no such grouping.
            LedgerError: the ledger cannot be read.
        """
        since_s, until_s = _first_slot_s(since_ns), _first_slot_s(until_ns)
        return self._ask(lambda connection: find_waste(connection, since_s, until_s, by, uid))

    def priced_slots(self, since_ns: int, until_ns: int) -> list[PricedSlot]:
        """What the slots that begin in [since, until) were priced with; see `settle.priced_slots`.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        span = _first_slot_s(since_ns), _first_slot_s(until_ns)
        return self._ask(lambda connection: priced_slots(connection, *span))

    def audit(
        self, since_ns: int, until_ns: int, after: AuditCursor | None, most: int
    ) -> tuple[list[Record], AuditCursor | None]:
        """A page of the books as records that can be recomputed; see `audit_page`.

        Raises:
            ValueError: `after` is not what a page gave.
            LedgerError: the ledger cannot be read.
        """
        span = _first_slot_s(since_ns), _first_slot_s(until_ns)
        return self._ask(lambda connection: audit_page(connection, *span, after, most))

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        with self._one_at_a_time:
            try:
                return question(self._open())
            except (*database.SQL_ERRORS, database.Damaged) as error:
                self._close_connection()
                raise LedgerError(*database.explain(error, self._path)) from error

    def check(self, footprint: Footprint, most: int = MAX_FINDINGS) -> list[str]:
        """See `check_books`; all of it sees the books of one moment.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._one_at_a_time:
            try:
                connection = self._open()
                database.check_content(connection)
                connection.execute("BEGIN")
                try:
                    return check_books(connection, footprint, most)
                finally:
                    connection.execute("ROLLBACK")
            except database.Damaged as error:
                return [str(error)]
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


def _totals_query(by: str, own: str) -> str:
    """Args: own: which entries, ending in AND; empty: all."""
    group, key, join = GROUPS[by]
    parts = (
        part.format(
            key=key.format(at=at),
            table=table,
            where=f"INDEXED BY {table}_payee WHERE {own}" if own else "WHERE",
            at=at,
        )
        for part, table, at in (
            (_PART, "entry", "slot_s"),
            (_PART, "entry_hour", "hour_s"),
            (_SETTLED_PART, "settled", "slot_s"),
            (_SETTLED_PART, "settled_hour", "hour_s"),
        )
    )
    return _TOTALS.format(group=group, grade=_GRADE, join=join, parts=" UNION ALL ".join(parts))


def _first_slot_s(wall_ns: int) -> int:
    """The first whole second at or after an instant; slots begin on whole seconds."""
    return min(max(-(-wall_ns // NS_PER_S), 0), _LAST_S)


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
