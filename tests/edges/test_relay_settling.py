"""Settling by a relay's voices: whose word counts, and what a bad relay may cost at the most."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grid_server as play
from fakes import FakeClock
from grid_feeds import HALF_HOUR, HOUR, MINUTE, T0, signal
from grid_server import GridServer
from settling import Provider, live, table_price
from wattledger import build
from wattledger.config import parse_config
from wattledger.core.settling import needed, plan
from wattledger.errors import GridError
from wattledger.grid.client import HttpClient
from wattledger.grid.history import published, voices
from wattledger.grid.outcome import Outcome
from wattledger.grid.relay_reply import instant_text
from wattledger.grid.wattledger_source import Wattledger
from wattledger.model import Basis, GridSignal, Price, TotalsRow
from wattledger.model.settling import HistoryVersion, PricedSlot, Published, Settlement
from wattledger.settler import DAY_NS, Settler, SettleSources
from wattledger.units import NS_PER_S, SLOT_NS, SLOT_S


class Books:
    """Slots of five minutes up to now, all of one price; they forget what settles them."""

    def __init__(self, price: Price, since_ns: int, until_ns: int) -> None:
        self.slots = [
            PricedSlot(at_ns // NS_PER_S, price, 10**6, None)
            for at_ns in range(since_ns, until_ns, SLOT_NS)
        ]

    def priced_slots(self, since_ns: int, until_ns: int) -> list[PricedSlot]:
        return [s for s in self.slots if since_ns <= s.slot_s * NS_PER_S < until_ns]

    def totals(self, since_ns: int, until_ns: int, by: str) -> list[TotalsRow]:
        return []


def settler_of(
    *sources: Any,
    price: Price,
    clock: FakeClock | None = None,
    days: int = 1,
    own: Any = (),
    written: Callable[[], None] = lambda: None,
) -> tuple[Settler, list[Settlement]]:
    done: list[Settlement] = []

    def take(found: Sequence[Settlement]) -> None:
        done.extend(found)
        written()

    settler = Settler(
        SettleSources(sources, "GB", frozenset(own)),
        Books(price, T0 - days * DAY_NS, T0),
        clock or FakeClock(),
        take,
    )
    return settler, done


class Liar:
    """A relay that says of a span what it is told to, by as many voices as it is told to."""

    def __init__(self, names: list[str], zone: str = "GB", cadence_s: int = 1800) -> None:
        self.names, self.zone, self.cadence_s = names, zone, cadence_s
        self.spans: list[tuple[str, int, int]] = []

    def rows(self, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
        first = start_ns // HALF_HOUR * HALF_HOUR
        return [(at_ns, at_ns + HALF_HOUR) for at_ns in range(first, end_ns, HALF_HOUR)]

    def __call__(self, connection: Any, request: Any, stop: Any) -> None:
        url = urlsplit(request.target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        voice = {"basis": "generation", "cadence_s": self.cadence_s}
        body: dict[str, Any] = {"zone": self.zone}
        if url.path.endswith("/sources"):
            body["sources"] = [
                {"source": name, **voice, "history": True, "forecast": False} for name in self.names
            ]
        else:
            span = play_ns(query["from"]), play_ns(query["to"])
            self.spans.append((query["source"], *span))
            body |= {"source": query["source"], **voice}
            body["signals"] = [
                {
                    "valid_from": instant_text(from_ns),
                    "valid_to": instant_text(to_ns),
                    "intensity_ug_per_kwh": "50000000",
                    "estimated": False,
                    "fetched_at": "2027-01-15T08:00Z",
                }
                for from_ns, to_ns in self.rows(*span)
            ]
        connection.sendall(play.message(body=json.dumps(body, separators=(",", ":")).encode()))


def play_ns(text: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(text).timestamp()) * NS_PER_S


def node_of(url: str, zone: str = "GB", name: str = "wattledger", **more: Any) -> Wattledger:
    options: dict[str, Any] = {"sleep": lambda _s: None, **more}
    return Wattledger(HttpClient(), zone=zone, url=url, name=name, **options)


# ── whose word counts ───────────────────────────────────────────────────────────────────────────


def test_what_a_source_of_ones_own_priced_no_relay_settles() -> None:
    """Listed before it or after it, and whether or not it knows its past itself."""
    own = Provider("prometheus")
    with GridServer(Liar(["prometheus", "neso"])) as server:
        relay = node_of(server.url)
        for listed in ([relay, own], [own, relay]):
            found = voices(listed, T0, {})
            assert [
                (one.source is own, one.label) for one in found if one.source.name == own.name
            ] == [(True, "prometheus")]
            assert "neso via wattledger" in [one.label for one in found]
        settler, done = settler_of(relay, own, price=live(T0, 100, source="prometheus"))
        settler.settle(DAY_NS)
        assert {one.settled.intensity_ug_per_kwh for one in done} == {250 * 10**6}
        alone, nothing = settler_of(
            relay, price=live(T0, 100, source="prometheus"), own=[("prometheus", "GB")]
        )
        report = alone.settle(DAY_NS)
        assert (nothing, report.sources) == ([], ())
        assert report.unpublished_uj > 0


def test_settings_tell_which_sources_are_ones_own() -> None:
    config = parse_config(
        '[[grid.source]]\nkind = "wattledger"\nzone = "GB"\nurl = "http://127.0.0.1:9"\n'
        '[[grid.source]]\nkind = "json"\nzone = "GB"\nurl = "http://127.0.0.1:9/x"\n'
        'pointer = "/v"\nemission_factor_type = "direct"\n'
    )
    found = build.settle_sources(config)
    assert [source.name for source in found.sources] == ["wattledger"]
    assert ("json", "GB") in found.own


def test_a_voice_that_fails_leaves_its_namesakes_alone() -> None:
    """Two relays, of two zones; and a source of one's own that is called as a voice is."""
    good, bad = Liar(["neso"]), Liar(["neso"], zone="FR")
    bad.rows = lambda *_: [(T0 - HOUR, T0 - 2 * HOUR)]  # type: ignore[method-assign]
    own = Provider("neso")
    own.zone = "DE"  # type: ignore[misc]
    own.error = Outcome.HTTP_5XX
    with GridServer(bad) as wrong, GridServer(good) as right:
        sources = (
            own,
            node_of(wrong.url, "FR"),
            node_of(right.url, name="wattledger_2"),
        )
        settler, done = settler_of(*sources, price=table_price())
        report = settler.settle(DAY_NS)
    assert len(done) == DAY_NS // SLOT_NS
    assert {(one.settled.source, one.settled.zone) for one in done} == {("neso", "GB")}
    assert [name for name, _ in report.problems] == ["neso", "neso via wattledger"]
    assert report.sources == ("neso",)


