"""Jobs that live 300 ms, over a running daemon that surveys once a second.

The cgroups are the kernel's where this machine lets root make some, with real processes in them;
everywhere else they are files that a process of its own makes and removes.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from e2e.daemon import Daemon
from waiting import wait_until

HOOKS = Path(__file__).parents[2] / "deploy/slurm"
CONFIG = """
sampling = {{ interval = "1s", commit_interval = "1s", allow_fine_grained = true }}
jobs.slurm.hooks_dir = "{hooks}"
meters.rapl.enabled = false
meters.hwmon.enabled = false
"""
WATTS = 300
SCENARIO = f"""
[[gpu]]
model = "H100 SXM"
count = 2
waveform = {{ kind = "constant", watts = {WATTS} }}
"""
JOBS = 6
# As slurmd does it: a cgroup, the job in it for a while, no cgroup.
IN_KERNEL = """
mkdir "$1" && echo $$ >"$1/cgroup.procs" || exit 1
timeout 0.3 sh -c 'while :; do :; done'
echo $$ >"$2/cgroup.procs"
until rmdir "$1"; do sleep 0.02; done
"""
IN_FILES = """
mkdir "$1" || exit 1
for i in 50 100 150 200 250 300; do echo "usage_usec ${i}000" >"$1/cpu.stat"; sleep 0.05; done
rm "$1/cpu.stat"; rmdir "$1"
"""


@pytest.fixture
def kernel() -> Iterator[Path]:
    """A subtree of the kernel's cgroups of version 2, removed with all that is in it."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mounts = [line.split()[4] for line in lines if " - cgroup2 " in line]
    if not mounts:
        pytest.skip("no cgroups of version 2 here")
    base = Path(mounts[0]) / f"wattledger-test-{os.getpid()}"
    try:
        base.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield base
    for directory in sorted(base.rglob("*/"), key=lambda d: len(d.parts), reverse=True):
        wait_until(partial(_removed, directory))
    base.rmdir()


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return not directory.exists()
    return True


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The same as files."""
    base = tmp_path / "cgroups"
    base.mkdir()
    (base / "cgroup.controllers").write_text("")
    return base


def hook(name: str, job: int, hooks: Path) -> None:
    subprocess.run(
        ["sh", HOOKS / name],
        env={
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_UID": "1234",
            "SLURM_JOB_USER": "ann",
            "SLURM_JOB_GPUS": str(job % 2),
            "WATTLEDGER_JOBS_DIR": str(hooks),
        },
        check=True,
        cwd=hooks.parent,
    )


@pytest.mark.root
@pytest.mark.parametrize("where", ["kernel", "files"])
def test_each_is_in_the_books(
    where: str,
    daemon: Callable[..., Daemon],
    tmp_path: Path,
    as_root: None,
    request: pytest.FixtureRequest,
) -> None:
    base: Path = request.getfixturevalue(where)
    scope = base / "system.slice/slurmstepd.scope"
    scope.mkdir(parents=True)
    beside = base / "beside"  # where processes go, so that their cgroup can be removed
    beside.mkdir()
    hooks = tmp_path / "hooks"
    node = daemon(CONFIG.format(hooks=hooks), scenario=SCENARIO)
    (node.home / "sys/fs").mkdir()
    (node.home / "sys/fs/cgroup").symlink_to(base)
    node.start()
    node.next_commit()

    at_most_s = {}
    for job in range(1, JOBS + 1):
        begun_s = time.monotonic()
        hook("prolog.sh", job, hooks)
        script = IN_KERNEL if where == "kernel" else IN_FILES
        subprocess.run(["sh", "-c", script, "sh", scope / f"job_{job}", beside], check=True)
        hook("epilog.sh", job, hooks)
        at_most_s[str(job)] = time.monotonic() - begun_s
        time.sleep(0.15)
    node.scrape_when(lambda page: len(page.labels("job_energy_kwh_total", "job_id")) >= JOBS)
    node.all_until_now()

    for _ in range(2):
        jobs = _jobs(node)
        assert sorted(jobs) == [str(job) for job in range(1, JOBS + 1)]
        for job_id, job in jobs.items():
            assert job["state"] == "ended" and job["labels"] == {"user": "ann"}, job
            lived_s, energy_kwh = job["duration_s"], job["totals"]["energy_kwh"]
            assert 0.05 < lived_s < at_most_s[job_id]
            assert [one["share"] for one in job["devices"]] == [1.0], job_id
            # A GPU's counter moves every 100 ms.
            gpu_j = energy_kwh["gpu"] * 3.6e6
            assert gpu_j == pytest.approx(WATTS * lived_s, rel=0.1, abs=WATTS * 0.1)
            assert energy_kwh["cpu"] > 0
        # Another process tells nothing again, though the epilogs' files are still there.
        node.terminate()
        node.assert_books_balance()
        node.start()
        node.next_commit()
    node.assert_no_traceback()


def _jobs(node: Daemon) -> dict[str, Any]:
    done = node.cli("jobs", "--json", "--ledger", str(node.ledger), "--manager", "slurm")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["jobs"]
    assert len(rows) == len({row["job_id"] for row in rows})
    return {row["job_id"]: row for row in rows}
