"""Numbers of other people: a carbon intensity in whatever unit it is published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from wattledger.grid.outcome import Outcome, failure

# What one of a unit is in g/kWh. 1 lb is 0.45359237 kg by definition; 1 t/MWh is 1 kg/kWh.
UNITS: Mapping[str, Decimal] = MappingProxyType(
    {
        "g/kWh": Decimal(1),
        "kg/kWh": Decimal(1000),
        "kg/MWh": Decimal(1),
        "t/MWh": Decimal(1000),
        "lb/MWh": Decimal("0.45359237"),
    }
)
_MOST = 1e9


def in_g_per_kwh(value: Any, unit: str = "g/kWh", *, texts: bool = False) -> float:
    """A published number in g/kWh; whether it is plausible is for the check that follows.

    Args:
        value: what a parser found.
        unit: a key of `UNITS`.
        texts: numbers may be written as texts.

    Raises:
        GridError: outcome `bad_value`: it is no finite number.
    """
    number = math.nan
    if not isinstance(value, bool) and isinstance(value, int | float | (str if texts else int)):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not abs(number) < _MOST:
        raise failure(Outcome.BAD_VALUE, "an intensity is no plausible number")
    return float(Decimal(str(number)) * UNITS[unit])
