"""A job's power over all nodes: what its gauge said, whatever its counters stood at."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prometheus_fake import STALE, FakeApi
from wattledger.fleet.books import Fleet, Span
from wattledger.fleet.job import job
from wattledger.job_reports.fleet import receipt
from wattledger.job_reports.timeline import COLUMNS

JOB = {"manager": "slurm", "job_id": "7"}
WATTS = 3000.0
BEGIN_S = 1_200_000
MONTH_S = 30 * 86_400
LINGERS_S = 900


def write(
    api: FakeApi,
    times: Iterable[int],
    pages_until_s: int = 0,
    *,
    before_s: float = 0.0,
    epoch: str = "e",
    watts: float = WATTS,
    every_s: int = 30,
    **target: str,
) -> None:
    """A node on which the job drew steadily at these scrapes, and so long before the first."""
    times = list(times)
    target = {"instance": "gpu01", "job": "wattledger", **target}
    every_s = times[1] - times[0] if len(times) > 1 else every_s
    after = list(range(times[-1] + every_s, pages_until_s + 1, every_s))
    api.write("ledger_info", {**target, "epoch": epoch}, [(t, 1.0) for t in times + after])
    drawn = [(t, watts / 1000 * (before_s + t - times[0]) / 3600) for t in times]
    drawn += [(t, drawn[-1][1]) for t in after if t <= times[-1] + LINGERS_S]
    api.write("job_energy_kwh_total", {**target, **JOB, "kind": "gpu"}, drawn)
    api.write("job_power_watts", {**target, **JOB}, [(t, watts) for t in times])
    if after:
        api.write("job_power_watts", {**target, **JOB}, [(after[0], STALE)])


def fleet(api: FakeApi, now_s: int) -> Fleet:
    return Fleet(api, Span(now_s - MONTH_S, now_s), ())  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(
    phase_s=st.integers(0, 4000),
    every_s=st.sampled_from([10, 15, 30, 60, 120]),
    lasts_s=st.integers(0, 20_000) | st.sampled_from([300_000, 600_000]),
    ago_s=st.sampled_from([None, 1, 7, 30, 59, 60, 61, 90, 600, 40_000]),
    before_s=st.sampled_from([0.0, 5.0, 300.0, 172_800.0, 1e7]),
    second=st.booleans(),
)
@example(phase_s=0, every_s=30, lasts_s=3600, ago_s=None, before_s=300.0, second=False)
@example(phase_s=0, every_s=15, lasts_s=36_005, ago_s=30, before_s=0.0, second=False)
def test_a_steady_job_is_shown_as_steady(
    phase_s: int, every_s: int, lasts_s: int, ago_s: int | None, before_s: float, second: bool
) -> None:
    api = FakeApi(second=second)
    first_s = BEGIN_S + phase_s
    times = range(first_s, first_s + lasts_s + 1, every_s)
    now_s = times[-1] + (every_s // 2 if ago_s is None else every_s + ago_s)
    write(api, times, 0 if ago_s is None else now_s, before_s=before_s, every_s=every_s)
    told = job(fleet(api, now_s), "slurm", "7")
    assert told["state"] == ("running" if ago_s is None else "ended")
    assert told["mean_watts"] == pytest.approx(WATTS)
    assert told["power"] and len(told["power"]) <= COLUMNS
    assert [moment["watts"] for moment in told["power"]] == pytest.approx(
        [WATTS] * len(told["power"])
    )
    power = [line for line in receipt(told) if line.startswith("  power")]
    highest = [line.partition("highest ")[2] for line in receipt(told) if "highest" in line]
    assert len(power) == len(highest) == (1 if len(told["power"]) > 1 else 0)
    if power:
        assert re.fullmatch(r"  power     █+", power[0])
        assert highest == ["3,000 W"]
        assert len(power[0]) <= 80


def test_nodes_one_after_the_other_are_no_sum() -> None:
    """As of a job put back into the queue; and two at once are the sum of both."""
    api = FakeApi()
    half = BEGIN_S + 5 * 3600 + 77
    write(api, range(BEGIN_S, half, 15), half + 36_000)
    write(api, range(half, half + 18_000, 15), half + 36_000, instance="gpu02", epoch="f")
    told = job(fleet(api, half + 36_000), "slurm", "7")
    assert {moment["watts"] for moment in told["power"]} == {WATTS}
    assert told["mean_watts"] == pytest.approx(WATTS)
    api = FakeApi()
    for name in ("gpu01", "gpu02"):
        write(api, range(BEGIN_S, half, 15), half + 600, instance=name, epoch=name)
    told = job(fleet(api, half + 600), "slurm", "7")
    assert {moment["watts"] for moment in told["power"]} == {2 * WATTS}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"replica": "a"}, {"replica": "b"}),
        ({"instance": "gpu01"}, {"instance": "10.0.0.1"}),
    ],
)
def test_a_ledger_that_is_scraped_twice_draws_once(
    first: dict[str, str], second: dict[str, str]
) -> None:
    api = FakeApi()
    until_s = BEGIN_S + 18_000
    write(api, range(BEGIN_S, until_s, 15), until_s + 600, **first)
    write(api, range(BEGIN_S + 7, until_s, 15), until_s + 600, **second)
    write(api, range(BEGIN_S, until_s, 15), until_s + 600, instance="gpu02", epoch="f")
    told = job(fleet(api, until_s + 600), "slurm", "7")
    assert len(told["nodes"]) == 2
    watts = [moment["watts"] for moment in told["power"]]
    assert watts == pytest.approx([2 * WATTS] * len(watts), rel=0.03)  # its edges are not one
    assert told["mean_watts"] == pytest.approx(2 * WATTS, rel=0.001)


def test_many_that_are_scraped_twice_draw_once() -> None:
    """More than a question could name."""
    api = FakeApi()
    times = range(BEGIN_S, BEGIN_S + 600, 60)
    for number in range(120):
        for name in ("gpu{:03}.nodes.cluster.example.org:19400", "nodes/{:03}/cluster.example.org"):
            write(api, times, instance=name.format(number), epoch=f"e{number}")
    told = job(fleet(api, BEGIN_S + 600), "slurm", "7")
    assert len(told["nodes"]) == 120
    assert told["mean_watts"] == pytest.approx(120 * WATTS)
    assert not any("twice" in text for text in told["missing"])


@pytest.mark.parametrize("both_s", [0, 60, 3600])
def test_a_node_that_was_scraped_under_both_names_for_a_while(both_s: int) -> None:
    api = FakeApi()
    half, until_s = BEGIN_S + 5 * 3600, BEGIN_S + 12 * 3600
    write(api, range(BEGIN_S, half + both_s, 15), until_s + 600)
    write(api, range(half, until_s, 15), until_s + 600, before_s=5 * 3600.0, instance="node-1")
    write(api, range(BEGIN_S, until_s, 15), until_s + 600, instance="gpu02", epoch="f")
    told = job(fleet(api, until_s + 600), "slurm", "7")
    assert {moment["watts"] for moment in told["power"]} == {2 * WATTS}
    assert told["mean_watts"] == pytest.approx(2 * WATTS)


@pytest.mark.parametrize("anew", [False, True])
def test_nodes_that_one_instance_names_are_added_up(anew: bool) -> None:
    """As of agents that scrape `localhost` on each node, and tell them apart by another label."""
    api = FakeApi()
    half, until_s = BEGIN_S + 1800, BEGIN_S + 3600
    for replica in ("", "2"):  # then a pair of Prometheus servers
        for host in "ab":
            node = {"instance": "localhost:19400", "host": host, "replica": replica}
            write(api, range(BEGIN_S, half, 15), epoch=host, **node)
            write(api, range(half, until_s, 15), until_s + 600, before_s=1800.0,
                  epoch=f"{host}2" if anew else host, **node)  # fmt: skip
        told = job(fleet(api, until_s + 600), "slurm", "7")
        assert len(told["nodes"]) == 2
        assert {moment["watts"] for moment in told["power"]} == {2 * WATTS}


@settings(max_examples=60, deadline=None)
@given(
    phase_s=st.integers(0, 90),
    every_s=st.sampled_from([1, 15, 30, 60, 120]),
    scrapes=st.integers(1, 60),
    tenths=st.integers(0, 9),
    minutes=st.booleans(),
    anew=st.booleans(),
    second=st.booleans(),
)
@example(phase_s=0, every_s=30, scrapes=1, tenths=0, minutes=True, anew=False, second=False).via(
    "the only sample is of the span's last instant, which begins a moment"
)
@example(phase_s=0, every_s=1, scrapes=60, tenths=5, minutes=True, anew=True, second=True)
def test_what_is_scraped_while_questions_are_asked_changes_nothing(
    phase_s: int,
    every_s: int,
    scrapes: int,
    tenths: int,
    minutes: bool,
    anew: bool,
    second: bool,
) -> None:
    now_s = BEGIN_S + (0 if minutes else phase_s)

    def told(after: int) -> Any:
        """With so many scrapes after the span's end."""
        api = FakeApi(second=second)
        first_s = now_s - (scrapes - 1) * every_s - tenths / 10
        times = [first_s + number * every_s for number in range(scrapes + after)]
        cut = scrapes // 2 if anew else 0
        target = {"instance": "gpu01", "job": "wattledger"}
        for epoch, those in (("e", times[:cut]), ("f", times[cut:scrapes]), ("g", times[scrapes:])):
            if those:
                of = epoch if anew else "f"
                api.write("ledger_info", {**target, "epoch": of}, [(t, 1.0) for t in those])
        drawn = [(t, WATTS / 1000 * (t - first_s) / 3600) for t in times]
        api.write("job_energy_kwh_total", {**target, **JOB, "kind": "gpu"}, drawn)
        api.write("job_power_watts", {**target, **JOB}, [(t, WATTS) for t in times])
        return job(fleet(api, now_s), "slurm", "7")

    answer = told(1)
    assert answer == told(0)
    if minutes:  # else it may have begun after the gauge was looked at for the last time
        assert answer["mean_watts"] == pytest.approx(WATTS)
        assert answer["power"]


