"""`wattledger jobs --from` and `job --from`: over all nodes, for people and for programs."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

from wattledger.errors import WattledgerError
from wattledger.fleet.arguments import DEFAULT_SINCE
from wattledger.fleet.asking import read_job
from wattledger.job_reports import timeline
from wattledger.job_reports.asking import candidates
from wattledger.job_reports.line import NO_JOB, print_line
from wattledger.job_reports.receipt import LABELS, WIDTH, simulated_lines, title, wrapped
from wattledger.job_reports.tables import missing
from wattledger.printing import print_json, printable
from wattledger_exporters.receipts import receipt_lines
from wattledger_exporters.wording import duration, energy, escaped, percent

_NODES_SHOWN = 16
_GRIDS_SHOWN = 4
_UNKNOWN = (
    "cost, uncertainty, how it was measured, how much of it which grid source priced, and what "
    "was settled since"
)


def print_job(options: argparse.Namespace) -> None:
    """The receipt of a job over all nodes, to standard output.

    Raises:
        ConfigError: an option that cannot be.
        WattledgerError: there is no such job, or no whole answer.
    """
    answer, others = read_job(options, candidates(options.job_id, options.manager))
    if answer is None:
        since = options.since or DEFAULT_SINCE
        raise WattledgerError(
            f"{NO_JOB}{escaped(options.job_id)}' was scraped since {since}",
            "`wattledger jobs --from` lists them; --since names an earlier time, and the API keeps "
            "what its retention allows",
        )
    if options.format == "json":
        print_json(answer)
        return
    if options.format == "line":
        print_line(answer, options.nodes)
        return
    shown = [printable(line) for line in receipt(answer)]
    if others:
        names = ", ".join(f"{manager}/{escaped(job_id)}" for manager, job_id in others)
        shown.append(printable(f"  Also called that: {names}"))
    sys.stdout.write("\n".join(shown) + "\n")


def receipt(answer: Mapping[str, Any]) -> list[str]:
    """The lines; names in them are as they came.

    Args:
        answer: of `wattledger.fleet.job.job`.
    """
    totals = answer["totals"]
    lines = _head(answer)
    if totals["energy_kwh"] is not None:
        view = {**answer, **totals, "devices": []}
        lines += [part for row in receipt_lines(view) for part in wrapped(row)]
    line = timeline.line_of(answer["power"], answer["power_grain_s"])
    drawn = timeline.lines(line, answer["mean_watts"])
    labels = ("power", "", "")
    lines += [f"  {label:<9} {text}" for label, text in zip(labels, drawn, strict=False)]
    lines += _grid(answer)
    lines += _nodes(answer)
    for sentence in missing(answer):
        lines += _sentence(f"MISSING: {sentence}")
    job = f"{answer['manager']}/{escaped(answer['job_id'])}"
    text = f"Not in the metrics: {_UNKNOWN}; on each node `wattledger job {job}` tells them."
    return [*lines, *_sentence(text)]


def _head(answer: Mapping[str, Any]) -> list[str]:
    labels = answer["labels"]
    known = [f"{name} {labels[name]}" for name in LABELS if labels.get(name)]
    if answer["cluster"]:
        known.append(f"cluster {answer['cluster']}")
    count = len(answer["nodes"])
    known.append(f"{count} node{'s' if count != 1 else ''}")
    state = {
        "running": "running",
        "silent": "not seen to end",
        "ended": "ended",
    }[answer["state"]]
    if answer["start"]:
        state += f", seen from {answer['start']} to {answer['end'] or 'now'}"
    elif answer["end"]:
        state += f", seen until {answer['end']}"
    if answer["duration_s"]:
        state += f": {duration(answer['duration_s'])}"
    return [
        title(answer),
        *wrapped(f"  {', '.join(known)}", "  "),
        *wrapped(f"  {state}", "  "),
        *simulated_lines(answer),
    ]


def _nodes(answer: Mapping[str, Any]) -> list[str]:
    rows = answer["nodes"]
    names = [escaped(row["node"]) for row in rows[:_NODES_SHOWN]]
    width = min(40, max(map(len, names), default=0))
    lines = []
    for label, name, row in zip(("nodes", *[""] * len(rows)), names, rows, strict=False):
        kwh = row["totals"]["energy_kwh"]
        amount = energy(kwh["total"]) if kwh else "unknown"
        share = "" if row["share"] is None else f"  {percent(row['share']):>4}"
        lines.append(f"  {label:<9} {name:<{width}}  {amount:>11}{share}  {row['state']}")
    more = len(rows) - len(names)
    if more:
        lines.append(f"  {'':<9} and {more} more; --json tells them")
    return lines


def _grid(answer: Mapping[str, Any]) -> list[str]:
    """What the nodes priced energy with while it ran."""
    grids = answer["grid_shown"]
    if not grids:
        return []
    said = [
        f"{escaped(grid['source'])} {escaped(grid['zone'])} ({escaped(grid['basis'])}"
        f"{', an estimate' if grid['estimated'] else ''})"
        for grid in grids[:_GRIDS_SHOWN]
    ]
    more = f" and {len(grids) - len(said)} more" if len(grids) > len(said) else ""
    return wrapped(f"  {'priced by':<9} {', '.join(said)}{more}")


def _sentence(text: str) -> list[str]:
    return [
        f"  {line}" if not index else f"    {line}"
        for index, line in enumerate(
            textwrap.wrap(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False)
        )
    ]
