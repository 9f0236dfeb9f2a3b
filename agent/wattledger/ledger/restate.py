"""A batch's corrections; restatements in the tables, and what is still to be brought to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from wattledger.ledger.settle import (
    SAME_ENTRY,
    Correction,
    Corrector,
    Footprint,
    PriceId,
    load_price,
)
from wattledger.model import Batch, Price
from wattledger.model.restating import Restatement, Stale, factors_at, restated_price

_FIELDS = ", ".join(Restatement._fields)
_PLACES = ", ".join("?" * len(Restatement._fields))
_COLUMNS = ", ".join(Correction._fields)
_SLOTS = f"""
SELECT entry.slot_s, entry.price_id, settled.settled_price_id, settled.final_price_id,
       min(settled.energy_uj IS entry.energy_uj), count(*)
FROM entry LEFT JOIN settled ON {SAME_ENTRY}
WHERE entry.slot_s >= ? AND entry.slot_s < ? GROUP BY 1, 2, 3, 4
"""  # noqa: S608
_OF_HOUR = (
    "(part.hour_s, part.device_id, part.payee_id, part.quality, part.price_id) = "
    "(whole.hour_s, whole.device_id, whole.payee_id, whole.quality, whole.price_id)"
)
# An older program merged the entries of such an hour and left its corrections: these come first.
_LEFT = "NOT EXISTS (SELECT 1 FROM settled WHERE slot_s >= hour_s AND slot_s < hour_s + 3600)"
# What was rolled up with a correction, and what was without one.
_HOURS = f"""
SELECT hour_s, price_id, settled_price_id, final_price_id, 1, count(*)
FROM settled_hour WHERE hour_s >= ?1 AND hour_s < ?2 AND {_LEFT}
GROUP BY 1, 2, 3, 4
UNION ALL
SELECT hour_s, price_id, NULL, NULL, 0, count(*)
FROM entry_hour AS whole WHERE hour_s >= ?1 AND hour_s < ?2
AND energy_uj > (SELECT coalesce(sum(energy_uj), 0) FROM settled_hour AS part WHERE {_OF_HOUR})
AND {_LEFT} GROUP BY 1, 2
"""  # noqa: S608
_ENTRIES_OF_HOUR = """
SELECT device_id, payee_id, payee.kind, quality, price_id, energy_uj, slots
FROM entry_hour JOIN payee ON payee.id = payee_id WHERE hour_s = ? AND payee_id % ? = ?
"""
_KEY = "(hour_s, device_id, payee_id, quality, price_id) = (?, ?, ?, ?, ?)"


def write_corrections(
    connection: sqlite3.Connection,
    batch: Batch,
    price_id: PriceId,
    footprint: Footprint,
    before: tuple[Restatement, ...],
) -> tuple[Restatement, ...]:
    """Writes a batch's restatements, settlements and what is to be restated.

    Args:
        connection: the one that writes; the transaction is the caller's.
        batch: what to write.
        price_id: a price's row, made where it is new.
        footprint: as handed to `open_ledger`.
        before: the restatements known so far.

    Returns:
        The restatements known then.

    Raises:
        ValueError: a settlement changes what none may.
        sqlite3.Error: a statement failed.
    """
    if batch.restatements:
        write_restatements(connection, batch.restatements)
        before = load_restatements(connection)
    if batch.settlements or batch.stale:
        corrector = Corrector(connection, price_id, footprint, before)
        for one in batch.settlements:
            corrector.settle(one)
        for place in batch.stale:
            if place.is_hour:
                restate_hour(corrector, place)
            else:
                corrector.restate_slot(place)
        corrector.finish()
    return before


def write_restatements(connection: sqlite3.Connection, made: Iterable[Restatement]) -> None:
    """Adds restatements; one that is there already (a commit of unknown outcome) is left."""
    connection.executemany(
        f"INSERT INTO restatement ({_FIELDS}) SELECT {_PLACES} WHERE NOT EXISTS "  # noqa: S608
        f"(SELECT 1 FROM restatement WHERE ({_FIELDS}) IS ({_PLACES}))",
        [(*one, *one) for one in made],
    )


def load_restatements(connection: sqlite3.Connection) -> tuple[Restatement, ...]:
    """All that were ever made, in that order."""
    found = connection.execute(f"SELECT {_FIELDS} FROM restatement ORDER BY id")  # noqa: S608
    return tuple(Restatement(*row) for row in found)


def find_stale(connection: sqlite3.Connection, since_s: int, until_s: int) -> list[Stale]:
    """Slots and hours that begin in [since, until) and are not what the restatements make of them.

    What was never restated is none of them, whatever it lacks.

    Raises:
        sqlite3.Error: the ledger cannot be read.
    """
    restatements = load_restatements(connection)
    prices: dict[int, Price] = {}

    def price(price_id: int) -> Price:
        if price_id not in prices:
            prices[price_id] = load_price(connection, price_id)
        return prices[price_id]

    found: dict[tuple[int, bool], int] = {}
    for query, is_hour in ((_SLOTS, False), (_HOURS, True)):
        for start_s, booked_id, settled_id, final_id, complete, entries in connection.execute(
            query, (since_s, until_s)
        ):
            factors = factors_at(start_s, restatements)
            if factors and not (
                complete
                and price(final_id)
                == restated_price(price(booked_id if settled_id is None else settled_id), factors)
            ):
                found[start_s, is_hour] = found.get((start_s, is_hour), 0) + entries
    return [Stale(*place, entries) for place, entries in found.items()]


def restate_hour(corrector: Corrector, place: Stale) -> None:
    """Brings the entries of an hour to what is restated there.

    What is corrected anew is one floor for the whole of an entry's energy that has one settled
    price, so that an hour of n slots is less than n away from what its slots would have been.

    Raises:
        sqlite3.Error: a statement failed.
    """
    connection, hour_s = corrector.connection, place.start_s
    for device, payee, kind, quality, booked_id, energy_uj, slots in connection.execute(
        _ENTRIES_OF_HOUR, (hour_s, place.parts, place.part)
    ).fetchall():
        key = (hour_s, device, payee, quality, booked_id)
        groups: dict[int, list[Correction]] = {}
        rest_uj = energy_uj
        for row in connection.execute(
            f"SELECT {_COLUMNS} FROM settled_hour WHERE {_KEY}",  # noqa: S608
            key,
        ):
            one = Correction(*row)
            groups.setdefault(one.settled_price_id, []).append(one)
            rest_uj -= one.energy_uj
        if rest_uj > 0:
            groups.setdefault(booked_id, [])
        for settled_id, known in groups.items():
            final_id = corrector.final_id(hour_s, settled_id)
            more_uj = max(rest_uj, 0) if settled_id == booked_id else 0
            if final_id == settled_id or (
                not more_uj and [one.final_price_id for one in known] == [final_id]
            ):
                continue
            whole_uj = more_uj + sum(one.energy_uj for one in known)
            settled_uj = sum(one.settled_uj for one in known)
            after = corrector.correction(booked_id, settled_id, final_id, whole_uj, settled_uj)
            for before in known:
                corrector.grow(payee, kind, booked_id, before, None)
            corrector.grow(payee, kind, booked_id, None, after)
            connection.execute(
                f"DELETE FROM settled_hour WHERE {_KEY} AND settled_price_id = ?",  # noqa: S608
                (*key, settled_id),
            )
            connection.execute(
                "INSERT INTO settled_hour (hour_s, device_id, payee_id, quality, price_id, "  # noqa: S608
                f"{_COLUMNS}, slots) VALUES ({', '.join('?' * (6 + len(after)))})",
                (*key, *after, slots),
            )
