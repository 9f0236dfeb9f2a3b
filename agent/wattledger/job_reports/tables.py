"""`wattledger jobs` and `waste` for people, and for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from wattledger.printing import PIPE_COLUMNS, print_csv, print_json, printable
from wattledger_exporters.sums import idle_costs, money
from wattledger_exporters.wording import energy, escaped, percent, simulated_note

JOB_COLUMNS = (
    "manager",
    "job_id",
    "user",
    "account",
    "name",
    "state",
    "start",
    "end",
    "duration_s",
    "energy_kwh",
    "co2e_g",
    "water_l",
    "held_device_hours",
    "held_idle_device_hours",
    "held_idle_kwh",
    "energy_uj",
    "cost",
    "currency",
    "market_co2e_g",
    "embodied_co2e_g",
    "cluster",
)
WASTE_COLUMNS = (
    "group",
    "runs",
    "held_gpu_hours",
    "held_idle_gpu_hours",
    "idle_time_share",
    "held_kwh",
    "held_idle_kwh",
    "idle_energy_share",
    "held_idle_cost",
    "currency",
    "held_ms",
    "held_idle_ms",
    "held_uj",
    "held_idle_uj",
    "embodied_co2e_g",
)
_NAME_CHARS = 40
_SEEN = (
    "Start and duration are as scraped: a job may be older than its first scrape, and its energy "
    "is all that its nodes' ledgers counted."
)


def print_jobs(answer: Mapping[str, Any], form: str) -> None:
    """To standard output, as a table for people, JSON or CSV."""
    if form == "json":
        print_json(answer)
        return
    rows = [_flat(run) for run in answer["jobs"]]
    cursor = answer["next_cursor"]
    said = _said(answer)
    if form == "csv":
        print_csv(JOB_COLUMNS, rows)
        sys.stderr.writelines(f"wattledger: {text}\n" for text in said)
        if cursor:
            sys.stderr.write("wattledger: there are more; --all shows the rest\n")
        return
    own = answer["restricted_to_uid"]
    if not rows:
        whose = f" of uid {own}" if own is not None else ""
        sys.stdout.write("".join(f"{text}\n" for text in (f"No jobs{whose} found.", *said)))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("job", "user", "name", "state", "start", "duration"):
        table.add_column(title, overflow="fold")
    priced = any(row["money"] for row in rows)
    for title in ("energy kWh", "CO2e g", "water L", "held idle h", *(["cost"] if priced else [])):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            Text(_job_name(row)),
            Text(printable(row["user"])),
            Text(printable(row["name"])[:_NAME_CHARS]),
            row["state"],
            str(row["start"] or ""),
            _clock(row["duration_s"]),
            _number(row["energy_kwh"], 6),
            _number(row["co2e_g"], 3),
            _number(row["water_l"], 4),
            _number(row["held_idle_device_hours"], 2),
            *([row["money"] or "-"] if priced else []),
        )
    notes = []
    if own is not None:
        notes.append(f"Jobs of uid {own} only.")
    if cursor:
        notes.append("There are more; --all shows the rest.")
    if "from" in answer:
        notes.append(_SEEN)
    _print(table, [*notes, *said])


def _flat(run: Mapping[str, Any]) -> dict[str, Any]:
    totals, labels = run["totals"], run["labels"]
    held = ("held_device_hours", "held_idle_device_hours", "held_idle_kwh")
    return {
        **{name: run[name] for name in ("manager", "job_id", "state", "start", "end")},
        "user": labels.get("user") or ("" if run["uid"] is None else f"uid {run['uid']}"),
        "account": labels.get("account", ""),
        "name": labels.get("name") or labels.get("unit") or labels.get("pod") or "",
        "duration_s": run["duration_s"],
        "energy_kwh": _whole(totals["energy_kwh"]),
        "co2e_g": totals["co2e_g"],
        "water_l": _whole(totals["water_l"]),
        **{name: totals[name] for name in held},
        "energy_uj": totals["exact"]["energy_uj"],
        **_flat_cost(run.get("costs", [])),
        "market_co2e_g": run.get("market_co2e_g"),
        "embodied_co2e_g": run.get("embodied_co2e_g"),
        "cluster": run.get("cluster"),
    }


def _job_name(row: Mapping[str, Any]) -> str:
    cluster = f"{row['cluster']} " if row["cluster"] else ""
    return printable(f"{cluster}{row['manager']}/{escaped(row['job_id'])}")


def _flat_cost(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One currency as a number; several are never added, so that they are told in words."""
    if len(costs) == 1:
        amount, currency = costs[0]["amount"], printable(costs[0]["currency"])
    else:
        amount, currency = None, money(costs)
    return {"cost": amount, "currency": currency, "money": money(costs)}


