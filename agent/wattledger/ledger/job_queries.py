"""Questions about jobs: which there are, and all about one. Every one of them finds by an index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from wattledger.ledger.rows import MAX_INTEGER
from wattledger.ledger.run_rows import (
    ACCOUNT,
    CELL_COLUMNS,
    RUN_COLUMNS,
    book_of,
    cells_of,
    sums_in,
)
from wattledger.ledger.settle import SUM_COLUMNS
from wattledger.ledger.waste_queries import Tariff
from wattledger.model import Amounts, Basis, Kind, Quality
from wattledger.model.jobbooks import (
    JOB_SORTS,
    Cell,
    JobDetail,
    JobMoment,
    JobPart,
    JobQuery,
    JobRow,
    RunBook,
)
from wattledger.model.jobs import Held
from wattledger.model.pricing import GridPart
from wattledger.model.settling import Settled, SettledBy
from wattledger.model.sums import sums_of
from wattledger.units import SLOT_S

MAX_RUNS = 100
MAX_MOMENTS = 2_000
HOUR_S = 3600
DAY_S = 24 * HOUR_S
GRAINS = ((6 * HOUR_S, SLOT_S), (20 * DAY_S, HOUR_S))
"""A time line over at most so long has this grain; what is longer, a day's."""

_OF_RUN = "(SELECT coalesce(sum({}), 0) FROM run_total WHERE payee_id = run.payee_id)"
_SORTS = {
    "start": "run.start_ns",
    "energy": _OF_RUN.format("energy_uj"),
    "co2e": _OF_RUN.format("co2e_ug"),
    "held_idle": _OF_RUN.format("held_idle_uj"),
}
assert tuple(_SORTS) == JOB_SORTS  # noqa: S101
_SETTLED = ", ".join(f"sum({column})" for column in SUM_COLUMNS.split(", "))
_NAME = "iif(json_valid(run.labels), json_extract(run.labels, '$.name'), NULL)"

_CELLS = CELL_COLUMNS.split(", ")[2:]
_SUMS = ", ".join(f"sum({column})" for column in _CELLS)
# A run is found by its payee, and is whose its row says; with :uid NULL it is anybody's.
_RUNS = """
FROM payee JOIN run ON run.payee_id = payee.id
WHERE payee.kind = 'jobs' AND payee.manager = :manager AND payee.job_id = :job_id
  AND (:uid IS NULL OR run.uid = :uid)
"""
# Of a run whose totals stand still no row is written: it has run as long as the books go.
_SEEN = "max(run.last_seen_ns, iif(run.end_ns, 0, coalesce((SELECT books_ns FROM meta), 0)))"
_RUN = RUN_COLUMNS.replace("run.last_seen_ns", _SEEN)
_RAN = f"max(0, iif(run.end_ns, run.end_ns, {_SEEN}) - run.start_ns)"
_EPOCH = "coalesce((SELECT epoch_start_ns FROM meta), 0)"
_UNMEASURED = f"max(0, min({_RAN}, {_EPOCH} - run.start_ns))"  # it ran before these books began
_PARTS = f"""
WITH of_job AS MATERIALIZED (SELECT payee.id {_RUNS}),
part AS (
    SELECT slot_s AS at_s, {SLOT_S} AS grain_s, device_id, quality, price_id, {", ".join(_CELLS)}
    FROM entry WHERE payee_id IN (SELECT id FROM of_job)
    UNION ALL
    SELECT hour_s, {HOUR_S}, device_id, quality, price_id, {", ".join(_CELLS)}
    FROM entry_hour WHERE payee_id IN (SELECT id FROM of_job)
)
"""  # noqa: S608
_MOMENTS = f"""{_PARTS}
SELECT at_s / :grain * :grain, device.kind, sum(energy_uj)
FROM part JOIN device ON device.id = part.device_id
GROUP BY 1, 2 ORDER BY 1 DESC, 2 DESC LIMIT :most
"""  # noqa: S608
_PART = ", ".join(GridPart._fields)
_NUMBERS = "intensity_ug_per_kwh, cost_u_per_kwh, currency"
_BY_PRICE = f"""{_PARTS}
SELECT min(at_s), max(at_s), max(grain_s), quality, {_NUMBERS}, {_PART}, {_SUMS}
FROM part JOIN price ON price.id = part.price_id GROUP BY quality, {_NUMBERS}, {_PART}
"""  # noqa: S608


