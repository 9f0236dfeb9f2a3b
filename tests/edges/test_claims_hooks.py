"""The scripts of deploy/slurm, run by real shells, and what is made of the files they write."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes import FakeClock
from wattledger.jobs.claims import GpuBy, JobNames, SlurmHooks

HOOKS = Path(__file__).parents[2] / "deploy" / "slurm"
SCRIPTS = sorted(HOOKS.glob("[pe]*log*.sh"))  # what Slurm waits for
SHELLS = [shell for shell in ("sh", "dash", "bash", "busybox") if shutil.which(shell)]
BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
ME = {os.getuid()}
JOB = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_UID": "1001",
    "SLURM_JOB_USER": "alice",
    "SLURM_JOB_GPUS": "0,2",
    "SLURM_JOB_ACCOUNT": "physics",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURM_CLUSTER_NAME": "lab",
    "SLURM_JOB_RESTART_COUNT": "1",
    "SLURM_JOB_START_TIME": "1800000000",
    "SLURM_JOB_SLUID": "s0123456789ABC",
    "SLURMD_NODENAME": "gpu01",
    "CUDA_VISIBLE_DEVICES": "5",
}


def run(
    script: str,
    directory: Path,
    environment: dict[str, str],
    *,
    shell: str = "sh",
    variable: str = "WATTLEDGER_JOBS_DIR",
    file_bytes: int | None = None,
    cwd: Path | None = None,
) -> None:
    """As slurmd runs it: hardly any environment, no search path; it always ends with 0."""

    def limit() -> None:
        if file_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a full disk sends no signal
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    command = [shell, "sh"] if shell == "busybox" else [shell]
    # Both are named always: what is not would lie in the system's own /run, and be believed there.
    nowhere = dict.fromkeys(("WATTLEDGER_JOBS_DIR", "WATTLEDGER_NAMES_DIR"), "/dev/null/nowhere")
    done = subprocess.run(
        [shutil.which(command[0]) or "", *command[1:], str(HOOKS / script)],
        env={**nowhere, variable: str(directory), **environment},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=cwd,
    )
    assert (done.returncode, done.stdout) == (0, "")


def hooks(directory: Path, **more: object) -> SlurmHooks:
    clock = FakeClock(boot_id=BOOT_ID)
    return SlurmHooks(clock, directory, trusted_uids=ME, **more)  # type: ignore[arg-type]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "wattledger-jobs"


@pytest.mark.parametrize("shell", SHELLS)
def test_from_prolog_to_epilog(directory: Path, shell: str) -> None:
    source = hooks(directory)
    assert source.claims() == ()

    run("prolog.sh", directory, JOB, shell=shell)
    claims = source.claims()

    assert [(c.gpu, c.gpu_by) for c in claims] == [("0", GpuBy.MINOR), ("2", GpuBy.MINOR)]
    job = claims[0].job
    assert (job.manager, job.job_id, job.uid, job.user) == ("slurm", "4711", 1001, "alice")
    assert (job.account, job.partition, job.cluster) == ("physics", "gpu", "lab")
    assert (job.restarts, job.sluid) == (1, "s0123456789ABC")
    assert job.start_ns == 1_800_000_000 * 10**9
    assert job.since_ns == (directory / "4711").stat().st_mtime_ns
    assert job.end_ns == 0
    assert source.faults() == ()
    assert directory.stat().st_mode & 0o777 == 0o755
    assert (directory / "4711").stat().st_mode & 0o777 == 0o644

    run("epilog.sh", directory, JOB, shell=shell)

    assert source.claims() == ()
    ((ended, held),) = source.ended()
    assert ended.job_id == "4711"
    assert [c.gpu for c in held] == ["0", "2"]
    assert ended.since_ns == job.since_ns
    assert ended.end_ns >= ended.since_ns
    assert [path.name for path in directory.iterdir()] == [f"ended.{4711 % 256}"]


def test_a_job_without_gpus_is_known(directory: Path) -> None:
    run("prolog.sh", directory, {"SLURM_JOB_ID": "5", "SLURM_JOB_UID": "1002"})
    source = hooks(directory)

    assert source.claims() == ()
    assert [(job.job_id, job.uid) for job in source.jobs()] == [("5", 1002)]


def test_jobs_that_start_at_once_are_all_written(directory: Path) -> None:
    for _ in range(5):
        shutil.rmtree(directory, ignore_errors=True)
        with ThreadPoolExecutor(8) as at_once:
            jobs = [JOB | {"SLURM_JOB_ID": str(job_id)} for job_id in range(1, 9)]
            list(at_once.map(lambda job: run("prolog.sh", directory, job), jobs))
        source = hooks(directory)
        source.claims()
        assert len(source.jobs()) == 8


def test_a_requeued_job_replaces_its_file(directory: Path) -> None:
    source = hooks(directory)
    run("prolog.sh", directory, JOB)
    assert source.claims()[0].job.restarts == 1
    run("prolog.sh", directory, JOB | {"SLURM_JOB_RESTART_COUNT": "2", "SLURM_JOB_GPUS": "3"})

    assert [(c.gpu, c.job.restarts) for c in source.claims()] == [("3", 2)]


def test_only_256_ended_jobs_are_kept(directory: Path) -> None:
    for job in (1, 257, 513, 2):
        environment = {"SLURM_JOB_ID": str(job)}
        run("prolog.sh", directory, environment)
        run("epilog.sh", directory, environment)
    source = hooks(directory)
    source.claims()

    assert {job.job_id for job, _ in source.ended()} == {"513", "2"}


@pytest.mark.parametrize(
    "job_id", ["", "../4711", "4711/x", "0", "0123", "12345678901", "4 7", "4\n7", "$(id)", "-rf"]
)
def test_ids_that_are_none_write_nothing(directory: Path, tmp_path: Path, job_id: str) -> None:
    for script in ("prolog.sh", "epilog.sh"):
        run(script, directory, JOB | {"SLURM_JOB_ID": job_id})
    directory.mkdir()
    for script in ("prolog_slurmctld.sh", "epilog_slurmctld.sh"):
        run(script, directory, {"SLURM_JOB_ID": job_id}, variable="WATTLEDGER_NAMES_DIR")

    assert [path.name for path in tmp_path.rglob("*")] == ["wattledger-jobs"]


def test_values_cannot_forge_lines_or_outgrow_the_file(directory: Path) -> None:
    run(
        "prolog.sh",
        directory,
        JOB
        | {
            "SLURM_JOB_ACCOUNT": "x\ngpus=7\nend",
            "SLURM_JOB_USER": "a" * 100_000,
            "SLURM_JOB_PARTITION": "p\u00fc",
        },
    )
    source = hooks(directory)
    claims = source.claims()

    assert [c.gpu for c in claims] == ["0", "2"]
    assert claims[0].job.account == ""
    assert claims[0].job.partition == ""
    assert claims[0].job.user == "a" * 128
    assert source.faults() == ()


@pytest.mark.parametrize("gpus", ["0;1", "`id`", "0\n1", "9" * 3000, "NoDevFiles", "-1", "3-1"])
def test_gpus_that_are_none_claim_nothing(directory: Path, gpus: str) -> None:
    run("prolog.sh", directory, JOB | {"SLURM_JOB_GPUS": gpus})
    assert hooks(directory).claims() == ()


def test_cuda_visible_devices_claims_nothing(directory: Path) -> None:
    environment = {key: value for key, value in JOB.items() if key != "SLURM_JOB_GPUS"}
    run("prolog.sh", directory, environment)
    assert hooks(directory).claims() == ()


# ── what goes wrong on the node ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("script", [path.name for path in SCRIPTS])
@pytest.mark.parametrize("shell", SHELLS)
def test_whatever_is_missing_it_ends_with_0(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, script: str, shell: str
) -> None:
    elsewhere = tmp_path_factory.mktemp("cwd")
    for directory in (
        tmp_path / "no" / "parent",
        Path("/proc/nowhere"),
        Path("/dev/null"),
        Path("relative"),
    ):
        for variable in ("WATTLEDGER_JOBS_DIR", "WATTLEDGER_NAMES_DIR"):
            run(script, directory, JOB, shell=shell, variable=variable, cwd=elsewhere)
            run(script, directory, {}, shell=shell, variable=variable, cwd=elsewhere)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("file_bytes", [0, 1, 40, 100])
def test_a_full_disk_leaves_no_half_file(directory: Path, shell: str, file_bytes: int) -> None:
    directory.mkdir()
    (directory / "4711").write_text("old")
    run("prolog.sh", directory, JOB, shell=shell, file_bytes=file_bytes)

    left = {path.name: path.read_text() for path in directory.iterdir()}
    assert left == {"4711": "old"}
    assert hooks(directory).claims() == ()


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small file system")
def test_a_really_full_disk(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k,nr_inodes=8", "none", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount")
    try:
        directory = small / "jobs"
        run("prolog.sh", directory, JOB)
        source = hooks(directory)
        assert len(source.claims()) == 2

        with (small / "fill").open("wb", buffering=0) as fill:
            try:
                while fill.write(b"x" * 512):
                    pass
            except OSError:
                pass
        run("prolog.sh", directory, JOB | {"SLURM_JOB_ID": "4712"})
        assert {c.job_id for c in source.claims()} == {"4711"}
        assert [path.name for path in directory.iterdir()] == ["4711"]

        run("epilog.sh", directory, JOB)
        assert source.claims() == ()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_links_and_directories_of_others_are_not_written_to(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    for script in SCRIPTS:
        for variable in ("WATTLEDGER_JOBS_DIR", "WATTLEDGER_NAMES_DIR"):
            run(script.name, link, JOB, variable=variable)
    assert list(target.iterdir()) == []

    if os.getuid() == 0:
        os.chown(target, 65534, 65534)
        run("prolog.sh", target, JOB)
        assert list(target.iterdir()) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_executable_and_ask_nobody(path: Path) -> None:
    code = [line.split("#")[0] for line in path.read_text().splitlines()]
    words = " ".join(line for line in code if not line.strip().startswith("#"))

    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/bin/sh\n")
    for word in ("scontrol", "squeue", "sacct", "nvidia-smi", "curl", "CUDA_VISIBLE_DEVICES"):
        assert word not in words


# ── names, by the controller ─────────────────────────────────────────────────────────────────────


def names_of(directory: Path, **more: object) -> JobNames:
    clock = FakeClock(boot_id=BOOT_ID)
    return JobNames(clock, directory, trusted_uids=ME, run=lambda work: work(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("shell", SHELLS)
def test_name_and_array_by_the_controller(directory: Path, tmp_path: Path, shell: str) -> None:
    shared = tmp_path / "names"
    shared.mkdir(mode=0o755)
    run("prolog.sh", directory, JOB, shell=shell)
    run(
        "prolog_slurmctld.sh",
        shared,
        {
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NAME": 'train "a"\\n $(id)',
            "SLURM_ARRAY_JOB_ID": "4709",
            "SLURM_ARRAY_TASK_ID": "2",
        },
        shell=shell,
        variable="WATTLEDGER_NAMES_DIR",
    )
    source = hooks(directory, names=names_of(shared))
    job = source.claims()[0].job

    assert job.name == 'train "a"\\n $(id)'
    assert (job.array_job_id, job.array_task_id) == ("4709", "2")
    assert job.labels["array_task_id"] == "2"

    run("epilog_slurmctld.sh", shared, JOB, shell=shell, variable="WATTLEDGER_NAMES_DIR")
    assert list(shared.iterdir()) == []
    assert source.claims()[0].job.name == job.name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nend\n", "a end"),
        ("x\nname=y\narray_job=1\nend", "x name=y array_job=1 end"),
        ("\x1b[31mred\x07\u202e", "[31mred"),
        ("n" * 100_000, "n" * 128),
        ("", ""),
    ],
)
def test_names_are_cleaned(directory: Path, tmp_path: Path, name: str, shown: str) -> None:
    shared = tmp_path / "names"
    shared.mkdir(mode=0o755)
    run("prolog.sh", directory, JOB)
    environment = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": name}
    run("prolog_slurmctld.sh", shared, environment, variable="WATTLEDGER_NAMES_DIR")
    job = hooks(directory, names=names_of(shared)).claims()[0].job

    assert (job.name, job.array_job_id) == (shown, "")
