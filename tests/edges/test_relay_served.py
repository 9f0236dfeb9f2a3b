"""A relay: one request to a source for any number of clients, whatever state the source is in."""

from __future__ import annotations

import json
import threading
import time

import pytest

from fakes import FakeClock
from grid_feeds import HALF_HOUR, HOUR, MAX_AGE, T0, TABLE, FakeSource
from relays import Upstream, at_once, relayed
from wattledger.config import parse_config
from wattledger.errors import ConfigError
from wattledger.grid.feed import Feed
from wattledger.grid.outcome import Outcome
from wattledger.model import Basis
from wattledger.relay.past import DAY_NS, RECENT, History
from wattledger.relay.places import places_of
from wattledger.units import NS_PER_S, UG_PER_G

LATEST, FORECAST = "/grid/v1/latest?zone=GB", "/grid/v1/forecast?zone=GB"


def history_of(start_ns: int, end_ns: int, more: str = "") -> str:
    return f"/grid/v1/history?zone=GB&from={start_ns // NS_PER_S}&to={end_ns // NS_PER_S}{more}"


def test_what_is_new_says_who_knows_it_and_how_old_it_is() -> None:
    with relayed() as served:
        served.clock.advance(90)
        found = served.get(LATEST)
        assert found.status == 200 and found.headers["age"] == "90"
        told = json.loads(found.body)
        assert (told["zone"], told["source"], told["basis"]) == ("GB", "first", "generation")
        assert (told["fresh"], told["age_s"], told["cadence_s"]) == (True, 90, 1800)
        [newest] = told["signals"]
        assert newest == {
            "valid_from": "2027-01-15T07:30:00Z",
            "valid_to": "2027-01-15T08:00:00Z",
            "intensity_ug_per_kwh": "100000000",
            "ewif_ul_per_kwh": None,
            "estimated": False,
            "fetched_at": "2027-01-15T08:00:00Z",
        }
        assert told["sources"] == [
            {
                "source": "first",
                "basis": "generation",
                "cadence_s": 1800,
                "history": True,
                "forecast": True,
            }
        ]


def test_a_stampede_for_what_is_new_is_one_request() -> None:
    upstream = Upstream()
    with relayed(upstream) as served:
        found = at_once(200, lambda: served.get(LATEST).status)
    assert found == [200] * 200
    assert len(upstream.asked_at) == 1


def test_a_stampede_for_the_past_and_for_the_forecast_is_one_request_each() -> None:
    upstream = Upstream()
    with relayed(upstream) as served:
        upstream.open.clear()
        span = history_of(T0 - 5 * HOUR, T0)
        calls = [lambda: served.get(span).status, lambda: served.get(FORECAST).status] * 100
        turn = iter(calls)
        opener = threading.Timer(0.5, upstream.open.set)
        opener.start()
        found = at_once(200, lambda: next(turn)())
        opener.join()
    assert found == [200] * 200
    assert (len(upstream.asked), upstream.forecasts) == (1, 1)


