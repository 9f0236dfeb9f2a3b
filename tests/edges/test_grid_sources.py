"""Each provider's recorded shapes, and whatever else it may answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grid_server as play
from grid_server import GridServer
from wattledger.errors import ConfigError, GridError
from wattledger.grid import KINDS, SourceConfig, build_sources
from wattledger.grid.checks import instant_ns, intensity_ug_per_kwh
from wattledger.grid.client import HttpClient
from wattledger.grid.electricity_maps import ElectricityMaps
from wattledger.grid.neso import Neso
from wattledger.model import Basis
from wattledger.units import NS_PER_S

NOON = 1_516_449_600 * NS_PER_S  # 2018-01-20T12:00Z
HALF_HOUR = 1800 * NS_PER_S
EM_HOUR = 1_709_751_600 * NS_PER_S  # 2024-03-06T19:00Z
CANARY = "canary-7f3a9c"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(CANARY + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def server() -> Iterator[GridServer]:
    with GridServer(play.reply(body={})) as server:
        yield server


def neso(url: str = "") -> Neso:
    return Neso(HttpClient(deadline_s=5), url=url)


def maps(token_file: Path = Path("/nonexistent"), url: str = "", **options: Any) -> ElectricityMaps:
    return ElectricityMaps(
        HttpClient(deadline_s=5),
        zone=options.pop("zone", "US-CAR-DUK"),
        token_file=token_file,
        url=url,
        **options,
    )


# ── NESO ────────────────────────────────────────────────────────────────────────────────────────


def test_neso_gives_the_last_half_hour(server: GridServer) -> None:
    server.script = play.reply(body=play.neso_body())
    [signal] = neso(server.url + "/").latest(NOON + HALF_HOUR)
    assert server.requests[0].target == "/intensity"
    assert "auth-token" not in server.requests[0].headers
    assert signal.intensity_ug_per_kwh == 263_000_000
    assert (signal.zone, signal.source, signal.basis) == ("GB", "neso", Basis.GENERATION)
    assert (signal.valid_from_ns, signal.valid_to_ns) == (NOON, NOON + HALF_HOUR)
    assert not signal.estimated
    assert signal.cadence_ns == HALF_HOUR
    assert signal.fetched_at_ns == NOON + HALF_HOUR


def test_neso_forecast_stands_in_for_an_actual_that_is_not_known_yet() -> None:
    [signal] = neso().parse(play.neso_body(actual=None), NOON)
    assert signal.intensity_ug_per_kwh == 266_000_000
    assert signal.estimated


def test_neso_zero_is_a_value_where_wind_and_sun_count_as_zero() -> None:
    [signal] = neso().parse(play.neso_body(actual=0), NOON)
    assert signal.intensity_ug_per_kwh == 0
    assert not signal.estimated


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ({}, "no_data"),
        ({"data": []}, "no_data"),
        ({"data": None}, "no_data"),
        ({"error": {"code": "400 Bad Request", "message": "string"}}, "no_data"),
        (play.neso_body(actual=None, forecast=None), "no_data"),
        (play.neso_body(actual=-1), "bad_value"),
        (play.neso_body(actual=5000), "bad_value"),
        (play.neso_body(actual="263"), "bad_value"),
        (play.neso_body(actual=True), "bad_value"),
        (play.neso_body(actual=[]), "bad_value"),
        (play.neso_body(end="2018-01-20T13:00Z"), "bad_value"),
        (play.neso_body(start="2018-01-20T12:30Z", end="2018-01-20T12:00Z"), "bad_value"),
        (play.neso_body(start="2018-01-20T12:10Z", end="2018-01-20T12:40Z"), "bad_value"),
        (play.neso_body(start="2018-01-20T12:00"), "bad_value"),
        (play.neso_body(start="2018-02-30T12:00Z"), "bad_value"),
        (play.neso_body(start="yesterday"), "bad_value"),
        ({"data": {"from": "x"}}, "bad_value"),
        ({"data": ["x"]}, "bad_value"),
        ({"data": [{}]}, "bad_value"),
        ([], "bad_value"),
        (None, "bad_value"),
        ("data", "bad_value"),
        (263, "bad_value"),
    ],
)
def test_neso_what_is_no_signal(server: GridServer, reply: Any, outcome: str) -> None:
    server.script = play.reply(body=reply)
    with pytest.raises(GridError) as caught:
        neso(server.url).latest(NOON)
    assert caught.value.outcome == outcome


# ── Electricity Maps ────────────────────────────────────────────────────────────────────────────


def test_electricity_maps_gives_the_present_hour(server: GridServer, token_file: Path) -> None:
    server.script = play.reply(body=play.electricity_maps_body())
    # The hour began after the value was last touched: that is usual and not an error.
    [signal] = maps(token_file, server.url + "/v3").latest(EM_HOUR + 60 * NS_PER_S)
    path, _, query = server.requests[0].target.partition("?")
    assert path == "/v3/carbon-intensity/latest"
    assert set(query.split("&")) == {
        "zone=US-CAR-DUK",
        "emissionFactorType=lifecycle",
        "disableCallerLookup=true",
    }
    assert server.requests[0].headers["auth-token"] == CANARY
    assert signal.intensity_ug_per_kwh == 216_000_000
    assert (signal.zone, signal.source) == ("US-CAR-DUK", "electricity_maps")
    assert signal.basis is Basis.LIFECYCLE
    assert signal.estimated
    assert (signal.valid_from_ns, signal.valid_to_ns) == (EM_HOUR, EM_HOUR + 2 * HALF_HOUR)


def test_electricity_maps_floats_and_measured_values() -> None:
    body = play.electricity_maps_body(
        carbonIntensity=58.765439, isEstimated=False, estimationMethod=None
    )
    signal = maps().parse(body, EM_HOUR)
    assert signal.intensity_ug_per_kwh == 58_765_439
    assert not signal.estimated


def test_electricity_maps_direct_factors(server: GridServer, token_file: Path) -> None:
    server.script = play.reply(
        body=play.electricity_maps_body(emissionFactorType="direct", carbonIntensity=0)
    )
    [signal] = maps(token_file, server.url, basis=Basis.DIRECT).latest(EM_HOUR)
    assert "emissionFactorType=direct" in server.requests[0].target
    assert signal.basis is Basis.DIRECT
    assert signal.intensity_ug_per_kwh == 0


def test_electricity_maps_finer_grain() -> None:
    signal = maps().parse(play.electricity_maps_body(temporalGranularity="5_minutes"), EM_HOUR)
    assert signal.valid_to_ns - signal.valid_from_ns == 300 * NS_PER_S


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ({}, "no_data"),
        ({"error": 'No recent data for zone "US-MIDW-MISO"'}, "no_data"),
        ({"status": "no-data", "data": {}}, "no_data"),
        (play.electricity_maps_body(carbonIntensity=None), "no_data"),
        (play.electricity_maps_body(zone="DE"), "wrong_zone"),
        (play.electricity_maps_body(zone=None), "wrong_zone"),
        (play.electricity_maps_body(zone=["US-CAR-DUK"]), "wrong_zone"),
        (play.electricity_maps_body(emissionFactorType="direct"), "bad_value"),
        (play.electricity_maps_body(carbonIntensity=-1), "bad_value"),
        (play.electricity_maps_body(carbonIntensity=0), "bad_value"),
        (play.electricity_maps_body(carbonIntensity=5000), "bad_value"),
        (play.electricity_maps_body(carbonIntensity=10**400), "bad_value"),
        (play.electricity_maps_body(carbonIntensity="216"), "bad_value"),
        (play.electricity_maps_body(carbonIntensity=True), "bad_value"),
        (play.electricity_maps_body(isEstimated="no"), "bad_value"),
        (play.electricity_maps_body(datetime=None), "bad_value"),
        (play.electricity_maps_body(datetime=1709751600), "bad_value"),
        (play.electricity_maps_body(datetime="2024-03-06T19:00:00+01:00"), "bad_value"),
        (play.electricity_maps_body(datetime="2024-03-06T25:00:00Z"), "bad_value"),
        (play.electricity_maps_body(temporalGranularity="yearly"), "bad_value"),
        (play.electricity_maps_body(temporalGranularity={}), "bad_value"),
        ([], "bad_value"),
        (None, "bad_value"),
    ],
)
def test_electricity_maps_what_is_no_signal(
    server: GridServer, token_file: Path, reply: Any, outcome: str
) -> None:
    server.script = play.reply(body=reply)
    with pytest.raises(GridError) as caught:
        maps(token_file, server.url).latest(EM_HOUR)
    assert caught.value.outcome == outcome
    assert CANARY not in str(caught.value)


def test_a_rotated_token_is_taken_up(server: GridServer, token_file: Path) -> None:
    server.script = play.reply(body=play.electricity_maps_body())
    source = maps(token_file, server.url)
    source.latest(EM_HOUR)
    token_file.write_text("another\n")
    source.latest(EM_HOUR)
    assert [r.headers["auth-token"] for r in server.requests] == [CANARY, "another"]


def test_without_its_token_nothing_is_asked(server: GridServer, token_file: Path) -> None:
    token_file.chmod(0o644)
    with pytest.raises(GridError) as caught:
        maps(token_file, server.url).latest(EM_HOUR)
    assert caught.value.outcome == "no_token"
    assert "chmod 600" in str(caught.value)
    assert server.requests == []


# ── whatever they answer ────────────────────────────────────────────────────────────────────────

_words = st.sampled_from(
    [
        *("data", "from", "to", "intensity", "actual", "forecast", "zone", "datetime", "error"),
        *("carbonIntensity", "isEstimated", "temporalGranularity", "emissionFactorType"),
        *("2018-01-20T12:00Z", "2018-01-20T12:30Z", "US-CAR-DUK", "lifecycle", "hourly"),
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | _words,
    lambda inner: st.lists(inner) | st.dictionaries(_words, inner),
    max_leaves=20,
)


@given(_json)
def test_no_reply_raises_anything_but_ours(reply: Any) -> None:
    for source in (neso(), maps()):
        with contextlib.suppress(GridError):
            source.parse(reply, NOON)


@given(st.dictionaries(_words, _json), st.sampled_from(["neso", "electricity_maps"]))
def test_no_change_to_a_good_reply_raises_anything_but_ours(
    changes: dict[str, Any], kind: str
) -> None:
    try:
        if kind == "neso":
            body = play.neso_body()
            body["data"][0].update(changes)
            signals = neso().parse(body, NOON)
        else:
            signals = [maps().parse(play.electricity_maps_body() | changes, EM_HOUR)]
    except GridError:
        pass
    else:
        for signal in signals:
            assert 0 <= signal.intensity_ug_per_kwh <= 2_000_000_000
            assert signal.valid_from_ns < signal.valid_to_ns


@given(st.integers(0, 2000) | st.floats(0, 2000), st.sampled_from(Basis))
def test_every_plausible_intensity_is_taken(value: float, basis: Basis) -> None:
    if value == 0 and basis is Basis.LIFECYCLE:
        return
    assert intensity_ug_per_kwh(value, basis) == pytest.approx(value * 1e6, abs=1)


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("2018-01-20T12:00Z", NOON // NS_PER_S),
        ("2018-01-20T12:00:00Z", NOON // NS_PER_S),
        ("2018-01-20T12:00:00.000Z", NOON // NS_PER_S),
        ("2018-01-20T12:00:00+00:00", NOON // NS_PER_S),
        ("1970-01-01T00:00Z", 0),
    ],
)
def test_instants(text: str, expected_s: int) -> None:
    assert instant_ns(text, "x") == expected_s * NS_PER_S


# ── the configuration's sources ─────────────────────────────────────────────────────────────────


def test_sources_are_built_in_order_with_names_of_their_own(token_file: Path) -> None:
    configs = [
        SourceConfig("electricity_maps", "GB", token_file=token_file),
        SourceConfig("neso", "GB"),
        SourceConfig(
            "electricity_maps",
            "GB",
            token_file=token_file,
            url="https://api.electricitymaps.com/v4",
            basis=Basis.DIRECT,
        ),
    ]
    sources = build_sources(configs, HttpClient())
    assert [source.name for source in sources] == ["electricity_maps", "neso", "electricity_maps_2"]
    assert [source.basis for source in sources] == ["lifecycle", "generation", "direct"]


def test_every_fault_of_the_sources_is_named_at_once() -> None:
    configs = [
        SourceConfig("nesso", "GB"),
        SourceConfig("neso", "DE"),
        SourceConfig("neso", "GB", url="http://carbon.example/"),
        SourceConfig("neso", "GB", url="https://carbon.example/?key=x"),
        SourceConfig("electricity_maps", "DE"),
        SourceConfig("electricity_maps", "germany", token_file=Path("t")),
        SourceConfig("electricity_maps", "DE", token_file=Path("t"), basis=Basis.GENERATION),
    ]
    with pytest.raises(ConfigError) as caught:
        build_sources(configs, HttpClient())
    paths = [path.removeprefix("grid.source") for path, _ in caught.value.faults]
    assert paths == ["[0].kind", "[1].zone", "[2]", "[3]", "[4]", "[5].zone", "[6]"]
    assert "known are neso, electricity_maps" in str(caught.value)


def test_which_zones_a_kind_serves() -> None:
    assert KINDS["neso"].serves("GB") and not KINDS["neso"].serves("DE")
    for zone in ("DE", "DK-DK1", "US-CAR-DUK", "AU-NSW", "FR-COR"):
        assert KINDS["electricity_maps"].serves(zone)
    for zone in ("", "de", "WORLD", "DE&x=1", "DE\n", "US_CAL"):
        assert not KINDS["electricity_maps"].serves(zone)
