"""Recorded power: CSV files and lists of points."""

from __future__ import annotations

import csv
from pathlib import Path

from wattledger.meters.simulated.schema import SECONDS, WATTS

_MOST_POINTS = 100_000
_HEADER = ["t_s", "watts"]


def read_trace(path: Path) -> list[tuple[int, int]]:
    """A CSV file with the columns t_s and watts, with or without a header line.

    Returns:
        (time in ns, µW), the first at 0.

    Raises:
        ValueError: the file is missing or a line of it will not do; says which.
    """
    points: list[tuple[int, int]] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            for row in rows:
                if not row or row[0].startswith("#") or [c.strip() for c in row] == _HEADER:
                    continue
                points.append(_point(list(row), f"{path.name}:{rows.line_num}", points))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read the trace: {error}") from error
    return _from_zero(points, path.name)


def read_points(rows: list[object]) -> list[tuple[int, int]]:
    """The same from `[[t_s, watts], …]`.

    Raises:
        ValueError: a point will not do; says which.
    """
    points: list[tuple[int, int]] = []
    for place, row in enumerate(rows):
        points.append(_point(row if isinstance(row, list) else [], f"point {place}", points))
    return _from_zero(points, "points")


def _point(row: list[object], where: str, before: list[tuple[int, int]]) -> tuple[int, int]:
    if len(row) != 2:
        raise ValueError(f"{where}: a point is a time in seconds and a power in watts")
    if len(before) >= _MOST_POINTS:
        raise ValueError(f"{where}: more than {_MOST_POINTS} points")
    try:
        at_s, power_w = (float(cell) if isinstance(cell, str) else cell for cell in row)
        at_ns, power_uw = SECONDS(at_s), WATTS(power_w)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if before and at_ns <= before[-1][0]:
        raise ValueError(f"{where}: the time does not increase")
    return at_ns, power_uw


def _from_zero(points: list[tuple[int, int]], name: str) -> list[tuple[int, int]]:
    if len(points) < 2:
        raise ValueError(f"{name}: a trace has at least two points; the last one ends the cycle")
    first_ns = points[0][0]
    return [(at_ns - first_ns, power_uw) for at_ns, power_uw in points]
