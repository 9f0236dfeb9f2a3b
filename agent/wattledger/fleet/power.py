"""A job's power over time on all nodes together, as its gauge said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from wattledger.fleet import promql
from wattledger.fleet.books import TAIL_S, Fleet
from wattledger.fleet.presence import POWER, Presence
from wattledger.fleet.reply import courses, samples
from wattledger.fleet.targets import label_of
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

_MOMENTS = 64
_LEAST_GRAIN_S = 60
_LOOKS = 20  # at the gauge in each moment
_OVERLAP_S = 120  # of two copies of one ledger; less is the change from one to the other


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
        fleet: where; what cannot be told is noted there.
        matchers: that select one job.
        seen: when it was seen to draw power.
    """
    begin_s, end_s = seen.begin_s, seen.end_s
    if begin_s is None or end_s is None:
        return NO_POWER
    watts = _added_up(fleet, matchers, seen)
    if watts is None:
        return NO_POWER
    # One moment less than there may be: the first and the last may both be cut.
    grain_s = -(-max(1, round(end_s - begin_s)) // (_MOMENTS - 1))
    grain_s = -(-grain_s // _LEAST_GRAIN_S) * _LEAST_GRAIN_S
    first_s = int(begin_s) // grain_s * grain_s
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


def _added_up(fleet: Fleet, matchers: Sequence[str], seen: Presence) -> str | None:
    """PromQL for the power of all nodes at an instant, each once; None: it cannot be asked."""
    copies = _copies(fleet, seen)
    if not promql.few(copies):
        text = f"{len(copies)} nodes are scraped twice under other names: the course of power is "
        fleet.notes[text + "not known"] = None
        return None
    others = [promql.one_of("instance", copies, negative=True)] if copies else []
    each = promql.selector(POWER, [*fleet.match, *matchers, *others])
    if all(fleet.is_simple(target) for target in seen.last_s):
        return f"sum({each})"
    return f"sum(max by (instance) ({each}))"


def _copies(fleet: Fleet, seen: Presence) -> list[str]:
    """Instances under which a ledger was scraped while it was under another one as well."""
    times: dict[int, dict[str, tuple[float, float]]] = {}
    for target, last_s in seen.last_s.items():
        of_node = times.setdefault(fleet.node_of(target), {})
        instance = label_of(target, "instance")
        first_s, until_s = of_node.get(instance, (last_s, last_s))
        of_node[instance] = min(first_s, seen.first_s[target]), max(until_s, last_s)
    copies = []
    for of_node in times.values():
        kept: list[tuple[float, float]] = []
        longest = sorted(of_node.items(), key=lambda item: (item[1][0] - item[1][1], item[0]))
        for instance, (first_s, last_s) in longest:
            if any(min(last_s, end) - max(first_s, begin) > _OVERLAP_S for begin, end in kept):
                copies.append(instance)
            else:
                kept.append((first_s, last_s))
    return copies
