"""A node behind a relay that changes its source, or that is listed in a source's place."""

from __future__ import annotations

from typing import Any

import pytest

import grid_server as play
from fakes import FakeClock
from grid_feeds import HALF_HOUR, HOUR, MAX_AGE, MINUTE, T0, TABLE, FakeSource, run, signal
from grid_server import GridServer
from wattledger.grid.client import HttpClient
from wattledger.grid.feed import Feed
from wattledger.grid.kinds import SourceConfig, build_sources
from wattledger.grid.relay_reply import instant_text
from wattledger.grid.wattledger_source import Wattledger
from wattledger.model import Basis, FallbackLevel

DAY = 24 * HOUR
FIRST: dict[str, Any] = {"source": "electricity_maps", "basis": "lifecycle", "cadence_s": 3600}
BACKUP: dict[str, Any] = {"source": "neso", "basis": "generation", "cadence_s": 900}


def told(voice: dict[str, Any], *starts_ns: int, grams: int = 300, **more: Any) -> dict[str, Any]:
    """A relay's newest signals of one of its two sources."""
    lasts_ns = voice["cadence_s"] * 10**9
    return {
        "zone": "GB",
        **voice,
        "sources": [{**one, "history": True, "forecast": False} for one in (FIRST, BACKUP)],
        "signals": [
            {
                "valid_from": instant_text(start_ns),
                "valid_to": instant_text(start_ns + lasts_ns),
                "intensity_ug_per_kwh": str(grams * 10**6),
                "ewif_ul_per_kwh": None,
                "estimated": False,
                "fetched_at": instant_text(start_ns),
                **more,
            }
            for start_ns in starts_ns
        ],
    }


def node_of(url: str, zone: str = "GB", name: str = "wattledger") -> Wattledger:
    return Wattledger(HttpClient(), zone=zone, url=url, name=name, sleep=lambda _s: None)


def feed_of(*sources: Any, clock: FakeClock, **more: Any) -> Feed:
    return Feed(sources, TABLE, clock, max_age_ns=MAX_AGE, **more)


def to(feed: Feed, clock: FakeClock, server: GridServer, at_ns: int, body: dict[str, Any]) -> None:
    """From an instant on the relay says something else, and it is asked."""
    run(feed, clock, (at_ns - clock.wall_ns) / 10**9 - 1)
    before = len(server.requests)
    server.script = play.reply(body=body)
    while len(server.requests) == before:
        clock.advance(feed.poll_once())


def test_who_is_preferred_again_prices_at_once_whatever_its_backup_said_last() -> None:
    """Its hour began before the backup's last quarter did."""
    clock = FakeClock()
    with GridServer(play.reply(body=told(FIRST, T0))) as server:
        feed = feed_of(node_of(server.url), clock=clock)
        feed.poll_once()
        quarters = [T0 + 4 * HOUR + n * 15 * MINUTE for n in range(2)]
        to(feed, clock, server, T0 + 4 * HOUR + 16 * MINUTE, told(BACKUP, *quarters, grams=30))
        assert feed.at(clock.wall_ns).signal.source == "neso"
        assert feed.statuses()[0].message == "", "two sources are no jump of one"
        to(feed, clock, server, clock.wall_ns, told(FIRST, T0 + 4 * HOUR, grams=310))
        now = feed.at(clock.wall_ns)
        assert (now.signal.source, now.level) == ("electricity_maps", FallbackLevel.LIVE)
        assert feed.behind(clock.wall_ns).signals[-1].source == "electricity_maps"  # type: ignore[union-attr]
        again = feed_of(node_of(server.url), clock=clock, remembered=feed.signals())
        assert again.at(clock.wall_ns) == now, "and after a restart"


def test_what_the_backup_said_before_stays() -> None:
    clock = FakeClock()
    with GridServer(play.reply(body=told(BACKUP, T0 - HOUR, T0))) as server:
        feed = feed_of(node_of(server.url), clock=clock)
        feed.poll_once()
        to(feed, clock, server, T0 + 60 * 10**9, told(FIRST, T0, grams=310))
        assert feed.at(clock.wall_ns).signal.source == "electricity_maps"
        assert feed.at(T0 - HOUR + MINUTE).signal.source == "neso"


