"""A job's power over time on all nodes together, as its gauge said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from wattledger.fleet import promql
from wattledger.fleet.books import TAIL_S, Fleet
from wattledger.fleet.presence import POWER, Presence
from wattledger.fleet.reply import courses, samples, shown
from wattledger.fleet.targets import label_of
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

_MOMENTS = 64
_LEAST_GRAIN_S = 60
_LOOKS = 20  # at the gauge in each moment
_OVERLAP_S = 120  # of two copies of one ledger; less is the change from one to the other
_NAMED = 3

_Time = tuple[float, float]  # from when to when, in Unix seconds
_Times = Mapping[int, Mapping[str, _Time]]  # by node and instance


class Power(NamedTuple):
    """Mean power over time.

    Attributes:
        grain_s: how long each moment is.
        moments: `start` and `watts`, oldest first; those in which nothing was seen are left out.
        mean_watts: over the time in which it was seen; None: it was not.
        unknown: why there are no moments though it was seen; empty otherwise. Totals are whole
            all the same, so that this is none of what an answer lacks.
    """

    grain_s: int
    moments: list[dict[str, Any]]
    mean_watts: float | None
    unknown: str = ""


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
    times = _times(fleet, seen)
    copies, gaps = _copies(times)
    shared = _shared(fleet, times)
    if why := _why_not(copies, gaps, shared if len(seen.last_s) > len(times) else []):
        return NO_POWER._replace(unknown=why)
    watts = _added_up(fleet, matchers, copies, by_instance=not shared)
    # One moment less than there may be: the first and the last may both be cut.
    grain_s = -(-max(1, round(end_s - begin_s)) // (_MOMENTS - 1))
    grain_s = -(-grain_s // _LEAST_GRAIN_S) * _LEAST_GRAIN_S
    # A moment is after its start: the span's last instant begins none.
    first_s = min(int(begin_s), fleet.span.until_s - 1) // grain_s * grain_s
    last_s = max(-(-int(end_s) // grain_s) * grain_s, first_s + grain_s)
    until_s = fleet.span.until_s
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


def _added_up(
    fleet: Fleet, matchers: Sequence[str], copies: Sequence[str], *, by_instance: bool
) -> str:
    """PromQL for the power of all nodes at an instant, each once.

    By instance: of a pair of Prometheus servers, or of a pod that was replaced and is shown for
    some minutes more, one counts.
    """
    others = [promql.one_of("instance", copies, negative=True)] if copies else []
    each = promql.selector(POWER, [*fleet.match, *matchers, *others])
    return f"sum(max by (instance) ({each}))" if by_instance else f"sum({each})"


def _why_not(copies: Sequence[str], gaps: Sequence[str], shared: Sequence[str]) -> str:
    """Why the power of all nodes together cannot be asked, without a full stop; empty: it can."""
    if not promql.few(copies):
        return f"{len(copies)} nodes are scraped twice under other names"
    if gaps:
        was = "was" if len(gaps) == 1 else "were"
        return f"{_some(gaps)} {was} scraped under another name as well, for a part of the time"
    if shared:
        name = "names" if len(shared) == 1 else "name"
        return f"{_some(shared)} {name} several nodes, and a node has several sets of labels"
    return ""


def _times(fleet: Fleet, seen: Presence) -> _Times:
    """From when to when each node was seen under each of its names."""
    times: dict[int, dict[str, _Time]] = {}
    for target, last_s in seen.last_s.items():
        of_node = times.setdefault(fleet.node_of(target), {})
        instance = label_of(target, "instance")
        first_s, until_s = of_node.get(instance, (last_s, last_s))
        of_node[instance] = min(first_s, seen.first_s[target]), max(until_s, last_s)
    return times


def _copies(times: _Times) -> tuple[list[str], list[str]]:
    """Instances under which a ledger was scraped while it was under another one as well.

    Returns:
        All of them, and those that were alone for a time: without them that is not in the sum.
    """
    copies, gaps = list[str](), list[str]()
    for of_node in times.values():
        kept: list[_Time] = []
        left_out: dict[str, _Time] = {}
        longest = sorted(of_node.items(), key=lambda item: (item[1][0] - item[1][1], item[0]))
        for instance, time in longest:
            if any(_both(time, other) for other in kept):
                left_out[instance] = time
            else:
                kept.append(time)
        copies += left_out
        gaps += [name for name, time in left_out.items() if not _covered(time, kept)]
    return copies, gaps


def _shared(fleet: Fleet, times: _Times) -> list[str]:
    """Instances that named several nodes at a time, such as `localhost:19400` of their agents."""
    known = {fleet.node_of(target) for target in fleet.epochs}
    named: dict[str, list[_Time]] = {}
    for node, of_node in times.items():
        for instance, time in of_node.items():
            if node in known:
                named.setdefault(instance, []).append(time)
    return [
        instance
        for instance, those in named.items()
        if any(_both(*pair) for pair in combinations(those, 2))
    ]


def _both(one: _Time, other: _Time) -> bool:
    return min(one[1], other[1]) - max(one[0], other[0]) > _OVERLAP_S


def _covered(time: _Time, by: Iterable[_Time]) -> bool:
    """Whether others go on for all of a time, but for a change from one to the next."""
    covered_s, until_s = time
    for first_s, last_s in sorted(by):
        if first_s <= covered_s + _OVERLAP_S:
            covered_s = max(covered_s, last_s)
    return until_s <= covered_s + _OVERLAP_S


def _some(instances: Sequence[str]) -> str:
    names = ", ".join(shown(name) for name in instances[:_NAMED])
    more = len(instances) - _NAMED
    return f"{names}{f' and {more} more' if more > 0 else ''}"
