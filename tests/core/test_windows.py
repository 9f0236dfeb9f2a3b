"""Windows over a forecast: the best of all, by brute force; sums that are exact."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger.core.footprint import footprint
from wattledger.core.windows import Curve, Period, Window, periods_of
from wattledger.model import Basis, GridSignal, Price
from wattledger.units import NS_PER_S, UG_PER_G


@st.composite
def forecasts(draw: st.DrawFn) -> list[Period]:
    """Periods of unequal lengths, with gaps between some of them."""
    at, found = draw(st.integers(0, 5)), []
    for _ in range(draw(st.integers(0, 8))):
        at += draw(st.sampled_from((0, 0, 0, 3)))
        length = draw(st.integers(1, 6))
        found.append(Period(at, at + length, draw(st.integers(0, 9))))
        at += length
    return found


def by_hand(periods: list[Period], start: int, end: int) -> int | None:
    """The exposure of a span, ns by ns; None: a ns of it is not known."""
    known = {ns: period.intensity_ug_per_kwh for period in periods for ns in range(*period[:2])}
    levels = [known.get(ns) for ns in range(start, end)]
    return None if None in levels else sum(level for level in levels if level is not None)


@given(forecasts(), st.integers(1, 9), st.integers(0, 12), st.integers(0, 40))
def test_no_window_is_cleaner_than_the_one_found(
    periods: list[Period], length: int, earliest: int, ahead: int
) -> None:
    latest_end = earliest + ahead
    tried = {
        start: exposure
        for start in range(earliest, latest_end - length + 1)
        if (exposure := by_hand(periods, start, start + length)) is not None
    }
    curve = Curve(periods)
    cleanest = curve.cleanest(length, earliest, latest_end)
    soonest = curve.soonest(length, earliest, latest_end)

    if not tried:
        assert cleanest is soonest is None
        return
    assert cleanest is not None and soonest is not None
    # Whole ns are all that there is: no start between two of them is possible.
    assert cleanest.exposure == min(tried.values()) == tried[cleanest.start_ns]
    assert tried[min(start for start in tried)] == soonest.exposure
    assert soonest.start_ns == min(tried)
    assert cleanest.end_ns - cleanest.start_ns == length
    assert cleanest.mean_ug_per_kwh <= soonest.mean_ug_per_kwh
    first = min(start for start, exposure in tried.items() if exposure == cleanest.exposure)
    assert cleanest.start_ns == first


@given(forecasts(), st.integers(0, 40), st.integers(0, 12))
def test_what_a_span_is_exposed_to(periods: list[Period], start: int, length: int) -> None:
    window = Curve(periods).window(start, start + length)
    expected = by_hand(periods, start, start + length) if length else None
    assert (window and window.exposure) == expected
    exposure, covered = Curve(periods).known(start, start + length)
    parts = [by_hand(periods, ns, ns + 1) for ns in range(start, start + length)]
    assert exposure == sum(part for part in parts if part is not None)
    assert covered == sum(part is not None for part in parts)


def test_a_window_begins_between_two_periods_where_that_is_best() -> None:
    """90 minutes, of which the dirty hour in the middle is touched as little as can be."""
    minute = 60 * NS_PER_S
    levels = ((0, 30, 100), (30, 90, 300), (90, 150, 50), (150, 180, 200))
    curve = Curve([Period(a * minute, b * minute, level) for a, b, level in levels])
    found = curve.cleanest(90 * minute, 0, 180 * minute)
    assert found is not None
    assert (found.start_ns, found.end_ns) == (90 * minute, 180 * minute)
    assert found.mean_ug_per_kwh == Fraction(50 * 60 + 200 * 30, 90)


@given(st.integers(0, 2_000 * UG_PER_G), st.integers(1, 48), st.integers(1, 10_000_000_000))
def test_a_window_emits_what_the_books_would_hold(intensity: int, hours: int, power: int) -> None:
    seconds = 3600 * hours
    window = Window(0, seconds * NS_PER_S, intensity * seconds * NS_PER_S)
    price = Price(intensity, "", "", Basis.LIFECYCLE, True, 0, 0, 0, 1_250_000, 0, 0)
    assert window.co2e_ug(power, 1_250_000) == footprint(power * seconds, price).co2e_ug


def signal(start: int, end: int, intensity: int, **other: object) -> GridSignal:
    fields = {"zone": "GB", "source": "neso", "basis": Basis.GENERATION, **other}
    return GridSignal(  # type: ignore[arg-type]
        intensity, **fields, valid_from_ns=start, valid_to_ns=end, estimated=True,
        fetched_at_ns=0, cadence_ns=1,
    )  # fmt: skip


def test_overlaps_are_cut_and_no_two_bases_are_mixed() -> None:
    found = periods_of([signal(5, 9, 2), signal(0, 6, 1), signal(5, 8, 3)])
    assert found == [Period(0, 5, 1), Period(5, 8, 3)]
    for other in ({"basis": Basis.MARGINAL}, {"source": "x"}, {"zone": "FR"}):
        with pytest.raises(ValueError, match="one source"):
            periods_of([signal(0, 1, 1), signal(1, 2, 1, **other)])
