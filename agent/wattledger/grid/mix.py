"""From what electricity was made of to what it emitted: Σ energy × factor / Σ energy.

The factors are medians over the life cycle, in `data/fuel_factors.csv` with their sources. The mix
is that of the zone's own plants: what flows in and out over its borders is left out.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from wattledger.grid.outcome import Outcome, failure

STORAGE = "storage"  # gives back what the other plants made: no source of its own
UNKNOWN = "unknown"  # taken to be like the rest
MAX_UNKNOWN = 0.25
_SHARE = 0.01  # a plant type that makes less than this may be missing from an hour

Hours = Mapping[int, Mapping[str, float]]


@cache
def factors() -> Mapping[str, float]:
    """Fuel → g of CO2 equivalents per kWh."""
    import pkgutil

    raw = pkgutil.get_data("wattledger.grid", "data/fuel_factors.csv")
    if raw is None:
        raise FileNotFoundError("wattledger/grid/data/fuel_factors.csv")
    lines = raw.decode("utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return MappingProxyType({row["fuel"]: float(row["gco2e_per_kwh"]) for row in rows})


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
