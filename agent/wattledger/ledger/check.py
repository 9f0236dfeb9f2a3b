"""Do the books balance? The ledger's own invariants, recomputed from its rows.

Of settlements see `settled_check`.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping

from wattledger.ledger.draft import Footprint
from wattledger.ledger.run_rows import CELL_COLUMNS
from wattledger.ledger.settle import load_price
from wattledger.ledger.settled_check import check_settled
from wattledger.ledger.sums_check import check_sums
from wattledger.model import Amounts, Price

_SUMS = """
SELECT device.name, payee.kind, quality, price.basis,
       sum(energy_uj), sum(co2e_ug), sum(water_onsite_ul), sum(water_grid_ul)
FROM (
    SELECT device_id, payee_id, quality, price_id,
           energy_uj, co2e_ug, water_onsite_ul, water_grid_ul FROM entry
    UNION ALL
    SELECT device_id, payee_id, quality, price_id,
           energy_uj, co2e_ug, water_onsite_ul, water_grid_ul FROM entry_hour
) JOIN device ON device.id = device_id JOIN payee ON payee.id = payee_id
  JOIN price ON price.id = price_id
GROUP BY 1, 2, 3, 4
"""
_TOTALS = """
SELECT device.name, payee_kind, quality, basis,
       energy_uj, co2e_ug, water_onsite_ul, water_grid_ul
FROM total JOIN device ON device.id = device_id
"""
# Compared by SQLite, cell by cell: a million runs would not fit the memory.
_CELL = CELL_COLUMNS.split(", ")[2:]
_BOOKED = ", ".join(f"{column} AS booked_{column}, 0 AS total_{column}" for column in _CELL)
_KEPT = ", ".join(f"0, {column}" for column in _CELL)
_BOTH = [(f"sum(booked_{column})", f"sum(total_{column})") for column in _CELL]
_RUN_DIFFERENCES = f"""
SELECT payee.manager, payee.job_id, payee.start_ns, part.kind, part.basis,
       {", ".join(booked for booked, _ in _BOTH)}, {", ".join(total for _, total in _BOTH)}
FROM (
    SELECT payee_id, device.kind AS kind, price.basis AS basis, {_BOOKED}
    FROM entry JOIN device ON device.id = device_id JOIN price ON price.id = price_id
    UNION ALL
    SELECT payee_id, device.kind, price.basis, {_BOOKED}
    FROM entry_hour JOIN device ON device.id = device_id JOIN price ON price.id = price_id
    UNION ALL
    SELECT payee_id, kind, basis, {_KEPT} FROM run_total
) AS part JOIN payee ON payee.id = part.payee_id
WHERE payee.kind = 'jobs' GROUP BY part.payee_id, part.kind, part.basis
HAVING {" OR ".join(f"{booked} != {total}" for booked, total in _BOTH)}
"""  # noqa: S608
_AMOUNT = ", ".join(f"sum({column})" for column in _CELL[:4])
# By manager: for whom a run was counted may have become known in the middle of it.
_COUNTED = f"""
SELECT manager, {_AMOUNT} FROM (
    SELECT manager, {", ".join(_CELL[:4])} FROM user_total
    UNION ALL
    SELECT manager, {", ".join(_CELL[:4])} FROM user_waiting JOIN payee ON payee.id = payee_id
) GROUP BY 1
"""  # noqa: S608
_OF_MANAGERS = f"""
SELECT manager, {_AMOUNT} FROM run_total JOIN payee ON payee.id = payee_id GROUP BY 1
"""  # noqa: S608
_ENTRIES = """
SELECT 'slot ' || slot_s, device_id, payee_id, quality, price_id,
       energy_uj, co2e_ug, water_onsite_ul, water_grid_ul, 1 FROM entry
UNION ALL
SELECT 'hour ' || hour_s, device_id, payee_id, quality, price_id,
       energy_uj, co2e_ug, water_onsite_ul, water_grid_ul, slots FROM entry_hour
