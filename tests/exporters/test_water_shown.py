"""How water is shown: who says each factor, the water of a mix, and stress beside litres."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import snapshots
from asking import ALICE, Asker
from schema_check import faults
from wattledger.model import Snapshot, SourceStatus
from wattledger_exporters.amounts import stress_weighted_l
from wattledger_exporters.http import openapi
from wattledger_exporters.http.api import status
from wattledger_exporters.prometheus import Renderer
from wattledger_exporters.status_page import html_page

DOCUMENT = json.loads(json.dumps(openapi.document("0.1.0")))
WEATHER = SourceStatus("open_meteo", {"ok": 7, "http_5xx": 2}, 5, None, "it is <down>", "wait")


def shown(**changes: Any) -> Snapshot:
    made = snapshots.with_jobs()
    site = replace(
        made.site,
        pue_ppm=1_210_000,
        pue_source="live",
        wue_ul_per_kwh=3_570_000,
        wue_source="weather",
        ewif_ul_per_kwh=1_088_571,
        ewif_source="mix",
        water_stress_factor=2.5,
    )
    return replace(made, site=replace(site, **changes), site_sources=(WEATHER,))


def page(snapshot: Snapshot) -> str:
    return Renderer().render(snapshot, 1, process=False).text.decode()


def test_each_factor_names_who_says_it() -> None:
    text = page(shown())
    assert 'wattledger_pue_ratio{source="live"} 1.21\n' in text
    assert 'wattledger_wue_liters_per_kwh{source="weather"} 3.57\n' in text
    assert 'wattledger_ewif_liters_per_kwh{source="mix"} 1.088571\n' in text
    assert "\nwattledger_water_stress_factor 2.5\n" in text
    requests = 'wattledger_grid_requests_total{outcome="http_5xx",source="open_meteo"} 2.0\n'
    assert requests in text


def test_no_stress_is_no_metric() -> None:
    assert "\nwattledger_water_stress_factor " not in page(shown(water_stress_factor=None))


def test_status_and_its_page() -> None:
    snapshot = shown()
    body = json.loads(json.dumps(status(snapshot, snapshot.at_ns)))
    assert list(faults(body, {"$ref": "#/components/schemas/Status"}, DOCUMENT)) == []
    assert body["site"]["ewif_l_per_kwh"] == {"value": 1.088571, "source": "mix"}
    assert body["site"]["water_stress_factor"] == 2.5
    assert [source["source"] for source in body["site_sources"]] == ["open_meteo"]
    assert body["site_sources"][0]["requests"] == {"http_5xx": 2, "ok": 7}
    html = html_page(snapshot, snapshot.at_ns)
    assert "water stress" in html
    assert "source open_meteo" in html
    assert "it is &lt;down&gt; wait" in html


@pytest.mark.parametrize("path", ["/api/v1/totals?by=kind", "/api/v1/jobs/slurm/4711"])
def test_stress_stands_beside_litres_never_instead(path: str) -> None:
    for factor in (2.5, None):
        asker = Asker()
        asker.daemon.state = shown(water_stress_factor=factor)
        code, body = asker.ask(path, ALICE)
        assert code == 200
        total = body["total"] if "total" in body else body["totals"]["exact"]
        onsite_ul = int(total["water_onsite_ul"])
        assert onsite_ul > 0
        expected = None if factor is None else pytest.approx(onsite_ul / 1e6 * factor)
        assert body["water_stress_weighted_l"] == expected


def test_stress_is_of_on_site_water_alone() -> None:
    assert stress_weighted_l(2_000_000, 0.1) == pytest.approx(0.2)
    assert stress_weighted_l(0, 100.0) == 0
    assert stress_weighted_l(5, None) is None
