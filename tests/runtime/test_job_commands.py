"""`wattledger jobs`, `job` and `report --by job`, over a ledger whose daemon is stopped."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fakes import START_WALL_NS, FakeClock
from ledgers import CPU, GPU, batch, key, opened
from wattledger.cli import main
from wattledger.model import IDLE
from wattledger.model.jobs import Held, Holding, JobRun, job_payee
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S
REPORT = ("report", "--json", "--until", "2030-01-01", "--by")


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    path, clock = tmp_path / "l.sqlite", FakeClock()
    alice = JobRun(
        job_payee("slurm", "4711", START_WALL_NS),
        uid=1001,
        labels={"user": "alice", "name": "=cmd()\x1b[31m"},
        holdings=(Holding(GPU.name, 1_000_000),),
        last_seen_ns=START_WALL_NS + 3600 * NS_PER_S,
    )
    bob = replace(alice, payee=job_payee("pod", "abc", START_WALL_NS + 1), uid=None, labels={})
    bob = replace(bob, end_ns=START_WALL_NS + 60 * NS_PER_S)
    of_gpu = key(SLOT_S, GPU.name, alice.payee)
    energy = {
        of_gpu: 3_600_000_000_000,
        key(SLOT_S, CPU.name, bob.payee): 5,
        key(SLOT_S, CPU.name, IDLE): 7,
    }
    books = opened(path, clock)
    held = {of_gpu: Held(3_600_000, 2_700_000, 900_000_000_000)}
    books.commit(batch(energy, runs=(alice, bob), held=held), clock.now())
    books.close()
    return str(path)


def test_a_receipt(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", "4711", "--ledger", ledger]) == 0
    said = capsys.readouterr().out
    assert "slurm/4711" in said and "running, from 2027-01-15T08:00:00Z to now" in said
    assert "energy   1.000000 kWh (gpu 1.000000" in said
    assert "held 1.00 h, idle 0.75 h (0.250000 kWh)" in said
    assert "75% of the time that it held GPUs they did nothing, 25% of its GPU energy." in said
    assert "\x1b" not in said

    assert main(["job", "pod/abc", "--ledger", ledger, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["exact"]["energy_uj"] == "5"
    assert main(["job", "4712", "--ledger", ledger]) == 1
    assert "no job '4712'" in capsys.readouterr().err
    assert main(["job", "", "--ledger", ledger]) == 2


def test_lists(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "--ledger", ledger]) == 0
    said = capsys.readouterr().out
    assert "slurm/4711" in said and "pod/abc" in said and "\x1b" not in said
    assert main(["jobs", "--ledger", ledger, "--csv", "--user", "alice"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["energy_uj"] == "3600000000000" and row["name"].startswith("'=cmd")
    assert main(["jobs", "--ledger", ledger, "--json", "--limit", "1"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["next_cursor"]
    again = ["jobs", "--ledger", ledger, "--json", "--cursor", answer["next_cursor"]]
    assert main(again) == 0
    (last,) = json.loads(capsys.readouterr().out)["jobs"]
    assert last["job_id"] == "4711"
    assert main(["jobs", "--ledger", ledger, "--limit", "many"]) == 2


def test_totals_by_job_and_user(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*REPORT, "job", "--ledger", ledger]) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = {row["group"]: row["energy_uj"] for row in answer["rows"]}
    assert rows == {"slurm/4711": "3600000000000", "pod/abc": "5", "(idle)": "7"}
    assert main([*REPORT, "user", "--ledger", ledger]) == 0
    rows = {r["group"]: r["energy_uj"] for r in json.loads(capsys.readouterr().out)["rows"]}
    assert rows == {"alice": "3600000000000", "(unknown)": "5", "(idle)": "7"}


def test_each_command_stands_alone(ledger: str) -> None:
    """In a process of its own, where nothing else was imported before."""
    for command in (["jobs"], ["job", "4711"]):
        done = subprocess.run(
            [sys.executable, "-m", "wattledger.cli", *command, "--ledger", ledger],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "4711" in done.stdout
