"""The bodies of `/api/v1/jobs`: runs and jobs as plain data. Pure: no clock, no socket."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from wattledger import units
from wattledger.model import Quality, SiteFactors
from wattledger.model.jobbooks import JOB_SORTS, Cell, JobDetail, JobQuery, JobRow, RunBook
from wattledger.model.jobs import MANAGERS, JobKey
from wattledger.model.pricing import GridPart
from wattledger.model.settling import sum_of_settled
from wattledger.model.uncertainty import Parts, Sureness, together
from wattledger.units import NS_PER_S
from wattledger_exporters.advice import advice
from wattledger_exporters.amounts import amounts, amounts_of, settled_amounts, stress_weighted_l
from wattledger_exporters.bands import uncertainty
from wattledger_exporters.http.query import BadRequest, instant_ns, one_of, whole_number
from wattledger_exporters.receipts import grid_parts
from wattledger_exporters.sums import cost_of, costs_of, told_sums
from wattledger_exporters.when import iso

PARAMETERS = (
    "manager",
    "user",
    "account",
    "name",
    "state",
    "since",
    "until",
    "sort",
    "order",
    "limit",
    "cursor",
)
STATES = ("all", "running", "ended")
ORDERS = ("desc", "asc")
MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
MAX_ID_CHARS = 256
MAX_TEXT_CHARS = 256
_CURSOR_CHARS = 256
Powers = Mapping[JobKey, int]
NO_POWERS: Powers = MappingProxyType({})
_NO_CURSOR = "The cursor is not one that this server gave."


def jobs_query(given: Mapping[str, str], now_ns: int, uid: int | None) -> JobQuery:
    """Check the parameters.

    With a cursor, the span is that of the first page: "24h" would mean another one by now.

    Args:
        given: as they were given.
        now_ns: wall clock.
        uid: whose runs may be seen; None: all.

    Raises:
        BadRequest: with a sentence.
    """
    if "manager" in given:
        one_of("manager", given["manager"], MANAGERS)
    state = one_of("state", given.get("state", "all"), STATES)
    limit = whole_number("limit", given.get("limit", str(DEFAULT_LIMIT)), MAX_LIMIT)
    if not limit:
        raise BadRequest("limit=0 asks for nothing.")
    for name in ("user", "account", "name"):
        if len(given.get(name, "")) > MAX_TEXT_CHARS:
            raise BadRequest(f"{name} is longer than {MAX_TEXT_CHARS} characters.")
    asked = JobQuery(
        manager=given.get("manager", ""),
        user=given.get("user", ""),
        account=given.get("account", ""),
        name=given.get("name", ""),
        uid=uid,
        state="" if state == "all" else state,
        since_ns=instant_ns("since", given["since"], now_ns) if "since" in given else 0,
        until_ns=instant_ns("until", given["until"], now_ns) if "until" in given else 2**62,
        sort=one_of("sort", given.get("sort", "start"), JOB_SORTS),
        ascending=one_of("order", given.get("order", "desc"), ORDERS) == "asc",
        limit=limit,
    )
    return _after(asked, given["cursor"]) if "cursor" in given else asked


class _Cursor(NamedTuple):
    """Where a page ended, and of what it was one."""

    sort: str
    order: str
    since_ns: int
    until_ns: int
    value: int
    run: int

    def text(self) -> str:
        return base64.urlsafe_b64encode(".".join(map(str, self)).encode()).decode()


def _order(asked: JobQuery) -> str:
    return "asc" if asked.ascending else "desc"


def _after(asked: JobQuery, text: str) -> JobQuery:
    try:
        plain = base64.urlsafe_b64decode(text[:_CURSOR_CHARS].encode()).decode("ascii")
        sort, order, *numbers = plain.split(".")
        since_ns, until_ns, value, run_id = map(int, numbers)
    except (ValueError, binascii.Error):
        raise BadRequest(_NO_CURSOR) from None
    if not all(0 <= part < 2**63 for part in (since_ns, until_ns, value, run_id)):
        raise BadRequest(_NO_CURSOR)
    if (sort, order) != (asked.sort, _order(asked)):
        raise BadRequest("The cursor is of another sort or order; repeat those of the first page.")
    return asked._replace(since_ns=since_ns, until_ns=until_ns, after=(value, run_id))


def job_of_path(manager: str, job_id: str) -> tuple[str, str]:
    """The job that a path names.

    Raises:
        BadRequest: no job can be called that.
    """
    one_of("manager", manager, MANAGERS)
    valid = job_id.encode("utf-8", "replace").decode() == job_id  # no lone surrogates
    if not 0 < len(job_id) <= MAX_ID_CHARS or "\0" in job_id or not valid:
        raise BadRequest("That is no job id.")
    return manager, job_id


def with_one_more(asked: JobQuery) -> JobQuery:
    """What to ask the ledger for: a run beyond the page tells whether another follows."""
    return asked._replace(limit=asked.limit + 1)


def jobs(
    asked: JobQuery, rows: list[JobRow], power_uw: Powers = NO_POWERS, simulated: str = ""
) -> dict[str, Any]:
    """The answer of `/api/v1/jobs`.

    Args:
        asked: the query.
        rows: what the ledger answers to `with_one_more` of it.
        power_uw: job → its mean power over the last commit's window.
        simulated: the scenario where the GPUs are, else empty.
    """
    page, cursor = rows[: asked.limit], None
    if len(rows) > asked.limit:
        span = asked.since_ns, asked.until_ns
        cursor = _Cursor(asked.sort, _order(asked), *span, *page[-1].position).text()
    return {
        "jobs": [run(row.book, power_uw) for row in page],
        "next_cursor": cursor,
        "restricted_to_uid": asked.uid,
        "simulated": simulated or None,
    }


def job(
    manager: str,
    job_id: str,
    detail: JobDetail,
    uid: int | None,
    site: SiteFactors | None = None,
    power_uw: Powers = NO_POWERS,
    simulated: str = "",
) -> dict[str, Any]:
    """The answer of `/api/v1/jobs/{manager}/{job_id}`.

    Args:
        manager: of the job.
        job_id: of the job.
        detail: of all its runs, or of the runs of `uid`.
        uid: whose runs may be seen; None: all.
        site: how scarce water is; None: not known.
        power_uw: job → its mean power over the last commit's window.
        simulated: the scenario where the GPUs are, else empty.
    """
    newest = detail.runs[0].run
    running = any(not book.run.end_ns for book in detail.runs)
    qualities: dict[Quality, int] = {}
    grids: dict[GridPart, Cell] = {}
    sure: list[Parts] = []
    energy_uj = 0
    for (quality, grid), cell in detail.parts.items():
        part_uj = cell.amounts.energy_uj
        qualities[quality] = qualities.get(quality, 0) + part_uj
        grids[grid] = grids.get(grid, Cell()).plus(cell)
        sure.append({Sureness(quality, grid.grade): cell.amounts})
        energy_uj += part_uj
    share = {q: uj / energy_uj for q, uj in sorted(qualities.items()) if uj}
    measured_ns = detail.ran_ns - detail.unmeasured_ns
    idle_uj = sum(cell.held.idle_uj for cell in grids.values())
    idle_costs = costs_of(detail.idle_sums, idle_uj)
    return {
        "manager": manager,
        "job_id": job_id,
        "state": "running" if running else "ended",
        "uid": newest.uid,
        "labels": dict(newest.labels),
        "start": iso(detail.begun_ns),
        "end": None if running else iso(max(book.run.end_ns for book in detail.runs)),
        "duration_s": units.seconds(detail.ran_ns),
        "totals": amounts(detail.total),
        "water_stress_weighted_l": stress_weighted_l(
            amounts_of(detail.total).water_onsite_ul,
            site.water_stress_factor if site is not None else None,
        ),
        "uncertainty": uncertainty(
            amounts_of(detail.total),
            together(*sure),
            sum_of_settled(detail.settled),
            detail.sums.embodied_ug,
        ),
        "settled": settled_amounts(detail.total, detail.settled),
        **told_sums(detail.sums, energy_uj),
        "held_idle_cost": cost_of(detail.idle_sums),
        "held_idle_costs": idle_costs,
        "unmeasured_s": units.seconds(detail.unmeasured_ns),
        "mean_watts": units.joules(energy_uj) / units.seconds(measured_ns) if measured_ns else None,
        "quality": {quality.value: part for quality, part in share.items()},
        "estimated_share": share.get(Quality.ESTIMATED, 0.0),
        "grid": grid_parts(grids, detail.weights),
        "advice": advice(detail, idle_costs),
        "runs": [run(book, power_uw) for book in detail.runs],
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
        "simulated": simulated or None,
    }


def run(book: RunBook, power_uw: Powers = NO_POWERS) -> dict[str, Any]:
    """One run of a job; `power_w` is the job's, of a run that goes on."""
    known = book.run
    now_uw = None if known.end_ns else power_uw.get(known.key)
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
        "settled": settled_amounts(book.cells, book.settled),
        **told_sums(book.sums, amounts_of(book.cells).energy_uj),
        "power_w": None if now_uw is None else units.watts(now_uw),
    }
