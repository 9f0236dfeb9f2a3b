"""What `--what-if` says: another grid, another mix, another time."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import NamedTuple

from wattledger.core.what_if import joined, mixed
from wattledger.errors import ConfigError
from wattledger.grid.checks import MAX_G_PER_KWH
from wattledger.grid.mix import factors, water_factors
from wattledger.model import Basis
from wattledger.units import NS_PER_S, UG_PER_G, UL_PER_L, parse_duration_ns

OPTION = "--what-if"
STATED = "stated"  # the basis of an intensity that the user says
HOUR_NS = 3_600 * NS_PER_S
MOST_SHIFT_HOURS = 24 * 30
MOST_L_PER_KWH = 1000  # hydro's median, the highest of the fuel table, is 17
_FUEL = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_HOW = 'write zone=FR, zone=FR,source=rte, mix="nuclear=0.7,wind=0.3" or shift=-6h'


class Zone(NamedTuple):
    """Another grid: by the country table, or by a source's history.

    Attributes:
        zone: as the table or the source names it.
        source: a kind; empty: the country table.
    """

    zone: str
    source: str


class Part(NamedTuple):
    """A fuel of a mix.

    Attributes:
        fuel: its name.
        share: of the electricity, above 0.
        g_per_kwh: of CO2 equivalents.
        l_per_kwh: of water consumed; None: neither stated nor in the fuel table.
        wet_by: whose word that is: `stated`, `table`, or empty.
    """

    fuel: str
    share: Fraction
    g_per_kwh: Fraction
    l_per_kwh: Fraction | None
    wet_by: str


class Mix(NamedTuple):
    """Electricity made of something else.

    Attributes:
        intensity_ug_per_kwh: exact.
        basis: what it counts; `stated` where the user says the value.
        parts: what it is made of.
    """

    intensity_ug_per_kwh: Fraction
    basis: str
    parts: tuple[Part, ...]

    @property
    def ewif_ul_per_kwh(self) -> Fraction | None:
        """The water that it consumed, exact: Σ share × EWIF; None: not known of all of it."""
        if self.dry:
            return None
        known = ((part.share, part.l_per_kwh or Fraction(0)) for part in self.parts)
        return mixed(known) * UL_PER_L

    @property
    def dry(self) -> tuple[str, ...]:
        """The fuels of whose water nothing is known."""
        return tuple(part.fuel for part in self.parts if part.l_per_kwh is None)


class Shift(NamedTuple):
    """The same energy earlier (below 0) or later, at the prices of the books of that time."""

    hours: int


def parse(text: str) -> Zone | Mix | Shift:
    """A scenario.

    Raises:
        ConfigError: it is none; a sentence that shows how to write one.
    """
    kind, _, rest = text.strip().partition("=")
    try:
        if kind == "zone":
            return _zone(rest)
        if kind == "mix":
            return _mix(rest)
        if kind == "shift":
            return _shift(rest)
        raise ValueError(f"{text[:60]!r} is no other grid, mix or time; {_HOW}")
    except ValueError as error:
        raise ConfigError([(OPTION, str(error))]) from error


def _zone(text: str) -> Zone:
    zone, comma, rest = text.partition(",")
    key, _, source = rest.partition("=")
    if not zone.strip() or (comma and (key.strip() != "source" or not source.strip())):
        raise ValueError(f"{text[:60]!r} is no zone; write zone=FR, or zone=FR,source=rte")
    return Zone(zone.strip(), source.strip())


def _shift(text: str) -> Shift:
    sign = -1 if text.startswith("-") else 1
    try:
        shift_ns = parse_duration_ns(text[1:] if text[:1] in ("-", "+") else text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no time; write shift=-6h or shift=1d") from None
    if shift_ns % HOUR_NS or not 0 <= shift_ns <= MOST_SHIFT_HOURS * HOUR_NS:
        most = MOST_SHIFT_HOURS // 24
        raise ValueError(f"{text[:40]!r} is not of whole hours, up to {most}d: prices are by hour")
    return Shift(sign * shift_ns // HOUR_NS)


def _mix(text: str) -> Mix:
    parts: list[Part] = []
    bases: list[str] = []
    for item in text.split(","):
        fuel, equals, rest = item.strip().partition("=")
        share, at, rest = rest.partition("@")
        stated, wet_at, wet = rest.partition("@")
        if not equals or not _FUEL.fullmatch(fuel):
            raise ValueError(
                f"{item.strip()[:40]!r} is no part of a mix; write fuel=share, such as wind=0.3, "
                "fuel=share@g_per_kwh or fuel=share@g_per_kwh@l_per_kwh"
            )
        if fuel in (part.fuel for part in parts):
            raise ValueError(f"{fuel} is named twice")
        known = factors().get(fuel)
        if at:
            value, basis = _number(stated, f"the g/kWh of {fuel}"), STATED
        elif known is not None:
            # The shortest decimal form of the table's figure is the figure of the file.
            value, basis = Fraction(str(known)), str(Basis.LIFECYCLE)
        else:
            raise ValueError(
                f"{fuel} is not in the fuel table ({', '.join(factors())}): state its g/kWh, as in "
                f"{fuel}={share or 1}@12"
            )
        if value > MAX_G_PER_KWH:
            raise ValueError(f"{float(value):g} g/kWh of {fuel} is above {MAX_G_PER_KWH}")
        liters, wet_by = _water_of(fuel, wet if wet_at else None)
        parts.append(Part(fuel, _number(share, f"the share of {fuel}"), value, liters, wet_by))
        bases.append(basis)
    intensity = mixed((part.share, part.g_per_kwh * UG_PER_G) for part in parts)
    return Mix(intensity, joined(bases), tuple(parts))


def _water_of(fuel: str, stated: str | None) -> tuple[Fraction | None, str]:
    """L/kWh, and whose word that is."""
    if stated is not None:
        liters = _number(stated, f"the L/kWh of {fuel}")
        if liters > MOST_L_PER_KWH:
            raise ValueError(f"{float(liters):g} L/kWh of {fuel} is above {MOST_L_PER_KWH}")
        return liters, STATED
    known = water_factors().get(fuel)
    return (None, "") if known is None else (Fraction(str(known)), "table")


def _number(text: str, what: str) -> Fraction:
    """A number from 0 in short decimal form."""
    try:
        value = Decimal(text) if len(text) <= 24 else Decimal("NaN")
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or value < 0 or abs(value.adjusted()) > 24:
        raise ValueError(f"{what}, {text[:24]!r}, is not a number from 0")
    return Fraction(value)
