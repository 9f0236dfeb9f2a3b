"""When a job was seen to draw power, and how its energy came over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from wattledger import units
from wattledger.fleet import promql
from wattledger.fleet.books import TAIL_S, Fleet, Span
from wattledger.fleet.reply import Course, courses, samples
from wattledger.fleet.targets import Target, target_of
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

ENERGY = "job_energy_kwh_total"
_OWN = ("__name__", "manager", "job_id")
_STEPS = 5000
_MOST_PARTS = 8  # nodes that began or ended at other times than these are told less exactly
_BUCKETS = 64
_LEAST_GRAIN_S = 60
_EDGE_S = 120.0  # scrapes are seldom further apart


class Presence(NamedTuple):
    """When it was seen.

    Attributes:
        first_s: of each label set, when it first drew power (Unix seconds, of a scrape).
        last_s: likewise when it last did.
        ran_s: how long it drew power anywhere, to a scrape or a step.
        now: the label sets where it does at the end of the span.
    """

    first_s: dict[Target, float]
    last_s: dict[Target, float]
    ran_s: float
    now: frozenset[Target]

    @property
    def begin_s(self) -> float | None:
        """When it was first seen; None: it was never seen running."""
        return min(self.first_s.values(), default=None)

    @property
    def end_s(self) -> float | None:
        """When it was last seen to run."""
        return max(self.last_s.values(), default=None)


def presence(fleet: Fleet, matchers: Sequence[str], among: Sequence[str] = ()) -> Presence:
    """When a job ran: in parts of the whole span first, then by the samples at their edges.

    Args:
        fleet: where.
        matchers: that select one job.
        among: the instances where it ran, where they are many.
    """
    span, door = fleet.span, fleet.door
    power = promql.selector("job_power_watts", [*fleet.match, *matchers])
    now = frozenset(target_of(row.labels, _OWN) for row in samples(door.query(power, span.until_s)))
    seen = fleet.buckets("job_power_watts", matchers, among=among)
    if not seen.rows:
        return Presence({}, {}, 0.0, now)
    # The end of a part of the span is not yet an instant: the samples in it tell.
    first_s = {target_of(row.labels, _OWN): row.points[0][0] for row in seen.rows}
    last_s = {target_of(row.labels, _OWN): row.points[-1][0] for row in seen.rows}
    for at_s in sorted(set(first_s.values()))[:_MOST_PARTS]:
        for row in fleet.raw("job_power_watts", matchers, seen, at_s, among):
            target = target_of(row.labels, _OWN)
            if first_s.get(target) == at_s:
                first_s[target] = row.points[0][0]
    for at_s in sorted(set(last_s.values()), reverse=True)[:_MOST_PARTS]:
        for row in fleet.raw("job_power_watts", matchers, seen, at_s, among):
            target = target_of(row.labels, _OWN)
            if last_s.get(target) == at_s:
                last_s[target] = row.points[-1][0]
    begin_s, end_s = min(first_s.values()), max(last_s.values())
    window_s = max(1, round(end_s - begin_s))
    step_s = max(1, window_s // _STEPS)
    counted = f"count_over_time(count({power})[{window_s}s:{step_s}s])"
    ran_s = sum(row.value for row in samples(door.query(counted, end_s))) * step_s
    return Presence(first_s, last_s, ran_s, now)


class Timeline(NamedTuple):
    """How energy came over time, as the API tells it.

    Attributes:
        grain_s: how long each moment is.
        moments: `start`, `kind`, `energy_kwh`, `energy_uj`, oldest first; their sum is the total.
    """

    grain_s: int
    moments: list[dict[str, Any]]


NO_TIMELINE = Timeline(_LEAST_GRAIN_S, [])


def timeline(fleet: Fleet, matchers: Sequence[str], begin_s: float, end_s: float) -> Timeline:
    """The energy of a job in at most so many moments: what its counters moved by in each.

    What came before the first sample counts to it, since the counter began at 0.

    Args:
        fleet: where; each label set must be of one ledger of its own.
        matchers: that select one job.
        begin_s: when the job began.
        end_s: when it ended.
    """
    grain_s = -(-max(1, round(end_s - begin_s)) // _BUCKETS)
    grain_s = -(-grain_s // _LEAST_GRAIN_S) * _LEAST_GRAIN_S
    first_s = int(begin_s) // grain_s * grain_s
    # Past the end once more: the last commit's sample may come after the power's.
    last_s = -(-int(end_s + 1) // grain_s) * grain_s
    asked_s = min(last_s + grain_s, (fleet.span.until_s - TAIL_S) // grain_s * grain_s)
    rows: list[Course] = []
    if first_s + grain_s <= asked_s:
        inner = promql.selector(ENERGY, [*fleet.match, *matchers], grain_s * 1000)
        asked = f"last_over_time({inner})"
        rows = courses(fleet.door.query_range(asked, first_s + grain_s, asked_s, grain_s))
    known = {target_of(row.labels, ()): row.points for row in rows}
    ends = samples(fleet.ask_last(ENERGY, matchers))
    last_at_s = min(last_s, -(-fleet.span.until_s // grain_s) * grain_s)
    kwh: dict[tuple[int, str], float] = {}
    for end in ends:
        before = 0.0
        for at_s, value in (*known.get(target_of(end.labels, ()), ()), (last_at_s, end.value)):
            moved = value - before if value >= before else value
            before = value
            if moved:
                key = (min(round(at_s), last_s) - grain_s, end.labels.get("kind", ""))
                kwh[key] = kwh.get(key, 0.0) + moved
    return Timeline(
        grain_s,
        [
            {
                "start": iso(start_s * NS_PER_S),
                "kind": kind,
                "energy_kwh": amount,
                "energy_uj": str(round(amount * units.UJ_PER_KWH)),
            }
            for (start_s, kind), amount in sorted(kwh.items())
        ],
    )


def clipped(span: Span, at_s: float) -> bool:
    """Whether an instant lies at the very beginning of a span: what came before is not known."""
    return at_s <= span.since_s + _EDGE_S
