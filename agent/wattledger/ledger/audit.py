"""The books as records that anybody can recompute: entries, corrections, their grounds and prices.

A record is plain data. What exceeds a float's whole numbers anywhere (µJ, µg, µL, ns, and the
factors with them) is written as decimal text.

Pages are separate reads while the books are kept, so a cursor names the books that its first page
saw: what is rolled up or settled between two pages would be told twice or not at all. New entries
do no harm.

There are two views of them: the records, and rows of which each is whole (see `slots`).
"""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any, NamedTuple

from wattledger.errors import LedgerError
from wattledger.ledger import slots
from wattledger.ledger.settle import SUM_COLUMNS, Correction
from wattledger.model import Price
from wattledger.model.restating import Restatement
from wattledger.model.settling import HistoryVersion
from wattledger.units import SLOT_S

HOUR_S = 3600
Record = dict[str, Any]


class _Part(NamedTuple):
    """A table's part of the records.

    Attributes:
        record: what its records are called.
        query: from the row after a key on, in the order of keys, at most :most.
        names: of the query's columns.
        keys: how many of the columns make the key, by which they are in order; the first.
    """

    record: str
    query: str
    names: tuple[str, ...]
    keys: int


_KEY = ("device_id", "payee_id", "quality", "price_id")
_WHO = "device.name, device.kind, payee.kind, payee.manager, payee.job_id, payee.start_ns"
_WHO_NAMES = ("device", "kind", "payee", "manager", "job_id", "run_start_ns")
_JOIN = "JOIN device ON device.id = device_id JOIN payee ON payee.id = payee_id"


def _of_time(
    record: str, table: str, at: str, keys: tuple[str, ...], columns: dict[str, str]
) -> _Part:
    """Args: keys: the key's columns after the time. columns: name → expression."""
    own = [f"{table}.{at}", *(f"{table}.{key}" for key in keys)]
    places = ", ".join(f":key{number}" for number in range(len(own)))
    query = (
        f"SELECT {', '.join(own)}, {_WHO}, {', '.join(columns.values())} "  # noqa: S608
        f"FROM {table} {_JOIN} WHERE ({', '.join(own)}) > ({places}) "
        f"AND {own[0]} >= :since AND {own[0]} < :until ORDER BY {', '.join(own)} LIMIT :most"
    )
    return _Part(record, query, ("start_s", *keys, *_WHO_NAMES, *columns), len(own))


def _of_id(record: str, table: str, names: tuple[str, ...]) -> _Part:
    query = (
        f"SELECT id, {', '.join(names)} FROM {table} WHERE id > :key0 "  # noqa: S608
        "ORDER BY id LIMIT :most"
    )
    return _Part(record, query, ("id", *names), 1)


_BOOKED = {name: name for name in ("energy_uj", "co2e_ug", "water_onsite_ul", "water_grid_ul")}
_CHANGED = {name: name for name in Correction._fields}
_HISTORY = (
    "(SELECT max(history_id) FROM settled_slot AS word WHERE word.price_id = {table}.price_id "
    "AND word.settled_price_id = {table}.settled_price_id "
    "AND word.slot_s >= {table}.{at} AND word.slot_s < {table}.{at} + {grain})"
)
_PARTS = (
    _of_time(
        "entry",
        "entry_hour",
        "hour_s",
        _KEY,
        {"grain_s": str(HOUR_S), "slots": "slots", **_BOOKED},
    ),
    _of_time("entry", "entry", "slot_s", _KEY, {"grain_s": str(SLOT_S), "slots": "1", **_BOOKED}),
    _of_time(
        "settlement",
        "settled_hour",
        "hour_s",
        (*_KEY, "settled_price_id", "final_price_id"),
        {
            "grain_s": str(HOUR_S),
            "slots": "slots",
            **_CHANGED,
            "history_id": _HISTORY.format(table="settled_hour", at="hour_s", grain=HOUR_S),
        },
    ),
    _of_time(
        "settlement",
        "settled",
        "slot_s",
        _KEY,
        {
            "grain_s": str(SLOT_S),
            "slots": "1",
            **_CHANGED,
            "history_id": _HISTORY.format(table="settled", at="slot_s", grain=SLOT_S),
        },
    ),
    # Last, so that they hold what the records before refer to, though books are kept meanwhile.
    _of_id("history", "history", HistoryVersion._fields),
    _of_id("restatement", "restatement", Restatement._fields),
    _of_id("price", "price", Price._fields),
    # From here on the rows.
    _Part("books", slots.BOOKS, slots.BOOKS_NAMES, 1),
    _Part("row", slots.query_of("entry_hour"), slots.NAMES, 1 + len(slots.KEYS)),
    _Part("row", slots.query_of("entry"), slots.NAMES, 1 + len(slots.KEYS)),
)
_VIEWS = {"records": (0, len(_PARTS) - 3), "slots": (len(_PARTS) - 3, len(_PARTS))}
_INTERNAL = ("device_id", "payee_id")
_EXACT = ("_uj", "_ug", "_ul", "_ns", "_per_kwh", "_ppm")
AuditCursor = tuple[int | str, ...]
"""Number of the part, what `_STATE` said at the first page, the key of the last record; for the
first page the name of a view alone, or None: `records`."""
_STATE_CHARS = 64
# A roll-up moves the oldest slot on; whatever a correction changes, changes a sum.
_STATE = f"""
SELECT epoch, (SELECT min(slot_s) FROM entry), (SELECT min(slot_s) FROM settled), sums.*
FROM meta LEFT JOIN (SELECT basis, {SUM_COLUMNS} FROM settled_total) AS sums ORDER BY basis
"""  # noqa: S608


