"""The CPU's idle floor is learnt from quiet minutes only."""

from __future__ import annotations

import pytest

from wattledger.core.floor import IdleFloors
from wattledger.units import NS_PER_S, UJ_PER_J


def observe(floors: IdleFloors, watts: float, seconds: int, busy_ppm: int | None) -> None:
    for _ in range(seconds):
        floors.observe("cpu0", round(watts * UJ_PER_J), NS_PER_S, busy_ppm)


def test_unknown_until_there_was_a_quiet_minute() -> None:
    floors = IdleFloors()
    observe(floors, 300, 600, 900_000)
    observe(floors, 50, 59, 10_000)

    assert floors.floor_uw("cpu0") == 0
    observe(floors, 50, 1, 10_000)
    assert floors.floor_uw("cpu0") == 50_000_000


def test_a_busy_second_begins_the_minute_anew() -> None:
    floors = IdleFloors()
    observe(floors, 50, 59, 10_000)
    observe(floors, 50, 1, 20_001)
    observe(floors, 50, 59, 10_000)

    assert floors.floor_uw("cpu0") == 0


def test_the_lowest_minute_stays() -> None:
    floors = IdleFloors()
    for watts in (60, 45, 52):
        observe(floors, watts, 60, 0)

    assert floors.floor_uw("cpu0") == 45_000_000


def test_an_unknown_load_teaches_nothing() -> None:
    floors = IdleFloors()
    observe(floors, 50, 120, None)

    assert floors.floor_uw("cpu0") == 0


def test_the_floor_survives_as_a_note() -> None:
    floors = IdleFloors()
    observe(floors, 45, 60, 0)

    assert IdleFloors(floors.note()).floor_uw("cpu0") == 45_000_000


@pytest.mark.parametrize("note", ["", "{", "[]", '{"cpu0": "x"}', '{"cpu0": -4}', "null", "7"])
def test_an_unreadable_note_is_forgotten(note: str) -> None:
    assert IdleFloors(note).floor_uw("cpu0") == 0


def test_what_is_configured_is_not_learnt() -> None:
    floors = IdleFloors('{"cpu0": 30000000}', known_uw=45_000_000)
    observe(floors, 20, 60, 0)
    assert floors.floor_uw("cpu0") == floors.floor_uw("cpu1") == 45_000_000
