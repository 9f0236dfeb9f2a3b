"""Settlements in the tables: beside the entries, which stay as they were booked.

What is written for an entry is absolute, and the sums grow by what the rows change: within one
transaction, so that the same settlement written again changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from wattledger.model import Amounts, Basis, PayeeKind, Price
from wattledger.model.settling import HistoryVersion, PricedSlot, Settled, Settlement

Footprint = Callable[[int, Price], Amounts]
PriceId = Callable[[Price], int]

COLUMNS = "energy_uj, co2e_diff_ug, water_grid_diff_ul"
SUMS = ", ".join(f"coalesce(sum({column}), 0)" for column in COLUMNS.split(", "))
_SETTLED = "settled.settled_price_id, " + ", ".join(f"settled.{c}" for c in COLUMNS.split(", "))
_SAME_ENTRY = (
    "settled.slot_s = entry.slot_s AND settled.device_id = entry.device_id "
    "AND settled.payee_id = entry.payee_id AND settled.quality = entry.quality "
    "AND settled.price_id = entry.price_id"
)
_ENTRIES = f"""
SELECT entry.device_id, entry.payee_id, payee.kind, entry.quality, entry.energy_uj, {_SETTLED}
FROM entry JOIN payee ON payee.id = entry.payee_id LEFT JOIN settled ON {_SAME_ENTRY}
WHERE entry.slot_s = ? AND entry.price_id = ?
"""  # noqa: S608
_UPSERT = (
    f"INSERT INTO settled (slot_s, device_id, payee_id, quality, price_id, settled_price_id, "  # noqa: S608
    f"{COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "settled_price_id = excluded.settled_price_id, "
    + ", ".join(f"{column} = excluded.{column}" for column in COLUMNS.split(", "))
)
_GROW = (
    f"INSERT INTO {{table}} ({{key}}, {COLUMNS}) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "  # noqa: S608
    + ", ".join(f"{column} = {column} + excluded.{column}" for column in COLUMNS.split(", "))
)
_HISTORY = ", ".join(HistoryVersion._fields)
_PRICED = f"""
SELECT entry.slot_s, entry.price_id, sum(entry.energy_uj),
       iif(min(settled.energy_uj IS entry.energy_uj)
           AND min(settled.settled_price_id) = max(settled.settled_price_id),
           min(settled.settled_price_id), NULL)
FROM entry LEFT JOIN settled ON {_SAME_ENTRY}
WHERE entry.slot_s >= ? AND entry.slot_s < ? GROUP BY 1, 2 ORDER BY 1, 2
"""  # noqa: S608


def write_settlements(
    connection: sqlite3.Connection,
    settlements: Iterable[Settlement],
    price_id: PriceId,
    footprint: Footprint,
) -> None:
    """Prices the entries of slots anew; the transaction is the caller's.

    Entries that are gone (rolled up) stay as they are; those settled at that price already, too.

    Raises:
        ValueError: a settlement changes what none may: the basis, PUE or WUE.
        sqlite3.Error: a statement failed.
    """
    nodes: dict[Basis, Settled] = {}
    runs: dict[int, Settled] = {}
    for one in settlements:
        check_settlement(one)
        booked_id, settled_id = price_id(one.price), price_id(one.settled)
        rows = []
        for device, payee, kind, quality, energy_uj, *before in connection.execute(
            _ENTRIES, (one.slot_s, booked_id)
        ).fetchall():
            if before[:2] == [settled_id, energy_uj]:
                continue
            new = difference(energy_uj, one.price, one.settled, footprint)
            old = Settled(*(number or 0 for number in before[1:]))
            grown = Settled(*map(int.__sub__, new, old))
            rows.append((one.slot_s, device, payee, quality, booked_id, settled_id, *new))
            nodes[one.price.basis] = nodes.get(one.price.basis, Settled()).plus(grown)
            if kind == PayeeKind.JOBS:
                runs[payee] = runs.get(payee, Settled()).plus(grown)
        if rows:
            connection.executemany(_UPSERT, rows)
            connection.execute(
                "INSERT OR IGNORE INTO settled_slot VALUES (?, ?, ?, ?)",
                (one.slot_s, booked_id, _history_id(connection, one.history), settled_id),
            )
    for table, key, grown_by in (("total", "basis", nodes), ("run", "payee_id", runs)):
        connection.executemany(
            _GROW.format(table=f"settled_{table}", key=key),
            [(where, *amounts) for where, amounts in grown_by.items()],
        )


def check_settlement(one: Settlement) -> None:
    """Sees that a settlement changes only what one may.

    Raises:
        ValueError: it changes the basis, PUE or WUE.
    """
    for name in ("basis", "pue_ppm", "wue_ul_per_kwh"):
        if getattr(one.price, name) != getattr(one.settled, name):
            raise ValueError(f"a settlement of slot {one.slot_s} would change {name}")


def difference(energy_uj: int, booked: Price, settled: Price, footprint: Footprint) -> Settled:
    """What an energy's settlement changes: the difference of the floors at the two prices."""
    before, after = footprint(energy_uj, booked), footprint(energy_uj, settled)
    return Settled(
        energy_uj, after.co2e_ug - before.co2e_ug, after.water_grid_ul - before.water_grid_ul
    )


def _history_id(connection: sqlite3.Connection, history: HistoryVersion) -> int:
    places = ", ".join("?" * len(history))
    find = f"SELECT id FROM history WHERE ({_HISTORY}) = ({places})"  # noqa: S608
    row = connection.execute(find, history).fetchone()
    if row is None:
        insert = f"INSERT INTO history ({_HISTORY}) VALUES ({places})"  # noqa: S608
        return connection.execute(insert, history).lastrowid or 0
    return int(row[0])


def load_settled(connection: sqlite3.Connection) -> Mapping[Basis, Settled]:
    """What is settled since the epoch, by what the intensities count."""
    found = connection.execute(f"SELECT basis, {COLUMNS} FROM settled_total")  # noqa: S608
    return MappingProxyType({Basis(basis): Settled(*numbers) for basis, *numbers in found})


def load_prices(connection: sqlite3.Connection) -> dict[int, Price]:
    """Every price by its row."""
    columns = ", ".join(Price._fields)
    return {
        row[0]: Price(*row[1:])._replace(basis=Basis(row[4]), estimated=bool(row[5]))
        for row in connection.execute(f"SELECT id, {columns} FROM price")  # noqa: S608
    }


def priced_slots(connection: sqlite3.Connection, since_s: int, until_s: int) -> list[PricedSlot]:
    """What the slots that begin in [since, until) were priced with; hours are left out.

    Raises:
        sqlite3.Error: the ledger cannot be read.
    """
    prices: dict[int | None, Price] = {}
    columns = ", ".join(Price._fields)

    def price(price_id: int) -> Price:
        if price_id not in prices:
            row = connection.execute(
                f"SELECT {columns} FROM price WHERE id = ?",  # noqa: S608
                (price_id,),
            ).fetchone()
            prices[price_id] = Price(*row)._replace(basis=Basis(row[3]), estimated=bool(row[4]))
        return prices[price_id]

    return [
        PricedSlot(slot_s, price(booked), energy_uj, None if settled is None else price(settled))
        for slot_s, booked, energy_uj, settled in connection.execute(_PRICED, (since_s, until_s))
    ]
