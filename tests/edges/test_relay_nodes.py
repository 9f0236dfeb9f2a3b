"""Nodes of a relay: the same prices as of the source itself, settled; nothing taken on trust."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bcrypt
import pytest

import grid_server as play
from fakes import SITE, FakeClock
from grid_feeds import HALF_HOUR, HOUR, MAX_AGE, T0, TABLE, signal
from grid_server import GridServer
from ledgers import batch, key, opened
from relays import Upstream, relayed
from settling import live, table_price
from wattledger import build
from wattledger.config import parse_config
from wattledger.core.footprint import footprint, price_of
from wattledger.errors import GridError
from wattledger.grid.client import HttpClient
from wattledger.grid.feed import Feed
from wattledger.grid.history import published, voices
from wattledger.grid.outcome import Outcome
from wattledger.grid.source import History, Outlook, Relay
from wattledger.grid.wattledger_source import Wattledger
from wattledger.ledger import LedgerReader
from wattledger.model import Basis, FallbackLevel, GridSignal
from wattledger.settler import DAY_NS, Settler, SettleSources
from wattledger.units import NS_PER_S

GOOD_ROW = {
    "valid_from": "2027-01-15T07:30:00Z",
    "valid_to": "2027-01-15T08:00:00Z",
    "intensity_ug_per_kwh": "123456789",
    "ewif_ul_per_kwh": "1700000",
    "estimated": False,
    "fetched_at": "2027-01-15T08:00:00Z",
}
VOICE = {"source": "neso", "basis": "generation", "cadence_s": 1800}
GOOD: dict[str, Any] = {
    "zone": "GB",
    **VOICE,
    "sources": [{**VOICE, "history": True, "forecast": True}],
    "signals": [GOOD_ROW],
}


def node_of(url: str, **more: Any) -> Wattledger:
    return Wattledger(HttpClient(), zone="GB", url=url, sleep=lambda _s: None, **more)


def feed_of(source: Any, clock: FakeClock, **more: Any) -> Feed:
    return Feed([source], TABLE, clock, max_age_ns=MAX_AGE, **more)


# ── the same prices ─────────────────────────────────────────────────────────────────────────────


def test_a_price_is_the_same_by_a_relay_and_by_the_source() -> None:
    direct_clock, direct_source = FakeClock(), Upstream("neso")
    direct = feed_of(direct_source, direct_clock)
    with relayed(Upstream("neso")) as served:
        by_relay = feed_of(served.node(), served.clock)
        for _ in range(6):
            direct.poll_once()
            served.place.feed.poll_once()
            by_relay.poll_once()
            for ago in (0, 300, 1700, 4000):
                at_ns = served.clock.wall_ns - ago * NS_PER_S
                assert price_of(by_relay.at(at_ns), SITE) == price_of(direct.at(at_ns), SITE)
            direct_clock.advance(1750)
            served.clock.advance(1750)
        [status] = by_relay.statuses()
        assert status.source == "wattledger" and status.last_signal is not None
        assert status.last_signal.source == "neso", "who knows it"
        assert status.outcomes["ok"] >= 5 and status.basis_fallbacks == 0
        assert by_relay.at(served.clock.wall_ns).signal.source == "neso"


def test_signals_pass_exactly() -> None:
    exact = replace(
        signal(T0 - HALF_HOUR, source="first"),
        intensity_ug_per_kwh=123_456_789,
        ewif_ul_per_kwh=1_765_432,
        estimated=True,
        fetched_at_ns=T0 - 7 * NS_PER_S + 123_456_000,
    )
    upstream = Upstream()
    upstream.given = [exact]
    with relayed(upstream) as served:
        assert served.node().latest(T0) == [exact]


def test_an_outage_of_the_source_is_seen_for_what_it_is_behind_the_relay() -> None:
    upstream = Upstream()
    with relayed(upstream) as served:
        feed = feed_of(served.node(), served.clock)
        feed.poll_once()
        upstream.error = Outcome.HTTP_5XX
        for _ in range(60):
            served.clock.advance(120)
            served.place.feed.poll_once()
            feed.poll_once()
        choice = feed.at(served.clock.wall_ns)
        assert choice.level == FallbackLevel.LAST_GOOD and choice.estimated
        assert choice.signal.fetched_at_ns == T0, "as old as it is"
        served.clock.advance(MAX_AGE // NS_PER_S)
        assert feed.at(served.clock.wall_ns).level == FallbackLevel.TABLE


def test_after_a_restart_the_last_good_of_a_relay_is_known_and_no_marginal_one() -> None:
    clock = FakeClock()
    kept = signal(T0 - HALF_HOUR, 111, source="neso")
    strange = [
        replace(kept, zone="FR", intensity_ug_per_kwh=1),
        replace(kept, basis=Basis.MARGINAL, intensity_ug_per_kwh=2),
        replace(kept, source="table", intensity_ug_per_kwh=3),
    ]
    feed = feed_of(node_of("http://127.0.0.1:1"), clock, remembered=[*strange, kept])
    assert feed.at(T0).signal == kept
    stated = node_of("http://127.0.0.1:1", basis=Basis.LIFECYCLE)
    assert feed_of(stated, clock, remembered=[kept]).at(T0).level == FallbackLevel.TABLE
    own = Upstream("neso")
    both = Feed(
        [node_of("http://127.0.0.1:1"), own], TABLE, clock, max_age_ns=MAX_AGE, remembered=[kept]
    )
    assert both.at(T0).signal == kept and own.asked_at == []


def test_settings_name_a_relay() -> None:
    with relayed(Upstream("neso")) as served:
        text = f'[[grid.source]]\nkind = "wattledger"\nzone = "GB"\nurl = "{served.relay.url}"\n'
        config = parse_config(text)
        feed = build.grid_feed(config, served.clock, ())
        feed.poll_once()
        assert feed.at(T0).signal.source == "neso"
        [source] = build.settle_sources(config).sources
        assert isinstance(source, Relay) and isinstance(source, History)
        assert isinstance(source, Outlook)
        again = build.grid_feed(config, served.clock, ())
        again.inherit(feed)
        assert again.at(T0) == feed.at(T0)
        assert again.statuses()[0].basis_fallbacks == 0


def test_a_relay_wants_its_password_and_tells_it_to_nobody(tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"canary-91", bcrypt.gensalt(4)).decode()
    web = tmp_path / "web.yml"
    web.write_text(f"basic_auth_users:\n  wattledger: {hashed}\n")
    token = tmp_path / "token"
    token.write_text("canary-91\n")
    token.chmod(0o600)
    with relayed(web_config=web) as served:
        with pytest.raises(GridError) as caught:
            served.node().latest(T0)
        assert caught.value.outcome == Outcome.HTTP_401
        assert served.node(token_file=token).latest(T0)
        with pytest.raises(GridError) as caught:
            served.node(token_file=token, user="another").latest(T0)
        assert "canary" not in f"{caught.value!s} {caught.value!r}"


# ── settled by way of a relay ───────────────────────────────────────────────────────────────────


def test_the_past_is_settled_through_a_relay_as_by_the_source(tmp_path: Path) -> None:
    """Booked live, at the last good and at the table; the word and its version are the same."""
    reports, kept = [], []
    for way in ("direct", "relayed"):
        upstream, clock = Upstream(), FakeClock(T0)
        upstream.past = {T0 + n * HALF_HOUR: 300 + n for n in range(-200, 200)}
        path = tmp_path / f"{way}.sqlite"
        ledger = opened(path, clock)
        reader = LedgerReader(path)
        slots = [T0 // NS_PER_S + 1800 * n for n in range(8)]
        prices = [live(T0, 100), live(T0, 120), *[table_price()] * 6]
        entries = {key(s, price=p): 10**9 for s, p in zip(slots, prices, strict=True)}
        ledger.commit(batch(entries), clock.now())
        clock.advance(8 * 1800)
        with relayed(upstream, clock=clock) as served:
            source = upstream if way == "direct" else served.node()

            def take(found: Any) -> None:
                ledger.commit(batch(settlements=tuple(found), devices=()), clock.now())  # noqa: B023

            settler = Settler(SettleSources((source,), "GB"), reader, clock, take)
            report = settler.settle(45 * DAY_NS)
            assert report.changed_slots == 8 and report.problems == ()
            assert report.sources == ("first",)
            assert settler.settle(45 * DAY_NS).changed_slots == 0, "twice changes nothing"
        assert reader.check(footprint) == []
        reports.append(report)
        kept.append(sorted((s.slot_s, s.settled) for s in reader.priced_slots(0, 2**62)))
        reader.close()
        ledger.close()
    assert reports[0] == reports[1] and kept[0] == kept[1]


def test_a_version_of_the_past_is_the_same_word_by_a_relay() -> None:
    upstream = Upstream()
    with relayed(upstream) as served:
        problems: dict[str, GridError] = {}
        [voice] = voices([served.node()], T0, problems)
        span = (T0 - 3 * HOUR, T0, T0)
        by_relay, direct = published(voice.source, *span), published(upstream, *span)
    assert problems == {}
    assert by_relay.history == direct.history
    assert by_relay.signals == direct.signals


def test_a_relay_that_does_not_answer_is_a_problem_of_its_own(tmp_path: Path) -> None:
    upstream, problems = Upstream("second"), {}
    upstream.zone = "GB"  # type: ignore[misc]
    found = voices([node_of("http://127.0.0.1:1"), upstream], T0, problems)  # type: ignore[arg-type]
    assert [one.label for one in found] == ["second"]
    assert list(problems) == ["wattledger"]


def test_a_relay_that_is_still_asking_is_asked_again() -> None:
    later = play.reply(503, {"error": "…"}, {"Retry-After": "2"})
    waits: list[float] = []
    with GridServer(play.in_turn(later, later, play.reply(body=GOOD))) as server:
        source = Wattledger(HttpClient(), zone="GB", url=server.url, sleep=waits.append)
        [voice] = source.voices(T0)
        assert waits == [2.0, 2.0] and voice.name == "neso"
        server.script = later
        with pytest.raises(GridError) as caught:
            voice.between(T0 - HOUR, T0, T0)
        assert caught.value.outcome == Outcome.HTTP_5XX and len(waits) == 2 + 5
        before = len(server.requests)
        with pytest.raises(GridError):
            source.latest(T0)
        assert len(server.requests) == before + 1, "what is new is the feed's to ask again"


def test_a_long_past_is_asked_for_in_parts_that_fit_a_reply() -> None:
    def play_it(connection: Any, request: Any, stop: Any) -> None:
        given = parse_qs(urlsplit(request.target).query)
        assert given["source"] == ["neso"] and given["zone"] == ["GB"]
        connection.sendall(play.message(body=json.dumps({**GOOD, "signals": []}).encode()))

    with GridServer(play.reply(body=GOOD)) as server:
        [voice] = node_of(server.url).voices(T0)
        server.script = play_it
        assert voice.between(T0 - 12 * DAY_NS, T0, T0) == []
        assert len(server.requests) == 1 + 3


def test_what_is_ahead_comes_through_a_relay() -> None:
    with relayed() as served:
        found = served.node().forecast(T0)
        assert found == Upstream().forecast(T0)
        assert [s.intensity_ug_per_kwh for s in found] == [(100 + n) * 10**6 for n in range(8)]
        assert all(s.estimated for s in found)


# ── a relay that is wrong or lies ───────────────────────────────────────────────────────────────

Change = Callable[[dict[str, Any]], Any]


def row(**changes: Any) -> Change:
    return lambda good: {**good, "signals": [{**GOOD_ROW, **changes}]}


def top(**changes: Any) -> Change:
    return lambda good: {**good, **changes}


def behind(**changes: Any) -> Change:
    return lambda good: {**good, "sources": [{**good["sources"][0], **changes}]}


HOSTILE: list[tuple[str, Change]] = [
    ("wrong_zone", top(zone="FR")),
    ("wrong_zone", top(zone=None)),
    ("wrong_zone", lambda _: {}),
    ("bad_value", lambda _: []),
    ("bad_value", top(basis="marginal")),
    ("bad_value", top(basis="lifecycle")),  # not the one that it lists
    ("bad_value", top(basis="clean")),
    ("bad_value", top(basis=None)),
    ("bad_value", top(source="table")),
    ("bad_value", top(source="wattledger")),
    ("bad_value", top(source="rte")),
    ("bad_value", top(source='neso"} 1\n')),
    ("bad_value", top(source=7)),
    ("bad_value", top(cadence_s=0)),
    ("bad_value", top(cadence_s=-1800)),
    ("bad_value", top(cadence_s=1800.0)),
    ("bad_value", top(cadence_s=True)),
    ("bad_value", top(cadence_s=10**9)),
    ("no_data", top(sources=[])),
    ("no_data", top(sources=None)),
    ("bad_value", top(sources={})),
    ("bad_value", behind(history="yes")),
    ("bad_value", behind(basis="x")),
    ("bad_value", lambda good: {**good, "sources": good["sources"] * 2}),
    ("no_data", top(signals=[])),
    ("no_data", top(signals=None)),
    ("bad_value", top(signals="x")),
    ("bad_value", top(signals=[None])),
    ("too_large", top(signals=[GOOD_ROW] * 2_000)),
    ("bad_value", row(intensity_ug_per_kwh=123)),
    ("bad_value", row(intensity_ug_per_kwh="-1")),
    ("bad_value", row(intensity_ug_per_kwh="1e9")),
    ("bad_value", row(intensity_ug_per_kwh="٣")),
    ("bad_value", row(intensity_ug_per_kwh="2000000001")),
    ("bad_value", row(intensity_ug_per_kwh=None)),
    ("bad_value", row(ewif_ul_per_kwh="9999999999")),
    ("bad_value", row(ewif_ul_per_kwh=1.5)),
    ("bad_value", row(estimated="false")),
    ("bad_value", row(estimated=None)),
    ("bad_value", row(valid_to="2027-01-15T07:30:00Z")),
    ("bad_value", row(valid_to="2027-02-15T07:30:01Z")),
    ("bad_value", row(valid_from="2027-01-15T07:30:00")),
    ("bad_value", row(fetched_at=None)),
    ("future", row(fetched_at="2027-01-15T08:06:00Z")),
    ("future", row(valid_from="2027-01-15T08:06:00Z", valid_to="2027-01-15T09:00:00Z")),
    ("stale", row(valid_from="2027-01-14T07:30:00Z", valid_to="2027-01-14T08:00:00Z")),
]


@pytest.mark.parametrize(("outcome", "change"), HOSTILE, ids=lambda value: str(value)[:24])
def test_what_a_relay_may_not_say_prices_nothing(outcome: str, change: Change) -> None:
    with GridServer(play.reply(body=GOOD)) as server:
        clock = FakeClock()
        feed = feed_of(node_of(server.url), clock)
        server.script = play.reply(body=change(GOOD))
        feed.poll_once()
        [status] = feed.statuses()
        assert status.outcomes == {outcome: 1}
        assert feed.at(T0).level == FallbackLevel.TABLE
        server.script = play.reply(body=GOOD)
        clock.advance(70)
        feed.poll_once()
        assert feed.at(T0).signal.source == "neso", "and it is taken up once it is right"


def test_a_life_cycle_intensity_of_nothing_is_refused() -> None:
    voice = {**VOICE, "basis": "lifecycle"}
    zero = {
        **GOOD,
        **voice,
        "sources": [{**voice, "history": True, "forecast": True}],
        "signals": [{**GOOD_ROW, "intensity_ug_per_kwh": "0"}],
    }
    with GridServer(play.reply(body=zero)) as server, pytest.raises(GridError) as caught:
        node_of(server.url).latest(T0)
    assert caught.value.outcome == Outcome.BAD_VALUE


def test_another_basis_than_the_one_that_is_wanted_is_refused() -> None:
    with GridServer(play.reply(body=GOOD)) as server:
        with pytest.raises(GridError) as caught:
            node_of(server.url, basis=Basis.LIFECYCLE).latest(T0)
        assert "basis=lifecycle" in server.requests[0].target
        assert node_of(server.url, basis=Basis.GENERATION).latest(T0)
    assert caught.value.outcome == Outcome.BAD_VALUE


def test_a_source_that_stands_in_on_another_basis_is_counted() -> None:
    first, second = Upstream("neso"), Upstream("rte")
    second.basis = Basis.DIRECT  # type: ignore[misc]
    first.error = Outcome.HTTP_5XX
    second.given = [replace(signal(T0 - HALF_HOUR, source="rte"), basis=Basis.DIRECT)]
    with relayed(first, second) as served:
        feed = feed_of(served.node(), served.clock)
        feed.poll_once()
        assert feed.at(T0).signal.basis is Basis.DIRECT
        assert feed.statuses()[0].basis_fallbacks == 1


def test_another_sources_past_than_the_one_asked_for_is_refused() -> None:
    with GridServer(play.reply(body=GOOD)) as server:
        [voice] = node_of(server.url).voices(T0)
        assert [s.intensity_ug_per_kwh for s in voice.between(T0 - HOUR, T0, T0)] == [123_456_789]
        for lie in ({"source": "rte"}, {"basis": "direct"}, {"zone": "FR"}):
            server.script = play.reply(body={**GOOD, **lie})
            with pytest.raises(GridError):
                voice.between(T0 - HOUR, T0, T0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"zone": "G B"},
        {"url": ""},
        {"url": "http://relay.example:19401"},
        {"url": "https://name:secret@relay.example"},
        {"user": "a:b"},
    ],
)
def test_settings_that_no_relay_can_have_are_refused(wrong: dict[str, str]) -> None:
    options: dict[str, Any] = {"zone": "GB", "url": "https://relay.example:19401", **wrong}
    with pytest.raises(ValueError):
        Wattledger(HttpClient(), **options)


def test_a_relay_of_marginal_intensities_is_never_asked_for_prices() -> None:
    with GridServer(play.reply(body=GOOD)) as server:
        feed = feed_of(node_of(server.url, basis=Basis.MARGINAL), FakeClock())
        feed.poll_once()
        assert server.requests == []
        assert "marginal" in feed.statuses()[0].message


@pytest.mark.parametrize("cadence_s", [60, 300, 900, 3600, 86_400])
def test_no_part_of_the_past_outgrows_a_reply(cadence_s: int) -> None:
    """Whatever a source publishes how often, its past comes in replies that are taken."""
    cadence_ns = cadence_s * NS_PER_S

    class Frequent(Upstream):
        def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
            return [
                replace(
                    signal(at_ns, 100, source=self.name, fetched_at_ns=now_wall_ns + 123_000),
                    valid_to_ns=at_ns + cadence_ns,
                    cadence_ns=cadence_ns,
                    ewif_ul_per_kwh=17_000_000,
                )
                for at_ns in range(start_ns // cadence_ns * cadence_ns, end_ns, cadence_ns)
            ]

    upstream = Frequent()
    upstream.cadence_ns = cadence_ns  # type: ignore[misc]
    with relayed(upstream) as served:
        [voice] = served.node().voices(T0)
        assert len(voice.between(T0 - 6 * DAY_NS, T0, T0)) == 6 * 86_400 // cadence_s + (
            1 if T0 % cadence_ns else 0
        )
