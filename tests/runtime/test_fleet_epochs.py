"""Many nodes whose ledgers were begun anew: few questions, and every microjoule."""

from __future__ import annotations

import random
from urllib.parse import urlencode

import pytest

from prometheus_fake import STALE, FakeApi
from wattledger.fleet.books import Fleet, Span
from wattledger.fleet.job import job
from wattledger.fleet.jobs import jobs
from wattledger.model.jobbooks import JobQuery
from wattledger.units import UJ_PER_KWH

JOB = {"manager": "slurm", "job_id": "1"}
NODES = 40
EVERY_S = 60
BEGIN_S = 10_000
SINGLE = {
    "job_held_seconds_total": {},
    "job_held_idle_joules_total": {},
    "job_held_idle_seconds_total": {},
    "job_co2e_grams_total": {"basis": "lifecycle"},
    "job_water_liters_total": {"origin": "grid"},
}


def anew(api: FakeApi, apart_s: int, epochs: int, nodes: int = NODES) -> tuple[int, int]:
    """Nodes that were begun anew so far apart; what the job drew in µJ, and when it ended."""
    drawn_uj, end_s = 0, 0
    latest: dict[int, tuple[dict[str, str], int]] = {}
    rnd = random.Random(nodes + apart_s)
    for number in range(nodes):
        target = {"instance": f"gpu{number:04}.cluster.example.org:19400", "job": "wattledger"}
        at_s = BEGIN_S
        for epoch in range(epochs):
            lasts_s = 600 + (apart_s * number if epoch == 0 else 0)
            times = range(at_s, at_s + lasts_s, EVERY_S)
            info = {**target, "epoch": f"{number}-{epoch}", "storage": "volatile"}
            api.write("ledger_info", info, [(t, 1.0) for t in times])
            api.write("ledger_info", info, [(times[-1] + EVERY_S, STALE)])
            uj = rnd.randrange(10**13, 10**14)
            drawn_uj += uj
            # A whole epoch may come to more than the one before showed: no fall tells them apart.
            kwh = [(t, uj * (n + 1) / len(times) / UJ_PER_KWH) for n, t in enumerate(times)]
            api.write("job_energy_kwh_total", {**target, **JOB, "kind": "gpu"}, kwh)
            for name, own in SINGLE.items():
                api.write(name, {**target, **JOB, **own}, [(t, t - at_s) for t in times])
            api.write("job_power_watts", {**target, **JOB}, [(t, 1.0) for t in times])
            at_s = times[-1] + 3 * EVERY_S
            end_s = max(end_s, at_s)
        api.write("job_power_watts", {**target, **JOB}, [(times[-1] + EVERY_S, STALE)])
        latest[number] = info, at_s
    for info, since_s in latest.values():  # the job has ended there, and the node is there
        api.write("ledger_info", info, [(t, 1.0) for t in range(since_s, end_s + 1, EVERY_S)])
    return drawn_uj, end_s


@pytest.mark.parametrize(
    ("apart_s", "epochs", "most"),
    [
        (0, 2, 45),  # a whole fleet that was imaged anew at once
        (1, 2, 45),  # within two minutes, one after the other
        (180, 2, 110),  # each at a time of its own
        (180, 3, 150),
    ],
)
@pytest.mark.parametrize("what", ["jobs", "job"])
def test_ledgers_begun_anew_are_asked_about_together(
    what: str, apart_s: int, epochs: int, most: int
) -> None:
    api = FakeApi()
    drawn_uj, end_s = anew(api, apart_s, epochs)
    fleet = Fleet(api, Span(end_s - 86_400, end_s), ())  # type: ignore[arg-type]
    if what == "jobs":
        (told,) = jobs(fleet, JobQuery())["jobs"]
    else:
        told = job(fleet, "slurm", "1")
        assert len(told["nodes"]) == NODES and told["missing"] == []
        parts = [int(row["totals"]["exact"]["energy_uj"]) for row in told["nodes"]]
        assert sum(parts) == drawn_uj
    assert told["totals"]["exact"]["energy_uj"] == str(drawn_uj)
    assert len(api.asked) < most
    assert max(len(urlencode({"query": query})) for query in api.asked) < 7500


