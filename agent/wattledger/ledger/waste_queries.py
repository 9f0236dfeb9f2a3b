"""Who held GPUs and let them idle, in a span of time."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

from wattledger.ledger.embodied_queries import embodied_by
from wattledger.ledger.run_rows import ACCOUNT, GROUP_OF_USER
from wattledger.model.jobbooks import Waste, WasteRow
from wattledger.model.jobs import Held
from wattledger.model.sums import sums_of
from wattledger.units import PPM

_GROUPS = {
    "user": GROUP_OF_USER,
    "account": f"coalesce(nullif({ACCOUNT}, ''), '(none)')",
}
BY = tuple(_GROUPS)
# By the index of what is held, which holds all that is asked for; price by price, since the PUE
# is the price's.
_PART = """
SELECT payee_id, price_id, sum(held_ms) AS held_ms, sum(held_idle_ms) AS idle_ms,
       sum(held_idle_uj) AS idle_uj, sum(energy_uj) AS energy_uj
FROM {table} INDEXED BY {table}_held
WHERE held_ms > 0 AND {column} >= :since AND {column} < :until {own}
GROUP BY payee_id, price_id
"""
_RUN = "LEFT JOIN run ON run.payee_id = part.payee_id"
_TARIFF = "price.cost_u_per_kwh, price.currency"
_HELD = """
SELECT {group}, part.payee_id, price.pue_ppm, {tariff}, sum(part.held_ms),
       sum(part.idle_ms), sum(part.idle_uj), sum(part.energy_uj)
FROM ({slots} UNION ALL {hours}) AS part
JOIN price ON price.id = part.price_id {run}
GROUP BY 1, 2, 3, 4, 5
"""
_OWN = "AND payee_id IN (SELECT payee_id FROM run WHERE uid = :uid)"
_UNHELD = f"""
SELECT price.pue_ppm, {_TARIFF}, sum(energy_uj)
FROM (
    SELECT device_id, price_id, energy_uj FROM entry INDEXED BY entry_payee
    WHERE payee_id IN (SELECT id FROM payee WHERE kind = 'idle')
      AND slot_s >= :since AND slot_s < :until
    UNION ALL
    SELECT device_id, price_id, energy_uj FROM entry_hour INDEXED BY entry_hour_payee
    WHERE payee_id IN (SELECT id FROM payee WHERE kind = 'idle')
      AND hour_s >= :since AND hour_s < :until
) AS part
JOIN device ON device.id = part.device_id JOIN price ON price.id = part.price_id
WHERE device.kind = 'gpu' GROUP BY 1, 2, 3
"""  # noqa: S608


class Tariff(NamedTuple):
    """What money is counted with; see `model.sums.Factors`."""

    pue_ppm: int
    cost_u_per_kwh: int | None
    currency: str
    market_ug_per_kwh: int | None = None


@dataclass(slots=True)
class _Sums:
    """A group in the making; PUE and price are applied to sums, not to each entry."""

    runs: set[int]
    by_tariff: dict[Tariff, tuple[Held, int]]

    def add(self, payee_id: int, tariff: Tariff, held: Held, energy_uj: int) -> None:
        """Count a run's part at one PUE and price."""
        self.runs.add(payee_id)
        before, before_uj = self.by_tariff.get(tariff, (Held(), 0))
        self.by_tariff[tariff] = before.plus(held), before_uj + energy_uj

    def row(self, group: str) -> WasteRow:
        """The group's row."""
        whole = WasteRow(group, len(self.runs), Held(), 0, 0, 0)
        for tariff, (held, energy_uj) in self.by_tariff.items():
            facility = energy_uj * tariff.pue_ppm // PPM, held.idle_uj * tariff.pue_ppm // PPM
            whole = whole.plus(WasteRow(group, 0, held, energy_uj, *facility))
        return whole._replace(
            sums=sums_of((tariff, uj) for tariff, (_, uj) in self.by_tariff.items()),
            idle_sums=sums_of(
                (tariff, held.idle_uj) for tariff, (held, _) in self.by_tariff.items()
            ),
        )


def find_waste(
    connection: sqlite3.Connection, since_s: int, until_s: int, by: str, uid: int | None
) -> Waste:
    """What was held without use, of the slots that begin in [since, until).

    Args:
        connection: to the ledger.
        since_s: Unix seconds.
        until_s: Unix seconds.
        by: `user` or `account`.
        uid: only what this user held; None: all.

    Raises:
        ValueError: no such grouping.
        sqlite3.Error: the ledger cannot be read.
    """
    if by not in _GROUPS:
        raise ValueError(f"{by!r} is no grouping; there are {', '.join(BY)}")
    own = _OWN if uid is not None else ""
    span = {"since": since_s, "until": until_s, "uid": uid}
    query = _HELD.format(
        group=_GROUPS[by],
        tariff=_TARIFF,
        run=_RUN,
        slots=_PART.format(table="entry", column="slot_s", own=own),
        hours=_PART.format(table="entry_hour", column="hour_s", own=own),
    )
    groups: dict[str, _Sums] = {}
    for group, payee_id, *tariff, held_ms, idle_ms, idle_uj, energy_uj in connection.execute(
        query, span
    ):
        sums = groups.setdefault(group, _Sums(set(), {}))
        sums.add(payee_id, Tariff(*tariff), Held(held_ms, idle_ms, idle_uj), energy_uj)
    held_by = embodied_by(connection, _GROUPS[by], _RUN, own, span)
    rows = []
    for group, sums in groups.items():
        row = sums.row(group)
        booked = row.sums._replace(embodied_fg=held_by.get(group, 0))
        rows.append(row._replace(sums=booked))
    rows.sort(key=lambda row: (-row.held.idle_uj, -row.held.idle_ms, row.group))
    unheld = [(Tariff(*row[:3]), int(row[3])) for row in connection.execute(_UNHELD, span)]
    return Waste(
        rows=tuple(rows),
        unheld_uj=sum(uj for _, uj in unheld),
        unheld_facility_uj=sum(uj * tariff.pue_ppm // PPM for tariff, uj in unheld),
        unheld_sums=sums_of(unheld),
    )
