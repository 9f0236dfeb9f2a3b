"""Two clusters that count their jobs alike: never added up without a word."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from prometheus_fake import STALE, FakeApi
from wattledger.errors import WattledgerError
from wattledger.fleet.books import Fleet, Span
from wattledger.fleet.job import job
from wattledger.fleet.jobs import jobs
from wattledger.fleet.waste import waste
from wattledger.job_reports.tables import print_jobs
from wattledger.model.jobbooks import JobQuery

JOB = {"manager": "slurm", "job_id": "4711"}
SPAN = Span(500, 1310)
PAGES = range(1000, 1301, 15)


def write(api: FakeApi, node: str, user: str, kwh: float, **labels: str) -> None:
    target = {"instance": node, **labels}
    ones = [(t, 1.0) for t in PAGES]
    api.write("ledger_info", {**target, "epoch": node + str(labels)}, ones)
    api.write("job_energy_kwh_total", {**target, **JOB, "kind": "gpu"}, [(t, kwh) for t in PAGES])
    api.write("job_co2e_grams_total", {**target, **JOB, "basis": "lifecycle"}, ones)
    api.write("job_water_liters_total", {**target, **JOB, "origin": "grid"}, ones)
    api.write("job_info", {**target, **JOB, "user": user}, ones)
    api.write("job_power_watts", {**target, **JOB}, [*ones[:-1], (PAGES[-1], STALE)])
    for name in ("job_held_seconds_total", "job_held_idle_seconds_total"):
        api.write(name, {**target, **JOB}, [(t, 3600 * kwh) for t in PAGES])
    api.write("job_held_idle_joules_total", {**target, **JOB}, [(t, 3.6e5 * kwh) for t in PAGES])


def fleet(api: FakeApi, *match: str) -> Fleet:
    return Fleet(api, SPAN, match)  # type: ignore[arg-type]


def rows_of(answer: Any) -> dict[str | None, tuple[str, float]]:
    return {
        row["cluster"]: (row["labels"]["user"], row["totals"]["energy_kwh"]["total"])
        for row in answer["jobs"]
    }


@pytest.fixture
def two() -> FakeApi:
    made = FakeApi(1310)
    write(made, "n1:1", "ann", 1.0, cluster="a")
    write(made, "n2:1", "ann", 2.0, cluster="a")
    write(made, "n1:1", "bob", 100.0, cluster="b")
    return made


def test_each_clusters_job_is_a_row(two: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    answer = jobs(fleet(two), JobQuery())
    assert rows_of(answer) == {"a": ("ann", 3), "b": ("bob", 100)} and answer["missing"] == []
    assert rows_of(jobs(fleet(two), JobQuery(user="ann"))) == {"a": ("ann", 3)}
    assert rows_of(jobs(fleet(two, 'cluster="b"'), JobQuery())) == {"b": ("bob", 100)}
    assert {row["start"] for row in answer["jobs"]} == {"1970-01-01T00:16:40Z"}
    print_jobs(answer, "table")
    table = capsys.readouterr().out
    assert "a slurm/4711" in table and "b slurm/4711" in table
    print_jobs(answer, "csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["cluster"]: row["energy_kwh"] for row in rows} == {"a": "3.0", "b": "100.0"}


def test_waste_is_that_of_each_ones_user(two: FakeApi) -> None:
    told = waste(two, SPAN, [], "user")  # type: ignore[arg-type]
    hours = {row["group"]: row["held_idle_gpu_hours"] for row in told["rows"]}
    assert hours == {"ann": 3, "bob": 100}


def test_a_receipt_is_of_one_cluster(two: FakeApi) -> None:
    with pytest.raises(WattledgerError, match="cluster=a, cluster=b") as refused:
        job(fleet(two), "slurm", "4711")
    assert "--match cluster=" in refused.value.hint
    one = job(fleet(two, 'cluster="a"'), "slurm", "4711")
    assert one["cluster"] == "a" and len(one["nodes"]) == 2 and one["labels"] == {"user": "ann"}
    assert one["totals"]["energy_kwh"]["total"] == 3


def test_a_cluster_that_got_its_label_later_is_one_cluster() -> None:
    """The same ledger under both sets of labels: its last sample counts, and tells where it is."""
    api = FakeApi(1310)
    for number in (1, 2):
        plain = {"instance": f"n{number}:1"}
        for labels, times in (
            (plain, range(1000, 1150, 15)),
            ({**plain, "cluster": "a"}, range(1150, 1301, 15)),
        ):
            points = [(t, t / 1000) for t in times]
            api.write("ledger_info", {**labels, "epoch": f"e{number}"}, points)
            api.write("job_energy_kwh_total", {**labels, **JOB, "kind": "gpu"}, points)
    told = job(fleet(api), "slurm", "4711")
    assert told["cluster"] == "a" and told["totals"]["energy_kwh"]["total"] == 2 * 1.3
    (row,) = jobs(fleet(api), JobQuery())["jobs"]
    assert row["cluster"] == "a" and row["totals"] == told["totals"]


def test_what_stood_still_while_the_label_came_is_of_one_cluster() -> None:
    """Copies that are equal: of each metric the same one counts, in whatever order they come."""
    api = FakeApi(1310)
    plain = {"instance": "n1:1"}
    both = [plain, {**plain, "cluster": "a"}]
    for labels in both:
        api.write("ledger_info", {**labels, "epoch": "e"}, [(1000, 1.0)])
    for labels in both:
        api.write("job_energy_kwh_total", {**labels, **JOB, "kind": "gpu"}, [(1000, 2.0)])
    for labels in reversed(both):
        api.write("job_co2e_grams_total", {**labels, **JOB, "basis": "lifecycle"}, [(1000, 3.0)])
    (row,) = jobs(fleet(api), JobQuery())["jobs"]
    assert row["cluster"] == "a" and row["totals"]["co2e_g"] == 3
    assert job(fleet(api), "slurm", "4711")["totals"] == row["totals"]


def test_without_the_label_it_is_as_it_was_but_two_users_are_told_of() -> None:
    api = FakeApi(1310)
    write(api, "n1:1", "ann", 1.0)
    write(api, "n2:1", "ann", 2.0)
    told = job(fleet(api), "slurm", "4711")
    assert told["cluster"] is None and told["missing"] == []
    answer = jobs(fleet(api), JobQuery())
    assert rows_of(answer) == {None: ("ann", 3)} and answer["missing"] == []
    write(api, "n3:1", "bob", 4.0)
    for missing in (
        jobs(fleet(api), JobQuery())["missing"],
        job(fleet(api), "slurm", "4711")["missing"],
        waste(api, SPAN, [], "user")["missing"],  # type: ignore[arg-type]
    ):
        (sentence,) = missing
        assert sentence.startswith("slurm/4711: more than one user is shown for that id")
