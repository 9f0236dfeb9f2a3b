"""Every panel drawn by Grafana's own components, in a browser, over the fleet's hours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

import dashboards
from dashboards import NAMES
from e2e.fleet_history import END_S, SHOWN_S
from e2e.grafana_pages import Pages
from e2e.grafana_pictures import PICTURED, reduced
from e2e.grafana_values import values_of
from e2e.history import Prometheus

INSTALLING_S = 900  # 440 MB of packages, the first time


@pytest.fixture(scope="module")
def pages(
    fleet_prometheus: Prometheus,
    need: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pages]:
    need("chromium", "npm", "node", "bash")
    with Pages(tmp_path_factory.mktemp("browser"), fleet_prometheus.url) as made:
        yield made


@pytest.fixture(scope="module")
def nothing(need: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Over a Prometheus that has scraped nothing."""
    need("prometheus", "chromium", "npm", "node", "bash")
    prometheus = Prometheus(tmp_path_factory.mktemp("nothing"))
    try:
        prometheus.start()
        with Pages(tmp_path_factory.mktemp("browser"), prometheus.url) as made:
            yield made
    finally:
        prometheus.stop()


@pytest.mark.timeout(INSTALLING_S)
@pytest.mark.parametrize("name", NAMES)
def test_every_panel_draws(name: str, pages: Pages, fleet_prometheus: Prometheus) -> None:
    board = dashboards.load(name)
    given = values_of(board, fleet_prometheus, PICTURED.get(name, {}))
    drawn, png = pages.draw(name, given, SHOWN_S, END_S)

    assert [panel["title"] for panel in drawn] == [panel["title"] for panel in board["panels"]]
    for panel in drawn:
        assert panel["error"] == "", panel
        assert panel["title"] in panel["text"]
        assert "No data" not in panel["text"], panel["title"]
        shown = panel["text"].replace(panel["title"], "", 1)
        match panel["type"]:
            case "timeseries":
                # Axes alone are two or three colours; a line and its soft edges are many more.
                assert panel["inked"] > 6, panel["title"]
                assert re.search(r"\d", shown), panel["title"]
            case "table":
                assert panel["rows"] >= 2, panel["title"]
                assert panel["cut"] == [], panel["title"]
            case "stat" | "bargauge":
                assert re.search(r"\d|live|table|signal", shown), panel["title"]
    small = reduced(pages.browser, png, "a test")
    assert 5_000 < len(small) < 150_000


@pytest.mark.timeout(INSTALLING_S)
def test_what_has_no_data_is_not_taken_for_drawn(
    pages: Pages, fleet_prometheus: Prometheus
) -> None:
    """The look at the panels can tell: a day before, there is nothing."""
    board = dashboards.load("job")
    given = values_of(board, fleet_prometheus, {})
    drawn, _ = pages.draw("job", given, SHOWN_S - 86_400, END_S - 86_400)
    lines = [panel for panel in drawn if panel["type"] == "timeseries"]
    assert lines
    assert all(panel["inked"] <= 6 for panel in lines)
    assert all(panel["rows"] < 2 for panel in drawn if panel["type"] == "table")


@pytest.mark.timeout(INSTALLING_S)
@pytest.mark.parametrize("name", NAMES)
def test_a_panel_without_series_says_so(
    name: str, nothing: Pages, fleet_prometheus: Prometheus
) -> None:
    """Of a fleet without prices or meters that fail, say; here of none at all."""
    given = values_of(dashboards.load(name), fleet_prometheus, PICTURED.get(name, {}))
    drawn, _ = nothing.draw(name, given, SHOWN_S, END_S)
    for panel in drawn:
        assert panel["error"] == "", panel
        if panel["type"] != "row":
            # What counts nothing may say 0; a figure that nobody knows is none.
            assert "No data" in panel["text"] or re.search(r"\b0\b", panel["text"]), panel
    assert any("No data" in panel["text"] for panel in drawn)
