"""Old slots become hours, a little at a time. Amounts are summed exactly; totals do not change."""

from __future__ import annotations

import logging
import sqlite3

from wattledger.ledger.database import SQL_ERRORS
from wattledger.ledger.settle import Correction
from wattledger.model import Instant
from wattledger.units import NS_PER_S

log = logging.getLogger(__name__)

HOUR_S = 3600
DAY_S = 86_400

_MERGE = """
INSERT INTO entry_hour (hour_s, device_id, payee_id, quality, price_id, energy_uj, co2e_ug,
                        water_onsite_ul, water_grid_ul, slots, held_ms, held_idle_ms,
                        held_idle_uj)
SELECT :hour, device_id, payee_id, quality, price_id,
       sum(energy_uj), sum(co2e_ug), sum(water_onsite_ul), sum(water_grid_ul), count(*),
       sum(held_ms), sum(held_idle_ms), sum(held_idle_uj)
FROM entry WHERE slot_s >= :hour AND slot_s < :hour + 3600
GROUP BY device_id, payee_id, quality, price_id
ON CONFLICT DO UPDATE SET
    energy_uj = energy_uj + excluded.energy_uj,
    co2e_ug = co2e_ug + excluded.co2e_ug,
    water_onsite_ul = water_onsite_ul + excluded.water_onsite_ul,
    water_grid_ul = water_grid_ul + excluded.water_grid_ul,
    slots = slots + excluded.slots,
    held_ms = held_ms + excluded.held_ms,
    held_idle_ms = held_idle_ms + excluded.held_idle_ms,
    held_idle_uj = held_idle_uj + excluded.held_idle_uj
"""
_SETTLED_KEY = "device_id, payee_id, quality, price_id, settled_price_id, final_price_id"
_SETTLED_SUMS = Correction._fields[2:]
_MERGE_SETTLED = f"""
INSERT INTO settled_hour (hour_s, {_SETTLED_KEY}, {", ".join(_SETTLED_SUMS)}, slots)
SELECT :hour, {_SETTLED_KEY}, {", ".join(f"sum({column})" for column in _SETTLED_SUMS)}, count(*)
FROM settled WHERE slot_s >= :hour AND slot_s < :hour + 3600 GROUP BY {_SETTLED_KEY}
ON CONFLICT DO UPDATE SET
    {", ".join(f"{column} = {column} + excluded.{column}" for column in _SETTLED_SUMS)},
    slots = slots + excluded.slots
"""  # noqa: S608
# The older of the two: an older program rolls up entries and leaves their settlements.
_OLDEST = (
    "SELECT min(oldest_s) FROM (SELECT min(slot_s) AS oldest_s FROM entry "
    "UNION ALL SELECT min(slot_s) FROM settled)"
)


def roll_up(connection: sqlite3.Connection, before_slot_s: int) -> bool:
    """Merges the oldest hour of entries that lies wholly before a slot, in one transaction.

    Their settlements are merged with them.

    Args:
        connection: the one that writes, with no transaction open.
        before_slot_s: Unix seconds.

    Returns:
        Whether there was one: another may follow.

    Raises:
        sqlite3.Error: it could not be written; nothing was changed.
    """
    oldest_s = connection.execute(_OLDEST).fetchone()[0]
    if oldest_s is None or oldest_s // HOUR_S * HOUR_S + HOUR_S > before_slot_s:
        return False
    hour = {"hour": oldest_s // HOUR_S * HOUR_S}
    connection.execute("BEGIN IMMEDIATE")
    try:
        for merge, table in ((_MERGE, "entry"), (_MERGE_SETTLED, "settled")):
            connection.execute(merge, hour)
            connection.execute(
                f"DELETE FROM {table} WHERE slot_s >= :hour AND slot_s < :hour + 3600",  # noqa: S608
                hour,
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return True


def merge_left(connection: sqlite3.Connection) -> None:
    """Merges the corrections of slots that an older program has rolled up without them.

    Until then they would be taken for missing, and made a second time.

    Raises:
        sqlite3.Error: it could not be written; what was merged before is sound.
    """
    while True:
        entry_s, settled_s = (
            connection.execute(f"SELECT min(slot_s) FROM {table}").fetchone()[0]  # noqa: S608
            for table in ("entry", "settled")
        )
        if settled_s is None:
            return
        until_s = settled_s // HOUR_S * HOUR_S + HOUR_S
        if entry_s is not None and entry_s < until_s:
            return
        roll_up(connection, until_s)


class RollUp:
    """Rolls up once a day, one hour of entries after each commit until it is through."""

    def __init__(self, keep_days: int) -> None:
        """Keeps this many days at the grain of 5 minutes; more than any settle window."""
        self._keep_s = keep_days * DAY_S
        self._done_day = -1

    def step(self, connection: sqlite3.Connection, now: Instant) -> bool:
        """A bounded piece of work. A failure is logged and left to the next day.

        Returns:
            Whether entries were moved: what is known of them no longer holds.
        """
        now_s = now.wall_ns // NS_PER_S
        if now_s // DAY_S == self._done_day:
            return False
        try:
            more = roll_up(connection, now_s - self._keep_s)
        except SQL_ERRORS as error:
            log.warning("old ledger entries could not be rolled up, again tomorrow: %s", error)
            more = False
        if not more:
            self._done_day = now_s // DAY_S
        return more
