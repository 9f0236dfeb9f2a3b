"""`wattledger job`: one job's receipt, readable in 80 columns."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from wattledger.job_reports import timeline
from wattledger.printing import print_json, printable
from wattledger_exporters.receipts import receipt_lines
from wattledger_exporters.sums import idle_costs, money
from wattledger_exporters.wording import duration, energy, escaped, simulated_note

WIDTH = 80
_INDENT = " " * 12
LABELS = ("user", "account", "partition", "namespace", "pod", "container", "unit")
_RUNS_SHOWN = 10


def print_job(found: tuple[Mapping[str, Any], list[str]], form: str) -> None:
    """To standard output.

    Args:
        found: of `asking.read_job`.
        form: `table` or `json`.
    """
    answer, others = found
    if form == "json":
        print_json(answer)
        return
    shown = [printable(line) for line in receipt(answer)]
    if others:
        shown.append(printable(f"  Also called that: {', '.join(others)}"))
    sys.stdout.write("\n".join(shown) + "\n")


def receipt(answer: Mapping[str, Any]) -> list[str]:
    """The lines; names in them are as they came, with nothing taken out.

    Args:
        answer: of `/api/v1/jobs/{manager}/{job_id}`.
    """
    held = {device["device"]: device for run in answer["runs"] for device in run["devices"]}
    view = {**answer, **answer["totals"], "devices": [held[name] for name in sorted(held)]}
    body = receipt_lines(view)
    if answer["totals"]["held_idle_device_hours"] and (costs := idle_costs(answer)):
        body = [_with_money(line, money(costs)) for line in body]
    line = timeline.power_line(answer["timeline"], answer["timeline_grain_s"], _spans(answer))
    drawn = timeline.lines(line, answer["mean_watts"])
    labels = ("power", "", "")
    return [
        *_head(answer),
        *(part for row in body for part in wrapped(row)),
        *(f"  {label:<9} {text}" for label, text in zip(labels, drawn, strict=False)),
        *(part for sentence in answer["advice"] for part in wrapped(f"  {sentence}", "  ")),
        *_runs(answer),
    ]


def title(answer: Mapping[str, Any]) -> str:
    """The job, its name and its array, on one line."""
    labels = answer["labels"]
    said = f"{answer['manager']}/{escaped(answer['job_id'])}  {labels.get('name', '')}".rstrip()
    if labels.get("array_job_id"):
        said += f"  (array {labels['array_job_id']}_{labels.get('array_task_id', '?')})"
    return said[: WIDTH - 1]


def _head(answer: Mapping[str, Any]) -> list[str]:
    labels = answer["labels"]
    known = [f"{name} {labels[name]}" for name in LABELS if labels.get(name)]
    if not labels.get("user"):
        owner = "of nobody known" if answer["uid"] is None else f"uid {answer['uid']}"
        known.insert(0, owner)
    state = "running" if answer["state"] == "running" else "ended"
    until = answer["end"] or "now"
    times = f"{state}, from {answer['start']} to {until}: {duration(answer['duration_s'])}"
    if (unmeasured_s := answer.get("unmeasured_s", 0.0)) >= 1:  # an older daemon does not tell
        times += f"; not measured, since the ledger is younger: {duration(unmeasured_s)}"
    return [
        title(answer),
        *wrapped(f"  {', '.join(known)}", "  "),
        *wrapped(f"  {times}", "  "),
        *simulated_lines(answer),
    ]


def simulated_lines(answer: Mapping[str, Any]) -> list[str]:
    """That no GPU used any of it, where that is so; an older daemon does not tell."""
    said = simulated_note(answer.get("simulated"))
    return wrapped(f"  {said}", "  ") if said else []


def _runs(answer: Mapping[str, Any]) -> list[str]:
    if answer["run_count"] < 2:
        return []
    runs = answer["runs"][:_RUNS_SHOWN]
    more = answer["run_count"] - len(runs)
    return [
        f"  {answer['run_count']} runs, the newest first:",
        *(
            f"    {run['start']}  {duration(run['duration_s']):>16}  {run['state']:<7}  "
            f"{energy(run['totals']['energy_kwh']['total'])}"
            for run in runs
        ),
        *([f"    and {more} more"] if more else []),
    ]


def _with_money(line: str, cost: str) -> str:
    if not line.startswith("  held idle "):
        return line
    return f"{line}, {cost}"


def _spans(answer: Mapping[str, Any]) -> list[tuple[float, float]]:
    """When it ran; what is older than the runs that are told counts as one."""
    begins_s = [datetime.fromisoformat(run["start"]).timestamp() for run in answer["runs"]]
    spans = [
        (begin_s, begin_s + float(run["duration_s"]))
        for begin_s, run in zip(begins_s, answer["runs"], strict=True)
    ]
    if answer["run_count"] > len(spans):
        spans.append((datetime.fromisoformat(answer["start"]).timestamp(), min(begins_s)))
    return spans


def wrapped(line: str, indent: str = _INDENT) -> list[str]:
    """A line as lines of 80 columns, the later ones indented."""
    return textwrap.wrap(
        line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
