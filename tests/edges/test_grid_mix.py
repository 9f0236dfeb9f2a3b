"""Intensity from what electricity was made of: the fuel table, ENTSO-E and EIA."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import grid_bodies as bodies
import grid_server as play
from grid_server import GridServer
from wattledger.config import parse_config
from wattledger.config.check import table_zone
from wattledger.errors import GridError
from wattledger.grid import KINDS, eia, entsoe
from wattledger.grid.client import HttpClient
from wattledger.grid.eia import Eia
from wattledger.grid.entsoe import AREAS, Entsoe, eic_of, is_eic
from wattledger.grid.mix import (
    STORAGE,
    UNKNOWN,
    ewif_ul_per_kwh,
    factors,
    g_per_kwh,
    water_factors,
    whole,
)
from wattledger.grid.source import History
from wattledger.model import Basis, GridSignal

HOUR = 3600 * 10**9
T18 = 1_709_748_000 * 10**9  # 2024-03-06T18:00Z
CANARY = "canary-5b1e"


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


def american(url: str = "", token_file: Path = Path("/nonexistent")) -> Eia:
    return Eia(HttpClient(), zone="US-CISO", token_file=token_file, url=url)


def european(url: str = "", token_file: Path = Path("/nonexistent")) -> Entsoe:
    return Entsoe(HttpClient(), zone="DE", token_file=token_file, url=url)


def grams(signals: list[GridSignal]) -> list[float]:
    return [signal.intensity_ug_per_kwh / 1e6 for signal in signals]


def outcome_of(ask: Callable[[], object]) -> str:
    with pytest.raises(GridError) as caught:
        ask()
    assert CANARY not in f"{caught.value!r} {caught.value.__cause__!r}"
    return caught.value.outcome


# ── the fuel table ──────────────────────────────────────────────────────────────────────────────


def test_the_medians_of_the_ipcc() -> None:
    assert factors() == {
        "biomass": 230, "coal": 820, "gas": 490, "geothermal": 38, "hydro": 24, "nuclear": 12,
        "ocean": 17, "oil": 840, "solar": 48, "solar_thermal": 27, "wind": 11,
        "wind_offshore": 12,
    }  # fmt: skip


def test_every_code_of_a_provider_leads_to_a_fuel() -> None:
    known = {*factors(), STORAGE, UNKNOWN}
    for fuels in (eia.FUELS, entsoe.FUELS):
        assert set(fuels.values()) <= known


FUELS = {"C": "coal", "W": "wind", "S": STORAGE, "?": UNKNOWN}


@pytest.mark.parametrize(
    ("energy", "expected"),
    [
        ({"C": 1}, 820),
        ({"C": 1, "W": 1}, 415.5),
        ({"C": 3, "W": 1}, 617.75),
        ({"C": 1, "W": -5}, 820),  # what turbines use when they stand still
        ({"C": 1, "S": 100}, 820),  # stored, so made before
        ({"C": 1, "S": -100}, 820),
        ({"C": 9, "?": 3}, 820),  # like the rest
    ],
)
def test_the_mean_by_energy(energy: dict[str, float], expected: float) -> None:
    assert g_per_kwh(energy, FUELS) == pytest.approx(expected)


@pytest.mark.parametrize("energy", [{}, {"C": 0}, {"C": -1}, {"S": 5}, {"?": 5}, {"C": 2, "X": 1}])
def test_no_mean_of_nothing_or_of_the_unknown(energy: dict[str, float]) -> None:
    assert outcome_of(lambda: g_per_kwh(energy, FUELS)) == "no_data"


@given(st.dictionaries(st.sampled_from(sorted(factors())), st.floats(0.001, 1e6), min_size=1))
def test_a_mean_lies_between_its_parts(energy: dict[str, float]) -> None:
    found = g_per_kwh(energy, {fuel: fuel for fuel in factors()})
    parts = [factors()[fuel] for fuel in energy]
    assert min(parts) * (1 - 1e-9) <= found <= max(parts) * (1 + 1e-9)


def test_the_medians_of_water_consumed() -> None:
    assert water_factors() == {
        "biomass": 2.09, "coal": 2.6, "gas": 0.78, "geothermal": 0.06, "hydro": 17, "nuclear": 2.54,
        "oil": 3.13, "solar": 0.004, "solar_thermal": 3.43, "wind": 0, "wind_offshore": 0,
    }  # fmt: skip
    assert "ocean" not in water_factors()  # unavailable is never 0


WET = FUELS | {"H": "hydro", "N": "nuclear", "O": "ocean"}


@pytest.mark.parametrize(
    ("energy", "expected_ul"),
    [
        ({"C": 1}, 2_600_000),
        ({"C": 1, "W": 1}, 1_300_000),
        ({"W": 5}, 0),  # a value of the literature
        ({"C": 3, "H": 1}, 6_200_000),
        ({"C": 1, "W": -5, "S": 100}, 2_600_000),
        ({"C": 9, "?": 3}, 2_600_000),  # like the rest
        ({"N": 90, "O": 10}, 2_540_000),  # likewise
        ({"N": 3, "W": 4}, 1_088_571),
        ({"N": 2, "O": 1}, None),
        ({"O": 1}, None),
        ({"S": 5}, None),
        ({}, None),
    ],
)
def test_the_water_of_a_mix(energy: dict[str, float], expected_ul: int | None) -> None:
    assert ewif_ul_per_kwh(energy, WET) == expected_ul


@given(
    st.dictionaries(st.sampled_from(sorted(water_factors())), st.floats(0.001, 1e6), min_size=1),
    st.floats(0.001, 1e6),
)
def test_water_lies_between_its_parts_and_grows_with_hydro(
    energy: dict[str, float], more: float
) -> None:
    fuels = {fuel: fuel for fuel in water_factors()}
    found = ewif_ul_per_kwh(energy, fuels)
    parts = [water_factors()[fuel] * 10**6 for fuel in energy]
    assert found is not None
    assert min(parts) - 1 <= found <= max(parts) + 1
    wetter = ewif_ul_per_kwh(energy | {"hydro": energy.get("hydro", 0) + more}, fuels)
    assert wetter is not None
    assert wetter >= found - 1


def test_an_hour_that_lacks_a_type_that_matters_is_not_whole() -> None:
    hours = {1: {"C": 50.0, "W": 50.0}, 2: {"C": 50.0}, 3: {"C": 60.0, "W": 40.0, "O": 0.1}}
    assert whole(hours).keys() == {1, 3}  # the oil of the third is not worth waiting for
    assert whole({}) == {}


# ── EIA ─────────────────────────────────────────────────────────────────────────────────────────


def test_eia_hours_are_named_by_their_ends(server: GridServer, token_file: Path) -> None:
    mix = {"NG": "500", "SUN": 500, "BAT": "-300"}
    server.script = play.reply(body=bodies.eia(mix, mix | {"NG": "1500"}))
    found = american(server.url, token_file).latest(T18 + 3 * HOUR)
    parts = urlsplit(server.requests[0].target)
    query = {key: value[0] for key, value in parse_qs(parts.query).items()}
    assert parts.path == "/electricity/rto/fuel-type-data/data/"
    assert query["api_key"] == CANARY
    assert (query["facets[respondent][]"], query["data[0]"]) == ("CISO", "value")
    assert (query["start"], query["end"]) == ("2024-03-05T09", "2024-03-06T22")
    assert grams(found) == [269, 379.5]  # (490 + 48) / 2 and (3 × 490 + 48) / 4
    assert [signal.ewif_ul_per_kwh for signal in found] == [392_000, 586_000]
    assert [signal.valid_from_ns for signal in found] == [T18, T18 + HOUR]
    first = found[0]
    assert (first.zone, first.source, first.basis) == ("US-CISO", "eia", Basis.LIFECYCLE)
    assert first.estimated and first.valid_to_ns == T18 + HOUR


def test_eia_an_hour_that_came_in_part_waits() -> None:
    mix = {"NG": 500, "SUN": 500}
    for partly in ({"NG": 500}, {"NG": 500, "SUN": None}):
        found = american().parse(bodies.eia(mix, partly), T18)
        assert [signal.valid_from_ns for signal in found] == [T18]


def test_eia_the_key_is_in_no_error(server: GridServer, token_file: Path) -> None:
    for status, outcome in ((403, "http_403"), (429, "http_429"), (500, "http_5xx")):
        server.script = play.reply(status)
        asked = american(server.url, token_file)
        assert outcome_of(lambda asked=asked: asked.latest(T18)) == outcome  # type: ignore[misc]
    assert outcome_of(lambda: american(server.url).latest(T18)) == "no_token"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({}, "no_data"),
        ({"response": {"data": []}}, "no_data"),
        (bodies.eia({"NG": None}), "no_data"),
        (bodies.eia({"NG": 0, "SUN": 0}), "no_data"),
        (bodies.eia({"OTH": 5}), "no_data"),
        (bodies.eia(respondent="PJM"), "wrong_zone"),
        (bodies.eia({"NG": "much"}), "bad_value"),
        (bodies.eia({"NG": "nan"}), "bad_value"),
        (bodies.eia({"NG": "1e999"}), "bad_value"),
        (bodies.eia({"NG": 10**400}), "bad_value"),
        (bodies.eia({"NG": True}), "bad_value"),
        (bodies.eia({"NG": [5]}), "bad_value"),
        (bodies.eia({"NG": 5}, end=30), "bad_value"),
        ({"response": {"data": [{"respondent": "CISO", "value": 5}]}}, "bad_value"),
        ({"response": {"data": 5}}, "bad_value"),
        ({"response": []}, "bad_value"),
        ([], "bad_value"),
    ],
)
def test_eia_what_is_no_mix(body: Any, outcome: str) -> None:
    assert outcome_of(lambda: american().parse(body, T18)) == outcome


def test_eia_past(server: GridServer, token_file: Path) -> None:
    server.script = play.reply(body=bodies.eia())
    source = american(server.url, token_file)
    assert isinstance(source, History)
    assert grams(source.between(T18, T18 + 72 * HOUR, T18 + 99 * HOUR)) == [269]
    assert len(server.requests) == 2
    for zone in ("US-CISO", "US-CAL-CISO", "US-CAR-DUK"):
        assert KINDS["eia"].serves(zone)
    for zone in ("US", "CISO", "DE", "US-", "US-ciso", "US-A-B-C"):
        assert not KINDS["eia"].serves(zone)


# ── ENTSO-E ─────────────────────────────────────────────────────────────────────────────────────

BOTH = {1: 600, 2: 900}
GAS = bodies.entsoe_series("B04", BOTH)
WIND = bodies.entsoe_series("B19", {1: 600, 2: 100})


def test_entsoe_powers_become_whole_hours(server: GridServer, token_file: Path) -> None:
    server.script = play.reply(body=bodies.entsoe(GAS, WIND))
    found = european(server.url, token_file).latest(T18 + 2 * HOUR + 60 * 10**9)
    query = {k: v[0] for k, v in parse_qs(urlsplit(server.requests[0].target).query).items()}
    assert query == {
        "documentType": "A75",
        "processType": "A16",
        "in_Domain": "10Y1001A1001A83F",
        "periodStart": "202403061200",
        "periodEnd": "202403062100",
        "securityToken": CANARY,
    }
    assert server.requests[0].headers["accept"] == "application/xml"
    assert grams(found) == [250.5, pytest.approx((900 * 490 + 100 * 11) / 1000)]
    assert [signal.ewif_ul_per_kwh for signal in found] == [390_000, 702_000]
    assert [signal.valid_from_ns for signal in found] == [T18, T18 + HOUR]
    first = found[0]
    assert (first.zone, first.source, first.basis) == ("DE", "entsoe", Basis.LIFECYCLE)
    assert first.estimated and first.cadence_ns == HOUR


def test_entsoe_quarter_hours_and_curves_that_leave_out_what_repeats() -> None:
    quarters = bodies.entsoe_series(
        "B04",
        {1: 100, 2: 200, 3: 300, 4: 400, 5: 500},
        resolution="PT15M",
    )
    repeating = bodies.entsoe_series("B19", {1: 250, 6: 0}, resolution="PT15M", curve="A03")
    found = european().parse(bodies.entsoe(quarters, repeating), T18)
    # The gas of the second hour came in part: that hour waits. 250 MWh of each in the first.
    assert grams(found) == [250.5]


def test_entsoe_two_types_of_one_fuel_and_the_consumption_of_plants() -> None:
    brown, hard = (bodies.entsoe_series(code, {1: 50, 2: 50}) for code in ("B02", "B05"))
    pumping = bodies.entsoe_series("B10", {1: 999, 2: 999}, domain="out")
    found = european().parse(bodies.entsoe(brown, hard, WIND, pumping), T18)
    assert grams(found) == [
        pytest.approx((100 * 820 + 600 * 11) / 700, abs=1e-6),
        pytest.approx((100 * 820 + 100 * 11) / 200),
    ]


def test_entsoe_an_hour_of_zeros_is_none() -> None:
    found = european().parse(
        bodies.entsoe(
            bodies.entsoe_series("B14", {1: 0, 2: 40_000}),
            bodies.entsoe_series("B12", {1: 0, 2: 9_000}),
        ),
        T18,
    )
    assert [signal.valid_from_ns for signal in found] == [T18 + HOUR]


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (bodies.ENTSOE_NOTHING, "no_data"),
        (bodies.entsoe(), "no_data"),
        (bodies.entsoe(bodies.entsoe_series("B20", BOTH)), "no_data"),
        (bodies.entsoe(bodies.entsoe_series("B04", {})), "no_data"),
        (bodies.entsoe(bodies.entsoe_series("B04", BOTH, area="10YFR-RTE------C")), "wrong_zone"),
        (bodies.entsoe(bodies.entsoe_series("B04", BOTH, unit="MWH")), "bad_value"),
        (bodies.entsoe(bodies.entsoe_series("B04", {0: 5})), "bad_value"),
        (bodies.entsoe(bodies.entsoe_series("B04", {3: 5})), "bad_value"),
        (bodies.entsoe(bodies.entsoe_series("B04", {1: "nan"})), "bad_value"),
        (bodies.entsoe(bodies.entsoe_series("B04", {1: "1e999"})), "bad_value"),
        (bodies.entsoe(bodies.entsoe_series("B04", {1: ""})), "bad_value"),
        (bodies.entsoe(bodies.entsoe_series("B04", BOTH, resolution="P1Y")), "bad_value"),
        (bodies.entsoe(bodies.entsoe_series("B04", BOTH, start="2024-03-06T18:07Z")), "bad_value"),
        (bodies.entsoe(bodies.entsoe_series("B04", BOTH, end="2024-03-06T17:00Z")), "bad_value"),
        (bodies.entsoe(bodies.entsoe_series("B04", BOTH, end="2124-03-06T17:00Z")), "bad_value"),
        (bodies.entsoe("<TimeSeries/>"), "bad_value"),
        (b"<html><body>maintenance</body></html>", "no_data"),
        (b"<GL_MarketDocument", "bad_value"),
        (b"", "bad_value"),
        (b"\xff\xfe<\x00", "bad_value"),
        (b"{}", "bad_value"),
    ],
)
def test_entsoe_what_is_no_mix(body: bytes, outcome: str) -> None:
    assert outcome_of(lambda: european().parse(body, T18)) == outcome


@pytest.mark.parametrize(
    "declared",
    [
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "http://169.254.169.254/">]>',
    ],
)
def test_entsoe_nothing_in_a_document_can_expand_or_be_fetched(declared: str) -> None:
    body = bodies.entsoe(GAS).replace(b"\n<GL_", f"\n{declared}<GL_".encode(), 1)
    assert declared.encode() in body
    with pytest.raises(GridError, match="document type"):
        european().parse(body, T18)
    for encoding in ("utf-16", "utf-7"):
        text = body.decode().replace("UTF-8", encoding)
        assert outcome_of(lambda text=text, e=encoding: european().parse(text.encode(e), T18)) == (  # type: ignore[misc]
            "bad_value"
        )


def test_entsoe_a_document_nested_without_end() -> None:
    body = b"<a>" * 60_000
    assert outcome_of(lambda: european().parse(body, T18)) == "bad_value"
    closed = body + b"</a>" * 60_000
    assert outcome_of(lambda: european().parse(closed, T18)) == "no_data"


def test_entsoe_the_token_is_in_no_error(server: GridServer, token_file: Path) -> None:
    server.script = play.reply(401)
    assert outcome_of(lambda: european(server.url, token_file).latest(T18)) == "http_401"
    server.script = play.reply(302, headers={"Location": "http://127.0.0.1:1/"})
    assert outcome_of(lambda: european(server.url, token_file).latest(T18)) == "redirect"


def test_entsoe_past(server: GridServer, token_file: Path) -> None:
    server.script = play.in_turn(
        play.reply(body=bodies.entsoe(GAS, WIND)), play.reply(body=bodies.ENTSOE_NOTHING)
    )
    source = european(server.url, token_file)
    assert isinstance(source, History)
    found = source.between(T18 + HOUR, T18 + 20 * HOUR, T18 + 99 * HOUR)
    assert [signal.valid_from_ns for signal in found] == [T18 + HOUR]
    assert found[0].ewif_ul_per_kwh == 702_000  # the past has its water as well
    assert len(server.requests) == 2


def test_entsoe_a_past_as_large_as_it_is_written_stays_below_the_bound(token_file: Path) -> None:
    """Twenty types of plants in quarter hours, indented: what is asked for at once must fit."""

    def play_span(connection: Any, request: play.Request, stop: Any) -> None:
        query = parse_qs(urlsplit(request.target).query)
        start, end = (
            datetime.strptime(query[name][0], "%Y%m%d%H%M").replace(tzinfo=UTC)
            for name in ("periodStart", "periodEnd")
        )
        span = {key: f"{at:%Y-%m-%dT%H:%MZ}" for key, at in (("start", start), ("end", end))}
        powers = dict.fromkeys(range(1, (end - start) // timedelta(minutes=15) + 1), 12_345)
        series = [
            bodies.entsoe_series(f"B{number:02}", powers, resolution="PT15M", **span)
            for number in range(1, 21)
        ]
        body = bodies.entsoe(*(one.replace("<", "\n                <") for one in series))
        play.reply(body=body)(connection, request, stop)

    with GridServer(play_span) as server:
        found = european(server.url, token_file).between(
            T18 + HOUR // 2, T18 + 24 * HOUR + HOUR // 2, T18 + 99 * HOUR
        )
    assert len(found) == 25


def test_area_codes_prove_themselves() -> None:
    assert all(is_eic(code) for code in AREAS.values())
    assert not is_eic("10YFR-RTE------D") and not is_eic("") and not is_eic("10yfr-rte------c")
    assert eic_of("SE-SE3") == eic_of("SE3") == "10Y1001A1001A46L"
    assert eic_of("10YFR-RTE------C") == eic_of("FR")
    for zone in ("", "US", "SE5", "SE-NO1", "-DE", "FR-COR", "10YFR-RTE------D"):
        assert eic_of(zone) is None


def test_a_bidding_zone_falls_back_to_its_country() -> None:
    for zone in ("SE3", "SE-SE3"):
        config = parse_config(
            f'site.zone = "{zone}"\n[[grid.source]]\nkind = "entsoe"\ntoken_file = "/run/x"'
        )
        assert table_zone(config) == "SE"


# ── whatever they answer ────────────────────────────────────────────────────────────────────────

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
_keys = st.sampled_from(["period", "respondent", "fueltype", "value", "value-units"])


@given(_json, st.dictionaries(_keys, _json))
def test_eia_no_reply_raises_anything_but_ours(reply: Any, changes: dict[str, Any]) -> None:
    body = bodies.eia()
    body["response"]["data"][0] |= changes
    for one in (reply, {"response": reply}, body):
        with contextlib.suppress(GridError):
            for signal in american().parse(one, T18):
                assert 11 <= signal.intensity_ug_per_kwh / 1e6 <= 840


@given(st.binary(max_size=200), st.integers(0, 900), st.integers(0, 40))
def test_entsoe_no_reply_raises_anything_but_ours(junk: bytes, at: int, length: int) -> None:
    body = bodies.entsoe(GAS, WIND)
    for one in (junk, body[:at] + junk + body[at + length :]):
        with contextlib.suppress(GridError):
            for signal in european().parse(one, T18):
                assert 11 <= signal.intensity_ug_per_kwh / 1e6 <= 840
