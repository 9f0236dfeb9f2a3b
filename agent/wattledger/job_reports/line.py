"""A job's receipt as one line: for the end of a job's output, or Slurm's AdminComment."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from wattledger.fleet.targets import host_of
from wattledger_exporters.wording import co2e, energy, escaped, number, percent, printable, water

MISSING = "; missing: "
"""What stands before the names of nodes without figures; deploy/slurm looks for it."""
CUT_SHORT = "; cut short: "
"""What stands before those that fell silent before the job's end; likewise."""
IN_PART = "; in part: "
"""What stands before what else is not whole: what the API said to lack, or a ledger not told apart;
likewise."""
NO_JOB = "no job '"
"""What the error begins with where there is none over all nodes; likewise."""
_NAMES_SHOWN = 20
_REASON_CHARS = 120


def receipt_line(
    answer: Mapping[str, Any], expected: Sequence[str] = (), here: str = "", count: int = 0
) -> str:
    """What a job has cost, in a line of printable characters that begins with `wattledger: `.

    Args:
        answer: of `/api/v1/jobs/{manager}/{job_id}`, of one node or, with `nodes`, of many.
        expected: the nodes that it ran on, by name.
        here: the node that answered, where it is one.
        count: how many nodes it ran on, where their names are not known; 0: not known either.
    """
    totals = answer["totals"]
    kwh, grams, liters = totals["energy_kwh"], totals["co2e_g"], totals["water_l"]
    told = [
        *([f"SIMULATED ({answer['simulated']})"] if answer.get("simulated") else []),
        "energy unknown" if kwh is None else energy(kwh["total"]),
        *([] if kwh is None or not kwh["gpu"] else [f"GPUs {energy(kwh['gpu'])}"]),
        "CO2e unknown" if grams is None else f"{co2e(grams)} CO2e",
        "water unknown" if liters is None else f"{water(liters['total'])} of water",
        *_held(totals),
    ]
    head = f"wattledger: {answer['manager']}/{escaped(answer['job_id'])}"
    so_far = "" if answer["state"] == "ended" else " so far"
    lacking = lacking_nodes(answer, expected, here)
    there, count = len(answer.get("nodes", (here,))), count if count > 1 else 0
    if expected:
        count = len(dict.fromkeys(expected))
        there = count - len(lacking)
    nodes = f" on {min(there, count)} of {count} nodes" if count else ""
    silent = [row["node"] for row in answer.get("nodes", ()) if row["state"] == "silent"]
    line = f"{head}{nodes}{so_far}: {', '.join(told)}"
    return printable(
        line
        + _named(MISSING, lacking)
        + _named(CUT_SHORT, [host_of(node) for node in silent])
        + _in_part(answer, (*lacking, *silent))
    )


def print_line(answer: Mapping[str, Any], nodes: str, env: Mapping[str, str] = os.environ) -> None:
    """To standard output.

    Args:
        answer: as of `receipt_line`.
        nodes: names of the nodes that the job ran on, separated by commas.
        env: Slurm's inside the job itself, where it tells how many nodes there are.
    """
    expected = [name.strip() for name in nodes.split(",") if name.strip()]
    here = env.get("SLURMD_NODENAME") or platform.node()
    own = ("slurm", env.get("SLURM_JOB_ID")) == (answer["manager"], answer["job_id"])
    told = env.get("SLURM_JOB_NUM_NODES", "") if own else ""
    count = int(told) if told.isdecimal() and len(told) < 7 else 0
    sys.stdout.write(receipt_line(answer, expected, here, count) + "\n")


def lacking_nodes(
    answer: Mapping[str, Any], expected: Sequence[str], here: str = ""
) -> tuple[str, ...]:
    """Those of the expected nodes of which no figures are in an answer.

    Names are compared without domain and port, since Slurm and Prometheus call nodes by either.

    Args:
        answer: as of `receipt_line`.
        expected: names of nodes.
        here: the node that answered, where it is one.
    """
    rows = answer.get("nodes")
    known = {host_of(here)} if rows is None else {host_of(row["node"]) for row in rows}
    return tuple(name for name in dict.fromkeys(expected) if host_of(name) not in known)


def _named(head: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"{head}{', '.join(names[:_NAMES_SHOWN])}{more}"


def _in_part(answer: Mapping[str, Any], named: Sequence[str]) -> str:
    """The first reason why figures over many nodes are not whole, beside nodes that are named."""
    silent = tuple(f"{node}: nothing " for node in named)
    reasons = [
        *(["the API answered in part"] if answer.get("partial") else []),
        *(text for text in answer.get("missing", ()) if not text.startswith(silent)),
    ]
    if not reasons:
        return ""
    first, more = reasons[0], len(reasons) - 1
    shown = first if len(first) <= _REASON_CHARS else f"{first[:_REASON_CHARS]}…"
    return f"{IN_PART}{shown}{f', and {more} more' if more else ''}"


def _held(totals: Mapping[str, Any]) -> list[str]:
    held_h, idle_h = totals["held_device_hours"], totals["held_idle_device_hours"]
    if not held_h:
        return []
    idle = "" if idle_h is None else f", {percent(idle_h / held_h)} of it idle"
    return [f"{number(held_h)} GPU h held{idle}"]
