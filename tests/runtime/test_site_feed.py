"""The site's factors over time: what is in force when, and books that balance through changes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grid_server as play
from fakes import SITE, START_WALL_NS, FakeClock, FixedGrid, ListFeed
from grid_server import GridServer
from wattledger import build
from wattledger.config import parse_config
from wattledger.core.footprint import footprint
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.site_readings import SiteReading
from wattledger.ledger import open_ledger
from wattledger.model import CounterReading, DeviceInfo, Kind, MeterReport, SiteFactors
from wattledger.sampler import SITE_NOTE, Sampler
from wattledger.site_build import site_feed
from wattledger.site_feed import OUT_OF_RANGE, SiteFeed
from wattledger.units import NS_PER_S, UJ_PER_J, UJ_PER_KWH

MINUTE = 60 * NS_PER_S
QUARTER = 15 * MINUTE
HOUR = 60 * MINUTE
MAX_AGE = 6 * HOUR
T0 = START_WALL_NS


class Told:
    """A `SiteSource` that says what it is told to."""

    name = "told"
    cadence_ns = QUARTER

    def __init__(self, identity: str = "here") -> None:
        self.identity = identity
        self.given: list[SiteReading] | None = None
        self.value: int | None = 1_000_000
        self.error: Outcome | None = None
        self.retry_after_s: float | None = None
        self.asked_at: list[int] = []

    def latest(self, now_wall_ns: int) -> list[SiteReading]:
        self.asked_at.append(now_wall_ns)
        if self.error is not None:
            raise failure(self.error, "no", retry_after_s=self.retry_after_s)
        if self.given is not None:
            return self.given
        start_ns = now_wall_ns - now_wall_ns % QUARTER
        return [SiteReading(start_ns, start_ns + QUARTER, self.value)]


def feed(clock: FakeClock, wue: Told | None, pue: Told | None = None, note: str = "") -> SiteFeed:
    return SiteFeed(SITE, wue, pue, clock, max_age_ns=MAX_AGE, note=note, node="n1")


def poll(site: SiteFeed, clock: FakeClock, seconds: float) -> None:
    """What the polling thread does for a while."""
    end_ns = clock.boottime_ns + round(seconds * NS_PER_S)
    while clock.boottime_ns < end_ns:
        rest_s = site.poll_once()
        assert 1 <= rest_s <= 60
        clock.advance(rest_s)


def wue(site: SiteFactors) -> tuple[int, str]:
    return site.wue_ul_per_kwh, site.wue_source


def test_weather_and_meter_hold_over_the_settings() -> None:
    clock, air, meter = FakeClock(), Told(), Told()
    air.value, meter.value = 3_567_049, 1_234_567
    site = feed(clock, air, meter)
    assert site.at(clock.wall_ns) == SITE
    site.poll_once()
    now = site.at(clock.wall_ns)
    assert wue(now) == (3_570_000, "weather")  # in steps of 0.01 L/kWh
    assert (now.pue_ppm, now.pue_source) == (1_235_000, "live")  # and of 0.001
    assert (now.ewif_ul_per_kwh, now.ewif_source) == (SITE.ewif_ul_per_kwh, SITE.ewif_source)
    assert [status.outcomes for status in site.statuses()] == [{"ok": 1}, {"ok": 1}]


def test_nobody_to_ask() -> None:
    site = feed(FakeClock(), None)
    assert not site.asks
    assert (site.at(T0), site.statuses(), site.note()) == (SITE, (), "")


def test_the_past_is_priced_with_what_was_in_force_then() -> None:
    clock, air = FakeClock(), Told()
    site = feed(clock, air)
    for value in (1_000_000, 2_000_000, 3_000_000):
        air.value = value
        poll(site, clock, 1000)
    now_ns = clock.wall_ns
    assert wue(site.at(now_ns))[0] == 3_000_000
    assert wue(site.at(T0 + MINUTE))[0] == 1_000_000
    assert wue(site.at(T0 + QUARTER + MINUTE))[0] in (1_000_000, 2_000_000)
    # Before the first reading nothing is known of then: what holds now does.
    assert wue(site.at(T0 - HOUR)) == (3_000_000, "weather")
    clock.advance(20 * 3600)
    assert wue(site.at(T0 - HOUR)) == wue(SITE)


def test_last_good_until_the_age_limit_then_the_settings() -> None:
    clock, air = FakeClock(), Told()
    site = feed(clock, air)
    site.poll_once()
    air.error = Outcome.HTTP_5XX
    poll(site, clock, 6 * 3600 + 800)
    assert wue(site.at(clock.wall_ns)) == (1_000_000, "weather")
    poll(site, clock, 300)
    assert wue(site.at(clock.wall_ns)) == wue(SITE)
    assert wue(site.at(T0 + HOUR)) == (1_000_000, "weather")  # was in force in that hour
    assert wue(site.at(T0 + 6 * HOUR + QUARTER)) == wue(SITE)
    [status] = site.statuses()
    assert (status.outcomes["ok"], status.message) == (1, "no")
    assert status.outcomes["http_5xx"] > 20
    air.error = None
    poll(site, clock, 1800)
    assert wue(site.at(clock.wall_ns)) == (1_000_000, "weather")
    assert site.statuses()[0].message == ""


def test_a_weather_that_no_formula_holds_for() -> None:
    clock, air = FakeClock(), Told()
    site = feed(clock, air)
    site.poll_once()
    air.value = None
    poll(site, clock, 1900)
    assert wue(site.at(clock.wall_ns)) == wue(SITE)  # not the last good one: it is known to be none
    assert wue(site.at(T0 + MINUTE)) == (1_000_000, "weather")
    [status] = site.statuses()
    assert (status.message, set(status.outcomes)) == (OUT_OF_RANGE, {"ok"})


@pytest.mark.parametrize(
    ("readings", "outcome"),
    [
        ([], "no_data"),
        ([SiteReading(T0 + HOUR, T0 + 2 * HOUR, 1)], "future"),
        ([SiteReading(T0 - 9 * HOUR, T0 - 8 * HOUR, 1)], "stale"),
        ([SiteReading(T0, T0, 1)], "bad_value"),
    ],
)
def test_times_that_are_refused(readings: list[SiteReading], outcome: str) -> None:
    clock, air = FakeClock(), Told()
    air.given = readings
    site = feed(clock, air)
    site.poll_once()
    assert site.at(T0) == SITE
    assert site.statuses()[0].outcomes == {outcome: 1}


def test_one_request_per_cadence_and_fewer_when_it_fails() -> None:
    clock, air = FakeClock(), Told()
    site = feed(clock, air)
    poll(site, clock, 24 * 3600)
    assert 85 <= len(air.asked_at) <= 97
    for error, most in ((Outcome.TIMEOUT, 100), (Outcome.HTTP_401, 97), (Outcome.HTTP_429, 97)):
        air.asked_at.clear()
        air.error = error
        poll(site, clock, 24 * 3600)
        assert 80 <= len(air.asked_at) <= most
    air.asked_at.clear()
    air.error, air.retry_after_s = Outcome.HTTP_429, 7200.0
    poll(site, clock, 24 * 3600)
    assert 11 <= len(air.asked_at) <= 13
    site.request_stop()
    air.asked_at.clear()
    poll(site, clock, 24 * 3600)
    assert not air.asked_at


def test_readings_are_kept_over_a_restart_by_the_same_question_only() -> None:
    clock, air = FakeClock(), Told()
    site = feed(clock, air)
    for value in range(30):
        air.value = value * 10_000
        poll(site, clock, 1000)
    note = site.note()
    assert len(note) < 2000
    clock.advance(60)
    again = feed(clock, Told(), note=note)
    assert wue(again.at(clock.wall_ns)) == (290_000, "weather")
    assert again.note() == note
    assert wue(feed(clock, Told("elsewhere"), note=note).at(clock.wall_ns)) == wue(SITE)
    assert feed(clock, None, Told(), note=note).at(clock.wall_ns) == SITE


@given(
    st.one_of(
        st.text(max_size=30),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["wue:3ff9a7a0", "pue:0", "x"]), inner)
            ),
            max_leaves=8,
        ).map(json.dumps),
    )
)
def test_no_note_can_do_harm(note: str) -> None:
    clock = FakeClock()
    site = feed(clock, Told(), Told(), note=note)
    found = site.at(clock.wall_ns)
    assert found.wue_ul_per_kwh >= 0
    assert found.pue_ppm >= 1_000_000
    site.poll_once()
    assert site.at(clock.wall_ns).wue_source == "weather"


def test_a_note_that_lies_is_not_believed() -> None:
    clock, meter = FakeClock(), Told()
    key = feed(clock, None, meter)._asked[0].key
    for row in ([T0, T0 + HOUR, 900_000], [T0, T0 + HOUR, True], [T0 + HOUR, T0, 1_200_000]):
        assert feed(clock, None, meter, json.dumps({key: [row]})).at(T0) == SITE
    good = json.dumps({key: [[T0, T0 + HOUR, 1_200_000]]})
    assert feed(clock, None, meter, good).at(T0).pue_ppm == 1_200_000


def test_settings_read_anew_go_on_with_what_is_known() -> None:
    clock, air, meter = FakeClock(), Told(), Told("meter")
    site = feed(clock, air, meter)
    site.poll_once()
    after = feed(clock, Told(), Told("another meter"))
    after.inherit(site)
    assert wue(after.at(clock.wall_ns)) == (1_000_000, "weather")
    assert after.at(clock.wall_ns).pue_ppm == SITE.pue_ppm


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.none() | st.integers(0, 9_000_000)),
        min_size=1,
        max_size=12,
    ),
    st.integers(-400, 1200),
)
def test_whatever_is_told_an_answer_is_a_value_told_or_the_settings(
    told: Sequence[tuple[int, int | None]], minutes: int
) -> None:
    clock, air = FakeClock(), Told()
    site = feed(clock, air)
    for quarters, value in told:
        air.value = value
        poll(site, clock, quarters * 900 + 1)
    found = site.at(T0 + minutes * MINUTE)
    if found.wue_source == "weather":
        assert found.wue_ul_per_kwh % 10_000 == 0
        nearest = min(abs(found.wue_ul_per_kwh - v) for _, v in told if v is not None)
        assert nearest <= 5_000
    else:
        assert found == SITE


# ── from the settings, over the wire ────────────────────────────────────────────────────────────


@pytest.fixture
def server() -> Iterator[GridServer]:
    with GridServer(play.reply(500)) as server:
        yield server


def weather_body(clock: FakeClock, temperature_c: float, humidity: float = 50) -> dict[str, Any]:
    from datetime import UTC, datetime

    at_s = clock.wall_ns // NS_PER_S // 900 * 900
    return {
        "latitude": 52.5,
        "longitude": 13.4,
        "utc_offset_seconds": 0,
        "current_units": {"temperature_2m": "°C", "relative_humidity_2m": "%"},
        "current": {
            "time": datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M"),
            "temperature_2m": temperature_c,
            "relative_humidity_2m": humidity,
        },
    }


def configured(clock: FakeClock, text: str, note: str = "") -> SiteFeed:
    config = parse_config(text)
    return site_feed(config, build.site_factors(config), clock, note)


def test_a_place_in_the_settings_turns_the_weather_on(server: GridServer) -> None:
    clock = FakeClock()
    text = f'[site.weather]\nlatitude = 52.5\nlongitude = 13.4\nurl = "{server.url}"\n'
    server.script = play.reply(body=weather_body(clock, 20))
    site = configured(clock, "[site]\nwue_l_per_kwh = 0.2\n" + text)
    site.poll_once()
    assert wue(site.at(clock.wall_ns)) == (3_570_000, "weather")
    fewer = configured(clock, text + "cycles_of_concentration = 3.0\n")
    fewer.poll_once()
    assert wue(fewer.at(clock.wall_ns)) == (4_460_000, "weather")  # 3.567 / (6/5) × (3/2)
    clock.advance(1000)
    server.script = play.reply(body=weather_body(clock, 20, 100))  # fog
    site.poll_once()
    assert wue(site.at(clock.wall_ns)) == (4_450_000, "weather")
    clock.advance(1000)
    server.script = play.reply(body=weather_body(clock, 20, 4))  # a desert's noon
    site.poll_once()
    assert wue(site.at(clock.wall_ns)) == (200_000, "config")
    assert "drier than 5 %" in site.statuses()[0].message
    assert not configured(clock, "").asks


def test_a_meter_in_the_settings_turns_the_live_pue_on(server: GridServer) -> None:
    clock = FakeClock()
    server.script = play.reply(body={"pue": 1.21})
    site = configured(
        clock, f'[site.live_pue]\nkind = "json"\nurl = "{server.url}/a?b=c"\npointer = "/pue"\n'
    )
    site.poll_once()
    assert site.at(clock.wall_ns).pue_ppm == 1_210_000
    assert site.at(clock.wall_ns).pue_source == "live"
    assert server.requests[0].target == "/a?b=c"
    server.script = play.reply(body={"pue": 121})
    clock.advance(1100)
    site.poll_once()
    assert site.at(clock.wall_ns).pue_ppm == 1_210_000
    assert site.statuses()[0].outcomes == {"ok": 1, "bad_value": 1}


# ── over the books ──────────────────────────────────────────────────────────────────────────────

GPU = DeviceInfo("GPU-1", Kind.GPU, "nvml", "0", "H100")


class Node:
    """A sampler over a real ledger, whose weather the test makes."""

    def __init__(self, path: Path) -> None:
        self.clock, self.path, self.raw, self.air = FakeClock(), path, 0, Told()
        self.start()

    def start(self) -> None:
        self.meter = ListFeed()
        self.ledger = open_ledger(self.path, clock=self.clock, footprint=footprint)
        note = self.ledger.books.notes.get(SITE_NOTE, "")
        self.site = feed(self.clock, self.air, note=note)
        self.sampler = Sampler(
            clock=self.clock,
            feeds=[self.meter],
            grid=FixedGrid(),
            site=self.site,
            ledger=self.ledger,
            node_load=lambda: None,
        )

    def turn(self, watts: int, seconds: int) -> None:
        now = self.clock.advance(seconds)
        self.raw += watts * seconds * UJ_PER_J
        reading = CounterReading(
            GPU.name, now, self.raw, None, 10**9, 10**8, self.clock.boot_id, "1"
        )
        self.meter.put(MeterReport(devices=(GPU,), readings=(reading,), processes={GPU.name: 0}))
        self.sampler.tick()

    def entries(self) -> list[tuple[int, int, int, str]]:
        """Slot, energy, on-site water and the WUE with its source, oldest first."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(
                "SELECT slot_s, energy_uj, water_onsite_ul, "
                "wue_ul_per_kwh || ' ' || wue_source FROM price JOIN entry "
                "ON entry.price_id = price.id ORDER BY slot_s, price.id"
            ).fetchall()


