"""Shares sum exactly, whoever pays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger.core.attribution import attribute, largest_remainder
from wattledger.model import (
    IDLE,
    SYSTEM,
    UNATTRIBUTED,
    EnergyInterval,
    Payee,
    PayeeKind,
    Quality,
    Usage,
)
from wattledger.units import NS_PER_S

jobs = st.builds(
    Payee, st.just(PayeeKind.JOBS), st.sampled_from(["slurm", "pod"]), st.integers(1, 99).map(str)
)


def interval(energy_uj: int, seconds: float = 1) -> EnergyInterval:
    return EnergyInterval("GPU-1", 0, round(seconds * NS_PER_S), energy_uj, Quality.METERED)


@given(st.integers(0, 10**16), st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_parts_sum_to_the_whole_and_are_fair(amount: int, weights: list[int]) -> None:
    parts = largest_remainder(amount, weights)

    assert sum(parts) == amount
    whole = sum(weights)
    for part, weight in zip(parts, weights, strict=True):
        assert part >= 0
        if whole:
            assert abs(part * whole - amount * weight) < whole


def test_the_largest_remainder_gets_the_last_unit() -> None:
    assert largest_remainder(10, [1, 1, 1]) == [4, 3, 3]
    assert largest_remainder(10, [26, 37, 37]) == [2, 4, 4]
    assert largest_remainder(7, [0, 0]) == [7, 0]


@pytest.mark.parametrize("weights", [[], [-1, 2]])
def test_impossible_weights_are_refused(weights: list[int]) -> None:
    with pytest.raises(ValueError):
        largest_remainder(1, weights)


@given(
    energy=st.integers(0, 10**13),
    weights=st.dictionaries(jobs, st.integers(0, 10**6), max_size=8),
    spare=st.integers(0, 10**6),
    rest=st.sampled_from([IDLE, SYSTEM, UNATTRIBUTED]),
    floor_w=st.integers(0, 400),
    order=st.randoms(),
)
def test_conservation_and_order(energy, weights, spare, rest, floor_w, order) -> None:  # type: ignore[no-untyped-def]
    whole = max(1, sum(weights.values()) + spare)
    items = list(weights.items())
    usage = Usage("GPU-1", tuple(items), whole, rest, floor_w * 1_000_000)
    attributed = attribute(interval(energy), usage)

    assert sum(share for _, share in attributed.shares) == energy
    assert all(share > 0 for _, share in attributed.shares)
    assert len({payee for payee, _ in attributed.shares}) == len(attributed.shares)
    for payee, share in attributed.shares:
        assert share == 0 or payee in (rest, IDLE) or weights[payee] > 0

    order.shuffle(items)
    again = attribute(interval(energy), Usage("GPU-1", tuple(items), whole, rest, usage.floor_uw))
    assert dict(again.shares) == dict(attributed.shares)


def test_the_floor_is_idle_and_never_more_than_there_is() -> None:
    usage = Usage("cpu0", rest=SYSTEM, floor_uw=50_000_000)

    assert dict(attribute(interval(80_000_000), usage).shares) == {
        IDLE: 50_000_000,
        SYSTEM: 30_000_000,
    }
    assert dict(attribute(interval(20_000_000), usage).shares) == {IDLE: 20_000_000}


def test_weights_beyond_the_whole_are_a_mistake() -> None:
    with pytest.raises(ValueError):
        attribute(interval(10), Usage("GPU-1", ((SYSTEM, 3), (IDLE, 3)), 5))