def test_a_relay_is_asked_at_the_pace_of_who_answered_last() -> None:
    clock = FakeClock()
    with GridServer(play.reply(body=told(BACKUP, T0))) as server:
        feed = feed_of(node_of(server.url), clock=clock)
        feed.poll_once()
        to(feed, clock, server, T0 + 60 * 10**9, told(FIRST, T0 - HALF_HOUR))
        before = len(server.requests)
        run(feed, clock, 1800 - 60)  # its hour ends half an hour later
        assert len(server.requests) - before <= 1


def test_a_relay_whose_source_lapses_is_asked_whose_word_stands_now() -> None:
    clock = FakeClock()
    with GridServer(play.reply(body=told(FIRST, T0))) as server:
        feed = feed_of(node_of(server.url), clock=clock)
        run(feed, clock, 3 * 3600 - 120)
        assert feed.at(clock.wall_ns).level == FallbackLevel.LIVE
        server.script = play.reply(body=told(BACKUP, T0 + 3 * HOUR))
        run(feed, clock, 240)
        assert feed.at(clock.wall_ns).signal.source == "neso"


def test_remembered_words_of_several_sources_are_taken_up_the_last_one_first() -> None:
    """A node that asked them itself before it was given a relay."""
    clock = FakeClock()
    clock.advance(1700)
    backup = signal(T0 + 15 * MINUTE, 30, source="neso", fetched_at_ns=T0 + 16 * MINUTE)
    preferred = signal(
        T0, 300, source="electricity_maps", fetched_at_ns=T0 + 20 * MINUTE, cadence_ns=HOUR
    )
    for order in ([backup, preferred], [preferred, backup]):
        feed = feed_of(node_of("http://127.0.0.1:1"), clock=clock, remembered=order)
        assert feed.at(clock.wall_ns).signal == preferred


def test_a_new_way_to_the_same_source_goes_on_with_its_last_good() -> None:
    """SIGHUP: from the source to a relay of it, and back."""
    clock = FakeClock()
    direct = feed_of(FakeSource("neso"), clock=clock)
    direct.poll_once()
    known = direct.at(T0)
    dead = node_of("http://127.0.0.1:1")
    relayed = feed_of(dead, clock=clock)
    relayed.inherit(direct)
    assert relayed.at(T0) == known
    back = feed_of(FakeSource("neso"), clock=clock)
    back.inherit(relayed)
    assert back.at(T0) == known
    other = feed_of(FakeSource("rte"), clock=clock)
    other.inherit(relayed)
    assert other.at(T0).level == FallbackLevel.TABLE
    both = feed_of(dead, FakeSource("neso"), clock=clock)
    both.inherit(direct)
    assert both.behind(T0).source.name == "neso", "its own word is nobody else's"  # type: ignore[union-attr]
    changed = FakeSource("neso")
    changed.error = None
    changed_feed = feed_of(changed, clock=clock)
    changed_feed.inherit(relayed)
    changed_feed.poll_once()
    assert changed.asked_at, "another way is tried at once"


@pytest.mark.parametrize("zone", ["10YDE-VE-------2", "GB", "DK-DK1", "CAISO_NORTH", "a.b-c_d"])
def test_a_zone_is_called_as_the_relay_calls_it(zone: str) -> None:
    config = SourceConfig("wattledger", zone, url="https://relay.example:19401")
    [source] = build_sources([config], HttpClient())
    assert source.zone == zone


@pytest.mark.parametrize("zone", ["", "-GB", ".", "G B", "G/B", "GB\n", "x" * 65, "é"])
def test_what_is_no_name_of_a_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError):
        node_of("https://relay.example:19401", zone)


def test_a_signal_may_be_valid_for_a_month_as_in_the_file_of_a_contract() -> None:
    body = told(FIRST, T0 - DAY, valid_to=instant_text(T0 + 30 * DAY))
    with GridServer(play.reply(body=body)) as server:
        [found] = node_of(server.url).latest(T0)
        assert found.valid_to_ns == T0 + 30 * DAY and found.basis is Basis.LIFECYCLE
