"""Carbon and water in integers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from wattledger.core.footprint import footprint, price_of
from wattledger.model import Basis, FallbackLevel, GridChoice, GridSignal, Price, SiteFactors
from wattledger.model.market import Market
from wattledger.units import UJ_PER_KWH, micro


def price(g_per_kwh: float = 473, pue: float = 1.56, wue: float = 0.36, ewif: float = 3.908):  # type: ignore[no-untyped-def]
    return Price(
        micro(g_per_kwh), "WORLD", "table", Basis.LIFECYCLE, True, FallbackLevel.TABLE, 0, 1,
        micro(pue), micro(wue), micro(ewif),
    )  # fmt: skip


def test_a_kilowatt_hour_by_hand() -> None:
    amounts = footprint(UJ_PER_KWH, price())

    assert amounts.energy_uj == 3_600_000_000_000
    assert amounts.co2e_ug == 737_880_000  # 1 kWh × 1.56 × 473 g
    assert amounts.water_onsite_ul == 360_000  # per IT kWh: no PUE in it
    assert amounts.water_grid_ul == 6_096_480  # 1.56 × 3.908 L


def test_gpt3_request_in_the_us() -> None:
    """Li et al. 2023, table 1, US: 2.2 mL on site and 14.705 mL of the grid for 4 Wh."""
    amounts = footprint(UJ_PER_KWH * 4 // 1000, price(pue=1.17, wue=0.55, ewif=3.142))

    assert amounts.water_onsite_ul == 2_200
    assert amounts.water_grid_ul == 14_704  # 14.70456 mL


@given(st.integers(0, 10**18), st.floats(0, 2000), st.floats(1, 3), st.floats(0, 20))
def test_the_floor_of_the_exact_product(energy_uj: int, g: float, pue: float, ewif: float) -> None:
    p = price(g, pue, 0.36, ewif)
    amounts = footprint(energy_uj, p)
    kwh = Fraction(energy_uj, UJ_PER_KWH)
    exact_ug = kwh * Fraction(p.pue_ppm, 10**6) * p.intensity_ug_per_kwh

    assert amounts.co2e_ug == exact_ug.__floor__()
    exact_ul = kwh * Fraction(p.pue_ppm, 10**6) * p.ewif_ul_per_kwh
    assert amounts.water_grid_ul == exact_ul.__floor__()


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=30))
def test_bookings_of_increments_add_up_to_the_whole(parts: list[int]) -> None:
    """What an entry books over many commits is the floor of its whole energy."""
    energy = booked = 0
    for part in parts:
        before = footprint(energy, price())
        energy += part
        booked += footprint(energy, price()).co2e_ug - before.co2e_ug

    assert booked == footprint(energy, price()).co2e_ug


def test_a_price_holds_all_its_factors_and_provenance() -> None:
    signal = GridSignal(micro(120), "GB", "neso", Basis.GENERATION, 5, 9, False, 10, 2)
    site = SiteFactors(micro(1.2), "config", micro(0.1), "config", micro(2.3), "table")
    made = price_of(GridChoice(signal, FallbackLevel.LIVE, estimated=True), site)

    assert made == Price(
        *(120_000_000, "GB", "neso", Basis.GENERATION, True, 0, 5, 9, 1_200_000, 100_000),
        *(2_300_000, "config", "config", "table"),
    )


def test_the_water_of_the_mix_holds_unless_the_site_names_its_own() -> None:
    signal = GridSignal(1, "DE", "entsoe", Basis.LIFECYCLE, 5, 9, False, 10, 2, micro(1.7))
    choice = GridChoice(signal, FallbackLevel.LIVE, estimated=False)
    site = SiteFactors(10**6, "config", 0, "config", micro(2.3), "table")
    assert price_of(choice, site)[10:14] == (micro(1.7), "config", "config", "mix")
    named = replace(site, ewif_source="config")
    assert price_of(choice, named)[10:14] == (micro(2.3), "config", "config", "config")


def test_a_price_tells_money_and_contracts_where_the_site_does() -> None:
    signal = GridSignal(1, "DE", "entsoe", Basis.LIFECYCLE, 5, 9, False, 10, 2)
    choice = GridChoice(signal, FallbackLevel.LIVE, estimated=False)
    site = SiteFactors(10**6, "config", 0, "config", 0, "config")
    assert price_of(choice, site)[14:] == (None, None, "")
    rich = replace(site, price_per_kwh=0.25, currency="CHF", market=Market((), 0))
    assert price_of(choice, rich)[14:] == (0, 250_000, "CHF")
