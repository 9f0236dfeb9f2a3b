"""An API like Prometheus' over samples that a test wrote: as much PromQL as the fleet asks.

    api = FakeApi()
    api.write("ledger_info", {"instance": "a:1", "epoch": "e1"}, [(10, 1.0), (20, 1.0)])
    Fleet(api, Span(0, 30), ())

Windows are as in Prometheus 3: after `t - window`, up to `t`; in Prometheus 2 what is of that very
instant is in it, too. A series has a value at an instant
for `LOOKBACK_S` after a sample, but not past a marker, which `stale` writes.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from wattledger.fleet.targets import OF_LEDGER, Target, target_of

LOOKBACK_S = 300.0
STALE = float("nan")
Labels = Mapping[str, str]
Vector = list[tuple[dict[str, str], float]]
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)("(?:[^"\\]|\\.)*")')
_SELECTOR = re.compile(
    r'wattledger_(\w+)\{((?:"(?:[^"\\]|\\.)*"|[^}"])*)\}'
    r"(?:\[(\d+)(ms|s)\])?(?: offset (\d+)(ms|s))?"
)
_LAST = re.compile(rf"last_over_time\({_SELECTOR.pattern}\)")
_EACH = re.compile(rf"{_LAST.pattern}(?: or {_LAST.pattern})+")
_ROUND = re.compile(r"round\((.*) \* (\d+)\)", re.DOTALL)
_CALL = re.compile(r"(\w+)(?: by \(([^)]*)\))? ?\((.*)\)", re.DOTALL)
_OF_PAGE = re.compile(  # with the epoch that the same page showed last
    r"(wattledger_\w+{.*}) \* ignoring \((.*), epoch, storage\) group_left \(epoch\) "
    r"\(topk without \(epoch, storage\) \(1, timestamp\((.*)\) \* \3\) > bool 0\)"
)
_SUBQUERY = re.compile(r"(.*)\[(\d+)(ms|s):(\d+)s\]", re.DOTALL)
_OVER: dict[str, Callable[[list[float]], float]] = {
    "last_over_time": lambda values: values[-1],
    "count_over_time": lambda values: float(len(values)),
    "avg_over_time": lambda values: sum(values) / len(values),
    "max_over_time": max,
    "min_over_time": min,
}
_BY: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "count": lambda values: float(len(values)),
    "min": min,
    "max": max,
}


class FakeApi:
    """Takes the place of `wattledger.fleet.door.Door`.

    Args:
        now_s: of its clock.
        second: it is a Prometheus 2.
    """

    url = "http://fake:9090"

    def __init__(self, now_s: float = 0.0, *, second: bool = False) -> None:
        self.now_s = now_s
        self._after = bisect_left if second else bisect_right
        self.warnings: dict[str, None] = {}
        self.asked: list[str] = []
        self._found: dict[tuple[Any, ...], list[Any]] = {}  # by selector
        self._series: dict[tuple[str, frozenset[tuple[str, str]]], list[tuple[float, float]]] = {}

    def write(self, name: str, labels: Labels, points: Iterable[tuple[float, float]]) -> None:
        """Add samples, in order of time; an empty label is none."""
        self._found.clear()
        key = name, frozenset((k, v) for k, v in labels.items() if v)
        self._series.setdefault(key, []).extend(points)

    # ── the door ────────────────────────────────────────────────────────────────────────────────

    def query(self, query: str, at_s: float | None = None) -> Any:
        """The `data` of an instant query."""
        self.asked.append(query)
        at_s = self.now_s if at_s is None else at_s
        if query == "time()":
            return {"resultType": "scalar", "result": [at_s, str(self.now_s)]}
        selector = _SELECTOR.fullmatch(query)
        if selector and selector[3]:
            rows = [
                {"metric": labels, "values": [[t, repr(v)] for t, v in points]}
                for labels, points in self._window(selector, at_s)
                if points
            ]
            return {"resultType": "matrix", "result": rows}
        found = self._vector(query, at_s)
        rows = [{"metric": labels, "value": [at_s, repr(value)]} for labels, value in found]
        return {"resultType": "vector", "result": rows}

    def query_range(self, query: str, start_s: int, end_s: int, step_s: int) -> Any:
        """The `data` of a range query."""
        self.asked.append(query)
        rows: dict[str, tuple[dict[str, str], list[list[Any]]]] = {}
        for at_s in range(start_s, end_s + 1, step_s):
            for labels, value in self._vector(query, at_s):
                rows.setdefault(json.dumps(labels, sort_keys=True), (labels, []))[1].append(
                    [at_s, repr(value)]
                )
        found = [{"metric": labels, "values": values} for labels, values in rows.values()]
        return {"resultType": "matrix", "result": found}

    def reply(self, target: str) -> bytes:
        """The body that answers a request's target."""
        parts = urlsplit(target)
        asked = dict(parse_qsl(parts.query))
        if parts.path.endswith("/query_range"):
            numbers = (int(asked[name]) for name in ("start", "end", "step"))
            data = self.query_range(asked["query"], *numbers)
        else:
            data = self.query(asked["query"], float(asked["time"]) if "time" in asked else None)
        return json.dumps({"status": "success", "data": data}).encode()

    # ── as much PromQL as is asked ──────────────────────────────────────────────────────────────

    def _vector(self, query: str, at_s: float) -> Vector:
        selector = _SELECTOR.fullmatch(query)
        if selector:
            return [(labels, value) for labels, value, _ in self._instant(selector, at_s)]
        if _EACH.fullmatch(query):
            whole: dict[str, tuple[dict[str, str], float]] = {}
            for part in _LAST.finditer(query):
                for labels, value in self._vector(part[0], at_s):
                    whole.setdefault(json.dumps(labels, sort_keys=True), (labels, value))
            return list(whole.values())
        rounded = _ROUND.fullmatch(query)
        if rounded:
            found = self._vector(rounded[1], at_s)
            return [(labels, float(round(v * int(rounded[2])))) for labels, v in found]
        joined = _OF_PAGE.fullmatch(query)
        if joined:
            return self._of_page(*joined.groups(), at_s)
        call = _CALL.fullmatch(query)
        assert call is not None, query
        name, by, inner = call.groups()
        if name in _BY:
            names = [label.strip() for label in (by or "").split(",") if label.strip()]
            groups: dict[tuple[str, ...], list[float]] = {}
            for labels, value in self._vector(inner, at_s):
                groups.setdefault(tuple(labels.get(n, "") for n in names), []).append(value)
            return [
                ({n: v for n, v in zip(names, key, strict=True) if v}, _BY[name](values))
                for key, values in groups.items()
            ]
        if name == "timestamp":
            selector = _SELECTOR.fullmatch(inner)
            assert selector is not None, query
            return [(labels, when) for labels, _, when in self._instant(selector, at_s)]
        fold = _OVER[name]
        subquery = _SUBQUERY.fullmatch(inner)
        selector = _SELECTOR.fullmatch(inner)
        if selector is not None:
            rows = self._window(selector, at_s)
            return [(labels, fold([v for _, v in points])) for labels, points in rows if points]
        assert subquery is not None, query
        window_s = int(subquery[2]) / (1000 if subquery[3] == "ms" else 1)
        step_s = int(subquery[4])
        series: dict[str, tuple[dict[str, str], list[float]]] = {}
        for tick in range(int((at_s - window_s) // step_s), int(at_s // step_s) + 1):
            if at_s - window_s < tick * step_s <= at_s:
                for labels, value in self._vector(subquery[1], tick * step_s):
                    series.setdefault(json.dumps(labels, sort_keys=True), (labels, []))[1].append(
                        value
                    )
        return [(labels, fold(values)) for labels, values in series.values()]

    def _of_page(self, query: str, own: str, ledger: str, at_s: float) -> Vector:
        epochs: dict[Target, tuple[float, str]] = {}
        selector = _SELECTOR.fullmatch(ledger)
        assert selector is not None, ledger
        for labels, _, when in self._instant(selector, at_s):
            target = target_of(labels, OF_LEDGER)
            epochs[target] = max(epochs.get(target, (0.0, "")), (when, labels["epoch"]))
        found = [
            (labels, value, target_of(labels, ("__name__", *own.split(", "))))
            for labels, value in self._vector(query, at_s)
        ]
        return [
            ({**labels, "epoch": epochs[target][1]}, value)
            for labels, value, target in found
            if target in epochs
        ]

    def _window(self, selector: re.Match[str], at_s: float) -> list[Any]:
        window_s = int(selector[3]) / (1000 if selector[4] == "ms" else 1)
        if selector[5]:
            at_s -= int(selector[5]) / (1000 if selector[6] == "ms" else 1)
        found = []
        for labels, times, points in self._matching(selector):
            those = points[self._after(times, at_s - window_s) : bisect_right(times, at_s)]
            found.append((labels, [p for p in those if p[1] == p[1]]))
        return found

    def _instant(self, selector: re.Match[str], at_s: float) -> list[tuple[Any, float, float]]:
        found = []
        for labels, times, points in self._matching(selector):
            place = bisect_right(times, at_s) - 1
            if place < 0 or times[place] <= at_s - LOOKBACK_S:
                continue
            when, value = points[place]
            if value == value:
                found.append((labels, value, when))
        return found

    def _matching(self, selector: re.Match[str]) -> list[tuple[dict[str, str], list[float], Any]]:
        known = self._found.get(selector.group(1, 2))
        if known is not None:
            return known
        matchers = [
            (label, how, json.loads(text)) for label, how, text in _MATCHER.findall(selector[2])
        ]
        self._found[selector.group(1, 2)] = found = [
            ({"__name__": f"wattledger_{name}", **dict(labels)}, [t for t, _ in points], points)
            for (name, labels), points in self._series.items()
            if name == selector[1]
            and all(_holds(dict(labels).get(label, ""), how, text) for label, how, text in matchers)
        ]
        return found


def _holds(value: str, how: str, text: str) -> bool:
    if how in ("=", "!="):
        return (value == text) == (how == "=")
    return (re.fullmatch(text, value) is not None) == (how == "=~")
