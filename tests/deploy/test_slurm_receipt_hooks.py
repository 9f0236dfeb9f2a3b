"""Slurm's hooks for receipts, without a Slurm: who is told, what is noted, that nobody waits."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SLURM = Path(__file__).parents[2] / "deploy" / "slurm"
SHELLS = [shell for shell in ("sh", "dash", "bash", "busybox") if shutil.which(shell)]
BATCH = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "1", "SLURMD_NODENAME": "gpu01"}


def run(
    script: str, env: dict[str, str], shell: str = "sh", code: int = 0
) -> subprocess.CompletedProcess[str]:
    command = [shell, *(["sh"] if shell == "busybox" else []), str(SLURM / script)]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30
    )
    assert done.returncode == code
    assert done.stdout == ""  # Slurm gives these hooks nowhere to write it to
    return done


def program(folder: Path, text: str) -> dict[str, str]:
    file = folder / "program"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return {"WATTLEDGER_PROGRAM": str(file), "WATTLEDGER_RECEIPTS_FROM": str(folder / "from")}


# ── at the end of a job's output ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_ID": "4294967291"}, {"SLURM_STEPID": "batch"}])
def test_a_batch_job_is_told_on_its_standard_error(
    tmp_path: Path, shell: str, step: dict[str, str]
) -> None:
    told = run("task_epilog.sh", BATCH | step | program(tmp_path, 'echo "$@"'), shell)
    assert told.stderr == "job slurm/4711 --line --nodes gpu01\n"


@pytest.mark.parametrize(
    "more",
    [
        {"SLURM_STEP_ID": "0"},  # srun's tasks
        {"SLURM_STEPID": "17"},
        {"SLURM_STEP_ID": "4294967292"},  # the extern step
        {"SLURM_PROCID": "1"},
        {"SLURM_JOB_ID": ""},
        {"SLURM_JOB_ID": "4711; reboot"},
        {"SLURM_JOB_ID": "../4711"},
    ],
)
def test_nobody_else_is_told_anything(tmp_path: Path, more: dict[str, str]) -> None:
    told = run("task_epilog.sh", BATCH | program(tmp_path, 'echo "$@"') | more)
    assert told.stderr == ""


@pytest.mark.parametrize("text", ["echo why >&2; exit 1", "exit 127", "kill -9 $$"])
def test_without_a_receipt_the_output_stays_as_it_was(tmp_path: Path, text: str) -> None:
    assert run("task_epilog.sh", BATCH | program(tmp_path, text)).stderr in ("", "Killed\n")
    nowhere = {"WATTLEDGER_PROGRAM": str(tmp_path / "nowhere")}
    assert run("task_epilog.sh", BATCH | nowhere).stderr == ""


# ── on the controller ───────────────────────────────────────────────────────────────────────────

ENDED = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "gpu[01-04]"}


def note(folder: Path, env: dict[str, str], shell: str = "sh") -> dict[str, str]:
    names = {"WATTLEDGER_NAMES_DIR": str(folder / "names")}
    run("epilog_slurmctld.sh", env | names | {"WATTLEDGER_ENDED_DIR": str(folder / "ended")}, shell)
    ended = folder / "ended"
    return {file.name: file.read_text() for file in ended.iterdir()} if ended.is_dir() else {}


@pytest.mark.parametrize("shell", SHELLS)
def test_an_ended_job_is_noted_where_that_is_wanted(tmp_path: Path, shell: str) -> None:
    assert note(tmp_path, ENDED, shell) == {}
    assert not (tmp_path / "ended").exists()  # off until somebody makes it
    (tmp_path / "ended").mkdir()
    assert note(tmp_path, ENDED, shell) == {"4711": "4711\ngpu[01-04]\nend\n"}


def test_the_last_task_of_an_array_is_called_as_a_task(tmp_path: Path) -> None:
    """Its number is the array's: what is written to that is written to all of its tasks."""
    (tmp_path / "ended").mkdir()
    task = {"SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "7"}
    assert note(tmp_path, ENDED | task) == {"4711": "4711_7\ngpu[01-04]\nend\n"}
    other = {"SLURM_JOB_ID": "4709", "SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "5"}
    assert note(tmp_path, ENDED | other)["4709"] == "4709\ngpu[01-04]\nend\n"


def test_it_follows_no_link_and_takes_no_other_name(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ended").symlink_to(tmp_path / "elsewhere")
    note(tmp_path, ENDED)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "ended").unlink()
    (tmp_path / "ended").mkdir()
    for number in ("", "0", "../x", "4711 4712", "99999999999"):
        assert note(tmp_path, ENDED | {"SLURM_JOB_ID": number}) == {}


def comments(
    folder: Path, line: str, *, there: str = "", options: str = "", code: int = 0, **env: str
) -> tuple[str, list[str]]:
    """Run the timer's script over what is noted; returns what it says and sacctmgr's words."""
    (folder / "bin").mkdir(exist_ok=True)
    stubs = {
        "scontrol": 'case $1 in show) printf "gpu01\\ngpu02\\n";; *) exit 1;; esac',
        "sacct": f"echo '{there}'",
        "sacctmgr": f'for word; do echo "$word"; done >{folder}/told',
    }
    for name, text in stubs.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "told").unlink(missing_ok=True)
    (folder / "from").write_text(f"http://prometheus:9090\n{options}")
    done = run(
        "admin_comments.sh",
        {
            "WATTLEDGER_SLURM_BIN": str(folder / "bin"),
            "WATTLEDGER_ENDED_DIR": str(folder / "ended"),
            "WATTLEDGER_RECEIPTS_WAIT_S": "0",
            **program(folder, f'echo "$@" >{folder}/asked; echo "{line}"'),
            **env,
        },
        code=code,
    )
    told = folder / "told"
    return done.stderr, told.read_text().splitlines() if told.exists() else []


def test_a_whole_receipt_is_written_once(tmp_path: Path) -> None:
    (tmp_path / "ended").mkdir()
    note(tmp_path, ENDED)
    line = "wattledger: slurm/4711 on 2 of 2 nodes: 1.250 kWh"
    _, told = comments(tmp_path, line)
    assert told == [
        "--immediate", "--quiet", "modify", "job", "where", "jobid=4711", "set",
        f"AdminComment={line}",
    ]  # fmt: skip
    assert (tmp_path / "asked").read_text() == (
        "job slurm/4711 --line --nodes gpu01,gpu02 --from http://prometheus:9090\n"
    )
    assert comments(tmp_path, line) == ("", [])


def test_what_the_api_asks_for_stands_below_its_address(tmp_path: Path) -> None:
    (tmp_path / "ended").mkdir()
    note(tmp_path, ENDED)
    line = "wattledger: slurm/4711 on 2 of 2 nodes: 1.250 kWh"
    said, told = comments(tmp_path, line, options="--nodes gpu09\n", code=1)
    assert "--nodes is not an option" in said and told == []
    options = "# Mimir\n--tenant lab-1\n\n--ca-file /etc/ca of ours.pem\n--match cluster=a"
    _, told = comments(tmp_path, line, options=options)
    assert told[-1] == f"AdminComment={line}"
    assert (tmp_path / "asked").read_text() == (
        "job slurm/4711 --line --nodes gpu01,gpu02 --from http://prometheus:9090 "
        "--tenant lab-1 --ca-file /etc/ca of ours.pem --match cluster=a\n"
    )


@pytest.mark.parametrize("tail", ["; missing: gpu02", "; cut short: gpu02", "; in part: no"])
def test_one_that_is_not_whole_waits_and_is_written_in_the_end(tmp_path: Path, tail: str) -> None:
    (tmp_path / "ended").mkdir()
    note(tmp_path, ENDED)
    line = f"wattledger: slurm/4711 on 1 of 2 nodes: 1.250 kWh{tail}"
    said, told = comments(tmp_path, line)
    assert "1 to be tried again" in said and told == []
    _, told = comments(tmp_path, line, WATTLEDGER_RECEIPTS_GIVE_UP_S="0")
    assert told[-1] == f"AdminComment={line}"


def test_what_is_no_receipt_is_never_written(tmp_path: Path) -> None:
    (tmp_path / "ended").mkdir()
    note(tmp_path, ENDED)
    said, told = comments(tmp_path, "Traceback: no such thing")
    assert "1 to be tried again" in said and told == []
    said, told = comments(tmp_path, "", WATTLEDGER_RECEIPTS_GIVE_UP_S="0")
    assert "not tried again" in said and told == []
    assert list((tmp_path / "ended").iterdir()) == []


@pytest.mark.parametrize(
    ("there", "written"), [("", True), ("wattledger: older", True), ("JS1:H4sI", False)]
)
def test_somebody_elses_comment_stays(tmp_path: Path, there: str, written: bool) -> None:
    (tmp_path / "ended").mkdir()
    note(tmp_path, ENDED)
    _, told = comments(tmp_path, "wattledger: slurm/4711: 1 kWh", there=there)
    assert bool(told) is written
    assert list((tmp_path / "ended").iterdir()) == []
