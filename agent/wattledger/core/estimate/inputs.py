"""What may be known of a run, a chip or a claim: the keys of an estimate's `inputs`."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

MOST = 10**18  # beyond any sum on Earth, and small enough that no exact product grows without end
_LEAST = Decimal("1e-12")  # of what is divided by, and of any number but 0
_MOST_DIGITS = 40


class Input(NamedTuple):
    """A key of `inputs`.

    Attributes:
        meaning: for people.
        low: the least value, inclusive.
        high: the greatest value, inclusive.
        option: the option of the command line that states it too, or empty.
    """

    meaning: str
    low: Decimal = Decimal(0)
    high: Decimal = Decimal(MOST)
    option: str = ""


def _input(meaning: str, low: str = "0", high: str = str(MOST), option: str = "") -> Input:
    return Input(meaning, Decimal(low), Decimal(high), option)


def _divisor(meaning: str) -> Input:
    return Input(meaning, _LEAST, Decimal(MOST))


INPUTS: dict[str, Input] = {
    # the work
    "gpu_hours": _input("accelerators × hours", option="--gpu-hours"),
    "chips": _input("accelerators", option="--chips"),
    "days": _input("how long, in days", option="--days"),
    "watts": _input("mean power of one accelerator and its share of the host", option="--watts"),
    "idle_watts": _input("power of one accelerator at no load"),
    "full_watts": _input("power of one accelerator at full load"),
    "load": _input("mean load, from 0 to 1", high="1"),
    "users": _input("people who ask"),
    "queries_per_user": _input("what each asks"),
    "words_per_query": _input("how many words answer it"),
    "seconds_per_word": _input("accelerator seconds for one word"),
    # its energy, where that is what is known
    "kwh": _input("IT energy, kWh", option="--kwh"),
    "facility_kwh": _input("energy with the PUE already in it, kWh", option="--facility-kwh"),
    "requests": _input("requests served", option="--requests"),
    "wh_per_request": _input("IT energy of one request, Wh", option="--wh-per-request"),
    "tokens": _input("tokens produced", option="--tokens"),
    "wh_per_1000_tokens": _input("IT energy of 1,000 tokens, Wh", option="--wh-per-1000-tokens"),
    # the site and its grid
    "pue": _input("facility energy over IT energy", "1", "10", option="--pue"),
    "intensity_g_per_kwh": _input(
        "gCO2e per kWh of facility energy, location-based", high="10000", option="--intensity"
    ),
    "net_intensity_g_per_kwh": _input(
        "the same less the carbon-free energy that the operator bought", high="10000"
    ),
    "wue_l_per_kwh": _input("litres on site per kWh of IT energy", high="1000", option="--wue"),
    "ewif_l_per_kwh": _input(
        "litres that the grid consumed per kWh of facility energy", high="1000", option="--ewif"
    ),
    # water that is itself what is known
    "water_l": _input("a volume of water, L"),
    "water_us_gal": _input("a volume of water, US gallons"),
    "water_l_per_day": _input("a flow of water, L per day"),
    "total_water_us_gal": _divisor("the volume that it is a part of, US gallons"),
    # making chips
    "water_l_per_cm2": _input("water to process 1 cm² of silicon wafer, L"),
    "silicon_cm2": _input("wafer area that one chip takes, with what is lost, cm²"),
    "wafer_mm": _input("wafer diameter, mm"),
    "water_l_per_mask_layer": _input("water of one mask layer on one wafer, L"),
    "mask_layers": _input("mask layers of the process"),
    "chip_g": _divisor("mass of the finished chip, g"),
    # comparisons
    "bottle_ml": _divisor("a bottle, mL"),
    "home_kwh_per_year": _divisor("electricity of one home in a year, kWh"),
    "homes": _divisor("homes that it is said to be as much as, for a year"),
    "person_t_per_year": _divisor("emissions of one person in a year, t"),
    "car_g_per_km": _divisor("emissions of a car, g per km"),
}


def number_of(name: str, value: Decimal) -> Fraction:
    """An input as an exact number.

    Raises:
        ValueError: out of its range; says the range.
    """
    known = INPUTS[name]
    return exact(value, known.low, known.high)


def exact(value: Decimal, low: Decimal, high: Decimal) -> Fraction:
    """A decimal as a fraction.

    Raises:
        ValueError: out of range, or of so many digits that exact arithmetic would not end.
    """
    if not value.is_finite() or not low <= value <= high:
        raise ValueError(f"{str(value)[:40]} is out of range; it lies from {low:g} to {high:g}")
    if value and (value < _LEAST or len(value.as_tuple().digits) > _MOST_DIGITS):
        raise ValueError(f"{str(value)[:40]} is too small, or has too many digits")
    return Fraction(value)
