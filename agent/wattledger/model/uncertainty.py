"""How sure a total is: bands judged from published ranges. They are no confidence intervals.

Each total is a product (energy × PUE × intensity, …), so that its band is one of factors: the
amount may be as little as `low` times what is said and as much as `high` times. For each side

    band = exp(√ Σ_term (Σ_part share · ln factor)²)        low: of the lower factors, negated

with `share` the part's share of the amount. Within a term all parts are taken to err together (one
sensor's gain, one factor of a grid), terms independently of each other: the quadrature of
relative errors that the Guide to the Expression of Uncertainty in Measurement (JCGM 100:2008,
5.1.6) gives for products, in logarithms since some factors reach far beyond 10 %.

What no term covers: parts of the node that no meter sees (fans, power supplies) and errors of
attribution; the books say those in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import exp, fsum, hypot, log
from types import MappingProxyType
from typing import NamedTuple

from wattledger.model.amounts import Amounts
from wattledger.model.measuring import Quality
from wattledger.model.pricing import FallbackLevel, Grade


class Term(NamedTuple):
    """One thing that a total may be wrong by.

    Attributes:
        name: the factor of the total that it is about; parts of one name err together.
        of: where that factor is from.
        low: the least that the true value may be of what is said; above 0, at most 1.
        high: the most; at least 1.
        why: the publication and the reasoning.
    """

    name: str
    of: str
    low: float
    high: float
    why: str


class Shared(NamedTuple):
    """A term and the share of the amount that it applies to."""

    term: Term
    share: float


class Band(NamedTuple):
    """How sure an amount is.

    Attributes:
        low: the least that it may be, as a factor; above 0, at most 1.
        high: the most; at least 1.
        terms: what it is made of.
    """

    low: float
    high: float
    terms: tuple[Shared, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Those of its terms, each once."""
        return tuple(dict.fromkeys(shared.term.name for shared in self.terms))

    def of(self, name: str) -> tuple[float, float]:
        """What the terms of one name come to together: the least and the most, as factors."""
        mine = [shared for shared in self.terms if shared.term.name == name]
        return (
            exp(fsum(shared.share * log(shared.term.low) for shared in mine)),
            exp(fsum(shared.share * log(shared.term.high) for shared in mine)),
        )


class Bands(NamedTuple):
    """Those of a total's quantities; None: there is nothing of it."""

    energy: Band | None
    co2e: Band | None
    water: Band | None


class Sureness(NamedTuple):
    """What tells how sure an amount is: how it was measured, and what priced it."""

    quality: Quality
    grade: Grade


Parts = Mapping[Sureness, Amounts]
NO_PARTS: Parts = MappingProxyType({})

ENERGY, PUE, INTENSITY, WUE, EWIF = "energy", "PUE", "intensity", "WUE", "EWIF"
EMBODIED = "embodied"
TERM_NAMES = (ENERGY, PUE, INTENSITY, WUE, EWIF, EMBODIED)

