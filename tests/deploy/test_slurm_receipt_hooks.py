"""Slurm's hooks for receipts, without a Slurm: who is told, what is noted, that nobody waits."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.slurm_hooks import BATCH, ENDED, note, program, run
from deploy.slurm_node import SHELLS, SLURM
from waiting import wait_until

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


TWO = BATCH | {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "gpu[01-02]"}


def scontrol(folder: Path, text: str) -> dict[str, str]:
    """A scontrol of the test's own."""
    (folder / "bin").mkdir()
    (folder / "bin" / "scontrol").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "bin" / "scontrol").chmod(0o755)
    (folder / "from").write_text("http://prometheus:9090\n")
    return {"WATTLEDGER_SLURM_BIN": str(folder / "bin")}


@pytest.mark.parametrize("shell", SHELLS)
def test_of_several_nodes_the_prometheus_is_asked_first(tmp_path: Path, shell: str) -> None:
    env = TWO | scontrol(tmp_path, '[ "$3" = "gpu[01-02]" ] && printf "gpu01\\ngpu02\\n"')
    told = run("task_epilog.sh", env | program(tmp_path, 'echo "$@"'), shell)
    assert told.stderr == (
        "job slurm/4711 --line --nodes gpu01,gpu02 --from http://prometheus:9090 --deadline 10s\n"
    )


def test_where_prometheus_is_silent_the_node_tells_what_it_knows(tmp_path: Path) -> None:
    env = TWO | scontrol(tmp_path, 'printf "gpu01\\ngpu02\\n"')
    text = 'case "$*" in *--from*) echo no answer >&2; exit 1;; esac; echo "$@"'
    told = run("task_epilog.sh", env | program(tmp_path, text))
    assert told.stderr == "job slurm/4711 --line --nodes gpu01,gpu02\n"


@pytest.mark.parametrize("from_", ["http://prometheus:9090\n", ""])
def test_where_slurm_tells_no_names_the_nodes_are_counted(tmp_path: Path, from_: str) -> None:
    """The program itself counts: without --nodes it looks at SLURM_JOB_NUM_NODES."""
    env = TWO | scontrol(tmp_path, "echo slurmctld is down >&2; exit 1")
    (tmp_path / "from").write_text(from_)
    told = run("task_epilog.sh", env | program(tmp_path, 'echo "$SLURM_JOB_NUM_NODES $@"'))
    assert told.stderr == "2 job slurm/4711 --line" + (
        " --from http://prometheus:9090 --deadline 10s\n" if from_ else "\n"
    )


def test_what_a_job_sets_for_its_own_programs_reaches_nobody_else(tmp_path: Path) -> None:
    theirs = dict.fromkeys(("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH"), "/nowhere")
    python = f'exec {sys.executable} -c "import wattledger; print(wattledger.__name__)"'
    told = run("task_epilog.sh", BATCH | theirs | program(tmp_path, python))
    assert told.stderr == "wattledger\n"
    told = run("task_epilog.sh", BATCH | theirs | program(tmp_path, "env"))
    assert "/nowhere" not in told.stderr and "SLURM_JOB_ID=4711" in told.stderr


@pytest.mark.parametrize("text", ["echo why >&2; exit 1", "exit 127", "kill -9 $$"])
def test_without_a_receipt_the_output_stays_as_it_was(tmp_path: Path, text: str) -> None:
    assert run("task_epilog.sh", BATCH | program(tmp_path, text)).stderr in ("", "Killed\n")
    nowhere = {"WATTLEDGER_PROGRAM": str(tmp_path / "nowhere")}
    assert run("task_epilog.sh", BATCH | nowhere).stderr == ""


# ── on the controller ───────────────────────────────────────────────────────────────────────────


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


def test_what_is_noted_has_an_end(tmp_path: Path) -> None:
    """Where nobody reads the notes, they must not fill the memory that they lie in."""
    (tmp_path / "ended").mkdir()
    for number in ("1", "2", "3"):
        (tmp_path / "ended" / number).touch()
    assert "4711" not in note(tmp_path, ENDED | {"WATTLEDGER_ENDED_MAX": "3"})
    assert "4711" in note(tmp_path, ENDED | {"WATTLEDGER_ENDED_MAX": "4"})
    assert "4712" in note(tmp_path, ENDED | {"SLURM_JOB_ID": "4712"}), "by far"


def finding(programs: Path, script: str, folder: Path) -> Path:
    """A hook that finds these programs first; only their path is another than in the real one."""
    text = (SLURM / script).read_text()
    assert text.count("PATH=/usr/bin:/bin") == 1
    (folder / script).write_text(text.replace("PATH=", f"PATH={programs}:", 1))
    return folder / script


Hung = Callable[[str, str], Path]


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Hung]:
    """A hook that finds a program which never ends, as any does on a file system that hangs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "hanging").touch()

    def make(script: str, name: str) -> Path:
        stub = tmp_path / "bin" / name
        stub.write_text(
            f"#!/bin/sh\ntrap '' TERM\nwhile [ -e {tmp_path}/hanging ]; do sleep 0.1; done\n"
            f'{shutil.which(name)} "$@" && touch {tmp_path}/through\n'
        )
        stub.chmod(0o755)
        return finding(tmp_path / "bin", script, tmp_path)

    yield make
    (tmp_path / "hanging").unlink(missing_ok=True)


@pytest.mark.parametrize("shell", SHELLS)
def test_slurmctld_does_not_wait_for_what_is_done(tmp_path: Path, shell: str) -> None:
    (tmp_path / "names").mkdir()
    (tmp_path / "bin").mkdir()
    slept, named = tmp_path / "slept", tmp_path / "names" / "4711"
    stub = tmp_path / "bin" / "sleep"
    stub.write_text(
        f"#!/bin/sh\necho >>{slept}\nuntil [ -e {named} ]; do {shutil.which('sleep')} 0.1; done\n"
        f'exec {shutil.which("sleep")} "$1"\n'
    )
    stub.chmod(0o755)
    env = ENDED | {"SLURM_JOB_NAME": "train", "WATTLEDGER_NAMES_DIR": str(named.parent)}
    run(str(finding(tmp_path / "bin", "prolog_slurmctld.sh", tmp_path)), env, shell)
    assert named.read_text().endswith("name=train\nend\n")
    pauses = 7  # up to 2 s
    assert len(slept.read_text()) < pauses


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("script", "does"), [("prolog_slurmctld.sh", "mv"), ("epilog_slurmctld.sh", "rm")]
)
def test_slurmctld_does_not_wait_for_a_file_system_that_hangs(
    tmp_path: Path, hung: Hung, script: str, does: str, shell: str
) -> None:
    names = tmp_path / "names"
    names.mkdir()
    if does == "rm":
        (names / "4711").touch()
    env = ENDED | {"SLURM_JOB_NAME": "train", "WATTLEDGER_NAMES_DIR": str(names)}
    env["WATTLEDGER_ENDED_DIR"] = str(tmp_path / "ended")
    (tmp_path / "ended").mkdir()
    run(str(hung(script, does)), env, shell)  # it ends, and so do its open files
    assert (names / "4711").exists() is (does == "rm")
    assert (tmp_path / "ended" / "4711").exists() is (does == "rm"), "this one lies elsewhere"
    (tmp_path / "hanging").unlink()
    wait_until((tmp_path / "through").exists, what="what was left behind comes to its end")
    assert (names / "4711").exists() is (does == "mv")
