"""`report --what-if` on standard output: a table for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wattledger import units
from wattledger.core.what_if import Line, merged
from wattledger.printing import TABLE_ROWS, printable
from wattledger.units import UG_PER_G, UL_PER_L
from wattledger_exporters.report import PRIVATE_GROUPINGS
from wattledger_exporters.wording import escaped

if TYPE_CHECKING:
    from wattledger.alternatives.what_if_command import Priced

Value = str | float | None
COLUMNS = (
    "group",
    "energy_kwh",
    "co2e_g",
    "basis",
    "priced_kwh",
    "priced_co2e_g",
    "what_if_co2e_g",
    "what_if_basis",
    "difference_g",
    "difference_percent",
    "priced_water_grid_l",
    "what_if_water_grid_l",
    "energy_uj",
    "co2e_ug",
    "priced_uj",
    "priced_co2e_ug",
    "what_if_co2e_ug",
)
"""The group and its real figures; of the part that the other prices cover (`priced_*`) the real
figures, what they would have been, and by how much more; then exact ones."""


def print_lines(priced: Priced, scenario: str, form: str, limit: int | None = None) -> None:
    """To standard output.

    Args:
        priced: the report.
        scenario: as the user wrote it.
        form: `table`, `json` or `csv`.
        limit: as of `report.print_report`: the first so many rows, the total being that of all.
    """
    if limit is None and form == "table" and priced.by in PRIVATE_GROUPINGS:
        limit = TABLE_ROWS
    rows = [_row(line) for line in priced.lines[:limit]]
    more = len(priced.lines) - len(rows)
    total = next((_row(line) for line in merged(priced.lines, lambda _: "all")), None)
    if form == "json":
        answer = {
            **{key: priced.answer[key] for key in ("since", "until", "books_complete_until")},
            "by": priced.by,
            "what_if": _about(priced, scenario),
            "rows": rows,
            "total": total,
            **({"rows_left_out": more} if more else {}),
        }
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    elif form == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        # Names of devices and jobs come from outside: none may be a spreadsheet's formula.
        names = [str(row["group"]) for row in rows]
        safe = ["'" + name if name[:1] in "=+-@\t\r" else name for name in names]
        writer.writerows({**row, "group": name} for row, name in zip(rows, safe, strict=True))
        sys.stdout.write(out.getvalue())
        if more:
            sys.stderr.write(f"wattledger: {more} more were left out by --limit\n")
    else:
        _print_table(priced, rows, total, more)


def _row(line: Line) -> dict[str, Value]:
    """One line by the names of `COLUMNS`; None where there is no other price."""
    more_ug = line.difference_ug
    covered = line.co2e_ug is not None
    before_ug = line.priced.co2e_ug
    return {
        "group": line.group,
        "energy_kwh": units.kwh(line.real.energy_uj),
        "co2e_g": units.grams(line.real.co2e_ug),
        "basis": line.basis,
        "priced_kwh": units.kwh(line.priced.energy_uj),
        "priced_co2e_g": units.grams(before_ug),
        "what_if_co2e_g": None if line.co2e_ug is None else line.co2e_ug / UG_PER_G,
        "what_if_basis": line.other_basis,
        "difference_g": None if more_ug is None else more_ug / UG_PER_G,
        "difference_percent": more_ug * 100 / before_ug
        if more_ug is not None and before_ug
        else None,
        "priced_water_grid_l": units.liters(line.priced.water_grid_ul) if covered else None,
        "what_if_water_grid_l": None
        if line.water_grid_ul is None
        else line.water_grid_ul / UL_PER_L,
        "energy_uj": str(line.real.energy_uj),
        "co2e_ug": str(line.real.co2e_ug),
        "priced_uj": str(line.priced.energy_uj),
        "priced_co2e_ug": str(before_ug),
        "what_if_co2e_ug": None if line.co2e_ug is None else str(line.co2e_ug),
    }


def _about(priced: Priced, scenario: str) -> dict[str, Any]:
    fixed = priced.fixed
    ewif = fixed.ewif_ul_per_kwh if fixed is not None else None
    return {
        "asked": scenario,
        "meaning": priced.about,
        "intensity_g_per_kwh": None
        if fixed is None
        else float(fixed.intensity_ug_per_kwh / UG_PER_G),
        "ewif_l_per_kwh": None if ewif is None else float(ewif / UL_PER_L),
        "notes": list(priced.notes),
    }


def _print_table(
    priced: Priced, rows: list[dict[str, Value]], total: Mapping[str, Value] | None, more: int
) -> None:
    from rich.console import Console
    from rich.table import Table

    # Into a pipe or a file the table is as wide as it is; a terminal folds long names.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 180)
    shown = [*rows, total] if total is not None else rows
    watered = any(row["what_if_water_grid_l"] is not None for row in shown)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(priced.by if priced.by != "all" else "", overflow="fold")
    titles = ["energy kWh", "CO2e g", "what if g", "difference"]
    for title in titles + (["grid water L", "what if L"] if watered else []):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, watered))
    if total is not None and (len(rows) != 1 or priced.by != "all"):
        table.add_section()
        table.add_row(*_cells(total, watered), style="bold")
    console.print(table)
    if more:
        console.print(f"And {more:,} more, in the total; --limit N shows them.", style="dim")
    for text in _told(priced, total):
        console.print(text, style="dim", soft_wrap=True)


def _cells(row: Mapping[str, Value], watered: bool) -> list[str]:
    percent = row["difference_percent"]
    cells = [
        printable(escaped(str(row["group"]))),
        _number(row["energy_kwh"], 6),
        _number(row["co2e_g"], 3),
        _number(row["what_if_co2e_g"], 3),
        "-" if percent is None else f"{float(percent) + 0.0:+.1f} %",
    ]
    if watered:
        cells += [_number(row[f"{name}_water_grid_l"], 4) for name in ("priced", "what_if")]
    return cells


def _number(value: Value, decimals: int) -> str:
    return "-" if value is None else f"{float(value):,.{decimals}f}"


def _told(priced: Priced, total: Mapping[str, Value] | None) -> list[str]:
    fixed = priced.fixed
    what = "" if fixed is None else f": {float(fixed.intensity_ug_per_kwh / UG_PER_G):,.1f} g/kWh"
    told = [f"What if: {priced.about}{what}.", *priced.notes]
    if total is None:
        return ["The books hold no energy of this time.", *told]
    real, other = str(total["basis"]), str(total["what_if_basis"])
    if total["what_if_co2e_g"] is None:
        told.append("There is no other price for any of this energy.")
    elif real == other and "+" not in real:
        told.append(f"Both count {real}.")
    else:
        told.append(f"UNLIKE: the real figure counts {real}, the other one {other}.")
    if total["what_if_co2e_g"] is not None and total["priced_uj"] != total["energy_uj"]:
        told.append(
            f"Only {_number(total['priced_kwh'], 6)} kWh have another price and are compared: they "
            f"were booked with {_number(total['priced_co2e_g'], 3)} g."
        )
    span = f"{priced.answer['since'] or 'the beginning'} to {priced.answer['until']}"
    told.append(f"IT energy of {span}; CO2e and grid water include the PUE of the books.")
    return told