_METERED = Term(
    ENERGY,
    "metered",
    0.95,
    1.05,
    "hardware counters: GPU sensors err by about 5 % per card (Yang et al., SC24, "
    "arXiv 2312.02741; NVML's reference), RAPL follows the plug closely (Khan et al. 2018)",
)
_INTEGRATED = Term(
    ENERGY,
    "integrated",
    0.80,
    1.20,
    "power readings over time: the sensors of A100 and H100 see 25 % of it (Yang et al., SC24, "
    "arXiv 2312.02741); a square wave read this way came out 17 % low in this project's benchmark",
)
_ESTIMATED = Term(
    ENERGY,
    "estimated",
    0.50,
    1.50,
    "a model or a constant, no meter: on GPU nodes such models err by 27 to 37 % on average "
    "(arXiv 2506.14551), single machines by more",
)
_PUE_CONFIG = Term(
    PUE, "config", 0.95, 1.05, "a site's yearly mean (ISO/IEC 30134-2), of which hours differ"
)
_PUE_LIVE = Term(
    PUE,
    "live",
    0.97,
    1.03,
    "the quotient of two meters of class 2 (IEC 62053-21): 2 % each, in quadrature",
)
_PUE_DEFAULT = Term(
    PUE,
    "default",
    1.09 / 1.56,
    1.91 / 1.56,
    "the survey's mean 1.56 (Uptime Institute 2024) stands for sites from 1.09 (the best large "
    "ones) to 1.91 (mean of Energy Star's survey, EPA 2009, for what is old)",
)
_MEASURED = Term(
    INTENSITY,
    "measured",
    0.90,
    1.10,
    "a source's own figure for that time: the method and the fuels' factors are its choice, and "
    "those of IPCC (AR5 WG3 Annex III) and UNECE (2022) differ by more for single fuels",
)
_FORECAST = Term(
    INTENSITY,
    "estimated",
    0.75,
    1.25,
    "an estimate, a forecast, or used beyond its time: Great Britain's forecasts err by 7 % on "
    "average with a standard deviation of 29 % (nickmp.com, 2017 to 2023)",
)
_TABLE = Term(
    INTENSITY,
    "table",
    0.60,
    1.40,
    "a country's yearly mean for every hour and place in it (Ember via Our World in Data, which "
    "revises it: Germany's of 2022 rose by 9 %)",
)
_WUE_CONFIG = Term(
    WUE, "config", 0.75, 1.25, "a site's yearly mean (ISO/IEC 30134-9); evaporation has seasons"
)
_WUE_OTHER = Term(
    WUE,
    "other",
    1 / 3,
    3.0,
    "fleets publish 0.12 to 1.15 L/kWh (AWS, Google), the mean of the United States is 0.36 "
    "(LBNL 2024), a summer in Arizona 9 (Li et al., arXiv 2304.03271)",
)
_EWIF_CONFIG = Term(
    EWIF,
    "config",
    1 / 2,
    2.0,
    "a factor that the site chose: for the United States 3.14 (WRI 2020) and 4.35 L/kWh (LBNL "
    "2024) are published, and how reservoirs are counted alone moves such factors further",
)
_EWIF_OTHER = Term(
    EWIF,
    "other",
    1 / 3,
    3.0,
    "by country 1.1 to 18.6 L/kWh (WRI 2020); medians of power plants span as much (Macknick et "
    "al. 2012), and hydropower's share of evaporation is allocated in different ways",
)
_EMBODIED = Term(
    EMBODIED,
    "hardware",
    1 / 1.6,
    1.6,
    "for one A100 128 kg (Falk et al. 2025, arXiv 2509.00093), 181 (Hubblo for ADEME) and 318 "
    "(Chien et al. 2023) are published: a factor of 2.5 from end to end",
)

TERMS = (
    *(_METERED, _INTEGRATED, _ESTIMATED),
    *(_PUE_LIVE, _PUE_CONFIG, _PUE_DEFAULT),
    *(_MEASURED, _FORECAST, _TABLE),
    *(_WUE_CONFIG, _WUE_OTHER, _EWIF_CONFIG, _EWIF_OTHER),
    _EMBODIED,
)
"""All of them, in the order of the documents."""

_BY_QUALITY = {
    Quality.METERED: _METERED,
    Quality.RECOVERED: _METERED,  # the same counter, read later
    Quality.INTEGRATED: _INTEGRATED,
    Quality.ESTIMATED: _ESTIMATED,
}
_BY_PUE = {"config": _PUE_CONFIG, "live": _PUE_LIVE, "restated": _PUE_CONFIG}


def combine(parts: Iterable[tuple[int, Sequence[Term]]]) -> Band | None:
    """The band of an amount that is made of parts; None: the amount is 0.

    Args:
        parts: (amount, at least 0, the terms that apply to it).
    """
    whole, weights = 0, dict[Term, int]()
    for weight, terms in parts:
        whole += weight
        for term in terms:
            weights[term] = weights.get(term, 0) + weight
    if not whole:
        return None
    shared = (Shared(term, weight / whole) for term, weight in weights.items() if weight)
    band = Band(1.0, 1.0, tuple(sorted(shared, key=_place)))
    factors = [band.of(name) for name in band.names]
    return band._replace(
        low=exp(-hypot(*(log(low) for low, _ in factors))),
        high=exp(hypot(*(log(high) for _, high in factors))),
    )


