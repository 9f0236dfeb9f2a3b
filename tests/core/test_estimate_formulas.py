"""Footprints from what is known of a run, in exact numbers."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger.core.estimate.cases import Case, Estimate, Published, rows
from wattledger.core.estimate.formulas import FORMULAS, derive
from wattledger.core.estimate.inputs import INPUTS, number_of
from wattledger.core.estimate.quantities import QUANTITIES
from wattledger.core.footprint import footprint
from wattledger.model import Basis, FallbackLevel, Price
from wattledger.units import UJ_PER_KWH


def exact(**inputs: str | int) -> dict[str, Fraction]:
    return {name: Fraction(value) for name, value in inputs.items()}


@pytest.mark.parametrize(
    ("chips", "days", "watts", "pue", "mwh"),
    [  # Patterson et al. 2021, table 4, multiplied out by hand
        (200, "6.8", 208, "1.10", "7.4680320"),
        (512, "20", 310, "1.12", "85.3278720"),
        (1024, "30", 289, "1.09", "232.2505728"),
        (1024, "3.1", 288, "1.09", "23.916183552"),
        (1024, "27", 245, "1.10", "178.8272640"),
        (10000, "14.8", 330, "1.10", "1289.376"),
    ],
)
def test_chips_days_watts_and_pue(chips: int, days: str, watts: int, pue: str, mwh: str) -> None:
    values = derive(exact(chips=chips, days=days, watts=watts, pue=pue)).values

    assert abs(values["facility_energy"] / 1000 / Fraction(mwh) - 1) < Fraction("1e-9")


@pytest.mark.parametrize(
    ("inputs", "kwh"),
    [
        (exact(kwh=7), "7"),
        (exact(gpu_hours=100, watts=250), "25"),
        (exact(gpu_hours=100, idle_watts=46, full_watts=407, load="0.5"), "22.65"),
        (exact(requests=1000, wh_per_request="0.24"), "0.24"),
        (exact(tokens=2_000_000, wh_per_1000_tokens="0.3"), "0.6"),
        (exact(facility_kwh=12, pue="1.2"), "10"),
    ],
)
def test_energy_is_known_in_many_ways(inputs: dict[str, Fraction], kwh: str) -> None:
    assert derive(inputs).values["it_energy"] == Fraction(kwh)


@given(
    st.integers(1, 10**9),
    st.integers(10**6, 3 * 10**6),
    st.integers(0, 10**9),
    st.integers(0, 10**7),
    st.integers(0, 2 * 10**7),
)
def test_carbon_and_water_are_the_books(kwh: int, pue: int, ug: int, wue: int, ewif: int) -> None:
    values = derive(
        {
            "kwh": Fraction(kwh),
            "pue": Fraction(pue, 10**6),
            "intensity_g_per_kwh": Fraction(ug, 10**6),
            "wue_l_per_kwh": Fraction(wue, 10**6),
            "ewif_l_per_kwh": Fraction(ewif, 10**6),
        }
    ).values
    price = Price(ug, "", "", Basis.LIFECYCLE, True, FallbackLevel.TABLE, 0, 0, pue, wue, ewif)
    booked = footprint(kwh * UJ_PER_KWH, price)

    assert values["co2e"] * 10**9 == booked.co2e_ug
    assert values["water_onsite"] * 10**6 == booked.water_onsite_ul
    assert values["water_grid"] * 10**6 == booked.water_grid_ul
    assert values["water"] * 10**6 == booked.water_onsite_ul + booked.water_grid_ul


@given(st.fractions("0.001", 10**9, max_denominator=1000), st.fractions(1, 3, max_denominator=1000))
def test_facility_energy_comes_back(kwh: Fraction, pue: Fraction) -> None:
    assert derive({"facility_kwh": kwh, "pue": pue}).values["facility_energy"] == kwh


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (exact(kwh=1, gpu_hours=2, watts=3), "it_energy follows as kwh, and also as gpu_hours"),
        (exact(gpu_hours=1, chips=2, days=3, watts=4), "gpu_hours is given, and also as chips"),
        (exact(watts=1, idle_watts=2, full_watts=3, load=1), "gpu_power follows as watts"),
        (exact(kwh=1, bottle_ml=500), "bottle_ml alone says nothing; with it goes water"),
        (exact(chips=3), "chips alone says nothing; with it goes days"),
        (exact(gpu_hours=1), "gpu_power = watts or idle_watts"),
        (exact(water_l=1, kwh=0), "water_intensity = water_volume / it_energy divides by 0"),
    ],
)
def test_what_does_not_go_together_is_said(inputs: dict[str, Fraction], said: str) -> None:
    with pytest.raises(ValueError) as failure:
        derive(inputs)

    assert said in str(failure.value)


def test_the_registries_know_one_another() -> None:
    assert {formula.gives for formula in FORMULAS} == set(QUANTITIES)
    needed = {name for formula in FORMULAS for name in formula.needs}
    assert needed <= set(INPUTS) | set(QUANTITIES)
    assert set(INPUTS) <= needed
    for formula in FORMULAS:
        assert all(name in formula.text for name in formula.needs), formula.text


@pytest.mark.parametrize("value", ["-1", "NaN", "Infinity", "1e-13", "1e999999999", "1" + "0" * 19])
def test_numbers_that_no_run_has(value: str) -> None:
    with pytest.raises(ValueError):
        number_of("kwh", Decimal(value))


def one(published: Published) -> Case:
    return Case("c", "", "", "", "", "", (Estimate("", exact(kwh=2000), (published,)),))


@pytest.mark.parametrize(
    ("published", "reproduced", "difference"),
    [
        (Published("it_energy", "MWh", Fraction(2), Fraction(1)), True, 0),
        (Published("it_energy", "MWh", Fraction("1.98"), Fraction(1)), False, Fraction(100, 99)),
        (Published("it_energy", "MWh", Fraction("1.98"), None, Fraction("0.02")), True, ...),
        (Published("it_energy", "MWh", Fraction("1.98"), None, Fraction("0.019")), False, ...),
        (Published("it_energy", "MWh", Fraction(4), None, None, "why"), False, -50),
        (Published("it_energy", "MWh"), None, None),
    ],
)
def test_within_a_tolerance_or_not(published: Published, reproduced: object, difference: object):  # type: ignore[no-untyped-def]
    (row,) = rows(one(published))

    assert (row.unit, row.computed) == ("MWh", 2)
    assert row.reproduced is reproduced
    assert difference is ... or row.difference_percent == difference


def test_without_a_question_everything_is_shown() -> None:
    case = Case("c", "", "", "", "", "", (Estimate("", exact(kwh=10, pue="1.5")),))

    assert [(row.quantity, row.computed) for row in rows(case)] == [
        ("it_energy", 10),
        ("facility_energy", 15),
    ]


def test_a_quantity_that_does_not_follow() -> None:
    with pytest.raises(ValueError, match="co2e does not follow from the inputs kwh"):
        list(rows(one(Published("co2e"))))
