"""How sure totals are: as data that can be recomputed, and in words."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log, sqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snapshots
from wattledger.model import Amounts, FallbackLevel, Quality, TotalsRow
from wattledger.model.pricing import Grade
from wattledger.model.settling import Settled
from wattledger.model.sums import FG_PER_UG, Sums
from wattledger.model.uncertainty import Parts, Sureness, bands_of, settled
from wattledger.units import PPM, UG_PER_G, UJ_PER_KWH, UL_PER_L
from wattledger_exporters import report
from wattledger_exporters.bands import (
    NOTE,
    bands_now,
    beside,
    in_words,
    reference_markdown,
    terms_in_words,
    uncertainty,
)
from wattledger_exporters.http.api import TotalsQuery, totals
from wattledger_exporters.wording import CO2E, co2e, spread

LIVE = Grade(FallbackLevel.LIVE, False, "config", "config", "table")
TABLE = Grade(FallbackLevel.TABLE, True, "default", "default", "default")
ONE = Amounts(UJ_PER_KWH, 400 * UG_PER_G, UL_PER_L, 3 * UL_PER_L)
METERED = {Sureness(Quality.METERED, LIVE): ONE}


def told_of(parts: Parts) -> dict[str, Any]:
    whole = Amounts()
    for amounts in parts.values():
        whole = whole.plus(amounts)
    told = uncertainty(whole, parts)
    assert told is not None
    return told


GRADES = st.builds(
    Grade,
    st.sampled_from([FallbackLevel.LIVE, FallbackLevel.LAST_GOOD, FallbackLevel.TABLE]),
    st.booleans(),
    st.sampled_from(["config", "live", "default", ""]),
    st.sampled_from(["config", "weather", "default", ""]),
    st.sampled_from(["config", "mix", "table", "default", ""]),
)
NUMBERS = st.integers(1, 10**15)
PARTS = st.dictionaries(
    st.builds(Sureness, st.sampled_from(Quality), GRADES),
    st.builds(Amounts, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    min_size=1,
    max_size=8,
)


@given(PARTS)
def test_anybody_can_work_out_the_bands_from_their_terms(parts: Parts) -> None:
    """By the formula of the OpenAPI document, with what is in the answer only."""
    told = told_of(parts)
    whole = Amounts()
    for amounts in parts.values():
        whole = whole.plus(amounts)
    said = {
        "energy_kwh": whole.energy_uj / UJ_PER_KWH,
        "co2e_g": whole.co2e_ug / UG_PER_G,
        "water_l": (whole.water_onsite_ul + whole.water_grid_ul) / UL_PER_L,
    }
    for quantity, amount in said.items():
        band = told[quantity]
        for end, sign in (("low", -1), ("high", 1)):
            by_name: dict[str, float] = {}
            for term in band["terms"]:
                grown = by_name.get(term["name"], 0.0) + term["share"] * log(term[end])
                by_name[term["name"]] = grown
            factor = exp(sign * sqrt(sum(ln**2 for ln in by_name.values())))
            assert band[end] == pytest.approx(amount * factor)
        assert band["low"] <= amount <= band["high"]
    assert all(name in terms_in_words(told) for name in ("energy", "PUE", "WUE", "EWIF"))


def test_what_is_not_known_of_all_of_a_total_is_told_of_none_of_it() -> None:
    assert uncertainty(Amounts(), {}) is None
    assert uncertainty(ONE, {}) is None
    assert uncertainty(ONE.plus(ONE), METERED) is None
    known, unknown = TotalsRow("a", ONE, 0, sure=METERED), TotalsRow("b", ONE, 0)
    query = TotalsQuery(0, 1, "device")
    assert totals(query, [known], None)["uncertainty"]["energy_kwh"]["high"] == 1.05
    assert totals(query, [known, unknown], None)["uncertainty"] is None
    assert report.total_of([known, known]).sure == {Sureness(Quality.METERED, LIVE): ONE.plus(ONE)}


def test_what_was_settled_is_as_sure_as_what_was_published() -> None:
    parts = {Sureness(Quality.METERED, TABLE._replace(pue_source="config")): ONE}
    half = uncertainty(ONE, parts, Settled(UJ_PER_KWH // 2, -100 * UG_PER_G))
    whole = uncertainty(ONE, parts, Settled(UJ_PER_KWH, -100 * UG_PER_G))
    assert half and whole
    assert told_of(parts)["co2e_settled_g"] is None
    shares = {term["of"]: term["share"] for term in half["co2e_settled_g"]["terms"]}
    assert shares == {"metered": 1.0, "config": 1.0, "measured": 0.5, "table": 0.5}
    sure = 300 * exp(sqrt(log(1.05) ** 2 + log(1.05) ** 2 + log(1.10) ** 2))
    assert whole["co2e_settled_g"]["high"] == pytest.approx(sure)
    assert whole["co2e_g"] == half["co2e_g"]


def test_what_a_restatement_alone_changed_has_a_band_too() -> None:
    told = uncertainty(ONE, METERED, Settled(0, 40 * UG_PER_G, restated_uj=UJ_PER_KWH))
    assert told
    assert told["co2e_settled_g"]["high"] == pytest.approx(told["co2e_g"]["high"] * 1.1)
    assert told["co2e_settled_g"]["low"] == pytest.approx(told["co2e_g"]["low"] * 1.1)


def test_totals_by_job_tell_how_sure_the_making_of_the_hardware_is() -> None:
    row = TotalsRow("a", ONE, 0, sure=METERED, sums=Sums(embodied_fg=8 * UG_PER_G * FG_PER_UG))
    told = totals(TotalsQuery(0, 1, "job"), [row], None)
    assert told["total"]["embodied_co2e_g"] == 8.0
    assert told["uncertainty"]["embodied_co2e_g"]["high"] == pytest.approx(12.8)


@given(PARTS, st.integers(0, 2**70))
def test_what_is_settled_is_the_same_amount_and_never_less_sure(
    parts: Parts, settled_uj: int
) -> None:
    better = settled(parts, settled_uj)
    summed = [Amounts(), Amounts()]
    for at, whole in enumerate((parts, better)):
        for amounts in whole.values():
            summed[at] = summed[at].plus(amounts)
    assert summed[0] == summed[1]
    before, after = bands_of(parts).co2e, bands_of(better).co2e
    assert before and after
    assert after.high <= before.high * 1.000001 and after.low >= before.low * 0.999999


def test_what_is_booked_now_is_as_sure_as_its_meters_and_its_price() -> None:
    snapshot = snapshots.snapshot()
    device = next(iter(snapshot.power_uw))
    site = replace(snapshot.site, pue_source="config", ewif_source="config")
    grid = replace(snapshot.grid, level=FallbackLevel.LIVE, estimated=False)
    one = replace(
        snapshot,
        power_uw={device: 5, "unknown": 10**9},
        quality={device: Quality.METERED},
        site=site,
        grid=grid,
    )
    bands = bands_now(one)
    assert bands.energy and bands.co2e and bands.water
    assert (bands.energy.low, bands.energy.high) == pytest.approx((0.95, 1.05))
    assert bands.co2e.names == ("energy", "PUE", "intensity")
    onsite = site.wue_ul_per_kwh * PPM
    of_grid = site.pue_ppm * site.ewif_ul_per_kwh
    shares = {term.term.name: term.share for term in bands.water.terms}
    assert shares["EWIF"] == pytest.approx(of_grid / (onsite + of_grid))
    off = replace(one, power_uw={device: 0})
    assert bands_now(off) == bands_now(replace(one, quality={})) == (None, None, None)


def test_the_making_of_the_hardware_has_a_band_of_its_own() -> None:
    known = uncertainty(ONE, METERED, embodied_ug=8 * UG_PER_G)
    assert known
    assert (known["embodied_co2e_g"]["low"], known["embodied_co2e_g"]["high"]) == (5.0, 12.8)
    assert known["co2e_g"] == told_of(METERED)["co2e_g"]
    assert terms_in_words(known).endswith("EWIF ÷3…×3, embodied -38/+60%")
    assert told_of(METERED)["embodied_co2e_g"] is None


def test_no_carbon_has_no_band() -> None:
    told = told_of({Sureness(Quality.METERED, LIVE): Amounts(UJ_PER_KWH, 0, 0, 0)})
    assert told["co2e_g"] is told["water_l"] is None
    assert beside("0 g", told, "co2e_g", 0.0, CO2E) == "0 g"
    assert terms_in_words(told) == "energy ±5%"
    assert in_words(told) == f"energy 0.95–1.05 kWh (energy ±5%): {NOTE}"


def test_in_words() -> None:
    told = told_of(METERED)
    assert terms_in_words(told) == "energy ±5%, PUE ±5%, intensity ±10%, WUE ±25%, EWIF ÷3…×3"
    assert beside(co2e(400.0), told, "co2e_g", 400.0, CO2E) == "400.0 g (352–450)"
    assert beside(co2e(400.0), None, "co2e_g", 400.0, CO2E) == "400.0 g"
    both = told_of({**METERED, Sureness(Quality.ESTIMATED, TABLE): ONE})
    assert terms_in_words(both).startswith("energy -31/+25%, PUE -19/+13%, intensity -27/+24%")


def test_the_documents_name_every_term() -> None:
    """`python -m wattledger_exporters.bands` prints the table anew."""
    assert reference_markdown() in (Path(__file__).parents[2] / "exporters/READING.md").read_text()


@pytest.mark.parametrize(("low", "high", "said"), [
    (9.91, 15.38, "9.9–15.4"),
    (2_903, 7_152, "2,900–7,200"),
    (0.0031, 0.0077, "0.0031–0.0077"),
    (0.9975, 1.1025, "1.00–1.10"),
    (996, 1_004, "996.0–1,004.0"),
    (1e9, 9e9, "1,000,000,000–9,000,000,000"),
    (3.0, 3.0, "3.0–3.0"),
])  # fmt: skip
def test_two_ends_are_told_to_two_digits_of_what_lies_between(
    low: float, high: float, said: str
) -> None:
    assert spread(low, high) == said
