"""One job over all of its nodes: the receipt of a node's own API, and whose share is whose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from wattledger.errors import WattledgerError
from wattledger.fleet import promql
from wattledger.fleet.amounts import Families, totals, unknown
from wattledger.fleet.books import Fleet
from wattledger.fleet.labels import labels_of
from wattledger.fleet.power import power
from wattledger.fleet.presence import ENERGY, Presence, clipped, presence
from wattledger.fleet.reply import samples, shown
from wattledger.fleet.simulated import simulated
from wattledger.fleet.targets import (
    CLUSTER,
    OF_LEDGER,
    Target,
    host_of,
    instances_of,
    label_of,
    node_name,
    target_of,
)
from wattledger.model.jobs import MANAGERS
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

COUNTERS = {
    "job_energy_kwh_total": "kind",
    "job_co2e_grams_total": "basis",
    "job_water_liters_total": "origin",
    "job_held_seconds_total": "",
    "job_held_idle_joules_total": "",
    "job_held_idle_seconds_total": "",
}
"""A job's counters, and the label of each that is not the job's."""
MAY_LACK = ("job_held_seconds_total", "job_held_idle_joules_total", "job_held_idle_seconds_total")
"""Those that a job without GPUs has not."""
SEVERAL = "several clusters have a job "
"""What the error begins with where they have; deploy/slurm looks for it."""
_MANY = 100  # nodes, from which on the times of a job are asked of some at a time
_MOST_SILENT = 50  # that are asked one by one
UNKNOWN = (
    *("cost", "costs", "held_idle_cost", "held_idle_costs", "uncertainty", "settled", "quality"),
    *("estimated_share", "grid", "market_co2e_g", "market_energy_share", "embodied_co2e_g"),
    *("water_stress_weighted_l", "runs", "run_count", "uid"),
    *("timeline", "timeline_grain_s"),
)
"""What the metrics do not tell by job; the ledgers of its nodes do."""


class _Node(NamedTuple):
    """What one node says of the job."""

    found: Families
    targets: set[Target]


def find(fleet: Fleet, candidates: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Which of the jobs that may be meant there are, those of the first managers first.

    Args:
        fleet: where.
        candidates: (manager, job id), the likeliest first.
    """
    ids = list(dict.fromkeys(job_id for _, job_id in candidates))
    matchers = [promql.one_of("job_id", ids)]
    managers = list(dict.fromkeys(manager for manager, _ in candidates))
    if len(managers) < len(MANAGERS):
        matchers.append(promql.one_of("manager", managers))
    rows = samples(fleet.ask_last(ENERGY, matchers, "manager, job_id"))
    known = {(row.labels.get("manager", ""), row.labels.get("job_id", "")) for row in rows}
    return [candidate for candidate in candidates if candidate in known]


def job(fleet: Fleet, manager: str, job_id: str, expected: Iterable[str] = ()) -> dict[str, Any]:
    """What `/api/v1/jobs/{manager}/{job_id}` answers on a node, of all nodes together.

    Args:
        fleet: where.
        manager: of the job.
        job_id: of the job.
        expected: names of nodes that it ran on, for what is missing to be named.

    Returns:
        The same fields, with None for those in `UNKNOWN`; besides them `cluster`, `nodes`,
        `missing` (in sentences), `power` (of `wattledger.fleet.power.Power`, as `mean_watts`),
        `power_grain_s`, `grid_shown`, `unknown`, `warnings` and `partial`.

    Raises:
        WattledgerError: several clusters have a job of that id.
    """
    matchers = [promql.equal("manager", manager), promql.equal("job_id", job_id)]
    nodes, whole = _nodes(fleet, matchers)
    targets = {target for node in nodes.values() for target in node.targets}
    cluster = _cluster_of(targets, f"{manager}/{job_id}")
    called = _called(fleet, nodes)
    names = set[Target]().union(*called.values())
    instances = instances_of(names)
    seen = presence(fleet, matchers, instances if len(instances) > _MANY else ())
    silent = _silent_targets(fleet, targets, seen)
    told = [
        _told_node(fleet, node, whole, seen, silent, called[number])
        for number, node in nodes.items()
    ]
    told.sort(key=lambda row: (-_kwh(row), row["node"]))
    sums = totals(whole)
    begin_s, end_s = seen.begin_s, seen.end_s
    ran = None if begin_s is None or end_s is None else (begin_s, end_s)
    before = begin_s is not None and clipped(fleet.span, begin_s)
    course = power(fleet, matchers, seen)
    states = {row["state"] for row in told}
    state = next((name for name in ("running", "silent") if name in states), "ended")
    labels = labels_of(fleet, matchers)
    missing = [
        *_silent(told),
        *_not_there(told, expected),
        *_not_scraped(whole),
        *unknown([whole]),
        *([_before(fleet)] if before else []),
        *fleet.notes,
    ]
    return {
        **dict.fromkeys(UNKNOWN),
        "cluster": cluster or None,
        "manager": manager,
        "job_id": job_id,
        "state": state,
        "labels": labels.get((cluster, manager, job_id), {}),
        "start": None if begin_s is None or before else _iso(begin_s),
        "end": None if end_s is None or state == "running" else _iso(end_s),
        "duration_s": seen.ran_s or None,
        "totals": sums,
        "mean_watts": course.mean_watts,
        "advice": [],
        "power_grain_s": course.grain_s,
        "power": course.moments,
        "restricted_to_uid": None,
        "grid_shown": grid_shown(fleet, names, begin_s, end_s),
        "nodes": told,
        "missing": missing,
        "unknown": list(UNKNOWN),
        **provenance(fleet, names, ran),
    }


