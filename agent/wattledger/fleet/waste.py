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
from wattledger.fleet.labels import labels_of
from wattledger.fleet.presence import ENERGY
from wattledger.model.jobs import OTHER_JOBS
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

BEFORE_S = 30 * 86_400
"""How far before a span a counter's last sample may lie for what it moved by to be known."""
NOT_SHOWN = "(not shown)"
_GPU = (promql.equal("kind", "gpu"),)
_JOB = ("manager", "job_id")
_HOUR_S = 3600.0


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
    ) -> dict[Key, float]:
        """By how much, by the metric's own labels; see `Fleet.sums`."""
        before = self._before.sums(metric, matchers, own)
        upto = self.upto.sums(metric, matchers, own)
        return {key: max(0.0, value - before.get(key, 0.0)) for key, value in upto.items()}


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
    idle_s = moved.sums("job_held_idle_seconds_total", _JOB)
    idle_j = moved.sums("job_held_idle_joules_total", _JOB)
    held_s = moved.sums("job_held_seconds_total", _JOB)
    gpu_kwh = moved.sums(ENERGY, _JOB, _GPU)
    known = labels_of(moved.upto, ())
    if idle_s and not any(by in labels for labels in known.values()):
        hint = f'add "{by}" to jobs.labels on the nodes, or ask a node itself'
        raise WattledgerError(f"no job in this span shows its {by}", hint)
    groups: dict[str, dict[str, float]] = {}
    for name, found in (("idle_s", idle_s), ("idle_j", idle_j), ("held_s", held_s)):
        for job, value in found.items():
            _add(groups, known.get((job[0], job[1]), {}), by, job, name, value)
    for job, kwh in gpu_kwh.items():
        if job in idle_s:  # others held no GPU
            _add(groups, known.get((job[0], job[1]), {}), by, job, "held_kwh", kwh)
    rows = [_row(group, sums) for group, sums in groups.items() if any(sums.values())]
    rows.sort(key=lambda row: (-(row["held_idle_kwh"] or 0), -(row["held_idle_gpu_hours"] or 0)))
    whole: dict[str, float] = {}
    for sums in groups.values():
        for name, value in sums.items():
            whole[name] = whole.get(name, 0.0) + value
    unheld = moved.sums("payee_energy_joules_total", ("kind", "payee"), _GPU)
    unheld_j = sum(joules for (_, payee), joules in unheld.items() if payee == "idle")
    return {
        "since": iso(span.since_s * NS_PER_S),
        "until": iso(span.until_s * NS_PER_S),
        "by": by,
        "rows": rows,
        "total": _row("all", whole),
        "idle": {
            "energy_kwh": unheld_j * units.UJ_PER_J / units.UJ_PER_KWH,
            "cost": None,
            "costs": [],
            "exact": {"energy_uj": str(round(unheld_j * units.UJ_PER_J)), "facility_uj": None},
        }
        if unheld
        else None,
        "restricted_to_uid": None,
        "missing": [*moved.upto.notes],
        **provenance(moved.upto),
    }


def _add(
    groups: dict[str, dict[str, float]],
    labels: Mapping[str, str],
    by: str,
    job: Key,
    name: str,
    value: float,
) -> None:
    group = labels.get(by, NOT_SHOWN)
    if job == OTHER_JOBS:
        group = OTHER_JOBS.job_id
    sums = groups.setdefault(group, {})
    sums[name] = sums.get(name, 0.0) + value


def _row(group: str, sums: Mapping[str, float]) -> dict[str, Any]:
    idle_s, held_s = sums.get("idle_s"), sums.get("held_s")
    idle_j, held_kwh = sums.get("idle_j"), sums.get("held_kwh")
    idle_kwh = None if idle_j is None else idle_j * units.UJ_PER_J / units.UJ_PER_KWH
    return {
        "group": group,
        "runs": None,
        "held_gpu_hours": None if held_s is None else held_s / _HOUR_S,
        "held_idle_gpu_hours": None if idle_s is None else idle_s / _HOUR_S,
        "idle_time_share": _share(idle_s, held_s),
        "held_kwh": held_kwh,
        "held_idle_kwh": idle_kwh,
        "idle_energy_share": _share(idle_kwh, held_kwh),
        "held_idle_cost": None,
        "held_idle_costs": [],
        "held_cost": None,
        "held_costs": [],
        "embodied_co2e_g": None,
        "exact": {
            "held_ms": _text(held_s, 1000),
            "held_idle_ms": _text(idle_s, 1000),
            "held_idle_uj": _text(idle_j, units.UJ_PER_J),
            "held_uj": _text(held_kwh, units.UJ_PER_KWH),
            "held_facility_uj": None,
            "held_idle_facility_uj": None,
        },
    }


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _text(value: float | None, per: int) -> str | None:
    return None if value is None else str(round(value * per))
