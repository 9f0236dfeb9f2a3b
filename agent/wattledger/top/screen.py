"""`wattledger top` on a terminal, drawn anew with each commit of the daemon."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from wattledger.errors import DaemonUnreachable, WattledgerError
from wattledger.printing import PIPE_COLUMNS, print_json, printable
from wattledger.remote import Remote
from wattledger.top.view import KINDS, View, view
from wattledger_exporters.wording import co2e, duration, energy, escaped, number, percent

LOOK_S = 1.0  # a commit shows at most so late; the jobs are asked for only after one
MOST_JOBS = 1000  # that are ordered by their power
_LINES_AROUND = 9  # head, titles and notes
_NAME_CHARS = 24


def show(remote: Remote, *, once: bool = False, as_json: bool = False) -> None:
    """Show it until interrupted, or once: into a pipe, or where that is asked for.

    Raises:
        DaemonUnreachable: no daemon runs.
        WattledgerError: it refuses.
    """
    if as_json:
        print_json(_view_now(remote))
        return
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(highlight=False, width=None if terminal else PIPE_COLUMNS)
    if once or not terminal:
        console.print(drawn(_view_now(remote), None))
        return
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        _watch(remote, console)


def _view_now(remote: Remote) -> View:
    seen = first_look(remote)
    return view(seen.status, seen.jobs)


class Seen(NamedTuple):
    """What the daemon last answered, and what is wrong since."""

    status: View
    jobs: View
    trouble: str = ""


def first_look(remote: Remote) -> Seen:
    """Ask for everything.

    Raises:
        WattledgerError: there is no answer.
    """
    return Seen(remote.request("/api/v1/status"), _ask_jobs(remote))


def look_again(remote: Remote, seen: Seen) -> Seen:
    """Ask for what is new since; `seen` itself where nothing is."""
    try:
        status = remote.request("/api/v1/status")
        if _commit_of(status) == _commit_of(seen.status) and not seen.trouble:
            return seen
        return Seen(status, _ask_jobs(remote))
    except DaemonUnreachable as error:
        trouble = f"the daemon does not answer, this is the last known: {error.message}"
    except WattledgerError as error:  # it starts, or has too much to do
        trouble = error.message
    return seen if trouble == seen.trouble else seen._replace(trouble=trouble)


def _ask_jobs(remote: Remote) -> View:
    asked = {"state": "running", "sort": "energy", "limit": str(MOST_JOBS)}
    answer: View = remote.request("/api/v1/jobs", asked)
    return answer


def _watch(remote: Remote, console: Any) -> None:
    from rich.live import Live

    seen = first_look(remote)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            drawn_, size = seen, console.size
            shown = drawn(view(seen.status, seen.jobs), size.height, seen.trouble)
            live.update(shown, refresh=True)
            while seen is drawn_ and console.size == size:
                time.sleep(LOOK_S)
                seen = look_again(remote, seen)


def _commit_of(status: View) -> tuple[str, int]:
    return status["ledger"]["epoch"], status["ledger"]["commits"]


def drawn(shown: View, lines: int | None, trouble: str = "") -> Any:
    """As something that rich can print.

    Args:
        shown: of `view`.
        lines: how many there is room for; None: any number.
        trouble: what is wrong at present.
    """
    from rich.console import Group
    from rich.text import Text

    devices, jobs = shown["devices"], shown["jobs"]
    most_devices = most_jobs = None
    if lines is not None:
        room = max(4, lines - _LINES_AROUND)
        most_devices = max(2, min(len(devices), room - min(len(jobs), room // 2)))
        most_jobs = max(1, room - most_devices)
    parts: list[Any] = [Text(line) for line in _head(shown)]
    if trouble:
        parts.append(Text(printable(trouble), style="red"))
    parts += [Text(), _devices(devices[:most_devices])]
    if most_devices is not None and len(devices) > most_devices:
        parts.append(Text(f"and {len(devices) - most_devices} more devices", style="dim"))
    parts.append(Text())
    if jobs:
        parts.append(_jobs(jobs[:most_jobs]))
    parts += [Text(line, style="dim") for line in _notes(shown, most_jobs)]
    return Group(*parts)


def _head(shown: View) -> list[str]:
    power_w = shown["power_w"]
    kinds = [f"{kind} {number(power_w[kind])}" for kind in KINDS if kind in power_w]
    drawn = "not known" if power_w["total"] is None else f"{number(power_w['total'])} W"
    made = f"SIMULATED ({shown['simulated']}), " if shown["simulated"] else ""
    if shown["released_until"]:
        made += f"GPUs released until {shown['released_until']}, "
    lines = [
        f"wattledger top   {made}books complete up to {shown['books_complete_until'] or 'never'}",
        f"power  {drawn}   {', '.join(kinds)}".rstrip(),
    ]
    if shown["co2e_g_per_h"] is not None:
        grid = shown["grid"]
        source = f"{grid['source']} {grid['zone']} ({grid['basis']}), PUE {shown['pue']:g}"
        intensity = number(grid["intensity_g_per_kwh"])
        lines.append(f"CO2e   {co2e(shown['co2e_g_per_h'])}/h   {intensity} g/kWh, {source}")
    return [printable(line) for line in lines]


def _table(*columns: tuple[str, bool]) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title, is_figure in columns:
        table.add_column(
            title, justify="right" if is_figure else "left", no_wrap=True, overflow="ellipsis"
        )
    return table


def _row(table: Any, *cells: str) -> None:
    from rich.text import Text

    table.add_row(*(Text(printable(cell)) for cell in cells))


def _devices(devices: Sequence[View]) -> Any:
    table = _table(("device", False), ("#", True), ("W", True), ("how", False), ("held by", False))
    for device in devices:
        _row(
            table,
            device["device"],
            device["index"] or "",
            "-" if device["power_w"] is None else f"{device['power_w']:,.1f}",
            device["quality"] or "-",
            ", ".join(map(_holder, device["held_by"])),
        )
    return table


def _holder(holder: View) -> str:
    if holder["share"] >= 1:
        return str(holder["job"])
    about = "" if holder["exact"] else "about "
    return f"{holder['job']} {about}{percent(holder['share'])}"


def _jobs(jobs: Sequence[View]) -> Any:
    figures = ("W", "energy", "CO2e", "held idle", "idle time", "GPUs")
    texts = ("job", "user", "name", "runs for")
    table = _table(*((title, False) for title in texts), *((title, True) for title in figures))
    for job in jobs:
        share = job["held_idle_share"]
        _row(
            table,
            f"{job['manager']}/{escaped(job['job_id'])}",
            job["user"],
            job["name"][:_NAME_CHARS],
            duration(job["duration_s"]),
            "-" if job["power_w"] is None else f"{job['power_w']:,.1f}",
            energy(job["energy_kwh"]),
            co2e(job["co2e_g"]),
            "-" if share is None else energy(job["held_idle_kwh"]),
            "-" if share is None else percent(share),
            str(len(job["devices"])) if job["devices"] else "-",
        )
    return table


def _notes(shown: View, most_jobs: int | None) -> list[str]:
    own, jobs = shown["restricted_to_uid"], shown["jobs"]
    notes = []
    if not jobs:
        notes.append("No job runs." if own is None else f"No job of uid {own} runs.")
    elif most_jobs is not None and len(jobs) > most_jobs:
        more = f"{len(jobs) - most_jobs:,} more" + (" and others" if shown["more_jobs"] else "")
        notes.append(f"and {more}; `wattledger jobs --state running` lists them")
    elif shown["more_jobs"]:
        notes.append(f"Of all jobs those {MOST_JOBS:,} that used most; there are more.")
    if own is not None and jobs:
        notes.append(f"Jobs of uid {own} only.")
    return notes
