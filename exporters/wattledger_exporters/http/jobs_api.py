"""The bodies of `/api/v1/jobs`: runs and jobs as plain data. Pure: no clock, no socket."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from wattledger import units
from wattledger.model import Kind
from wattledger.model.jobbooks import Cell, JobDetail, JobQuery, JobRow, RunBook
from wattledger.model.jobs import MANAGERS
from wattledger.units import NS_PER_S
from wattledger_exporters.amounts import amounts
from wattledger_exporters.http.query import BadRequest, instant_ns, whole_number
from wattledger_exporters.when import iso

PARAMETERS = ("manager", "user", "state", "since", "until", "sort", "limit", "cursor")
STATES = ("all", "running", "ended")
SORTS = ("start", "energy")
MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
_ID_CHARS = 256


def jobs_query(given: Mapping[str, str], now_ns: int, uid: int | None) -> JobQuery:
    """Check the parameters.

    Args:
        given: as they were given.
        now_ns: wall clock.
        uid: whose runs may be seen; None: all.

    Raises:
        BadRequest: with a sentence.
    """
    _one_of("manager", given.get("manager", ""), ("", *MANAGERS))
    state = _one_of("state", given.get("state", "all"), STATES)
    limit = whole_number("limit", given.get("limit", str(DEFAULT_LIMIT)), MAX_LIMIT)
    if not limit:
        raise BadRequest("limit=0 asks for nothing.")
    return JobQuery(
        manager=given.get("manager", ""),
        user=given.get("user", ""),
        uid=uid,
        state="" if state == "all" else state,
        since_ns=instant_ns("since", given["since"], now_ns) if "since" in given else 0,
        until_ns=instant_ns("until", given["until"], now_ns) if "until" in given else 2**62,
        sort=_one_of("sort", given.get("sort", "start"), SORTS),
        limit=limit,
        after=_cursor(given["cursor"]) if "cursor" in given else None,
    )


def _one_of(name: str, value: str, options: tuple[str, ...]) -> str:
    if value not in options:
        known = ", ".join(option for option in options if option)
        raise BadRequest(f"{name}={value[:64]!r} is not one of: {known}.")
    return value


def _cursor(text: str) -> tuple[int, int]:
    try:
        value, number = base64.urlsafe_b64decode(text[:128].encode()).decode("ascii").split(".")
        found = int(value), int(number)
    except (ValueError, binascii.Error):
        found = (-1, -1)
    if not all(0 <= part < 2**63 for part in found):
        raise BadRequest("The cursor is not one that this server gave.")
    return found


def _cursor_of(row: JobRow) -> str:
    return base64.urlsafe_b64encode("{}.{}".format(*row.position).encode()).decode()


def job_of_path(manager: str, job_id: str) -> tuple[str, str]:
    """The job that a path names.

    Raises:
        BadRequest: no job can be called that.
    """
    _one_of("manager", manager, MANAGERS)
    if not 0 < len(job_id) <= _ID_CHARS or not job_id.isprintable():
        raise BadRequest("That is no job id.")
    return manager, job_id


def jobs(asked: JobQuery, rows: list[JobRow]) -> dict[str, Any]:
    """The answer of `/api/v1/jobs`."""
    more = len(rows) == asked.limit
    return {
        "jobs": [run(row.book) for row in rows],
        "next_cursor": _cursor_of(rows[-1]) if more else None,
        "restricted_to_uid": asked.uid,
    }


def job(manager: str, job_id: str, detail: JobDetail, uid: int | None) -> dict[str, Any]:
    """The answer of `/api/v1/jobs/{manager}/{job_id}`."""
    newest = detail.runs[0].run
    begun_ns = detail.runs[-1].run.payee.start_ns
    running = any(not book.run.end_ns for book in detail.runs)
    totals = amounts(detail.total)
    energy = sum(cell.amounts.energy_uj for cell in detail.total.values())
    return {
        "manager": manager,
        "job_id": job_id,
        "state": "running" if running else "ended",
        "uid": newest.uid,
        "labels": dict(newest.labels),
        "start": iso(begun_ns),
        "end": None if running else iso(max(book.run.end_ns for book in detail.runs)),
        "totals": totals,
        "estimated_share": detail.estimated_uj / energy if energy else 0.0,
        "advice": advice(detail),
        "runs": [run(book) for book in detail.runs],
        "run_count": detail.run_count,
        "timeline_grain_s": detail.grain_s,
        "timeline": [
            {
                "start": iso(moment.start_s * NS_PER_S),
                "kind": moment.kind,
                "energy_kwh": units.kwh(moment.energy_uj),
                "energy_uj": str(moment.energy_uj),
            }
            for moment in detail.moments
        ],
        "restricted_to_uid": uid,
    }


def run(book: RunBook) -> dict[str, Any]:
    """One run of a job."""
    known = book.run
    end_ns = known.end_ns or known.last_seen_ns
    return {
        "manager": known.payee.manager,
        "job_id": known.payee.job_id,
        "state": "ended" if known.end_ns else "running",
        "start": iso(known.payee.start_ns),
        "end": iso(known.end_ns),
        "start_ns": str(known.payee.start_ns),
        "duration_s": max(0.0, units.seconds(end_ns - known.payee.start_ns)),
        "uid": known.uid,
        "labels": dict(known.labels),
        "devices": [
            {"device": h.device, "share": h.share_ppm / units.PPM, "exact": h.exact}
            for h in known.holdings
        ],
        "totals": amounts(book.cells),
    }


def advice(detail: JobDetail) -> list[str]:
    """How well the job used what it held, in plain words."""
    whole = Cell()
    gpu_uj = 0
    for (kind, _), cell in detail.total.items():
        whole = whole.plus(cell)
        gpu_uj += cell.amounts.energy_uj if kind is Kind.GPU else 0
    said = []
    held = whole.held
    if held.held_ms:
        idle = held.idle_ms / held.held_ms
        energy = held.idle_uj / gpu_uj if gpu_uj else 0.0
        if held.idle_ms:
            said.append(
                f"{idle:.0%} of the time that it held GPUs they did nothing, "
                f"{energy:.0%} of its GPU energy."
            )
        if idle >= 0.5:
            said.append(
                "Most of the time the GPUs waited: ask for fewer, end idle sessions, or see what "
                "they wait for (data loading, a step without GPUs)."
            )
        elif idle >= 0.1:
            said.append("Prepare data before the GPUs are held, or in the background.")
    if any(not h.exact for book in detail.runs for h in book.run.holdings):
        said.append("It shares a GPU in a way that cannot be told; the holders pay equal parts.")
    return said
