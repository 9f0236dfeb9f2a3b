"""Who held GPUs without use, over all nodes: what `/api/v1/waste` answers on one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from wattledger import units
from wattledger.errors import WattledgerError
from wattledger.fleet import promql
from wattledger.fleet.amounts import per_unit
from wattledger.fleet.books import Fleet, Key, Span
from wattledger.fleet.door import Door
from wattledger.fleet.job import provenance
from wattledger.fleet.labels import Job, labels_of
from wattledger.fleet.presence import ENERGY
from wattledger.fleet.reply import samples
from wattledger.fleet.targets import (
    CLUSTER,
    OF_LEDGER,
    Target,
    instances_of,
    label_of,
    node_name,
    target_of,
)
from wattledger.model.jobs import OTHER_JOBS
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

BEFORE_S = 30 * 86_400
"""How far before a span a counter's last sample may lie for what it moved by to be known."""
NOT_SHOWN = "(not shown)"
_EPOCH_START = "ledger_epoch_start_timestamp_seconds"
_NAMED = 3
_GPU = (promql.equal("kind", "gpu"),)
_JOB = ("manager", "job_id")
_MS_PER_HOUR = 3_600_000


class Moved:
    """What counters moved by in a span: their last values in it less those before it.

    Not extrapolated. A ledger that began in the span counts from 0, one that was away when it
    began by what it had shown before. One that began before the span and was not scraped then
    counts from where its counters stood when it first was, which is noted.

    Args:
        door: where to ask.
        span: the time.
        match: matchers that every question carries.
    """

    def __init__(self, door: Door, span: Span, match: list[str]) -> None:
        begin_s = max(0, span.since_s - BEFORE_S)
        self.upto = Fleet(door, Span(begin_s, span.until_s), match)
        self._before = Fleet(door, Span(begin_s, span.since_s), match, self.upto)
        self._span = span
        self._late = self._first_seen(self._begun_before())

    def sums(
        self, metric: str, own: tuple[str, ...], matchers: tuple[str, ...] = ()
    ) -> dict[Key, int]:
        """By how much, by cluster and the metric's own labels; see `Fleet.sums`."""
        before = self._before.sums(metric, matchers, own)
        for key, amount in self._stood(metric, matchers, own).items():
            before[key] = before.get(key, 0) + amount
        upto = self.upto.sums(metric, matchers, own)
        return {key: max(0, amount - before.get(key, 0)) for key, amount in upto.items()}

    def _begun_before(self) -> set[Target]:
        """Label sets of ledgers that were scraped in the span only, and began before it."""
        seen = {epoch for epochs in self._before.epochs.values() for epoch in epochs}
        new = {target for target, epochs in self.upto.epochs.items() if not epochs & seen}
        if not new:
            return new
        inner = promql.selector(_EPOCH_START, self.upto.match, self._span.window_ms)
        rows = samples(self.upto.door.query(f"min_over_time({inner})", self._span.until_s))
        old = {target_of(r.labels, ("__name__",)) for r in rows if r.value < self._span.since_s}
        return new & old

    def _first_seen(self, late: set[Target]) -> dict[tuple[float, int], set[Target]]:
        """By the end of a part of the span and its length in s, who was first scraped in it."""
        found: dict[tuple[float, int], set[Target]] = {}
        if not late:
            return found
        fleet = Fleet(self.upto.door, self._span, self.upto.match, self.upto)
        seen = fleet.buckets("ledger_info", (), among=instances_of(late))
        first_s: dict[Target, float] = {}
        for row in seen.rows:
            target = target_of(row.labels, OF_LEDGER)
            if target in late:
                first_s[target] = min(row.points[0][0], first_s.get(target, math.inf))
        for target, at_s in first_s.items():
            found.setdefault((at_s, seen.length_s(at_s)), set()).add(target)
        names = sorted(node_name(target) for target in late)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        self.upto.notes[
            f"{', '.join(names[:_NAMED])}{more}: first scraped within this span, with a ledger "
            "begun before it; what it counted until then is in no figure here"
        ] = None
        return found

    def _stood(
        self, metric: str, matchers: tuple[str, ...], own: tuple[str, ...]
    ) -> dict[Key, int]:
        """Where counters of those ledgers stood when they were first scraped."""
        lowest: dict[tuple[str, Key], int] = {}  # of the copies of each ledger
        for (at_s, length_s), late in self._late.items():
            for instances in promql.chunks(instances_of(late)):
                those = [*self.upto.match, *matchers, promql.one_of("instance", instances)]
                inner = promql.selector(metric, those, length_s * 1000)
                for row in samples(self.upto.door.query(f"min_over_time({inner})", at_s)):
                    target = target_of(row.labels, ("__name__", *own))
                    if target not in late:
                        continue
                    epoch = min(self.upto.epochs[target])
                    cluster = label_of(self.upto.newest(epoch, target), CLUSTER)
                    key = cluster, *(row.labels.get(name, "") for name in own)
                    amount = round(row.value * per_unit(metric))
                    lowest[epoch, key] = min(amount, lowest.get((epoch, key), amount))
        sums: dict[Key, int] = {}
        for (_, key), amount in lowest.items():
            sums[key] = sums.get(key, 0) + amount
        return sums


