"""A job's power over time on all nodes together, as its gauge said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from wattledger.fleet import promql
from wattledger.fleet.books import TAIL_S, Fleet
from wattledger.fleet.presence import POWER, Presence
from wattledger.fleet.reply import courses, samples
from wattledger.fleet.targets import instances_of
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

_MOMENTS = 64
_LEAST_GRAIN_S = 60
_LOOKS = 20  # at the gauge in each moment


class Power(NamedTuple):
    """Mean power over time.

    Attributes:
        grain_s: how long each moment is.
        moments: `start` and `watts`, oldest first; those in which nothing was seen are left out.
        mean_watts: over the time in which it was seen; None: it was not.
    """

    grain_s: int
    moments: list[dict[str, Any]]
    mean_watts: float | None


NO_POWER = Power(_LEAST_GRAIN_S, [], None)


def power(fleet: Fleet, matchers: Sequence[str], seen: Presence) -> Power:
    """The mean power of a job in at most 64 moments.

    Of the gauge and not of the energy's counters: what those moved by before the first scrape and
    after the last is of a time that is not known. Nodes are added up at each instant, so that of a
    job put back into the queue those of one run are not added to those of another.

    Args:
        fleet: where.
        matchers: that select one job.
        seen: when it was seen to draw power.
    """
    begin_s, end_s = seen.begin_s, seen.end_s
    if begin_s is None or end_s is None:
        return NO_POWER
    watts = _added_up(fleet, matchers, seen)
    # One moment less than there may be: the first and the last may both be cut.
    grain_s = -(-max(1, round(end_s - begin_s)) // (_MOMENTS - 1))
    grain_s = -(-grain_s // _LEAST_GRAIN_S) * _LEAST_GRAIN_S
    until_s = fleet.span.until_s
    # A moment is after its start: the span's last instant begins none.
    first_s = min(int(begin_s), until_s - 1) // grain_s * grain_s
    last_s = max(-(-int(end_s) // grain_s) * grain_s, first_s + grain_s)
    whole_s = max(first_s, min(last_s, (until_s - TAIL_S) // grain_s * grain_s))
    step_s = max(1, grain_s // _LOOKS)
    found: dict[int, float] = {}  # by when a moment begins
    if whole_s > first_s:
        asked = f"avg_over_time({watts}[{grain_s}s:{step_s}s])"
        for row in courses(fleet.door.query_range(asked, first_s + grain_s, whole_s, grain_s)):
            found |= {round(at_s) - grain_s: value for at_s, value in row.points}
    for start_s in range(whole_s, last_s, grain_s):
        window_s = min(start_s + grain_s, until_s) - start_s
        asked = f"avg_over_time({watts}[{window_s}s:{min(step_s, window_s)}s])"
        for sample in samples(fleet.door.query(asked, start_s + window_s)):
            found[start_s] = sample.value
    ran_s = {
        start_s: max(1.0, min(start_s + grain_s, end_s) - max(start_s, begin_s))
        for start_s in found
    }
    return Power(
        grain_s,
        [{"start": iso(at_s * NS_PER_S), "watts": found[at_s]} for at_s in sorted(found)],
        sum(found[at_s] * ran_s[at_s] for at_s in found) / sum(ran_s.values()) if found else None,
    )


def _added_up(fleet: Fleet, matchers: Sequence[str], seen: Presence) -> str:
    """PromQL for the power of all nodes at an instant: that of each ledger once.

    However many label sets show a ledger, and whatever its node is called by then: as in
    deploy/prometheus/rules/recording.yml the epoch is that of the page's own `ledger_info`, the one
    that was seen last.
    """
    each = promql.selector(POWER, [*fleet.match, *matchers])
    if not all(fleet.knows(target) for target in seen.last_s):
        return f"sum(max by (instance) ({each}))"
    names = instances_of(seen.last_s)
    there = [promql.one_of("instance", names)] if promql.few([*names, *names]) else []
    ledger = promql.selector("ledger_info", [*fleet.match, *there])
    last = f"topk without (epoch, storage) (1, timestamp({ledger}) * {ledger}) > bool 0"
    own = "manager, job_id, epoch, storage"
    return f"sum(max by (epoch) ({each} * ignoring ({own}) group_left (epoch) ({last})))"
