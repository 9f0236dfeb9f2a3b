"""`wattledger jobs` and `wattledger job`: from the running daemon, or from its ledger."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from wattledger import build
from wattledger.config import Config
from wattledger.errors import ConfigError, DaemonUnreachable, WattledgerError
from wattledger.model.jobs import MANAGERS
from wattledger.remote import Refused, Remote
from wattledger_exporters.http import jobs_api
from wattledger_exporters.http.query import BadRequest

FILTERS = ("manager", "user", "state", "since", "until", "sort", "limit", "cursor")


def read_jobs(
    options: argparse.Namespace, config: Callable[[], Config], remote: Remote
) -> Mapping[str, Any]:
    """What `/api/v1/jobs` answers to these options, asked of the daemon or worked out here.

    Raises:
        ConfigError: an option that cannot be.
        LedgerError: no daemon runs, and its ledger cannot be read either.
    """
    asked = {name: str(given) for name in FILTERS if (given := getattr(options, name, None))}
    try:
        answer: Mapping[str, Any] = remote.request("/api/v1/jobs", asked)
    except DaemonUnreachable:
        from wattledger.ledger import open_reader_offline

        reader = open_reader_offline(build.ledger_path(config()))
        try:
            query = jobs_api.jobs_query(asked, time.time_ns(), None)
            return jobs_api.jobs(query, reader.jobs(query))
        except BadRequest as error:
            raise ConfigError([("jobs", str(error))]) from error
        finally:
            reader.close()
    return answer


def read_job(
    options: argparse.Namespace, config: Callable[[], Config], remote: Remote
) -> Mapping[str, Any]:
    """What `/api/v1/jobs/{manager}/{job_id}` answers.

    Raises:
        ConfigError: no job can be called that.
        WattledgerError: there is no such job, or it is not the caller's to see.
    """
    candidates = _candidates(options.job_id, options.manager)
    try:
        for manager, job_id in candidates:
            try:
                path = f"/api/v1/jobs/{manager}/{quote(job_id, safe='')}"
                answer: Mapping[str, Any] = remote.request(path)
            except Refused as error:
                if error.status != 404:
                    raise
            else:
                return answer
    except DaemonUnreachable:
        return _job_from_ledger(candidates, build.ledger_path(config()))
    raise _nothing(options.job_id)


def _candidates(given: str, manager: str) -> list[tuple[str, str]]:
    """The jobs that may be meant: `4711`, `slurm/4711`, or with --manager."""
    head, slash, rest = given.partition("/")
    if not manager and slash and head in MANAGERS:
        manager, given = head, rest
    try:
        return [jobs_api.job_of_path(m, given) for m in ([manager] if manager else MANAGERS)]
    except BadRequest as error:
        raise ConfigError([("job", str(error))]) from error


def _job_from_ledger(candidates: Sequence[tuple[str, str]], path: Any) -> Mapping[str, Any]:
    from wattledger.ledger import open_reader_offline

    reader = open_reader_offline(path)
    try:
        for manager, job_id in candidates:
            detail = reader.job(manager, job_id)
            if detail is not None:
                return jobs_api.job(manager, job_id, detail, None)
    finally:
        reader.close()
    raise _nothing(candidates[0][1])


def _nothing(job_id: str) -> WattledgerError:
    return WattledgerError(
        f"there is no job {job_id!r} that you may see",
        "`wattledger jobs` lists them; another manager's is named as in pod/ID",
    )


# ── printing ────────────────────────────────────────────────────────────────────────────────────

COLUMNS = (
    "manager",
    "job_id",
    "user",
    "name",
    "state",
    "start",
    "end",
    "duration_s",
    "energy_kwh",
    "co2e_g",
    "water_l",
    "held_idle_device_hours",
    "energy_uj",
)


def _flat(run: Mapping[str, Any]) -> dict[str, Any]:
    totals, labels = run["totals"], run["labels"]
    return {
        **{name: run[name] for name in ("manager", "job_id", "state", "start", "end")},
        "user": labels.get("user") or ("" if run["uid"] is None else f"uid {run['uid']}"),
        "name": labels.get("name") or labels.get("unit") or labels.get("pod") or "",
        "duration_s": run["duration_s"],
        "energy_kwh": totals["energy_kwh"]["total"],
        "co2e_g": totals["co2e_g"],
        "water_l": totals["water_l"]["total"],
        "held_idle_device_hours": totals["held_idle_device_hours"],
        "energy_uj": totals["exact"]["energy_uj"],
    }


def print_jobs(answer: Mapping[str, Any], form: str) -> None:
    """To standard output, as a table for people, JSON or CSV."""
    if form == "json":
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    rows = [_flat(run) for run in answer["jobs"]]
    if form == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS)
        writer.writeheader()
        for row in rows:  # names come from outside: none may be a spreadsheet's formula
            writer.writerow({k: _no_formula(v) for k, v in row.items()})
        sys.stdout.write(out.getvalue())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("job", "user", "name", "state", "start", "duration"):
        table.add_column(title, overflow="fold")
    for title in ("energy kWh", "CO2e g", "water L", "held idle h"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            Text(_plain(f"{row['manager']}/{row['job_id']}")),
            Text(_plain(row["user"])),
            Text(_plain(row["name"])[:40]),
            row["state"],
            str(row["start"] or ""),
            _duration(row["duration_s"]),
            f"{row['energy_kwh']:,.6f}",
            f"{row['co2e_g']:,.3f}",
            f"{row['water_l']:,.4f}",
            f"{row['held_idle_device_hours']:,.2f}",
        )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    console.print(table)
    if answer["restricted_to_uid"] is not None:
        console.print(f"Jobs of uid {answer['restricted_to_uid']} only.", style="dim")
    if answer["next_cursor"]:
        console.print(f"There are more: --cursor {answer['next_cursor']}", style="dim")


def print_job(answer: Mapping[str, Any], form: str) -> None:
    """One job's receipt."""
    if form == "json":
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 180)
    for line in _receipt(answer):
        console.print(line, soft_wrap=True)


