"""A PUE that is measured: read by the sources json, prometheus and csv, bounded, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import grid_server as play
from grid_server import GridServer
from wattledger.errors import GridError
from wattledger.grid.client import HttpClient
from wattledger.grid.kinds import SourceConfig
from wattledger.grid.live_pue import LivePue
from wattledger.grid.site_readings import SiteReading

NOW_S = 1_709_751_600  # 2024-03-06T19:00Z
NOW = NOW_S * 10**9
QUARTER = 900 * 10**9


def told(kind: str, **changes: Any) -> LivePue:
    return LivePue(HttpClient(deadline_s=10.0), SourceConfig(kind=kind, zone="", **changes))


def matrix(*values: object) -> dict[str, Any]:
    samples = [[NOW_S - 900 * n, value] for n, value in enumerate(values)][::-1]
    return {
        "status": "success",
        "data": {"resultType": "matrix", "result": [{"metric": {}, "values": samples}]},
    }


def test_json() -> None:
    with GridServer(play.reply(body={"pue": "1.2345", "at": NOW_S})) as server:
        url = server.url + "/dcim"
        found = told("json", url=url, pointer="/pue", time_pointer="/at").latest(NOW + 5)
    assert found == [SiteReading(NOW, NOW + QUARTER, 1_234_500)]


def test_prometheus() -> None:
    with GridServer(play.reply(body=matrix("1.31", 1.29))) as server:
        found = told("prometheus", url=server.url, query="pue").latest(NOW + 5)
    assert [reading.millionths for reading in found] == [1_290_000, 1_310_000]


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "pue.csv"
    file.write_text(
        "start,end,value\n2024-03-06T18:00:00Z,2024-03-06T19:00:00Z,1.2\n"
        "2024-03-06T19:00:00Z,2024-03-06T20:00:00Z,1.25\n"
    )
    found = told("csv", file=str(file)).latest(NOW + 5)
    assert [reading.millionths for reading in found] == [1_200_000, 1_250_000]
    assert found[1].to_ns == NOW + 3600 * 10**9
    file.write_text("start,end,value\n2024-03-06T19:00:00Z,2024-03-06T20:00:00Z,x\n")
    with pytest.raises(GridError, match="PUE is no number from 1 to 5"):
        told("csv", file=str(file)).latest(NOW + 5)


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (0.99, "bad_value"),
        (0, "bad_value"),
        (-1.2, "bad_value"),
        (5.01, "bad_value"),
        (120, "bad_value"),  # in percent
        (1e9, "bad_value"),
        ("NaN", "bad_value"),
        ("1e999", "bad_value"),
        ("", "bad_value"),
        (True, "bad_value"),
        ([1.2], "bad_value"),
        (None, "no_data"),
    ],
)
def test_what_is_no_pue(value: Any, outcome: str) -> None:
    with GridServer(play.reply(body={"pue": value})) as server, pytest.raises(GridError) as caught:
        told("json", url=server.url, pointer="/pue").latest(NOW)
    assert caught.value.outcome == outcome
    assert "g/kWh" not in caught.value.message
    assert "intensity" not in caught.value.message


@pytest.mark.parametrize("value", [1, 1.0, 5, "1.5"])
def test_the_bounds_are_pues(value: Any) -> None:
    with GridServer(play.reply(body={"pue": value})) as server:
        [found] = told("json", url=server.url, pointer="/pue").latest(NOW)
    assert found.millionths == round(float(value) * 10**6)


def test_a_meter_that_fails_now_is_noticed_though_it_did_well_before() -> None:
    with GridServer(play.reply(body=matrix("0", "1.3"))) as server:
        asked = told("prometheus", url=server.url, query="pue")
        with pytest.raises(GridError, match="PUE"):
            asked.latest(NOW + 5)
        server.script = play.reply(body=matrix("1.3", "0", "1.2"))  # a gap in the past costs itself
        assert [r.millionths for r in asked.latest(NOW + 5)] == [1_200_000, 1_300_000]


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (play.reply(401), "http_401"),
        (play.reply(500), "http_5xx"),
        (play.reply(body=b"NaN"), "bad_json"),
        (play.reply(body={}), "no_data"),
        (play.big_body(10_000_000), "too_large"),
        (play.reset(), "connect_error"),
    ],
)
def test_hostile_servers(script: play.Script, outcome: str) -> None:
    with GridServer(script) as server, pytest.raises(GridError) as caught:
        told("json", url=server.url, pointer="/pue").latest(NOW)
    assert caught.value.outcome == outcome


@pytest.mark.parametrize("kind", ["neso", "watttime", "", "xml"])
def test_other_kinds_tell_no_pue(kind: str) -> None:
    with pytest.raises(ValueError, match="json, prometheus, csv"):
        told(kind)
