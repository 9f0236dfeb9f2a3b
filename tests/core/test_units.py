"""Units at the rim."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger.units import (
    decimal_string,
    format_duration,
    kwh,
    micro,
    parse_duration_ns,
    slot_of,
)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("250ms", 250_000_000),
        ("1s", 10**9),
        ("1.5s", 1_500_000_000),
        ("5m", 300 * 10**9),
        ("1h30m", 5400 * 10**9),
        ("45d", 45 * 86400 * 10**9),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5x", "1h 30m", "5s!", "∞s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration_ns(text)


@given(st.integers(0, 10**9).map(lambda ms: ms * 1_000_000))
def test_durations_round_trip(ns: int) -> None:
    assert parse_duration_ns(format_duration(ns)) == ns


def test_micro_takes_floats_by_their_shortest_decimal() -> None:
    assert micro(0.36) == 360_000
    assert micro("58.7654321") == 58_765_432
    assert micro(0.0000005) == 0  # half to even
    for bad in ("x", float("nan"), float("inf")):
        with pytest.raises(ValueError):
            micro(bad)


@given(st.integers(0, 2**63 - 1))
def test_decimal_strings_are_exact(amount: int) -> None:
    whole, _, part = decimal_string(amount).partition(".")
    assert int(whole) * 10**6 + int(part.ljust(6, "0") or "0") == amount


@given(st.integers(0, 2**62), st.integers(0, 2**40))
def test_conversion_never_falls(energy_uj: int, more: int) -> None:
    assert kwh(energy_uj + more) >= kwh(energy_uj)


def test_slots_begin_on_five_minutes_of_utc() -> None:
    assert slot_of(1_800_000_299 * 10**9 + 999) == 1_800_000_000
    assert slot_of(1_800_000_300 * 10**9) == 1_800_000_300
