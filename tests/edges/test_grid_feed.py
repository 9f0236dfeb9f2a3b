"""The feed: which intensity an instant is priced with, through outages, steps and restarts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeClock
from grid_feeds import HALF_HOUR, HOUR, MAX_AGE, MINUTE, T0, TABLE, FakeSource, feed, run, signal
from wattledger.grid.feed import HISTORY
from wattledger.grid.outcome import Outcome
from wattledger.model import Basis, FallbackLevel, GridSignal
from wattledger.units import NS_PER_S, UG_PER_G

# ── levels ──────────────────────────────────────────────────────────────────────────────────────


def test_without_sources_the_table_answers() -> None:
    clock = FakeClock()
    grid = feed(clock=clock)
    choice = grid.at(T0)
    assert (choice.signal, choice.level, choice.estimated) == (TABLE, FallbackLevel.TABLE, True)
    assert grid.poll_once() == 60
    assert grid.statuses() == grid.signals() == ()


def test_before_the_first_answer_the_table_answers() -> None:
    assert feed(FakeSource(), clock=FakeClock()).at(T0).level == FallbackLevel.TABLE


def test_the_steps_from_live_to_the_table() -> None:
    clock, source = FakeClock(), FakeSource()
    grid = feed(source, clock=clock)
    grid.poll_once()
    [known] = grid.signals()
    end_ns = known.valid_to_ns

    def level(ns: int) -> tuple[int, bool]:
        choice = grid.at(ns)
        return choice.level, choice.estimated

    assert level(known.valid_from_ns) == (FallbackLevel.LIVE, False)
    assert level(end_ns - 1) == (FallbackLevel.LIVE, False)
    assert level(end_ns) == (FallbackLevel.LIVE, True)
    assert level(end_ns + 2 * HALF_HOUR - 1) == (FallbackLevel.LIVE, True)
    assert level(end_ns + 2 * HALF_HOUR) == (FallbackLevel.LAST_GOOD, True)
    assert level(end_ns + MAX_AGE - 1) == (FallbackLevel.LAST_GOOD, True)
    assert level(end_ns + MAX_AGE) == (FallbackLevel.TABLE, True)
    assert level(known.valid_from_ns - 1) == (FallbackLevel.TABLE, True)


def test_a_sources_own_estimate_is_an_estimate() -> None:
    clock, source = FakeClock(), FakeSource()
    source.given = [signal(T0 - MINUTE, estimated=True)]
    grid = feed(source, clock=clock)
    grid.poll_once()
    choice = grid.at(T0)
    assert (choice.level, choice.estimated) == (FallbackLevel.LIVE, True)


def test_the_age_limit_holds_for_live_signals_too() -> None:
    clock, source = FakeClock(), FakeSource()
    grid = feed(source, clock=clock, max_age_ns=10 * MINUTE)
    grid.poll_once()
    end_ns = grid.signals()[0].valid_to_ns
    assert grid.at(end_ns + 10 * MINUTE - 1).level == FallbackLevel.LIVE
    assert grid.at(end_ns + 10 * MINUTE).level == FallbackLevel.TABLE


def test_a_past_slot_is_priced_with_the_signal_that_was_valid_for_it() -> None:
    clock, source = FakeClock(), FakeSource()
    grid = feed(source, clock=clock)
    for grams in (100, 110, 120, 130):
        source.grams = grams
        run(grid, clock, 1800)
    for known in grid.signals():
        assert grid.at(known.valid_from_ns + 1).signal == known
    assert len({known.intensity_ug_per_kwh for known in grid.signals()}) > 2


def test_a_newer_word_on_the_same_half_hour_replaces_the_older() -> None:
    clock, source = FakeClock(), FakeSource()
    grid = feed(source, clock=clock)
    source.given = [signal(T0 - HALF_HOUR, 266, estimated=True)]
    grid.poll_once()
    source.given = [signal(T0 - HALF_HOUR, 263)]
    run(grid, clock, 2100)
    assert [known.intensity_ug_per_kwh for known in grid.signals()] == [263 * UG_PER_G]


# ── the ordered list ────────────────────────────────────────────────────────────────────────────


def test_the_second_source_is_asked_only_while_the_first_is_not_live() -> None:
    clock, first, second = FakeClock(), FakeSource("first"), FakeSource("second")
    grid = feed(first, second, clock=clock)
    run(grid, clock, 6 * 3600)
    assert second.asked_at == []
    first.error = Outcome.HTTP_5XX
    run(grid, clock, 2 * 3600)
    assert grid.at(clock.wall_ns).signal.source == "second"
    assert grid.at(clock.wall_ns).level == FallbackLevel.LIVE
    run(grid, clock, 6 * 3600)
    asked = len(second.asked_at)
    assert asked >= 10
    first.error = None
    run(grid, clock, 2 * 3600)
    assert grid.at(clock.wall_ns).signal.source == "first"
    assert len(second.asked_at) <= asked + 2


def test_the_backup_takes_over_before_the_first_lapses() -> None:
    clock, first, second = FakeClock(), FakeSource("first"), FakeSource("second")
    grid = feed(first, second, clock=clock)
    grid.poll_once()
    first.error = Outcome.TIMEOUT
    levels = set()
    for _ in range(1000):
        clock.advance(grid.poll_once())
        levels.add(grid.at(clock.wall_ns).level)
    assert levels == {FallbackLevel.LIVE}


def test_the_last_good_signal_is_the_one_that_ended_last() -> None:
    clock, first, second = FakeClock(), FakeSource("first"), FakeSource("second")
    first.given = [signal(T0 - 4 * HOUR)]
    second.given = [signal(T0 - 2 * HOUR - HALF_HOUR, source="second")]
    grid = feed(first, second, clock=clock)
    grid.poll_once()
    choice = grid.at(clock.wall_ns)
    assert (choice.level, choice.signal.source) == (FallbackLevel.LAST_GOOD, "second")


def test_sources_must_have_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="names"):
        feed(FakeSource("x"), FakeSource("x"), clock=FakeClock())


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"zone": "DE"}, "wrong_zone"),
        ({"basis": Basis.LIFECYCLE}, "bad_value"),
        ({"intensity_ug_per_kwh": -1}, "bad_value"),
        ({"intensity_ug_per_kwh": 2_000_000_001}, "bad_value"),
        ({"valid_to_ns": 0}, "bad_value"),
        ({"valid_from_ns": T0 + 5 * MINUTE + 1, "valid_to_ns": T0 + HOUR}, "future"),
        ({"valid_from_ns": T0 - 72 * HOUR, "valid_to_ns": T0 - 71 * HOUR}, "stale"),
        ({"valid_from_ns": T0 - 7 * HOUR, "valid_to_ns": T0 - MAX_AGE}, "stale"),
    ],
)
def test_a_signal_that_is_refused(changes: dict[str, object], outcome: str) -> None:
    clock, source = FakeClock(), FakeSource()
    source.given = [signal(T0 - HALF_HOUR, **changes)]
    grid = feed(source, clock=clock)
    grid.poll_once()
    [status] = grid.statuses()
    assert status.outcomes == {outcome: 1}
    assert status.last_signal is None
    assert grid.at(T0).level == FallbackLevel.TABLE


@pytest.mark.parametrize(
    "changes",
    [
        {"intensity_ug_per_kwh": 0},
        {"intensity_ug_per_kwh": 2_000_000_000},
        {"valid_from_ns": T0 + 5 * MINUTE, "valid_to_ns": T0 + HOUR},
        {"valid_from_ns": T0 - 7 * HOUR, "valid_to_ns": T0 - MAX_AGE + 1},
    ],
)
def test_a_signal_at_the_bounds_is_taken(changes: dict[str, object]) -> None:
    clock, source = FakeClock(), FakeSource()
    source.given = [signal(T0 - HALF_HOUR, **changes)]
    grid = feed(source, clock=clock)
    grid.poll_once()
    assert grid.statuses()[0].outcomes == {"ok": 1}


def test_good_signals_are_taken_from_among_bad_ones() -> None:
    clock, source = FakeClock(), FakeSource()
    source.given = [signal(T0 - 90 * HOUR), signal(T0 - HALF_HOUR), signal(T0 + 2 * HOUR)]
    grid = feed(source, clock=clock)
    grid.poll_once()
    assert grid.signals() == (signal(T0 - HALF_HOUR),)


def test_no_signal_at_all_is_no_data() -> None:
    clock, source = FakeClock(), FakeSource()
    source.given = []
    grid = feed(source, clock=clock)
    grid.poll_once()
    assert grid.statuses()[0].outcomes == {"no_data": 1}


def test_a_jump_is_booked_and_said(caplog: pytest.LogCaptureFixture) -> None:
    clock, source = FakeClock(), FakeSource(grams=45)
    grid = feed(source, clock=clock)
    run(grid, clock, 3600)
    source.grams = 450
    run(grid, clock, 3600)
    assert grid.at(clock.wall_ns).signal.intensity_ug_per_kwh == 450 * UG_PER_G
    assert "from 45 to 450 g/kWh" in caplog.text
    run(grid, clock, 2 * 3600)
    assert grid.statuses()[0].message == ""
    assert caplog.text.count("jumped") == 1


def test_a_clean_grid_may_multiply_without_alarm(caplog: pytest.LogCaptureFixture) -> None:
    clock, source = FakeClock(), FakeSource(grams=5)
    grid = feed(source, clock=clock)
    run(grid, clock, 3600)
    source.grams = 25
    run(grid, clock, 3600)
    assert "jumped" not in caplog.text


# ── memory ──────────────────────────────────────────────────────────────────────────────────────


def test_signals_of_an_earlier_run_answer_until_fresh_ones_come() -> None:
    clock, source = FakeClock(), FakeSource()
    source.error = Outcome.CONNECT_ERROR
    grid = feed(source, clock=clock, remembered=[signal(T0 - HALF_HOUR, 77)])
    assert grid.at(T0).signal.intensity_ug_per_kwh == 77 * UG_PER_G
    assert grid.at(T0).level == FallbackLevel.LIVE
    grid.poll_once()
    assert grid.at(T0).level == FallbackLevel.LIVE


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "second"},
        {"zone": "DE"},
        {"basis": Basis.LIFECYCLE},
        {"intensity_ug_per_kwh": -5},
        {"valid_to_ns": 0},
    ],
)
def test_what_the_present_sources_would_not_give_is_forgotten(changes: dict[str, object]) -> None:
    old = signal(T0 - HALF_HOUR, **changes)
    grid = feed(FakeSource(), clock=FakeClock(), remembered=[old])
    assert grid.signals() == ()


def test_history_and_memory_are_bounded() -> None:
    clock, source = FakeClock(), FakeSource()
    grid = feed(source, clock=clock, max_age_ns=10_000 * HOUR)
    source.given = [signal(T0 - index * HALF_HOUR) for index in range(1, 5000)]
    grid.poll_once()
    assert len(grid.signals()) == 8
    levels = {grid.at(T0 - index * HALF_HOUR).level for index in range(HISTORY + 1)}
    assert levels == {FallbackLevel.LIVE}
    assert grid.at(T0 - (HISTORY + 1) * HALF_HOUR).level == FallbackLevel.TABLE


# ── what is said ────────────────────────────────────────────────────────────────────────────────


def test_transitions_are_logged_once_with_the_reason_and_the_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="wattledger.grid.feed")
    clock, source = FakeClock(), FakeSource()
    grid = feed(source, clock=clock)
    run(grid, clock, 4 * 3600)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "live from first, zone GB, 100 g/kWh (generation)" in caplog.text
    caplog.clear()
    source.error = Outcome.HTTP_401
    run(grid, clock, 24 * 3600)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert "http_401" in said[0] and "check the token" in said[0]
    assert "last good signal of first stands in" in said[1] and "check the token" in said[1]
    assert "the table of GB stands in, 217 g/kWh (lifecycle)" in said[2]
    caplog.clear()
    source.error = None
    run(grid, clock, 3600)
    assert [record.getMessage() for record in caplog.records] == [
        "grid source first answers again",
        "carbon intensity: live from first, zone GB, 100 g/kWh (generation)",
    ]


# ── for any sequence of outages ─────────────────────────────────────────────────────────────────

_events = st.lists(
    st.tuples(
        st.sampled_from(["ok", "fail", "step", "sleep", "restart"]),
        st.integers(0, 1),
        st.integers(0, 12 * 3600),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(_events, st.lists(st.integers(-(10**19), 10**19), max_size=3))
def test_whatever_happens_an_instant_has_a_price_that_keeps_its_promises(
    events: list[tuple[str, int, int]], instants: Sequence[int]
) -> None:
    clock, sources = FakeClock(), [FakeSource("first"), FakeSource("second", 200)]
    grid = feed(*sources, clock=clock)
    given: set[GridSignal] = set()
    for event, index, seconds in events:
        if event in ("ok", "fail"):
            sources[index].error = Outcome.TIMEOUT if event == "fail" else None
            clock.advance(seconds)
        elif event == "step":
            clock.step_wall(seconds - 6 * 3600)
        elif event == "sleep":
            clock.sleep(seconds)
        else:
            clock.reboot("another", seconds)
            grid = feed(*sources, clock=clock, remembered=grid.signals())
        assert 1 <= grid.poll_once() <= 60
        given.update(grid.signals())
        for wall_ns in (clock.wall_ns, clock.wall_ns - seconds * NS_PER_S, *instants):
            choice = grid.at(wall_ns)
            known = choice.signal
            if choice.level == FallbackLevel.TABLE:
                assert (known, choice.estimated) == (TABLE, True)
                continue
            over_ns = wall_ns - known.valid_to_ns
            assert known in given
            assert known.valid_from_ns <= wall_ns
            assert over_ns < MAX_AGE
            assert (choice.level == FallbackLevel.LIVE) == (over_ns < 2 * HALF_HOUR)
            assert choice.estimated or over_ns < 0
    for source in sources:
        assert len(source.asked_at) <= len(events)
