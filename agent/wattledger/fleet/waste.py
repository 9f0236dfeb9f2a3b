"""Who held GPUs without use, over all nodes: what `/api/v1/waste` answers on one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wattledger import units
from wattledger.errors import WattledgerError
from wattledger.fleet import promql
from wattledger.fleet.books import Fleet, Key, Span
from wattledger.fleet.door import Door
from wattledger.fleet.job import provenance
from wattledger.fleet.labels import Job, labels_of
from wattledger.fleet.presence import ENERGY
from wattledger.model.jobs import OTHER_JOBS
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

BEFORE_S = 30 * 86_400
"""How far before a span a counter's last sample may lie for what it moved by to be known."""
NOT_SHOWN = "(not shown)"
_GPU = (promql.equal("kind", "gpu"),)
_JOB = ("manager", "job_id")
_MS_PER_HOUR = 3_600_000


class Moved:
    """What counters moved by in a span: their last values in it less those before it.

    Not extrapolated. A ledger that began in the span counts from 0, one that was away when it
    began by what it had shown before.

    Args:
        door: where to ask.
        span: the time.
        match: matchers that every question carries.
    """

    def __init__(self, door: Door, span: Span, match: list[str]) -> None:
        begin_s = max(0, span.since_s - BEFORE_S)
        self.upto = Fleet(door, Span(begin_s, span.until_s), match)
        self._before = Fleet(door, Span(begin_s, span.since_s), match)

    def sums(
        self, metric: str, own: tuple[str, ...], matchers: tuple[str, ...] = ()
    ) -> dict[Key, int]:
        """By how much, by cluster and the metric's own labels; see `Fleet.sums`."""
        before = self._before.sums(metric, matchers, own)
        upto = self.upto.sums(metric, matchers, own)
        return {key: max(0, amount - before.get(key, 0)) for key, amount in upto.items()}


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
    gpu_uj = moved.sums(ENERGY, _JOB, _GPU)
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
