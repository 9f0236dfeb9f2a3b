"""deploy/slurm/admin_comments.sh, without a Slurm: what is written, tried again, and given up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.slurm_hooks import ENDED, note, program, run
from deploy.slurm_node import SHELLS, SLURM
from wattledger.fleet.job import SEVERAL
from wattledger.job_reports.line import CUT_SHORT, IN_PART, MISSING, NO_JOB


def comments(
    folder: Path,
    line: str,
    *,
    text: str = "",
    there: str = "",
    options: str = "",
    code: int = 0,
    shell: str = "sh",
    **env: str,
) -> tuple[str, list[str]]:
    """Run the timer's script over what is noted; returns what it says and sacctmgr's words."""
    (folder / "bin").mkdir(exist_ok=True)
    stubs = {
        "scontrol": 'case $1 in show) printf "gpu01\\ngpu02\\n";; *) exit 1;; esac',
        "sacct": f"echo '{there}'",
        "sacctmgr": env.pop("sacctmgr", f'for word; do echo "$word"; done >{folder}/told'),
    }
    for name, body in stubs.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "told").unlink(missing_ok=True)
    (folder / "from").write_text(f"http://prometheus:9090\n{options}")
    done = run(
        "admin_comments.sh",
        {
            "WATTLEDGER_SLURM_BIN": str(folder / "bin"),
            "WATTLEDGER_ENDED_DIR": str(folder / "ended"),
            "WATTLEDGER_RECEIPTS_WAIT_S": "0",
            **program(folder, text or f'echo "$@" >{folder}/asked; echo "{line}"'),
            **env,
        },
        shell,
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
        "job slurm/4711 --line --nodes gpu01,gpu02 --from http://prometheus:9090 --deadline 60s\n"
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
        "job slurm/4711 --line --nodes gpu01,gpu02 --from http://prometheus:9090 --deadline 60s "
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


@pytest.mark.parametrize(
    "answer", ["Traceback: no such thing", "", "wattledger: slurm/47111: 1 kWh"]
)
def test_what_is_no_receipt_is_never_written(tmp_path: Path, answer: str) -> None:
    (tmp_path / "ended").mkdir()
    note(tmp_path, ENDED)
    said, told = comments(tmp_path, answer, WATTLEDGER_RECEIPTS_GIVE_UP_S="0")
    assert "1 to be tried again" in said and told == []
    said, told = comments(tmp_path, answer, WATTLEDGER_RECEIPTS_KEEP_S="0")
    assert "ended too long ago" in said and told == []
    assert list((tmp_path / "ended").iterdir()) == []


NOBODY = f"wattledger: {NO_JOB}slurm/4711' was scraped since 30d"


def test_a_job_that_no_node_knows_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "ended").mkdir()
    note(tmp_path, ENDED)
    said, told = comments(tmp_path, NOBODY)
    assert "1 to be tried again" in said and told == []
    said, told = comments(tmp_path, NOBODY, WATTLEDGER_RECEIPTS_GIVE_UP_S="0")
    assert "4711: nowhere are figures of it" in said and told == []
    assert list((tmp_path / "ended").iterdir()) == []


def test_a_job_of_several_clusters_waits_for_the_one_to_be_named(tmp_path: Path) -> None:
    backlog(tmp_path, *range(11, 18))
    several = asked(tmp_path, f"wattledger: {SEVERAL}$2: cluster=a, cluster=b")
    said, told = comments(tmp_path, "", text=several)
    assert "job 17: several clusters have one of that id" in said and "--match cluster=" in said
    assert "0 written, 7 to be tried again" in said and told == [], "no reason to end the run"
    said, _ = comments(tmp_path, "", text=several, WATTLEDGER_RECEIPTS_GIVE_UP_S="0")
    assert "17: nowhere are figures of it" in said and list((tmp_path / "ended").iterdir()) == []


def backlog(folder: Path, *jobs: int) -> Path:
    """Notes of jobs, the one that was tried longest ago first; returns who was asked of since."""
    (folder / "ended").mkdir(exist_ok=True)
    for at, job in enumerate(jobs):
        file = folder / "ended" / str(job)
        file.write_text(f"{job}\ngpu[01-02]\nend\n")
        os.utime(file, (1_000_000_000 + at, file.stat().st_mtime))
    (folder / "log").unlink(missing_ok=True)
    return folder / "log"


def asked(folder: Path, answer: str) -> str:
    """A program that writes down of which job it is asked; the answer may name it, `$2`."""
    return f'echo "$2" >>{folder}/log; echo "{answer}"'


@pytest.mark.parametrize("shell", SHELLS)
def test_jobs_without_figures_keep_nobody_from_their_turn(tmp_path: Path, shell: str) -> None:
    jobs = [*range(101, 107), 50, *range(107, 113)]
    log = backlog(tmp_path, *jobs)
    one = f'echo "$2" >>{tmp_path}/log; [ "$2" = slurm/50 ] && echo "wattledger: $2: 1 kWh" && exit'
    said, told = comments(tmp_path, "", shell=shell, text=f'{one}\necho "{NOBODY}" >&2; exit 1')
    assert log.read_text().split() == [f"slurm/{job}" for job in jobs]
    assert "1 written, 12 to be tried again" in said and "jobid=50" in told


@pytest.mark.parametrize("shell", SHELLS)
def test_an_api_that_is_down_ends_the_run_and_loses_nobody(tmp_path: Path, shell: str) -> None:
    log = backlog(tmp_path, 17, 9, 14, 11, 13, 10, 16, 12)
    down = asked(tmp_path, "wattledger: http://prometheus:9090 does not answer")
    said, _ = comments(tmp_path, "", shell=shell, text=down, WATTLEDGER_RECEIPTS_GIVE_UP_S="0")
    assert log.read_text().split() == [f"slurm/{job}" for job in (17, 9, 14, 11, 13)]
    assert "5 jobs in a row without an answer: wattledger: http://prometheus:9090 does" in said
    assert len(list((tmp_path / "ended").iterdir())) == 8, "however long it lasts"
    log.unlink()
    up = asked(tmp_path, "wattledger: $2: 1 kWh")
    said, _ = comments(tmp_path, "", shell=shell, text=up)
    order = [f"slurm/{job}" for job in (10, 16, 12, 17, 9, 14, 11, 13)]
    assert log.read_text().split() == order, "who was tried longest ago comes first"
    assert "8 written, 0 to be tried again" in said


def test_a_database_that_is_down_ends_the_run_and_loses_nobody(tmp_path: Path) -> None:
    backlog(tmp_path, *range(11, 18))
    up = asked(tmp_path, "wattledger: $2: 1 kWh")
    said, told = comments(
        tmp_path, "", text=up, sacctmgr="exit 1", WATTLEDGER_RECEIPTS_GIVE_UP_S="0"
    )
    assert "neither sacctmgr nor scontrol takes the AdminComment of job 15" in said
    assert "0 written, 5 to be tried again" in said and told == []
    assert len(list((tmp_path / "ended").iterdir())) == 7


def test_a_directory_that_is_full_is_told(tmp_path: Path) -> None:
    backlog(tmp_path, 11, 12)
    line = "wattledger: $2: 1 kWh"
    said, _ = comments(tmp_path, line, WATTLEDGER_ENDED_MAX="2")
    assert "is full: what else ends is not noted" in said
    said, _ = comments(tmp_path, line, WATTLEDGER_ENDED_MAX="3")
    assert "is full" not in said


def test_the_words_that_it_looks_for_are_those_of_the_program() -> None:
    text = (SLURM / "admin_comments.sh").read_text()
    for words in (MISSING, CUT_SHORT, IN_PART, NO_JOB, SEVERAL, " so far: "):
        assert words in text


@pytest.mark.parametrize(
    ("there", "written"), [("", True), ("wattledger: older", True), ("JS1:H4sI", False)]
)
def test_somebody_elses_comment_stays(tmp_path: Path, there: str, written: bool) -> None:
    (tmp_path / "ended").mkdir()
    note(tmp_path, ENDED)
    _, told = comments(tmp_path, "wattledger: slurm/4711: 1 kWh", there=there)
    assert bool(told) is written
    assert list((tmp_path / "ended").iterdir()) == []
