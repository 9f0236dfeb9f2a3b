"""The totals of a job, as the API of a node tells them, of what was scraped. Pure.

A scraped counter is a float64 of a whole number of µJ, µg, µL or ms. Prometheus keeps it as it is:
below 2**51 of them (625 kWh of one ledger) the integer comes back as it was, and from there on to
a part in 2**52. VictoriaMetrics keeps 12 to 13 digits of a fraction, and so does what is told here.
Integers are added as integers, so that nothing more is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wattledger import units
from wattledger.model import Basis, Kind

_MS_PER_S = 1000
_PER = {
    "kwh": units.UJ_PER_KWH,
    "joules": units.UJ_PER_J,
    "grams": units.UG_PER_G,
    "liters": units.UL_PER_L,
    "seconds": _MS_PER_S,
}
_KNOWN = {
    "job_energy_kwh_total": ("kind", tuple(kind.value for kind in Kind)),
    "job_co2e_grams_total": ("basis", tuple(basis.value for basis in Basis)),
    "job_water_liters_total": ("origin", ("onsite", "grid")),
}
_MS_PER_HOUR = 3600 * _MS_PER_S


def per_unit(metric: str) -> int:
    """How many µJ, µg, µL or ms are 1 of a counter, by its name's unit."""
    return _PER[metric.removesuffix("_total").rpartition("_")[2]]


class Families:
    """The counters of a job: metric → values of its own label → µJ, µg, µL or ms, added up.

    What was not scraped is not there: nothing here becomes 0 for want of a sample. A value of a
    label that is not known here is not counted, and named in `unknown`.
    """

    def __init__(self) -> None:
        self._found: dict[str, dict[str, int]] = {}
        self.unknown: dict[str, None] = {}

    def add(self, metric: str, label: str, amount: int) -> None:
        """Add an amount, such as `("job_energy_kwh_total", "gpu", 5_400_000_000_000)`."""
        if metric in _KNOWN:
            name, values = _KNOWN[metric]
            if label not in values:
                self.unknown[f'wattledger_{metric}{{{name}="{label}"}}'] = None
                return
        family = self._found.setdefault(metric, {})
        family[label] = family.get(label, 0) + amount

    def get(self, metric: str) -> Mapping[str, int] | None:
        """The amounts of a metric; None: there are none."""
        return self._found.get(metric)

    def sum(self, metric: str) -> int | None:
        """All of a metric; None: there is none."""
        family = self._found.get(metric)
        return None if family is None else sum(family.values())


def unknown(found: Iterable[Families]) -> list[str]:
    """What other versions than this one count by, in sentences."""
    names = dict.fromkeys(name for families in found for name in families.unknown)
    return [f"{name} is not known to this version: it is not in these figures" for name in names]


def totals(found: Families) -> dict[str, Any]:
    """As `wattledger_exporters.amounts.amounts`, with None for what was not scraped.

    Args:
        found: of one job; a kind or an origin without a series was not booked to.
    """
    energy = found.get("job_energy_kwh_total")
    co2e = found.get("job_co2e_grams_total")
    water = found.get("job_water_liters_total")
    energy_uj = found.sum("job_energy_kwh_total")
    co2e_ug = found.sum("job_co2e_grams_total")
    idle_uj = found.sum("job_held_idle_joules_total")
    idle_ms = found.sum("job_held_idle_seconds_total")
    held_ms = found.sum("job_held_seconds_total")
    by_kind = None if energy is None else {kind.value: energy.get(kind.value, 0) for kind in Kind}
    onsite_ul = None if water is None else water.get("onsite", 0)
    grid_ul = None if water is None else water.get("grid", 0)
    return {
        "energy_kwh": None
        if by_kind is None or energy_uj is None
        else {
            **{kind: units.kwh(uj) for kind, uj in by_kind.items()},
            "total": units.kwh(energy_uj),
        },
        "co2e_g": None if co2e_ug is None else co2e_ug / units.UG_PER_G,
        "co2e_g_by_basis": None
        if co2e is None
        else {
            basis.value: co2e[basis.value] / units.UG_PER_G
            for basis in sorted(Basis)
            if basis.value in co2e
        },
        "water_l": None
        if onsite_ul is None or grid_ul is None
        else {
            "onsite": onsite_ul / units.UL_PER_L,
            "grid": grid_ul / units.UL_PER_L,
            "total": (onsite_ul + grid_ul) / units.UL_PER_L,
        },
        "held_device_hours": None if held_ms is None else held_ms / _MS_PER_HOUR,
        "held_idle_device_hours": None if idle_ms is None else idle_ms / _MS_PER_HOUR,
        "held_idle_kwh": None if idle_uj is None else units.kwh(idle_uj),
        "exact": {
            **{
                f"energy_uj_{kind.value}": _text(None if by_kind is None else by_kind[kind.value])
                for kind in Kind
            },
            "energy_uj": _text(energy_uj),
            "co2e_ug": _text(co2e_ug),
            "water_onsite_ul": _text(onsite_ul),
            "water_grid_ul": _text(grid_ul),
            "held_ms": _text(held_ms),
            "held_idle_ms": _text(idle_ms),
            "held_idle_uj": _text(idle_uj),
        },
    }


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
