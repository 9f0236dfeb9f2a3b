"""What a site runs or owns itself: the Carbon Aware SDK, any JSON, a CSV file, a Prometheus."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grid_bodies as bodies
import grid_server as play
from fakes import FakeClock
from grid_server import GridServer
from wattledger import build
from wattledger.config import parse_config
from wattledger.config.document import effective_toml
from wattledger.errors import ConfigError, GridError
from wattledger.grid import SourceConfig, build_sources
from wattledger.grid.carbon_aware import CarbonAware
from wattledger.grid.client import HttpClient
from wattledger.grid.csv_source import CsvSource
from wattledger.grid.json_source import JsonSource, found, pointer_of
from wattledger.grid.prometheus_source import PrometheusSource
from wattledger.grid.quantity import UNITS, in_g_per_kwh
from wattledger.grid.source import History, Outlook
from wattledger.model import Basis, FallbackLevel, GridSignal

MINUTE = 60 * 10**9
QUARTER, HOUR = 15 * MINUTE, 60 * MINUTE
T2045 = 1_662_497_100 * 10**9  # 2022-09-06T20:45Z
T19 = 1_709_751_600 * 10**9  # 2024-03-06T19:00Z


@pytest.fixture
def server() -> Iterator[GridServer]:
    with GridServer(play.reply(body={})) as server:
        yield server


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("canary-9c\n")
    path.chmod(0o600)
    return path


def aware(url: str = "http://localhost", basis: Basis = Basis.LIFECYCLE) -> CarbonAware:
    return CarbonAware(HttpClient(), zone="eastus", url=url, basis=basis)


def own(url: str = "http://localhost/x", pointer: str = "/now", **options: Any) -> JsonSource:
    options = {"basis": Basis.DIRECT, "interval_ns": QUARTER, **options}
    return JsonSource(HttpClient(), zone="plant", url=url, pointer=pointer, **options)


def sheet(path: Path, *rows: str, **options: Any) -> CsvSource:
    path.write_text("\n".join(["# a contract", "start,end,value,note", *rows]) + "\n")
    options = {"basis": Basis.LIFECYCLE, "interval_ns": QUARTER, **options}
    return CsvSource(zone="ppa", file=str(path), **options)


def prom(url: str = "http://localhost", **options: Any) -> PrometheusSource:
    options = {"basis": Basis.LIFECYCLE, "interval_ns": QUARTER, "query": "ppa", **options}
    return PrometheusSource(HttpClient(), zone="ppa", url=url, **options)


def grams(signals: list[GridSignal]) -> list[float]:
    return [signal.intensity_ug_per_kwh / 1e6 for signal in signals]


def query_of(server: GridServer, number: int = 0) -> dict[str, str]:
    parts = urlsplit(server.requests[number].target)
    return {key: value[0] for key, value in parse_qs(parts.query).items()}


def outcome_of(ask: Callable[[], object]) -> str:
    with pytest.raises(GridError) as caught:
        ask()
    assert caught.value.hint
    return caught.value.outcome


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("g/kWh", 2), ("kg/kWh", 2000), ("kg/MWh", 2), ("t/MWh", 2000), ("lb/MWh", 0.90718474)],
)
def test_units(unit: str, expected: float) -> None:
    assert in_g_per_kwh(2, unit) == expected
    assert in_g_per_kwh("2", unit, texts=True) == expected
    assert unit in UNITS


@pytest.mark.parametrize(
    "value", [None, True, [], {}, "2", 1e10, -1e10, 10**400, float("nan"), float("inf")]
)
def test_what_is_no_number(value: Any) -> None:
    assert outcome_of(lambda: in_g_per_kwh(value)) == "bad_value"


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "1e999", "0x5", "1,5", None])
def test_what_is_no_text_of_a_number(value: Any) -> None:
    assert outcome_of(lambda: in_g_per_kwh(value, texts=True)) == "bad_value"


# ── Carbon Aware SDK ────────────────────────────────────────────────────────────────────────────


def test_carbon_aware_the_last_hours(server: GridServer) -> None:
    server.script = play.reply(body=bodies.carbon_aware(70, 80.5))
    found = aware(server.url + "/sdk").latest(T2045 + 10 * MINUTE)
    assert urlsplit(server.requests[0].target).path == "/sdk/emissions/bylocation"
    assert query_of(server) == {
        "location": "eastus",
        "time": "2022-09-06T17:55:00Z",
        "toTime": "2022-09-06T20:55:00Z",
    }
    assert grams(found) == [70, 80.5]
    first = found[0]
    assert (first.zone, first.source, first.basis) == ("eastus", "carbon_aware", Basis.LIFECYCLE)
    assert (first.valid_from_ns, first.valid_to_ns) == (T2045, T2045 + 5 * MINUTE)
    assert not first.estimated


@pytest.mark.parametrize(
    ("duration", "minutes"),
    [("00:05:00", 5), ("01:00:00", 60), (5, 5), ("00:00:00", 5), (0, 5), (None, 5)],
)
def test_carbon_aware_lengths(duration: Any, minutes: int) -> None:
    found = aware().parse(bodies.carbon_aware(70, 80, duration=duration), T2045)
    assert found[0].valid_to_ns - found[0].valid_from_ns == minutes * MINUTE


def test_carbon_aware_one_row_without_a_length_is_an_hour() -> None:
    [only] = aware().parse(bodies.carbon_aware(70, duration=None), T2045)
    assert only.valid_to_ns - only.valid_from_ns == HOUR


def test_carbon_aware_past_and_forecast(server: GridServer) -> None:
    source = aware(server.url)
    assert isinstance(source, History) and isinstance(source, Outlook)
    server.script = play.reply(body=bodies.carbon_aware(70, 80))
    assert grams(source.between(T2045 + 6 * MINUTE, T2045 + HOUR, T2045 + HOUR)) == [80]
    server.script = play.reply(body=bodies.carbon_aware_forecast(359.23, 300))
    ahead = source.forecast(T2045 + 6 * MINUTE)
    assert urlsplit(server.requests[-1].target).path == "/emissions/forecasts/current"
    assert grams(ahead) == [300] and ahead[0].estimated


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ([], "no_data"),
        (None, "no_data"),
        ({"title": "No data"}, "bad_value"),
        (bodies.carbon_aware(-1), "bad_value"),  # what a null becomes on its way
        (bodies.carbon_aware(None), "bad_value"),
        (bodies.carbon_aware(5000), "bad_value"),
        (bodies.carbon_aware(0), "bad_value"),
        (bodies.carbon_aware(70, location=None), "wrong_zone"),
        (bodies.carbon_aware(70) + bodies.carbon_aware(70, location="FR"), "wrong_zone"),
        (bodies.carbon_aware(70, time="2022-09-06T20:45:00"), "bad_value"),
        (bodies.carbon_aware(70, duration="02:00:00"), "bad_value"),
        (bodies.carbon_aware(70, duration=-5), "bad_value"),
        (bodies.carbon_aware(70, duration="soon"), "bad_value"),
        (["x"], "bad_value"),
    ],
)
def test_carbon_aware_what_is_no_signal(body: Any, outcome: str) -> None:
    assert outcome_of(lambda: aware().parse(body, T2045)) == outcome


def test_carbon_aware_over_watttime_is_marginal_and_prices_nothing() -> None:
    config = parse_config(
        """
        [site]
        zone = "US"
        [[grid.source]]
        kind = "carbon_aware"
        zone = "eastus"
        url = "http://localhost:8080"
        emission_factor_type = "marginal"
        """
    )
    clock = FakeClock()
    grid = build.grid_feed(config, clock, ())
    grid.poll_once()
    assert grid.at(clock.wall_ns).level == FallbackLevel.TABLE
    assert "marginal" in grid.statuses()[0].message


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────

METER = {"grid": {"a/b": [{"at": "2024-03-06T19:00:00Z", "kg": 0.216}]}}


def test_json_a_value_and_its_time(server: GridServer, token_file: Path) -> None:
    server.script = play.reply(body=METER)
    source = own(
        server.url + "/now/?site=1&x=%20y",
        "/grid/a~1b/0/kg",
        time_pointer="/grid/a~1b/0/at",
        unit="kg/kWh",
        token_file=token_file,
    )
    [signal] = source.latest(T19 + 5 * MINUTE)
    assert server.requests[0].target == "/now/?site=1&x=%20y"
    assert server.requests[0].headers["authorization"] == "Bearer canary-9c"
    assert signal.intensity_ug_per_kwh == 216_000_000
    assert (signal.valid_from_ns, signal.valid_to_ns) == (T19, T19 + QUARTER)
    assert (signal.zone, signal.source, signal.basis) == ("plant", "json", Basis.DIRECT)
    assert not isinstance(source, History) and not isinstance(source, Outlook)


def test_json_without_a_time_is_of_the_present_period(server: GridServer) -> None:
    server.script = play.reply(body={"now": "216.5"})
    [signal] = own(server.url).latest(T19 + 20 * MINUTE)
    assert "authorization" not in server.requests[0].headers
    assert signal.intensity_ug_per_kwh == 216_500_000
    assert (signal.valid_from_ns, signal.valid_to_ns) == (T19 + QUARTER, T19 + 2 * QUARTER)


@pytest.mark.parametrize("at", [1_709_751_600, 1_709_751_600.5, "2024-03-06T19:00Z"])
def test_json_times(at: Any) -> None:
    signal = own(time_pointer="/at").parse({"now": 5, "at": at}, T19)
    assert signal.valid_from_ns == T19


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({}, "no_data"),
        ({"now": None, "at": 5}, "no_data"),
        ([], "no_data"),
        ("now", "no_data"),
        ({"now": {}, "at": 5}, "bad_value"),
        ({"now": -1, "at": 5}, "bad_value"),
        ({"now": "nan", "at": 5}, "bad_value"),
        ({"now": 2001, "at": 5}, "bad_value"),
        ({"now": True, "at": 5}, "bad_value"),
        ({"now": 5}, "bad_value"),
        ({"now": 5, "at": -5}, "bad_value"),
        ({"now": 5, "at": 10**30}, "bad_value"),
        ({"now": 5, "at": "19:00"}, "bad_value"),
    ],
)
def test_json_what_is_no_signal(body: Any, outcome: str) -> None:
    assert outcome_of(lambda: own(time_pointer="/at").parse(body, T19)) == outcome


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("/a", {"b": [1, 2]}),
        ("/a/b/1", 2),
        ("/a/b/2", None),
        ("/a/b/-", None),
        ("/a/b/²", None),
        ("/a/b/99999999999999999999", None),
        ("/a/c", None),
        ("/~01", 3),
        ("/", 4),
        ("/a/b/0/x", None),
    ],
)
def test_json_pointers(pointer: str, expected: Any) -> None:
    assert found({"a": {"b": [1, 2]}, "~1": 3, "": 4}, pointer_of(pointer, "pointer")) == expected


# ── CSV ─────────────────────────────────────────────────────────────────────────────────────────

HOURS = (
    "2024-03-06T19:00:00Z,2024-03-06T20:00:00Z,12.5,solar",
    "2024-03-06T18:00:00Z,2024-03-06T19:00:00Z,11,wind",
    "2024-03-06T20:00:00Z,2024-03-06T21:00:00Z,13,solar",
)


def test_csv_rows_are_present_past_and_forecast(tmp_path: Path) -> None:
    source = sheet(tmp_path / "ppa.csv", *HOURS)
    assert isinstance(source, History) and isinstance(source, Outlook)
    now = source.latest(T19 + 20 * MINUTE)
    assert grams(now) == [11, 12.5]
    assert (now[1].valid_from_ns, now[1].valid_to_ns) == (T19, T19 + HOUR)
    assert (now[1].zone, now[1].source, now[1].estimated) == ("ppa", "csv", False)
    assert grams(source.between(T19, T19 + HOUR, T19)) == [12.5]
    assert source.between(T19 - 9 * HOUR, T19 - 5 * HOUR, T19) == []
    ahead = source.forecast(T19 + 20 * MINUTE)
    assert grams(ahead) == [12.5, 13] and all(signal.estimated for signal in ahead)
    assert outcome_of(lambda: source.forecast(T19 + 9 * HOUR)) == "stale"
    assert outcome_of(lambda: source.latest(T19 + 20 * HOUR)) == "no_data"


def test_csv_a_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    source = sheet(tmp_path / "ppa.csv", *HOURS)
    source.latest(T19)
    sheet(tmp_path / "ppa.csv", HOURS[0].replace("12.5", "0.02"))
    tonnes = sheet(tmp_path / "t.csv", HOURS[0].replace("12.5", "0.02"), unit="t/MWh")
    assert grams(source.latest(T19)) == [0.02]
    assert grams(tonnes.latest(T19)) == [20]


def test_csv_a_bad_row_costs_itself_only(tmp_path: Path) -> None:
    for bad in (
        "2024-03-06T19:00:00Z,2024-03-06T20:00:00Z,-1,",
        "2024-03-06T19:00:00Z,2024-03-06T20:00:00Z,nan,",
        "2024-03-06T19:00:00Z,2024-03-06T18:00:00Z,5,",
        "2024-03-06T19:00:00Z,2025-03-06T18:00:00Z,5,",
        "2024-03-06 19:00,2024-03-06 20:00,5,",
        "2024-03-06T19:00:00Z",
        ",,,",
    ):
        assert grams(sheet(tmp_path / "a", bad, HOURS[1]).latest(T19 + MINUTE)) == [11]
        alone = sheet(tmp_path / "b", bad)
        assert outcome_of(lambda alone=alone: alone.latest(T19 + MINUTE)) == "bad_value"  # type: ignore[misc]


def test_csv_what_is_no_such_file(tmp_path: Path) -> None:
    source = sheet(tmp_path / "x.csv")
    assert outcome_of(lambda: source.latest(T19)) == "no_data"
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert outcome_of(lambda: source.latest(T19)) == "bad_value"
    (tmp_path / "x.csv").write_bytes(b"")
    assert outcome_of(lambda: source.latest(T19)) == "bad_value"
    (tmp_path / "x.csv").write_bytes(b"start,end,value\n\xff\xfe")
    assert outcome_of(lambda: source.latest(T19)) == "no_data"
    (tmp_path / "x.csv").unlink()
    assert outcome_of(lambda: source.latest(T19)) == "no_data"
    os.mkfifo(tmp_path / "x.csv")  # nobody will ever write into it
    assert outcome_of(lambda: source.latest(T19)) == "no_data"
    with (tmp_path / "y.csv").open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    large = CsvSource(
        zone="p", file=str(tmp_path / "y.csv"), basis=Basis.DIRECT, interval_ns=QUARTER
    )
    assert outcome_of(lambda: large.latest(T19)) == "no_data"


# ── Prometheus ──────────────────────────────────────────────────────────────────────────────────


def test_prometheus_the_last_steps(server: GridServer, token_file: Path) -> None:
    samples = ((1_709_751_600, "12.5"), (1_709_752_500, "NaN"), (1_709_753_400.0, "13"))
    server.script = play.reply(body=bodies.prometheus(*samples))
    found = prom(server.url, token_file=token_file, query="sum(ppa)").latest(T19 + 44 * MINUTE)
    assert urlsplit(server.requests[0].target).path == "/api/v1/query_range"
    assert query_of(server) == {
        "query": "sum(ppa)",
        "start": str(1_709_751_600 - 900),
        "end": str(1_709_751_600 + 1800),
        "step": "900",
    }
    assert server.requests[0].headers["authorization"] == "Bearer canary-9c"
    assert grams(found) == [12.5, 13]
    assert [signal.valid_from_ns - T19 for signal in found] == [0, 2 * QUARTER]
    first = found[0]
    assert (first.zone, first.source, first.basis) == ("ppa", "prometheus", Basis.LIFECYCLE)
    assert first.valid_to_ns == T19 + QUARTER and not first.estimated


def test_prometheus_past_in_steps_that_cover_the_span(server: GridServer) -> None:
    server.script = play.reply(body=bodies.prometheus())
    source = prom(server.url)
    assert isinstance(source, History) and not isinstance(source, Outlook)
    found = source.between(T19 + MINUTE, T19 + HOUR, T19 + 9 * HOUR)
    assert query_of(server)["start"] == "1709751600"
    assert query_of(server)["end"] == str(1_709_751_600 + 3599)
    assert grams(found) == [12.5]


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({}, "no_data"),
        ({"status": "error", "errorType": "bad_data", "error": "parse error"}, "no_data"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, "no_data"),
        ({"status": "success", "data": {"result": [{}, {}]}}, "bad_value"),
        ({"status": "success", "data": {"result": [{"values": []}]}}, "no_data"),
        ({"status": "success", "data": []}, "bad_value"),
        (bodies.prometheus((1, "NaN")), "bad_value"),
        (bodies.prometheus((1, "+Inf")), "bad_value"),
        (bodies.prometheus((1, "-5")), "bad_value"),
        (bodies.prometheus((-1, "5")), "bad_value"),
        (bodies.prometheus((True, "5")), "bad_value"),
        (bodies.prometheus(("x", "5")), "bad_value"),
        (bodies.prometheus((1, None)), "bad_value"),
        ({"status": "success", "data": {"result": [{"values": [5]}]}}, "bad_value"),
        ([], "bad_value"),
    ],
)
def test_prometheus_what_is_no_signal(body: Any, outcome: str) -> None:
    assert outcome_of(lambda: prom().parse(body, T19)) == outcome


# ── whatever they answer ────────────────────────────────────────────────────────────────────────

_words = st.sampled_from(
    [
        *("status", "success", "data", "result", "values", "location", "time", "rating"),
        *("duration", "now", "at", "2022-09-06T20:45:00+00:00"),
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | _words,
    lambda inner: st.lists(inner) | st.dictionaries(_words, inner),
    max_leaves=15,
)


@given(_json, st.dictionaries(_words, _json))
def test_no_reply_raises_anything_but_ours(reply: Any, changes: dict[str, Any]) -> None:
    timed = own(time_pointer="/at")
    parsers: list[tuple[Callable[[Any], Any], Any]] = [
        (lambda body: aware().parse(body, T2045), [bodies.carbon_aware()[0] | changes]),
        (lambda body: timed.parse(body, T19), {"now": 5, "at": 5} | changes),
        (lambda body: prom().parse(body, T19), bodies.prometheus() | changes),
    ]
    for parse, changed in parsers:
        for body in (reply, changed):
            with contextlib.suppress(GridError):
                parse(body)


# ── the configuration ───────────────────────────────────────────────────────────────────────────

CONFIG = """
[[grid.source]]
kind = "json"
url = "https://meter.example.org/now?x=1"
pointer = "/a"
time_pointer = "/b"
unit = "t/MWh"
interval = "5m"
emission_factor_type = "direct"
[[grid.source]]
kind = "csv"
zone = "solar_park"
file = "/srv/ppa.csv"
emission_factor_type = "lifecycle"
[[grid.source]]
kind = "prometheus"
url = "http://localhost:9090"
query = "ppa"
emission_factor_type = "generation"
"""


def test_what_is_configured_is_built_and_shown_as_it_was_written() -> None:
    config = parse_config(CONFIG)
    statuses = build.grid_feed(config, FakeClock(), ()).statuses()
    assert [status.source for status in statuses] == ["json", "csv", "prometheus"]
    assert parse_config(effective_toml(config)) == config


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ('unit = "t/MWh"', "unit = 5"),
        ('interval = "5m"', 'interval = "30s"'),
        ('interval = "5m"', 'interval = "2d"'),
        ('emission_factor_type = "direct"', "emission_factor_type"),
        ('pointer = "/a"', "pointer"),
        ("now?x=1", "now?x= 1"),
        ('file = "/srv/ppa.csv"', "file"),
        ('query = "ppa"', "query"),
        ('url = "http://localhost:9090"', "url"),
        ('"http://localhost:9090"', '"http://prometheus:9090"'),
        ('"http://localhost:9090"', '"http://localhost:9090?x=1"'),
    ],
)
def test_what_cannot_be_is_named(changed: str, said: str) -> None:
    text = CONFIG.replace(changed, said if "=" in said or said.startswith('"') else "", 1)
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert "grid.source[" in str(caught.value)


def test_an_own_source_has_to_say_what_its_numbers_count() -> None:
    configs = [SourceConfig(kind, "x", url="https://h") for kind in ("json", "prometheus", "csv")]
    configs.append(SourceConfig("carbon_aware", "eastus", url="https://h"))
    with pytest.raises(ConfigError) as caught:
        build_sources(configs, HttpClient())
    assert len(caught.value.faults) == 4
    assert all("emission_factor_type" in text for _, text in caught.value.faults)
