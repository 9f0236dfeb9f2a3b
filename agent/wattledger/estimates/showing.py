"""Estimates on standard output: tables for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import groupby
from math import floor, log10
from typing import Any

from wattledger.core.estimate.cases import Case, Estimate, Row
from wattledger.core.estimate.formulas import derive

COLUMNS = (
    "case",
    "estimate",
    "quantity",
    "unit",
    "published",
    "computed",
    "difference_percent",
    "note",
)
_DIGITS = 6
_WIDTH = 160  # of a table in a pipe or a file


def records(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows as plain data by `COLUMNS`; numbers to twelve digits, None if none is published."""
    return [
        {
            "case": row.case,
            "estimate": row.estimate,
            "quantity": row.quantity,
            "unit": row.unit,
            "published": _number(row.published),
            "computed": _number(row.computed),
            "difference_percent": _number(row.difference_percent),
            "note": row.note,
        }
        for row in rows
    ]


def objects(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The same without a column of its own for which of a case's estimates it is: its note says so.

    The keys are `case`, `quantity`, `unit`, `published`, `computed`, `difference_percent`, `note`.
    """
    found = records(rows)
    for row in found:
        row["note"] = ": ".join(filter(None, (row.pop("estimate"), row["note"])))
    return found


def readable(value: Fraction | None) -> str:
    """To six digits, with thousands set apart; `-` for None."""
    if value is None:
        return "-"
    number = float(value)
    if number == 0:
        return "0"
    decimals = max(0, _DIGITS - 1 - floor(log10(abs(number))))
    text = f"{number:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(value: Fraction | None) -> str:
    """`+0.11 %`; `-` for None."""
    return "-" if value is None else f"{float(round(value, 2)) + 0.0:+.2f} %"


def print_rows(rows: Sequence[Row], form: str) -> None:
    """All rows as JSON, CSV, or a table with what is not reproduced, and why, below."""
    if form == "json":
        sys.stdout.write(json.dumps(objects(rows), indent=2, ensure_ascii=False) + "\n")
    elif form == "csv":
        writer = csv.DictWriter(sys.stdout, COLUMNS)
        writer.writeheader()
        writer.writerows(records(rows))
    else:
        console = _console()
        console.print(_table(rows, "case"))
        if apart := [row for row in rows if row.reproduced is False]:
            console.print("\nNot reproduced:")
            for row in apart:
                what = ", ".join(filter(None, (row.case, row.estimate, row.quantity)))
                console.print(f"  {what}: {row.note}", soft_wrap=True)


def print_case(case: Case, rows: Sequence[Row]) -> None:
    """One case for people: what it is, its inputs, and what follows."""
    console = _console()
    console.print(case.title, style="bold", soft_wrap=True)
    for line in filter(None, (case.source, case.url, case.doi and f"doi:{case.doi}", case.note)):
        console.print(line, soft_wrap=True)
    by_estimate = {key: list(group) for key, group in groupby(rows, lambda row: row.estimate)}
    for estimate in case.estimates:
        console.print()
        if estimate.name:
            console.print(estimate.name, style="bold", soft_wrap=True)
        if estimate.note:
            console.print(estimate.note, soft_wrap=True)
        for line in _inputs(estimate):
            console.print(f"  {line}", style="dim", soft_wrap=True)
        found = by_estimate[estimate.name]
        console.print(_table(found, ""))
        for row in found:
            if row.note:
                console.print(f"  {row.quantity}: {row.note}", soft_wrap=True)


def print_own(case: Case, rows: Sequence[Row]) -> None:
    """One's own estimate: what follows, by which formula, and from what."""
    from rich.table import Table

    console = _console()
    (estimate,) = case.estimates
    formulas = derive(estimate.inputs).formulas
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("quantity")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("as", style="dim", overflow="fold")
    for row in rows:
        way = formulas[row.quantity].text if row.quantity in formulas else "given"
        table.add_row(row.quantity, readable(row.computed), _unit(row.unit), way)
    console.print(table)
    console.print()
    for line in _inputs(estimate):
        console.print(line, style="dim", soft_wrap=True)


def _inputs(estimate: Estimate) -> list[str]:
    return [
        f"{name} = {readable(value)}"
        + (f" ({estimate.origins[name]})" if name in estimate.origins else "")
        for name, value in estimate.inputs.items()
    ]


def _table(rows: Iterable[Row], first: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    if first:
        table.add_column(first, overflow="fold")
        table.add_column("estimate", overflow="fold")
    table.add_column("quantity", overflow="fold")
    for title in ("published", "computed"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    before = ("", "")
    for row in rows:
        said = (row.case, row.estimate)
        # A case and an estimate are named where they begin.
        names = (row.case if row.case != before[0] else "", row.estimate if said != before else "")
        before = said
        mark = " *" if row.reproduced is False else ""
        table.add_row(
            *(names if first else ()),
            row.quantity,
            readable(row.published),
            readable(row.computed),
            _unit(row.unit),
            percent(row.difference_percent) + mark,
        )
    return table


def _unit(unit: str) -> str:
    return "" if unit == "1" else unit


def _number(value: Fraction | None) -> float | None:
    return None if value is None else float(f"{float(value):.12g}")


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDTH)
