"""What the doctor says of Slurm's jobs, from the cgroups and the hooks' directory alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cgroups import FakeNode
from wattledger.config import Config, parse_config
from wattledger.doctor.finding import Finding
from wattledger.doctor.jobs import of_slurm

JOB = "/slurm_n1/uid_1001/job_12"


def config_of(node: FakeNode, hooks: Path, more: str = "") -> Config:
    return parse_config(
        f'path = {{ sysfs = "{node.sysfs}", procfs = "{node.procfs}" }}\n'
        f'[jobs.slurm]\nhooks_dir = "{hooks}"\n{more}'
    )


def found(node: FakeNode, tmp_path: Path, more: str = "") -> list[Finding]:
    return list(of_slurm(config_of(node, tmp_path / "hooks", more)))


def told(tmp_path: Path) -> None:
    """The hooks have written of a job."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "12").touch()


@pytest.mark.parametrize("version", ["v1", "hybrid"])
def test_jobs_that_nothing_counts(tmp_path: Path, version: str) -> None:
    told(tmp_path)
    node = FakeNode(tmp_path / "node", version)
    node.make(JOB, only=("freezer", "cpuset"))
    node.make("/slurm_n1/uid_1001/job_13")
    (bad,) = found(node, tmp_path)
    assert (bad.area, bad.level) == ("jobs", "problem")
    assert "1 of 2 Slurm jobs" in bad.message and JOB in bad.message
    assert "jobacct_gather/cgroup" in bad.hint and "deploy/slurm" in bad.hint


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("v1", JOB),
        ("hybrid", JOB),
        ("v2", "/system.slice/slurmstepd.scope/job_12"),
        ("v2", "/system.slice/n1_slurmstepd.scope/job_12"),
    ],
)
def test_jobs_that_are_counted_and_told_of(tmp_path: Path, version: str, path: str) -> None:
    told(tmp_path)
    node = FakeNode(tmp_path / "node", version)
    node.make(path)
    assert found(node, tmp_path) == []


def test_jobs_of_which_no_hook_tells(tmp_path: Path) -> None:
    node = FakeNode(tmp_path / "node")
    node.make("/system.slice/slurmstepd.scope/job_12")
    (note,) = found(node, tmp_path)
    assert note.level == "note" and note.ok
    assert note.message.startswith(
        "1 Slurm job here, "
    ) and "prolog and epilog of deploy/slurm" in (note.hint)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / ".12.new").touch()
    assert [f.level for f in found(node, tmp_path)] == ["note"], "that is nothing yet"
    assert found(node, tmp_path, 'jobstats_dir = "/run/gpustat"') == [], "somebody else tells"
    (hooks / "ended.7").touch()
    assert found(node, tmp_path) == []


def test_a_directory_that_is_closed_is_not_an_empty_one(tmp_path: Path) -> None:
    node = FakeNode(tmp_path / "node")
    node.make("/system.slice/slurmstepd.scope/job_12")
    hooks = tmp_path / "hooks"
    if os.geteuid() == 0:
        hooks.write_text("root may list any directory, but no file")
    else:
        hooks.mkdir(mode=0o000)
    assert found(node, tmp_path) == []


def test_where_no_slurm_job_runs_there_is_nothing_to_say(tmp_path: Path) -> None:
    node = FakeNode(tmp_path / "node", "v1")
    node.make("/slurm_n1/uid_1001")
    node.make("/user.slice/user-1001.slice/slurm_n1/uid_1001/job_12")  # somebody's own
    assert found(node, tmp_path) == []
    node.make(JOB, only=("freezer",))
    assert len(found(node, tmp_path)) == 2
    config = parse_config(f'path.sysfs = "{node.sysfs}"\njobs.managers = ["user"]')
    assert list(of_slurm(config)) == []
    assert list(of_slurm(parse_config(f'path.sysfs = "{tmp_path}"'))) == [], "no cgroups at all"


def test_a_slurmd_in_a_pod(tmp_path: Path) -> None:
    told(tmp_path)
    node = FakeNode(tmp_path / "node", "v1")
    pod = "/kubepods.slice/a.slice/b.scope"
    node.make(f"{pod}{JOB}", only=("freezer",))
    assert found(node, tmp_path) == []
    assert len(found(node, tmp_path, 'roots = ["/kubepods.slice/*/*"]')) == 1
