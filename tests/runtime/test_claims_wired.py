"""From the hooks' files to the survey: the parts as the daemon puts them together."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cgroups import FakeNode
from fakes import FakeClock
from wattledger import build
from wattledger.config import Config
from wattledger.config.settings import FilePath, KubeletJobs, Paths
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.meters.simulated import SimulatedNvml, load_scenario
from wattledger.model.jobs import JobKey

ROOT = Path(__file__).parents[2]
PROLOG = ROOT / "deploy/slurm/prolog.sh"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root's files are believed"),
]


def test_a_job_holds_what_its_prolog_says(tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    node = FakeNode(tmp_path / "node")
    clock = FakeClock(boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    jobs = Config().jobs
    config = replace(
        Config(),
        jobs=replace(
            jobs,
            slurm=replace(jobs.slurm, hooks_dir=FilePath(str(hooks))),
            kubelet=KubeletJobs(socket=FilePath(str(tmp_path / "no.sock"))),
        ),
        path=Paths(FilePath(str(node.sysfs)), FilePath(str(node.procfs))),
    )
    driver = SimulatedNvml(load_scenario(ROOT / "configs/scenarios/eight-h100.toml"), clock)
    meter = NvmlMeter(driver, clock, procfs=None)
    uuids = [info.name for info in meter.read().devices]
    bound = build.bindings(config, clock, meter)
    watch = build.jobs(config, clock, (), bound)
    bound.look()
    assert watch.survey(clock.now()).claims == ()

    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_UID": "1000", "SLURM_JOB_USER": "ann"}
    subprocess.run(
        ["sh", PROLOG],
        env={**job, "SLURM_JOB_GPUS": "1,3", "WATTLEDGER_JOBS_DIR": str(hooks)},
        check=True,
        cwd=tmp_path,
    )
    node.make("/system.slice/slurmstepd.scope/job_4711")
    clock.advance(6)
    bound.look()
    survey = watch.survey(clock.now())

    assert {(c.job_id, c.device, c.source) for c in survey.claims} == {
        ("4711", uuids[1], "slurm"),
        ("4711", uuids[3], "slurm"),
    }
    (run,) = survey.runs.values()
    assert (run.uid, run.labels["user"]) == (1000, "ann")
    assert bound.alive("slurm", "4711") is True
    assert bound.job(JobKey("slurm", "4711")) is not None

    (hooks / "4712").write_text("id=4712\n")
    os.chown(hooks / "4712", 1000, 1000)
    bound.look()
    assert [fault.reason for fault in bound.faults()] == ["not_trusted"]