def test_integers_of_many_nodes_are_exact() -> None:
    api = FakeApi()
    rnd = random.Random(3)
    drawn_uj = [rnd.randrange(10**15, 2 * 10**15) for _ in range(400)]  # 280 to 560 kWh each
    for number, uj in enumerate(drawn_uj):
        target = {"instance": f"n{number}:1"}
        api.write("ledger_info", {**target, "epoch": f"e{number}"}, [(1000, 1.0)])
        kwh = [(1000, uj / UJ_PER_KWH)]
        api.write("job_energy_kwh_total", {**target, **JOB, "kind": "gpu"}, kwh)
    told = job(Fleet(api, Span(0, 1100), ()), "slurm", "1")  # type: ignore[arg-type]
    assert told["totals"]["exact"]["energy_uj"] == str(sum(drawn_uj))
    parts = [int(row["totals"]["exact"]["energy_uj"]) for row in told["nodes"]]
    assert sorted(parts) == sorted(drawn_uj)


def test_the_server_adds_whole_units_too() -> None:
    api = FakeApi()
    rnd = random.Random(5)
    drawn_uj = [rnd.randrange(10**12, 10**13) for _ in range(800)]
    for number, uj in enumerate(drawn_uj):
        target = {"instance": f"n{number}:1"}
        api.write("ledger_info", {**target, "epoch": f"e{number}"}, [(1000, 1.0)])
        kwh = [(1000, uj / UJ_PER_KWH)]
        api.write("job_energy_kwh_total", {**target, **JOB, "kind": "gpu"}, kwh)
    (row,) = jobs(Fleet(api, Span(0, 1100), ()), JobQuery())["jobs"]  # type: ignore[arg-type]
    assert row["totals"]["exact"]["energy_uj"] == str(sum(drawn_uj))


def test_what_priced_the_nodes_while_the_job_ran_is_told() -> None:
    api = FakeApi()
    anew(api, 0, 1, nodes=3)
    name = "grid_carbon_intensity_grams_per_kwh"
    for number, zone in enumerate(("DE", "DE", "FR", "PL")):  # on the last node it did not run
        node = {"instance": f"gpu{number:04}.cluster.example.org:19400", "job": "wattledger"}
        source = {**node, "grid_zone": zone, "source": "x", "basis": "lifecycle"}
        api.write(name, {**source, "estimated": "true"}, [(9_000, 1.0), (9_100, 1.0)])
        early, late = {**source, "estimated": "false"}, {**source, "source": "table"}
        api.write(name, {**early}, [(10_000 + t, 300.0) for t in range(0, 600, 60)])
        api.write(name, {**late, "estimated": "true"}, [(11_000, 300.0)])  # after its end
    told = job(Fleet(api, Span(0, 12_000), ()), "slurm", "1")  # type: ignore[arg-type]
    assert told["grid_shown"] == [
        {"zone": zone, "source": "x", "basis": "lifecycle", "estimated": False}
        for zone in ("DE", "FR")
    ]
    assert told["grid"] is None and "grid" in told["unknown"]


def test_of_samples_as_they_were_scraped_none_is_after_the_span() -> None:
    """Nor does one less belong to the last part, though it is asked about at its end."""
    api = FakeApi()
    api.write("ledger_info", {"instance": "a:1", "epoch": "e"}, [(t, 1.0) for t in range(0, 95, 5)])
    fleet = Fleet(api, Span(0, 90), ())  # type: ignore[arg-type]
    api.write("ledger_info", {"instance": "a:1", "epoch": "e"}, [(91, 1.0), (99, 1.0)])
    seen = fleet.buckets("ledger_info", ())
    ((*_, last_s),) = [[at_s for at_s, _ in row.points] for row in seen.rows]
    (row,) = fleet.raw("ledger_info", (), seen, last_s)
    times = [at_s for at_s, _ in row.points]
    assert times[-1] == 90 and times[0] <= 90 - seen.tail_s
