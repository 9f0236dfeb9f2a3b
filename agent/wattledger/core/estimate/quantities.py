"""What an estimate can tell, and the units that it may be told in."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

LITERS_PER_US_GALLON = Fraction("3.785411784")  # 231 cubic inches, exactly (NIST Handbook 44)


class Quantity(NamedTuple):
    """Something that formulas give.

    Attributes:
        meaning: for people.
        units: name → how much of the first unit, in which it is computed, one of it is.
    """

    meaning: str
    units: dict[str, Fraction]

    @property
    def unit(self) -> str:
        """The unit that it is computed in, and shown in where nothing else is asked for."""
        return next(iter(self.units))


def _units(**sizes: str | int) -> dict[str, Fraction]:
    return {name: Fraction(size) for name, size in sizes.items()}


_ENERGY = _units(kWh=1, Wh="0.001", MWh=1000, GWh=10**6, TWh=10**9)
_MASS = _units(kg=1, g="0.001", t=1000, kt=10**6, Mt=10**9)
_WATER = _units(L=1, mL="0.001", m3=1000, ML=10**6, GL=10**9) | {
    "US gal": LITERS_PER_US_GALLON,
    "million US gal": LITERS_PER_US_GALLON * 10**6,
}
_POWER = _units(W=1, kW=1000, MW=10**6)
_COUNT = {"1": Fraction(1), "%": Fraction(1, 100)}

QUANTITIES: dict[str, Quantity] = {
    "gpu_hours": Quantity("accelerators × hours", _units(h=1)),
    "gpu_power": Quantity("mean power of one accelerator", _POWER),
    "it_energy": Quantity("energy of the machines", _ENERGY),
    "facility_energy": Quantity("energy of the machines and of what cools and feeds them", _ENERGY),
    "co2e": Quantity("emissions by the grid's intensity (location-based, gross)", _MASS),
    "net_co2e": Quantity("emissions less carbon-free energy bought (market-based, net)", _MASS),
    "water_onsite": Quantity("water consumed on site, mostly evaporated", _WATER),
    "water_grid": Quantity("water consumed by power plants", _WATER),
    "water": Quantity("both together", _WATER),
    "requests_per_bottle": Quantity("requests that share one bottle of water", _COUNT),
    "requests_per_bottle_onsite": Quantity("the same by the water on site alone", _COUNT),
    "water_volume": Quantity("a volume of water, converted", _WATER),
    "water_share": Quantity("its part of the total", _COUNT),
    "water_intensity": Quantity("water per kWh of the energy stated", {"L/kWh": Fraction(1)}),
    "implied_it_power": Quantity("IT power whose cooling takes that flow", _POWER),
    "water_per_chip": Quantity("water to make one chip", _WATER),
    "water_per_chip_mass": Quantity("mass of that water over the chip's", _COUNT),
    "wafer_area": Quantity("area of a wafer", {"cm2": Fraction(1)}),
    "water_per_wafer": Quantity("water to process one wafer", _WATER),
    "homes_for_a_year": Quantity("homes that use as much electricity in a year", _COUNT),
    "implied_home_energy": Quantity(
        "electricity of a home in a year that the claim takes", _ENERGY
    ),
    "persons_for_a_day": Quantity("people who emit as much in a day", _COUNT),
    "car_distance": Quantity("distance driven for as much emission", _units(km=1)),
}
