"""deploy/slurm/install.sh --uninstall beside a real Slurm, which runs what it read last."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from e2e.conftest import lacking
from e2e.slurm import CGROUPS, HOOKS, PROGRAMS, Slurm


@pytest.fixture
def slurm(as_root: None, need: Callable[..., None]) -> Iterator[Slurm]:
    need(*PROGRAMS)
    if not (CGROUPS / "freezer").is_dir():
        lacking("needs cgroup v1: Slurm's plugin for v2 wants systemd, or the whole tree")
    with Slurm({"h100": 1}) as slurm:
        yield slurm


def installer(slurm: Slurm, *options: str) -> subprocess.CompletedProcess[str]:
    """Below a directory of the test's own, with the settings of this Slurm."""
    return subprocess.run(
        ["sh", str(HOOKS / "install.sh"), "--destdir", str(slurm.home / "root"),
         "--slurm-conf", str(slurm.home / "slurm.conf"), *options],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        cwd="/",
        timeout=60,
    )  # fmt: skip


def test_the_files_stay_until_slurm_has_read_that_it_needs_none(slurm: Slurm) -> None:
    root = slurm.home / "root"
    assert installer(slurm).returncode == 0
    ours = root / "etc/slurm/prolog.d/50-wattledger.sh"
    there = root / str(slurm.home).lstrip("/") / "hooks"
    there.mkdir(parents=True)
    (there / "prolog").symlink_to(ours)  # which is the Prolog= of this Slurm
    line = f"Prolog={slurm.home}/hooks/prolog"

    conf = slurm.home / "slurm.conf"
    first = installer(slurm, "--uninstall")
    assert (first.returncode, line in first.stdout.splitlines()) == (3, True), first
    assert "as it runs" not in first.stdout

    conf.write_text(re.sub(r"(?m)^Prolog=.*\n", "", conf.read_text()))
    edited = installer(slurm, "--uninstall")
    assert (edited.returncode, line in edited.stdout.splitlines()) == (3, True), edited
    assert "Slurm, as it runs, still does" in edited.stdout
    assert ours.exists()

    slurm.control("reconfigure")
    gone = installer(slurm, "--uninstall")
    assert gone.returncode == 0 and "does not answer" not in gone.stdout, gone
    assert not ours.exists()
