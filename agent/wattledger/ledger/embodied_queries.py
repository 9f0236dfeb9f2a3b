"""What making the hardware emitted, of a span: each run's, by the time that it held GPUs in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from wattledger.ledger.run_rows import sums_in

# By the index of what is held, which has all that is asked for.
_PART = """
SELECT payee_id, sum(held_ms) AS held_ms FROM {table} INDEXED BY {table}_held
WHERE held_ms > 0 AND {at} >= :since AND {at} < :until {own} GROUP BY 1
"""
_QUERY = """
SELECT {group}, part.held_ms, run_sums.sums,
       (SELECT sum(held_ms) FROM run_total WHERE payee_id = part.payee_id)
FROM (
    SELECT payee_id AS key, payee_id, sum(held_ms) AS held_ms FROM ({slots} UNION ALL {hours})
    GROUP BY 1
) AS part JOIN run_sums ON run_sums.payee_id = part.payee_id {join}
"""


def embodied_by(
    connection: sqlite3.Connection,
    group: str,
    join: str,
    own: str,
    span: Mapping[str, int | None],
) -> dict[str, int]:
    """10⁻¹⁵ g of each group: of each of its runs the part of the time that lies in the span.

    A run that held no GPU has none: what it was charged on a node without GPUs is told of the
    whole run only.

    Args:
        connection: to the ledger.
        group: what a row is called, in SQL; of `part`, `run` and what `join` adds.
        join: the tables that this needs, in SQL.
        own: which entries besides, in SQL beginning with AND; empty: all.
        span: `since` and `until` in Unix seconds, and what `own` needs.

    Raises:
        sqlite3.Error: the ledger cannot be read.
    """
    query = _QUERY.format(
        group=group,
        join=join,
        slots=_PART.format(table="entry", at="slot_s", own=own),
        hours=_PART.format(table="entry_hour", at="hour_s", own=own),
    )
    found: dict[str, int] = {}
    for name, held_ms, text, whole_ms in connection.execute(query, span):
        fg = sums_in([(text,)]).embodied_fg * min(held_ms, whole_ms) // whole_ms
        if fg:
            found[str(name)] = found.get(str(name), 0) + fg
    return found
