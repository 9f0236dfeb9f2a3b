"""What stands for the dashboards' variables, found out of a Prometheus as Grafana does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import dashboards
from e2e.fleet_history import END_S, SHOWN_S
from e2e.history import PrometheusApi


def values_of(
    board: Mapping[str, Any],
    prometheus: PrometheusApi,
    choices: Mapping[str, Sequence[str]],
    shown: tuple[int, int] = (SHOWN_S, END_S),
) -> dict[str, str]:
    """What stands for each variable, as Grafana finds it out: one after the other.

    Raises:
        LookupError: nothing does.
    """
    given: dict[str, str] = {}
    for name, variable in dashboards.variables(board).items():
        if variable["type"] != "query":
            given[name] = variable["current"]["value"]
            continue
        series, label = dashboards.label_values(variable["query"]["query"])
        found = prometheus.label_values(dashboards.filled(series, given), label, *shown)
        if regex := variable.get("regex"):
            found = sorted({m[1] for v in found if (m := re.search(regex.strip("/"), v))})
        if not found and variable.get("allValue") != ".*":  # which fits series without the label
            raise LookupError(f"there is no {name} yet")
        assert set(choices.get(name, ())) <= set(found)
        given[name] = dashboards.chosen(variable, found, choices.get(name, ()))
    return given
