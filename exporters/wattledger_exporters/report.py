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
from wattledger.model.sums import total
from wattledger.model.uncertainty import together
from wattledger_exporters.sums import cost_of, costs_of, market_of, money

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
    "restated_kwh",
    "water_onsite_settled_l",
    "facility_settled_kwh",
    "basis_settled",
    "restated_uj",
    "water_onsite_settled_ul",
    "facility_settled_uj",
    "cost",
    "currency",
    "costs",
    "priced_kwh",
    "market_co2e_g",
    "market_kwh",
    "embodied_co2e_g",
)
"""The columns, in order: the group, five figures for people, what CO2e counts, five exact ones; the
energy with PUE, for people and exact; what is settled, likewise, and what is restated; money,
market-based and embodied CO2e."""
MAY_LACK = (
    *("facility_kwh", "facility_uj", "facility_settled_kwh", "facility_settled_uj"),
    *("cost", "market_co2e_g", "embodied_co2e_g"),
)
"""None where the PUE of each part is not known, as in the totals since the epoch; without one
price; without contracts; and of spans, since what was made long ago is not booked by the day."""


def row_dict(row: TotalsRow) -> dict[str, str | float | None]:
    """One row by the names of `FIELDS`.

    `estimated_*` is the part that no meter saw. `basis` names what the row's CO2e counts; where it
    names several ("direct+lifecycle"), the figure adds up unlike things. `facility_*` is IT
    energy × PUE. `settled_*` is the energy whose price was published since, `restated_*` that of
    which a factor of the site was restated; `*_settled_*` are the final amounts, by both, where
    what is neither counts as it was booked, and `basis_settled` what their CO2e counts. `cost` is
    that of the energy `priced_kwh`, in the only `currency`; `costs` is of each in words.
    `market_*` is the CO2e by the site's contracts and the energy that they priced.
    """
    amounts = row.amounts
    co2e_ug = amounts.co2e_ug + row.settled.co2e_ug
    water_ul = amounts.water_grid_ul + row.settled.water_grid_ul
    onsite_ul = amounts.water_onsite_ul + row.settled.water_onsite_ul
    final_uj = row.settled_facility_uj
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
        "restated_kwh": units.kwh(row.settled.restated_uj),
        "water_onsite_settled_l": units.liters(onsite_ul),
        "facility_settled_kwh": None if final_uj is None else units.kwh(final_uj),
        "basis_settled": "+".join(sorted(set(row.settled_bases or row.bases))),
        "restated_uj": str(row.settled.restated_uj),
        "water_onsite_settled_ul": str(onsite_ul),
        "facility_settled_uj": None if final_uj is None else str(final_uj),
        **_sums(row),
    }


def _sums(row: TotalsRow) -> dict[str, str | float | None]:
    sums, cost = row.sums, cost_of(row.sums)
    market_g, _ = market_of(sums, row.amounts.energy_uj)
    return {
        "cost": None if cost is None else cost["amount"],
        "currency": "" if cost is None else cost["currency"],
        "costs": money(costs_of(sums, row.amounts.energy_uj)),
        "priced_kwh": units.kwh(sum(cost.energy_uj for cost in sums.costs.values())),
        "market_co2e_g": market_g,
        "market_kwh": units.kwh(sums.market.energy_uj),
        "embodied_co2e_g": sums.embodied_g,
    }


def table(rows: Iterable[TotalsRow]) -> list[dict[str, str | float | None]]:
    """All rows, each as `row_dict`."""
    return [row_dict(row) for row in rows]


def total_of(rows: Iterable[TotalsRow]) -> TotalsRow:
    """The sum of the rows, exact, as a row named `all`."""
    rows = tuple(rows)
    amounts, estimated_uj, settled = Amounts(), 0, Settled()
    bases, final = set[Basis](), set[Basis]()
    for row in rows:
        amounts = amounts.plus(row.amounts)
        estimated_uj += row.estimated_uj
        bases.update(row.bases)
        final.update(row.settled_bases or row.bases)
        settled = settled.plus(row.settled)
    return TotalsRow(
        "all",
        amounts,
        estimated_uj,
        tuple(sorted(bases)),
        _sum(row.facility_uj for row in rows),
        settled,
        sure=together(*(row.sure for row in rows)),
        settled_bases=tuple(sorted(final)),
        settled_facility_uj=_sum(row.settled_facility_uj for row in rows),
        sums=total(row.sums for row in rows),
    )


def _sum(parts: Iterable[int | None]) -> int | None:
    """None where a part is."""
    whole = 0
    for part in parts:
        if part is None:
            return None
        whole += part
    return whole


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows of `table` as RFC 4180 CSV with a header line, for spreadsheets.

    A group or a currency that a spreadsheet would take for a formula is led by an apostrophe: names
    of devices come from outside.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        texts = {name: str(row.get(name, "")) for name in ("group", "currency")}
        safe = {n: "'" + text if text.startswith(_FORMULA) else text for n, text in texts.items()}
        writer.writerow({**row, **safe})
    return out.getvalue()
