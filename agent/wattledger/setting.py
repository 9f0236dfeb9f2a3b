"""What a setting is: its default, its meaning, and the types whose texts are checked."""

from __future__ import annotations

from dataclasses import field
from typing import Any, NewType

from wattledger.units import NS_PER_S

DurationNs = NewType("DurationNs", int)
Enabled = NewType("Enabled", str)  # "auto", "true" or "false"; written as "auto", true, false
Listen = NewType("Listen", str)
FilePath = NewType("FilePath", str)
Url = NewType("Url", str)
SourceUrl = NewType("SourceUrl", str)  # may have a query, for those sources that ask it as it is
Pue = NewType("Pue", float)
LitersPerKwh = NewType("LitersPerKwh", float)
Latitude = NewType("Latitude", float)
Longitude = NewType("Longitude", float)
Cycles = NewType("Cycles", float)
StressFactor = NewType("StressFactor", float)
Watts = NewType("Watts", float)
Zone = NewType("Zone", str)
Count = NewType("Count", int)
Price = NewType("Price", float)
GramsPerKwh = NewType("GramsPerKwh", float)
Share = NewType("Share", float)
Kilograms = NewType("Kilograms", float)
InstantNs = NewType("InstantNs", int)  # wall clock
KgByModel = NewType("KgByModel", tuple[tuple[str, float], ...])  # pattern of models → kg


def s_ns(seconds: float) -> DurationNs:
    """Seconds as a duration."""
    return DurationNs(round(seconds * NS_PER_S))


def setting(default: Any, doc: str, example: str = "") -> Any:
    """A setting: its default, one paragraph about it, and an example where the default is empty."""
    metadata = {"doc": doc, "example": example}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)
