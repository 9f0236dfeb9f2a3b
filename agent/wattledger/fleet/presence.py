"""When a job was seen to draw power, and how its energy came over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from wattledger import units
from wattledger.fleet import promql
from wattledger.fleet.books import Fleet, Span, Target, target_of
from wattledger.fleet.reply import courses, samples
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

_OWN = ("__name__", "manager", "job_id")
_COARSE_STEPS = 500
_FINE_STEPS = 5000
_BUCKETS = 64
_LEAST_GRAIN_S = 60


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


def presence(fleet: Fleet, matchers: Sequence[str]) -> Presence:
    """When a job ran: first in coarse steps over the whole span, then in fine ones over its time.

    Args:
        fleet: where.
        matchers: that select one job.
    """
    span, door = fleet.span, fleet.door
    all_of = [*fleet.match, *matchers]
    power = promql.selector("job_power_watts", all_of)
    now = frozenset(target_of(row.labels, _OWN) for row in samples(door.query(power, span.until_s)))
    step_s = max(1, span.window_ms // 1000 // _COARSE_STEPS)
    counted = f"count_over_time({promql.selector('job_power_watts', all_of, step_s * 1000)})"
    rows = courses(
        door.query_range(counted, span.since_s + step_s, span.until_s + step_s - 1, step_s)
    )
    seen_s = [at_s for row in rows for at_s, _ in row.points]
    if not seen_s:
        return Presence({}, {}, 0.0, now)
    begin_s, end_s = max(span.since_s, min(seen_s) - step_s), min(span.until_s, max(seen_s))
    window_s = max(1, round(end_s - begin_s))
    fine_s = max(1, window_s // _FINE_STEPS)
    window = f"[{window_s}s:{fine_s}s]"

    def when(name: str) -> dict[Target, float]:
        asked = f"{name}(timestamp({power}){window})"
        return {target_of(row.labels, _OWN): row.value for row in samples(door.query(asked, end_s))}

    ran = samples(door.query(f"count_over_time(count({power}){window})", end_s))
    ran_s = sum(row.value for row in ran) * fine_s
    return Presence(when("min_over_time"), when("max_over_time"), ran_s, now)


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
    last_s = -(-int(end_s + 1) // grain_s) * grain_s
    inner = promql.selector("job_energy_kwh_total", [*fleet.match, *matchers], grain_s * 1000)
    # Past the end once more: the last commit's sample may come after the power's.
    asked = f"last_over_time({inner})"
    rows = courses(fleet.door.query_range(asked, first_s + grain_s, last_s + grain_s, grain_s))
    kwh: dict[tuple[int, str], float] = {}
    for row in rows:
        before = 0.0
        for at_s, value in row.points:
            moved = value - before if value >= before else value
            before = value
            if moved:
                key = (min(round(at_s), last_s) - grain_s, row.labels.get("kind", ""))
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
    return at_s <= span.since_s + max(60.0, span.window_ms / 1000 / _COARSE_STEPS)
