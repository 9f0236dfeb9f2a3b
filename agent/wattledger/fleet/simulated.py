"""Which nodes played a scenario instead of metering GPUs: their figures stay in every total."""

from __future__ import annotations

from collections.abc import Collection

from wattledger.fleet import promql
from wattledger.fleet.books import Fleet
from wattledger.fleet.reply import samples, shown
from wattledger.fleet.targets import Target, node_name, target_of

_OWN = ("__name__", "version", "simulated")
_NODES_NAMED = 3


def simulated(
    fleet: Fleet,
    among: Collection[Target] | None = None,
    ran: tuple[float, float] | None = None,
) -> str:
    """The scenarios played at any time, and where; empty: all is real.

    Args:
        fleet: where.
        among: whose figures are shown, by all that they were ever called; None: everybody's.
        ran: from when to when (Unix seconds, both of a scrape); None: the whole span.
    """
    begin_s, end_s = ran or fleet.span
    window_ms = round((end_s - begin_s) * 1000) + 1  # with the first scrape
    inner = promql.selector("build_info", [*fleet.match, 'simulated!=""'], window_ms)
    found: dict[str, set[str]] = {}
    for row in samples(fleet.door.query(f"last_over_time({inner})", end_s)):
        target = target_of(row.labels, _OWN)
        if among is None or target in among:
            found.setdefault(row.labels.get("simulated", ""), set()).add(node_name(target))
    return "; ".join(f"{shown(name)} on {_some(nodes)}" for name, nodes in sorted(found.items()))


def _some(nodes: Collection[str]) -> str:
    names = [shown(name) for name in sorted(nodes)[:_NODES_NAMED]]
    more = len(nodes) - len(names)
    return f"{', '.join(names)}{f' and {more} more' if more else ''}"
