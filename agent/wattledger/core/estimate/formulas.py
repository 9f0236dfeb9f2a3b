"""How quantities follow from inputs and from one another.

Each formula gives one quantity; `derive` applies all that can be. Nothing is guessed: a quantity
that two of them could give is a fault, and so is an input that none uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

from wattledger.core.estimate.inputs import INPUTS
from wattledger.core.estimate.quantities import LITERS_PER_US_GALLON, QUANTITIES
from wattledger.core.footprint import footprint
from wattledger.model import Amounts, Basis, FallbackLevel, Price
from wattledger.units import PPM, UG_PER_G, UJ_PER_KWH, UL_PER_L

HOURS_PER_DAY = 24
SECONDS_PER_HOUR = 3600
DAYS_PER_YEAR = 365
_PI = Fraction(math.pi)  # within 1e-16
_G_PER_KG = 1000
_ML_PER_L = 1000
_KG_PER_L = 1  # water

Number = Fraction


class Formula(NamedTuple):
    """One way to a quantity.

    Attributes:
        gives: the quantity, in the first of its units.
        needs: inputs and quantities, in the order of the function's arguments.
        text: the equation, for people.
        of: the function; all its numbers are in the units that the names say.
    """

    gives: str
    needs: tuple[str, ...]
    text: str
    of: Callable[..., Number]


class Derived(NamedTuple):
    """What follows from an estimate's inputs.

    Attributes:
        values: quantity → how much, in the first of its units.
        formulas: quantity → the formula that gave it; an input that is one itself is not here.
    """

    values: dict[str, Number]
    formulas: dict[str, Formula]

    def inputs_of(self, quantity: str) -> set[str]:
        """The inputs that a quantity follows from, by however many formulas."""
        formula = self.formulas.get(quantity)
        if formula is None:
            return {quantity}
        return {name for need in formula.needs for name in self.inputs_of(need)}


def _amounts(
    it_kwh: Number,
    pue: Number = Fraction(1),
    *,
    g_per_kwh: Number = Fraction(0),
    wue: Number = Fraction(0),
    ewif: Number = Fraction(0),
) -> Amounts:
    """`core.footprint`, the books' own: the energy goes in as whole µJ."""
    price = Price(
        intensity_ug_per_kwh=_micro(g_per_kwh),
        zone="",
        source="estimate",
        basis=Basis.LIFECYCLE,
        estimated=True,
        level=FallbackLevel.TABLE,
        signal_from_ns=0,
        signal_to_ns=0,
        pue_ppm=_micro(pue),
        wue_ul_per_kwh=_micro(wue),
        ewif_ul_per_kwh=_micro(ewif),
    )
    return footprint(round(it_kwh * UJ_PER_KWH), price)


def _micro(number: Number) -> int:
    return round(number * PPM)


def _co2e(it_kwh: Number, pue: Number, g_per_kwh: Number) -> Number:
    return Fraction(_amounts(it_kwh, pue, g_per_kwh=g_per_kwh).co2e_ug, UG_PER_G * _G_PER_KG)


def _onsite(it_kwh: Number, wue: Number) -> Number:
    return Fraction(_amounts(it_kwh, wue=wue).water_onsite_ul, UL_PER_L)


def _grid_water(it_kwh: Number, pue: Number, ewif: Number) -> Number:
    return Fraction(_amounts(it_kwh, pue, ewif=ewif).water_grid_ul, UL_PER_L)


def _wafer_area(wafer_mm: Number) -> Number:
    return _PI * (wafer_mm / 20) ** 2  # radius in cm


def _per_request(bottle_ml: Number, water: Number, requests: Number) -> Number:
    return bottle_ml / _ML_PER_L / (water / requests)