def list_jobs(connection: sqlite3.Connection, asked: JobQuery) -> list[JobRow]:
    """The runs that are asked for, with their totals.

    A run that has not ended was last seen at the instant up to which the books are complete.

    The order is that of the value sorted by, then of the run's row: equal values do not change
    places, so that no run is left out or shown twice between two pages. One whose value grows
    meanwhile may be.

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
    if asked.account:
        where.append(f"{ACCOUNT} = :account")
    if asked.name:
        where.append(f"{_NAME} GLOB :name")
    if asked.uid is not None:
        where.append("run.uid = :uid")
    if asked.state:
        where.append("run.end_ns = 0" if asked.state == "running" else "run.end_ns > 0")
    if asked.after is not None:
        beyond = ">" if asked.ascending else "<"
        where.append(f"({order}, run.payee_id) {beyond} (:after, :after_id)")
    after, after_id = asked.after or (0, 0)
    way = "ASC" if asked.ascending else "DESC"
    found = connection.execute(
        f"SELECT {order}, run.payee_id, payee.manager, payee.job_id, {_RUN} "  # noqa: S608
        "FROM run JOIN payee ON payee.id = run.payee_id "
        f"WHERE {' AND '.join(where)} ORDER BY 1 {way}, 2 {way} LIMIT :limit",
        {
            "until": min(asked.until_ns, MAX_INTEGER),
            "since": min(asked.since_ns, MAX_INTEGER),
            "manager": asked.manager,
            "user": asked.user,
            "user_uid": int(asked.user) if uid_given else -1,
            "account": asked.account,
            "name": asked.name,
            "uid": asked.uid,
            "after": after,
            "after_id": after_id,
            "limit": asked.limit,
        },
    ).fetchall()
    return [
        JobRow(_book_of(connection, payee_id, tuple(row)), (value, payee_id))
        for value, payee_id, *row in found
    ]


def find_job(
    connection: sqlite3.Connection, manager: str, job_id: str, uid: int | None = None
) -> JobDetail | None:
    """All about one job, or about the runs of it that are one user's; None: there are none.

    A run that has not ended was last seen at the instant up to which the books are complete.

    Args:
        connection: to the ledger.
        manager: as in `Payee`.
        job_id: as in `Payee`.
        uid: only this user's runs, in every figure; None: all.

    Raises:
        sqlite3.Error: the ledger cannot be read.
    """
    of = {"manager": manager, "job_id": job_id, "uid": uid}
    found = connection.execute(
        f"SELECT payee.id, payee.manager, payee.job_id, {_RUN} {_RUNS} "
        f"ORDER BY payee.start_ns DESC LIMIT {MAX_RUNS}",
        of,
    ).fetchall()
    if not found:
        return None
    total = connection.execute(
        f"SELECT run_total.kind, basis, {_SUMS} FROM run_total "  # noqa: S608
        f"WHERE payee_id IN (SELECT payee.id {_RUNS}) GROUP BY 1, 2",
        of,
    )
    count, begun_ns, ran_ns, unmeasured_ns = connection.execute(
        f"SELECT count(*), min(payee.start_ns), sum({_RAN}), sum({_UNMEASURED}) {_RUNS}",
        of,
    ).fetchone()
    parts: dict[JobPart, Cell] = {}
    weights: dict[GridPart, int] = {}
    idle_uj: dict[Tariff, int] = {}
    first_s, last_s, coarsest_s = MAX_INTEGER, 0, SLOT_S
    width = len(GridPart._fields)
    for *span, quality, intensity_ug, cost_u, currency, of_price, sums in (
        (*row[:7], row[7 : 7 + width], row[7 + width :])
        for row in connection.execute(_BY_PRICE, of)
    ):
        first_s, last_s = min(first_s, span[0]), max(last_s, span[1])
        coarsest_s = max(coarsest_s, span[2])
        grid = GridPart(*of_price)
        grid = grid._replace(basis=Basis(grid.basis), estimated=bool(grid.estimated))
        part, cell = JobPart(Quality(quality), grid), Cell(Amounts(*sums[:4]), Held(*sums[4:]))
        parts[part] = parts.get(part, Cell()).plus(cell)
        # Here, since the product does not fit SQLite's integers.
        weights[grid] = weights.get(grid, 0) + cell.amounts.energy_uj * intensity_ug
        tariff = Tariff(grid.pue_ppm, cost_u, currency)
        idle_uj[tariff] = idle_uj.get(tariff, 0) + cell.held.idle_uj
    grain_s = next((grain for most, grain in GRAINS if last_s - first_s <= most), DAY_S)
    grain_s = max(grain_s, coarsest_s)  # what is old is kept by the hour
    settled = connection.execute(
        f"SELECT basis, {_SETTLED} FROM settled_run "  # noqa: S608
        f"WHERE payee_id IN (SELECT payee.id {_RUNS}) GROUP BY 1",
        of,
    )
    sums = connection.execute(
        f"SELECT sums FROM run_sums WHERE payee_id IN (SELECT payee.id {_RUNS})",  # noqa: S608
        of,
    )
    moments = connection.execute(_MOMENTS, {**of, "grain": grain_s, "most": MAX_MOMENTS})
    return JobDetail(
        runs=tuple(_book_of(connection, row[0], tuple(row[1:])) for row in found),
        run_count=count,
        begun_ns=begun_ns,
        ran_ns=ran_ns,
        total=MappingProxyType(cells_of(total)),
        parts=MappingProxyType(parts),
        moments=tuple(JobMoment(start_s, Kind(kind), uj) for start_s, kind, uj in moments)[::-1],
        grain_s=grain_s,
        weights=MappingProxyType(weights),
        settled=_settled_of(settled),
        sums=sums_in(sums),
        idle_sums=sums_of(idle_uj.items()),
        unmeasured_ns=unmeasured_ns,
    )


def _book_of(
    connection: sqlite3.Connection, payee_id: int, row: tuple[str | int | None, ...]
) -> RunBook:
    """A run's book with its settlement."""
    book = book_of(connection, payee_id, row)
    settled = _settled_of(
        connection.execute(
            f"SELECT basis, {SUM_COLUMNS} FROM settled_run WHERE payee_id = ?",  # noqa: S608
            (payee_id,),
        )
    )
    return replace(book, settled=settled) if settled else book


def _settled_of(rows: Iterable[tuple[Any, ...]]) -> SettledBy:
    return MappingProxyType({Basis(basis): Settled(*numbers) for basis, *numbers in rows})
