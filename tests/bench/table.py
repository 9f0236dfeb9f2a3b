"""The result: one row per figure, each with its target and whether it was met."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Row:
    """A figure. `at_most` None: it is shown, nothing is promised."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.at_most is None else abs(self.value) <= self.at_most


@dataclass
class Result:
    """All rows, and the machine they were measured on."""

    machine: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    def add(
        self, name: str, value: float, unit: str, at_most: float | None = None, note: str = ""
    ) -> None:
        self.rows.append(Row(name, value, unit, at_most, note))

    @property
    def missed(self) -> list[Row]:
        return [row for row in self.rows if row.met is False]

    def text(self) -> str:
        """A table for people."""
        verdicts = {None: "", True: "ok", False: "MISSED"}
        lines = [("", "value", "target", "", "")]
        for row in self.rows:
            target = "" if row.at_most is None else f"≤ {_number(row.at_most)} {row.unit}"
            value = f"{_number(row.value)} {row.unit}"
            lines.append((row.name, value, target, verdicts[row.met], row.note))
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        where = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        shown = [
            f"{line[0]:<{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:>{widths[2]}}"
            f"  {line[3]:<{widths[3]}}  {line[4]}".rstrip()
            for line in lines
        ]
        return "\n".join([where, "", *shown])

    def write_json(self, path: Path) -> None:
        rows = [
            {
                "name": row.name,
                "value": row.value,
                "unit": row.unit,
                "at_most": row.at_most,
                "met": row.met,
                "note": row.note,
            }
            for row in self.rows
        ]
        path.write_text(json.dumps({"machine": self.machine, "rows": rows}, indent=2) + "\n")


def _number(value: float) -> str:
    """Three significant digits, more before the point."""
    if value and abs(value) < 0.0005:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