FORMULAS: tuple[Formula, ...] = (
    Formula(
        "gpu_hours",
        ("chips", "days"),
        f"chips × days × {HOURS_PER_DAY}",
        lambda chips, days: chips * days * HOURS_PER_DAY,
    ),
    Formula(
        "gpu_hours",
        ("users", "queries_per_user", "words_per_query", "seconds_per_word"),
        f"users × queries_per_user × words_per_query × seconds_per_word / {SECONDS_PER_HOUR}",
        lambda users, queries, words, seconds: users * queries * words * seconds / SECONDS_PER_HOUR,
    ),
    Formula("gpu_power", ("watts",), "watts", lambda watts: watts),
    Formula(  # Cloud Carbon Footprint, Methodology: "average watts"
        "gpu_power",
        ("idle_watts", "full_watts", "load"),
        "idle_watts + load × (full_watts − idle_watts)",
        lambda idle, full, load: idle + load * (full - idle),
    ),
    Formula(
        "it_energy",
        ("gpu_hours", "gpu_power"),
        "gpu_hours × gpu_power / 1000",
        lambda hours, watts: hours * watts / 1000,
    ),
    Formula("it_energy", ("kwh",), "kwh", lambda kwh: kwh),
    Formula("it_energy", ("facility_kwh", "pue"), "facility_kwh / pue", lambda kwh, pue: kwh / pue),
    Formula(
        "it_energy",
        ("requests", "wh_per_request"),
        "requests × wh_per_request / 1000",
        lambda requests, wh: requests * wh / 1000,
    ),
    Formula(
        "it_energy",
        ("tokens", "wh_per_1000_tokens"),
        "tokens / 1000 × wh_per_1000_tokens / 1000",
        lambda tokens, wh: tokens / 1000 * wh / 1000,
    ),
    Formula("facility_energy", ("it_energy", "pue"), "it_energy × pue", lambda kwh, pue: kwh * pue),
    Formula(
        "co2e",
        ("it_energy", "pue", "intensity_g_per_kwh"),
        "it_energy × pue × intensity_g_per_kwh",
        _co2e,
    ),
    Formula(
        "net_co2e",
        ("it_energy", "pue", "net_intensity_g_per_kwh"),
        "it_energy × pue × net_intensity_g_per_kwh",
        _co2e,
    ),
    # Li et al. (arXiv 2304.03271), section 3.1: WUE is per IT kWh, EWIF per facility kWh.
    Formula("water_onsite", ("it_energy", "wue_l_per_kwh"), "it_energy × wue_l_per_kwh", _onsite),
    Formula(
        "water_grid",
        ("it_energy", "pue", "ewif_l_per_kwh"),
        "it_energy × pue × ewif_l_per_kwh",
        _grid_water,
    ),
    Formula(
        "water",
        ("water_onsite", "water_grid"),
        "water_onsite + water_grid",
        lambda onsite, grid: onsite + grid,
    ),
    Formula(
        "requests_per_bottle",
        ("bottle_ml", "water", "requests"),
        "bottle_ml / (water / requests)",
        _per_request,
    ),
    Formula(
        "requests_per_bottle_onsite",
        ("bottle_ml", "water_onsite", "requests"),
        "bottle_ml / (water_onsite / requests)",
        _per_request,
    ),
    Formula("water_volume", ("water_l",), "water_l", lambda liters: liters),
    Formula(
        "water_volume",
        ("water_us_gal",),
        "water_us_gal × 3.785411784",
        lambda gallons: gallons * LITERS_PER_US_GALLON,
    ),
    Formula(
        "water_volume",
        ("water_l_per_day", "days"),
        "water_l_per_day × days",
        lambda liters, days: liters * days,
    ),
    Formula(
        "water_share",
        ("water_us_gal", "total_water_us_gal"),
        "water_us_gal / total_water_us_gal",
        lambda part, total: part / total,
    ),
    Formula(
        "water_intensity",
        ("water_volume", "it_energy"),
        "water_volume / it_energy",
        lambda liters, kwh: liters / kwh,
    ),
    Formula(
        "implied_it_power",
        ("water_l_per_day", "wue_l_per_kwh"),
        f"water_l_per_day / wue_l_per_kwh / {HOURS_PER_DAY} × 1000",
        lambda liters, wue: liters / wue / HOURS_PER_DAY * 1000,
    ),
    Formula(
        "water_per_chip",
        ("silicon_cm2", "water_l_per_cm2"),
        "silicon_cm2 × water_l_per_cm2",
        lambda area, liters: area * liters,
    ),
    Formula(
        "water_per_chip_mass",
        ("water_per_chip", "chip_g"),
        "water_per_chip × 1000 / chip_g",
        lambda liters, grams: liters * _KG_PER_L * _G_PER_KG / grams,
    ),
    Formula("wafer_area", ("wafer_mm",), "π × (wafer_mm / 20)²", _wafer_area),
    Formula(
        "water_per_wafer",
        ("wafer_area", "water_l_per_cm2"),
        "wafer_area × water_l_per_cm2",
        lambda area, liters: area * liters,
    ),
    Formula(
        "water_per_wafer",
        ("mask_layers", "water_l_per_mask_layer"),
        "mask_layers × water_l_per_mask_layer",
        lambda layers, liters: layers * liters,
    ),
    Formula(
        "homes_for_a_year",
        ("facility_energy", "home_kwh_per_year"),
        "facility_energy / home_kwh_per_year",
        lambda kwh, home: kwh / home,
    ),
    Formula(
        "implied_home_energy",
        ("facility_energy", "homes"),
        "facility_energy / homes",
        lambda kwh, homes: kwh / homes,
    ),
    Formula(
        "persons_for_a_day",
        ("co2e", "person_t_per_year"),
        f"co2e / (person_t_per_year × 1000 / {DAYS_PER_YEAR})",
        lambda kg, tonnes: kg / (tonnes * 1000 / DAYS_PER_YEAR),
    ),
    Formula(
        "car_distance",
        ("co2e", "car_g_per_km"),
        "co2e × 1000 / car_g_per_km",
        lambda kg, grams: kg * _G_PER_KG / grams,
    ),
)


