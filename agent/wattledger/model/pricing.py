"""How dirty: grid signals, site factors, and the price that they make together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from wattledger.model.market import Market


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
        ewif_ul_per_kwh: µL of water per kWh of facility energy, where the source tells what the
            electricity was made of; None: it does not.
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
    ewif_ul_per_kwh: int | None = None


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

    `*_source` is `default` until configured, then `config`; a PUE may also be `live`, a WUE of the
    `weather`, an EWIF of the `table` or, in what is shown as in force, of the `mix`.
    `price_per_kwh` is of facility energy, in `currency`; None: the site names none.
    `market` is what the site's contracts make of the intensity; None: it has none.
    `water_stress_factor` is m³ world-eq per m³ drawn on site (AWARE), for showing only; None: it is
    not known.
    """

    pue_ppm: int
    pue_source: str
    wue_ul_per_kwh: int
    wue_source: str
    ewif_ul_per_kwh: int
    ewif_source: str
    price_per_kwh: float | None = None
    currency: str = "EUR"
    market: Market | None = None
    water_stress_factor: float | None = None

    def ewif_beside(self, signal: GridSignal) -> tuple[int, str]:
        """The water factor in force beside a signal, in µL per kWh, and who says so.

        What the configuration names holds; else that of the mix, where the signal tells one.
        """
        if signal.ewif_ul_per_kwh is None or self.ewif_source == "config":
            return self.ewif_ul_per_kwh, self.ewif_source
        return signal.ewif_ul_per_kwh, "mix"

    def at(self, wall_ns: int) -> SiteFactors:
        """Themselves, with the contracts of that time: such factors are a `ports.Site` as well."""
        if self.market is None:
            return self
        market = self.market.at(wall_ns)
        return self if market is self.market else replace(self, market=market)

    def market_beside(self, signal: GridSignal) -> int | None:
        """µgCO2e per kWh of facility energy by the contracts; None: there are none."""
        if self.market is None:
            return None
        return self.market.ug_per_kwh(signal.intensity_ug_per_kwh)

    def statuses(self) -> tuple[SourceStatus, ...]:
        """Nobody is asked for factors that never change."""
        return ()

    def note(self) -> str:
        """Nothing has to be kept over a restart."""
        return ""


class Grade(NamedTuple):
    """What of a price tells how sure it is; the fields are those of `Price`."""

    level: int
    estimated: bool
    pue_source: str = ""
    wue_source: str = ""
    ewif_source: str = ""


class GridPart(NamedTuple):
    """What priced a part of the energy: a price without what changes with its time.

    There are few in a job's life, however long it is: what a price's intensities, contracts and
    money come to is summed beside the parts (`Weights`, `model.sums`). The fields are those of
    `Price`.
    """

    zone: str
    source: str
    basis: Basis
    estimated: bool
    pue_ppm: int
    level: int = FallbackLevel.LIVE
    pue_source: str = ""
    wue_source: str = ""
    ewif_source: str = ""

    @property
    def grade(self) -> Grade:
        """What of it tells how sure it is."""
        return Grade(self.level, self.estimated, self.pue_source, self.wue_source, self.ewif_source)


Weights = Mapping[GridPart, int]
"""The sum of energy in µJ times intensity in µgCO2e per kWh, of each part. Over the part's energy
it is the mean intensity, weighted by energy: of a single price exactly that price's."""


class Price(NamedTuple):
    """Everything that turns µJ into µg, µL and money, and its provenance: one row of table `price`.

    Equal prices are one row; any change opens a new ledger entry and alters no old one.

    Attributes:
        intensity_ug_per_kwh: as in `GridSignal`.
        zone: likewise.
        source: likewise.
        basis: likewise.
        estimated: as in `GridChoice`.
        level: a `FallbackLevel`.
        signal_from_ns: from when on the signal is valid, wall clock.
        signal_to_ns: exclusive.
        pue_ppm: as in `SiteFactors`.
        wue_ul_per_kwh: likewise.
        ewif_ul_per_kwh: likewise, or of the signal.
        pue_source: who says so; empty: an older program booked it.
        wue_source: likewise.
        ewif_source: likewise; `mix` is the signal's.
        market_ug_per_kwh: µgCO2e per kWh of facility energy by the site's contracts; None: none.
        cost_u_per_kwh: millionths of `currency` per kWh of facility energy; None: none is known.
        currency: of the cost; empty where there is none.
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
    pue_source: str = ""
    wue_source: str = ""
    ewif_source: str = ""
    market_ug_per_kwh: int | None = None
    cost_u_per_kwh: int | None = None
    currency: str = ""

    @property
    def part(self) -> GridPart:
        """What of it receipts tell apart."""
        return GridPart(
            self.zone,
            self.source,
            self.basis,
            self.estimated,
            self.pue_ppm,
            self.level,
            self.pue_source,
            self.wue_source,
            self.ewif_source,
        )
