"""How dirty: grid signals, site factors, and the price that they make together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Basis(StrEnum):
    """What a carbon intensity counts; intensities of different bases are never added up.

    Marginal ones say what one kWh more would cause: they serve decisions, never the books.
    """

    LIFECYCLE = "lifecycle"  # fuel, plant construction and upstream
    DIRECT = "direct"  # combustion only
    GENERATION = "generation"  # at the generator with imports and losses; renewables and nuclear 0
    MARGINAL = "marginal"


class FallbackLevel:
    """Where a carbon intensity came from; the value of `grid_fallback_level`."""

    LIVE = 0
    LAST_GOOD = 1
    TABLE = 2


@dataclass(frozen=True, slots=True)
class GridSignal:
    """A carbon intensity and where it came from.

    Attributes:
        intensity_ug_per_kwh: µgCO2e per kWh of facility energy.
        zone: the grid zone the source answered for, as it names it.
        source: `neso`, `electricity_maps`, `table`, …
        basis: what is counted.
        valid_from_ns: wall clock; for the table the start of its year.
        valid_to_ns: wall clock, exclusive.
        estimated: the source itself says that it is not measured (or it is a table).
        fetched_at_ns: wall clock.
        cadence_ns: how often the source publishes a new one.
    """

    intensity_ug_per_kwh: int
    zone: str
    source: str
    basis: Basis
    valid_from_ns: int
    valid_to_ns: int
    estimated: bool
    fetched_at_ns: int
    cadence_ns: int


@dataclass(frozen=True, slots=True)
class GridChoice:
    """The signal to price an instant with, and how it was come by.

    Attributes:
        signal: the signal.
        level: a `FallbackLevel`.
        estimated: the signal is an estimate, or is used beyond the time it was published for.
    """

    signal: GridSignal
    level: int
    estimated: bool


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A grid source's health: request outcomes since the start, and the last error.

    `basis_fallbacks` counts how often the basis of the preferred source gave way to another.
    """

    source: str
    outcomes: Mapping[str, int]
    last_success_ns: int = 0
    last_signal: GridSignal | None = None
    message: str = ""
    hint: str = ""
    basis_fallbacks: int = 0


@dataclass(frozen=True, slots=True)
class SiteFactors:
    """What the site adds to each kWh of IT energy; each with the name of its source.

    `*_source` is `default` until configured, then `config`; EWIF may also be `table`.
    `price_per_kwh` is of facility energy, in `currency`; None: the site names none.
    """

    pue_ppm: int
    pue_source: str
    wue_ul_per_kwh: int
    wue_source: str
    ewif_ul_per_kwh: int
    ewif_source: str
    price_per_kwh: float | None = None
    currency: str = "EUR"


class GridPart(NamedTuple):
    """What priced a part of the energy: whose carbon intensity, and the PUE in millionths."""

    zone: str
    source: str
    basis: Basis
    estimated: bool
    pue_ppm: int


Weights = Mapping[GridPart, int]
"""The sum of energy in µJ times intensity in µgCO2e per kWh, of each part. Over the part's energy
it is the mean intensity, weighted by energy: of a single price exactly that price's."""


class Price(NamedTuple):
    """Everything that turns µJ into µg and µL, and its provenance: one row of table `price`.

    Equal prices are one row; any change opens a new ledger entry and alters no old one.
    """

    intensity_ug_per_kwh: int
    zone: str
    source: str
    basis: Basis
    estimated: bool
    level: int
    signal_from_ns: int
    signal_to_ns: int
    pue_ppm: int
    wue_ul_per_kwh: int
    ewif_ul_per_kwh: int
