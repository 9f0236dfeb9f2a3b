"""deploy/slurm/install.sh never leaves Slurm a prolog that it cannot run: that drains the node."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.slurm_node import COMPLETE, CONTROLLER_FILES, DONE, LACKING, SHELLS, WRONG, Node

PROLOG, EPILOG = "Prolog=/etc/slurm/prolog.d/*", "Epilog=/etc/slurm/epilog.d/*"
OURS = "/etc/slurm/prolog.d/50-wattledger.sh"
# busybox has a cp and an mv of its own, which nobody can look over the shoulder of.
WATCHED = [shell for shell in SHELLS if shell != "busybox"]
TIMER = "etc/systemd/system/timers.target.wants/wattledger-admin-comments.timer"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "root")


def hidden(node: Node, name: str, text: str = "") -> None:
    """A program that first writes down what `*` matches among the prologs, then is itself."""
    look = f"ls {node.root}/etc/slurm/prolog.d >>{node.root.parent}/seen 2>/dev/null"
    node.has(name, f'{look}\n{text}\nexec {shutil.which(name)} "$@"\n')


# ── while it installs ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shell", WATCHED)
@pytest.mark.parametrize("older", ["", "older"])
def test_no_other_name_is_ever_there(node: Node, shell: str, older: str) -> None:
    """Slurm runs all that `prolog.d/*` matches, and drains the node if one is gone by then."""
    node.says(COMPLETE)
    if older:
        (node.root / OURS[1:]).parent.mkdir()
        (node.root / OURS[1:]).write_text(older)
    for name in ("cp", "chmod", "mv", "rm", "cmp"):
        hidden(node, name)
    node.run(rc=DONE, shell=shell)
    seen = (node.root.parent / "seen").read_text().split()
    assert seen and set(seen) == {"50-wattledger.sh"}


@pytest.mark.parametrize("shell", WATCHED)
def test_an_interrupted_install_leaves_no_second_prolog(node: Node, shell: str) -> None:
    node.says(COMPLETE)
    node.has("mv", "kill -9 $PPID")
    with pytest.raises(AssertionError):
        node.run(rc=DONE, shell=shell)
    assert list((node.root / "etc/slurm/prolog.d").glob("[!.]*")) == []
    # Nothing of it is left, either, once it is installed or taken away.
    (node.programs / "mv").unlink()
    node.run(rc=DONE, shell=shell)
    assert [p.name for p in (node.root / "etc/slurm/prolog.d").iterdir()] == ["50-wattledger.sh"]


# ── while it takes away ─────────────────────────────────────────────────────────────────────────


def refused(told: str) -> list[str]:
    """The lines that have to go first."""
    return [line for line in told.splitlines() if line.startswith(("Prolog", "Epilog", "TaskE"))]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_pattern_that_would_match_nothing_keeps_the_files(node: Node, shell: str) -> None:
    node.says(COMPLETE).run(rc=DONE)
    before = node.files()
    assert refused(node.run("--uninstall", rc=LACKING, shell=shell)) == [PROLOG, EPILOG]
    assert node.files() == before
    # Of the two, one has another file to match.
    (node.root / "etc/slurm/epilog.d/10-site.sh").touch()
    assert refused(node.run("--uninstall", rc=LACKING, shell=shell)) == [PROLOG]
    (node.root / "etc/slurm/prolog.d/.hidden").touch()  # `*` does not match it
    assert refused(node.run("--uninstall", rc=LACKING, shell=shell)) == [PROLOG]
    node.says(COMPLETE.replace(PROLOG, ""))
    node.run("--uninstall", rc=DONE, shell=shell)
    assert (node.root / "etc/slurm/epilog.d/10-site.sh").exists()


@pytest.mark.parametrize("end", ["\n", "", "\r\n"])
@pytest.mark.parametrize(
    ("lines", "needed"),
    [
        (f"Prolog={OURS}", True),
        (f"ClusterName=lab\nProlog={OURS}", True),
        (f"Prolog={OURS}\nProlog=/opt/site.sh", True),  # all are run
        ("Prolog=prolog.d/50-*", True),  # beside slurm.conf
        ("prolog = prolog.d/*", True),
        ("Include more.conf", True),
        ("ClusterName=lab\nProlog=\\\n/etc/slurm/prolog.d/*", True),
        ("Prolog=/etc/slurm/./prolog.d/*", True),
        ("Prolog=/etc/slurm/../slurm/prolog.d/*", True),
        ("Prolog=/opt/slurm/etc/prolog.d/*", True),  # a link to /etc/slurm
        ("Prolog=/opt/slurm/e*/*.d/5?-[!a]*", True),
        ("TaskEpilog=/opt/slurm/etc/wattledger-task-epilog.sh", True),
        ("Prolog=/opt/prologs/*", False),  # a link to ours, and a site's own
        ("Prolog=/opt/prologs/50*", True),
        ("Prolog=/etc/slurm/*/50.sh", False),
        ("Prolog=/etc/slurm/*", False),  # `*` is no slash, and slurm.conf is there
        ("#Prolog=/etc/slurm/prolog.d/*", False),
        ("TaskEpilog=/etc/slurm/wattledger-task-epilog.sh", True),
        ("TaskEpilog=/opt/site.sh", False),
        ("", False),
    ],
)
def test_what_needs_a_file_is_found(node: Node, lines: str, needed: bool, end: str) -> None:
    """However its lines end, and whether the last one does."""
    for name, text in {"slurm.conf": lines, "more.conf": PROLOG}.items():
        node.says("", name)
        (node.conf.parent / name).write_bytes((text.replace("\n", end or "\n") + end).encode())
    for name in ("slurm", "prologs"):
        (node.root / "opt" / name).mkdir(parents=True)
    (node.root / "opt/slurm/etc").symlink_to("../../etc/slurm")
    (node.root / "opt/prologs/50-energy.sh").symlink_to(f"../..{OURS}")
    (node.root / "opt/prologs/10-site.sh").touch()
    node.run(rc=DONE)
    told = node.run("--uninstall", rc=LACKING if needed else DONE)
    assert bool(refused(told)) is needed
    assert (node.root / OURS[1:]).exists() is needed


# What `scontrol show config` prints: of 22.05, and since several lines add up, of 24.05.
IN_FORCE = """Configuration data as of 2026-11-23T17:00:00
Epilog                  = (null)
Prolog                  = {}
PrologEpilogTimeout     = 65534
PrologSlurmctld         = (null)

