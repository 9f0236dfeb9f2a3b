"""Do the settlements balance? Recomputed from the rows, as `check` does it for the books."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from wattledger.ledger.settle import COLUMNS, SUMS, Footprint, difference, load_prices
from wattledger.model import Price

_ROWS = f"""
SELECT 'slot ' || slot_s, device_id, payee_id, quality, price_id, settled_price_id, {COLUMNS}, 1
FROM settled
UNION ALL
SELECT 'hour ' || hour_s, device_id, payee_id, quality, price_id, settled_price_id, {COLUMNS}, slots
FROM settled_hour
"""  # noqa: S608
_BOTH = f"""
SELECT slot_s AS at_s, device_id, payee_id, quality, price_id, {COLUMNS} FROM settled
UNION ALL
SELECT hour_s, device_id, payee_id, quality, price_id, {COLUMNS} FROM settled_hour
"""  # noqa: S608
# By the hour: an older program may have rolled up entries and left their settlements in slots.
_MORE_THAN_BOOKED = """
SELECT hour_s, device_id, payee_id, quality, price_id, sum(settled_uj), sum(booked_uj) FROM (
    SELECT slot_s / 3600 * 3600 AS hour_s, device_id, payee_id, quality, price_id,
           energy_uj AS settled_uj, 0 AS booked_uj FROM settled
    UNION ALL
    SELECT hour_s, device_id, payee_id, quality, price_id, energy_uj, 0 FROM settled_hour
    UNION ALL
    SELECT slot_s / 3600 * 3600, device_id, payee_id, quality, price_id, 0, energy_uj FROM entry
    UNION ALL
    SELECT hour_s, device_id, payee_id, quality, price_id, 0, energy_uj FROM entry_hour
) GROUP BY 1, 2, 3, 4, 5 HAVING sum(settled_uj) > sum(booked_uj) LIMIT ?
"""
_TOTALS = f"""
SELECT basis, {SUMS} FROM (
    SELECT price.basis AS basis, {COLUMNS} FROM ({_BOTH}) JOIN price ON price.id = price_id
    UNION ALL
    SELECT basis, {", ".join(f"-{column}" for column in COLUMNS.split(", "))} FROM settled_total
) GROUP BY 1
"""  # noqa: S608
_RUNS = f"""
SELECT payee_id, {SUMS} FROM (
    SELECT payee_id, {COLUMNS} FROM ({_BOTH}) JOIN payee ON payee.id = payee_id
    WHERE payee.kind = 'jobs'
    UNION ALL
    SELECT payee_id, {", ".join(f"-{column}" for column in COLUMNS.split(", "))} FROM settled_run
) GROUP BY 1
"""  # noqa: S608


def check_settled(connection: sqlite3.Connection, footprint: Footprint, most: int) -> Iterator[str]:
    """Recomputes every settlement and every sum of settlements.

    Each difference is that of the floors of its energy at the two prices (of an hour of n slots:
    less than n away from it); a settled price has the basis, PUE and WUE of the booked one; no more
    is settled than was booked; Σ settlements = total for each basis, and for each job's run.

    Args:
        connection: to the ledger.
        footprint: as handed to `open_ledger`.
        most: of one kind, end after so many findings.

    Yields:
        Sentences; none where all balances.

    Raises:
        sqlite3.Error: it could not be read.
    """
    yield from _differences(connection, footprint)
    for *place, settled_uj, booked_uj in connection.execute(_MORE_THAN_BOOKED, (most,)):
        yield f"{place}: {settled_uj} µJ are settled, but {booked_uj} µJ booked"
    for what, query in (("basis", _TOTALS), ("run", _RUNS)):
        for where, *off in connection.execute(query):
            if any(off):
                yield f"{what} {where}: settlements less their total are {tuple(off)}, not 0"


def _differences(connection: sqlite3.Connection, footprint: Footprint) -> Iterator[str]:
    prices = load_prices(connection)
    for *place, booked_id, settled_id, energy_uj, co2e_ug, water_ul, slots in connection.execute(
        _ROWS
    ):
        booked, settled = prices[booked_id], prices[settled_id]
        if _fixed(booked) != _fixed(settled):
            yield f"{place}: settled at price {settled_id} of another basis, PUE or WUE"
            continue
        expected = difference(energy_uj, booked, settled, footprint)
        found = (energy_uj, co2e_ug, water_ul)
        if any(abs(e - f) >= slots for e, f in zip(expected, found, strict=True)):
            yield f"{place}: {energy_uj} µJ settle by {found[1:]}, not {tuple(expected[1:])}"


def _fixed(price: Price) -> tuple[object, ...]:
    return price.basis, price.pue_ppm, price.wue_ul_per_kwh