def print_waste(answer: Mapping[str, Any], form: str) -> None:
    """To standard output, as a table for people, JSON or CSV."""
    if form == "json":
        print_json(answer)
        return
    if form == "csv":
        print_csv(WASTE_COLUMNS, (_flat_waste(row) for row in answer["rows"]))
        sys.stderr.writelines(f"wattledger: {text}\n" for text in _said(answer))
        return
    total, idle, own = answer["total"], answer["idle"], answer["restricted_to_uid"]
    priced = any(idle_costs(row) for row in (*answer["rows"], total))
    span = f"{answer['since']} to {answer['until']}"
    unheld = "What GPUs used that nobody held is not known"
    if idle is not None:
        unheld = f"GPUs that nobody held used {energy(idle['energy_kwh'])}"
        unheld_costs = idle.get("costs", [idle["cost"]] if idle["cost"] else [])
        if unheld_costs:
            unheld += f" ({money(unheld_costs)})"
    if not answer["rows"]:
        who = "Nobody held a GPU" if own is None else f"Uid {own} held no GPU"
        sys.stdout.write("\n".join((f"{who} from {span}. {unheld}.", *_said(answer), "")))
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(answer["by"], overflow="fold")
    titles = ["GPU-h held", "idle GPU-h", "of time", "idle kWh", "of energy"]
    for title in (*titles, *(["idle cost"] if priced else [])):
        table.add_column(title, justify="right")
    for row in answer["rows"]:
        table.add_row(*_cells(row, row["group"], priced=priced))
    table.add_section()
    table.add_row(*_cells(total, "all", priced=priced), style="bold")
    notes = [
        f"From {span}; energy of the GPUs, money with PUE.",
        f"{unheld}; in no line above.",
    ]
    if own is not None:
        notes.append(f"GPUs that uid {own} held only.")
    _print(table, [*notes, *_said(answer)])


def _cells(row: Mapping[str, Any], group: str, *, priced: bool) -> list[Any]:
    from rich.text import Text

    return [
        Text(printable(group)),
        _number(row["held_gpu_hours"], 2),
        _number(row["held_idle_gpu_hours"], 2),
        _share(row["idle_time_share"]),
        _number(row["held_idle_kwh"], 3),
        _share(row["idle_energy_share"]),
        *([_money(idle_costs(row))] if priced else []),
    ]


def _money(costs: Sequence[Mapping[str, Any]]) -> str:
    shown = (f"{cost['amount']:,.2f} {printable(cost['currency'])}" for cost in costs)
    return " + ".join(shown) or "-"


def _share(share: float | None) -> str:
    return "-" if share is None else percent(share)


def _flat_waste(row: Mapping[str, Any]) -> dict[str, Any]:
    cost = _flat_cost(idle_costs(row))
    flat = {**row, **row["exact"], "currency": cost["currency"]}
    return {**flat, "held_idle_cost": "" if cost["cost"] is None else cost["cost"]}


def _print(table: Any, notes: list[str]) -> None:
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    console.print(table)
    for note in notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)


def missing(answer: Mapping[str, Any]) -> list[str]:
    """What an answer over all nodes says to be missing of it; nothing of one node's."""
    partial = (f"the API answered in part: {text}" for text in answer.get("warnings", ()))
    return [printable(text) for text in (*answer.get("missing", ()), *partial)]


def _said(answer: Mapping[str, Any]) -> list[str]:
    """The same, and that it is simulated, where it is; an older daemon does not tell."""
    said = simulated_note(answer.get("simulated"))
    return [*([f"{said}."] if said else []), *missing(answer)]


def _whole(parts: Mapping[str, float] | None) -> float | None:
    return None if parts is None else parts["total"]


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:,.{decimals}f}"


def _clock(duration_s: float | None) -> str:
    if duration_s is None:
        return "-"
    hours, rest_s = divmod(int(duration_s), 3600)
    return f"{hours}:{rest_s // 60:02}:{rest_s % 60:02}"