def embodied_band(co2e_ug: int) -> Band | None:
    """That of the CO2e of making the hardware; None: there is nothing of it."""
    return combine([(co2e_ug, (_EMBODIED,))])


def bands_of(parts: Parts) -> Bands:
    """Those of a total that is made of such parts."""
    energy: list[tuple[int, Sequence[Term]]] = []
    co2e: list[tuple[int, Sequence[Term]]] = []
    water: list[tuple[int, Sequence[Term]]] = []
    for (quality, grade), amounts in parts.items():
        measured, pue = _BY_QUALITY[quality], _BY_PUE.get(grade.pue_source, _PUE_DEFAULT)
        wue = _WUE_CONFIG if grade.wue_source in ("config", "restated") else _WUE_OTHER
        ewif = _EWIF_CONFIG if grade.ewif_source in ("config", "restated") else _EWIF_OTHER
        energy.append((amounts.energy_uj, (measured,)))
        co2e.append((amounts.co2e_ug, (measured, pue, _intensity(grade))))
        water.append((amounts.water_onsite_ul, (measured, wue)))
        water.append((amounts.water_grid_ul, (measured, pue, ewif)))
    # Onsite water knows no PUE, the grid's no WUE: each term has the share that it applies to.
    return Bands(combine(energy), combine(co2e), combine(water))


def split(grade: Grade, amounts: Amounts, estimated_uj: int, integrated_uj: int) -> Parts:
    """Amounts of one grade as parts, by how the energy was measured; the rest was by counters.

    CO2e and water go with the energy: exact where one price priced it all, else nearly.
    """
    whole_uj = amounts.energy_uj
    metered_uj = whole_uj - estimated_uj - integrated_uj
    qualities = (
        (Quality.METERED, metered_uj),
        (Quality.INTEGRATED, integrated_uj),
        (Quality.ESTIMATED, estimated_uj),
    )
    return {
        Sureness(quality, grade): amounts
        if uj == whole_uj
        else Amounts(*(amount * uj // whole_uj for amount in amounts))
        for quality, uj in qualities
        if uj
    }


def together(*wholes: Parts) -> Parts:
    """The parts of a sum."""
    parts: dict[Sureness, Amounts] = {}
    for whole in wholes:
        for key, amounts in whole.items():
            known = parts.get(key)
            parts[key] = amounts if known is None else known.plus(amounts)
    return parts


def settled(parts: Parts, settled_uj: int) -> Parts:
    """The parts by how sure they are where that much energy is priced by what was published since.

    Which parts it was is not told: it is taken to be spread evenly over them. What was published
    counts as measured; a factor that was restated is as sure as the one that was booked.
    """
    whole_uj = sum(amounts.energy_uj for amounts in parts.values())
    if not 0 < settled_uj <= whole_uj:
        return parts
    rest: dict[Sureness, Amounts] = {}
    better: list[Parts] = []
    for (quality, grade), amounts in parts.items():
        part = Amounts(*(amount * settled_uj // whole_uj for amount in amounts))
        measured = grade._replace(level=FallbackLevel.LIVE, estimated=False)
        better.append({Sureness(quality, measured): part})
        rest[Sureness(quality, grade)] = Amounts(*map(int.__sub__, amounts, part))
    return together(rest, *better)


def _intensity(grade: Grade) -> Term:
    if grade.level >= FallbackLevel.TABLE:
        return _TABLE
    return _FORECAST if grade.estimated else _MEASURED


def _place(shared: Shared) -> tuple[int, Term]:
    known = TERMS.index(shared.term) if shared.term in TERMS else len(TERMS)
    return known, shared.term
