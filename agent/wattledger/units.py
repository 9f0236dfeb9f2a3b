"""Units: integers inside, conversion at the rim.

Inside the program one unit stands for one quantity, and its name ends every identifier:
energy `_uj` (microjoule), power `_uw` (microwatt), CO2e `_ug` (microgram), water `_ul`
(microlitre), time `_ns`, and dimensionless ratios `_ppm` (millionths). All are `int`, since a
float64 cannot hold every whole microjoule beyond 2^53 µJ = 2.5 MWh.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

NS_PER_S = 1_000_000_000
NS_PER_US = 1_000
NS_PER_MS = 1_000_000
UJ_PER_J = 1_000_000
UJ_PER_MJ = 1_000  # NVML counts millijoules
UJ_PER_KWH = 3_600_000 * UJ_PER_J  # 1 kWh = 3.6 MJ by definition
UW_PER_W = 1_000_000
UG_PER_G = 1_000_000
UL_PER_L = 1_000_000
PPM = 1_000_000
SLOT_S = 300  # the books' time grain: 5 minutes of UTC
SLOT_NS = SLOT_S * NS_PER_S

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION_NS = {
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
    "d": 86400 * NS_PER_S,
}


def micro(value: str | float | Decimal) -> int:
    """A number of whole units (grams, litres, ratios, watts) in millionths, rounded half to even.

    Floats are taken by their shortest decimal form, so that 0.36 is 360000.

    Raises:
        ValueError: the value is not a finite number.
    """
    try:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError(f"{value!r} is not a number") from error
    if not number.is_finite():
        raise ValueError(f"{value!r} is not a finite number")
    return int((number * PPM).to_integral_value(rounding=ROUND_HALF_EVEN))


def decimal_string(amount: int, per_unit: int = PPM) -> str:
    """An exact decimal of `amount / per_unit`, for programs that must not round.

    Only for divisors whose prime factors are 2 and 5, as all of ours to base units are.
    """
    number = Decimal(amount) / Decimal(per_unit)
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def joules(energy_uj: int) -> float:
    """Microjoules as joules; correctly rounded, hence monotone."""
    return energy_uj / UJ_PER_J


def kwh(energy_uj: int) -> float:
    """Microjoules as kilowatt-hours; correctly rounded, hence monotone."""
    return energy_uj / UJ_PER_KWH


def watts(power_uw: int) -> float:
    """Microwatts as watts."""
    return power_uw / UW_PER_W


def grams(co2e_ug: int) -> float:
    """Micrograms as grams."""
    return co2e_ug / UG_PER_G


def liters(water_ul: int) -> float:
    """Microlitres as litres."""
    return water_ul / UL_PER_L


def seconds(ns: int) -> float:
    """Nanoseconds as seconds."""
    return ns / NS_PER_S


def slot_of(wall_ns: int) -> int:
    """The start, in Unix seconds, of the 5-minute UTC slot that holds this instant."""
    return wall_ns // SLOT_NS * SLOT_S


def parse_duration_ns(text: str) -> int:
    """`"250ms"`, `"1s"`, `"5m"`, `"1h30m"`, `"45d"` in nanoseconds.

    Raises:
        ValueError: with a sentence that shows how to write one.
    """
    position = total = 0
    for part in _DURATION.finditer(text):
        if part.start() != position:
            break
        total += int(Decimal(part[1]) * _DURATION_NS[part[2]])
        position = part.end()
    if not text or position != len(text):
        raise ValueError(f'{text!r} is not a duration; write one such as "1s", "5m" or "1h30m"')
    return total


def format_duration(ns: int) -> str:
    """The shortest text that `parse_duration_ns` reads as `ns` (whole milliseconds)."""
    if ns <= 0:
        return "0s"
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, ns = divmod(ns, _DURATION_NS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