def waste(door: Door, span: Span, match: list[str], by: str) -> dict[str, Any]:
    """The answer.

    Args:
        door: where to ask.
        span: the time.
        match: matchers that every question carries.
        by: `user` or `account`.

    Raises:
        WattledgerError: there is no whole answer, or no job shows its user or account.
    """
    moved = Moved(door, span, match)
    idle_ms = moved.sums("job_held_idle_seconds_total", _JOB)
    idle_uj = moved.sums("job_held_idle_joules_total", _JOB)
    held_ms = moved.sums("job_held_seconds_total", _JOB)
    gpu_uj = {job[:3]: uj for job, uj in moved.sums(ENERGY, (*_JOB, "kind"), _GPU).items()}
    known = labels_of(moved.upto, ())
    if idle_ms and not any(by in labels for labels in known.values()):
        hint = f'add "{by}" to jobs.labels on the nodes, or ask a node itself'
        raise WattledgerError(f"no job in this span shows its {by}", hint)
    groups: dict[str, dict[str, int]] = {}
    held_uj = {job: uj for job, uj in gpu_uj.items() if job in idle_ms}  # others held no GPU
    counted = {"idle_ms": idle_ms, "idle_uj": idle_uj, "held_ms": held_ms, "held_uj": held_uj}
    for name, found in counted.items():
        for (cluster, manager, job_id), amount in found.items():
            job = cluster, manager, job_id
            _add(groups, known.get(job, {}), by, job, name, amount)
    rows = [_row(group, sums) for group, sums in groups.items() if any(sums.values())]
    rows.sort(key=lambda row: (-(row["held_idle_kwh"] or 0), -(row["held_idle_gpu_hours"] or 0)))
    whole: dict[str, int] = {}
    for sums in groups.values():
        for name, amount in sums.items():
            whole[name] = whole.get(name, 0) + amount
    unheld = moved.sums("payee_energy_joules_total", ("kind", "payee"), _GPU)
    unheld_uj = sum(uj for (*_, payee), uj in unheld.items() if payee == "idle")
    return {
        "since": iso(span.since_s * NS_PER_S),
        "until": iso(span.until_s * NS_PER_S),
        "by": by,
        "rows": rows,
        "total": _row("all", whole),
        "idle": {
            "energy_kwh": units.kwh(unheld_uj),
            "cost": None,
            "costs": [],
            "exact": {"energy_uj": str(unheld_uj), "facility_uj": None},
        }
        if unheld
        else None,
        "restricted_to_uid": None,
        "missing": [*moved.upto.notes],
        **provenance(moved.upto),
    }


def _add(
    groups: dict[str, dict[str, int]],
    labels: Mapping[str, str],
    by: str,
    job: Job,
    name: str,
    amount: int,
) -> None:
    group = labels.get(by, NOT_SHOWN)
    if job[1:] == OTHER_JOBS:
        group = OTHER_JOBS.job_id
    sums = groups.setdefault(group, {})
    sums[name] = sums.get(name, 0) + amount


def _row(group: str, sums: Mapping[str, int]) -> dict[str, Any]:
    idle_ms, held_ms = sums.get("idle_ms"), sums.get("held_ms")
    idle_uj, held_uj = sums.get("idle_uj"), sums.get("held_uj")
    return {
        "group": group,
        "runs": None,
        "held_gpu_hours": None if held_ms is None else held_ms / _MS_PER_HOUR,
        "held_idle_gpu_hours": None if idle_ms is None else idle_ms / _MS_PER_HOUR,
        "idle_time_share": _share(idle_ms, held_ms),
        "held_kwh": None if held_uj is None else units.kwh(held_uj),
        "held_idle_kwh": None if idle_uj is None else units.kwh(idle_uj),
        "idle_energy_share": _share(idle_uj, held_uj),
        "held_idle_cost": None,
        "held_idle_costs": [],
        "held_cost": None,
        "held_costs": [],
        "embodied_co2e_g": None,
        "exact": {
            "held_ms": _text(held_ms),
            "held_idle_ms": _text(idle_ms),
            "held_idle_uj": _text(idle_uj),
            "held_uj": _text(held_uj),
            "held_facility_uj": None,
            "held_idle_facility_uj": None,
        },
    }


def _share(part: int | None, whole: int | None) -> float | None:
    return part / whole if part is not None and whole else None


def _text(amount: int | None) -> str | None:
    return None if amount is None else str(amount)
