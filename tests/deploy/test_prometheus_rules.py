"""The rules as text: valid PromQL over metrics and labels that exist, documented, one per event.

What they evaluate to is held by promtool's cases in deploy/prometheus/tests, run end to end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from documents import chosen
from wattledger_exporters.metrics import CATALOGUE as METRICS
from wattledger_exporters.metrics.spec import MetricSpec

FOLDER = Path(__file__).parents[2] / "deploy/prometheus"
RULES = [
    rule
    for path in sorted((FOLDER / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
RECORDS = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
CATALOGUE: dict[str, MetricSpec] = {spec.sample: spec for spec in METRICS.values()}
OF_TARGETS = {"job", "instance", "cluster"}
# Target labels that cases give their nodes, as sites do; rules name none of them.
OF_SITES = {"replica", "rack"}
# What Prometheus and vmalert tell of themselves; tests/e2e/test_prometheus_e2e.py asks them.
OF_ENGINES = {
    "prometheus_rule_evaluation_failures_total": {"rule_group"},
    "prometheus_rule_group_iterations_missed_total": {"rule_group"},
    "vmalert_recording_rules_error": {"group", "recording", "id"},
    "vmalert_alerting_rules_error": {"group", "alertname", "id"},
}
# Chosen with jobs.labels, so not in the catalogue.
OF_JOBS = {"wattledger_job_info": {"user", "account"}}
TEMPLATE = re.compile(r"`([^`]+)`")


def walk(node: Any) -> Iterator[Any]:
    """An expression and all within it."""
    yield node
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        below = getattr(node, name, None)
        if isinstance(below, promql.Expr):
            yield from walk(below)
    for below in getattr(node, "args", ()) or ():
        yield from walk(below)


def selectors(expression: str) -> list[promql.VectorSelector]:
    found = [n for n in walk(promql.parse(expression)) if isinstance(n, promql.VectorSelector)]
    assert found, expression
    return found


def known_labels(metric: str) -> set[str]:
    """What a series of this name carries; of a recorded one what its rule leaves."""
    if metric in CATALOGUE:
        return {*CATALOGUE[metric].labels, *OF_TARGETS, *OF_JOBS.get(metric, ())}
    if metric == "up":
        return OF_TARGETS
    if metric in OF_ENGINES:
        return OF_ENGINES[metric] | OF_TARGETS
    kept = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"by \(([^)]*)\)", RECORDS[metric]))))
    if metric.endswith(":earlier"):
        return known_labels(metric.replace(":earlier", ":last"))
    if metric.startswith("ledger:zero_base"):
        kept = known_labels("ledger:start_timestamp_seconds:last")
    return kept | {"epoch"} if metric.startswith("ledger") else kept


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression with whose it is, those within annotations too."""
    for rule in RULES:
        name = rule.get("record") or rule["alert"]
        yield name, rule["expr"]
        for text in rule.get("annotations", {}).values():
            for query in TEMPLATE.findall(text):
                yield f"{name} (annotation)", query.replace("%s", "x")


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS)
def test_it_is_promql_over_metrics_and_labels_that_exist(name: str, expression: str) -> None:
    for selector in selectors(expression):
        metric = selector.name
        assert metric in {*CATALOGUE, *RECORDS, *OF_ENGINES, "up"}, f"{name}: {metric}"
        for matcher in selector.matchers.matchers:
            assert matcher.name in known_labels(metric), f"{name}: {metric}{{{matcher.name}}}"
    named = {
        label
        for clause in re.findall(r"(?:by|on|without|ignoring|group_left) \(([^)]*)\)", expression)
        for label in re.findall(r"[a-z_]+", clause)
    }
    there = set().union(*(known_labels(s.name) for s in selectors(expression)))
    assert named <= there, f"{name}: {named - there} is a label of nothing in it"


def test_queries_of_the_document_are_over_what_there_is() -> None:
    text = (FOLDER / "README.md").read_text()
    blocks = [block.text for block in chosen("promql")]
    inline = re.findall(r"`([^`\n]*(?:_over_time|topk|offset)\b[^`\n…]*[^`\n…(])`", text)
    assert len(blocks) >= 2
    assert len(inline) >= 5
    for expression in [*blocks, *inline]:
        for selector in selectors(expression):
            assert selector.name in {*CATALOGUE, *RECORDS}, expression


def test_a_renamed_metric_would_be_found() -> None:
    """The check above can fail: `selectors` sees every name that the text has."""
    for _, expression in EXPRESSIONS:
        seen = {selector.name for selector in selectors(expression)}
        assert set(re.findall(r"\bwattledger_[a-z0-9_]+", expression)) <= seen


def test_the_daemons_books_are_all_recorded() -> None:
    """Whoever adds a counter of energy, carbon, water or money decides about its total."""
    books = {
        name
        for name, spec in CATALOGUE.items()
        if spec.type == "counter"
        and re.search(r"(energy|co2e|water|held_idle)_", name)
        and not re.search(r"_energy_quality_|_energy_joules_total$", name)
    }
    books.add("wattledger_payee_energy_joules_total")
    read = {s.name for record in RECORDS.values() for s in selectors(record)}
    assert books <= read


