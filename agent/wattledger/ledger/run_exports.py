"""Ended runs that exporters are still to deliver: a queue in the ledger, one row for each.

A run comes into it with the commit that writes its end, and leaves it with the commit that writes
what its receiver acknowledged. So each is delivered at least once, whatever is killed when.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from types import MappingProxyType

from wattledger.ledger.run_rows import RUN_COLUMNS, book_of
from wattledger.model import Quality
from wattledger.model.exporting import Backlog, Delivery, EndedRun
from wattledger.units import NS_PER_S

RETRY_REFUSED_NS = 24 * 3600 * NS_PER_S
PATIENCE_COMMITS = 24
"""So many commits later a run leaves even where the clock says that it has not ended yet."""

_QUEUE = (
    "INSERT INTO run_export (exporter, payee_id, queued) VALUES (?, ?, ?) "
    "ON CONFLICT DO UPDATE SET queued = excluded.queued, refused_ns = 0"
)
_DELIVERED = "DELETE FROM run_export WHERE exporter = ? AND payee_id = ? AND queued = ?"
_REFUSED = "UPDATE run_export SET refused_ns = ? WHERE exporter = ? AND payee_id = ? AND queued = ?"
# All of it is booked once the books go beyond its end.
_WAITING = f"""
SELECT run.payee_id, waits.queued, payee.manager, payee.job_id, {RUN_COLUMNS}
FROM run_export AS waits
JOIN run ON run.payee_id = waits.payee_id
JOIN payee ON payee.id = waits.payee_id
CROSS JOIN meta
WHERE waits.exporter = :exporter AND waits.refused_ns <= :retry_ns AND run.end_ns > 0
  AND (run.end_ns <= meta.books_ns OR waits.queued + {PATIENCE_COMMITS} <= meta.commits)
ORDER BY waits.refused_ns, waits.payee_id LIMIT :most
"""  # noqa: S608
_QUALITIES = """
SELECT quality, sum(energy_uj) FROM (
    SELECT quality, energy_uj FROM entry WHERE payee_id = :payee
    UNION ALL SELECT quality, energy_uj FROM entry_hour WHERE payee_id = :payee
) GROUP BY 1
"""


def queue_runs(
    connection: sqlite3.Connection, exporters: Iterable[str], payees: Sequence[int], commit: int
) -> None:
    """Ended runs come to wait, or wait anew since more was booked on them.

    Args:
        connection: in the commit's transaction.
        exporters: those that deliver runs.
        payees: the rows of the runs' payees.
        commit: the commit's number.
    """
    rows = [(exporter, payee, commit) for exporter in exporters for payee in payees]
    if rows:
        connection.executemany(_QUEUE, rows)


def settle_deliveries(connection: sqlite3.Connection, deliveries: Iterable[Delivery]) -> None:
    """What became of runs; those that were booked on since go on waiting."""
    for exporter, payee_id, queued, refused_ns in deliveries:
        if refused_ns:
            connection.execute(_REFUSED, (refused_ns, exporter, payee_id, queued))
        else:
            connection.execute(_DELIVERED, (exporter, payee_id, queued))


def waiting_runs(
    connection: sqlite3.Connection,
    exporter: str,
    most: int,
    now_ns: int,
    but: Collection[tuple[int, int]] = (),
) -> list[EndedRun]:
    """The runs that come next: those never refused, then those refused a day ago or earlier.

    Args:
        connection: to the ledger.
        exporter: whose.
        most: at most so many.
        now_ns: wall clock.
        but: those of whom something was said that is not written yet: (row, `queued`).

    Raises:
        sqlite3.Error: the ledger cannot be read.
        Damaged: a row was not written by us.
    """
    import uuid  # where nothing is delivered, nothing is loaded for it

    retry_ns = max(0, now_ns - RETRY_REFUSED_NS)
    asked = {"exporter": exporter, "retry_ns": retry_ns, "most": most + len(but)}
    rows = [row for row in connection.execute(_WAITING, asked) if row[:2] not in but][:most]
    epoch = connection.execute("SELECT epoch FROM meta").fetchone()[0]
    found: list[EndedRun] = []
    for payee_id, queued, *row in rows:
        book = book_of(connection, payee_id, tuple(row))
        payee = book.run.payee
        name = f"wattledger:{epoch}:{payee.manager}:{payee.job_id}:{payee.start_ns}"
        qualities = connection.execute(_QUALITIES, {"payee": payee_id})
        found.append(
            EndedRun(
                payee_id,
                queued,
                str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
                book,
                MappingProxyType({Quality(quality): int(uj) for quality, uj in qualities}),
            )
        )
    return found


def count_backlog(connection: sqlite3.Connection, exporter: str) -> Backlog:
    """How many runs an exporter has not delivered."""
    waiting, refused = connection.execute(
        "SELECT count(*) FILTER (WHERE refused_ns = 0), count(*) FILTER (WHERE refused_ns > 0) "
        "FROM run_export WHERE exporter = ?",
        (exporter,),
    ).fetchone()
    return Backlog(int(waiting), int(refused))
