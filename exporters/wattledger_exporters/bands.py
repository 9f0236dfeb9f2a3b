"""How sure totals are: their bands as plain data for programs and in words for people. Pure.

The bands themselves: `wattledger.model.uncertainty`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, fsum, log
from typing import Any

from wattledger import units
from wattledger.model import Amounts, Quality, Snapshot
from wattledger.model.pricing import Grade
from wattledger.model.settling import NOT_SETTLED, Settled
from wattledger.model.uncertainty import (
    TERM_NAMES,
    TERMS,
    Band,
    Bands,
    Parts,
    Sureness,
    bands_of,
    embodied_band,
    settled,
)
from wattledger.units import PPM
from wattledger_exporters.wording import Units, spread, unit_for

NOTE = "judged from published ranges, no confidence interval"
_QUANTITIES = ("energy_kwh", "co2e_g", "water_l", "embodied_co2e_g")
_LEAST_TIMES = 2.0  # from here on a factor says more than percents


def uncertainty(
    total: Amounts,
    parts: Parts,
    known_since: Settled = NOT_SETTLED,
    embodied_ug: int | None = None,
) -> dict[str, Any] | None:
    """The bands of a total, in its units, with the terms that they are made of.

    Args:
        total: the amounts.
        parts: the same amounts by what tells how sure they are.
        known_since: how much of it is settled, and what that changes.
        embodied_ug: its share of the CO2e of making the hardware; None: not known.

    Returns:
        None where nothing was booked or the parts are not all of the total; None for a quantity
        of which there is nothing or nothing is known.
    """
    known_uj = sum(amounts.energy_uj for amounts in parts.values())
    if not total.energy_uj or known_uj != total.energy_uj:
        return None
    bands = bands_of(parts)
    final: Band | None = None
    if known_since.energy_uj or known_since.restated_uj:
        final = bands_of(settled(parts, known_since.energy_uj)).co2e
    liters = units.liters(total.water_onsite_ul + total.water_grid_ul)
    return {
        "energy_kwh": _band(bands.energy, units.kwh(total.energy_uj)),
        "co2e_g": _band(bands.co2e, units.grams(total.co2e_ug)),
        "co2e_settled_g": _band(final, units.grams(total.co2e_ug + known_since.co2e_ug)),
        "water_l": _band(bands.water, liters),
        "embodied_co2e_g": None
        if embodied_ug is None
        else _band(embodied_band(embodied_ug), units.grams(embodied_ug)),
        "note": NOTE,
    }


def _band(band: Band | None, amount: float) -> dict[str, Any] | None:
    if band is None:
        return None
    return {
        "low": amount * band.low,
        "high": amount * band.high,
        "terms": [
            {
                "name": shared.term.name,
                "of": shared.term.of,
                "share": shared.share,
                "low": shared.term.low,
                "high": shared.term.high,
                "why": shared.term.why,
            }
            for shared in band.terms
        ],
    }


def bands_now(snapshot: Snapshot) -> Bands:
    """How sure is what is being booked now, by the devices whose power is known.

    Only the amounts' proportions matter, so that they are left in units of no name.
    """
    grid, site = snapshot.grid, snapshot.site
    grade = Grade(grid.level, grid.estimated, site.pue_source, site.wue_source, site.ewif_source)
    power_uw: dict[Quality, int] = {}
    for device, uw in snapshot.power_uw.items():
        if (quality := snapshot.quality.get(device)) is not None:
            power_uw[quality] = power_uw.get(quality, 0) + uw
    return bands_of(
        {
            Sureness(quality, grade): Amounts(
                uw * PPM,
                uw * site.pue_ppm * grid.signal.intensity_ug_per_kwh,
                uw * PPM * site.wue_ul_per_kwh,
                uw * site.pue_ppm * site.ewif_ul_per_kwh,
            )
            for quality, uw in power_uw.items()
        }
    )


# ── for people ──────────────────────────────────────────────────────────────────────────────────


def beside(
    said: str, told: Mapping[str, Any] | None, quantity: str, amount: float, sizes: Units
) -> str:
    """An amount with its band behind it: `12.34 g (9.9–15.4)`.

    Args:
        said: the amount in words.
        told: of `uncertainty`.
        quantity: one of its keys.
        amount: in the base unit.
        sizes: the units that `said` was made with.
    """
    band = told.get(quantity) if told else None
    if band is None or not amount:
        return said
    scale = unit_for(amount, sizes).per_base
    return f"{said} ({spread(band['low'] * scale, band['high'] * scale)})"


def terms_in_words(told: Mapping[str, Any]) -> str:
    """The terms, each once: `energy ±5%, PUE -30/+22%, intensity ±40%, WUE ÷3…×3`.

    Where the parts of a total are not equally sure, their mean: of the energy for `energy`, of
    the CO2e for PUE and intensity, of the water for the others.
    """
    terms: dict[str, list[Mapping[str, Any]]] = {}
    for quantity in _QUANTITIES:
        found: dict[str, list[Mapping[str, Any]]] = {}
        for term in (told.get(quantity) or {"terms": []})["terms"]:
            found.setdefault(term["name"], []).append(term)
        terms = found | terms  # what an earlier quantity says holds
    order = [name for name in TERM_NAMES if name in terms]
    return ", ".join(f"{name} {_mean_factors(terms[name])}" for name in order)


def in_words(told: Mapping[str, Any]) -> str:
    """The bands and their terms in a sentence, in the units of `uncertainty`."""
    names = {
        "energy_kwh": ("energy", "kWh"),
        "co2e_g": ("CO2e", "g"),
        "co2e_settled_g": ("CO2e settled", "g"),
        "water_l": ("water", "L"),
        "embodied_co2e_g": ("embodied CO2e", "g"),
    }
    ends = (
        f"{name} {spread(band['low'], band['high'])} {unit}"
        for quantity, (name, unit) in names.items()
        if (band := told.get(quantity))
    )
    return f"{', '.join(ends)} ({terms_in_words(told)}): {told['note']}"


def reference_markdown() -> str:
    """All terms as a table for the documents."""
    rows = (
        f"| {term.name} | {term.of} | {factors(term.low, term.high)} | {term.why} |"
        for term in TERMS
    )
    return "\n".join(("| of | which is | band | why |", "| --- | --- | --- | --- |", *rows))


def _mean_factors(terms: Sequence[Mapping[str, Any]]) -> str:
    whole = fsum(term["share"] for term in terms)
    low, high = (
        exp(fsum(term["share"] * log(term[end]) for term in terms) / whole)
        for end in ("low", "high")
    )
    return factors(low, high)


def factors(low: float, high: float) -> str:
    """A band as factors: `±5%`, `-30/+22%`, `÷3…×3`."""
    if high >= _LEAST_TIMES:
        return f"÷{1 / low:.2g}…×{high:.2g}"
    less, more = f"{100 * (1 - low):.0f}", f"{100 * (high - 1):.0f}"
    return f"±{more}%" if less == more else f"-{less}/+{more}%"


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference_markdown() + "\n")