def test_a_change_of_the_weather_opens_an_entry_and_the_books_balance(tmp_path: Path) -> None:
    node = Node(tmp_path / "l.sqlite")
    node.turn(0, 1)
    node.turn(1000, 60)
    node.sampler.commit()
    node.air.value = 2_004_000
    node.site.poll_once()
    node.turn(1000, 60)
    node.sampler.commit()
    node.air.value = 2_003_000  # is the same 2.00
    node.clock.advance(20)
    node.site._asked[0].due_ns = 0
    node.site.poll_once()
    node.turn(1000, 40)
    snapshot = node.sampler.commit()
    node.sampler.commit()
    rows = node.entries()
    assert [(energy // UJ_PER_J, by) for _, energy, _, by in rows] == [
        (60_000, "360000 default"),
        (100_000, "2000000 weather"),
    ]
    assert rows[0][0] == rows[1][0]  # one slot
    for _, energy_uj, water_ul, by in rows:
        assert water_ul == energy_uj * int(by.split()[0]) // UJ_PER_KWH
    total = sum(t.amounts.water_onsite_ul for t in snapshot.books.totals.values())
    assert total == sum(row[2] for row in rows)
    assert (snapshot.site.wue_ul_per_kwh, snapshot.site.wue_source) == (2_000_000, "weather")
    assert snapshot.site_sources[0].outcomes["ok"] == 2


def test_what_is_recovered_is_priced_with_what_was_in_force(tmp_path: Path) -> None:
    """Over a restart: the note tells what held before it, the weather what holds since."""
    node = Node(tmp_path / "l.sqlite")
    node.site.poll_once()
    node.turn(0, 1)
    node.turn(1000, 59)
    node.sampler.commit()
    node.ledger.close()
    node.air.value = 5_000_000
    node.clock.advance(1800)  # nobody keeps books; the hardware counts on
    node.raw += 1800 * 1000 * UJ_PER_J
    node.start()
    node.site.poll_once()
    node.turn(1000, 60)
    node.sampler.commit()
    by_wue: dict[str, int] = {}
    for _, energy_uj, water_ul, by in node.entries():
        assert water_ul == energy_uj * int(by.split()[0]) // UJ_PER_KWH
        by_wue[by] = by_wue.get(by, 0) + energy_uj
    assert sum(by_wue.values()) == (59 + 1800 + 60) * 1000 * UJ_PER_J
    assert by_wue.keys() == {"1000000 weather", "5000000 weather"}
    assert by_wue["1000000 weather"] > 1200 * 1000 * UJ_PER_J


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.none() | st.integers(0, 9_000_000), st.integers(1, 900), st.integers(0, 500)),
        min_size=1,
        max_size=12,
    )
)
def test_books_balance_whatever_the_weather(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int | None, int, int]]
) -> None:
    node = Node(tmp_path_factory.mktemp("l") / "l.sqlite")
    node.turn(0, 1)
    before = 0
    for value, seconds, watts in steps:
        node.air.value = value
        node.site.poll_once()
        node.turn(watts, seconds)
        snapshot = node.sampler.commit()
        total = sum(t.amounts.water_onsite_ul for t in snapshot.books.totals.values())
        assert total >= before
        before = total
    rows = node.entries()
    assert sum(row[1] for row in rows) == sum(s * w for _, s, w in steps) * UJ_PER_J
    assert sum(row[2] for row in rows) == before
    node.ledger.close()