# ── what a bad relay may cost ───────────────────────────────────────────────────────────────────


def test_few_voices_of_a_relay_are_asked() -> None:
    liar = Liar([f"v{number}" for number in range(64)])
    with GridServer(liar) as server:
        settler, _ = settler_of(node_of(server.url), price=table_price())
        report = settler.settle(22 * HOUR)
        assert len({name for name, *_ in liar.spans}) == 8 == len(report.sources)
        assert report.sources == tuple(f"v{number}" for number in range(8))


def test_only_what_was_asked_for_is_taken_of_a_relay() -> None:
    liar = Liar(["neso"])
    outside = [(T0 + n * MINUTE, T0 + n * MINUTE + 1000) for n in (-90, -61, 0, 1)]
    liar.rows = lambda start_ns, end_ns: [  # type: ignore[method-assign]
        *outside,
        (start_ns - MINUTE, start_ns + MINUTE),
        (end_ns - MINUTE, end_ns + MINUTE),
    ]
    with GridServer(liar) as server:
        relay = node_of(server.url)
        [known] = voices([relay], T0, {})
        [one] = relay.voices(T0)
        kept = relay.history(one.voice, T0 - HOUR, T0, T0, one.visit)
        assert [s.valid_from_ns for s in kept] == [T0 - HOUR - MINUTE, T0 - MINUTE]
        liar.rows = lambda start_ns, end_ns: [  # type: ignore[method-assign]
            (start_ns + n * NS_PER_S, start_ns + (n + 1) * NS_PER_S) for n in range(1_501)
        ]
        with pytest.raises(GridError) as caught:
            published(known.source, T0 - HOUR, T0, T0)
        assert "more than was asked for" in caught.value.message


@pytest.mark.parametrize(
    "script", [play.reset(), play.reply(401, {})], ids=["connection", "password"]
)
def test_a_relay_that_is_gone_is_gone_for_all_its_voices(script: play.Script) -> None:
    names = [f"v{number}" for number in range(5)]
    with GridServer(play.in_turn(Liar(names), script)) as server:
        settler, done = settler_of(node_of(server.url), price=table_price(), days=20)
        report = settler.settle(20 * DAY_NS)
        assert len(server.requests) == 2, "who is behind it, and the first of them"
        assert done == []
        assert [name for name, _ in report.problems] == [f"{name} via wattledger" for name in names]
        server.script = Liar(names)
        assert settler.settle(20 * DAY_NS).problems == (), "and back for the next settling"


