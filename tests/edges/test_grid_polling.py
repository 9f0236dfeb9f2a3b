"""When the feed asks its sources: politely, after a sleep or a step, and nobody waits for it."""

from __future__ import annotations

import threading

import pytest

import grid_server as play
from fakes import FakeClock
from grid_feeds import HALF_HOUR, HOUR, MAX_AGE, MINUTE, T0, TABLE, FakeSource, feed, run, signal
from grid_server import GridServer
from wattledger.grid.client import HttpClient
from wattledger.grid.feed import Feed
from wattledger.grid.neso import Neso
from wattledger.grid.outcome import Outcome
from wattledger.model import FallbackLevel, GridSignal
from wattledger.units import NS_PER_S, UG_PER_G

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
