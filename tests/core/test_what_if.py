"""Energy at other prices: the same price is the same figure, and sums are sums."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger.core.footprint import footprint
from wattledger.core.what_if import Alternative, booked_price, joined, line, merged, mixed
from wattledger.model import Amounts, Basis, Price, TotalsRow
from wattledger.units import PPM

energies = st.lists(st.integers(1, 10**16), min_size=1, max_size=6)
intensities = st.integers(1, 2_000_000_000)
pues = st.integers(1_000_000, 3_000_000)


def booked(group: str, parts: list[tuple[int, int]], intensity: int) -> TotalsRow:
    """A row of the report over entries of these energies and PUEs, as the ledger books them."""
    amounts, facility = Amounts(), 0
    for energy, pue in parts:
        price = Price(intensity, "X", "x", Basis.DIRECT, False, 0, 0, 1, pue, 200_000, 3_000_000)
        amounts = amounts.plus(footprint(energy, price))
        facility += energy * pue
    return TotalsRow(group, amounts, 0, (Basis.DIRECT,), facility // PPM)


@given(st.lists(st.tuples(st.integers(1, 10**16), pues), min_size=1, max_size=6), intensities)
def test_the_same_intensity_is_the_same_figure(
    parts: list[tuple[int, int]], intensity: int
) -> None:
    """Whatever the PUEs were; to within the 1 µg that each entry's own floor costs."""
    row = booked("gpu", parts, intensity)
    found = line(row, Alternative(Fraction(intensity), Fraction(3_000_000), "direct"))
    assert found.co2e_ug is not None and found.water_grid_ul is not None
    assert -1 <= found.co2e_ug - row.amounts.co2e_ug <= len(parts)
    assert -1 <= found.water_grid_ul - row.amounts.water_grid_ul <= len(parts)
    assert found.difference_ug == found.co2e_ug - row.amounts.co2e_ug

    own = booked_price(row)
    assert own is not None
    again = line(row, own)
    assert (again.co2e_ug, again.water_grid_ul) == (found.real.co2e_ug, found.real.water_grid_ul)
    assert again.difference_ug == 0 and again.other_basis == again.basis == "direct"


@given(st.integers(1, 10**16), pues, intensities, st.integers(2, 9))
def test_n_times_the_intensity_is_n_times_the_figure(
    energy: int, pue: int, intensity: int, n: int
) -> None:
    row = booked("gpu", [(energy, pue)], intensity)
    found = line(row, Alternative(Fraction(intensity * n), None, "lifecycle"))
    assert found.co2e_ug is not None
    assert 0 <= found.co2e_ug - n * row.amounts.co2e_ug <= n
    assert found.water_grid_ul is None


@given(energies, st.lists(st.booleans(), min_size=6, max_size=6))
def test_hours_without_a_price_are_left_out_on_both_sides(
    hours: list[int], priced: list[bool]
) -> None:
    other = Alternative(Fraction(5_000_000), Fraction(1), "direct")
    lines = [
        line(booked(f"h{n}", [(energy, PPM)], 10_000_000), other if priced[n] else None)
        for n, energy in enumerate(hours)
    ]
    (whole,) = merged(lines, lambda _: "all")
    covered = [part for part, there in zip(lines, priced, strict=False) if there]
    assert whole.real.energy_uj == sum(hours)
    assert whole.priced.energy_uj == sum(part.real.energy_uj for part in covered)
    if covered:
        assert whole.co2e_ug == sum(part.co2e_ug or 0 for part in covered)
        assert whole.difference_ug == sum(part.difference_ug or 0 for part in covered)
        assert whole.water_grid_ul is not None and whole.other_basis == "direct"
    else:
        assert whole.co2e_ug is whole.difference_ug is whole.water_grid_ul is None


def test_water_is_unknown_where_a_part_of_it_is() -> None:
    row = booked("a", [(10**13, PPM)], 10)
    wet, dry = Alternative(Fraction(1), Fraction(1), "x"), Alternative(Fraction(1), None, "y")
    (both,) = merged([line(row, wet), line(row, dry)], lambda _: "all")
    assert both.water_grid_ul is None and both.other_basis == "x+y"


def test_what_cannot_be_told_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="facility"):
        line(TotalsRow("a", Amounts(1), 0), None)
    assert booked_price(TotalsRow("a", Amounts(), 0, (), 0)) is None
    assert joined(["b+a", "", "a"]) == "a+b"


def test_a_mix() -> None:
    half = Fraction(1, 2)
    assert mixed([(half, Fraction(12)), (half, Fraction(490))]) == 251
    for shares in ([half], [half, half, half], [Fraction(2), Fraction(-1)], []):
        with pytest.raises(ValueError, match="share"):
            mixed((share, Fraction(1)) for share in shares)
