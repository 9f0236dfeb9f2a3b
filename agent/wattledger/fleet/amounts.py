"""The totals of a job, as the API of a node tells them, of what was scraped. Pure.

A scraped counter is a float64 of a whole number of µJ, µg or µL: below 2**52 of them the integer
comes back as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wattledger import units
from wattledger.model import Basis, Kind

_HOUR_S = 3600.0
_MS_PER_S = 1000


class Families:
    """The counters of a job: metric → values of its own label → value, added up.

    What was not scraped is not there: nothing here becomes 0 for want of a sample.
    """

    def __init__(self) -> None:
        self._found: dict[str, dict[str, float]] = {}

    def add(self, metric: str, label: str, value: float) -> None:
        """Add a value, such as `("job_energy_kwh_total", "gpu", 1.5)`."""
        family = self._found.setdefault(metric, {})
        family[label] = family.get(label, 0.0) + value

    def get(self, metric: str) -> Mapping[str, float] | None:
        """The values of a metric; None: there are none."""
        return self._found.get(metric)

    @property
    def energy_kwh(self) -> float:
        """All of it, for sorting."""
        return sum(self._found.get("job_energy_kwh_total", {}).values())


def totals(found: Families) -> dict[str, Any]:
    """As `wattledger_exporters.amounts.amounts`, with None for what was not scraped.

    Args:
        found: of one job; a kind or an origin without a series was not booked to.
    """
    kwh = found.get("job_energy_kwh_total")
    grams = found.get("job_co2e_grams_total")
    liters = found.get("job_water_liters_total")
    idle_j = _only(found, "job_held_idle_joules_total")
    idle_s = _only(found, "job_held_idle_seconds_total")
    held_s = _only(found, "job_held_seconds_total")
    by_kind = None if kwh is None else {kind: _uj(kwh.get(kind.value, 0.0)) for kind in Kind}
    energy_uj = None if by_kind is None else sum(by_kind.values())
    onsite = None if liters is None else liters.get("onsite", 0.0)
    grid = None if liters is None else liters.get("grid", 0.0)
    idle_uj = None if idle_j is None else round(idle_j * units.UJ_PER_J)
    return {
        "energy_kwh": None
        if by_kind is None or energy_uj is None
        else {
            **{kind.value: units.kwh(uj) for kind, uj in by_kind.items()},
            "total": units.kwh(energy_uj),
        },
        "co2e_g": None if grams is None else sum(grams.values()),
        "co2e_g_by_basis": None
        if grams is None
        else {basis.value: grams[basis.value] for basis in sorted(Basis) if basis.value in grams},
        "water_l": None
        if onsite is None or grid is None
        else {"onsite": onsite, "grid": grid, "total": onsite + grid},
        "held_device_hours": None if held_s is None else held_s / _HOUR_S,
        "held_idle_device_hours": None if idle_s is None else idle_s / _HOUR_S,
        "held_idle_kwh": None if idle_uj is None else units.kwh(idle_uj),
        "exact": {
            **{
                f"energy_uj_{kind.value}": _text(None if by_kind is None else by_kind[kind])
                for kind in Kind
            },
            "energy_uj": _text(energy_uj),
            "co2e_ug": _text(_whole(grams, units.UG_PER_G)),
            "water_onsite_ul": _text(None if onsite is None else round(onsite * units.UL_PER_L)),
            "water_grid_ul": _text(None if grid is None else round(grid * units.UL_PER_L)),
            "held_ms": _text(None if held_s is None else round(held_s * _MS_PER_S)),
            "held_idle_ms": _text(None if idle_s is None else round(idle_s * _MS_PER_S)),
            "held_idle_uj": _text(idle_uj),
        },
    }


def _only(found: Families, metric: str) -> float | None:
    family = found.get(metric)
    return None if family is None else sum(family.values())


def _whole(family: Mapping[str, float] | None, per: int) -> int | None:
    return None if family is None else sum(round(value * per) for value in family.values())


def _uj(kwh: float) -> int:
    return round(kwh * units.UJ_PER_KWH)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
