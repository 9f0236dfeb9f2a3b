"""Past and future of the sources that the books have had from the beginning, and GB's regions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grid_bodies as bodies
import grid_server as play
from grid_server import GridServer
from wattledger.errors import GridError
from wattledger.grid import KINDS, SourceConfig, keyless
from wattledger.grid.client import HttpClient
from wattledger.grid.electricity_maps import ElectricityMaps
from wattledger.grid.neso import Neso
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import DAY_NS, HOUR_NS, collect, good_of, utc
from wattledger.grid.source import History, Outlook
from wattledger.model import Basis, GridSignal

NOON = 1_516_449_600 * 10**9  # 2018-01-20T12:00Z
HALF_HOUR = HOUR_NS // 2
EM_18 = 1_709_748_000 * 10**9  # 2024-03-06T18:00Z


@pytest.fixture
def server() -> Iterator[GridServer]:
    with GridServer(play.reply(body={})) as server:
        yield server


@pytest.fixture
def maps(server: GridServer, tmp_path: Path) -> ElectricityMaps:
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    url = server.url + "/v4"
    return ElectricityMaps(HttpClient(), zone="US-CAR-DUK", token_file=token, url=url)


def neso(server: GridServer, zone: str = "GB") -> Neso:
    return Neso(HttpClient(), url=server.url, zone=zone)


def grams(signals: list[GridSignal]) -> list[float]:
    return [signal.intensity_ug_per_kwh / 1e6 for signal in signals]


# ── Electricity Maps, v3 and v4 ─────────────────────────────────────────────────────────────────


def test_the_last_day_is_asked_for_where_every_plan_may_look(
    server: GridServer, maps: ElectricityMaps
) -> None:
    server.script = play.reply(body=bodies.electricity_maps_series("history"))
    found = maps.between(EM_18, EM_18 + 3 * HOUR_NS, EM_18 + 10 * HOUR_NS)
    assert urlsplit(server.requests[0].target).path == "/v4/carbon-intensity/history"
    assert server.requests[0].headers["auth-token"] == "secret"
    assert grams(found) == [216, 220.5]  # the null is a gap
    assert [signal.estimated for signal in found] == [False, True]
    assert {signal.fetched_at_ns for signal in found} == {EM_18 + 10 * HOUR_NS}
    assert found[0].valid_to_ns == found[1].valid_from_ns == EM_18 + HOUR_NS


def test_what_lies_farther_back_is_asked_for_in_parts_of_ten_days(
    server: GridServer, maps: ElectricityMaps
) -> None:
    server.script = play.in_turn(
        play.reply(body=bodies.electricity_maps_series()),
        play.reply(body=bodies.electricity_maps_series("data", 1) | {"data": []}),
    )
    found = maps.between(EM_18, EM_18 + 12 * DAY_NS, EM_18 + 30 * DAY_NS)
    queries = [parse_qs(urlsplit(request.target).query) for request in server.requests]
    assert [(q["start"][0], q["end"][0]) for q in queries] == [
        ("2024-03-06T18:00:00Z", "2024-03-16T18:00:00Z"),
        ("2024-03-16T18:00:00Z", "2024-03-18T18:00:00Z"),
    ]
    assert all(q["disableCallerLookup"] == ["true"] for q in queries)
    assert urlsplit(server.requests[0].target).path == "/v4/carbon-intensity/past-range"
    assert grams(found) == [216, 220.5]


@pytest.mark.parametrize("key", ["forecast", "data"])
def test_the_forecast_begins_with_the_present_hour(
    server: GridServer, maps: ElectricityMaps, key: str
) -> None:
    body = bodies.electricity_maps_series("forecast", 100, 200, 300)
    body = {"zone": "US-CAR-DUK", "temporalGranularity": "hourly", key: body["forecast"]}
    server.script = play.reply(body=body)
    found = maps.forecast(EM_18 + 90 * 60 * 10**9)
    assert grams(found) == [200, 300]
    assert all(signal.estimated for signal in found)
    assert urlsplit(server.requests[0].target).path == "/v4/carbon-intensity/forecast"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (bodies.electricity_maps_series(zone="DE"), "wrong_zone"),
        ({"zone": "US-CAR-DUK", "data": [{"zone": "DE", "carbonIntensity": 5}]}, "wrong_zone"),
        ({"data": [{"carbonIntensity": 5, "datetime": "2024-03-06T18:00:00Z"}]}, "wrong_zone"),
        ({"zone": "US-CAR-DUK", "data": {}}, "bad_value"),
        ({"zone": "US-CAR-DUK", "data": ["x"]}, "bad_value"),
        (bodies.electricity_maps_series("data", -1), "bad_value"),
        (bodies.electricity_maps_series("data", 1, emissionFactorType="direct"), "bad_value"),
        ([], "bad_value"),
        ({}, "no_data"),
        (bodies.electricity_maps_series("data", None), "no_data"),
    ],
)
def test_what_is_no_series(maps: ElectricityMaps, body: Any, outcome: str) -> None:
    if outcome == "bad_value" and isinstance(body, dict) and "emissionFactorType" in body:
        del body["data"][0]["emissionFactorType"]
    with pytest.raises(GridError) as caught:
        maps.parse_series(body, EM_18)
    assert caught.value.outcome == outcome


def test_a_plan_without_history_says_so(server: GridServer, maps: ElectricityMaps) -> None:
    server.script = play.reply(403)
    with pytest.raises(GridError) as caught:
        maps.between(EM_18, EM_18 + HOUR_NS, EM_18 + 9 * DAY_NS)
    assert caught.value.outcome == "http_403" and "plan" in caught.value.hint


# ── NESO ────────────────────────────────────────────────────────────────────────────────────────


def test_neso_past_in_parts_that_it_allows(server: GridServer) -> None:
    server.script = play.reply(body=play.neso_body())
    found = neso(server).between(NOON, NOON + 20 * DAY_NS, NOON + 21 * DAY_NS)
    assert [request.target for request in server.requests] == [
        "/intensity/2018-01-20T12:00Z/2018-02-02T12:00Z",
        "/intensity/2018-02-02T12:00Z/2018-02-09T12:00Z",
    ]
    assert grams(found) == [263]


def test_neso_half_hours_outside_the_span_are_left_out(server: GridServer) -> None:
    server.script = play.reply(body=play.neso_body("2018-01-20T11:30Z", "2018-01-20T12:00Z"))
    assert neso(server).between(NOON, NOON + HALF_HOUR, NOON + DAY_NS) == []


def test_neso_forecast(server: GridServer) -> None:
    body = play.neso_body(actual=None)
    body["data"] += play.neso_body("2018-01-20T12:30Z", "2018-01-20T13:00Z", actual=None)["data"]
    server.script = play.reply(body=body)
    found = neso(server).forecast(NOON + HALF_HOUR)
    assert server.requests[0].target == "/intensity/2018-01-20T12:30Z/fw48h"
    assert [signal.valid_from_ns for signal in found] == [NOON + HALF_HOUR]
    with pytest.raises(GridError) as caught:
        neso(server).forecast(NOON + DAY_NS)
    assert caught.value.outcome == "stale"


@pytest.mark.parametrize(
    ("zone", "path", "named"),
    [
        ("GB-13", "regionid/13", {}),
        ("GB-RG10", "postcode/RG10", {"postcode": "RG10"}),
    ],
)
@pytest.mark.parametrize("as_list", [True, False])
def test_a_region_has_a_forecast_only_and_is_echoed(
    server: GridServer, zone: str, path: str, named: dict[str, Any], as_list: bool
) -> None:
    server.script = play.reply(body=bodies.neso_region(266, 100, as_list=as_list, **named))
    source = neso(server, zone)
    [first, second] = source.latest(NOON)
    assert server.requests[0].target == f"/regional/{path}"
    assert (first.zone, first.source, first.basis) == (zone, "neso", Basis.GENERATION)
    assert first.estimated and grams([first, second]) == [266, 100]
    assert len(source.between(NOON, NOON + HALF_HOUR, NOON)) == 1
    assert len(source.forecast(NOON)) == 2
    assert [request.target for request in server.requests[1:]] == [
        f"/regional/intensity/2018-01-20T12:00Z/2018-01-20T12:30Z/{path}",
        f"/regional/intensity/2018-01-20T12:00Z/fw48h/{path}",
    ]


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (bodies.neso_region(regionid=12), "wrong_zone"),
        (bodies.neso_region(regionid=None), "wrong_zone"),
        (bodies.neso_region(-1), "bad_value"),
        (bodies.neso_region(None), "no_data"),
        (bodies.neso_region(data=[]), "no_data"),
        ({"data": []}, "no_data"),
        ({}, "no_data"),
        ({"data": ["x"]}, "bad_value"),
        ({"data": 5}, "bad_value"),
    ],
)
def test_what_is_no_region(server: GridServer, body: Any, outcome: str) -> None:
    server.script = play.reply(body=body)
    with pytest.raises(GridError) as caught:
        neso(server, "GB-13").latest(NOON)
    assert caught.value.outcome == outcome


def test_which_parts_of_great_britain_there_are() -> None:
    for zone in ("GB", "GB-1", "GB-17", "GB-RG10", "GB-E1", "GB-SW1A"):
        assert KINDS["neso"].serves(zone)
        assert keyless(zone) == SourceConfig("neso", zone)
    for zone in ("GB-0", "GB-18", "GB-01", "GB-NIR", "GB-", "GB-²", "GB-rg10", "GB-RG10 1AA", "UK"):
        assert not KINDS["neso"].serves(zone)
        assert keyless(zone) is None


# ── what they share ─────────────────────────────────────────────────────────────────────────────


def made(start_ns: int, grams: int = 5) -> GridSignal:
    return GridSignal(
        grams, "GB", "x", Basis.DIRECT, start_ns, start_ns + HALF_HOUR, False, 0, HALF_HOUR
    )


def test_both_can_look_back_and_ahead(server: GridServer, maps: ElectricityMaps) -> None:
    for source in (maps, neso(server)):
        assert isinstance(source, History) and isinstance(source, Outlook)


@given(st.integers(0, 400), st.integers(1, 400), st.integers(1, 60))
def test_parts_cover_a_span_once_and_nothing_else_comes_back(
    start: int, length: int, longest: int
) -> None:
    asked: list[tuple[int, int]] = []

    def ask(from_ns: int, to_ns: int) -> list[GridSignal]:
        asked.append((from_ns, to_ns))
        first = from_ns // HALF_HOUR - 1
        return [made(number * HALF_HOUR) for number in range(first, to_ns // HALF_HOUR + 2)]

    span = (start * HALF_HOUR // 3, (start + length) * HALF_HOUR // 3)
    found = collect(*span, longest * HALF_HOUR // 3, ask)
    assert (asked[0][0], asked[-1][1]) == span
    assert all(before[1] == after[0] for before, after in pairwise(asked))
    starts = [signal.valid_from_ns for signal in found]
    assert starts == sorted(set(starts))
    assert starts == list(range(span[0] // HALF_HOUR * HALF_HOUR, span[1], HALF_HOUR))


def test_a_part_without_data_is_a_gap_and_any_other_failure_is_one() -> None:
    def ask(from_ns: int, _to: int) -> list[GridSignal]:
        if from_ns == 0:
            raise failure(Outcome.NO_DATA, "nothing")
        if from_ns == 2 * HOUR_NS:
            raise failure(Outcome.HTTP_429, "slower")
        return [made(from_ns)]

    assert collect(0, HOUR_NS, HOUR_NS, ask) == []
    assert len(collect(0, 2 * HOUR_NS, HOUR_NS, ask)) == 1
    with pytest.raises(GridError, match="slower"):
        collect(0, 3 * HOUR_NS, HOUR_NS, ask)
    with pytest.raises(ValueError, match="ends after"):
        collect(HOUR_NS, HOUR_NS, HOUR_NS, ask)


def test_one_bad_row_costs_itself_only_and_a_later_word_counts() -> None:
    def row(value: int) -> GridSignal | None:
        if value < 0:
            raise failure(Outcome.BAD_VALUE, "no")
        return made(value // 10 * HALF_HOUR, value % 10) if value else None

    assert good_of([21, -1, 11, 0, 12], row) == [made(HALF_HOUR, 2), made(2 * HALF_HOUR, 1)]
    for rows, outcome in (([-1, 0], "bad_value"), ([0], "no_data"), ([], "no_data")):
        with pytest.raises(GridError) as caught:
            good_of(rows, row)
        assert caught.value.outcome == outcome


def test_instants_as_they_are_asked_for() -> None:
    assert utc(NOON + 999_999_999) == "2018-01-20T12:00:00Z"
    assert utc(NOON, "%Y%m%d%H%M") == "201801201200"
