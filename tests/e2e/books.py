"""Do the books of a daemon balance, and do they hold what the hardware counted?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

from e2e.daemon import Daemon
from waiting import wait_until

T = TypeVar("T")


def balanced(daemon: Daemon) -> dict[str, dict[str, int]]:
    """Totals by device as exact integers.

    Fails the test where those by device, payee or kind do not sum to the node's, or the page's not.
    """
    quantities = ("energy_uj", "co2e_ug", "water_onsite_ul", "water_grid_ul")

    def read(by: str) -> dict[str, dict[str, int]]:
        answer = daemon.api(f"totals?by={by}")
        rows = {row["group"]: {q: int(row[q]) for q in quantities} for row in answer["rows"]}
        for quantity in quantities:
            total = sum(row[quantity] for row in rows.values())
            assert total == int(answer["total"][quantity])
        return rows

    def whole(rows: Mapping[str, Mapping[str, int]]) -> list[int]:
        return [sum(row[q] for row in rows.values()) for q in quantities]

    def beside_the_node(ask: Callable[[], T]) -> tuple[list[int], T]:
        """An answer, and the node's totals when no commit fell between the two."""

        def both() -> tuple[list[int], T] | None:
            before, answer = whole(read("all")), ask()
            return (before, answer) if whole(read("all")) == before else None

        found: tuple[list[int], T] = wait_until(both, what="questions between two commits")
        return found

    for by in ("payee", "kind", "device"):
        node, rows = beside_the_node(partial(read, by))
        assert whole(rows) == node, by
    (energy_uj, *_), page = beside_the_node(daemon.scrape)
    shown_j = page.sum("energy_joules_total")
    assert abs(shown_j * 1e6 - energy_uj) < 1 + energy_uj * 1e-12
    return rows


class Checkpoint(NamedTuple):
    """What the ledger last read of a device's counter, and all it has booked of it."""

    name: str
    raw_uj: int
    range_uj: int | None
    boottime_ns: int
    wall_ns: int
    booked_uj: int


def checkpoints(daemon: Daemon) -> dict[str, Checkpoint]:
    """Of each device that has a counter; while no daemon runs."""
    rows = daemon.query(
        "SELECT name, raw_uj, range_uj, at_boottime_ns, at_wall_ns,"
        " (SELECT coalesce(sum(energy_uj), 0) FROM total WHERE device_id = id)"
        " FROM device WHERE raw_uj IS NOT NULL"
    )
    return {row[0]: Checkpoint(*row) for row in rows}


def assert_exact(first: Mapping[str, Checkpoint], now: Mapping[str, Checkpoint]) -> None:
    """What was booked is what the counter moved by, to the µJ: nothing twice, nothing lost."""
    assert now.keys() == first.keys()
    for name, end in now.items():
        moved_uj = end.raw_uj - first[name].raw_uj
        if end.range_uj is not None:
            moved_uj %= end.range_uj  # at most one wrap in the minutes of a test
        booked_uj = end.booked_uj - first[name].booked_uj
        assert booked_uj == moved_uj, f"{name}: booked {booked_uj} µJ, counted {moved_uj} µJ"
