"""The sources that need no key, Energy-Charts, Energinet and RTE; where they are used unasked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
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
from wattledger.config.check import source_configs, table_zone
from wattledger.errors import ConfigError, GridError
from wattledger.grid import KINDS, SourceConfig, build_sources, keyless
from wattledger.grid.client import HttpClient
from wattledger.grid.energinet import Energinet
from wattledger.grid.energy_charts import EnergyCharts
from wattledger.grid.rte import Rte
from wattledger.grid.source import History, Outlook
from wattledger.grid.table import CountryTable
from wattledger.model import Basis, GridSignal

MINUTE = 60 * 10**9
QUARTER, HOUR, DAY = 15 * MINUTE, 60 * MINUTE, 1440 * MINUTE
T19 = 1_709_751_600 * 10**9  # 2024-03-06T19:00Z
FR18 = 1_728_410_400 * 10**9  # 2024-10-08T18:00Z


@pytest.fixture
def server() -> Iterator[GridServer]:
    with GridServer(play.reply(body={})) as server:
        yield server


def charts(url: str = "", zone: str = "DE") -> EnergyCharts:
    return EnergyCharts(HttpClient(), zone=zone, url=url)


def danish(url: str = "", zone: str = "DK1") -> Energinet:
    return Energinet(HttpClient(), zone=zone, url=url)


def french(url: str = "") -> Rte:
    return Rte(HttpClient(), url=url)


def grams(signals: list[GridSignal]) -> list[float]:
    return [signal.intensity_ug_per_kwh / 1e6 for signal in signals]


def asked(server: GridServer, number: int = 0) -> tuple[str, dict[str, str]]:
    parts = urlsplit(server.requests[number].target)
    return parts.path, {key: value[0] for key, value in parse_qs(parts.query).items()}


def outcome_of(ask: Callable[[], object]) -> str:
    with pytest.raises(GridError) as caught:
        ask()
    assert caught.value.hint
    return caught.value.outcome


# ── Energy-Charts ───────────────────────────────────────────────────────────────────────────────


def test_energy_charts_where_nothing_is_computed_the_forecast_stands_in(server: GridServer) -> None:
    body = bodies.energy_charts([491.5, 480, None, None, None], [None, 470, 505.0, None, 600])
    server.script = play.reply(body=body)
    found = charts(server.url).latest(T19 + 45 * MINUTE)
    assert asked(server) == (
        "/co2eq",
        {"country": "de", "start": "2024-03-06T13:45Z", "end": "2024-03-06T20:45Z"},
    )
    assert grams(found) == [491.5, 480, 505]
    assert [signal.estimated for signal in found] == [False, False, True]
    assert [signal.valid_from_ns - T19 for signal in found] == [0, QUARTER, 2 * QUARTER]
    assert {signal.valid_to_ns - signal.valid_from_ns for signal in found} == {QUARTER}
    first = found[0]
    assert (first.zone, first.source, first.basis) == ("DE", "energy_charts", Basis.LIFECYCLE)


def test_energy_charts_past_and_forecast(server: GridServer) -> None:
    server.script = play.reply(body=bodies.energy_charts([491, 480, None], [400, 450, 505]))
    past = charts(server.url).between(T19, T19 + 16 * DAY, T19 + 20 * DAY)
    assert grams(past) == [491, 480, 505]
    assert [asked(server, n)[1]["start"] for n in (0, 1)] == [
        "2024-03-06T19:00Z",
        "2024-03-20T19:00Z",
    ]
    ahead = charts(server.url).forecast(T19 + 20 * MINUTE)
    assert grams(ahead) == [450, 505]
    assert all(signal.estimated for signal in ahead)


def test_energy_charts_hours_are_hours() -> None:
    found = charts().parse(bodies.energy_charts([300, 310], [], step_s=3600), T19)
    assert [signal.valid_to_ns - signal.valid_from_ns for signal in found] == [HOUR, HOUR]


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({}, "no_data"),
        (bodies.energy_charts([], []), "no_data"),
        (bodies.energy_charts([None, None], [None, None]), "no_data"),
        (bodies.energy_charts([], [-1]), "bad_value"),
        (bodies.energy_charts([0], []), "bad_value"),  # no grid has a life cycle of 0
        (bodies.energy_charts([2001], []), "bad_value"),
        (bodies.energy_charts(["5"], []), "bad_value"),
        (bodies.energy_charts([5, 6], [5]), "bad_value"),
        (bodies.energy_charts([5], [5, 6]), "bad_value"),
        (bodies.energy_charts([5, 6], [], step_s=60), "bad_value"),
        (bodies.energy_charts([5, 6], [], step_s=0), "bad_value"),
        (bodies.energy_charts([5, 6], [], step_s=-900), "bad_value"),
        (bodies.energy_charts([5, 6], [], step_s=86_400), "bad_value"),
        (bodies.energy_charts([5], [], first_s=1_709_751_601), "bad_value"),
        (bodies.energy_charts([5], [], first_s=10**30 * 900), "bad_value"),
        ({"unix_seconds": ["x"], "co2eq": [5]}, "bad_value"),
        ({"unix_seconds": [True], "co2eq": [5]}, "bad_value"),
        ({"unix_seconds": 5, "co2eq": [5]}, "bad_value"),
        ([], "bad_value"),
        (None, "bad_value"),
    ],
)
def test_energy_charts_what_is_no_signal(server: GridServer, body: Any, outcome: str) -> None:
    server.script = play.reply(body=body)
    assert outcome_of(lambda: charts(server.url).latest(T19 + QUARTER)) == outcome


def test_energy_charts_only_what_is_to_come_is_no_present(server: GridServer) -> None:
    server.script = play.reply(body=bodies.energy_charts([], [100, 200]))
    assert outcome_of(lambda: charts(server.url).latest(T19 - HOUR)) == "no_data"
    assert outcome_of(lambda: charts(server.url).forecast(T19 + HOUR)) == "stale"


def test_energy_charts_keyless_or_not_it_says_when_it_is_asked_too_often(
    server: GridServer,
) -> None:
    server.script = play.reply(429, headers={"Retry-After": "77"})
    with pytest.raises(GridError) as caught:
        charts(server.url).latest(T19)
    assert (caught.value.outcome, caught.value.retry_after_s) == ("http_429", 77)


# ── Energinet ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("zone", ["DK1", "DK-DK1"])
def test_energinet_the_last_hours_whatever_the_order(server: GridServer, zone: str) -> None:
    server.script = play.reply(body=bodies.energinet(121.0, None, 0))
    found = danish(server.url, zone).latest(T19 + HOUR)
    path, query = asked(server)
    assert path == "/dataset/CO2Emis"
    assert (query["filter"], query["limit"]) == ('{"PriceArea":["DK1"]}', "24")
    assert query["sort"] == "Minutes5UTC desc" and "start" not in query
    assert grams(found) == [121, 0]
    assert [signal.valid_from_ns - T19 for signal in found] == [0, 10 * MINUTE]
    first = found[0]
    assert (first.zone, first.source, first.basis) == (zone, "energinet", Basis.GENERATION)
    assert not first.estimated and first.valid_to_ns == T19 + 5 * MINUTE


def test_energinet_danish_time_is_made_up_for(server: GridServer) -> None:
    server.script = play.reply(body=bodies.energinet(1, 2, 3))
    found = danish(server.url).between(T19, T19 + 10 * MINUTE, T19 + DAY)
    _, query = asked(server)
    # 21:10 is 20:10 or 19:10 UTC: later than what is wanted, whichever is in force.
    assert (query["start"], query["end"]) == ("2024-03-06T19:00", "2024-03-06T21:10")
    assert int(query["limit"]) >= 26
    assert query["sort"] == "Minutes5UTC asc"
    assert grams(found) == [1, 2]


def test_energinet_forecast(server: GridServer) -> None:
    server.script = play.reply(body=bodies.energinet(1, 2, 3))
    found = danish(server.url).forecast(T19 + 7 * MINUTE)
    assert asked(server)[0] == "/dataset/CO2EmisProg"
    assert grams(found) == [2, 3]
    assert all(signal.estimated for signal in found)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({}, "no_data"),
        ({"records": []}, "no_data"),
        (bodies.energinet(None), "no_data"),
        (bodies.energinet(-1), "bad_value"),
        (bodies.energinet(5000), "bad_value"),
        (bodies.energinet("121"), "bad_value"),
        (bodies.energinet(121, area="DK2"), "wrong_zone"),
        (bodies.energinet(121, area=None), "wrong_zone"),
        ({"records": [{"PriceArea": "DK1", "CO2Emission": 5}]}, "bad_value"),
        (
            {
                "records": [
                    {"PriceArea": "DK1", "CO2Emission": 5, "Minutes5UTC": "2024-13-01T00:00"}
                ]
            },
            "bad_value",
        ),
        ({"records": {"a": 1}}, "bad_value"),
        ({"records": [5]}, "bad_value"),
        ([], "bad_value"),
    ],
)
def test_energinet_what_is_no_signal(server: GridServer, body: Any, outcome: str) -> None:
    server.script = play.reply(body=body)
    assert outcome_of(lambda: danish(server.url).latest(T19)) == outcome


# ── RTE ─────────────────────────────────────────────────────────────────────────────────────────


def test_rte_the_last_quarter_hours_that_are_known(server: GridServer) -> None:
    server.script = play.reply(body={"total_count": 99, "results": bodies.rte(34, 36)[::-1]})
    found = french(server.url).latest(FR18 + HOUR)
    path, query = asked(server)
    assert path == "/eco2mix-national-tr/records"
    assert query["where"] == "taux_co2 is not null"
    assert (query["order_by"], query["limit"]) == ("date_heure desc", "8")
    assert grams(found) == [34, 36]
    assert [signal.valid_from_ns - FR18 for signal in found] == [0, QUARTER]
    first = found[0]
    assert (first.zone, first.source, first.basis) == ("FR", "rte", Basis.DIRECT)
    assert first.estimated and first.valid_to_ns == FR18 + QUARTER
    assert first.cadence_ns == HOUR


def test_rte_final_values_come_before_the_first_estimates(server: GridServer) -> None:
    server.script = play.in_turn(
        play.reply(body=bodies.rte(30)),  # consolidated, 18:00 to 18:30
        play.reply(body=bodies.rte(34, 36, 38, 40)),  # real time, until 19:00
    )
    found = french(server.url).between(FR18, FR18 + HOUR, FR18 + 40 * DAY)
    assert [asked(server, n)[0] for n in (0, 1)] == [
        "/eco2mix-national-cons-def/exports/json",
        "/eco2mix-national-tr/exports/json",
    ]
    assert "date_heure < date'2024-10-08T19:00:00Z'" in asked(server)[1]["where"]
    assert grams(found) == [30, 38, 40]
    assert [signal.estimated for signal in found] == [False, True, True]
    assert found[0].valid_to_ns == found[1].valid_from_ns == FR18 + 30 * MINUTE


def test_rte_what_is_not_consolidated_yet_is_estimated(server: GridServer) -> None:
    server.script = play.in_turn(play.reply(body=[]), play.reply(body=bodies.rte(34, None, 38)))
    found = french(server.url).between(FR18, FR18 + HOUR, FR18 + DAY)
    assert grams(found) == [34, 38]
    assert all(signal.estimated for signal in found)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({}, "no_data"),
        ({"total_count": 0, "results": []}, "no_data"),
        ({"error_code": "InvalidRESTParameterError", "message": "…"}, "no_data"),
        ({"results": bodies.rte(None)}, "no_data"),
        ({"results": bodies.rte(-1)}, "bad_value"),
        ({"results": bodies.rte("34")}, "bad_value"),
        ({"results": [{"taux_co2": 5, "date_heure": "2024-10-08T18:07:00+00:00"}]}, "bad_value"),
        ({"results": [{"taux_co2": 5, "date_heure": "2024-10-08T20:00:00+02:00"}]}, "bad_value"),
        ({"results": [{"taux_co2": 5}]}, "bad_value"),
        ({"results": [[]]}, "bad_value"),
        ({"results": 5}, "bad_value"),
        (bodies.rte(34), "bad_value"),
    ],
)
def test_rte_what_is_no_signal(server: GridServer, body: Any, outcome: str) -> None:
    server.script = play.reply(body=body)
    assert outcome_of(lambda: french(server.url).latest(FR18)) == outcome


# ── all of them ─────────────────────────────────────────────────────────────────────────────────


def test_who_can_look_where() -> None:
    assert [isinstance(s, History) for s in (charts(), danish(), french())] == [True] * 3
    assert [isinstance(s, Outlook) for s in (charts(), danish(), french())] == [True, True, False]


_words = st.sampled_from(
    [
        *("unix_seconds", "co2eq", "co2eq_forecast", "records", "PriceArea", "DK1", "Minutes5UTC"),
        *("CO2Emission", "results", "date_heure", "taux_co2", "2024-10-08T18:00:00+00:00"),
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | _words,
    lambda inner: st.lists(inner) | st.dictionaries(_words, inner),
    max_leaves=15,
)


@given(_json, st.dictionaries(_words, _json))
def test_no_reply_raises_anything_but_ours(reply: Any, changes: dict[str, Any]) -> None:
    parsers: list[Callable[[Any], list[GridSignal]]] = [
        lambda body: charts().parse(body, T19),
        lambda body: danish().parse(body, T19, estimated=False),
        lambda body: french().parse(body, T19),
    ]
    good: list[Any] = [bodies.energy_charts([5], [6]), bodies.energinet(), bodies.rte()]
    for parse, body in zip(parsers, good, strict=True):
        changed = [body[0] | changes] if isinstance(body, list) else body | changes
        for one in (reply, changed):
            with contextlib.suppress(GridError):
                for signal in parse(one):
                    assert 0 <= signal.intensity_ug_per_kwh <= 2_000_000_000
                    assert signal.valid_from_ns < signal.valid_to_ns


# ── used unasked ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("zone", "kind"),
    [
        *((zone, "energy_charts") for zone in ("DE", "AT", "BE", "CH", "CZ", "LU", "NL", "PL")),
        *((zone, "energinet") for zone in ("DK1", "DK2", "DK-DK1", "DK-DK2")),
        ("FR", "rte"),
        ("GB", "neso"),
        *((zone, None) for zone in ("WORLD", "US", "DK", "US-CAR-DUK", "FR-COR", "SE", "IE")),
    ],
)
def test_the_keyless_source_of_a_zone_is_used_where_none_is_listed(
    zone: str, kind: str | None
) -> None:
    config = parse_config(f'site.zone = "{zone}"')
    statuses = build.grid_feed(config, FakeClock(), ()).statuses()
    assert [status.source for status in statuses] == ([kind] if kind else [])
    off = parse_config(f'site.zone = "{zone}"\ngrid.source = []')
    assert source_configs(off) == []


def test_the_danish_areas_have_denmarks_row() -> None:
    table = CountryTable.load()
    for zone in ("DK1", "DK-DK2"):
        config = parse_config(f'site.zone = "{zone}"')
        assert table_zone(config) == "DK" and zone in table
        assert build.site_factors(config).ewif_ul_per_kwh == table.ewif("DK").ul_per_kwh


def test_a_source_that_is_listed_takes_the_place_of_the_keyless_one() -> None:
    config = parse_config('site.zone = "FR"\n[[grid.source]]\nkind = "energy_charts"')
    [status] = build.grid_feed(config, FakeClock(), ()).statuses()
    assert status.source == "energy_charts"


def test_what_they_do_not_serve_or_offer_is_a_fault() -> None:
    configs = [
        SourceConfig("energy_charts", "US"),
        SourceConfig("energinet", "DK"),
        SourceConfig("rte", "DE"),
        SourceConfig("rte", "FR", basis=Basis.LIFECYCLE),
        SourceConfig("energinet", "DK1", basis=Basis.DIRECT),
        SourceConfig("energy_charts", "DE", basis=Basis.DIRECT),
        SourceConfig("energy_charts", "DE", url="http://example.org"),
    ]
    with pytest.raises(ConfigError) as caught:
        build_sources(configs, HttpClient())
    assert [path.removeprefix("grid.source") for path, _ in caught.value.faults] == [
        *("[0].zone", "[1].zone", "[2].zone", "[3]", "[4]", "[5]", "[6]"),
    ]


def test_a_keyless_source_needs_nothing_but_a_zone() -> None:
    for zone in ("DE", "DK1", "FR", "GB", "GB-13"):
        config = keyless(zone)
        assert config is not None and not KINDS[config.kind].needs_token
        assert KINDS[config.kind].serves(zone) and KINDS[config.kind].books
        [source] = build_sources([config], HttpClient())
        assert source.zone == zone
