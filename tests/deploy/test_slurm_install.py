"""deploy/slurm/install.sh: what it installs, what it finds missing, and that it edits nothing."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from deploy.slurm_node import (
    COMPLETE,
    CONTROLLER_FILES,
    DONE,
    LACKING,
    NODE_FILES,
    SHELLS,
    SLURM,
    WRONG,
    Node,
)
from documents import chosen


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "root")


def printed_lines(told: str) -> str:
    """The lines that it wants, as they are printed."""
    head, _, rest = told.partition(":\n\n")
    wanted, _, tail = rest.partition("\n\nThen: ")
    assert "lacks" in head or "needs" in head
    assert tail == "scontrol reconfigure\n"
    return wanted


def test_the_lines_of_the_document_are_all_that_is_needed(node: Node) -> None:
    needed, task_epilog = chosen("conf slurm")
    assert "has all that is needed" in node.says(needed.text).run("--check", rc=DONE)
    node.says(needed.text + task_epilog.text).run(rc=DONE)
    (at,) = re.findall(r"^TaskEpilog=(/.*)$", task_epilog.text, re.MULTILINE)
    assert (node.root / at.lstrip("/")).exists()


# ── files ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("role", ["--node", "--controller"])
def test_files_come_stay_and_go(node: Node, role: str, shell: str) -> None:
    files = NODE_FILES if role == "--node" else CONTROLLER_FILES
    node.says(COMPLETE)
    first = node.run(role, rc=DONE, shell=shell)
    assert first.count("installed  ") == len(files)
    assert node.files() == {*files, "etc/slurm/slurm.conf"}
    for target, (source, mode) in files.items():
        assert (node.root / target).read_bytes() == (SLURM / source).read_bytes()
        assert stat.S_IMODE((node.root / target).stat().st_mode) == mode

    again = node.run(role, rc=DONE, shell=shell)
    assert again.count("unchanged  ") == len(files)
    assert "installed" not in again

    node.says(COMPLETE.replace("log=", "#"))  # the lines go first
    gone = node.run(role, "--uninstall", rc=DONE, shell=shell)
    assert gone.count("removed    ") == len(files)
    assert node.files() == {"etc/slurm/slurm.conf"}
    assert node.run(role, "--uninstall", rc=DONE, shell=shell) == ""


def test_an_older_hook_is_replaced_and_others_are_left_alone(node: Node) -> None:
    node.says(COMPLETE)
    own = node.root / "etc/slurm/prolog.d"
    own.mkdir()
    (own / "10-site.sh").write_text("#!/bin/sh\n")
    (own / "50-wattledger.sh").write_text("older")
    told = node.run(rc=DONE)
    assert f"installed  {own}/50-wattledger.sh" in told
    assert (own / "50-wattledger.sh").read_bytes() == (SLURM / "prolog.sh").read_bytes()
    node.says(COMPLETE.replace("Epilog=", "#"))
    node.run("--uninstall", rc=DONE)
    assert node.files() == {"etc/slurm/slurm.conf", "etc/slurm/prolog.d/10-site.sh"}


def test_a_check_installs_nothing(node: Node) -> None:
    node.says(COMPLETE)
    assert "has all that is needed" in node.run("--check", rc=DONE)
    assert node.files() == {"etc/slurm/slurm.conf"}


def test_destdir_of_the_environment_is_taken(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", str(SLURM / "install.sh")],
        env={"PATH": os.environ["PATH"], "DESTDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == DONE
    assert (tmp_path / "etc/slurm/prolog.d/50-wattledger.sh").is_file()


@pytest.mark.parametrize("options", [("--what",), ("--destdir",), ("--slurm-conf", "/nowhere")])
def test_what_it_does_not_understand_it_says(node: Node, options: tuple[str, ...]) -> None:
    node.run(*options, rc=WRONG)
    assert node.files() == set()


# ── slurm.conf ──────────────────────────────────────────────────────────────────────────────────

LACKS = [
    ("", 5),
    ("ClusterName=lab\n", 5),
    ("ProctrackType=proctrack/linuxproc\n", 5),
    (COMPLETE.replace("Prolog=/etc/slurm/prolog.d/*\n", ""), 1),
    (COMPLETE.replace("Alloc,Contain", "Alloc"), 1),
    (COMPLETE.replace("Alloc,Contain", "X11,NoHold"), 1),
    (COMPLETE.replace("JobAcctGatherType=jobacct_gather/cgroup\n", ""), 1),
    (COMPLETE.replace("Epilog=", "#Epilog="), 1),
    ("# all of it is commented out\n" + COMPLETE.replace("\n", "\n# "), 5),
]


@pytest.mark.parametrize(("conf", "count"), LACKS)
def test_what_it_prints_is_what_is_missing(node: Node, conf: str, count: int) -> None:
    node.says(conf).says("CgroupPlugin=cgroup/v1\n", "cgroup.conf")
    wanted = printed_lines(node.run("--check", rc=LACKING))
    assert len(wanted.splitlines()) == count
    assert wanted in node.run(rc=DONE)
    assert node.conf.read_text() == conf  # it has written nothing
    # Its lines, put there as they are, are all that it wanted.
    node.says(f"{conf}\n{wanted}\n")
    assert "has all that is needed" in node.run("--check", rc=DONE)


@pytest.mark.parametrize(
    "conf",
    [
        COMPLETE.lower().replace("/etc", "/etc"),
        COMPLETE.replace("PrologFlags=Alloc,Contain", "PrologFlags=Contain"),  # it means Alloc
        COMPLETE.replace("PrologFlags=Alloc,", "PrologFlags=Alloc,X11,\\\n"),
        COMPLETE.replace("=", "=", 1).replace("Prolog=", "Prolog=/bin/true\nProlog="),
        COMPLETE.replace("/etc/slurm/prolog.d/*", "/etc/slurm/prolog.d/50-wattledger.sh"),
        COMPLETE.replace("/etc/slurm/prolog.d/*", "/etc/slurm/prolog.d/5*"),
        COMPLETE.replace("/etc/slurm/prolog.d/*", '"/etc/*/prolog.d//[!0-4]?-wattledger.sh"'),
        COMPLETE.replace("/etc/slurm/prolog.d/*", "prolog.d/*"),  # beside slurm.conf
        COMPLETE.replace("=", " =  "),
        COMPLETE + "Prolog=/opt/site/prolog.sh\n",  # both are run
        COMPLETE.replace("PrologFlags", "Epilog=/etc/slurm/epilog.d/* PrologFlags"),
        COMPLETE.replace("\n", "  # why\n"),
    ],
)
def test_each_way_to_write_it_is_read(node: Node, conf: str) -> None:
    node.says(conf).says("CgroupPlugin=cgroup/v1\n", "cgroup.conf")
    node.run("--check", rc=DONE)


def test_included_files_are_read(node: Node) -> None:
    node.says("Include more/gpu.conf\nClusterName=lab\n")
    (node.conf.parent / "more").mkdir()
    (node.conf.parent / "more" / "gpu.conf").write_text(COMPLETE)
    node.run("--check", rc=DONE)
    node.says("include slurm.conf\n")
    assert "without end" in subprocess.run(
        ["sh", str(SLURM / "install.sh"), "--check", "--slurm-conf", str(node.conf)],
        capture_output=True, text=True,
    ).stderr  # fmt: skip


def test_cgroup_v2_counts_cpu_time_by_itself(node: Node) -> None:
    without = COMPLETE.replace("JobAcctGatherType=jobacct_gather/cgroup\n", "")
    node.says(without).says("CgroupPlugin = cgroup/v2  # new\n", "cgroup.conf")
    node.run("--check", rc=DONE)
    node.says("#CgroupPlugin=cgroup/v2\nCgroupPlugin=cgroup/v1\n", "cgroup.conf")
    assert printed_lines(node.run("--check", rc=LACKING)) == (
        "JobAcctGatherType=jobacct_gather/cgroup"
    )


def test_what_is_set_otherwise_is_told_with_what_it_is_now(node: Node) -> None:
    node.says(
        COMPLETE.replace("proctrack/cgroup", "proctrack/pgid").replace("Alloc,", "X11,Deferbatch,")
    )
    wanted = printed_lines(node.run("--check", rc=LACKING))
    assert wanted == "ProctrackType=proctrack/cgroup  # now proctrack/pgid"
    node.says(COMPLETE.replace("Alloc,Contain", "X11"))
    assert printed_lines(node.run("--check", rc=LACKING)) == "PrologFlags=X11,Alloc,Contain"


def test_a_script_of_the_sites_own_is_asked_to_call_ours(node: Node) -> None:
    node.says(COMPLETE.replace("/etc/slurm/prolog.d/*", "/opt/site/prolog.sh"))
    own = node.root / "opt" / "site" / "prolog.sh"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n# /etc/slurm/prolog.d/50-wattledger.sh, one day\nexit 0\n")
    wanted = printed_lines(node.run("--check", rc=LACKING))
    node.run(rc=DONE)
    said, call = wanted.splitlines()
    assert "Prolog=/opt/site/prolog.sh is the site's own" in said
    assert call == "/etc/slurm/prolog.d/50-wattledger.sh || :"
    own.write_text(f"#!/bin/sh\n{call}\nexit 0\n")
    node.run("--check", rc=DONE)
    # Such a call does no harm without the file, so it may go at once.
    node.says(node.conf.read_text().replace("Epilog=", "#"))
    node.run("--uninstall", rc=DONE)


def test_the_controller_has_lines_of_its_own(node: Node) -> None:
    node.says(COMPLETE)
    node.run("--controller", rc=DONE)
    wanted = printed_lines(node.run("--controller", "--check", rc=LACKING))
    assert wanted.splitlines() == [
        "PrologSlurmctld=/etc/slurm/wattledger-prolog-slurmctld.sh",
        "EpilogSlurmctld=/etc/slurm/wattledger-epilog-slurmctld.sh",
    ]
    node.says(f"{COMPLETE}{wanted}\n")
    node.run("--controller", "--check", rc=DONE)
    # Slurm requeues jobs whose PrologSlurmctld is gone: first the lines go, then the files.
    refused = node.run("--controller", "--uninstall", rc=LACKING)
    assert [line for line in refused.splitlines() if "=" in line] == wanted.splitlines()
    assert node.files() >= CONTROLLER_FILES.keys()
    node.says(COMPLETE)
    node.run("--controller", "--uninstall", rc=DONE)
    assert node.files() == {"etc/slurm/slurm.conf"}


def test_without_a_slurm_conf_it_says_all_that_is_needed(node: Node) -> None:
    told = node.run("--check", rc=LACKING)
    assert "No slurm.conf was found here" in told
    assert "PrologFlags=Alloc,Contain" in printed_lines(told)
