"""The rules of Grafana's own dashboard-linter, and a few of this house, for the dashboards.

https://github.com/grafana/dashboard-linter/tree/main/docs/rules; those about Loki have nothing to
look at here. Each rule says what is wrong, one line a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import promql_parser as promql

import dashboards
from dashboards import Target
from wattledger.model.jobs import LABELS
from wattledger_exporters.metrics import CATALOGUE

Board = Mapping[str, Any]
Rule = Callable[[Board], Iterator[str]]

TARGET_LABELS = {"cluster", "job", "instance"}
FOREIGN = {
    "up": set[str](),
    "ipmi_dcmi_power_consumption_watts": set[str](),
    "DCGM_FI_DEV_POWER_USAGE": {"gpu", "UUID", "modelName", "Hostname", "pci_bus_id", "device"},
    "process_cpu_seconds_total": set[str](),
    "process_resident_memory_bytes": set[str](),
}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WHOLE_COUNTERS = {
    # Their present value is what is shown; each says so in its description.
    "Books out of balance",
    "Energy since the beginning",
    "Jobs without a series",
}
UNITS = {
    "watt",
    "joule",
    "kwatth",
    "massg",
    "litre",
    "s",
    "bytes",
    "percentunit",
    "short",
    "none",
}


def parsed(expr: str) -> Any:
    """The tree of a query whose variables are filled with something that parses."""
    given = dict.fromkeys(
        ("cluster", "job", "instance", "host", "manager", "job_id", "user"), "x.+"
    )
    return promql.parse(dashboards.filled(expr, given))


def nodes(expr: str, kind: type) -> list[Any]:
    """The nodes of a kind in a query's tree."""
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, kind):
            found.append(node)

    promql.walk(parsed(expr), visit)
    return found


def selectors(expr: str) -> list[Any]:
    """What a query selects."""
    return nodes(expr, promql.VectorSelector)


def _queries(board: Board) -> Iterator[tuple[str, str]]:
    """Name and text of every query, the annotations' too."""
    for target in dashboards.targets(board):
        yield f"{target.panel} {target.ref}", target.expr
    for event in board["annotations"].get("list", ()):
        yield event["name"], event["expr"]


def _variables(board: Board) -> dict[str, dict[str, Any]]:
    return dashboards.variables(board)


# ── the linter's rules ──────────────────────────────────────────────────────────────────────────


def template_datasource(board: Board) -> Iterator[str]:
    first = board["templating"]["list"][0]
    if (first["name"], first["type"], first["query"]) != ("datasource", "datasource", "prometheus"):
        yield "the first variable is not a data source named datasource"
    if first["label"] != "Data source":
        yield "the data source is not labelled so"


def template_job(board: Board) -> Iterator[str]:
    yield from _template_of(board, "job")


def template_instance(board: Board) -> Iterator[str]:
    yield from _template_of(board, "instance")


def _template_of(board: Board, name: str) -> Iterator[str]:
    variable = _variables(board).get(name)
    if variable is None:
        yield f"there is no variable {name}"
        return
    if not (variable["multi"] and variable["includeAll"] and variable["allValue"] == ".+"):
        yield f"{name} must take several, or all as .+"
    if variable["type"] != "query" or variable["datasource"] != SOURCE:
        yield f"{name} must be asked of the data source chosen"


def template_all_is_a_pattern(board: Board) -> Iterator[str]:
    """Written out, 2,000 nodes are a query of 50 KB; VictoriaMetrics takes 16."""
    for name, variable in _variables(board).items():
        if variable.get("includeAll") and variable.get("allValue") not in (".+", ".*"):
            yield f"all of {name} is written out, one by one"


def template_label_promql(board: Board) -> Iterator[str]:
    for name, variable in _variables(board).items():
        if variable["type"] != "query":
            continue
        try:
            series, label = dashboards.label_values(variable["query"]["query"])
            (selector,) = selectors(series)
        except (AssertionError, ValueError, KeyError) as error:
            yield f"{name}: {error}"
            continue
        if label not in labels_of(selector.name):
            yield f"{name}: {selector.name} has no label {label}"


def template_on_time_change_reload(board: Board) -> Iterator[str]:
    for name, variable in _variables(board).items():
        if variable["type"] == "query" and variable["refresh"] != 2:
            yield f"{name} is not asked again when the time changes"


