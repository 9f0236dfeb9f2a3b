"""Do the corrections balance? Recomputed from the rows, as `check` does it for the books."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping

from wattledger.ledger.restate import load_restatements
from wattledger.ledger.settle import (
    SUM_COLUMNS,
    Correction,
    Footprint,
    correction,
    fixed_factors,
)
from wattledger.model import Price
from wattledger.model.restating import FACTORS, HOUR_S, RESTATED, Restatement, source_of
from wattledger.units import SLOT_S

_COLUMNS = ", ".join(Correction._fields)
_KEY = "device_id, payee_id, quality, price_id"
_TABLES = (("settled", "slot_s", "slot", SLOT_S), ("settled_hour", "hour_s", "hour", HOUR_S))
_ROWS = f"""
SELECT 'slot ' || slot_s, slot_s, {_KEY}, 1, {_COLUMNS} FROM settled
UNION ALL
SELECT 'hour ' || hour_s, hour_s, {_KEY}, slots, {_COLUMNS} FROM settled_hour
"""  # noqa: S608
# Those of one basis as they are; of two, what the one gives up and what the other one gets.
_PARTS = """
SELECT payee_id, final.basis AS basis, settled_uj, co2e_diff_ug + co2e_taken_ug AS co2e_diff_ug,
       water_grid_diff_ul, water_onsite_diff_ul, restated_uj,
       iif(booked.basis != final.basis, energy_uj, 0) AS moved_uj
FROM {table} JOIN price AS booked ON booked.id = price_id
JOIN price AS final ON final.id = final_price_id
UNION ALL
SELECT payee_id, booked.basis, 0, -co2e_taken_ug, 0, 0, 0, -energy_uj
FROM {table} JOIN price AS booked ON booked.id = price_id
JOIN price AS final ON final.id = final_price_id WHERE booked.basis != final.basis
"""
_BOTH = f"{_PARTS.format(table='settled')} UNION ALL {_PARTS.format(table='settled_hour')}"
# By the hour: an older program may have rolled up entries and left their corrections in slots.
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
) GROUP BY 1, 2, 3, 4, 5 HAVING sum(settled_uj) > sum(booked_uj)
"""
# What was published is kept as a digest; that it was, and by whom, is what can be looked for.
_UNGROUNDED = """
SELECT DISTINCT '{grain} ' || {at}, price_id, settled_price_id FROM {table} AS part
WHERE settled_uj > 0 AND NOT EXISTS (
    SELECT 1 FROM settled_slot AS word JOIN history ON history.id = word.history_id
    JOIN price ON price.id = word.settled_price_id
    WHERE word.slot_s IN ({slots})
    AND (word.price_id, word.settled_price_id) = (part.price_id, part.settled_price_id)
    AND (history.source, history.zone, history.basis) = (price.source, price.zone, price.basis)
)
"""
_SUMS = ", ".join(f"sum({column})" for column in SUM_COLUMNS.split(", "))
_LESS = ", ".join(f"-{column}" for column in SUM_COLUMNS.split(", "))
_TOTALS = f"""
SELECT basis, {_SUMS} FROM (
    SELECT basis, {SUM_COLUMNS} FROM ({_BOTH})
    UNION ALL
    SELECT basis, {_LESS} FROM settled_total
) GROUP BY 1
"""  # noqa: S608
_RUNS = f"""
SELECT payee_id || ' ' || basis, {_SUMS} FROM (
    SELECT payee_id, basis, {SUM_COLUMNS} FROM ({_BOTH}) JOIN payee ON payee.id = payee_id
    WHERE payee.kind = 'jobs'
    UNION ALL
    SELECT payee_id, basis, {_LESS} FROM settled_run
) GROUP BY payee_id, basis
"""  # noqa: S608


def check_settled(
    connection: sqlite3.Connection, footprint: Footprint, prices: Mapping[int, Price]
) -> Iterator[str]:
    """Recomputes every correction and every sum of corrections.

    Each difference is that of the floors of its energy at the two prices (of an hour of n slots:
    less than n away from it); a settled price differs from the booked one in nothing that a source
    does not say (see `fixed_factors`), and the final one from the settled one in what a restatement
    of that time says only; what is settled has a history of its price's source, zone and basis; no
    more is corrected than was booked; Σ corrections = total for each basis, and for each job's run.

    Args:
        connection: to the ledger.
        footprint: as handed to `open_ledger`.
        prices: by their rows; what names another one is passed over.

    Yields:
        Sentences; none where all balances.

    Raises:
        sqlite3.Error: it could not be read.
    """
    yield from _differences(connection, footprint, prices)
    for table, at, grain, seconds in _TABLES:
        slots = ", ".join(f"part.{at} + {more_s}" for more_s in range(0, seconds, SLOT_S))
        query = _UNGROUNDED.format(table=table, at=at, grain=grain, slots=slots)
        for where, booked_id, settled_id in connection.execute(query):
            yield f"{where}: no history says price {settled_id}, which settles price {booked_id}"
    for *place, settled_uj, booked_uj in connection.execute(_MORE_THAN_BOOKED):
        yield f"{place}: {settled_uj} µJ are settled, but {booked_uj} µJ booked"
    for what, query in (("basis", _TOTALS), ("run", _RUNS)):
        for where, *off in connection.execute(query):
            if any(off):
                yield f"{what} {where}: settlements less their total are {tuple(off)}, not 0"


def _differences(
    connection: sqlite3.Connection, footprint: Footprint, prices: Mapping[int, Price]
) -> Iterator[str]:
    restatements = load_restatements(connection)
    for row in connection.execute(_ROWS):
        place, at_s, booked_id, slots = [row[0], *row[2:6]], row[1], row[5], row[6]
        settled_id, final_id, energy_uj, settled_uj, *rest = Correction(*row[7:])
        if not {booked_id, settled_id, final_id} <= prices.keys():
            continue
        booked, settled, final = prices[booked_id], prices[settled_id], prices[final_id]
        odd = [n for n in fixed_factors(booked) if getattr(booked, n) != getattr(settled, n)]
        if odd:
            yield f"{place}: settled at price {settled_id} of another {', '.join(odd)}"
            continue
        odd = _unsaid(settled, final, at_s, restatements)
        if odd:
            yield f"{place}: final price {final_id} of a {', '.join(odd)} that nobody restated"
            continue
        expected = correction(
            (booked_id, booked), settled_id, (final_id, final), energy_uj, settled_uj, footprint
        )[4:]
        exact = settled_uj <= energy_uj and rest[0] == expected[0]
        if not exact or any(abs(e - f) >= slots for e, f in zip(expected, rest, strict=True)):
            yield f"{place}: {energy_uj} µJ settle by {tuple(rest)}, not {tuple(expected)}"


def _unsaid(
    settled: Price, final: Price, at_s: int, restatements: tuple[Restatement, ...]
) -> list[str]:
    """What differs in a final price although no restatement, of whatever age, says so."""
    if settled == final:
        return []
    said = [one.factors for one in restatements if one.from_s <= at_s < one.to_s]
    restated = {
        factor: getattr(final, factor)
        for factor in FACTORS
        if getattr(final, source_of(factor)) == RESTATED
    }
    named = {name for factor in restated for name in (factor, source_of(factor))}
    return [
        name
        for name in Price._fields
        if getattr(settled, name) != getattr(final, name) and name not in named
    ] + [
        factor
        for factor, value in restated.items()
        if not any(value == factors.get(factor) for factors in said)
    ]
