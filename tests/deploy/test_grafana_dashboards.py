"""The dashboards without a server: equal to their code, valid, and by the linter's rules."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import dashboards
from dashboards import GRAFANA, NAMES
from deploy import grafana_lint as lint

SCHEMA = json.loads((Path(__file__).parent / "grafana_dashboard.schema.json").read_text())


def test_the_committed_dashboards_are_what_the_code_makes() -> None:
    done = subprocess.run(
        [sys.executable, str(GRAFANA / "build.py"), "--check"],
        capture_output=True,
        text=True,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in (GRAFANA / "dashboards").glob("*.json")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_holds(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    faults = [
        f"{error.json_path}: {error.message[:300]}"
        for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(dashboards.load(name))
    ]
    assert faults == []


@pytest.mark.parametrize("rule", lint.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_the_linter_finds_nothing(name: str, rule: lint.Rule) -> None:
    assert list(rule(dashboards.load(name))) == []


def _first(board: Any) -> Any:
    return dashboards.panels(board)[0]


def _change_expr(old: str, new: str) -> Callable[[Any], None]:
    def change(board: Any) -> None:
        for panel in dashboards.panels(board):
            for target in panel["targets"]:
                target["expr"] = target["expr"].replace(old, new)

    return change


WRONG: dict[str, Callable[[Any], Any]] = {
    "template_datasource": lambda board: board["templating"]["list"].pop(0),
    "template_job": lambda board: board["templating"]["list"].pop(2),
    "template_instance": lambda board: board["templating"]["list"][3].update(multi=False),
    "template_all_is_a_pattern": lambda board: board["templating"]["list"][1].pop("allValue"),
    "template_label_promql": lambda board: board["templating"]["list"][3]["query"].update(
        query="label_values(wattledger_build_info, device)"
    ),
    "template_on_time_change_reload": lambda b: b["templating"]["list"][3].update(refresh=1),
    "panel_datasource": lambda board: _first(board).update(datasource={"uid": "mine"}),
    "panel_title_description": lambda board: _first(board).update(description=""),
    "panel_units": lambda board: _first(board)["fieldConfig"]["defaults"].update(unit="watts"),
    "panel_no_targets": lambda board: _first(board).update(targets=[]),
    "target_promql": _change_expr("sum(", "sum(("),
    "target_rate_interval": _change_expr("$__rate_interval", "5m"),
    "target_job": _change_expr('job=~"$job",', ""),
    "target_instance": _change_expr(',instance=~"$instance"', ""),
    "target_counter_agg": lambda board: _first(board)["targets"][0].update(
        expr="sum(wattledger_energy_joules_total)"
    ),
    "uneditable_dashboard": lambda board: board.update(editable=True),
    "only_known_metrics_and_labels": _change_expr("wattledger_power_watts", "wattledger_power"),
    "links_lead_somewhere": lambda board: board.update(
        json.loads(json.dumps(board).replace("var-instance", "var-node"))
    ),
    "links_name_the_cluster": lambda board: board.update(
        json.loads(json.dumps(board).replace("&var-cluster=${__data.fields.Cluster}", ""))
    ),
    "limits_are_not_drawn_as_lines": lambda board: board.update(
        json.loads(json.dumps(board).replace('{"mode": "area"}', '{"mode": "line"}'))
    ),
    "panels_do_not_overlap": lambda board: board["panels"][2]["gridPos"].update(x=0),
    "ids_are_unique": lambda board: board["panels"][2].update(id=board["panels"][1]["id"]),
}


@pytest.mark.parametrize("rule", lint.RULES, ids=lambda rule: rule.__name__)
def test_the_linter_finds_what_is_wrong(rule: lint.Rule) -> None:
    board = copy.deepcopy(dashboards.load("fleet"))
    WRONG[rule.__name__](board)
    assert list(rule(board)) != []


def test_the_schema_finds_what_is_wrong() -> None:
    validator = jsonschema.Draft7Validator(SCHEMA)
    for change in (
        lambda b: b["panels"][1]["gridPos"].update(w=25),
        lambda b: b["panels"][1].pop("id"),
        lambda b: b["panels"][1].update(kind="stat"),
        lambda b: b["templating"]["list"][0].pop("name"),
        lambda b: b["panels"][1]["targets"][0].update(exprs="up"),
    ):
        board = copy.deepcopy(dashboards.load("fleet"))
        change(board)  # type: ignore[no-untyped-call]
        assert not validator.is_valid(board)


def test_a_job_leads_to_its_nodes_and_a_node_to_its_jobs() -> None:
    def reached(name: str) -> set[str]:
        return {url.partition("?")[0] for _, url in lint.links(dashboards.load(name))}

    assert "/d/wattledger-node" in reached("job")
    assert "/d/wattledger-job" in reached("node")
    assert {"/d/wattledger-node", "/d/wattledger-job"} <= reached("fleet")


def test_jobs_are_marked_where_they_start_and_end() -> None:
    for name in ("node", "job"):
        events = dashboards.load(name)["annotations"]["list"]
        assert [event["name"] for event in events] == ["Job starts", "Job ends"]


def test_the_books_stand_beside_the_wall() -> None:
    for name in ("fleet", "node"):
        (panel,) = [
            p for p in dashboards.panels(dashboards.load(name)) if p["title"].startswith("Books a")
        ]
        by_legend = {target["legendFormat"]: target["expr"] for target in panel["targets"]}
        assert set(by_legend) == {"{{payee}}", "node", "BMC", "residual"}


def test_the_provisioning_is_what_grafana_reads() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/wattledger.yaml").read_text())
    (source,) = sources["datasources"]
    current = dashboards.variables(dashboards.load("fleet"))["datasource"]["current"]
    assert sources["apiVersion"] == 1
    assert (source["type"], source["uid"]) == ("prometheus", current["value"])
    assert re.fullmatch(r"\d+s", source["jsonData"]["timeInterval"])
    given = yaml.safe_load((GRAFANA / "provisioning/dashboards/wattledger.yaml").read_text())
    (provider,) = given["providers"]
    assert given["apiVersion"] == 1
    assert provider["type"] == "file"
    assert not provider["allowUiUpdates"]
    assert Path(provider["options"]["path"]).is_absolute()
