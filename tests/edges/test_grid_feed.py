"""The feed: which intensity an instant is priced with, through outages, steps and restarts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grid_server as play
from fakes import START_WALL_NS, FakeClock
from grid_server import GridServer
from wattledger.grid.client import HttpClient
from wattledger.grid.feed import HISTORY, Feed
from wattledger.grid.neso import Neso
from wattledger.grid.outcome import Outcome, failure
from wattledger.model import Basis, FallbackLevel, GridSignal
from wattledger.units import NS_PER_S, UG_PER_G

MINUTE = 60 * NS_PER_S
HALF_HOUR = 30 * MINUTE
HOUR = 60 * MINUTE
MAX_AGE = 6 * HOUR
T0 = START_WALL_NS  # the start of a half hour

TABLE = GridSignal(
    217 * UG_PER_G,
    "GB",
    "table",
    Basis.LIFECYCLE,
    T0 - 9_000 * HOUR,
    T0 - 300 * HOUR,
    True,
    T0,
    HOUR,
)


def signal(start_ns: int, grams: int = 100, **changes: object) -> GridSignal:
    made = GridSignal(
        intensity_ug_per_kwh=grams * UG_PER_G,
        zone="GB",
        source="first",
        basis=Basis.GENERATION,
        valid_from_ns=start_ns,
        valid_to_ns=start_ns + HALF_HOUR,
        estimated=False,
        fetched_at_ns=start_ns + HALF_HOUR,
        cadence_ns=HALF_HOUR,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


class FakeSource:
    """A `Source` that gives the last complete half hour, or what it is told to."""

    zone = "GB"
    basis = Basis.GENERATION
    cadence_ns = HALF_HOUR

    def __init__(self, name: str = "first", grams: int = 100) -> None:
        self.name = name
        self.grams = grams
        self.error: Outcome | None = None
        self.retry_after_s: float | None = None
        self.given: list[GridSignal] | None = None
        self.asked_at: list[int] = []

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        self.asked_at.append(now_wall_ns)
        if self.error is not None:
            raise failure(self.error, "out", retry_after_s=self.retry_after_s)
        if self.given is not None:
            return self.given
        start_ns = now_wall_ns // HALF_HOUR * HALF_HOUR - HALF_HOUR
        return [signal(start_ns, self.grams, source=self.name, fetched_at_ns=now_wall_ns)]


def feed(
    *sources: FakeSource, clock: FakeClock, max_age_ns: int = MAX_AGE, **options: object
) -> Feed:
    return Feed(sources, TABLE, clock, max_age_ns=max_age_ns, **options)  # type: ignore[arg-type]


def run(feed: Feed, clock: FakeClock, seconds: float) -> None:
    """What the polling thread does, in simulated time."""
    end_ns = clock.boottime_ns + round(seconds * NS_PER_S)
    while clock.boottime_ns <= end_ns:
        clock.advance(feed.poll_once())


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


# ── politeness ──────────────────────────────────────────────────────────────────────────────────


def _gaps_s(source: FakeSource) -> list[float]:
    pairs = zip(source.asked_at, source.asked_at[1:], strict=False)
    return [(later - earlier) / NS_PER_S for earlier, later in pairs]


def test_one_request_per_cadence_soon_after_each_period_began() -> None:
    phases = []
    for node in ("a", "a", "b"):
        clock, source = FakeClock(), FakeSource()
        clock.advance(700)
        grid = feed(source, clock=clock, node=node)
        run(grid, clock, 24 * 3600)
        steady = source.asked_at[1:]
        assert len(steady) == 48
        phases.append([at_ns % HALF_HOUR // NS_PER_S for at_ns in steady])
        assert min(phases[-1]) >= 0.05 * 1800
        assert max(phases[-1]) <= 0.25 * 1800 + 1
        assert max(phases[-1]) - min(phases[-1]) <= 1
    assert phases[0] == phases[1] != phases[2]


@pytest.mark.parametrize("lag_s", [0, 300, 900, 1500])
def test_a_provider_that_publishes_late_stays_live(lag_s: int) -> None:
    class Late(FakeSource):
        def latest(self, now_wall_ns: int) -> list[GridSignal]:
            self.asked_at.append(now_wall_ns)
            start_ns = (now_wall_ns - lag_s * NS_PER_S) // HALF_HOUR * HALF_HOUR - HALF_HOUR
            return [signal(start_ns, fetched_at_ns=now_wall_ns)]

    clock, source = FakeClock(), Late()
    grid = feed(source, clock=clock)
    levels = set()
    for _ in range(1440):
        clock.advance(grid.poll_once())
        levels.add(grid.at(clock.wall_ns).level)
    assert levels == {FallbackLevel.LIVE}
    assert len(source.asked_at) <= 24 * (2 if lag_s < 300 else 4) + 2


def test_a_provider_that_is_stuck_is_asked_once_per_cadence() -> None:
    clock, source = FakeClock(), FakeSource()
    source.given = [signal(T0 - HALF_HOUR)]
    grid = feed(source, clock=clock, max_age_ns=1000 * HOUR)
    run(grid, clock, 48 * 3600)
    assert len(source.asked_at) <= 100


def test_failures_back_off_up_to_the_cadence() -> None:
    clock, source = FakeClock(), FakeSource()
    source.error = Outcome.CONNECT_ERROR
    grid = feed(source, clock=clock)
    run(grid, clock, 12 * 3600)
    gaps = _gaps_s(source)
    for index, ideal in enumerate([60, 120, 240, 480, 960, 1800, 1800, 1800]):
        assert 0.9 * ideal <= gaps[index] <= 1.1 * ideal + 1


@pytest.mark.parametrize("outcome", [Outcome.HTTP_401, Outcome.HTTP_403, Outcome.HTTP_404])
def test_a_refusal_is_tried_again_slowly(outcome: Outcome) -> None:
    clock, source = FakeClock(), FakeSource()
    source.error = outcome
    grid = feed(source, clock=clock)
    run(grid, clock, 6 * 3600)
    assert 8 <= len(source.asked_at) <= 30
    assert min(_gaps_s(source)) >= 0.9 * 900
    [status] = grid.statuses()
    assert status.outcomes == {str(outcome): len(source.asked_at)}
    assert status.message and status.hint
    source.error = None
    run(grid, clock, 2 * 3600)
    [status] = grid.statuses()
    assert (status.message, status.hint) == ("", "")
    assert status.outcomes["ok"] >= 1
    assert status.last_success_ns == source.asked_at[-1]


@pytest.mark.parametrize(("asked_s", "at_least_s"), [(7200.0, 7200), (1e9, 86_400)])
def test_retry_after_is_honoured(asked_s: float, at_least_s: float) -> None:
    clock, source = FakeClock(), FakeSource()
    source.error, source.retry_after_s = Outcome.HTTP_429, asked_s
    grid = feed(source, clock=clock)
    run(grid, clock, 2 * 86_400)
    assert at_least_s <= min(_gaps_s(source)) <= at_least_s + 61


def test_a_crash_loop_asks_no_more_often_than_a_daemon_that_runs() -> None:
    clock, source = FakeClock(), FakeSource()
    remembered: tuple[GridSignal, ...] = ()
    for _ in range(50):
        grid = feed(source, clock=clock, remembered=remembered)
        grid.poll_once()
        remembered = grid.signals()
        clock.advance(20)
    assert len(source.asked_at) <= 2


def test_a_request_to_stop_is_heard() -> None:
    clock, source = FakeClock(), FakeSource()
    grid = feed(source, clock=clock)
    grid.request_stop()
    grid.poll_once()
    assert source.asked_at == []


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


# ── clocks ──────────────────────────────────────────────────────────────────────────────────────


def test_after_the_machine_slept_the_source_is_asked_at_once() -> None:
    clock, source = FakeClock(), FakeSource()
    grid = feed(source, clock=clock)
    run(grid, clock, 120)
    clock.sleep(8 * 3600)
    grid.poll_once()
    assert len(source.asked_at) == 2
    assert grid.at(clock.wall_ns).level == FallbackLevel.LIVE


def test_a_machine_that_boots_in_1970_recovers_within_two_minutes_of_being_set() -> None:
    clock, truth = FakeClock(wall_ns=1000 * NS_PER_S), FakeSource()
    truth.given = [signal(T0 - HALF_HOUR)]
    grid = feed(truth, clock=clock)
    for _ in range(60):
        clock.advance(grid.poll_once())
    assert grid.at(clock.wall_ns).level == FallbackLevel.TABLE
    assert set(grid.statuses()[0].outcomes) == {"future"}
    clock.step_wall((T0 - clock.wall_ns) / NS_PER_S)
    run(grid, clock, 120)
    assert grid.at(clock.wall_ns).level == FallbackLevel.LIVE


def test_a_clock_that_steps_all_the_time_does_not_hammer() -> None:
    clock, source = FakeClock(), FakeSource()
    grid = feed(source, clock=clock)
    for index in range(600):
        clock.step_wall(3600 if index % 2 else -3600)
        grid.poll_once()
        clock.advance(1)
    assert len(source.asked_at) <= 11


def test_a_provider_that_refuses_is_not_asked_sooner_for_a_step() -> None:
    clock, source = FakeClock(), FakeSource()
    source.error = Outcome.HTTP_429
    source.retry_after_s = 3600
    grid = feed(source, clock=clock)
    grid.poll_once()
    clock.advance(120)
    clock.step_wall(7200)
    grid.poll_once()
    assert len(source.asked_at) == 1


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


# ── over a real connection ──────────────────────────────────────────────────────────────────────


def test_nobody_waits_for_a_provider_that_hangs() -> None:
    clock = FakeClock()
    with GridServer(play.silent()) as server:
        source = Neso(HttpClient(deadline_s=60), url=server.url)
        grid = Feed([source], TABLE, clock, max_age_ns=MAX_AGE)
        asking = threading.Thread(target=grid.poll_once)
        asking.start()
        while not server.requests:
            asking.join(0.005)
        # The request is in flight and will stay so for as long as the server likes.
        assert grid.at(clock.wall_ns).level == FallbackLevel.TABLE
        assert grid.statuses()[0].outcomes == {}
        assert asking.is_alive()
    asking.join(10)
    assert grid.statuses()[0].outcomes == {"connect_error": 1}


def test_provenance_flips_with_each_reply_and_back() -> None:
    clock = FakeClock(wall_ns=1_516_451_400 * NS_PER_S + MINUTE)  # 2018-01-20T12:31Z
    with GridServer(play.reply(503)) as server:
        source = Neso(HttpClient(deadline_s=5), url=server.url)
        grid = Feed([source], TABLE, clock, max_age_ns=MAX_AGE)
        seen = []
        for script in (
            play.reply(503),
            play.reply(body=play.neso_body(actual=5000)),
            play.reply(body=play.neso_body(actual=None)),
            play.reply(body=b'{"data": NaN}'),
            play.reply(body=play.neso_body()),
        ):
            server.script = script
            run(grid, clock, 2400)
            choice = grid.at(clock.wall_ns)
            seen.append((choice.signal.source, choice.signal.intensity_ug_per_kwh // UG_PER_G))
    assert seen == [("table", 217), ("table", 217), ("neso", 266), ("neso", 266), ("neso", 263)]
    outcomes = grid.statuses()[0].outcomes
    assert set(outcomes) == {"ok", "http_5xx", "bad_value", "bad_json"}


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