def panel_datasource(board: Board) -> Iterator[str]:
    for panel in dashboards.panels(board):
        if any(one["datasource"] != SOURCE for one in (panel, *panel["targets"])):
            yield f"{panel['title']} names a data source of its own"


def panel_title_description(board: Board) -> Iterator[str]:
    seen = set()
    for panel in dashboards.panels(board):
        if not panel.get("title") or len(panel.get("description", "")) < 30:
            yield f"{panel.get('title')!r} is not explained"
        if panel["title"] in seen:
            yield f"{panel['title']} is there twice"
        seen.add(panel["title"])


def panel_units(board: Board) -> Iterator[str]:
    for panel in dashboards.panels(board):
        config = panel["fieldConfig"]
        units = [config["defaults"].get("unit", "")]
        units += [
            p["value"] for o in config["overrides"] for p in o["properties"] if p["id"] == "unit"
        ]
        for unit in units:
            if unit not in UNITS and not unit.startswith("suffix:"):
                yield f"{panel['title']} has no unit that Grafana knows: {unit!r}"
        if not config["defaults"].get("thresholds", {}).get("steps"):
            yield f"{panel['title']} has no thresholds"


def panel_no_targets(board: Board) -> Iterator[str]:
    for panel in dashboards.panels(board):
        refs = [target["refId"] for target in panel["targets"]]
        if not refs or len(set(refs)) != len(refs):
            yield f"{panel['title']} has no queries, or two of one name"


def target_promql(board: Board) -> Iterator[str]:
    for name, expr in _queries(board):
        try:
            parsed(expr)
        except (ValueError, KeyError) as error:
            yield f"{name}: {error!r} in {expr}"


def target_rate_interval(board: Board) -> Iterator[str]:
    for name, expr in _queries(board):
        for window in re.findall(r"i?rate\([^\[]*\[([^\]]+)\]", expr):
            if window != "$__rate_interval":
                yield f"{name}: rate over {window}"


def target_job(board: Board) -> Iterator[str]:
    yield from _selects_by(board, "job", "$job")


def target_instance(board: Board) -> Iterator[str]:
    yield from _selects_by(board, "instance", "$instance")


def _selects_by(board: Board, label: str, variable: str) -> Iterator[str]:
    wanted = f'{label}=~"{variable}"'
    for name, expr in _queries(board):
        for found in re.findall(r"\b((?:wattledger_|process_)\w+|up)\{([^}]*)\}", expr):
            if wanted not in found[1]:
                yield f"{name}: {found[0]} is not selected by {label}"
        if bare := re.search(r"\bwattledger_\w+(?![\w{])", expr):
            yield f"{name}: {bare[0]} selects everything"


def target_counter_agg(board: Board) -> Iterator[str]:
    for target in dashboards.targets(board):
        if target.panel in WHOLE_COUNTERS:
            continue
        inside = {
            selector.vector_selector.name for selector in nodes(target.expr, promql.MatrixSelector)
        }
        for selector in selectors(target.expr):
            name = selector.name
            if name.endswith("_total") and name not in inside:
                yield f"{target.panel}: the counter {name} is shown as a gauge"


def uneditable_dashboard(board: Board) -> Iterator[str]:
    if board["editable"]:
        yield "it can be edited in Grafana, where the next deployment would undo it"


# ── of this house ───────────────────────────────────────────────────────────────────────────────


