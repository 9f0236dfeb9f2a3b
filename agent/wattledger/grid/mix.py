"""From what electricity was made of to what it emitted and drank: Σ energy × factor / Σ energy.

The factors are medians, in `data/fuel_factors.csv` with their sources: of emissions over the life
cycle, of water consumed while the plants run. The mix is that of the zone's own plants: what flows
in and out over its borders is left out.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from wattledger.grid.outcome import Outcome, failure
from wattledger.units import micro

STORAGE = "storage"  # gives back what the other plants made: no source of its own
UNKNOWN = "unknown"  # taken to be like the rest
MAX_UNKNOWN = 0.25
_SHARE = 0.01  # a plant type that makes less than this may be missing from an hour

Hours = Mapping[int, Mapping[str, float]]


def factors() -> Mapping[str, float]:
    """Fuel → g of CO2 equivalents per kWh."""
    return _column("gco2e_per_kwh")


def water_factors() -> Mapping[str, float]:
    """Fuel → litres of water consumed per kWh; a fuel of which nothing is published is not here."""
    return _column("water_l_per_kwh")


@cache
def _column(name: str) -> Mapping[str, float]:
    import pkgutil

    raw = pkgutil.get_data("wattledger.grid", "data/fuel_factors.csv")
    if raw is None:
        raise FileNotFoundError("wattledger/grid/data/fuel_factors.csv")
    lines = raw.decode("utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return MappingProxyType({row["fuel"]: float(row[name]) for row in rows if row[name]})


def g_per_kwh(energy: Mapping[str, float], fuels: Mapping[str, str]) -> float:
    """The intensity of one hour.

    Args:
        energy: by the provider's code of a type of plant, in one unit. What is below zero is what
            plants used themselves, and counts as nothing.
        fuels: the provider's codes as fuels of `factors`, `STORAGE` or `UNKNOWN`; what is in
            neither is unknown.

    Raises:
        GridError: outcome `no_data`: nothing was made, or too much of it by nobody knows what.
    """
    known = emitted = unknown = 0.0
    for code, amount in energy.items():
        fuel = fuels.get(code, UNKNOWN)
        made = max(amount, 0.0)
        if fuel == UNKNOWN:
            unknown += made
        elif fuel != STORAGE:
            known += made
            emitted += made * factors()[fuel]
    if known <= 0:
        raise failure(Outcome.NO_DATA, "no generation is reported for the hour")
    if unknown > MAX_UNKNOWN * (known + unknown):
        raise failure(Outcome.NO_DATA, "too much of the generation is of an unknown kind")
    return emitted / known


def ewif_ul_per_kwh(energy: Mapping[str, float], fuels: Mapping[str, str]) -> int | None:
    """The water that one hour's generation consumed, in µL per kWh: Σ b·EWIF / Σ b.

    Storage and the unknown are treated as in `g_per_kwh`; a fuel without a water factor is unknown
    here. As in Li et al., "Making AI Less Thirsty" (arXiv 2304.03271), section 3.1, with factors
    of our own.

    Args:
        energy: as in `g_per_kwh`.
        fuels: likewise.

    Returns:
        None where too little of the hour has a factor: unavailable is never 0.
    """
    known = consumed = unknown = 0.0
    for code, amount in energy.items():
        fuel = fuels.get(code, UNKNOWN)
        if fuel == STORAGE:
            continue
        made, factor = max(amount, 0.0), water_factors().get(fuel)
        if factor is None:
            unknown += made
        else:
            known += made
            consumed += made * factor
    if known <= 0 or unknown > MAX_UNKNOWN * (known + unknown):
        return None
    return micro(consumed / known)


def whole(hours: Hours) -> Hours:
    """The hours in which no type of plant is missing that matters in the others.

    Providers publish an hour bit by bit. A type that is not there yet is not one that made nothing:
    without this, a windy hour would be sold as coal's.
    """
    total: dict[str, float] = {}
    for energy in hours.values():
        for code, amount in energy.items():
            total[code] = total.get(code, 0.0) + max(amount, 0.0)
    least = _SHARE * sum(total.values())
    needed = {code for code, amount in total.items() if amount > least}
    return {start: energy for start, energy in hours.items() if needed <= energy.keys()}
