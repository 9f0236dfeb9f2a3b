"""Sums over a fleet's ledgers: each joule once, however it was scraped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from prometheus_fake import STALE, FakeApi
from wattledger.fleet.books import Fleet, Span
from wattledger.fleet.job import find, job
from wattledger.fleet.jobs import jobs
from wattledger.model.jobbooks import JobQuery
from wattledger.units import UJ_PER_KWH

JOB = {"manager": "slurm", "job_id": "4711"}
BEGIN_S = 1_000
EVERY_S = 15


class Life(NamedTuple):
    """An epoch of a node's ledger: pages that were scraped, by what label sets.

    Attributes:
        pages: (joules of the job or None: it is not on the page, which label sets saw it).
    """

    pages: Sequence[tuple[int | None, frozenset[int]]]


page = st.tuples(
    st.none() | st.integers(0, 50),
    st.frozensets(st.integers(0, 1), max_size=2),
)
lives = st.lists(page, min_size=1, max_size=6).map(Life)
fleets = st.lists(st.lists(lives, min_size=1, max_size=3), min_size=1, max_size=3)


def write(api: FakeApi, fleet: Sequence[Sequence[Life]]) -> tuple[dict[int, float], int]:
    """Scrape such a fleet; what the job drew by node, as far as it was scraped, and the end.

    A label set shows one ledger at a time: each scrape of the node is of its present epoch.
    """
    drawn: dict[int, float] = {}
    end_s = BEGIN_S
    for node, epochs in enumerate(fleet):
        at_s = float(BEGIN_S + node)
        shown: dict[tuple[int, str], bool] = {}
        for number, life in enumerate(epochs):
            counter, best = 0, None
            for moved, seen_by in life.pages:
                at_s += EVERY_S
                counter += moved or 0
                for replica in (0, 1):
                    target = {"instance": f"n{node}:1", "replica": f"r{replica}"}
                    info = {**target, "epoch": f"{node}-{number}", "storage": "disk"}
                    on_page = replica in seen_by
                    if on_page:
                        api.write("ledger_info", info, [(at_s, 1.0)])
                        if moved is not None:
                            value = float(counter)
                            api.write("job_energy_kwh_total", {**target, **JOB, "kind": "gpu"},
                                      [(at_s, value)])  # fmt: skip
                            best = counter
                    elif shown.get((replica, "info")):
                        for old in range(number + 1):
                            stale = {**info, "epoch": f"{node}-{old}"}
                            api.write("ledger_info", stale, [(at_s, STALE)])
                    shown[replica, "info"] = on_page
            if best is not None:
                drawn[node] = drawn.get(node, 0.0) + best
        end_s = max(end_s, int(at_s) + 1)
    return drawn, end_s


@settings(max_examples=60, deadline=None)
@given(fleets, st.sampled_from([600, 25_000, 200_000]), st.booleans())
def test_a_job_is_the_sum_of_what_each_epoch_of_each_ledger_showed_last(
    made: list[list[Life]], before_s: int, second: bool
) -> None:
    """However many epochs fall into one part of the span."""
    api = FakeApi(second=second)
    drawn_kwh, end_s = write(api, made)
    drawn = {node: round(kwh * UJ_PER_KWH) for node, kwh in drawn_kwh.items()}
    fleet = Fleet(api, Span(BEGIN_S - before_s, end_s), ())  # type: ignore[arg-type]
    own = ("manager", "job_id", "kind")
    entries = fleet.entries("job_energy_kwh_total", [], own)
    by_node: dict[int, int] = {}
    for entry in entries:
        instance = dict(entry.target)["instance"]
        node = int(instance[1:].partition(":")[0])
        by_node[node] = by_node.get(node, 0) + entry.amount
    assert by_node == drawn
    sums = fleet.sums("job_energy_kwh_total", [], own)
    assert sum(sums.values()) == sum(drawn.values())
    if drawn:
        told = job(fleet, "slurm", "4711")
        assert told["totals"]["energy_kwh"]["total"] == sum(drawn_kwh.values())
        assert told["totals"]["exact"]["energy_uj"] == str(sum(drawn.values()))
        parts = [int(row["totals"]["exact"]["energy_uj"]) for row in told["nodes"]]
        assert sum(parts) == sum(drawn.values())
        (row,) = jobs(fleet, JobQuery())["jobs"]
        assert row["totals"] == told["totals"]


def node(
    api: FakeApi,
    name: str,
    epoch: str,
    points: Sequence[tuple[int, float]],
    *,
    drew_until_s: int = 0,
    pages_until_s: int = 0,
    **labels: str,
) -> None:
    """A node that was scraped every 15 s and on whose page the job was at these times."""
    target = {"instance": name, "job": "wattledger", **labels}
    until_s = pages_until_s or points[-1][0]
    info = [(t, 1.0) for t in range(points[0][0], until_s + 1, EVERY_S)]
    api.write("ledger_info", {**target, "epoch": epoch, "storage": "disk"}, info)
    api.write("job_energy_kwh_total", {**target, **JOB, "kind": "gpu"}, points)
    api.write("job_co2e_grams_total", {**target, **JOB, "basis": "lifecycle"}, points)
    for origin in ("onsite", "grid"):
        api.write("job_water_liters_total", {**target, **JOB, "origin": origin}, points)
    drew = [(t, 500.0) for t, _ in points if t <= (drew_until_s or until_s)]
    api.write("job_power_watts", {**target, **JOB}, drew)
    if drew and drew[-1][0] < until_s:
        api.write("job_power_watts", {**target, **JOB}, [(drew[-1][0] + EVERY_S, STALE)])
    api.write("job_info", {**target, **JOB, "user": "ann"}, [(t, 1.0) for t, _ in points])


def scrapes(begin_s: int, end_s: int, per_scrape: float = 1.0) -> list[tuple[int, float]]:
    return [(t, per_scrape * n) for n, t in enumerate(range(begin_s, end_s + 1, EVERY_S), 1)]


def test_a_node_that_falls_silent_while_the_job_runs_is_named() -> None:
    api = FakeApi()
    node(api, "a:1", "A", scrapes(1000, 2200), drew_until_s=1600)
    node(api, "b:1", "B", scrapes(1000, 1300))
    node(api, "c:1", "C", scrapes(1000, 1900), drew_until_s=1600)  # after the end: nothing lost
    told = job(fleet := Fleet(api, Span(0, 2210), ()), "slurm", "4711", ["a", "b.lab.org", "d"])  # type: ignore[arg-type]
    states = {row["node"]: row["state"] for row in told["nodes"]}
    assert states == {"a:1": "ended", "b:1": "silent", "c:1": "ended"}
    assert told["state"] == "silent"
    silent, absent = told["missing"]
    assert silent.startswith("b:1: nothing was scraped from it since 1970-01-01T00:21:40Z")
    assert absent == "d: nothing of this job was scraped from it"
    assert find(fleet, [("pod", "4711"), ("slurm", "4711")]) == [("slurm", "4711")]
    assert find(fleet, [("pod", "4711")]) == []


def test_a_pod_that_was_replaced_is_the_same_node() -> None:
    api = FakeApi()
    node(api, "10.0.0.7:1", "A", scrapes(1000, 1300), pod="wattledger-x")
    node(api, "10.0.0.9:1", "A", [(t, v + 21) for t, v in scrapes(1330, 1600)], pod="wattledger-y")
    told = job(Fleet(api, Span(0, 1610), ()), "slurm", "4711")  # type: ignore[arg-type]
    (row,) = told["nodes"]
    assert row["node"] == "10.0.0.9:1" and row["state"] == "running"
    assert told["totals"]["energy_kwh"]["gpu"] == 21 + 19


def test_times_are_those_of_scrapes() -> None:
    api = FakeApi()
    node(api, "a:1", "A", scrapes(100_000, 104_000), drew_until_s=103_100, pages_until_s=110_000)
    told = job(Fleet(api, Span(0, 110_010), ()), "slurm", "4711")  # type: ignore[arg-type]
    assert told["start"] == "1970-01-02T03:46:40Z" and told["end"] == "1970-01-02T04:38:10Z"
    assert told["duration_s"] == 3090
    assert told["mean_watts"] == 500
    assert told["missing"] == []


def test_what_is_not_there_is_unknown_and_never_nothing() -> None:
    api = FakeApi()
    target = {"instance": "a:1"}
    api.write("job_energy_kwh_total", {**target, **JOB, "kind": "cpu"}, [(1000, 2.0)])
    told = job(Fleet(api, Span(0, 1100), ()), "slurm", "4711")  # type: ignore[arg-type]
    totals = told["totals"]
    assert totals["energy_kwh"]["cpu"] == 2 and totals["exact"]["energy_uj"] == "7200000000000"
    assert totals["co2e_g"] is totals["water_l"] is totals["held_idle_kwh"] is None
    assert totals["exact"]["co2e_ug"] is totals["held_device_hours"] is None
    assert told["start"] is told["mean_watts"] is told["duration_s"] is told["cost"] is None
    assert any("co2e_grams_total was not scraped" in text for text in told["missing"])
    assert any("no ledger_info" in text for text in told["missing"])