"""


def check_books(connection: sqlite3.Connection, footprint: Footprint) -> Iterator[str]:
    """Recomputes every entry, every settlement and every total.

    Σ entries = total for each device, kind of payee, quality and basis, and for each job's run,
    in energy, CO2e and water, for runs also in the time and energy held; each entry's CO2e and
    water are the floor of its energy at its price; those of an hour
    of n slots are less than n below it. The sums of a manager's users, with what waits for its
    user, are those of its runs. What is settled: see `check_settled`; money: `check_sums`. What
    names a price that is not there, or that cannot be read, is not recomputed: that is the finding.

    Args:
        connection: to the ledger.
        footprint: as handed to `open_ledger`.

    Yields:
        Sentences; none where the books balance.

    Raises:
        sqlite3.Error: it could not be read.
    """
    yield from _dangling(connection)
    prices: dict[int, Price] = {}
    yield from _read_prices(connection, prices)
    yield from _totals(connection)
    yield from _runs(connection)
    yield from _users(connection)
    yield from _floors(connection, footprint, prices)
    yield from check_settled(connection, footprint, prices)
    yield from check_sums(connection)


def _dangling(connection: sqlite3.Connection) -> Iterator[str]:
    # By table: most have no row's id that could be told.
    found = Counter((row[0], row[2]) for row in connection.execute("PRAGMA foreign_key_check"))
    for (table, parent), count in sorted(found.items()):
        yield f"{table}: rows that name a {parent} that is not there: {count}"


def _read_prices(connection: sqlite3.Connection, prices: dict[int, Price]) -> Iterator[str]:
    """Fills in every price that can be read."""
    for (price_id,) in connection.execute("SELECT id FROM price ORDER BY id"):
        try:
            prices[price_id] = load_price(connection, price_id)
        except ValueError as error:
            yield f"price {price_id}: {error}"


def _totals(connection: sqlite3.Connection) -> list[str]:
    sums = {row[:4]: Amounts(*row[4:]) for row in connection.execute(_SUMS)}
    totals = {row[:4]: Amounts(*row[4:]) for row in connection.execute(_TOTALS)}
    return [
        f"{' '.join(cell)}: entries sum to {sums.get(cell, Amounts())}, "
        f"the total is {totals.get(cell, Amounts())}"
        for cell in sorted({*sums, *totals})
        if sums.get(cell, Amounts()) != totals.get(cell, Amounts())
    ]


def _runs(connection: sqlite3.Connection) -> Iterator[str]:
    width = len(_CELL)
    for row in connection.execute(_RUN_DIFFERENCES):
        yield f"run {row[:5]}: entries sum to {row[5 : 5 + width]}, the total is {row[5 + width :]}"


def _users(connection: sqlite3.Connection) -> list[str]:
    counted = {row[0]: Amounts(*row[1:]) for row in connection.execute(_COUNTED)}
    runs = {row[0]: Amounts(*row[1:]) for row in connection.execute(_OF_MANAGERS)}
    return [
        f"users of {manager or '(none)'}: the sum is {counted.get(manager, Amounts())}, "
        f"that of the runs {runs.get(manager, Amounts())}"
        for manager in sorted({*counted, *runs})
        if counted.get(manager, Amounts()) != runs.get(manager, Amounts())
    ]


def _floors(
    connection: sqlite3.Connection, footprint: Footprint, prices: Mapping[int, Price]
) -> Iterator[str]:
    for row in connection.execute(_ENTRIES):
        *place, energy_uj, co2e_ug, water_onsite_ul, water_grid_ul, slots = row
        booked = (co2e_ug, water_onsite_ul, water_grid_ul)
        price = prices.get(place[-1])
        if price is None:
            continue
        expected = footprint(energy_uj, price)[1:]
        if any(not 0 <= e - b < slots for e, b in zip(expected, booked, strict=True)):
            yield f"{place}: {energy_uj} µJ book {booked}, not {expected}"
