"""`wattledger report`: totals from the running daemon, or from its ledger while it is stopped."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wattledger import build
from wattledger.config import Config
from wattledger.errors import ConfigError, DaemonUnreachable
from wattledger.printing import TABLE_ROWS, printable
from wattledger.remote import Remote
from wattledger_exporters import report
from wattledger_exporters.bands import in_words
from wattledger_exporters.http.api import totals, totals_query
from wattledger_exporters.http.query import BadRequest
from wattledger_exporters.report import PRIVATE_GROUPINGS
from wattledger_exporters.wording import escaped, percent, simulated_note

_BESIDE = {
    "costs": "cost",
    "market_co2e_g": "CO2e market g",
    "embodied_co2e_g": "embodied CO2e g",
}
"""Columns that there are only where something is known for them."""


def asked_of(options: argparse.Namespace) -> dict[str, str]:
    """The parameters of `/api/v1/totals` that the options of `report` make."""
    asked = {"by": options.by or "kind"}
    return asked | {
        name: getattr(options, name) for name in ("since", "until") if getattr(options, name)
    }


def read_totals(
    asked: Mapping[str, str], config: Callable[[], Config], remote: Remote
) -> Mapping[str, Any]:
    """What `/api/v1/totals` answers to these parameters, asked of the daemon or worked out here.

    Raises:
        ConfigError: a parameter that cannot be.
        LedgerError: no daemon runs, and its ledger cannot be read either.
    """
    try:
        answer: Mapping[str, Any] = remote.request("/api/v1/totals", asked)
    except DaemonUnreachable:
        known = config()
        stress = known.site.water_stress_factor
        simulated = build.scenario_told(known)
        answer = _from_ledger(asked, build.ledger_path(known), stress, simulated)
    if asked["by"] not in PRIVATE_GROUPINGS:
        return answer
    rows = sorted(answer["rows"], key=lambda row: (-int(row["energy_uj"]), row["group"]))
    return {**answer, "rows": rows}


def _from_ledger(
    asked: Mapping[str, str], path: Any, stress: float | None, simulated: str
) -> Mapping[str, Any]:
    from wattledger.ledger import open_reader_offline

    reader = open_reader_offline(path)
    try:
        query = totals_query(asked, 0, time.time_ns())
        return totals(query, reader.totals(*query), None, stress, simulated)
    except BadRequest as error:
        raise ConfigError([("report", str(error))]) from error
    finally:
        reader.close()


def print_report(answer: Mapping[str, Any], form: str, limit: int | None = None) -> None:
    """To standard output, as a table for people, JSON or CSV.

    Args:
        answer: of `read_totals`.
        form: `table`, `json` or `csv`.
        limit: the first so many rows only, the total being that of all; None: all of them, but
            of jobs and users a table shows `TABLE_ROWS`.
    """
    if limit is None and form == "table" and answer["by"] in PRIVATE_GROUPINGS:
        limit = TABLE_ROWS
    rows = answer["rows"][:limit]
    more = len(answer["rows"]) - len(rows)
    if form == "json":
        import json

        left_out = {"rows_left_out": more} if more else {}
        sys.stdout.write(json.dumps({**answer, "rows": rows, **left_out}, indent=2) + "\n")
    elif form == "csv":
        sys.stdout.write(report.to_csv(rows))
        if more:
            sys.stderr.write(f"wattledger: {more} more were left out by --limit\n")
        if said := simulated_note(answer.get("simulated")):
            sys.stderr.write(f"wattledger: {said}\n")
    else:
        _print_table(answer["by"], rows, answer["total"], answer, more)


def _print_table(
    by: str,
    rows: Sequence[Mapping[str, Any]],
    total: Mapping[str, Any],
    answer: Mapping[str, Any],
    more: int,
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(by if by != "all" else "", overflow="fold")
    is_settled = bool(float(total["settled_kwh"])) or bool(float(total["restated_kwh"]))
    titles = ["energy kWh", "CO2e g", "water on site L", "water grid L", "estimated"]
    more_titles = ["settled", "CO2e settled g"] if is_settled else []
    beside = [title for name, title in _BESIDE.items() if any(r.get(name) for r in (*rows, total))]
    for title in (*titles, *more_titles, *beside):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*_cells(row, is_settled=is_settled), *_beside(row, beside))
    if len(rows) != 1 or by != "all":
        table.add_section()
        cells = (*_cells(total, is_settled=is_settled), *_beside(total, beside))
        table.add_row(*cells, style="bold")
    # Into a pipe or a file the table is as wide as it is; a terminal folds long names.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(table)
    if said := simulated_note(answer.get("simulated")):  # an older daemon does not tell
        console.print(f"{said}.", style="bold", markup=False)
    if more:
        console.print(f"And {more:,} more, in the total; --limit N shows them.", style="dim")
    until = answer.get("books_complete_until") or answer.get("until")
    console.print(
        f"IT energy; CO2e and grid water include PUE. Complete up to {until}.", style="dim"
    )
    for note in _partly(total):
        console.print(note, style="dim", markup=False)
    if sure := answer.get("uncertainty"):
        console.print(f"How sure the total is: {in_words(sure)}.", style="dim")
    if is_settled:
        console.print(
            "Settled: the part whose price was published since; CO2e by those prices and by what "
            f"was restated ({float(total['restated_kwh']):,.6f} kWh of it); it counts "
            f"{total['basis_settled']}, what was booked {total['basis']}.",
            style="dim",
        )


def _cells(row: Mapping[str, Any], *, is_settled: bool) -> list[Any]:
    from rich.text import Text

    energy = float(row["energy_kwh"])
    share = float(row["estimated_kwh"]) / energy if energy else 0.0
    return [
        Text(printable(escaped(str(row["group"])))),
        f"{energy:,.6f}",
        f"{float(row['co2e_g']):,.3f}",
        f"{float(row['water_onsite_l']):,.4f}",
        f"{float(row['water_grid_l']):,.4f}",
        f"{share:.0%}" if share else "-",
        *(_settled(row, energy) if is_settled else []),
    ]


def _beside(row: Mapping[str, Any], titles: Sequence[str]) -> list[str]:
    shown = []
    for name, title in _BESIDE.items():
        if title in titles:
            value = row.get(name)
            shown.append(printable(value) if isinstance(value, str) else _grams(value))
    return [text or "-" for text in shown]


def _partly(total: Mapping[str, Any]) -> list[str]:
    """What was not known of all the energy."""
    energy_kwh, said = float(total["energy_kwh"]), []
    for name, kwh, what in (
        ("costs", "priced_kwh", "The cost"),
        ("market_co2e_g", "market_kwh", "The market-based CO2e"),
    ):
        if total.get(name) and energy_kwh and float(total[kwh]) < energy_kwh:
            share = percent(float(total[kwh]) / energy_kwh)
            said.append(f"{what} is of {share} of the energy: of the rest nothing was known.")
    return said


def _grams(value: float | None) -> str:
    return "" if value is None else f"{value:,.3f}"


def _settled(row: Mapping[str, Any], energy_kwh: float) -> list[str]:
    settled_kwh = float(row["settled_kwh"])
    share = percent(settled_kwh / energy_kwh) if settled_kwh else "-"
    return [share, f"{float(row['co2e_settled_g']):,.3f}"]
