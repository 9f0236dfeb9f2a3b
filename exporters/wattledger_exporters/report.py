"""Totals as plain data: the rows that the API answers and the command line prints.

Each row carries human units for people and, beside them, the exact integers as decimal strings
for programs, since a JSON number is a float64 for most readers and loses whole µJ after 2.5 MWh.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

from wattledger import units
from wattledger.model import Amounts, TotalsRow

GROUPINGS = ("all", "device", "kind", "payee", "hour", "day")

FIELDS = (
    "group",
    "energy_kwh",
    "co2e_g",
    "water_onsite_l",
    "water_grid_l",
    "estimated_kwh",
    "energy_uj",
    "co2e_ug",
    "water_onsite_ul",
    "water_grid_ul",
    "estimated_uj",
)
"""The columns, in order: the group, five figures for people, five exact ones."""


def row_dict(row: TotalsRow) -> dict[str, str | float]:
    """One row by the names of `FIELDS`; `estimated_*` is the part that no meter saw."""
    amounts = row.amounts
    return {
        "group": row.group,
        "energy_kwh": units.kwh(amounts.energy_uj),
        "co2e_g": units.grams(amounts.co2e_ug),
        "water_onsite_l": units.liters(amounts.water_onsite_ul),
        "water_grid_l": units.liters(amounts.water_grid_ul),
        "estimated_kwh": units.kwh(row.estimated_uj),
        "energy_uj": str(amounts.energy_uj),
        "co2e_ug": str(amounts.co2e_ug),
        "water_onsite_ul": str(amounts.water_onsite_ul),
        "water_grid_ul": str(amounts.water_grid_ul),
        "estimated_uj": str(row.estimated_uj),
    }


def table(rows: Iterable[TotalsRow]) -> list[dict[str, str | float]]:
    """All rows, each as `row_dict`."""
    return [row_dict(row) for row in rows]


def total_of(rows: Iterable[TotalsRow]) -> TotalsRow:
    """The sum of the rows, exact, as a row named `all`."""
    amounts, estimated_uj = Amounts(), 0
    for row in rows:
        amounts = amounts.plus(row.amounts)
        estimated_uj += row.estimated_uj
    return TotalsRow("all", amounts, estimated_uj)


def to_json(rows: Iterable[TotalsRow]) -> str:
    """The rows as a JSON array, for programs."""
    return json.dumps(table(rows), indent=2) + "\n"


def to_csv(rows: Sequence[TotalsRow]) -> str:
    """The rows as RFC 4180 CSV with a header line, for spreadsheets.

    A group that a spreadsheet would take for a formula is led by an apostrophe: names of devices
    come from outside.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS)
    writer.writeheader()
    for row in table(rows):
        group = str(row["group"])
        writer.writerow({**row, "group": "'" + group if group[:1] in "=+-@\t\r" else group})
    return out.getvalue()
