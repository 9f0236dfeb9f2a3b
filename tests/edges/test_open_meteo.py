"""The weather of Open-Meteo: what is asked, what is taken, and all that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grid_server as play
from grid_server import GridServer
from wattledger.errors import GridError
from wattledger.grid.client import HttpClient
from wattledger.grid.open_meteo import OpenMeteo, Weather

T1615 = 1_774_541_700 * 10**9  # 2026-03-26T16:15Z
CANARY = "canary-7c2d"


def body(**changes: Any) -> dict[str, Any]:
    """A reply as the documentation shows it; `current_…` and `unit_…` change what lies below."""
    made: dict[str, Any] = {
        "latitude": 52.52,
        "longitude": 13.419998,
        "generationtime_ms": 0.04,
        "utc_offset_seconds": 0,
        "timezone": "GMT",
        "elevation": 38.0,
        "current_units": {
            "time": "iso8601",
            "interval": "seconds",
            "temperature_2m": "°C",
            "relative_humidity_2m": "%",
        },
        "current": {
            "time": "2026-03-26T16:15",
            "interval": 900,
            "temperature_2m": 18.0,
            "relative_humidity_2m": 50,
        },
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        where = made if not name else made["current_units" if part == "unit" else "current"]
        if value is ...:
            del where[name or part]
        else:
            where[name or part] = value
    return made


def source(url: str = "", **options: Any) -> OpenMeteo:
    return OpenMeteo(
        HttpClient(deadline_s=10.0), latitude=52.5200, longitude=13.41, url=url, **options
    )


@pytest.fixture
def server() -> Iterator[GridServer]:
    with GridServer(play.reply(body=body())) as server:
        yield server


def test_a_reply(server: GridServer, tmp_path: Path) -> None:
    assert source(server.url).now() == Weather(T1615, T1615 + 900 * 10**9, 18.0, 50.0)
    parts = urlsplit(server.requests[0].target)
    assert parts.path == "/forecast"
    assert {key: value[0] for key, value in parse_qs(parts.query).items()} == {
        "latitude": "52.5200",
        "longitude": "13.4100",
        "current": "temperature_2m,relative_humidity_2m",
        "temperature_unit": "celsius",
        "timezone": "GMT",
    }
    token = tmp_path / "key"
    token.write_text(CANARY)
    token.chmod(0o600)
    source(server.url, token_file=token).now()
    assert f"apikey={CANARY}" in server.requests[1].target


def test_a_key_is_in_no_error(server: GridServer, tmp_path: Path) -> None:
    token = tmp_path / "key"
    token.write_text(CANARY)
    token.chmod(0o600)
    for script in (play.reply(401), play.reply(body=b"{"), play.reset(), play.reply(body={})):
        server.script = script
        with pytest.raises(GridError) as caught:
            source(server.url, token_file=token).now()
        assert CANARY not in f"{caught.value!r} {caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        # The °F trap: a plausible number in another unit.
        ({"unit__temperature_2m": "°F", "current__temperature_2m": 48.0}, "bad_value"),
        ({"unit__temperature_2m": "K"}, "bad_value"),
        ({"unit__temperature_2m": None}, "bad_value"),
        ({"unit__temperature_2m": ...}, "bad_value"),
        ({"unit__relative_humidity_2m": "fraction"}, "bad_value"),
        ({"current_units": None}, "bad_value"),
        ({"current_units": ...}, "bad_value"),
        ({"current": ...}, "no_data"),
        ({"current": None}, "no_data"),
        ({"current": []}, "bad_value"),
        ({"current__temperature_2m": None}, "no_data"),
        ({"current__relative_humidity_2m": ...}, "no_data"),
        ({"current__temperature_2m": "18"}, "bad_value"),
        ({"current__temperature_2m": True}, "bad_value"),
        ({"current__temperature_2m": 71}, "bad_value"),
        ({"current__temperature_2m": -273}, "bad_value"),
        ({"current__temperature_2m": [18]}, "bad_value"),
        ({"current__relative_humidity_2m": -1}, "bad_value"),
        ({"current__relative_humidity_2m": 101}, "bad_value"),
        ({"current__relative_humidity_2m": 10**400}, "bad_value"),
        ({"current__time": "2026-03-26T16:15+02:00"}, "bad_value"),
        ({"current__time": "2026-02-30T16:15"}, "bad_value"),
        ({"current__time": 1_774_541_700}, "bad_value"),
        ({"current__time": ...}, "bad_value"),
        ({"utc_offset_seconds": 3600}, "bad_value"),
        ({"utc_offset_seconds": None}, "bad_value"),
        ({"latitude": -33.9}, "wrong_zone"),
        ({"longitude": 113.4}, "wrong_zone"),
        ({"latitude": ...}, "bad_value"),
        ({"longitude": "13.4"}, "bad_value"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], outcome: str) -> None:
    with pytest.raises(GridError) as caught:
        source().parse(body(**changes))
    assert caught.value.outcome == outcome


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (play.reply(body={}), "no_data"),
        (play.reply(body=[]), "bad_value"),
        (play.reply(400, {"error": True, "reason": "Parameter 'latitude' …"}), "http_4xx"),
        (play.reply(401), "http_401"),
        (play.reply(429, {"error": True, "reason": "Daily API request limit"}), "http_429"),
        (play.reply(503), "http_5xx"),
        (play.reply(302, headers={"Location": "https://example.org/"}), "redirect"),
        (play.reply(body=b'{"latitude":NaN}'), "bad_json"),
        (play.reply(body=b'{"latitude":1e999}'), "bad_json"),
        (play.reply(body=b"<html>"), "bad_json"),
        (play.big_body(10_000_000), "too_large"),
        (play.gzip_bomb(4_000_000), "bad_encoding"),
        (play.reset(), "connect_error"),
    ],
)
def test_hostile_servers(server: GridServer, script: play.Script, outcome: str) -> None:
    server.script = script
    with pytest.raises(GridError) as caught:
        source(server.url).now()
    assert caught.value.outcome == outcome


def test_a_server_that_drips_is_given_up() -> None:
    with GridServer(play.drip_body()) as server:
        slow = OpenMeteo(HttpClient(deadline_s=0.2), latitude=0, longitude=0, url=server.url)
        with pytest.raises(GridError) as caught:
            slow.now()
    assert caught.value.outcome == "timeout"


def test_places_across_the_date_line_and_at_a_pole() -> None:
    east = OpenMeteo(HttpClient(), latitude=-16.5, longitude=179.9)
    assert east.parse(body(latitude=-16.5, longitude=-179.8)).temperature_c == 18
    pole = OpenMeteo(HttpClient(), latitude=89.0, longitude=10)
    assert pole.parse(body(latitude=89.2, longitude=-120)).temperature_c == 18


@pytest.mark.parametrize("url", ["http://weather.local/v1", "ftp://h/", "https://h/v1?a=b"])
def test_a_url_that_must_not_be_asked(url: str) -> None:
    with pytest.raises(ValueError, match=r"url|http"):
        source(url)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.sampled_from([*body(), *(f"current__{k}" for k in body()["current"])]), JSON)
def test_whatever_is_sent_is_weather_or_refused(key: str, value: Any) -> None:
    try:
        found = source().parse(body(**{key: value}))
    except GridError:
        return
    assert -100 <= found.temperature_c <= 70
    assert 0 <= found.humidity_percent <= 100