def recorded_labels() -> dict[str, set[str]]:
    """Rule → its labels."""
    import yaml

    found = {}
    for path in sorted((dashboards.GRAFANA.parent / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    by = re.match(r"\s*\w+ by \(([^)]*)\)", rule["expr"])
                    found[rule["record"]] = {n.strip() for n in by[1].split(",")} if by else set()
    return found


RECORDED = recorded_labels()


def labels_of(name: str) -> set[str]:
    """The labels of a series; empty: it is not known."""
    if name in RECORDED:
        return RECORDED[name]
    if name in FOREIGN:
        return FOREIGN[name] | TARGET_LABELS
    spec = CATALOGUE.get(name.removeprefix("wattledger_"))
    if spec is None:
        return set()
    more = set(LABELS) if spec.sample == "wattledger_job_info" else set()
    return {*spec.labels, *TARGET_LABELS, *more}


def only_known_metrics_and_labels(board: Board) -> Iterator[str]:
    for name, expr in _queries(board):
        known: set[str] = set()
        for selector in selectors(expr):
            labels = labels_of(selector.name)
            if not labels:
                yield f"{name}: there is no {selector.name}"
            for matcher in selector.matchers.matchers:
                if matcher.name not in labels:
                    yield f"{name}: {selector.name} has no label {matcher.name}"
            known |= labels
        known |= set(re.findall(r'label_replace\(.*?, "(\w+)", "\$1', expr))
        used = re.findall(r"(?:by|on|group_left) \(([^)]*)\)", expr)
        for label in {one.strip() for group in used for one in group.split(",")} - {""}:
            if label not in known:
                yield f"{name}: nothing has the label {label}"


def links_lead_somewhere(board: Board) -> Iterator[str]:
    boards = {dashboards.load(name)["uid"]: dashboards.load(name) for name in dashboards.NAMES}
    for panel, url in links(board):
        uid, _, query = url.removeprefix("/d/").partition("?")
        if uid not in boards:
            yield f"{panel['title']}: there is no dashboard {uid}"
            continue
        theirs = dashboards.variables(boards[uid])
        for name in re.findall(r"var-(\w+)=", query):
            if name not in theirs:
                yield f"{panel['title']}: {uid} has no variable {name}"
        ours = dashboards.variables(board)
        for name in re.findall(r"\$\{(\w+):queryparam\}", query):
            if name not in ours or name not in theirs:
                yield f"{panel['title']}: {name} is not a variable of both"
        headings = {
            new
            for step in panel.get("transformations", ())
            for new in step["options"].get("renameByName", {}).values()
        }
        for field in re.findall(r"\$\{__data\.fields\.(\w+)\}", query):
            if field not in headings:
                yield f"{panel['title']}: it has no column {field}"
        legends = " ".join(target["legendFormat"] for target in panel["targets"])
        for label in re.findall(r"\$\{__field\.labels\.(\w+)\}", query):
            if f"{{{{{label}}}}}" not in legends:
                yield f"{panel['title']}: its series do not tell {label}"


def links_name_the_cluster(board: Board) -> Iterator[str]:
    """Two clusters may have a node or a job of the same name."""
    for panel, url in links(board):
        if "var-cluster=" not in url or "${cluster:queryparam}" in url:
            yield f"{panel['title']}: {url} leads to all clusters chosen here"


def limits_are_not_drawn_as_lines(board: Board) -> Iterator[str]:
    """A line at a threshold reads like a series, in the colours of the series beside it."""
    for panel in dashboards.panels(board):
        config = panel["fieldConfig"]["defaults"]
        style = config.get("custom", {}).get("thresholdsStyle", {}).get("mode", "off")
        if style not in ("off", "area"):
            yield f"{panel['title']} draws its limits as {style}"
        good = [step for step in config["thresholds"]["steps"] if step["color"] == "green"]
        if style == "area" and good:
            yield f"{panel['title']} shades what is good"


def links(board: Board) -> Iterator[tuple[dict[str, Any], str]]:
    """Panel and address of every data link."""
    for panel in dashboards.panels(board):
        config = panel["fieldConfig"]
        for link in config["defaults"].get("links", ()):
            yield panel, link["url"]
        for override in config["overrides"]:
            for change in override["properties"]:
                for link in change["value"] if change["id"] == "links" else ():
                    yield panel, link["url"]


def panels_do_not_overlap(board: Board) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield f"{panel['title']} is too wide"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if (x, y) in taken:
                    yield f"{panel['title']} lies on {taken[x, y]}"
                    return
                taken[x, y] = panel["title"]


def ids_are_unique(board: Board) -> Iterator[str]:
    ids = [panel["id"] for panel in board["panels"]]
    if len(set(ids)) != len(ids):
        yield "two panels have one id"


RULES: tuple[Rule, ...] = (
    template_datasource,
    template_job,
    template_instance,
    template_all_is_a_pattern,
    template_label_promql,
    template_on_time_change_reload,
    panel_datasource,
    panel_title_description,
    panel_units,
    panel_no_targets,
    target_promql,
    target_rate_interval,
    target_job,
    target_instance,
    target_counter_agg,
    uneditable_dashboard,
    only_known_metrics_and_labels,
    links_lead_somewhere,
    links_name_the_cluster,
    limits_are_not_drawn_as_lines,
    panels_do_not_overlap,
    ids_are_unique,
)
__all__ = ["RULES", "Board", "Rule", "Target", "links", "parsed", "selectors"]
