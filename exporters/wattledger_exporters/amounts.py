"""The totals of a job, a run or a receipt as plain data. Pure.

Human units for people and, under `exact`, the integers as decimal strings for programs.
"""

from __future__ import annotations

from typing import Any

from wattledger import units
from wattledger.model import Amounts, Basis, Kind
from wattledger.model.jobbooks import Cell, Cells
from wattledger.model.settling import SettledBy, final_bases, sum_of_settled
from wattledger.units import NS_PER_MS

_HOUR_S = 3600.0


def amounts(cells: Cells) -> dict[str, Any]:
    """The totals of a run or a job."""
    by_kind = dict.fromkeys(Kind, 0)
    bases: dict[Basis, int] = {}
    whole = Cell()
    for (kind, basis), cell in cells.items():
        by_kind[kind] += cell.amounts.energy_uj
        bases[basis] = bases.get(basis, 0) + cell.amounts.co2e_ug
        whole = whole.plus(cell)
    total, held = whole
    return {
        "energy_kwh": {
            **{kind.value: units.kwh(uj) for kind, uj in by_kind.items()},
            "total": units.kwh(total.energy_uj),
        },
        "co2e_g": units.grams(total.co2e_ug),
        "co2e_g_by_basis": {basis.value: units.grams(ug) for basis, ug in sorted(bases.items())},
        "water_l": {
            "onsite": units.liters(total.water_onsite_ul),
            "grid": units.liters(total.water_grid_ul),
            "total": units.liters(total.water_onsite_ul + total.water_grid_ul),
        },
        "held_device_hours": units.seconds(held.held_ms * NS_PER_MS) / _HOUR_S,
        "held_idle_device_hours": units.seconds(held.idle_ms * NS_PER_MS) / _HOUR_S,
        "held_idle_kwh": units.kwh(held.idle_uj),
        "exact": {
            **{f"energy_uj_{kind.value}": str(uj) for kind, uj in by_kind.items()},
            "energy_uj": str(total.energy_uj),
            "co2e_ug": str(total.co2e_ug),
            "water_onsite_ul": str(total.water_onsite_ul),
            "water_grid_ul": str(total.water_grid_ul),
            "held_ms": str(held.held_ms),
            "held_idle_ms": str(held.idle_ms),
            "held_idle_uj": str(held.idle_uj),
        },
    }


def stress_weighted_l(water_onsite_ul: int, factor: float | None) -> float | None:
    """On-site water weighted by how scarce it is there, in litres world-eq; None: not known.

    By AWARE (Boulay et al. 2018, doi.org/10.1007/s11367-017-1333-8): a factor is of one watershed.
    That of the power plants is another and not known, so that the grid's water is not in it.
    """
    return None if factor is None else units.liters(water_onsite_ul) * factor


def settled_amounts(cells: Cells, by_basis: SettledBy) -> dict[str, Any] | None:
    """What totals come to by what is known better since; None: nothing of them is.

    `energy_kwh` is the part whose price was published since, `restated_kwh` the part of which a
    factor of the site was restated; what is neither counts as it was booked.
    """
    whole = sum_of_settled(by_basis)
    if not whole.energy_uj and not whole.restated_uj:
        return None
    booked = amounts_of(cells)
    booked_uj: dict[Basis, int] = {}
    co2e_ug: dict[Basis, int] = {basis: part.co2e_ug for basis, part in by_basis.items()}
    for (_, basis), cell in cells.items():
        booked_uj[basis] = booked_uj.get(basis, 0) + cell.amounts.energy_uj
        co2e_ug[basis] = co2e_ug.get(basis, 0) + cell.amounts.co2e_ug
    final_ug = booked.co2e_ug + whole.co2e_ug
    grid_ul = booked.water_grid_ul + whole.water_grid_ul
    onsite_ul = booked.water_onsite_ul + whole.water_onsite_ul
    return {
        "energy_kwh": units.kwh(whole.energy_uj),
        "restated_kwh": units.kwh(whole.restated_uj),
        "co2e_g": units.grams(final_ug),
        "co2e_g_by_basis": {
            basis.value: units.grams(co2e_ug[basis]) for basis in final_bases(booked_uj, by_basis)
        },
        "co2e_difference_g": units.grams(whole.co2e_ug),
        "water_grid_l": units.liters(grid_ul),
        "water_onsite_l": units.liters(onsite_ul),
        "exact": {
            "energy_uj": str(whole.energy_uj),
            "restated_uj": str(whole.restated_uj),
            "co2e_ug": str(final_ug),
            "water_grid_ul": str(grid_ul),
            "water_onsite_ul": str(onsite_ul),
        },
    }


def amounts_of(cells: Cells) -> Amounts:
    """The sum over all cells."""
    whole = Amounts()
    for cell in cells.values():
        whole = whole.plus(cell.amounts)
    return whole