def derive(inputs: Mapping[str, Number]) -> Derived:
    """Everything that follows from these inputs.

    Args:
        inputs: names of `INPUTS` and their values, in range.

    Raises:
        ValueError: a quantity that could be had in two ways, an input that serves nothing, or a
            division by nothing.
    """
    values = {name: value for name, value in inputs.items() if name in QUANTITIES}
    found: dict[str, Formula] = {}
    pending = list(FORMULAS)
    while ready := [f for f in pending if _known(f, inputs, values)]:
        for formula in ready:
            pending.remove(formula)
            gives = formula.gives
            if gives in values:
                raise ValueError(_twice(formula, found.get(gives)))
            arguments = [inputs[n] if n in inputs else values[n] for n in formula.needs]
            try:
                values[gives] = formula.of(*arguments)
            except ZeroDivisionError as error:
                raise ValueError(f"{gives} = {formula.text} divides by 0") from error
            found[gives] = formula
    used = {name for formula in found.values() for name in formula.needs}
    for name in inputs:
        if name not in used:
            raise ValueError(_idle(name))
    return Derived(values, found)


def _known(formula: Formula, *sets: Mapping[str, Number]) -> bool:
    return all(any(name in known for known in sets) for name in formula.needs)


def _twice(formula: Formula, other: Formula | None) -> str:
    first = f"follows as {other.text}" if other else "is given"
    return f"{formula.gives} {first}, and also as {formula.text}; leave one of them out"


def _idle(name: str) -> str:
    """What to say about an input that serves nothing: the least that has to go with it."""
    needs = [[n for n in f.needs if n != name] for f in FORMULAS if name in f.needs]
    least = [some for some in needs if not any(set(less) < set(some) for less in needs)]
    ways = " or ".join(" + ".join(others) for others in least)
    # What is no input itself, and how it is had.
    between = dict.fromkeys(n for others in least for n in others if n not in INPUTS)
    hints = [f"; {n} = {' or '.join(f.text for f in FORMULAS if f.gives == n)}" for n in between]
    return f"{name} alone says nothing; with it goes {ways}{''.join(hints)}"
