"""Totals over spans of time, grouped: as booked, and as known better since."""

from __future__ import annotations

import sqlite3
from time import gmtime, strftime
from typing import NamedTuple

from wattledger.ledger.embodied_queries import embodied_by
from wattledger.ledger.rows import MAX_INTEGER
from wattledger.ledger.run_rows import GROUP_OF_USER
from wattledger.model import Amounts, Basis, TotalsRow
from wattledger.model.pricing import Grade
from wattledger.model.settling import Settled, final_bases
from wattledger.model.sums import sums_of
from wattledger.model.uncertainty import NO_PARTS, split, together
from wattledger.units import NS_PER_S, PPM

_OF_DEVICE = ("device_id", "JOIN device ON device.id = part.key")
_OF_PAYEE = ("payee_id", "JOIN payee ON payee.id = part.key")
_OF_RUN = ("payee_id", f"{_OF_PAYEE[1]} LEFT JOIN run ON run.payee_id = payee.id")
GROUPS = {
    "all": ("'all'", "0", ""),
    "device": ("device.name", *_OF_DEVICE),
    "kind": ("device.kind", *_OF_DEVICE),
    "payee": ("payee.kind", *_OF_PAYEE),
    "job": (
        "iif(payee.kind = 'jobs', payee.manager || '/' || payee.job_id, '(' || payee.kind || ')')",
        *_OF_RUN,
    ),
    "user": (
        f"iif(payee.kind = 'jobs', {GROUP_OF_USER}, '(' || payee.kind || ')')",
        *_OF_RUN,
    ),
    "hour": ("part.key", "{at} / 3600 * 3600", ""),
    "day": ("part.key", "{at} / 86400 * 86400", ""),
}
"""What a row is called, what the entries are summed up by first, and what tells the one from the
other: so the joins see a handful of rows, not every entry."""
_RUNS_OF = "SELECT payee_id FROM run WHERE uid = {uid:d} AND (end_ns = 0 OR end_ns >= :ended)"
_COARSEST_S = 86_400
_TIME_FORMATS = {"hour": "%Y-%m-%dT%H:00:00Z", "day": "%Y-%m-%d"}
_LAST_S = 253_402_300_800  # the year 10000
_GRADE = ", ".join(f"price.{column}" for column in Grade._fields)
_TARIFF = "price.market_ug_per_kwh, price.cost_u_per_kwh, price.currency"

_PART = """
SELECT {key} AS key, price_id, price_id AS final_id, sum(energy_uj) AS energy_uj,
       sum(co2e_ug) AS co2e_ug, sum(water_onsite_ul) AS onsite_ul, sum(water_grid_ul) AS grid_ul,
       sum(iif(quality = 'estimated', energy_uj, 0)) AS estimated_uj,
       sum(iif(quality = 'integrated', energy_uj, 0)) AS integrated_uj,
       0 AS corrected_uj, 0 AS settled_uj, 0 AS co2e_diff_ug, 0 AS grid_diff_ul,
       0 AS onsite_diff_ul, 0 AS restated_uj
FROM {table} {where} {at} >= :since AND {at} < :until GROUP BY 1, 2
"""
_SETTLED_PART = """
SELECT {key}, price_id, final_price_id, 0, 0, 0, 0, 0, 0, sum(energy_uj), sum(settled_uj),
       sum(co2e_diff_ug), sum(water_grid_diff_ul), sum(water_onsite_diff_ul), sum(restated_uj)
FROM {table} {where} {at} >= :since AND {at} < :until GROUP BY 1, 2, 3
"""
_TOTALS = """
SELECT {group}, price.basis, price.pue_ppm, final.basis, final.pue_ppm, {grade}, {tariff},
       sum(part.energy_uj), sum(co2e_ug), sum(onsite_ul), sum(grid_ul), sum(estimated_uj),
       sum(integrated_uj), sum(corrected_uj), sum(settled_uj), sum(co2e_diff_ug),
       sum(grid_diff_ul), sum(onsite_diff_ul), sum(restated_uj)
FROM ({parts}) AS part JOIN price ON price.id = price_id JOIN price AS final ON final.id = final_id
{join}
GROUP BY 1, 2, 3, 4, 5, {grade}, {tariff} ORDER BY 1, 2, 3, 4, 5
"""


class _Tariff(NamedTuple):
    """What money and market-based CO2e are counted with; see `model.sums.Factors`."""

    pue_ppm: int
    market_ug_per_kwh: int | None
    cost_u_per_kwh: int | None
    currency: str


