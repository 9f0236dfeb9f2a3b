"""Questions about jobs: which there are, and all about one. Every one of them finds by an index."""

from __future__ import annotations

import sqlite3
from types import MappingProxyType

from wattledger.ledger.rows import MAX_INTEGER
from wattledger.ledger.run_rows import CELL_COLUMNS, RUN_COLUMNS, book_of, cells_of
from wattledger.model import Kind
from wattledger.model.jobbooks import JobDetail, JobMoment, JobQuery, JobRow
from wattledger.units import SLOT_S

MAX_RUNS = 100
HOUR_S = 3600
FINE_S = 6 * HOUR_S  # a time line over at most this is by slot, else by hour
_SUMS = ", ".join(f"sum({column})" for column in CELL_COLUMNS.split(", ")[2:])
_SORTS = {
    "start": "run.start_ns",
    "energy": ("(SELECT coalesce(sum(energy_uj), 0) FROM run_total WHERE payee_id = run.payee_id)"),
}
_OF_JOB = "payee.kind = 'jobs' AND payee.manager = :manager AND payee.job_id = :job_id"
_PARTS = f"""
WITH of_job AS (SELECT id FROM payee WHERE {_OF_JOB}),
part AS (
    SELECT slot_s AS at_s, device_id, quality, energy_uj
    FROM entry WHERE payee_id IN (SELECT id FROM of_job)
    UNION ALL
    SELECT hour_s, device_id, quality, energy_uj
    FROM entry_hour WHERE payee_id IN (SELECT id FROM of_job)
)
"""  # noqa: S608
_MOMENTS = f"""{_PARTS}
SELECT at_s / :grain * :grain, device.kind, sum(energy_uj)
FROM part JOIN device ON device.id = part.device_id
GROUP BY 1, 2 ORDER BY 1 DESC, 2 DESC LIMIT :most
"""  # noqa: S608
_SPAN = f"""{_PARTS}
SELECT min(at_s), max(at_s), sum(iif(quality = 'estimated', energy_uj, 0)) FROM part
"""  # noqa: S608
MAX_MOMENTS = 2_000


def list_jobs(connection: sqlite3.Connection, asked: JobQuery) -> list[JobRow]:
    """The runs that are asked for, with their totals.

    Raises:
        ValueError: no such state or order.
        sqlite3.Error: the ledger cannot be read.
    """
    if asked.sort not in _SORTS or asked.state not in ("", "running", "ended"):
        raise ValueError(f"{asked.sort!r}, {asked.state!r} cannot be asked for")
    order = _SORTS[asked.sort]
    where = ["run.start_ns < :until", "(run.end_ns = 0 OR run.end_ns >= :since)"]
    uid_given = asked.user.isascii() and asked.user.isdigit() and len(asked.user) < 12
    if asked.manager:
        where.append("payee.manager = :manager")
    if asked.user:
        name_or_uid = "(run.user = :user OR run.uid = :user_uid)"
        where.append(name_or_uid if uid_given else "run.user = :user")
    if asked.uid is not None:
        where.append("run.uid = :uid")
    if asked.state:
        where.append("run.end_ns = 0" if asked.state == "running" else "run.end_ns > 0")
    if asked.after is not None:
        where.append(f"({order}, run.payee_id) < (:after, :after_id)")
    after, after_id = asked.after or (0, 0)
    found = connection.execute(
        f"SELECT {order}, run.payee_id, payee.manager, payee.job_id, {RUN_COLUMNS} "  # noqa: S608
        "FROM run JOIN payee ON payee.id = run.payee_id "
        f"WHERE {' AND '.join(where)} ORDER BY 1 DESC, 2 DESC LIMIT :limit",
        {
            "until": min(asked.until_ns, MAX_INTEGER),
            "since": min(asked.since_ns, MAX_INTEGER),
            "manager": asked.manager,
            "user": asked.user,
            "user_uid": int(asked.user) if uid_given else -1,
            "uid": asked.uid,
            "after": after,
            "after_id": after_id,
            "limit": asked.limit,
        },
    ).fetchall()
    return [
        JobRow(book_of(connection, payee_id, tuple(row)), (value, payee_id))
        for value, payee_id, *row in found
    ]


def find_job(connection: sqlite3.Connection, manager: str, job_id: str) -> JobDetail | None:
    """All about one job; None: it is not known.

    Raises:
        sqlite3.Error: the ledger cannot be read.
    """
    of = {"manager": manager, "job_id": job_id}
    found = connection.execute(
        f"SELECT payee.id, payee.manager, payee.job_id, {RUN_COLUMNS} "  # noqa: S608
        "FROM payee JOIN run ON run.payee_id = payee.id "
        f"WHERE {_OF_JOB} ORDER BY run.start_ns DESC LIMIT {MAX_RUNS}",
        of,
    ).fetchall()
    if not found:
        return None
    joined = f"FROM payee JOIN run_total ON run_total.payee_id = payee.id WHERE {_OF_JOB}"
    total = connection.execute(
        f"SELECT run_total.kind, basis, {_SUMS} {joined} GROUP BY 1, 2",
        of,
    )
    (count,) = connection.execute(
        f"SELECT count(*) FROM payee JOIN run ON run.payee_id = payee.id WHERE {_OF_JOB}",  # noqa: S608
        of,
    ).fetchone()
    first_s, last_s, estimated_uj = connection.execute(_SPAN, of).fetchone()
    grain_s = SLOT_S if first_s is not None and last_s - first_s <= FINE_S else HOUR_S
    moments = connection.execute(_MOMENTS, {**of, "grain": grain_s, "most": MAX_MOMENTS})
    return JobDetail(
        runs=tuple(book_of(connection, row[0], tuple(row[1:])) for row in found),
        run_count=count,
        total=MappingProxyType(cells_of(total)),
        estimated_uj=int(estimated_uj or 0),
        moments=tuple(JobMoment(start_s, Kind(kind), uj) for start_s, kind, uj in moments)[::-1],
        grain_s=grain_s,
    )
