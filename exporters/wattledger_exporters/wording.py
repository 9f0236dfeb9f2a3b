"""Figures in words for people: few digits, units of a readable size. Programs get them exact."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_DIGITS = 4
# Of more than U+10FFFF there is none, and Python would refuse it.
_ESCAPE = re.compile(r"\\(?:[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4})")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


class Unit(NamedTuple):
    """A unit for what is at least so much.

    Attributes:
        least: of the base unit.
        name: of this unit.
        per_base: how many of it the base unit is.
        decimals: more do not exist: the books are in whole µJ, µg and µL.
    """

    least: float
    name: str
    per_base: float
    decimals: int


Units = tuple[Unit, ...]
"""The largest first; the base unit is that with `per_base` 1."""

ENERGY: Units = (
    Unit(1e-3, "kWh", 1.0, 12),
    Unit(1e-5, "Wh", 1e3, 9),
    Unit(0.0, "J", 3.6e6, 6),
)
CO2E: Units = (
    Unit(1e7, "t", 1e-6, 12),
    Unit(1e4, "kg", 1e-3, 9),
    Unit(0.1, "g", 1.0, 6),
    Unit(0.0, "mg", 1e3, 3),
)
WATER: Units = (Unit(0.1, "L", 1.0, 6), Unit(0.0, "mL", 1e3, 3))


def unit_for(value: float, units: Units) -> Unit:
    """The unit in which an amount is readable; nothing at all is told in the base unit."""
    if not value:
        return next(unit for unit in units if unit.per_base == 1.0)
    return next(unit for unit in units if abs(value) >= unit.least)


def energy(kwh: float) -> str:
    """An energy: `1.250 kWh`, `32.10 Wh`, `0.01770 J`."""
    return _with_unit(kwh, ENERGY)


def co2e(grams: float) -> str:
    """A mass of CO2e: `12.34 kg`, `7.422 g`, `0.003 mg`."""
    return _with_unit(grams, CO2E)


def water(liters: float) -> str:
    """A volume: `1.234 L`, `64.94 mL`."""
    return _with_unit(liters, WATER)


def _with_unit(value: float, units: Units) -> str:
    unit = unit_for(value, units)
    return f"{number(value * unit.per_base, unit.decimals)} {unit.name}"


def parts(values: Sequence[tuple[str, float]], whole: float, units: Units) -> str:
    """What a whole is made of, in its unit and to its last digit: `GPU 10.06, CPU <0.01`.

    Args:
        values: (name, amount in the base unit).
        whole: of which these are parts.
        units: of such amounts.
    """
    unit = unit_for(whole, units)
    digits = _decimals(whole * unit.per_base, unit.decimals) if whole else 0
    said = ((name, value * unit.per_base) for name, value in values)
    return ", ".join(f"{name} {_rounded(value, digits)}" for name, value in said)


def _rounded(value: float, digits: int) -> str:
    """To so many decimals, but what is little is not said to be nothing."""
    if not value:
        return "0"
    least = 10.0**-digits
    return f"<{least:.{digits}f}" if 0 < value < least / 2 else f"{value:,.{digits}f}"


def _decimals(value: float, most: int) -> int:
    exponent = int(f"{value:.{_DIGITS - 1}e}".rpartition("e")[2])  # of the rounded value
    return min(most, max(0, _DIGITS - 1 - exponent))


def number(value: float, decimals: int = 12) -> str:
    """Four significant digits, at most so many decimals, never in scientific notation."""
    return f"{value:,.{_decimals(value, decimals)}f}" if value else "0"


def spread(low: float, high: float) -> str:
    """Two ends to two digits of what lies between them: `9.9–15.4`, `2,900–7,200`."""
    place = int(f"{high - low:.1e}".rpartition("e")[2]) - 1
    low, high = round(low, -place), round(high, -place)
    return f"{low:,.{max(0, -place)}f}–{high:,.{max(0, -place)}f}"


def signed(value: float, units: Units) -> str:
    """An amount with its unit and its sign: `+1.234 g`, `-0.003 mg`."""
    return f"{'-' if value < 0 else '+'}{_with_unit(abs(value), units)}"


def percent(share: float) -> str:
    """Whole percents, but never 0 or 100 of what is more or less."""
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def duration(duration_s: float) -> str:
    """A time for people: `7.5 s`, `10 min`, `2 h 3 min 4 s`, `3 d 4 h 5 min`."""
    if duration_s < 2 * _MINUTE_S:
        return f"{duration_s:.3g} s" if duration_s < 10 else f"{duration_s:.1f} s"
    left_s, said = round(duration_s), []
    if left_s >= _DAY_S:
        left_s = round(duration_s / _MINUTE_S) * _MINUTE_S
    for size_s, name in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min"), (1, "s")):
        count, left_s = divmod(left_s, size_s)
        if count:
            said.append(f"{count} {name}")
    return " ".join(said)


def escaped(text: str) -> str:
    r"""A job's id on one line: what cannot be printed as in Python's texts, `\n`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unescaped(text: str) -> str:
    r"""The id of `escaped`; what it does not escape stays, as the `\x2d` of systemd's names."""

    def plain(match: re.Match[str]) -> str:
        char = match[0].encode().decode("unicode_escape")
        return match[0] if char.isprintable() else char

    return _ESCAPE.sub(plain, text)


def simulated_note(scenario: str | None) -> str:
    """What figures say of which no GPU used a joule; empty: they are real."""
    return (
        f"SIMULATED ({printable(scenario)}): these GPUs are in a scenario only" if scenario else ""
    )


def printable(text: str) -> str:
    """Nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