class _Sums:
    """A group in the making; the PUE is applied to sums, not to each entry."""

    def __init__(self) -> None:
        self.amounts, self.settled, self.sure = Amounts(), Settled(), NO_PARTS
        self.estimated_uj = self.facility = self.final_facility = 0
        self.bases: dict[Basis, int] = {}
        self.moved: dict[Basis, Settled] = {}
        self.tariffs: list[tuple[_Tariff, int]] = []

    def row(self, group: str) -> TotalsRow:
        """The group's row."""
        return TotalsRow(
            group,
            self.amounts,
            self.estimated_uj,
            tuple(self.bases),
            self.facility // PPM,
            self.settled,
            sure=self.sure,
            settled_bases=final_bases(self.bases, self.moved),
            settled_facility_uj=self.final_facility // PPM,
            sums=sums_of(self.tariffs),
        )


def find_totals(
    connection: sqlite3.Connection, since_s: int, until_s: int, by: str, uid: int | None
) -> list[TotalsRow]:
    """Amounts of the slots that begin in [since, until), in the order of their groups.

    Args:
        connection: to the ledger.
        since_s: Unix seconds.
        until_s: Unix seconds.
        by: one of `GROUPS`.
        uid: by job or user, only those of this one; None: all.

    Raises:
        ValueError: no such grouping, or a uid where it has no meaning.
        sqlite3.Error: the ledger cannot be read.
    """
    if by not in GROUPS:
        raise ValueError(f"{by!r} is no grouping; there are {', '.join(GROUPS)}")
    if uid is not None and by not in ("job", "user"):
        raise ValueError(f"totals by {by} are not any user's")
    span = {"since": since_s, "until": until_s}
    own = ""
    if uid is not None:  # by their runs: far fewer than there are entries in the time
        # What a run is booked lies before its end, but for what a long outage has coarsened.
        span["ended"] = min(max((since_s - _COARSEST_S) * NS_PER_S, 1), MAX_INTEGER)
        own = f"payee_id IN ({_RUNS_OF.format(uid=uid)}) AND"
    groups: dict[str, _Sums] = {}
    width = len(Grade._fields)
    for name, booked, pue_ppm, final, final_pue_ppm, *rest in connection.execute(
        _totals_query(by, own), span
    ):
        grade, tariff, numbers = Grade(*rest[:width]), rest[width : width + 3], rest[width + 3 :]
        energy_uj, corrected_uj, amounts = numbers[0], numbers[6], Amounts(*numbers[:4])
        text = strftime(_TIME_FORMATS[by], gmtime(name)) if by in _TIME_FORMATS else str(name)
        sums = groups.setdefault(text, _Sums())
        sums.amounts = sums.amounts.plus(amounts)
        sums.estimated_uj += numbers[4]
        # µJ × PPM: more than SQLite's integers hold
        sums.facility += energy_uj * pue_ppm
        sums.final_facility += energy_uj * pue_ppm + corrected_uj * (final_pue_ppm - pue_ppm)
        sums.bases[Basis(booked)] = sums.bases.get(Basis(booked), 0) + energy_uj
        for basis, uj in ((Basis(final), corrected_uj), (Basis(booked), -corrected_uj)):
            sums.moved[basis] = sums.moved.get(basis, Settled()).plus(Settled(moved_uj=uj))
        sums.tariffs.append((_Tariff(pue_ppm, *tariff), energy_uj))
        sums.settled = sums.settled.plus(Settled(*numbers[7:]))
        sums.sure = together(sums.sure, split(grade, amounts, numbers[4], numbers[5]))
    embodied_fg: dict[str, int] = {}
    if by in ("job", "user"):
        group, _, join = GROUPS[by]
        whose = f"AND {own.removesuffix(' AND')}" if own else ""
        embodied_fg = embodied_by(connection, group, join, whose, span)
    rows = (sums.row(text) for text, sums in groups.items())
    return [
        row._replace(sums=row.sums._replace(embodied_fg=embodied_fg.get(row.group, 0)))
        for row in rows
    ]


def _totals_query(by: str, own: str) -> str:
    """Args: own: which entries, ending in AND; empty: all."""
    group, key, join = GROUPS[by]
    parts = (
        part.format(
            key=key.format(at=at),
            table=table,
            where=f"INDEXED BY {table}_payee WHERE {own}" if own else "WHERE",
            at=at,
        )
        for part, table, at in (
            (_PART, "entry", "slot_s"),
            (_PART, "entry_hour", "hour_s"),
            (_SETTLED_PART, "settled", "slot_s"),
            (_SETTLED_PART, "settled_hour", "hour_s"),
        )
    )
    return _TOTALS.format(
        group=group, grade=_GRADE, tariff=_TARIFF, join=join, parts=" UNION ALL ".join(parts)
    )


def first_slot_s(wall_ns: int) -> int:
    """The first whole second at or after an instant; slots begin on whole seconds."""
    return min(max(-(-wall_ns // NS_PER_S), 0), _LAST_S)