def test_a_ledger_begun_anew_and_a_pod_replaced_are_no_gap() -> None:
    api = FakeApi()
    half = BEGIN_S + 18_000
    write(api, range(BEGIN_S, half, 15), pod="x", instance="10.0.0.7:1")
    api.write("job_power_watts", {"instance": "10.0.0.7:1", "job": "wattledger", "pod": "x", **JOB},
              [(half, STALE)])  # fmt: skip
    write(api, range(half + 30, half + 9000, 15), before_s=18_030, pod="y", instance="10.0.0.9:1")
    end_s = half + 18_000
    write(api, range(half + 9000, end_s, 15), end_s + 900, pod="y", instance="10.0.0.9:1",
          epoch="f")  # fmt: skip
    told = job(fleet(api, end_s + 900), "slurm", "7")
    assert {moment["watts"] for moment in told["power"]} == {WATTS}
    assert len(told["power"]) > 50


def test_the_course_of_power_is_that_of_the_gauge() -> None:
    """Half an hour at full power after as long at a tenth; away for ten minutes in between."""
    api = FakeApi()
    half, end_s = BEGIN_S + 1800, BEGIN_S + 4200
    target = {"instance": "gpu01"}
    points = [(t, 300.0) for t in range(BEGIN_S, half, 15)] + [(half, STALE)]
    points += [(t, 3000.0) for t in range(half + 605, end_s, 15)] + [(end_s, STALE)]
    api.write("ledger_info", {**target, "epoch": "e"}, [(t, 1.0) for t, _ in points])
    api.write("job_energy_kwh_total", {**target, **JOB, "kind": "gpu"}, [(end_s, 1.65)])
    api.write("job_power_watts", {**target, **JOB}, points)
    told = job(fleet(api, end_s + 600), "slurm", "7")
    assert told["power_grain_s"] == 120
    watts = [moment["watts"] for moment in told["power"]]
    assert watts == [300.0] * 15 + [3000.0] * 15
    starts = [moment["start"] for moment in told["power"]]
    assert (starts[0], starts[15]) == ("1970-01-14T21:20:00Z", "1970-01-14T22:00:00Z")
    assert told["mean_watts"] == pytest.approx(1650, rel=0.01)
    (line,) = [text for text in receipt(told) if text.startswith("  power")]
    assert line == f"  power     {'▁' * 15}{' ' * 5}{'█' * 15}"


def test_where_no_power_was_scraped_there_is_none() -> None:
    api = FakeApi()
    target = {"instance": "gpu01"}
    api.write("ledger_info", {**target, "epoch": "e"}, [(BEGIN_S, 1.0)])
    api.write("job_energy_kwh_total", {**target, **JOB, "kind": "gpu"}, [(BEGIN_S, 1.0)])
    told = job(fleet(api, BEGIN_S + 60), "slurm", "7")
    assert told["power"] == [] and told["mean_watts"] is None
    assert told["timeline"] is None and "timeline" in told["unknown"]
