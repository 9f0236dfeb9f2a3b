"""The nodes of a job, by whichever name a scheduler and Prometheus call them."""

from __future__ import annotations

import pytest

from prometheus_fake import FakeApi
from wattledger.fleet.books import Fleet, Span
from wattledger.fleet.job import job
from wattledger.job_reports.line import MISSING, lacking_nodes, receipt_line

JOB = {"manager": "slurm", "job_id": "7"}


@pytest.mark.parametrize(
    ("scraped", "ran_on", "absent"),
    [
        ("10.0.0.1", ["10.0.0.1", "10.0.0.2"], ["10.0.0.2"]),
        ("10.0.0.1:19400", ["10.0.0.1", "10.0.0.2", "10.0.1.1"], ["10.0.0.2", "10.0.1.1"]),
        ("fd00::1", ["fd00::1", "fd00::2"], ["fd00::2"]),
        ("[fd00::1]:19400", ["fd00:0::1", "fd00::2"], ["fd00::2"]),
        ("gpu1.lab.org:19400", ["gpu1", "GPU1.other.org", "gpu2.lab.org"], ["gpu2.lab.org"]),
        ("10.lab.org", ["10", "11"], ["11"]),
    ],
)
def test_the_receipt_and_its_line_miss_the_same_nodes(
    scraped: str, ran_on: list[str], absent: list[str]
) -> None:
    api = FakeApi()
    target = {"instance": scraped}
    api.write("ledger_info", {**target, "epoch": "e"}, [(1000, 1.0)])
    api.write("job_energy_kwh_total", {**target, **JOB, "kind": "gpu"}, [(1000, 2.0)])
    api.write("job_co2e_grams_total", {**target, **JOB, "basis": "lifecycle"}, [(1000, 1.0)])
    api.write("job_water_liters_total", {**target, **JOB, "origin": "grid"}, [(1000, 1.0)])
    told = job(Fleet(api, Span(0, 1100), ()), "slurm", "7", ran_on)  # type: ignore[arg-type]
    assert told["missing"] == [
        f"{name}: nothing of this job was scraped from it" for name in absent
    ]
    assert list(lacking_nodes(told, ran_on)) == absent
    assert receipt_line(told, ran_on).endswith(f"{MISSING}{', '.join(absent)}")