def audit_page(
    connection: sqlite3.Connection,
    since_s: int,
    until_s: int,
    after: AuditCursor | None,
    most: int,
) -> tuple[list[Record], AuditCursor | None]:
    """A page of the records of the slots that begin in [since, until).

    Args:
        connection: to the ledger.
        since_s: Unix seconds.
        until_s: Unix seconds, exclusive.
        after: what the page before gave; for the first page `("records",)`, which is None too, or
            `("slots",)`.
        most: at most so many records.

    Returns:
        The records, and what to go on after; None: these were the last.

    Raises:
        ValueError: `after` is not what a page gave.
        LedgerError: what is to come was rolled up or settled since the first page.
        sqlite3.Error: the ledger cannot be read.
    """
    connection.execute("BEGIN")  # the state and all parts, of one moment
    try:
        return _page(connection, since_s, until_s, after, most)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _page(
    connection: sqlite3.Connection,
    since_s: int,
    until_s: int,
    after: AuditCursor | None,
    most: int,
) -> tuple[list[Record], AuditCursor | None]:
    state = hashlib.sha256(repr(connection.execute(_STATE).fetchall()).encode()).hexdigest()
    number, end, seen, key = _checked(("records",) if after is None else after, state)
    if seen != state:
        raise LedgerError(
            "the books were rolled up or settled since the first page",
            "ask again from the beginning",
        )
    records: list[Record] = []
    for part_number in range(number, end):
        part = _PARTS[part_number]
        given = {f"key{index}": value for index, value in enumerate(key or [-1] * part.keys)}
        found = connection.execute(
            part.query,
            {**given, "since": since_s, "until": until_s, "most": most - len(records)},
        ).fetchall()
        records += [_record(part, row) for row in found]
        if len(records) == most:
            return records, (part_number, state, *found[-1][: part.keys])
        key = []
    return records, None


def _checked(after: AuditCursor, state: str) -> tuple[int, int, str, list[int | str]]:
    """Its number of the part, where its view ends, what it saw of the books, and its key."""
    if len(after) == 1 and isinstance(after[0], str) and after[0] in _VIEWS:
        return *_VIEWS[after[0]], state, []
    if len(after) < 2:
        raise ValueError("there is no key of a record")
    number, seen, *key = after
    if not isinstance(number, int) or not 0 <= number < len(_PARTS):
        raise ValueError("there is no such part of the records")
    if not isinstance(seen, str) or len(seen) != _STATE_CHARS or len(key) != _PARTS[number].keys:
        raise ValueError("that is no key of these records")
    end = next(end for begin, end in _VIEWS.values() if begin <= number < end)
    return number, end, seen, key


def _record(part: _Part, row: tuple[Any, ...]) -> Record:
    record: Record = {"record": part.record}
    for name, value in zip(part.names, row, strict=True):
        if name not in _INTERNAL:
            exact = isinstance(value, int) and name.endswith(_EXACT)
            record[name] = str(value) if exact else value
    return record