def test_one_settling_listens_to_a_slow_relay_for_a_while_only() -> None:
    time_s = [0.0]

    def tick() -> float:
        time_s[0] += 20.0  # each look at the clock
        return time_s[0]

    liar = Liar(["neso", "rte"])
    with GridServer(liar) as server:
        relay = node_of(server.url, monotonic=tick)
        settler, done = settler_of(relay, price=table_price(), days=45)
        report = settler.settle(45 * DAY_NS)
    assert len(liar.spans) == 300 // 20
    assert len(done) > 5 * DAY_NS // SLOT_NS, "what it told is taken"
    assert {name for name, _ in report.problems} == {"neso via wattledger", "rte via wattledger"}
    assert "next" in report.problems[0][1]


def test_one_settling_asks_slow_sources_for_a_while_only() -> None:
    """The time that the books take to be written is not counted."""
    clock = FakeClock()
    now_ns = clock.wall_ns

    class Slow(Provider):
        def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
            clock.boottime_ns += 250 * NS_PER_S
            return super().between(start_ns, end_ns, now_wall_ns)

    slow, other = Slow(), Slow("second")
    settler, done = settler_of(slow, other, price=table_price(), days=45, clock=clock)
    report = settler.settle(45 * DAY_NS)
    assert clock.wall_ns == now_ns
    assert len(slow.asked) + len(other.asked) == 3
    assert done and [name for name, _ in report.problems] == ["first", "second"]
    assert "next" in report.problems[0][1]
    quick = Provider()
    patient, all_done = settler_of(
        quick, price=table_price(), days=45, clock=clock, written=lambda: clock.sleep(3600)
    )
    assert patient.settle(45 * DAY_NS).problems == ()
    assert len(all_done) == 45 * DAY_NS // SLOT_NS


def test_of_what_a_source_says_only_what_decides_is_held() -> None:
    slots = Books(table_price(), T0 - HOUR, T0).slots
    words = words_of([(T0 - HOUR + n * NS_PER_S, 2) for n in range(3600)])
    assert len(needed(words, slots, T0).signals) <= HOUR // SLOT_NS


def test_what_one_source_said_is_not_held_while_the_next_is_asked() -> None:
    held: list[int] = []

    class Talkative(Provider):
        def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
            return [
                signal(at_ns, valid_to_ns=at_ns + MINUTE)
                for at_ns in range(start_ns // MINUTE * MINUTE, end_ns, MINUTE)
            ]

    class Next(Provider):
        def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
            alive = (one for one in gc.get_objects() if isinstance(one, GridSignal))
            held.append(sum(one.source == "first" for one in alive))
            return []

    settler, done = settler_of(Talkative(), Next("second"), price=table_price())
    settler.settle(22 * HOUR)
    assert len(done) == 22 * HOUR // SLOT_NS
    assert held == [len(done)]


def words_of(found: list[tuple[int, int]]) -> Published:
    version = HistoryVersion("first", "GB", Basis.GENERATION, T0, T0 + 1, 1, "x", T0)
    signals = [
        signal(from_ns, n % 900, valid_to_ns=from_ns + lasts_s * NS_PER_S)
        for n, (from_ns, lasts_s) in enumerate(found)
    ]
    return Published(version, tuple(signals))


@given(
    st.dictionaries(st.integers(-4000, 4000), st.integers(1, 5000), max_size=40),
    st.lists(st.integers(-12, 12), max_size=20),
    st.integers(-3600, 3600),
)
def test_what_is_held_decides_as_all_of_it_would(
    spans: dict[int, int], at: list[int], now_s: int
) -> None:
    """Gaps, overlaps, and periods that slots begin within."""
    words = words_of([(T0 + start_s * NS_PER_S, spans[start_s]) for start_s in sorted(spans)])
    slots = [PricedSlot(T0 // NS_PER_S + n * SLOT_S, table_price(), 7, None) for n in sorted(at)]
    now_ns = T0 + now_s * NS_PER_S
    held = needed(words, slots, now_ns)
    assert held.history == words.history
    assert plan(slots, [held], table_zone="GB", now_ns=now_ns) == plan(
        slots, [words], table_zone="GB", now_ns=now_ns
    )
