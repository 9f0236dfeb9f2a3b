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
from wattledger.ledger.check import check_books
from wattledger.ledger.draft import Footprint
from wattledger.ledger.job_queries import find_job, list_jobs
from wattledger.ledger.rows import MAX_INTEGER
from wattledger.ledger.run_rows import GROUP_OF_USER
from wattledger.ledger.storage import Lock, check_file
from wattledger.ledger.waste_queries import find_waste
from wattledger.model import Amounts, Basis, TotalsRow
from wattledger.model.jobbooks import JobDetail, JobQuery, JobRow, Waste
from wattledger.units import NS_PER_S

T = TypeVar("T")

_JOIN_RUN = "JOIN payee ON payee.id = part.payee_id LEFT JOIN run ON run.payee_id = payee.id"
GROUPS = {
    "all": ("'all'", ""),
    "device": ("device.name", "JOIN device ON device.id = device_id"),
    "kind": ("device.kind", "JOIN device ON device.id = device_id"),
    "payee": ("payee.kind", "JOIN payee ON payee.id = payee_id"),
    "job": (
        "iif(payee.kind = 'jobs', payee.manager || '/' || payee.job_id, '(' || payee.kind || ')')",
        _JOIN_RUN,
    ),
    "user": (
        (f"iif(payee.kind = 'jobs', {GROUP_OF_USER}, '(' || payee.kind || ')')"),
        _JOIN_RUN,
    ),
    "hour": ("at_s / 3600 * 3600", ""),
    "day": ("at_s / 86400 * 86400", ""),
}
_RUNS_OF = "SELECT payee_id FROM run WHERE uid = {uid:d} AND (end_ns = 0 OR end_ns >= :ended)"
_COARSEST_NS = 86_400 * NS_PER_S
_TIME_FORMATS = {"hour": "%Y-%m-%dT%H:00:00Z", "day": "%Y-%m-%d"}
_LAST_S = 253_402_300_800  # the year 10000

# Per price first, so that the joins see a handful of rows.
_TOTALS = """
SELECT {group}, price.basis, sum(energy_uj), sum(co2e_ug), sum(water_onsite_ul),
       sum(water_grid_ul), sum(iif(quality = 'estimated', energy_uj, 0))
FROM (
    SELECT slot_s AS at_s, device_id, payee_id, quality, price_id,
           energy_uj, co2e_ug, water_onsite_ul, water_grid_ul
    FROM entry {slots} slot_s >= :since AND slot_s < :until
    UNION ALL
    SELECT hour_s, device_id, payee_id, quality, price_id,
           energy_uj, co2e_ug, water_onsite_ul, water_grid_ul
    FROM entry_hour {hours} hour_s >= :since AND hour_s < :until
) AS part JOIN price ON price.id = price_id {join}
GROUP BY 1, 2 ORDER BY 1, 2
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
        group, join = GROUPS[by]
        span = {"since": _first_slot_s(since_ns), "until": _first_slot_s(until_ns)}
        slots = hours = "WHERE"
        if uid is not None:  # by their runs: far fewer than there are entries in the time
            # What a run is booked lies before its end, but for what a long outage has coarsened.
            span["ended"] = min(max(since_ns - _COARSEST_NS, 1), MAX_INTEGER)
            own = f"WHERE payee_id IN ({_RUNS_OF.format(uid=uid)}) AND"
            slots = f"INDEXED BY entry_payee {own}"
            hours = f"INDEXED BY entry_hour_payee {own}"
        query = _TOTALS.format(group=group, join=join, slots=slots, hours=hours)
        found = self._ask(lambda connection: connection.execute(query, span).fetchall())
        merged: dict[str, TotalsRow] = {}
        for name, basis, *numbers in found:
            text = strftime(_TIME_FORMATS[by], gmtime(name)) if by in _TIME_FORMATS else str(name)
            old = merged.get(text, TotalsRow(text, Amounts(), 0))
            merged[text] = TotalsRow(
                text,
                old.amounts.plus(Amounts(*numbers[:4])),
                old.estimated_uj + numbers[4],
                (*old.bases, Basis(basis)),
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

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        with self._one_at_a_time:
            try:
                return question(self._open())
            except (*database.SQL_ERRORS, database.Damaged) as error:
                self._close_connection()
                raise LedgerError(*database.explain(error, self._path)) from error

    def check(self, footprint: Footprint) -> list[str]:
        """See `check_books`.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        with self._one_at_a_time:
            try:
                database.check_content(self._open())
                return check_books(self._open(), footprint)
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
