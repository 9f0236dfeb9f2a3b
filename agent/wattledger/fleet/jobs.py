"""The jobs of all nodes: what `/api/v1/jobs` answers on one, a row for each job."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from wattledger import units
from wattledger.errors import ConfigError, WattledgerError
from wattledger.fleet import promql
from wattledger.fleet.amounts import Families, totals, unknown
from wattledger.fleet.books import Fleet, Span
from wattledger.fleet.job import COUNTERS, MAY_LACK, provenance
from wattledger.fleet.labels import Job, Known, job_of, labels_of
from wattledger.fleet.presence import ENERGY
from wattledger.fleet.reply import instants, samples
from wattledger.fleet.targets import CLUSTER
from wattledger.model.jobbooks import JobQuery
from wattledger.model.jobs import OTHER_JOBS
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

_STEPS = 11_000
_BY_JOB = f"{CLUSTER}, manager, job_id"


class Times(NamedTuple):
    """When a job was first and last seen to draw power (Unix seconds)."""

    first_s: float
    last_s: float


def span_of(query: JobQuery, now_s: int, given: Mapping[str, str]) -> tuple[Span, JobQuery]:
    """The span to ask about; with a cursor, that of the first page.

    Raises:
        ConfigError: the cursor is none of ours, or the span is empty.
    """
    since_s, asked_s = query.since_ns // NS_PER_S, now_s
    if "cursor" in given:
        since_s, asked_s, offset = _read_cursor(given["cursor"])
        query = query._replace(after=(offset, 0))
    if since_s >= asked_s or query.since_ns >= query.until_ns:
        raise ConfigError([("--since", "lies after --until or in the future")])
    return Span(since_s, asked_s), query


def jobs(fleet: Fleet, query: JobQuery, *, every: bool = False) -> dict[str, Any]:
    """The answer: one row for each job, all its runs on all its nodes together.

    Args:
        fleet: where; its span ends now, so that totals are those of now.
        query: what is asked for; `after` holds the offset of the page.
        every: all of them, whatever `limit` says.

    Raises:
        WattledgerError: a filter needs a label that no job shows.
    """
    matchers = [promql.equal("manager", query.manager)] if query.manager else []
    matchers.append(promql.equal("manager", OTHER_JOBS.manager).replace("=", "!=", 1))
    found = _counters(fleet, matchers)
    known = labels_of(fleet, matchers)
    _check_filters(query, known)
    power = promql.selector("job_power_watts", [*fleet.match, *matchers])
    rows = samples(fleet.door.query(f"count by ({_BY_JOB}) ({power})", fleet.span.until_s))
    running = {job_of(row.labels) for row in rows}
    chosen = [
        job
        for job in found
        if _fits(known.get(job, {}), query)
        and (not query.state or (query.state == "running") == (job in running))
    ]
    until_s = query.until_ns // NS_PER_S
    coarse = _coarse_times(fleet, matchers)
    if until_s < fleet.span.until_s:
        chosen = [job for job in chosen if job not in coarse or coarse[job].first_s < until_s]
    chosen.sort(key=lambda job: (_rank(query, found[job], coarse.get(job)), job))
    if not query.ascending:
        chosen.reverse()
    offset = query.after[0] if query.after else 0
    page = chosen[offset:] if every else chosen[offset : offset + query.limit]
    more = offset + len(page) < len(chosen)
    fine = _fine_times(fleet, page, coarse)
    others = _unlisted(fleet)
    return {
        "jobs": [
            _row(fleet, job, found[job], known.get(job, {}), fine.get(job), job in running)
            | _about(fine.get(job), coarse.get(job))
            for job in page
        ],
        "next_cursor": _cursor(fleet.span, offset + len(page)) if more else None,
        "restricted_to_uid": None,
        "missing": [*_lacking(found.values()), *unknown(found.values()), *others, *fleet.notes],
        **provenance(fleet),
    }


def _counters(fleet: Fleet, matchers: Sequence[str]) -> dict[Job, Families]:
    found: dict[Job, Families] = {}
    for metric, label in COUNTERS.items():
        own = ("manager", "job_id", *([label] if label else []))
        for key, amount in fleet.sums(metric, matchers, own).items():
            cluster, manager, job_id, *of = key
            families = found.setdefault((cluster, manager, job_id), Families())
            families.add(metric, of[0] if of else "", amount)
    return {job: families for job, families in found.items() if families.get(ENERGY) is not None}


def _lacking(found: Iterable[Families]) -> list[str]:
    everything = list(found)
    return [
        f"wattledger_{metric} was not scraped"
        for metric in COUNTERS
        if metric not in MAY_LACK
        and everything
        and all(families.get(metric) is None for families in everything)
    ]


def _unlisted(fleet: Fleet) -> list[str]:
    """Jobs that have no series of their own are named, if not by name."""
    matchers = [promql.equal("manager", OTHER_JOBS.manager)]
    sums = fleet.sums(ENERGY, matchers, ("manager",))
    kwh = units.kwh(sum(sums.values()))
    if not kwh:
        return []
    text = (
        f"{kwh:,.3f} kWh are of jobs beyond jobs.max_series, which have no series of their own "
        '(job_id="(other)"): their nodes know them'
    )
    return [text]


# ── filters ─────────────────────────────────────────────────────────────────────────────────────


def _check_filters(query: JobQuery, known: Known) -> None:
    """Refuse what the metrics cannot tell."""
    for name in ("user", "account", "name"):
        asked = getattr(query, name)
        if asked and not any(name in labels for labels in known.values()):
            hint = f'add "{name}" to jobs.labels on the nodes, or ask a node itself'
            raise WattledgerError(f"no job in this span shows its {name}", hint)
    if query.user.isdigit() and not any(
        labels.get("user") == query.user for labels in known.values()
    ):
        raise WattledgerError(
            f"no job shows the user {query.user}", "metrics know users by name, not by uid"
        )


def _fits(labels: Mapping[str, str], query: JobQuery) -> bool:
    return (
        (not query.user or labels.get("user") == query.user)
        and (not query.account or labels.get("account") == query.account)
        and (not query.name or fnmatchcase(labels.get("name", ""), query.name))
    )


def _rank(query: JobQuery, found: Families, times: Times | None) -> float:
    if query.sort == "start":
        return times.first_s if times else 0.0
    metric = {
        "energy": ENERGY,
        "co2e": "job_co2e_grams_total",
        "held_idle": "job_held_idle_joules_total",
    }[query.sort]
    return found.sum(metric) or 0


# ── times ───────────────────────────────────────────────────────────────────────────────────────


def _coarse_times(fleet: Fleet, matchers: Sequence[str]) -> dict[Job, Times]:
    """When each job was seen, to a part of the span; none that was scraped is missed."""
    seen = fleet.buckets("job_power_watts", matchers, _BY_JOB)
    return {
        job_of(row.labels): Times(
            row.points[0][0] - seen.length_s(row.points[0][0]), row.points[-1][0]
        )
        for row in seen.rows
    }


def _fine_times(fleet: Fleet, page: Sequence[Job], coarse: Mapping[Job, Times]) -> dict[Job, Times]:
    """The same for a page of jobs, to a scrape, or to a step where they lie far apart.

    Jobs that are shorter than such a step may not be among them.
    """
    there = [coarse[job] for job in page if job in coarse]
    if not there:
        return {}
    begin_s = min(times.first_s for times in there)
    end_s = min(fleet.span.until_s, max(times.last_s for times in there))
    window_s = max(1, round(end_s - begin_s))
    window = f"[{window_s}s:{max(1, window_s // _STEPS)}s]"
    first_s, last_s = dict[Job, float](), dict[Job, float]()
    for ids in promql.chunks(sorted({job_id for *_, job_id in page})):
        power = promql.selector("job_power_watts", [*fleet.match, promql.one_of("job_id", ids)])
        for of, seen in (("min", first_s), ("max", last_s)):
            asked = f"{of} by ({_BY_JOB}) ({of}_over_time(timestamp({power}){window}))"
            for row in instants(fleet.door.query(asked, end_s)):
                seen[job_of(row.labels)] = row.value
    seen_jobs = set(page) & first_s.keys() & last_s.keys()
    return {job: Times(first_s[job], last_s[job]) for job in seen_jobs}


# ── rows ────────────────────────────────────────────────────────────────────────────────────────


def _row(
    fleet: Fleet,
    job: Job,
    found: Families,
    labels: Mapping[str, str],
    times: Times | None,
    is_running: bool,
) -> dict[str, Any]:
    return {
        "cluster": job[0] or None,
        "manager": job[1],
        "job_id": job[2],
        "state": "running" if is_running else "ended",
        "start": None if times is None else iso(round(times.first_s) * NS_PER_S),
        "end": None if times is None or is_running else iso(round(times.last_s) * NS_PER_S),
        "duration_s": None
        if times is None
        else (fleet.span.until_s if is_running else times.last_s) - times.first_s,
        "uid": None,
        "labels": dict(labels),
        "totals": totals(found),
        "costs": [],
        "cost": None,
        "market_co2e_g": None,
        "embodied_co2e_g": None,
    }


def _about(fine: Times | None, coarse: Times | None) -> dict[str, Any]:
    """When a job began that was too short for more: to a part of the span, and not how long."""
    if fine is not None or coarse is None:
        return {}
    return {"start": iso(round(coarse.first_s) * NS_PER_S)}


def _cursor(span: Span, offset: int) -> str:
    text = f"{span.since_s}.{span.until_s}.{offset}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read_cursor(text: str) -> tuple[int, int, int]:
    try:
        plain = base64.urlsafe_b64decode(text[:256].encode()).decode("ascii")
        since_s, until_s, offset = (int(part) for part in plain.split("."))
    except (ValueError, binascii.Error):
        since_s = until_s = offset = -1
    if not 0 <= since_s < until_s < 2**34 or not 0 <= offset < 2**32:
        raise ConfigError([("--cursor", "is not one that this command gave")])
    return since_s, until_s, offset