def test_a_source_that_is_down_is_left_alone_and_its_last_good_told_with_its_age() -> None:
    upstream = Upstream()
    with relayed(upstream) as served:
        upstream.error = Outcome.HTTP_5XX
        served.clock.advance(2 * 1800)
        served.place.feed.poll_once()
        assert len(upstream.asked_at) == 2
        found = at_once(50, lambda: served.json(LATEST))
        served.place.feed.poll_once()
        assert len(upstream.asked_at) == 2, "a minute's rest, however many ask"
        assert {(told["fresh"], told["age_s"]) for told in found} == {(False, 3600)}
        served.clock.advance(MAX_AGE // NS_PER_S)
        gone = served.get(LATEST)
        assert gone.status == 503 and int(gone.headers["retry-after"]) >= 1
        assert "first: out" in json.loads(gone.body)["hint"]


def test_a_source_that_never_answered_is_said_so_to_all_at_the_cost_of_one_request() -> None:
    upstream = Upstream()
    upstream.error = Outcome.HTTP_401
    with relayed(upstream) as served:
        found = at_once(50, lambda: served.get(LATEST).status)
        forecasts = at_once(50, lambda: served.get(FORECAST).status)
        pasts = at_once(50, lambda: served.get(history_of(T0 - HOUR, T0)))
        assert (set(found), set(forecasts)) == ({503}, {503})
        assert {one.status for one in pasts} == {503}
        assert all(int(one.headers["retry-after"]) > 5 for one in pasts)
        # A token that is refused for what is new is not tried for the rest.
        assert (len(upstream.asked_at), upstream.forecasts, len(upstream.asked)) == (1, 0, 0)
        served.clock.advance(899)
        assert served.get(FORECAST).status == 503 and upstream.forecasts == 0, "401: slowly"
        served.clock.advance(2)
        upstream.error = None
        assert served.get(FORECAST).status == 200 and upstream.forecasts == 1
        assert served.get(history_of(T0 - HOUR, T0)).status == 200


def test_clients_need_not_wait_for_a_source_that_hangs() -> None:
    upstream = Upstream()
    upstream.open.clear()
    with relayed(upstream, first_s=0.1) as served:
        begun = time.monotonic()
        assert served.get(LATEST).status == 503
        assert served.get("/healthz").status == 200
        assert time.monotonic() - begun < 10


def test_who_has_it_already_is_told_that_it_holds() -> None:
    with relayed() as served:
        mark = served.get(LATEST).headers["etag"]
        served.clock.advance(60)
        same = served.get(LATEST, If_None_Match=f'"x", {mark}')
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", mark)
        assert same.headers["age"] == "60" and "content-length" not in same.headers
        served.clock.advance(1800)
        served.place.feed.poll_once()
        assert served.get(LATEST, If_None_Match=mark).status == 200


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/grid/v1/latest", 400, "GB"),
        ("/grid/v1/latest?zone=FR", 400, "GB"),
        ("/grid/v1/latest?zone=GB&basis=clean", 400, "lifecycle"),
        ("/grid/v1/latest?zone=GB&basis=lifecycle", 404, "first (generation) only"),
        ("/grid/v1/latest?zone=GB&token=x", 400, "not known"),
        ("/grid/v1/history?zone=GB", 400, "from"),
        (history_of(T0, T0 - HOUR), 400, "before"),
        (history_of(T0 - 11 * 24 * HOUR, T0), 400, "10 days"),
        (history_of(T0 - 63 * 24 * HOUR, T0 - 62 * 24 * HOUR), 400, "62 days"),
        (history_of(T0 - HOUR, T0, "&source=other"), 404, "past"),
        (history_of(T0 - HOUR, T0, "&source=first&source=first"), 400, "twice"),
        ("/api/v1/totals", 404, "/grid/v1/latest"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_sentence(path: str, status: int, says: str) -> None:
    upstream = Upstream()
    with relayed(upstream) as served:
        assert says in served.json(path, status)["error"]
    assert upstream.asked == []


def test_the_page_counts_clients_and_requests_to_sources_apart() -> None:
    with relayed() as served:
        for _ in range(3):
            served.get(LATEST)
        served.get(FORECAST)
        served.get(history_of(T0 - HOUR, T0))
        served.get("/x" * 50)
        page = served.get("/metrics").body.decode()
    for line in (
        'wattledger_relay_requests_total{path="/grid/v1/latest",status="200"} 3.0',
        'wattledger_relay_requests_total{path="(other)",status="404"} 1.0',
        *(
            f'wattledger_relay_upstream_requests_total{{grid_zone="GB",outcome="ok",{of}}} 1.0'
            for of in (f'source="first",what="{w}"' for w in ("latest", "forecast", "history"))
        ),
        'wattledger_relay_fallback_level{grid_zone="GB"} 0.0',
        (
            "wattledger_grid_carbon_intensity_grams_per_kwh"
            '{basis="generation",grid_zone="GB",source="first"} 100.0'
        ),
    ):
        assert line in page.splitlines(), page


# ── the past ────────────────────────────────────────────────────────────────────────────────────


def test_the_last_day_is_asked_for_as_every_plan_allows() -> None:
    """A day of UTC may begin more than a day ago; plans without a past show 24 hours."""
    upstream = Upstream()
    with relayed(upstream) as served:
        served.clock.advance(2_000)
        now_ns = served.clock.wall_ns
        told = served.json(history_of(now_ns - 22 * HOUR, now_ns))
        assert len(told["signals"]) == 45
        [(start_ns, end_ns)] = upstream.asked
        assert now_ns - 23 * HOUR < start_ns <= now_ns - 22 * HOUR and end_ns == now_ns


def test_nodes_that_ask_at_different_times_for_other_spans_share_what_was_fetched() -> None:
    upstream = Upstream()
    with relayed(upstream) as served:
        for minutes in range(40):
            now_ns = served.clock.wall_ns
            for first, last in ((22 * HOUR, 0), (5 * 24 * HOUR, 22 * HOUR)):
                told = served.json(history_of(now_ns - first, now_ns - last))
                starts = [one["valid_from"] for one in told["signals"]]
                assert starts == sorted(set(starts))
                # What was fetched of the last day may be an hour old.
                assert len(starts) >= (first - last) // HALF_HOUR - 2
            served.clock.advance(60 + minutes % 3)
        assert len(upstream.asked) == 2, "the last hours, and six days together but one"


def test_the_past_is_asked_for_again_while_it_may_be_revised() -> None:
    clock, upstream = FakeClock(T0), Upstream()
    history = History(upstream, clock, 10_000)
    old, young = T0 // DAY_NS * DAY_NS - 9 * DAY_NS, T0 // DAY_NS * DAY_NS
    keys = (old, young)
    history.fetch(keys)
    assert len(upstream.asked) == 2 and history.due(keys) == ()
    assert upstream.asked[1] == (young, T0), "nothing of the future"
    upstream.past[young] = 999
    clock.advance(3600)
    assert history.due(keys) == (young,)
    history.fetch(keys)
    assert history.read((young,), young, young + HALF_HOUR).signals[0].intensity_ug_per_kwh == (
        999 * UG_PER_G
    )
    clock.advance(23 * 3600)
    assert history.due(keys) == keys


def test_a_revision_that_fails_leaves_what_was_published_before() -> None:
    clock, upstream = FakeClock(T0), Upstream()
    history = History(upstream, clock, 10_000)
    history.fetch((RECENT,))
    before = history.read((RECENT,), T0 - HOUR, T0)
    clock.advance(3600)
    upstream.error = Outcome.HTTP_5XX
    history.fetch((RECENT,))
    after = history.read((RECENT,), T0 - HOUR, T0)
    assert after.signals == before.signals and after.fetched_ns == T0
    assert (before.stale, after.stale) == (False, True)
    history.fetch((RECENT,))
    assert len(upstream.asked) == 2, "a minute's rest"


def test_the_past_takes_bounded_memory() -> None:
    clock, upstream = FakeClock(T0), Upstream()
    history = History(upstream, clock, 500)
    today = T0 // DAY_NS * DAY_NS
    for days in range(1, 60):
        history.fetch((today - days * DAY_NS,))
        assert history.held <= 500
    assert history.due([today - 59 * DAY_NS]) == ()
    assert history.due([today - DAY_NS]) != ()


def test_what_a_source_asks_for_holds_for_all_of_its_past() -> None:
    class Throttling(Upstream):
        def between(self, *span: int) -> list:  # type: ignore[type-arg, override]
            from wattledger.grid.outcome import failure

            self.asked.append(span[:2])  # type: ignore[arg-type]
            raise failure(Outcome.HTTP_429, "too often", retry_after_s=300.0)

    clock, upstream = FakeClock(T0), Throttling()
    history = History(upstream, clock, 500)
    today = T0 // DAY_NS * DAY_NS
    history.fetch((RECENT,))
    history.fetch((today - DAY_NS, today - 4 * DAY_NS))
    clock.advance(299)
    history.fetch((today - DAY_NS,))
    assert len(upstream.asked) == 1
    assert history.rest_s((today - DAY_NS,)) == 1
    clock.advance(2)
    history.fetch((today - DAY_NS,))
    assert len(upstream.asked) == 2


# ── settings ────────────────────────────────────────────────────────────────────────────────────


def test_each_zone_calls_its_sources_as_a_node_would() -> None:
    config = parse_config(
        '[[grid.source]]\nkind = "neso"\nzone = "GB"\n'
        '[[grid.source]]\nkind = "neso"\nzone = "GB-13"\n'
        '[[grid.source]]\nkind = "energy_charts"\nzone = "DE"\n'
    )
    places = places_of(config, FakeClock())
    assert {
        zone: [one.voice.source for one in place.upstreams] for zone, place in places.items()
    } == {
        "GB": ["neso"],
        "GB-13": ["neso"],
        "DE": ["energy_charts"],
    }


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("", "grid.source", "no source"),
        (
            '[[grid.source]]\nkind = "wattledger"\nzone = "GB"\nurl = "http://127.0.0.1:1"\n',
            "grid.source[0].kind",
            "another relay",
        ),
    ],
)
def test_settings_that_make_no_relay_are_refused(text: str, path: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        places_of(parse_config(text), FakeClock())
    [(where, why)] = caught.value.faults
    assert where == path and says in why


def test_a_node_asks_its_relay_after_that_has_asked() -> None:
    """Else each node would be a period behind all day."""
    from wattledger.grid.feed import RELAY_SHARES

    def due(shares: tuple[int, int] | None, node: str, relayed_one: bool) -> int:
        clock = FakeClock(T0)
        source = FakeSource()
        if relayed_one:
            source.heard = True  # type: ignore[attr-defined]
            source.may_give = lambda *_: True  # type: ignore[attr-defined]
            source.voices = lambda _now: []  # type: ignore[attr-defined]
        more = {} if shares is None else {"shares": shares}
        feed = Feed([source], TABLE, clock, max_age_ns=MAX_AGE, node=node, **more)  # type: ignore[list-item, arg-type]
        feed.poll_once()
        clock.advance(60)
        while len(source.asked_at) == 1:
            clock.advance(min(feed.poll_once(), 5.0))
        return (source.asked_at[1] - T0) * 1000 // HALF_HOUR

    relay = [due(RELAY_SHARES, f"n{n}", False) for n in range(20)]
    nodes = [due(None, f"n{n}", True) for n in range(20)]
    assert max(relay) < 160 and min(nodes) >= 149 and max(nodes) < 260
    assert len(set(nodes)) > 5, "each at its own time"


def test_signals_of_marginal_intensities_are_forecasts_only() -> None:
    marginal = Upstream("watttime")
    marginal.basis = Basis.MARGINAL  # type: ignore[misc]
    with relayed(marginal) as served:
        assert served.get(LATEST).status == 404
        assert served.json(FORECAST)["basis"] == "marginal"
        assert served.get(history_of(T0 - HOUR, T0)).status == 404
        [told] = served.json("/grid/v1/sources?zone=GB")["sources"]
    assert (told["basis"], told["history"], told["forecast"]) == ("marginal", False, True)
    assert marginal.asked_at == []
