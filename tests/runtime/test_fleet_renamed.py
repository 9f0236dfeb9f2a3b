"""A node that is renamed while a job runs, and one that is scraped only since the span began."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from prometheus_fake import STALE, FakeApi
from wattledger.fleet.books import Fleet, Span
from wattledger.fleet.job import job
from wattledger.fleet.jobs import jobs
from wattledger.fleet.waste import waste
from wattledger.model.jobbooks import JobQuery
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

JOB = {"manager": "slurm", "job_id": "7"}
DAY_S = 86_400
END_S = 800 * DAY_S


def write(
    api: FakeApi,
    times: Iterable[int],
    target: dict[str, str],
    began_s: int = 0,
    *,
    epoch: str = "e",
    stale_s: int = 0,
    gpus: int = 1,
    **job_labels: str,
) -> None:
    """A node whose job held GPUs since so long, half of the time idle, at 70 W."""
    times = list(times)
    ones = [(t, 1.0) for t in times]
    of = {**target, **JOB, **job_labels}
    rates = {
        "job_held_seconds_total": 1.0,
        "job_held_idle_seconds_total": 0.5,
        "job_held_idle_joules_total": 35.0,
    }
    series: list[tuple[str, dict[str, str], Any]] = [
        ("ledger_info", {**target, "epoch": epoch}, ones),
        ("ledger_epoch_start_timestamp_seconds", target, [(t, float(began_s)) for t in times]),
        ("job_info", {**of, "user": "ann"}, ones),
        ("job_power_watts", of, [(t, 70.0 * gpus) for t in times]),
        ("job_co2e_grams_total", {**of, "basis": "lifecycle"}, ones),
        ("job_water_liters_total", {**of, "origin": "grid"}, ones),
        (
            "job_energy_kwh_total",
            {**of, "kind": "gpu"},
            [(t, 70 / 3.6e6 * gpus * (t - began_s)) for t in times],
        ),
        (
            "payee_energy_joules_total",
            {**target, "kind": "gpu", "payee": "idle"},
            [(t, 500.0 * (t - began_s)) for t in times],
        ),
    ]
    for name, rate in rates.items():
        series.append((name, of, [(t, rate * gpus * (t - began_s)) for t in times]))
    for name, labels, points in series:
        api.write(name, labels, [*points, *([(stale_s, STALE)] if stale_s else [])])


def ask(api: FakeApi, since_s: int, until_s: int = END_S) -> Any:
    api.now_s = until_s
    return waste(api, Span(since_s, until_s), [], "user")  # type: ignore[arg-type]


# ── another cluster's name ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("old", "new"), [("old-b", "alpha"), ("", "alpha"), ("alpha", "beta")])
@pytest.mark.parametrize("gone_s", [0, 3600])
@pytest.mark.parametrize("marked", [True, False])
def test_a_cluster_that_is_renamed_while_a_job_runs_is_the_new_one(
    old: str, new: str, gone_s: int, marked: bool
) -> None:
    """Counters that stood still are equal under both; all of them are of the newer name."""
    api = FakeApi()
    change_s, until_s = END_S - 3600, END_S + gone_s
    for number in (1, 2):
        node = {"instance": f"n{number}:1"}
        write(api, range(END_S - 7200, change_s, 30), {**node, "cluster": old} if old else node,
              END_S - 7200, epoch=f"e{number}", stale_s=change_s if marked else 0)  # fmt: skip
        write(api, range(change_s, END_S, 30), {**node, "cluster": new}, END_S - 7200,
              epoch=f"e{number}", stale_s=END_S)  # fmt: skip
    fleet = Fleet(api, Span(END_S - 10_000, until_s), ())  # type: ignore[arg-type]
    told = job(fleet, "slurm", "7")
    assert told["cluster"] == new
    assert {row["labels"]["cluster"] for row in told["nodes"]} == {new}
    assert {row["start"] for row in told["nodes"]} == {iso((END_S - 7200) * NS_PER_S)}
    (row,) = jobs(fleet, JobQuery())["jobs"]
    assert row["cluster"] == new and row["totals"] == told["totals"]


def test_what_was_held_before_the_rename_is_not_held_again() -> None:
    api = FakeApi()
    begin_s, change_s, since_s = END_S - 20 * DAY_S, END_S - 3600, END_S - 2 * 3600
    node = {"instance": "n1:1"}
    for name, times in (
        ("old-b", range(begin_s, change_s, 60)),
        ("alpha", range(change_s, END_S + 1, 60)),
    ):
        write(api, times, {**node, "cluster": name}, begin_s,
              stale_s=change_s if name == "old-b" else 0)  # fmt: skip
    told = ask(api, since_s)
    (row,) = told["rows"]
    assert row["held_gpu_hours"] == 2 and row["held_idle_gpu_hours"] == 1
    assert row["held_kwh"] == pytest.approx(0.14) and row["held_idle_kwh"] == pytest.approx(0.07)
    assert told["idle"]["energy_kwh"] == pytest.approx(1) and told["missing"] == []


# ── a ledger that is older than what was scraped of it ──────────────────────────────────────────


def test_what_an_old_ledger_counted_before_it_was_scraped_is_not_held_in_the_span() -> None:
    """A service of a year on a node that a new Prometheus scrapes since an hour."""
    api = FakeApi()
    began_s, first_s = END_S - 365 * DAY_S, END_S - 3600
    write(api, range(first_s, END_S + 1, 30), {"instance": "a:1"}, began_s)
    told = ask(api, END_S - 7 * DAY_S)
    (row,) = told["rows"]
    assert row["held_gpu_hours"] == 1 and row["held_idle_gpu_hours"] == 0.5
    assert row["held_kwh"] == pytest.approx(0.07) and row["held_idle_kwh"] == pytest.approx(0.035)
    assert told["idle"]["energy_kwh"] == pytest.approx(0.5)
    (sentence,) = told["missing"]
    assert sentence.startswith("a:1: first scraped within this span")


@pytest.mark.parametrize("twice", [False, True])
def test_a_job_that_began_later_there_is_told_whole(twice: bool) -> None:
    api = FakeApi()
    first_s, later_s = END_S - DAY_S, END_S - 7200
    for replica in ("a", "b") if twice else ("a",):
        node = {"instance": "a:1", "replica": replica}
        write(api, range(first_s, END_S + 1, 30), node, END_S - 365 * DAY_S)
        # Scraped for the first time after ten minutes.
        times = range(later_s + 600, END_S + 1, 30)
        for name in ("job_held_seconds_total", "job_held_idle_seconds_total"):
            points = [(t, float(t - later_s)) for t in times]
            api.write(name, {**node, **JOB, "job_id": "8"}, points)
        api.write("job_info", {**node, **JOB, "job_id": "8", "user": "bob"}, [(END_S, 1.0)])
    told = ask(api, END_S - 7 * DAY_S)
    hours = {row["group"]: row["held_gpu_hours"] for row in told["rows"]}
    assert hours == {"ann": 24, "bob": 2}
    assert len(told["missing"]) == 1


def test_ledgers_of_the_span_and_of_before_are_told_whole() -> None:
    api = FakeApi()
    since_s = END_S - 7 * DAY_S
    # Scraped all the time; begun in the span; away when it began; replaced by another pod.
    write(api, range(since_s - DAY_S, END_S + 1, 120), {"instance": "a:1"}, since_s - 5 * DAY_S,
          epoch="a")  # fmt: skip
    write(api, range(END_S - DAY_S + 60, END_S + 1, 120), {"instance": "b:1"}, END_S - DAY_S,
          epoch="b")  # fmt: skip
    away = [*range(since_s - DAY_S, since_s - 3600 + 1, 60), *range(since_s + 3600, END_S + 1, 60)]
    write(api, away, {"instance": "c:1"}, since_s - 5 * DAY_S, epoch="c")
    for name, times in (
        ("d:1", range(since_s - DAY_S, END_S - DAY_S, 120)),
        ("d:2", range(END_S - DAY_S, END_S + 1, 120)),
    ):
        write(api, times, {"instance": name}, since_s - 5 * DAY_S, epoch="d",
              stale_s=END_S - DAY_S if name == "d:1" else 0)  # fmt: skip
    told = ask(api, since_s)
    (row,) = told["rows"]
    assert told["missing"] == []
    hours = 168 + 24 + (168 + 1) + 168
    assert row["held_gpu_hours"] == pytest.approx(hours, abs=0.05)
    assert row["held_kwh"] == pytest.approx(0.07 * hours, abs=0.05)


def test_many_new_nodes_are_told_in_one_sentence_and_few_questions() -> None:
    api = FakeApi()
    for number in range(250):
        first_s = END_S - 3600 + 5 * number
        write(api, range(first_s, END_S + 1, 60), {"instance": f"gpu{number:03}:19400"},
              END_S - 365 * DAY_S, epoch=f"e{number}")  # fmt: skip
    told = ask(api, END_S - 7 * DAY_S)
    (sentence,) = told["missing"]
    assert "gpu002:19400 and 247 more" in sentence
    (row,) = told["rows"]
    seen_s = sum((3600 - 5 * number) // 60 * 60 for number in range(250))
    assert row["held_gpu_hours"] == pytest.approx(seen_s / 3600)
    assert len(api.asked) < 120
