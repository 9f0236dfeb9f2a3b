"""Every query of the dashboards, asked of a Prometheus that holds four hours of a small fleet.

The samples are the product's own pages (`fleet_nodes`), the recorded series the product's own
rules. No query may fail, be empty or not a number, and each value has its range.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import pytest

import dashboards
from dashboards import NAMES
from e2e.fleet_history import BEGIN_S, END_S, SHOWN_S
from e2e.fleet_nodes import GPU_IDLE_W, PLANS, SITE
from e2e.grafana_ranges import RANGES
from e2e.grafana_values import values_of
from e2e.history import Prometheus

pytestmark = pytest.mark.timeout(300)  # the first one waits for the fleet's hours
STEP_S = 60


def shown(
    prometheus: Prometheus, target: dashboards.Target, given: Mapping[str, str]
) -> list[tuple[dict[str, str], list[float]]]:
    """The series of a query over the time shown, or at its end."""
    expr = dashboards.filled(target.expr, given, range_s=END_S - SHOWN_S)
    if target.instant:
        return [(labels, [value]) for labels, value in prometheus.at(expr, END_S)]
    return prometheus.over(expr, SHOWN_S, END_S, STEP_S)


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_shows_what_it_must(name: str, fleet_prometheus: Prometheus) -> None:
    board = dashboards.load(name)
    given = values_of(board, fleet_prometheus, {})
    expected = RANGES[name]
    assert set(expected) == {panel["title"] for panel in dashboards.panels(board)}
    for panel in dashboards.panels(board):
        asked = [t for t in dashboards.targets(board) if t.panel == panel["title"]]
        assert len(asked) == len(expected[panel["title"]]), panel["title"]
        for target, (low, high) in zip(asked, expected[panel["title"]], strict=True):
            found = shown(fleet_prometheus, target, given)
            what = f"{target.panel} {target.ref}"
            values = [value for _, series in found for value in series]
            assert values, f"{what} is empty: {target.expr}"
            assert all(map(math.isfinite, values)), what
            assert low * (1 - 1e-9) <= min(values), (what, min(values))
            assert max(values) <= high * (1 + 1e-9), (what, max(values))
            legend = next(t for t in panel["targets"] if t["refId"] == target.ref)["legendFormat"]
            for label in re.findall(r"\{\{(\w+)\}\}", legend):
                assert any(labels.get(label) for labels, _ in found), f"{what} tells no {label}"


CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "fleet": {"cluster": ("lab",)},
    "node": {"instance": ("gpu03",)},
    "job": {"manager": ("slurm",), "job_id": ("4711", "4714")},
    "users": {"user": ("bob",)},
    "footprint": {"instance": ("gpu01", "gpu02")},
    "health": {"instance": ("gpu02",)},
}


@pytest.mark.parametrize("name", NAMES)
def test_no_panel_is_empty_for_what_somebody_chose(name: str, fleet_prometheus: Prometheus) -> None:
    board = dashboards.load(name)
    given = values_of(board, fleet_prometheus, CHOICES[name])
    for target in dashboards.targets(board):
        found = shown(fleet_prometheus, target, given)
        assert found, f"{target.panel} {target.ref}: {target.expr}"


def test_the_choice_narrows(fleet_prometheus: Prometheus) -> None:
    """A node is a third of the fleet; a job is not the others."""
    one = _value(fleet_prometheus, "node", "IT power", {"instance": ("gpu01",)})
    every = _value(fleet_prometheus, "node", "IT power", {})
    assert 0.3 * every < one < 0.5 * every
    wall = _value(fleet_prometheus, "node", "Residual of the wall", {"instance": ("gpu01",)})
    assert wall == pytest.approx(1 - one / (one * 1.06 + 70), abs=0.003)
    idle = _value(fleet_prometheus, "job", "Held idle", {"job_id": ("4711",)})
    # Its GPUs' first half minute was told before it used them.
    assert idle == pytest.approx(8 * GPU_IDLE_W * 30 / 3.6e6)


def test_each_node_s_gpus_are_held_by_its_jobs(fleet_prometheus: Prometheus) -> None:
    board = dashboards.load("users")
    (target,) = [t for t in dashboards.targets(board) if t.panel == "GPUs held, by node"]
    found = shown(fleet_prometheus, target, values_of(board, fleet_prometheus, {}))
    last = {labels["instance"]: shares[-1] for labels, shares in found}
    assert last == {"gpu01": 1, "gpu02": 1, "gpu03": 0.75}


def _value(
    prometheus: Prometheus, name: str, panel: str, choices: Mapping[str, Sequence[str]]
) -> float:
    board = dashboards.load(name)
    given = values_of(board, prometheus, choices)
    (target,) = [t for t in dashboards.targets(board) if t.panel == panel]
    ((_, (value,)),) = shown(prometheus, target, given)
    return value


def test_the_figures_are_the_hardware_s(
    fleet_prometheus: Prometheus, fleet_truth: Mapping[str, float]
) -> None:
    """Watts that were made up come out as joules, grams, litres and money."""
    kwh = _value(fleet_prometheus, "fleet", "IT energy", {})
    # One GPU's driver was loaded anew: 30 s of its 72 W, or of a job's, were not observed.
    assert kwh == pytest.approx(fleet_truth["shown_kwh"], rel=0.002)
    assert _value(fleet_prometheus, "fleet", "IT power", {}) == pytest.approx(
        fleet_truth["watts"], rel=1e-6
    )
    pue = SITE.pue_ppm / 1e6
    assert _value(fleet_prometheus, "fleet", "Water", {}) == pytest.approx(
        kwh * (0.36 + pue * 3.1), rel=1e-4
    )
    assert _value(fleet_prometheus, "fleet", "Energy cost", {}) == pytest.approx(
        kwh * pue * 0.25, rel=1e-4
    )
    (sweep,) = [plan for plan in PLANS if plan.job_id == "4712"]
    idle_s = END_S - BEGIN_S - sweep.busy_until_s
    kwh = 2 * GPU_IDLE_W * idle_s / 3.6e6
    assert _value(fleet_prometheus, "job", "Held idle", {"job_id": ("4712",)}) == pytest.approx(
        kwh, rel=0.1
    )


@pytest.mark.parametrize("name", ["node", "job"])
def test_the_marks_are_where_jobs_start_and_end(name: str, fleet_prometheus: Prometheus) -> None:
    board = dashboards.load(name)
    given = values_of(board, fleet_prometheus, {})
    marks = {}
    for event in board["annotations"]["list"]:
        expr = dashboards.filled(event["expr"], given)
        data = fleet_prometheus.ask(
            "query_range", {"query": expr, "start": SHOWN_S, "end": END_S, "step": 60}
        )
        marks[event["name"]] = {
            row["metric"]["job_id"]: [at - BEGIN_S for at, _ in row["values"]]
            for row in data["result"]
        }
    starts = {p.job_id: p.begin_s for p in PLANS if BEGIN_S + p.begin_s >= SHOWN_S}
    ends = {p.job_id: p.end_s for p in PLANS if p.end_s is not None}
    # A file of samples cannot say that a series went stale, as a scrape does: an end shows once
    # Prometheus no longer looks back to the last value, after five minutes.
    for found, planned, late_s in (
        (marks["Job starts"], starts, 0),
        (marks["Job ends"], ends, 300),
    ):
        assert set(found) == set(planned)
        for job_id, at_s in planned.items():
            (marked_s,) = found[job_id]
            assert 0 <= marked_s - at_s <= late_s + 120


def test_every_alert_can_be_asked(fleet_prometheus: Prometheus) -> None:
    """Of all that could be wrong, two things are: nothing is real, and a job holds GPUs idle."""
    found = {
        rule["alert"]: [value for _, value in fleet_prometheus.at(rule["expr"], END_S)]
        for rule in dashboards.alerts()
    }
    assert len(found) > 5
    assert {name: values for name, values in found.items() if values} == {
        "WattledgerSimulated": [3],
        "WattledgerGpuHeldIdle": [1],
    }
