"""On-site water by the weather: published and computed vectors, bounds, and the °F trap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger.core.cooling import (
    WUE_STEP_UL_PER_KWH,
    fahrenheit,
    quantised,
    tower_wue_l_per_kwh,
    weather_wue_ul_per_kwh,
    wet_bulb_c,
)

CYCLES = st.floats(1.5, 20)
WARM_C = st.floats(0, 50)
HUMID = st.floats(5, 99)


@pytest.mark.parametrize(
    ("temperature_c", "humidity", "wet_c", "wet_f", "wue"),
    [
        (20, 50, 13.699, 56.66, 3.567),  # Stull's own example: 13.7 °C
        (30, 50, 22.297, 72.13, 4.907),
        (10, 80, 7.929, 46.27, 2.831),
        (0, 60, -2.963, 26.67, 0.05),
    ],
)
def test_vectors(
    temperature_c: float, humidity: float, wet_c: float, wet_f: float, wue: float
) -> None:
    found = wet_bulb_c(temperature_c, humidity)
    assert found == pytest.approx(wet_c, abs=5e-4)
    assert fahrenheit(found) == pytest.approx(wet_f, abs=5e-3)
    assert tower_wue_l_per_kwh(fahrenheit(found), 6, 0.05) == pytest.approx(wue, abs=5e-4)
    booked = weather_wue_ul_per_kwh(temperature_c, humidity, 6, 0.05)
    assert booked == round(wue * 100) * WUE_STEP_UL_PER_KWH


def test_celsius_would_give_the_floor_and_nobody_would_see_it() -> None:
    """The formula is in Fahrenheit: a wet bulb of 22.3 °C put in as it is looks like deep frost."""
    wet_c = wet_bulb_c(30, 50)
    assert wet_c is not None
    assert tower_wue_l_per_kwh(wet_c, 6, 0.05) == 0.05  # the trap
    found = weather_wue_ul_per_kwh(30, 50, 6, 0.05)
    assert found == 4_910_000
    assert (fahrenheit(0), fahrenheit(100), fahrenheit(-40)) == (32, 212, -40)


def test_the_cubic_is_zero_at_27_fahrenheit() -> None:
    assert tower_wue_l_per_kwh(27.1, 6, 0.0) == 0
    assert 0 < tower_wue_l_per_kwh(27.3, 6, 0.0) < 0.06


@pytest.mark.parametrize(
    ("temperature_c", "humidity"),
    [(20, 4.9), (50.1, 50), (50.1, 100), (float("nan"), 50), (20, float("nan"))],
)
def test_where_the_wet_bulb_formula_does_not_hold(temperature_c: float, humidity: float) -> None:
    assert wet_bulb_c(temperature_c, humidity) is None
    assert weather_wue_ul_per_kwh(temperature_c, humidity, 6, 0.05) is None


@pytest.mark.parametrize("temperature_c", [-30, -5, 0, 20, 35.5, 50])
@pytest.mark.parametrize("humidity", [99.1, 100])
def test_fog_is_as_wet_as_it_gets(temperature_c: float, humidity: float) -> None:
    """The moment at which a tower takes in most of all is none without a figure."""
    assert wet_bulb_c(temperature_c, humidity) == temperature_c
    foggy = weather_wue_ul_per_kwh(temperature_c, humidity, 6, 0.05)
    clear = weather_wue_ul_per_kwh(temperature_c, 98, 6, 0.05)
    assert foggy is not None
    assert clear is not None
    assert foggy >= clear >= 50_000


def test_the_water_of_fog() -> None:
    # 20 °C are 68 °F: 6/5 × (6e-5 × 68³ − 0.01 × 68² + 0.61 × 68 − 10.4) = 4.45
    assert weather_wue_ul_per_kwh(20, 100, 6, 0.05) == 4_450_000


@given(st.floats(-90, -3.001), st.floats(0, 100), st.floats(0, 1))
def test_in_frost_nothing_evaporates_whatever_the_humidity(
    temperature_c: float, humidity: float, least: float
) -> None:
    found = weather_wue_ul_per_kwh(temperature_c, humidity, 6, least)
    assert found == quantised(round(least * 10**6), WUE_STEP_UL_PER_KWH)


@given(WARM_C, HUMID)
def test_a_wet_bulb_is_not_warmer_than_the_air(temperature_c: float, humidity: float) -> None:
    found = wet_bulb_c(temperature_c, humidity)
    assert found is not None
    assert -10 < found <= temperature_c


@given(WARM_C, HUMID, st.floats(0.5, 10))
def test_warmer_air_is_never_cooler_wet(temperature_c: float, humidity: float, more: float) -> None:
    hotter = min(temperature_c + more, 50)
    cool, warm = wet_bulb_c(temperature_c, humidity), wet_bulb_c(hotter, humidity)
    assert cool is not None
    assert warm is not None
    assert warm >= cool


@given(st.floats(-4, 122), st.floats(0, 20), CYCLES)
def test_a_warmer_wet_bulb_never_drinks_less(wet_f: float, more: float, cycles: float) -> None:
    less = tower_wue_l_per_kwh(wet_f, cycles, 0.05)
    assert 0.05 <= less <= tower_wue_l_per_kwh(wet_f + more, cycles, 0.05)


@given(st.floats(30, 122), CYCLES, st.floats(0.1, 10))
def test_more_cycles_never_drink_more(wet_f: float, cycles: float, more: float) -> None:
    assert tower_wue_l_per_kwh(wet_f, cycles + more, 0.05) <= tower_wue_l_per_kwh(
        wet_f, cycles, 0.05
    )


@given(st.floats(-20, 50), HUMID, CYCLES, st.floats(0, 1))
def test_what_is_booked_lies_in_steps_above_the_floor(
    temperature_c: float, humidity: float, cycles: float, least: float
) -> None:
    found = weather_wue_ul_per_kwh(temperature_c, humidity, cycles, least)
    if found is not None:
        assert found % WUE_STEP_UL_PER_KWH == 0
        assert found >= least * 10**6 - WUE_STEP_UL_PER_KWH / 2
        assert found < 60 * 10**6


@given(st.integers(0, 10**9), st.integers(1, 10**6))
def test_quantised_is_the_nearest_step(value: int, step: int) -> None:
    found = quantised(value, step)
    assert found % step == 0
    assert abs(found - value) * 2 <= step
    assert quantised(found, step) == found
