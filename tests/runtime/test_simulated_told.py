"""Whatever tells figures of simulated GPUs says so: text, lines, CSV and JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import snapshots
from asking import ALICE, Asker
from fakes import START_WALL_NS, FakeClock
from ledgers import GPU, batch, key, opened
from prometheus_fake import FakeApi
from wattledger.cli import main
from wattledger.fleet.books import Fleet, Span
from wattledger.fleet.job import job
from wattledger.job_reports.fleet import receipt
from wattledger.job_reports.line import receipt_line
from wattledger.model.jobs import JobRun, job_payee
from wattledger.units import NS_PER_S
from wattledger_exporters.receipts import receipt_text

SAID = "SIMULATED (eight)"
PATHS = (
    "/api/v1/totals?by=kind",
    "/api/v1/jobs",
    "/api/v1/jobs/slurm/4711",
    "/api/v1/waste?by=user",
)
COMMANDS = (["report"], ["jobs"], ["job", "4711"], ["waste"], ["job", "4711", "--line"])


@pytest.fixture(params=["eight", ""])
def scenario(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def asker_of(scenario: str) -> Asker:
    asker = Asker()
    asker.daemon.state = replace(snapshots.with_jobs(), simulated=scenario)
    return asker


@pytest.mark.parametrize("path", PATHS)
def test_the_daemon_tells_it_beside_figures(path: str, scenario: str) -> None:
    code, body = asker_of(scenario).ask(path, ALICE)
    assert code == 200
    assert body["simulated"] == (scenario or None)


def test_a_receipt_of_a_command_does(scenario: str) -> None:
    asker = asker_of(scenario)
    asker.ask("/api/v1/runs", ALICE, method="POST")
    code, body = asker.ask("/api/v1/runs/1", ALICE)
    assert (code, body["simulated"]) == (200, scenario or None)
    assert (SAID in receipt_text(body)) is bool(scenario)
    assert (SAID in receipt_text({**body, "complete": False})) is bool(scenario)
    del body["simulated"]  # an older daemon
    assert "SIMULATED" not in receipt_text(body)


def test_a_receipt_of_one_line_does(scenario: str) -> None:
    _, body = asker_of(scenario).ask("/api/v1/jobs/slurm/4711", ALICE)
    line = receipt_line(body)
    assert (f"wattledger: slurm/4711: {SAID}, " in line.replace(" so far", "")) is bool(scenario)
    assert ("SIMULATED" in line) is bool(scenario)


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    run = JobRun(job_payee("slurm", "4711", START_WALL_NS), uid=1001, labels={"user": "alice"})
    run = replace(run, last_seen_ns=START_WALL_NS + 60 * NS_PER_S)
    clock = FakeClock()
    books = opened(tmp_path / "l.sqlite", clock)
    booked = {key(START_WALL_NS // NS_PER_S, GPU.name, run.payee): 3_600_000_000_000}
    books.commit(batch(booked, runs=(run,)), clock.now())
    books.close()
    return str(tmp_path / "l.sqlite")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_commands_say_it_without_a_daemon_too(
    command: list[str], scenario: str, ledger: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    flags = ["--ledger", ledger]
    if scenario:
        played = tmp_path / "scenario.toml"
        played.write_text('name = "eight"\n[[gpu]]\nmodel = "H100 SXM"\n')
        flags += ["--simulate", str(played)]
    assert main([*command, *flags]) == 0
    assert (SAID in capsys.readouterr().out) is bool(scenario)
    if "--line" in command:
        return
    assert main([*command, *flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["simulated"] == (scenario or None)
    if command[0] != "job":
        assert main([*command, *flags, "--csv"]) == 0
        told = capsys.readouterr()
        assert "SIMULATED" not in told.out
        assert (SAID in told.err) is bool(scenario)


def test_books_are_read_once_the_scenario_is_gone(
    ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", "--ledger", ledger, "--simulate", str(tmp_path / "eight.toml")]) == 0
    assert SAID in capsys.readouterr().out


def told(of: str = "4711") -> str | None:
    """Of a job on a node of real GPUs, or on one of eight that were simulated for an hour."""
    api = FakeApi()
    seen = [(at_s, 1.0) for at_s in range(60, 3600, 60)]
    for number in range(9):
        target = {"instance": f"gpu{number}:19400", "cluster": "x"}
        played = {"simulated": "eight"} if number else {}
        api.write("build_info", {**target, "version": "1", **played}, seen)
        api.write("build_info", {**target, "version": "1"}, [(at_s, 1.0) for at_s in (3660, 3720)])
        api.write("ledger_info", {**target, "epoch": f"e{number}", "storage": "disk"}, seen)
        for name in ("job_energy_kwh_total", "job_power_watts"):
            own = {"manager": "slurm", "job_id": "4711" if number else "4712"}
            kind = {"kind": "gpu"} if "energy" in name else {}
            api.write(name, {**target, **own, **kind}, seen)
    answer = job(Fleet(api, Span(0, 3730), ()), "slurm", of)  # type: ignore[arg-type]
    lines = "\n".join(receipt(answer))
    assert ("SIMULATED (eight on gpu1:19400, " in lines) is (answer["simulated"] is not None)
    return answer["simulated"]  # type: ignore[no-any-return]


def test_over_all_nodes_the_page_of_each_tells() -> None:
    assert told() == "eight on gpu1:19400, gpu2:19400, gpu3:19400 and 5 more"
    assert told("4712") is None


DAY_S = 86_400
NODE = {"instance": "old:19400"}


def job_on(renamed: str, played_until_s: int, job_s: range) -> str | None:
    """What is said of a job on a node that played a scenario first, and has another name by now.

    And what priced its energy: another zone as long as it played.
    """
    api = FakeApi()
    end_s = job_s[-1] + DAY_S
    days = range(60, end_s, 600)
    own = {"manager": "slurm", "job_id": "7"}
    for at_s in days:
        node = NODE if at_s <= job_s[-1] else {"instance": renamed}
        played = {"simulated": "eight"} if at_s < played_until_s else {}
        api.write("build_info", {**node, "version": "1", **played}, [(at_s, 1.0)])
        api.write("ledger_info", {**node, "epoch": "e", "storage": "disk"}, [(at_s, 1.0)])
        grid = {"grid_zone": "DE" if played else "FR", "source": "table", "basis": "lifecycle"}
        api.write("grid_carbon_intensity_grams_per_kwh", {**node, **grid}, [(at_s, 300.0)])
        api.write("job_energy_kwh_total", {**node, **own, "kind": "gpu"}, [(at_s, 1.0)])
    api.write("job_power_watts", {**NODE, **own}, [(at_s, 70.0) for at_s in job_s])
    answer = job(Fleet(api, Span(0, end_s), ()), "slurm", "7")  # type: ignore[arg-type]
    zones = {"DE" if at_s < played_until_s else "FR" for at_s in job_s}
    assert {grid["zone"] for grid in answer["grid_shown"]} == zones
    return answer["simulated"]  # type: ignore[no-any-return]


def test_a_job_is_real_whatever_its_node_played_before() -> None:
    job_s = range(5 * DAY_S + 60, 5 * DAY_S + 7260, 600)
    assert job_on("old:19400", 4 * DAY_S, job_s) is None
    assert job_on("old:19400", job_s[0] + 1, job_s) == "eight on old:19400"  # its first scrape


def test_a_node_that_is_called_otherwise_since_played_as_it_was_called_then() -> None:
    job_s = range(60, 7260, 600)
    assert job_on("new:19400", 8000, job_s) == "eight on old:19400"


def test_of_a_job_that_was_never_seen_to_run_its_nodes_tell_of_all_the_span() -> None:
    api = FakeApi()
    for name, labels in (
        ("build_info", {"version": "1", "simulated": "eight"}),
        ("ledger_info", {"epoch": "e", "storage": "disk"}),
        ("job_energy_kwh_total", {"manager": "slurm", "job_id": "7", "kind": "gpu"}),
    ):
        api.write(name, {**NODE, **labels}, [(60, 1.0)])
    answer = job(Fleet(api, Span(0, 3600), ()), "slurm", "7")  # type: ignore[arg-type]
    assert answer["simulated"] == "eight on old:19400"