def test_recorded_names_say_level_metric_operation() -> None:
    pattern = re.compile(
        r"(cluster|node|user|job|ledger|ledger_user|ledger_job):[a-z0-9_]+:(sum|last|earlier|total|increase1h|1h|min7m)"
    )
    assert [name for name in RECORDS if not pattern.fullmatch(name)] == []
    assert len(RECORDS) == sum("record" in rule for rule in RULES), "a name is recorded twice"


def test_no_total_is_extrapolated() -> None:
    """increase() and rate() guess what lies beyond the samples; a total may not."""
    calls = {
        node.func.name
        for expression in RECORDS.values()
        for node in walk(promql.parse(expression))
        if isinstance(node, promql.Call)
    }
    assert calls == {"last_over_time", "min_over_time", "time", "timestamp"}


HOURLY = [name for name in RECORDS if name.endswith(":increase1h")]


@pytest.mark.parametrize("name", HOURLY)
def test_hours_are_all_made_alike(name: str) -> None:
    """So promtool's cases of one amount hold for every amount of its level."""
    level, amount, _ = name.split(":")
    of = {"node": "ledger", "cluster": "ledger"}.get(level, f"ledger_{level}")
    now, before = f"{of}:{amount}:last", f"{of}:{amount}:last[3h] offset 1h"
    if level == "job":
        now, before = f"last_over_time({now}[1h])", f"{of}:{amount}:last[1d] offset 1h"
    outer = re.match(r"sum by \(([a-z_, ]+)\)", RECORDS[name])
    assert outer, "it is a sum"
    labels = outer[1].split(", ")
    assert labels[:1] == ["cluster"]
    zero = "ledger_user:zero_base:1h" if level == "user" else "ledger:zero_base:1h"
    if level == "node":
        on, highest, lowest = "cluster, instance, epoch", "{}", "{}"
    else:
        by = ", ".join(["cluster", "epoch", *labels[1:]])
        on, highest, lowest = "cluster, epoch", f"max by ({by}) ({{}})", f"min by ({by}) ({{}})"
    expected = f"""sum by ({outer[1]}) (
      {highest.format(now)} - (
        {highest.format(f"last_over_time({before})")}
        or 0 * {highest.format(now)} and on ({on}) {zero}
        or {lowest.format(f"min_over_time({of}:{amount}:last[1h])")}
      )
    )"""
    assert promql.parse(RECORDS[name]).prettify() == promql.parse(expected).prettify()


def test_every_total_has_its_hours() -> None:
    totals = {name.removesuffix(":total") for name in RECORDS if name.endswith(":total")}
    assert {name.removesuffix(":increase1h") for name in HOURLY} == totals - {
        "cluster:co2e_settlement_grams"  # it may fall: no hour's amount
    }


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_one_per_event(name: str) -> None:
    """It counts over the nodes, so none of its labels is a node, a device or a job."""
    outermost = promql.parse(ALERTS[name]["expr"])
    while isinstance(outermost, promql.BinaryExpr):  # a count, under a condition
        outermost = outermost.lhs
    assert isinstance(outermost, promql.AggregateExpr)
    assert str(outermost.op) == "count"
    by = outermost.modifier.labels if outermost.modifier else ()
    assert set(by) <= {"cluster", "meter", "exporter"}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    said = rule["annotations"]
    assert {"summary", "description", "runbook"} <= said.keys()
    assert name == "WattledgerAbsent" or "{{ $value }}" in said["summary"]
    # vmalert writes `<no value>` for a label that is not there.
    assert "$labels.cluster" not in str(said).replace('(or $labels.cluster "")', "")
    path, _, anchor = said["runbook"].partition("#")
    assert path == "deploy/prometheus/README.md"
    headings = re.findall(r"^#+ (.+)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_cases_in_which_it_fires_and_does_not(name: str) -> None:
    files = (FOLDER / "tests").glob("*.yml")
    cases = [case for path in files for case in yaml.safe_load(path.read_text())["tests"]]
    held = [
        bool(check["exp_alerts"])
        for case in cases
        for check in case.get("alert_rule_test", ())
        if check["alertname"] == name
    ] + [
        bool(check["exp_samples"])
        for case in cases
        for check in case.get("promql_expr_test", ())
        if f'alertname="{name}"' in check["expr"]
    ]
    assert set(held) == {True, False}


def test_series_in_cases_are_those_of_the_daemon() -> None:
    """A case over a metric that does not exist holds nothing."""
    for path in (FOLDER / "tests").glob("*.yml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            for series in case.get("input_series", ()):
                (selector,) = selectors(series["series"])
                labels = {matcher.name for matcher in selector.matchers.matchers}
                assert labels <= known_labels(selector.name) | OF_SITES, series["series"]


def test_scrape_configuration() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    job, itself = config["scrape_configs"]
    assert itself["job_name"] == "prometheus"
    assert job["job_name"] == "wattledger"
    assert job["honor_labels"] is True
    assert all((FOLDER / path).exists() for path in config["rule_files"])
    assert list(FOLDER.glob(job["file_sd_configs"][0]["files"][0]))
    # What the rules record of a page that a ledger ends with: at least one evaluation each scrape.
    assert config["global"]["evaluation_interval"] == config["global"]["scrape_interval"] == "30s"
