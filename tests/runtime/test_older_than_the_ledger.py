"""A job that is older than the ledger: its mean power is of the time that was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import START_WALL_NS, FakeClock
from ledgers import GPU, batch, key, opened
from wattledger.cli import main
from wattledger.model.jobs import JobRun, job_payee
from wattledger.units import NS_PER_S

MEASURED_S, WATTS = 20, 700


def told(path: Path, capsys: pytest.CaptureFixture[str], begun_s: int, ended: bool) -> Any:
    """Of a job that began so many seconds before the ledger; JSON and text."""
    start_ns = START_WALL_NS - begun_s * NS_PER_S
    end_ns = START_WALL_NS + MEASURED_S * NS_PER_S
    run = JobRun(job_payee("slurm", "4711", start_ns), last_seen_ns=end_ns)
    run = replace(run, end_ns=end_ns if ended else 0)
    clock = FakeClock()
    books = opened(path, clock)
    booked = key(START_WALL_NS // NS_PER_S, GPU.name, run.payee)
    books.commit(batch({booked: WATTS * MEASURED_S * 1_000_000}, runs=(run,)), clock.now())
    books.close()
    command = ["job", "slurm/4711", "--ledger", str(path)]
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert main(command) == 0
    return answer, " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("begun_s", [0, 3480])
def test_the_mean_is_of_what_was_measured(
    begun_s: int, ended: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, text = told(tmp_path / "l.sqlite", capsys, begun_s, ended)
    assert answer["duration_s"] == begun_s + MEASURED_S
    assert answer["unmeasured_s"] == begun_s
    assert answer["mean_watts"] == pytest.approx(WATTS)
    assert "mean 700.0 W" in text
    assert ("not measured, since the ledger is younger: 58 min" in text) is bool(begun_s)


def test_one_that_ended_before_has_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Claims may tell of jobs that were over when the ledger began."""
    start_ns, end_ns = START_WALL_NS - 100 * NS_PER_S, START_WALL_NS - 40 * NS_PER_S
    run = JobRun(job_payee("slurm", "1", start_ns), last_seen_ns=end_ns, end_ns=end_ns)
    clock = FakeClock()
    books = opened(tmp_path / "l.sqlite", clock)
    books.commit(batch({}, runs=(run,)), clock.now())
    books.close()
    command = ["job", "slurm/1", "--ledger", str(tmp_path / "l.sqlite")]
    assert main(command) == 0
    assert "mean" not in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["duration_s"], answer["unmeasured_s"], answer["mean_watts"]) == (60, 60, None)