def _receipt(answer: Mapping[str, Any]) -> list[str]:
    totals, labels = answer["totals"], answer["labels"]
    energy, water = totals["energy_kwh"], totals["water_l"]
    kinds = ", ".join(f"{kind} {energy[kind]:.6f}" for kind in energy if kind != "total")
    bases = ", ".join(totals["co2e_g_by_basis"]) or "-"
    estimated = f"{answer['estimated_share']:.0%}"
    origins = f"on site {water['onsite']:.4f}, grid {water['grid']:.4f}"
    lines = [
        _plain(f"{answer['manager']}/{answer['job_id']}  {labels.get('name', '')}").rstrip(),
        *(f"  {name}: {_plain(text)}" for name, text in sorted(labels.items()) if name != "name"),
        f"  {answer['state']}, from {answer['start']} to {answer['end'] or 'now'}",
        f"  energy   {energy['total']:.6f} kWh ({kinds}; {estimated} estimated)",
        f"  CO2e     {totals['co2e_g']:.3f} g ({bases}; with PUE)",
        f"  water    {water['total']:.4f} L ({origins})",
    ]
    if float(totals["held_device_hours"]):
        lines.append(
            f"  GPUs     held {totals['held_device_hours']:.2f} h, idle "
            f"{totals['held_idle_device_hours']:.2f} h ({totals['held_idle_kwh']:.6f} kWh)"
        )
    runs = answer["runs"]
    held = sorted({device["device"] for run in runs for device in run["devices"]})
    if held:
        lines.append(f"  devices  {', '.join(_plain(device) for device in held)}")
    lines += [f"  {sentence}" for sentence in answer["advice"]]
    if answer["run_count"] > 1:
        lines.append(f"  {answer['run_count']} runs:")
        lines += [
            f"    {run['start']}  {_duration(run['duration_s'])}  {run['state']}  "
            f"{run['totals']['energy_kwh']['total']:.6f} kWh"
            for run in runs
        ]
    return lines


def _duration(duration_s: float) -> str:
    hours, rest = divmod(int(duration_s), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"


def _plain(text: str) -> str:
    """Nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value
