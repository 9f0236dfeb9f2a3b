"""A directory that stands for the root of a machine with Slurm, for deploy/slurm/install.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SLURM = Path(__file__).parents[2] / "deploy" / "slurm"
SHELLS = [shell for shell in ("sh", "dash", "bash", "busybox") if shutil.which(shell)]
COMPLETE = """
ClusterName=lab
ProctrackType=proctrack/cgroup
Prolog=/etc/slurm/prolog.d/*
Epilog=/etc/slurm/epilog.d/*
PrologFlags=Alloc,Contain
JobAcctGatherType=jobacct_gather/cgroup
NodeName=gpu[01-02] Gres=gpu:8
"""
NODE_FILES = {
    "etc/slurm/prolog.d/50-wattledger.sh": ("prolog.sh", 0o755),
    "etc/slurm/epilog.d/50-wattledger.sh": ("epilog.sh", 0o755),
    "etc/slurm/wattledger-task-epilog.sh": ("task_epilog.sh", 0o755),
    "etc/tmpfiles.d/wattledger-jobs.conf": ("wattledger-jobs.conf", 0o644),
}
CONTROLLER_FILES = {
    "etc/slurm/wattledger-prolog-slurmctld.sh": ("prolog_slurmctld.sh", 0o755),
    "etc/slurm/wattledger-epilog-slurmctld.sh": ("epilog_slurmctld.sh", 0o755),
    "usr/lib/wattledger/slurm/admin-comments": ("admin_comments.sh", 0o755),
    "etc/tmpfiles.d/wattledger-names.conf": ("wattledger-names.conf", 0o644),
    "etc/systemd/system/wattledger-admin-comments.service": (
        "wattledger-admin-comments.service",
        0o644,
    ),
    "etc/systemd/system/wattledger-admin-comments.timer": (
        "wattledger-admin-comments.timer",
        0o644,
    ),
}
DONE, LACKING, WRONG = 0, 3, 2


class Node:
    """A directory that stands for a machine's root, and the programs that come first in its PATH.

    Args:
        root: where; it need not be there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.programs = root.parent / "programs"
        self.has_slurm("slurm 26.05.3")
        self.conf = root / "etc" / "slurm" / "slurm.conf"

    def says(self, conf: str, name: str = "slurm.conf") -> Node:
        """What a file beside slurm.conf holds."""
        self.conf.parent.mkdir(parents=True, exist_ok=True)
        (self.conf.parent / name).write_text(conf)
        return self

    def has_slurm(self, release: str, in_force: str = "Configuration data\n") -> Node:
        """What `scontrol --version` prints here, and `show config`; no release: there is none."""
        (self.programs / "in-force").parent.mkdir(parents=True, exist_ok=True)
        (self.programs / "in-force").write_text(in_force)
        return self.has("slurmd", "exit 1").has(
            "scontrol",
            f'[ -n "{release}" ] || exit 1\n'
            f'case "$*" in --version) echo "{release}" ;;\n'
            f'"show config") [ -r "$SLURM_CONF" ] && cat {self.programs}/in-force ;;\n'
            "*) exit 1 ;; esac",
        )

    def has(self, name: str, text: str) -> Node:
        """A program that is found before the machine's own."""
        self.programs.mkdir(parents=True, exist_ok=True)
        (self.programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.programs / name).chmod(0o755)
        return self

    def run(self, *options: str, rc: int, shell: str = "sh") -> str:
        """What install.sh prints, which has to end with `rc`."""
        command = [shell, *(["sh"] if shell == "busybox" else []), str(SLURM / "install.sh")]
        done = subprocess.run(
            [*command, "--destdir", str(self.root), *options],
            capture_output=True,
            text=True,
            env={"PATH": f"{self.programs}:{os.environ['PATH']}"},
            cwd="/",
            timeout=60,
        )
        assert done.returncode == rc, (done.stdout, done.stderr)
        assert not done.stderr or rc == WRONG, done.stderr
        return done.stdout + done.stderr

    def files(self) -> set[str]:
        """All of them, from the root."""
        return {str(p.relative_to(self.root)) for p in self.root.rglob("*") if not p.is_dir()}
