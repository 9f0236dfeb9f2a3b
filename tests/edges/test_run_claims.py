"""`--gpus`: which GPUs a command may claim, and how soon a GPU is seen to be a new command's."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import snapshots
from fake_nvml import FakeGpu, FakeNvml
from fakes import FakeClock
from wattledger.errors import RunRefused
from wattledger.jobs.runs.claiming import Claimable, GpuClaims, claim, may_open
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.model import Kind
from wattledger.model.jobbooks import JobBooks, RunBook
from wattledger.model.jobs import Holding, JobKey, JobRun, job_payee
from wattledger.model.measuring import GpuNames, Process
from wattledger.model.running import RunRequest

MINE, OTHERS = JobKey("run", "1"), JobKey("slurm", "7")
NOBODY: frozenset[int] = frozenset()


def gpus(node: Path | None = None) -> list[Claimable]:
    return [Claimable("GPU-a", "0", node), Claimable("GPU-b", "1", node)]


def test_numbers_and_uuids_name_the_same() -> None:
    got = claim(["1", "GPU-a", "GPU-b"], gpus(), {}, frozenset(), 1000, NOBODY)
    assert got == ("GPU-b", "GPU-a")


@pytest.mark.parametrize("name", ["2", "GPU-c", "", "-1", "0 ", "\n"])
def test_what_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(RunRefused, match="there is no GPU") as refused:
        claim([name], gpus(), {}, frozenset(), 0, NOBODY)
    assert refused.value.reason == "gpu" and "0, 1" in refused.value.hint


def test_what_another_job_holds_is_refused_and_what_the_own_job_holds_is_not() -> None:
    holders = {"GPU-a": frozenset({OTHERS}), "GPU-b": frozenset({MINE})}
    with pytest.raises(RunRefused, match="held by another job"):
        claim(["0"], gpus(), holders, frozenset({MINE}), 0, NOBODY)
    assert claim(["1"], gpus(), holders, frozenset({MINE}), 0, NOBODY) == ("GPU-b",)


@pytest.mark.parametrize(
    ("mode", "uid", "groups", "may"),
    [
        (0o660, 0, (), True),  # root
        (0o600, 77, (), True),  # the owner
        (0o400, 77, (), False),
        (0o066, 77, (88,), False),  # the owner's bits count for the owner
        (0o060, 1000, (88,), True),
        (0o606, 1000, (88,), False),  # the group's for the group
        (0o666, 1000, (), True),
        (0o664, 1000, (), False),
    ],
)
def test_the_device_file_says_who_may(
    tmp_path: Path, mode: int, uid: int, groups: tuple[int, ...], *, may: bool
) -> None:
    node = tmp_path / "nvidia0"
    node.touch()
    node.chmod(mode)
    if os.geteuid() == 0:  # else whoever runs the tests owns the file
        os.chown(node, 77, 88)
    status = node.stat()
    who = {0: 0, 77: status.st_uid, 1000: status.st_uid + 1000}[uid]
    its = frozenset(status.st_gid if group == 88 else group for group in groups)
    assert may_open(node, who, its) is may


def test_a_device_file_that_is_not_there_is_nobodys(tmp_path: Path) -> None:
    with pytest.raises(RunRefused, match="you may not open"):
        claim(["0"], gpus(tmp_path / "nvidia0"), {}, frozenset(), 0, NOBODY)


def test_the_books_say_which_gpus_there_are_and_who_holds_them(tmp_path: Path) -> None:
    books = snapshots.snapshot().books
    held, free, *_ = [n for n, r in books.devices.items() if r.info.kind is Kind.GPU]
    running = JobRun(job_payee("slurm", "7", 1), holdings=(Holding(held, 1_000_000),))
    ended = JobRun(job_payee("slurm", "6", 1), holdings=(Holding(free, 1_000_000),), end_ns=2)
    jobs = JobBooks({run.payee: RunBook(run) for run in (running, ended)})
    snapshot = replace(snapshots.snapshot(), simulated="", books=replace(books, jobs=jobs))
    names = [GpuNames(held, 0, 10), GpuNames(free, 1, 11)]
    claims = GpuClaims(lambda: snapshot, lambda: names, tmp_path)
    for minor in (10, 11):
        (tmp_path / f"nvidia{minor}").touch()
        (tmp_path / f"nvidia{minor}").chmod(0o666)
    assert claims(RunRequest(1, 1000, gpus=(free,)), NOBODY, frozenset()) == (free,)
    with pytest.raises(RunRefused, match="held by another job"):
        claims(RunRequest(1, 1000, gpus=(held,)), NOBODY, frozenset())
    assert claims(RunRequest(1, 1000, gpus=(held,)), NOBODY, frozenset({running.key})) == (held,)
    (tmp_path / "nvidia11").chmod(0o600)
    with pytest.raises(RunRefused, match="nvidia11"):
        claims(RunRequest(1, 10**6, gpus=(free,)), NOBODY, frozenset())
    simulated = GpuClaims(lambda: replace(snapshot, simulated="x"), lambda: names, tmp_path)
    assert simulated(RunRequest(1, 10**6, gpus=(free,)), NOBODY, frozenset()) == (free,)
    with pytest.raises(RunRefused) as refused:
        GpuClaims(lambda: None, lambda: names)(RunRequest(1, 1, gpus=("0",)), NOBODY, frozenset())
    assert refused.value.reason == "starting"


def test_processes_are_listed_at_each_turn_while_somebody_waits_for_them() -> None:
    clock, hurry = FakeClock(), [False]
    gpu = FakeGpu("GPU-a", pids=[])
    driver = FakeNvml(clock, gpu)
    meter = NvmlMeter(
        driver, clock, sysfs=Path("/nonexistent"), procfs=None, hurried=lambda: hurry[0]
    )

    def turn() -> tuple[Process, ...]:
        listed = meter.read().listed["GPU-a"]
        clock.advance(1)
        return listed

    turn()
    gpu.pids = [7]
    assert turn() == ()  # it is not time yet
    hurry[0] = True
    assert turn() == (Process(7),)
    gpu.pids = []
    assert turn() == ()
    hurry[0] = False
    gpu.pids = [9]
    for _ in range(12):
        last = turn()
    assert last == (Process(9),)  # and the regular questions go on
