"""When a job was seen to draw power."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wattledger.fleet import promql
from wattledger.fleet.books import Fleet, Span
from wattledger.fleet.reply import samples
from wattledger.fleet.targets import Target, target_of

ENERGY = "job_energy_kwh_total"
POWER = "job_power_watts"
_OWN = ("__name__", "manager", "job_id")
_STEPS = 5000
_MOST_PARTS = 8  # nodes that began or ended at other times than these are told less exactly
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
    power = promql.selector(POWER, [*fleet.match, *matchers])
    now = frozenset(target_of(row.labels, _OWN) for row in samples(door.query(power, span.until_s)))
    seen = fleet.buckets(POWER, matchers, among=among)
    if not seen.rows:
        return Presence({}, {}, 0.0, now)
    # The end of a part of the span is not yet an instant: the samples in it tell.
    first_s = {target_of(row.labels, _OWN): row.points[0][0] for row in seen.rows}
    last_s = {target_of(row.labels, _OWN): row.points[-1][0] for row in seen.rows}
    for at_s in sorted(set(first_s.values()))[:_MOST_PARTS]:
        for row in fleet.raw(POWER, matchers, seen, at_s, among):
            target = target_of(row.labels, _OWN)
            if first_s.get(target) == at_s:
                first_s[target] = row.points[0][0]
    for at_s in sorted(set(last_s.values()), reverse=True)[:_MOST_PARTS]:
        for row in fleet.raw(POWER, matchers, seen, at_s, among):
            target = target_of(row.labels, _OWN)
            if last_s.get(target) == at_s:
                last_s[target] = row.points[-1][0]
    begin_s, end_s = min(first_s.values()), max(last_s.values())
    window_s = max(1, round(end_s - begin_s))
    step_s = max(1, window_s // _STEPS)
    counted = f"count_over_time(count({power})[{window_s}s:{step_s}s])"
    ran_s = sum(row.value for row in samples(door.query(counted, end_s))) * step_s
    return Presence(first_s, last_s, ran_s, now)


def clipped(span: Span, at_s: float) -> bool:
    """Whether an instant lies at the very beginning of a span: what came before is not known."""
    return at_s <= span.since_s + _EDGE_S
