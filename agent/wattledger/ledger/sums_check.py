"""Do money and market-based CO2e equal what the entries' prices make of their energy?"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from wattledger.ledger.run_rows import SELECT_SUMS, sums_in
from wattledger.model import Kind
from wattledger.model.sums import NO_SUMS, NODE_NOTE, Sums, read_node, sums_of, write_node

log = logging.getLogger(__name__)

DAMAGED_NOTE = "sums_damaged"
"""Under which name a note stays that was not to be read."""

# By run, or by kind of device; a run at a time, since a million would not fit the memory.
_PRICED = """
SELECT {key}, pue_ppm, market_ug_per_kwh, cost_u_per_kwh, currency, sum(energy_uj)
FROM (
    SELECT device_id, payee_id, price_id, energy_uj FROM entry
    UNION ALL
    SELECT device_id, payee_id, price_id, energy_uj FROM entry_hour
) JOIN price ON price.id = price_id {join}
WHERE (cost_u_per_kwh IS NOT NULL OR market_ug_per_kwh IS NOT NULL) {which}
GROUP BY 1, 2, 3, 4, 5 ORDER BY 1
"""
_BY_KIND = _PRICED.format(key="device.kind", join="JOIN device ON device.id = device_id", which="")
_BY_RUN = _PRICED.format(
    key="payee_id", join="JOIN payee ON payee.id = payee_id", which="AND payee.kind = 'jobs'"
)


class _Tariff(NamedTuple):
    """See `model.sums.Factors`."""

    pue_ppm: int
    market_ug_per_kwh: int | None
    cost_u_per_kwh: int | None
    currency: str


def load_notes(connection: sqlite3.Connection) -> dict[str, str]:
    """The ledger's notes; the node's sums made anew of the entries where they are damaged.

    What cannot be made anew is the embodied CO2e of the node: it begins at 0. The damaged text is
    kept beside it.

    Args:
        connection: to the ledger.

    Raises:
        sqlite3.Error: it could not be read.
    """
    notes: dict[str, str] = dict(connection.execute("SELECT name, body FROM note"))
    note = notes.get(NODE_NOTE)
    if note and not read_node(notes):
        booked = {Kind(kind): sums for kind, sums in _sums(connection, _BY_KIND)}
        notes |= {NODE_NOTE: write_node(booked), DAMAGED_NOTE: note}
        log.error(
            "The ledger's sums of money, market-based and embodied CO2e are damaged. The first two "
            "are made anew of its entries, the node's embodied CO2e begins at 0; what was there is "
            "kept as its note %s",
            DAMAGED_NOTE,
        )
    return notes


def check_sums(connection: sqlite3.Connection) -> Iterator[str]:
    """Σ entries of energy × PUE × price = what is kept, for each kind of device and each run.

    Args:
        connection: to the ledger.

    Yields:
        Sentences; none where they are equal.

    Raises:
        sqlite3.Error: it could not be read.
        Damaged: a run's sums were not written by us.
    """
    notes = dict(
        connection.execute("SELECT name, body FROM note WHERE name = ?", (NODE_NOTE,)).fetchall()
    )
    kept = read_node(notes)
    booked = {Kind(kind): sums for kind, sums in _sums(connection, _BY_KIND)}
    for kind in sorted({*kept, *booked}):
        yield from _differs(kind.value, booked.get(kind, NO_SUMS), kept.get(kind, NO_SUMS))
    seen = 0
    for payee_id, sums in _sums(connection, _BY_RUN):
        yield from _unpriced(connection, seen, int(payee_id))
        seen = int(payee_id)
        of_run = sums_in(connection.execute(SELECT_SUMS, (payee_id,)))
        yield from _differs(f"run {payee_id}", sums, of_run)
    yield from _unpriced(connection, seen, 2**62)


def _unpriced(connection: sqlite3.Connection, after: int, before: int) -> Iterator[str]:
    """Runs between two that have nothing priced, and should have no sums of prices."""
    found = connection.execute(
        "SELECT payee_id, sums FROM run_sums WHERE payee_id > ? AND payee_id < ?", (after, before)
    )
    for payee_id, text in found:
        yield from _differs(f"run {payee_id}", NO_SUMS, sums_in([(text,)]))


def _sums(connection: sqlite3.Connection, query: str) -> Iterator[tuple[str, Sums]]:
    for key, rows in groupby(connection.execute(query), key=lambda row: row[0]):
        yield str(key), sums_of((_Tariff(*row[1:5]), row[5]) for row in rows)


def _differs(what: str, booked: Sums, kept: Sums) -> Iterator[str]:
    if (dict(booked.costs), booked.market) != (dict(kept.costs), kept.market):
        yield (
            f"{what}: the entries cost {dict(booked.costs)} and market-based "
            f"{booked.market}, kept are {dict(kept.costs)} and {kept.market}"
        )