def grid_shown(
    fleet: Fleet, targets: set[Target], begin_s: float | None, end_s: float | None
) -> list[dict[str, Any]]:
    """What its nodes priced energy with while a job ran: zone, source, basis, whether estimated.

    How much of the job's energy each of them priced is not in the metrics.
    """
    if begin_s is None or end_s is None:
        return []
    own = ("grid_zone", "source", "basis", "estimated")
    window_ms = round((end_s - begin_s) * 1000) + 1
    found = set()
    for instances in promql.chunks(instances_of(targets)):
        those = [*fleet.match, promql.one_of("instance", instances)]
        inner = promql.selector("grid_carbon_intensity_grams_per_kwh", those, window_ms)
        for row in samples(fleet.door.query(f"last_over_time({inner})", end_s)):
            if target_of(row.labels, ("__name__", *own)) in targets:
                found.add(tuple(row.labels.get(name, "") for name in own))
    return [
        {"zone": zone, "source": source, "basis": basis, "estimated": estimated == "true"}
        for zone, source, basis, estimated in sorted(found)
    ]


def provenance(
    fleet: Fleet, targets: set[Target] | None = None, ran: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Of what an answer is: where and of which time it was asked, what is not whole or not real.

    Args:
        fleet: where.
        targets: whose figures are in it; None: everybody's.
        ran: from when to when these were drawn, as of `simulated`; None: the whole span.
    """
    played = simulated(fleet, targets, ran)
    warnings = list(fleet.door.warnings)
    return {
        "simulated": played or None,
        "from": fleet.door.url,
        "asked_since": _iso(fleet.span.since_s),
        "asked_until": _iso(fleet.span.until_s),
        "partial": bool(warnings),
        "warnings": warnings,
    }


def _nodes(fleet: Fleet, matchers: Sequence[str]) -> tuple[dict[int, _Node], Families]:
    nodes: dict[int, _Node] = {}
    whole = Families()
    for metric, label in COUNTERS.items():
        own = ("manager", "job_id", *([label] if label else []))
        for entry in fleet.entries(metric, matchers, own):
            node = nodes.setdefault(entry.node, _Node(Families(), set()))
            node.targets.add(entry.target)
            value_of = entry.key[2] if label else ""
            node.found.add(metric, value_of, entry.amount)
            whole.add(metric, value_of, entry.amount)
    return nodes, whole


def _cluster_of(targets: Iterable[Target], job_name: str) -> str:
    """The cluster of a job's nodes; empty: their labels name none.

    Raises:
        WattledgerError: there are several.
    """
    clusters = sorted({label_of(target, CLUSTER) for target in targets})
    if len(clusters) > 1:
        names = ", ".join(f"{CLUSTER}={shown(name)}" for name in clusters)
        raise WattledgerError(
            f"{SEVERAL}{shown(job_name)}: {names}",
            f"name the one that is meant: --match {CLUSTER}=…",
        )
    return clusters[0] if clusters else ""


def _called(fleet: Fleet, nodes: Mapping[int, _Node]) -> dict[int, set[Target]]:
    """All label sets under which each node was scraped, with those of old."""
    called = {number: set(node.targets) for number, node in nodes.items()}
    for target in fleet.epochs:
        if (number := fleet.node_of(target)) in called:
            called[number].add(target)
    return called


def _told_node(
    fleet: Fleet,
    node: _Node,
    whole: Families,
    seen: Presence,
    silent: set[Target],
    called: set[Target],
) -> dict[str, Any]:
    last_s = {target: seen.last_s.get(target, 0.0) for target in node.targets}
    newest = max(sorted(node.targets, key=sorted), key=lambda target: last_s[target])
    first_s = min((seen.first_s[target] for target in called & seen.first_s.keys()), default=0)
    power_s = max((seen.last_s[target] for target in called & seen.last_s.keys()), default=0)
    if any(target in seen.now for target in node.targets):
        state = "running"
    elif newest in silent:
        state = "silent"
    else:
        state = "ended"
    sums = totals(node.found)
    own_uj, all_uj = node.found.sum(ENERGY), whole.sum(ENERGY)
    return {
        "node": node_name(newest),
        "labels": dict(sorted(newest)),
        "state": state,
        "start": _iso(first_s),
        "last_power": _iso(power_s),
        "share": own_uj / all_uj if own_uj is not None and all_uj else None,
        "ledger_known": all(fleet.knows(target) for target in node.targets),
        "totals": sums,
    }


def _silent_targets(fleet: Fleet, targets: set[Target], seen: Presence) -> set[Target]:
    """The label sets that showed nothing any more after they last showed that the job drew power.

    Where it was never seen to draw power, its counters came after its end.
    """
    until_s = fleet.span.until_s
    shows = promql.selector("ledger_info", fleet.match)
    quiet = {target for target in targets if target in seen.last_s and fleet.knows(target)}
    quiet -= _targets(fleet.door.query(shows, until_s)) | seen.now
    if not quiet:
        return set()
    quiet -= _shown_after(fleet, max(seen.last_s[target] for target in quiet), ())
    for target in sorted(quiet, key=sorted)[:_MOST_SILENT]:
        if _shown_after(fleet, seen.last_s[target], promql.all_equal(dict(target))):
            quiet.discard(target)
    return quiet


def _shown_after(fleet: Fleet, at_s: float, matchers: Iterable[str]) -> set[Target]:
    """The label sets whose page was scraped after an instant."""
    window_ms = round((fleet.span.until_s - at_s) * 1000) - 1
    if window_ms < 1:
        return set()
    inner = promql.selector("ledger_info", [*fleet.match, *matchers], window_ms)
    return _targets(fleet.door.query(f"count_over_time({inner})", fleet.span.until_s))


def _targets(data: Any) -> set[Target]:
    return {target_of(row.labels, OF_LEDGER) for row in samples(data)}


# ── what is missing, in sentences ───────────────────────────────────────────────────────────────


def _silent(told: Sequence[dict[str, Any]]) -> list[str]:
    found = []
    for row in told:
        if row["state"] == "silent":
            found.append(
                f"{row['node']}: nothing was scraped from it since {row['last_power']}, while the "
                "job ran there; what it drew afterwards is not in these figures"
            )
        if not row["ledger_known"]:
            found.append(
                f"{row['node']}: it shows no ledger_info, so that a new ledger could not be told "
                "from the old one"
            )
    return found


def _not_there(told: Sequence[dict[str, Any]], expected: Iterable[str]) -> list[str]:
    there = {host_of(row["node"]) for row in told}
    lacking = [name for name in dict.fromkeys(expected) if host_of(name) not in there]
    return [f"{name}: nothing of this job was scraped from it" for name in lacking]


def _not_scraped(whole: Families) -> list[str]:
    return [
        f"wattledger_{metric} was not scraped"
        for metric in COUNTERS
        if metric not in MAY_LACK and whole.get(metric) is None
    ]


def _before(fleet: Fleet) -> str:
    return (
        f"it ran already at {_iso(fleet.span.since_s)}: counters carry on from before, but for "
        "nodes whose ledger was begun anew before; --since names an earlier time"
    )


def _kwh(row: dict[str, Any]) -> float:
    energy = row["totals"]["energy_kwh"]
    return float(energy["total"]) if energy else 0.0


def _iso(at_s: float) -> str | None:
    return iso(round(at_s) * NS_PER_S)
