"""What a Prometheus-compatible API answers: read strictly, bounded, what is partial kept.

Documented at prometheus.io/docs/prometheus/latest/querying/api: `status`, `data`, `warnings`,
`error`. Thanos tells of stores that did not answer in `warnings`; VictoriaMetrics' cluster sets
`isPartial` beside `data` (docs.victoriametrics.com, "Cluster availability").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from wattledger.errors import WattledgerError
from wattledger.grid.checks import strict_json
from wattledger.grid.outcome import Outcome, failure

MAX_TEXT_CHARS = 300
MAX_WARNINGS = 5
MAX_SERIES = 200_000
_MOST_OF = {b"{": 2 * MAX_SERIES + 1000, b"[": 2_000_000, b",": 4_000_000}
"""What 32 MiB of samples have of these at most. A reply of nothing but empty objects would come to
30 times its size in memory."""
LATEST_S = 2**34  # the year 2514
_MOST = 2.0**80  # a float64 far beyond the µJ of any fleet: what is more is no counter of ours
Labels = Mapping[str, str]


class Reply(NamedTuple):
    """One answer.

    Attributes:
        data: as it came.
        warnings: sentences that say what is missing of it.
    """

    data: Any
    warnings: tuple[str, ...]


class Sample(NamedTuple):
    """One series at one instant: its labels, and its value."""

    labels: Labels
    value: float


class Course(NamedTuple):
    """One series over time: its labels, and (Unix seconds, value) in order of time."""

    labels: Labels
    points: tuple[tuple[float, float], ...]


class BadReply(WattledgerError):
    """A reply that is none of a Prometheus-compatible API."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the reply is not that of a Prometheus API: {what}",
            "check the address; it must be that of the API, with its path",
        )


def parsed(body: bytes) -> Any:
    """The JSON of a reply, unless it would need far more memory than answers do.

    Raises:
        GridError: outcome `bad_json` or `too_large`.
    """
    if any(body.count(mark) > most for mark, most in _MOST_OF.items()):
        raise failure(Outcome.TOO_LARGE, "the reply has far more parts than an answer has")
    return strict_json(body)


def read_reply(body: Any) -> Reply:
    """The data of a reply with status 200, and what it says to be missing.

    Raises:
        WattledgerError: it holds an error, or is something else.
    """
    if not isinstance(body, dict):
        raise BadReply("it is no JSON object")
    if body.get("status") != "success" or "data" not in body:
        error = body.get("error")
        if body.get("status") == "error" and isinstance(error, str):
            raise WattledgerError(f"the query failed: {shown(error)}", "narrow it with --since")
        raise BadReply("its status is not success")
    warnings = body.get("warnings") or []
    if not isinstance(warnings, list):
        raise BadReply("its warnings are no list")
    told = [shown(text) for text in warnings[:MAX_WARNINGS] if isinstance(text, str)]
    if len(warnings) > MAX_WARNINGS:
        told.append(f"and {len(warnings) - MAX_WARNINGS} more warnings")
    if body.get("isPartial") not in (None, False):
        told.append("a part of the storage did not answer (isPartial)")
    return Reply(body["data"], tuple(told))


def read_refusal(origin: str, status: int, body: bytes) -> WattledgerError:
    """The error of another status than 200, with the API's own words where it has any.

    Args:
        origin: who answered.
        status: of HTTP.
        body: as much of it as was read.
    """
    said = ""
    try:
        told = strict_json(body)
    except WattledgerError:
        told = None
    if isinstance(told, dict) and isinstance(told.get("error"), str):
        said = f": {shown(told['error'])}"
    message = f"{origin} answered with status {status}{said}"
    if 300 <= status < 400:
        hint = "redirects are never followed; name the final address"
    elif status in (401, 403):
        hint = "name a --token-file, a --basic-auth-file or a --tenant that may read"
    elif status == 404:
        hint = "name the path of the API as well, such as https://host/prometheus"
    elif status in (400, 422, 429):
        hint = "the query is refused, perhaps by a limit: ask for less with --since or a filter"
    elif status in (502, 503, 504):
        hint = "it is overloaded, starting or gave up: try again, or ask for less with --since"
    else:
        hint = "its log says more"
    return WattledgerError(message, hint)


def shown(text: str) -> str:
    """A text of the API's on one line of bounded length, with nothing a terminal would obey."""
    flat = "".join(c if c.isprintable() else " " for c in text[: 2 * MAX_TEXT_CHARS])
    flat = " ".join(flat.split())
    return flat if len(flat) <= MAX_TEXT_CHARS else f"{flat[:MAX_TEXT_CHARS]}…"


def samples(data: Any) -> list[Sample]:
    """The series of an instant vector.

    Raises:
        BadReply: it is none, or a value is not a number from 0 that a counter may have.
    """
    return [
        Sample(_labels(row), _point(row.get("value"))[1]) for row in _rows(data, "vector", "series")
    ]


def instants(data: Any) -> list[Sample]:
    """The series of an instant vector whose values are Unix seconds; see `samples`."""
    found = samples(data)
    if any(row.value > LATEST_S for row in found):
        raise BadReply("a time is none")
    return found


def courses(data: Any) -> list[Course]:
    """The series of a matrix; see `samples`.

    VictoriaMetrics shows raw samples with its markers of a series' end, which are NaN: no samples.
    """
    found = []
    for row in _rows(data, "matrix", "series"):
        values = row.get("values")
        if not isinstance(values, list):
            raise BadReply("a series has no values")
        points = tuple(_point(value) for value in values if not _is_marker(value))
        if any(b[0] <= a[0] for a, b in pairwise(points)):
            raise BadReply("a series is not in order of time")
        found.append(Course(_labels(row), points))
    return found


def scalar(data: Any) -> float:
    """The value of a scalar; see `samples`."""
    if not isinstance(data, dict) or data.get("resultType") not in ("scalar", "vector"):
        raise BadReply("it is no scalar")
    result = data.get("result")
    if data["resultType"] == "vector":  # VictoriaMetrics makes one of each scalar
        found = samples(data)
        if len(found) != 1:
            raise BadReply("it is no scalar")
        return found[0].value
    return _point(result)[1]


def _rows(data: Any, kind: str, what: str) -> list[dict[str, Any]]:
    if not isinstance(data, dict) or data.get("resultType") != kind:
        raise BadReply(f"it is no {kind}")
    rows = data.get("result")
    if rows is None:
        rows = []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadReply(f"its {what} are no list")
    if len(rows) > MAX_SERIES:
        raise BadReply(f"it has more than {MAX_SERIES:,} series")
    return rows


def _labels(row: Mapping[str, Any]) -> Labels:
    labels = row.get("metric")
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise BadReply("a series has no labels")
    return labels


def _is_marker(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and pair[1] == "NaN"


def _point(pair: Any) -> tuple[float, float]:
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], str):
        raise BadReply("a sample is not a time and a value")
    at_s, text = pair
    if isinstance(at_s, bool) or not isinstance(at_s, int | float) or not 0 <= at_s <= LATEST_S:
        raise BadReply("a sample has no time")
    try:
        value = float(text) if len(text) <= 64 else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value < _MOST:
        raise BadReply(f"a sample is {shown(text)[:40]!r}, not a number from 0")
    return float(at_s), value
