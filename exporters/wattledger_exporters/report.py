"""Totals as plain data: the rows that the API answers and the command line prints.

Each row carries human units for people and, beside them, the exact integers as decimal strings
for programs, since a JSON number is a float64 for most readers and loses whole µJ after 2.5 MWh.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from wattledger import units
from wattledger.model import Amounts, Basis, TotalsRow
from wattledger.model.settling import Settled
from wattledger.model.uncertainty import together

GROUPINGS = ("all", "device", "kind", "payee", "job", "user", "hour", "day")
PRIVATE_GROUPINGS = ("job", "user")
"""What not everybody may see."""

FIELDS = (
    "group",
    "energy_kwh",
    "co2e_g",
    "water_onsite_l",
    "water_grid_l",
    "estimated_kwh",
    "basis",
    "energy_uj",
    "co2e_ug",
    "water_onsite_ul",
    "water_grid_ul",
    "estimated_uj",
    "facility_kwh",
    "facility_uj",
    "settled_kwh",
    "co2e_settled_g",
    "water_grid_settled_l",
    "settled_uj",
    "co2e_settled_ug",
    "water_grid_settled_ul",
)
"""The columns, in order: the group, five figures for people, what CO2e counts, five exact ones; the
energy with PUE, for people and exact; and what is settled, likewise."""
MAY_LACK = ("facility_kwh", "facility_uj")
"""None where the PUE of each part is not known, as in the totals since the epoch."""


def row_dict(row: TotalsRow) -> dict[str, str | float | None]:
    """One row by the names of `FIELDS`.

    `estimated_*` is the part that no meter saw. `basis` names what the row's CO2e counts; where it
    names several ("direct+lifecycle"), the figure adds up unlike things. `facility_*` is IT
    energy × PUE. `settled_*` is the energy whose price was published since; `*_settled_*` are the
    amounts by those prices, where what is not settled counts as it was booked.
    """
    amounts = row.amounts
    co2e_ug = amounts.co2e_ug + row.settled.co2e_ug
    water_ul = amounts.water_grid_ul + row.settled.water_grid_ul
    return {
        "group": row.group,
        "energy_kwh": units.kwh(amounts.energy_uj),
        "co2e_g": units.grams(amounts.co2e_ug),
        "water_onsite_l": units.liters(amounts.water_onsite_ul),
        "water_grid_l": units.liters(amounts.water_grid_ul),
        "estimated_kwh": units.kwh(row.estimated_uj),
        "basis": "+".join(sorted(set(row.bases))),
        "energy_uj": str(amounts.energy_uj),
        "co2e_ug": str(amounts.co2e_ug),
        "water_onsite_ul": str(amounts.water_onsite_ul),
        "water_grid_ul": str(amounts.water_grid_ul),
        "estimated_uj": str(row.estimated_uj),
        "facility_kwh": None if row.facility_uj is None else units.kwh(row.facility_uj),
        "facility_uj": None if row.facility_uj is None else str(row.facility_uj),
        "settled_kwh": units.kwh(row.settled.energy_uj),
        "co2e_settled_g": units.grams(co2e_ug),
        "water_grid_settled_l": units.liters(water_ul),
        "settled_uj": str(row.settled.energy_uj),
        "co2e_settled_ug": str(co2e_ug),
        "water_grid_settled_ul": str(water_ul),
    }


def table(rows: Iterable[TotalsRow]) -> list[dict[str, str | float | None]]:
    """All rows, each as `row_dict`."""
    return [row_dict(row) for row in rows]


def total_of(rows: Iterable[TotalsRow]) -> TotalsRow:
    """The sum of the rows, exact, as a row named `all`."""
    rows = tuple(rows)
    amounts, estimated_uj, bases, settled = Amounts(), 0, set[Basis](), Settled()
    facility_uj: int | None = 0
    for row in rows:
        amounts = amounts.plus(row.amounts)
        estimated_uj += row.estimated_uj
        bases.update(row.bases)
        settled = settled.plus(row.settled)
        if facility_uj is not None:
            facility_uj = None if row.facility_uj is None else facility_uj + row.facility_uj
    sure = together(*(row.sure for row in rows))
    return TotalsRow(
        "all", amounts, estimated_uj, tuple(sorted(bases)), facility_uj, settled, sure=sure
    )


def to_csv(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows of `table` as RFC 4180 CSV with a header line, for spreadsheets.

    A group that a spreadsheet would take for a formula is led by an apostrophe: names of devices
    come from outside.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        group = str(row["group"])
        writer.writerow({**row, "group": "'" + group if group[:1] in "=+-@\t\r" else group})
    return out.getvalue()