Slurmctld(primary) at gpu01 is UP
"""
IN_FORCE_SINCE = """Configuration data as of 2026-11-23T17:00:00
Prolog[0]               = /opt/site.sh
Prolog[1]               = {}
PrologEpilogTimeout     = 65534
"""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("shown", [IN_FORCE, IN_FORCE_SINCE])
def test_what_slurm_still_runs_keeps_the_files(node: Node, shown: str, shell: str) -> None:
    """Between an edit of slurm.conf and `scontrol reconfigure`, Slurm still runs the old lines."""
    node.says("ClusterName=lab\n").run(rc=DONE)
    before = node.files()
    for pattern in ("/etc/slurm/prolog.d/*", OURS):
        node.has_slurm("slurm 24.05.3", shown.format(pattern))
        told = node.run("--uninstall", rc=LACKING, shell=shell)
        assert refused(told) == [f"Prolog={pattern}"]
        assert "`scontrol reconfigure`" in told
        assert node.files() == before
    # Where Slurm is gone, nobody is asked.
    node.has_slurm("slurm 24.05.3", shown.format("(null)"))
    assert "scontrol" not in node.run("--uninstall", rc=DONE, shell=shell)
    assert node.files() == {"etc/slurm/slurm.conf"}


def test_where_slurm_is_gone_it_is_not_asked(node: Node) -> None:
    node.says("ClusterName=lab\n").run(rc=DONE)
    node.has_slurm("slurm 24.05.3", IN_FORCE.format("/etc/slurm/prolog.d/*"))
    node.run("--uninstall", "--slurm-conf", "/dev/null", rc=DONE)
    assert node.files() == {"etc/slurm/slurm.conf"}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "scontrol",
    ["exit 127", "echo 'Unable to contact slurm controller' >&2; exit 1", "exec sleep 600"],
)
def test_a_slurm_that_does_not_answer_holds_up_nobody(
    node: Node, scontrol: str, shell: str
) -> None:
    node.says("ClusterName=lab\n").run(rc=DONE)
    node.has("scontrol", scontrol)
    node.has("timeout", f'[ "$1" -le 30 ] && shift && exec {shutil.which("timeout")} 0.2 "$@"')
    told = node.run("--uninstall", rc=DONE, shell=shell)
    assert "does not answer" in told
    assert node.files() == {"etc/slurm/slurm.conf"}


def test_without_a_slurm_conf_it_asks_for_one(node: Node) -> None:
    node.run(rc=DONE)
    before = node.files()
    assert "--slurm-conf" in node.run("--uninstall", rc=WRONG)
    assert node.files() == before
    node.run("--uninstall", "--slurm-conf", "/dev/null", rc=DONE)  # Slurm is gone
    assert node.files() == set()


def test_an_enabled_timer_is_stopped_first(node: Node) -> None:
    node.says("ClusterName=lab\n").run("--controller", rc=DONE)
    link = node.root / TIMER
    link.parent.mkdir(parents=True)
    link.symlink_to("/etc/systemd/system/wattledger-admin-comments.timer")
    told = node.run("--controller", "--uninstall", rc=LACKING)
    assert "systemctl disable --now wattledger-admin-comments.timer" in told.splitlines()
    assert node.files() >= CONTROLLER_FILES.keys()
    link.unlink()
    node.run("--controller", "--uninstall", rc=DONE)
    assert node.files() == {"etc/slurm/slurm.conf"}


# ── what it takes for ours in slurm.conf ────────────────────────────────────────────────────────


def test_a_list_of_files_is_none(node: Node) -> None:
    """slurmd passes the whole value to glob(3): a comma is part of a name, which nothing has."""
    node.says(COMPLETE.replace(PROLOG, f"Prolog=/opt/own,{OURS}"))
    told = node.run("--check", rc=LACKING)
    assert "it knows no lists; instead:\nProlog=/etc/slurm/prolog.d/*\n" in told


@pytest.mark.parametrize("pattern", ["/etc/slurm/*.sh", "/etc/slurm/*", "/etc/*", "*"])
def test_a_star_is_no_slash(node: Node, pattern: str) -> None:
    node.says(COMPLETE.replace(PROLOG, f"Prolog={pattern}\nProlog=/opt/site.sh"))
    told = node.run("--check", rc=LACKING)
    assert f"# Prolog={pattern} /opt/site.sh is the site's own" in told
    assert f"\n{OURS} || :\n" in told


def test_a_link_to_where_ours_lies_is_seen(node: Node) -> None:
    conf = COMPLETE.replace("/etc/slurm/prolog.d", "/opt/slurm/etc/prolog.d")
    node.says(conf.replace("\n", "\r\n")).run(rc=DONE)
    (node.root / "opt/slurm").mkdir(parents=True)
    (node.root / "opt/slurm/etc").symlink_to("../../etc/slurm")
    node.run("--check", rc=DONE)


def test_a_pattern_is_not_expanded_over_this_machine(node: Node) -> None:
    """Only what lies below DESTDIR counts: the pattern's own files here are nobody's."""
    here = node.root.parent / "here"
    here.mkdir()
    (here / "a.sh").write_text(f"{OURS} || :\n")
    node.says(COMPLETE.replace(PROLOG, f"Prolog={here}/*.sh"))
    node.run("--check", rc=LACKING)


@pytest.mark.parametrize(
    ("release", "added_up"),
    [("slurm 26.05.3", True), ("slurm 24.05.0", True), ("slurm-wlm 22.05.8", False),
     ("slurm 23.11.10", False), ("", True)],
)  # fmt: skip
def test_several_lines_add_up_since_24_05(node: Node, release: str, added_up: bool) -> None:
    node.has_slurm(release)
    node.says(f"{COMPLETE}\nProlog=/opt/site.sh\n")
    node.run("--check", rc=DONE if added_up else LACKING)
    if not added_up:
        told = node.run("--check", rc=LACKING)
        assert "# Prolog=/opt/site.sh is the site's own" in told
    node.says(f"Prolog=/opt/site.sh\n{COMPLETE}")
    node.run("--check", rc=DONE)


def test_a_file_that_is_named_has_to_be_there(node: Node) -> None:
    node.says(COMPLETE)
    assert "cannot be read" in node.run("--check", "--slurm-conf", "/nowhere", rc=WRONG)
    node.says("Include /etc/slurm/gone.conf\n" + COMPLETE)
    for shell in SHELLS:
        assert "gone.conf is included and" in node.run("--check", rc=WRONG, shell=shell)


def test_included_files_lie_beside_slurm_conf_and_may_have_the_clusters_name(node: Node) -> None:
    node.says("ClusterName=lab # ours\nInclude more/%c.conf\n")
    (node.conf.parent / "more").mkdir()
    (node.conf.parent / "more" / "lab.conf").write_text("Include all.conf\n")
    node.says(COMPLETE, "all.conf").run("--check", rc=DONE)
    node.says("Include /etc/slurm/all.conf\n").run("--check", rc=DONE)
