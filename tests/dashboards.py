"""The committed dashboards, and what Grafana does to their queries before it sends them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

GRAFANA = Path(__file__).parents[1] / "deploy" / "grafana"
NAMES = ("fleet", "node", "job", "users", "footprint", "health")

_VARIABLE = re.compile(r"\$(?:(?P<bare>[a-z_]\w*)|\{(?P<name>\w+)(?::(?P<format>\w+))?\})")


class Target(NamedTuple):
    """A query of a panel."""

    panel: str
    ref: str
    expr: str
    instant: bool


def load(name: str) -> dict[str, Any]:
    """A committed dashboard."""
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / f"{name}.json").read_text())
    return found


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its panels without the rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def targets(board: Mapping[str, Any]) -> Iterator[Target]:
    """All queries of its panels."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield Target(
                panel["title"], target["refId"], target["expr"], target.get("instant", False)
            )


def variables(board: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Its variables by name."""
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def as_regex(values: Sequence[str]) -> str:
    """A choice, as the Prometheus data source writes it into a matcher."""
    escaped = [re.sub(r"[\\^$.*+?()\[\]{}|]", r"\\\\\g<0>", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def chosen(variable: Mapping[str, Any], values: Sequence[str], choice: Sequence[str] = ()) -> str:
    """What stands for a variable in a query.

    Args:
        variable: its model.
        values: all that it may be.
        choice: what somebody chose; empty: all.
    """
    if choice:
        return as_regex(choice)
    return variable.get("allValue") or as_regex(values)


def filled(expr: str, given: Mapping[str, str], *, rate: str = "2m", range_s: int = 3600) -> str:
    """A query with its variables filled in.

    Raises:
        KeyError: a variable that is not there.
    """
    known = {
        **given,
        "__rate_interval": rate,
        "__interval": "60s",
        "__range": f"{range_s}s",
        "__range_s": str(range_s),
    }
    return _VARIABLE.sub(lambda found: known[found["bare"] or found["name"]], expr)


def label_values(query: str) -> tuple[str, str]:
    """The selector and the label of a variable's query."""
    found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
    assert found, query
    return found[1], found[2]


def alerts() -> list[dict[str, Any]]:
    """The alert rules beside the dashboards."""
    return [
        rule
        for path in sorted((GRAFANA.parent / "prometheus" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]


def recorded() -> set[str]:
    """The series of recording rules that the dashboards and the alerts ask for."""
    exprs = [target.expr for board in NAMES for target in targets(load(board))]
    exprs += [rule["expr"] for rule in alerts()]
    return {
        name for expr in exprs for name in re.findall(r"[a-z_0-9]+:[a-z_0-9]+:[a-z_0-9]+", expr)
    }
