"""A relay under strain: one patience for each source, what fits in memory, clocks that were set."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from fakes import FakeClock
from grid_feeds import HALF_HOUR, HOUR, MINUTE, T0, FakeSource, signal
from relays import Upstream, at_once, relayed
from wattledger.errors import GridError
from wattledger.grid.outcome import Outcome, failure
from wattledger.model import Basis, GridSignal
from wattledger.relay.past import DAY_NS, RECENT, History, NotYet
from wattledger.relay.places import fitting
from wattledger.settler import _spans
from wattledger.units import NS_PER_S

LATEST, FORECAST = "/grid/v1/latest?zone=GB", "/grid/v1/forecast?zone=GB"


def history_of(start_ns: int, end_ns: int) -> str:
    return f"/grid/v1/history?zone=GB&from={start_ns // NS_PER_S}&to={end_ns // NS_PER_S}"


PAST = history_of(T0 - 2 * HOUR, T0)


class Strict(Upstream):
    """A provider that refuses some kinds of questions, and counts all."""

    def __init__(self, outcome: Outcome, *refused: str, retry_after_s: float | None = None) -> None:
        super().__init__()
        self.outcome, self.refused, self.wants_s = outcome, refused, retry_after_s
        self.questions: list[str] = []

    def _question(self, what: str) -> None:
        self.questions.append(what)
        if what in self.refused:
            raise failure(self.outcome, "not now", retry_after_s=self.wants_s)

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        self._question("latest")
        return super().latest(now_wall_ns)

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        self._question("history")
        return super().between(start_ns, end_ns, now_wall_ns)

    def forecast(self, now_wall_ns: int) -> list[GridSignal]:
        self._question("forecast")
        return super().forecast(now_wall_ns)


# ── one patience ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("outcome", "wants_s", "pause_s"),
    [
        (Outcome.HTTP_429, 3600.0, 3600),
        (Outcome.HTTP_5XX, 700.0, 700),
        (Outcome.HTTP_401, None, 900),
        (Outcome.HTTP_403, None, 900),
    ],
)
def test_a_source_that_refuses_the_newest_is_asked_nothing_else_meanwhile(
    outcome: Outcome, wants_s: float | None, pause_s: int
) -> None:
    upstream = Strict(outcome, "latest", retry_after_s=wants_s)
    with relayed(upstream) as served:
        for path in (FORECAST, PAST):
            refused = served.get(path)
            assert refused.status == 503
            assert pause_s - 2 <= int(refused.headers["retry-after"]) <= pause_s + 1
            assert "not now" in json.loads(refused.body)["hint"]
        served.clock.advance(pause_s - 2)
        assert served.get(FORECAST).status == served.get(PAST).status == 503
        assert upstream.questions == ["latest"]
        served.clock.advance(4)
        assert served.get(FORECAST).status == served.get(PAST).status == 200
        assert upstream.questions == ["latest", "forecast", "history"]
        page = served.get("/metrics").body.decode()
    assert f'outcome="{outcome}",source="first",what="latest"}} 1.0' in page


@pytest.mark.parametrize("kind", ["forecast", "history"])
def test_too_often_holds_for_the_newest_too_and_is_no_question_more(kind: str) -> None:
    upstream = Strict(Outcome.HTTP_429, kind, retry_after_s=7200.0)
    with relayed(upstream) as served:
        assert served.get(FORECAST if kind == "forecast" else PAST).status == 503
        assert served.get(PAST if kind == "forecast" else FORECAST).status == 503
        for _ in range(7):
            served.clock.advance(1000)
            served.place.feed.poll_once()
        assert upstream.questions == ["latest", kind]
        told = served.json(LATEST)
        assert not told["fresh"], "it lapsed, and is told with its age"
        page = served.get("/metrics").body.decode()
        assert 'outcome="http_429",source="first",what="latest"' not in page, "nobody asked that"
        served.clock.advance(201)
        served.place.feed.poll_once()
        assert upstream.questions == ["latest", kind, "latest"]
        assert served.json(LATEST)["fresh"]


def test_a_plan_without_a_past_does_not_stop_what_is_new() -> None:
    """A token that may ask for the newest only is refused (403) the rest."""
    upstream = Strict(Outcome.HTTP_403, "history", "forecast")
    with relayed(upstream) as served:
        assert served.get(PAST).status == served.get(FORECAST).status == 503
        served.clock.advance(1800 + 500)
        served.place.feed.poll_once()
        assert upstream.questions == ["latest", "history", "forecast", "latest"]
        assert served.json(LATEST)["fresh"]


# ── what fits ───────────────────────────────────────────────────────────────────────────────────


class Frequent(FakeSource):
    """A source with a past at any cadence."""

    def __init__(self, cadence_ns: int) -> None:
        super().__init__()
        self.cadence_ns = cadence_ns  # type: ignore[misc]
        self.requests = 0

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        self.requests += 1
        cadence_ns = self.cadence_ns
        return [
            signal(
                at_ns,
                valid_to_ns=at_ns + cadence_ns,
                cadence_ns=cadence_ns,
                fetched_at_ns=now_wall_ns,
            )
            for at_ns in range(start_ns // cadence_ns * cadence_ns, end_ns, cadence_ns)
        ]


def settle(history: History, now_ns: int) -> None:
    """What a node asks for that settles 45 days."""
    for start_ns, end_ns in _spans(now_ns - 45 * DAY_NS, now_ns + 1):
        keys = history.parts(start_ns, end_ns)
        for _ in range(4):
            history.fetch(history.due(keys))
            try:
                history.read(keys, start_ns, end_ns)
                break
            except NotYet:
                continue
        else:
            raise AssertionError("never answered")


@pytest.mark.parametrize(("sources", "minutes"), [(1, 1), (1, 5), (10, 5), (30, 15), (60, 30)])
def test_many_nodes_settle_through_one_relay_at_the_cost_of_one(sources: int, minutes: int) -> None:
    clock, source = FakeClock(), Frequent(minutes * MINUTE)
    most = fitting([minutes * MINUTE] * sources)
    history = History(source, clock, most[0])
    settle(history, clock.wall_ns)
    first = source.requests
    for _ in range(3):
        clock.advance(2)
        settle(history, clock.wall_ns)
    assert source.requests == first <= 20


def test_more_than_fits_is_said_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert fitting([30 * MINUTE] * 60) == [fitting([30 * MINUTE])[0]] * 60
        assert caplog.messages == []
        most = fitting([MINUTE] * 200)
    assert len(caplog.messages) == 1 and "46 days" in caplog.messages[0]
    assert max(most) < 46 * 1440


def test_a_reply_has_bounded_length() -> None:
    source = Upstream()
    source.cadence_ns = MINUTE  # type: ignore[misc]
    with relayed(source) as served:
        told = served.json(history_of(T0 - 3 * DAY_NS, T0), 400)
        assert "2000" in told["error"] and "shorter" in told["error"]
        assert source.asked == [], "and costs no request"
        assert served.get(history_of(T0 - DAY_NS, T0)).status == 200


def test_what_is_told_of_the_past_is_what_was_given() -> None:
    upstream = Upstream()
    upstream.ewif_ul_per_kwh = 1_234_567
    upstream.gaps = {T0 - 30 * HOUR}
    upstream.past = {T0 - 31 * HOUR: 0, T0 - 32 * HOUR: 999}
    with relayed(upstream) as served:
        for start_ns, end_ns in (
            (T0 - 3 * DAY_NS, T0 - 25 * HOUR),
            (T0 - 40 * HOUR + MINUTE, T0 - 26 * HOUR - MINUTE),
        ):
            for _ in range(2):  # the second time as it was kept
                [voice] = served.node().voices(T0)
                assert voice.between(start_ns, end_ns, T0) == upstream.between(start_ns, end_ns, T0)


# ── clocks ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ahead_s", [3 * 86_400, 1_200])
def test_a_clock_that_was_ahead_leaves_nothing_behind(ahead_s: int) -> None:
    clock, upstream = FakeClock(), Upstream()
    clock.step_wall(ahead_s)
    with relayed(upstream, clock=clock) as served:
        early = [history_of(T0 - 5 * DAY_NS, T0 - 4 * DAY_NS), FORECAST]
        assert [served.get(path).status for path in early] == [200, 200]
        clock.step_wall(-ahead_s)
        for path in early:
            assert newest_fetch(served.json(path)) == "2027-01-15T08:00:00Z"
        assert upstream.forecasts == 2 and len(upstream.asked) == 2, "both anew"
        if ahead_s < 1800:  # its time is this one, and only the stamp was wrong
            assert newest_fetch(served.json(LATEST)) == "2027-01-15T08:00:00Z"
        clock.advance(61)
        served.place.feed.poll_once()
        told = served.json(LATEST)
        assert newest_fetch(told) == "2027-01-15T08:01:01Z" and told["age_s"] == 0


def test_what_was_asked_by_a_clock_that_is_set_meanwhile_is_not_kept() -> None:
    clock = FakeClock()

    class Slow(Upstream):
        def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
            found = super().between(start_ns, end_ns, now_wall_ns)
            if len(self.asked) == 1:
                clock.step_wall(-1_200)
                assert history.due((RECENT,)) == (RECENT,)
            return found

    upstream = Slow()
    history = History(upstream, clock, 10_000)
    history.fetch((RECENT,))
    assert history.held == 0 and history.due((RECENT,)) == (RECENT,)
    history.fetch((RECENT,))
    assert history.read((RECENT,), T0 - HOUR, T0).fetched_ns == clock.wall_ns


def test_a_failure_told_to_many_gathers_nothing() -> None:
    clock, upstream = FakeClock(), Upstream()
    upstream.error = Outcome.HTTP_5XX
    history = History(upstream, clock, 10_000)
    history.fetch((RECENT,))
    depths = []
    for _ in range(5):
        with pytest.raises(GridError) as caught:
            history.read((RECENT,), T0 - HOUR, T0)
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1


def newest_fetch(told: dict[str, Any]) -> str:
    return str(max(one["fetched_at"] for one in told["signals"]))


def test_the_last_day_is_one_part_though_the_hour_turns_on_the_way() -> None:
    clock = FakeClock()
    history = History(Upstream(), clock, 10_000)
    node_ns = T0 + HOUR - NS_PER_S
    start_ns = (node_ns - 22 * HOUR) // (5 * MINUTE) * (5 * MINUTE)
    for late_s in (0, 2, 200):
        clock.wall_ns = node_ns + late_s * NS_PER_S
        assert history.parts(start_ns, node_ns) == (RECENT,)
        assert clock.wall_ns - start_ns < DAY_NS


def test_the_last_day_is_asked_for_as_every_plan_allows_at_each_minute_of_the_hour() -> None:
    """`ElectricityMaps` asks its free endpoint for what began within 23 hours, a paid one else."""
    for minute in range(60):
        clock, upstream = FakeClock(), Upstream()
        history = History(upstream, clock, 10_000)
        clock.wall_ns = now_ns = T0 // HOUR * HOUR + minute * MINUTE + NS_PER_S
        history.fetch((RECENT,))
        [(start_ns, end_ns)] = upstream.asked
        assert now_ns - 23 * HOUR <= start_ns <= now_ns - 22 * HOUR and end_ns == now_ns


# ── bases ───────────────────────────────────────────────────────────────────────────────────────


def test_the_basis_of_a_source_behind_another_can_be_had() -> None:
    first, second = FakeSource("neso"), FakeSource("electricity_maps")
    second.basis = Basis.LIFECYCLE  # type: ignore[misc]
    second.given = [signal(T0 - HALF_HOUR, 77, source="electricity_maps", basis=Basis.LIFECYCLE)]
    with relayed(first, second) as served:
        assert served.json(LATEST)["source"] == "neso" and second.asked_at == []
        path = f"{LATEST}&basis=lifecycle"
        found = at_once(20, lambda: served.json(path))
        assert {(told["source"], told["basis"]) for told in found} == {
            ("electricity_maps", "lifecycle")
        }
        assert len(second.asked_at) == 1, "one request, begun with the first who wants it"
        assert [s.basis for s in served.node(basis=Basis.LIFECYCLE).latest(T0)] == [Basis.LIFECYCLE]
        assert served.json(f"{LATEST}&basis=generation")["source"] == "neso"
        # The first is out: the second serves for both, and is still asked once.
        first.error = Outcome.HTTP_5XX
        served.clock.advance(2 * 1800 + 60)
        second.given = None
        second.given = [
            signal(T0 + HALF_HOUR, 78, source="electricity_maps", basis=Basis.LIFECYCLE)
        ]
        for feed in served.place.feeds():
            feed.poll_once()
        assert len(second.asked_at) == 2
        assert served.json(LATEST)["source"] == "electricity_maps"


def test_a_basis_that_no_source_has_is_refused_with_those_that_there_are() -> None:
    with relayed(Upstream("neso")) as served:
        told = served.json(f"{LATEST}&basis=lifecycle", 404)
        assert "neso" in told["error"] and "generation" in told["error"]


# ── deadlines ───────────────────────────────────────────────────────────────────────────────────


def test_two_forecasts_that_hang_share_one_deadline() -> None:
    first, second = Upstream("first"), Upstream("second")
    with relayed(first, second, wait_s=2.0) as served:
        first.open.clear()
        second.open.clear()
        begun = time.monotonic()
        assert served.get(FORECAST).status == 503
        assert time.monotonic() - begun < 3.8, "one after the other they take 4 s"


def test_the_watchdog_is_fed_only_while_requests_are_answered() -> None:
    with relayed() as served:
        assert served.relay.answers(5.0)
        release = threading.Event()
        served.relay._server._loop.call_soon_threadsafe(release.wait, 20)  # type: ignore[union-attr]
        assert not served.relay.answers(0.1)
        release.set()
        assert served.relay.answers(10.0)


def test_a_relay_speaks_of_no_table(caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream()
    upstream.error = Outcome.HTTP_5XX
    with caplog.at_level(logging.WARNING), relayed(upstream):
        pass
    said: Sequence[str] = caplog.messages
    assert any("nothing to pass on" in line for line in said)
    assert not any("table" in line or "WORLD" in line for line in said)
