"""Slurm's hooks for receipts, run without a Slurm."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.slurm_node import SLURM

BATCH = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "1", "SLURMD_NODENAME": "gpu01"}


def run(
    script: str, env: dict[str, str], shell: str = "sh", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """A hook of deploy/slurm, which has to end with `code`, and within half a minute."""
    command = [shell, *(["sh"] if shell == "busybox" else []), str(SLURM / script)]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30
    )
    assert done.returncode == code
    assert done.stdout == ""  # Slurm gives these hooks nowhere to write it to
    return done


def program(folder: Path, text: str) -> dict[str, str]:
    """What makes the hooks take this for wattledger."""
    file = folder / "program"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return {"WATTLEDGER_PROGRAM": str(file), "WATTLEDGER_RECEIPTS_FROM": str(folder / "from")}


ENDED = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "gpu[01-04]"}


def note(folder: Path, env: dict[str, str], shell: str = "sh") -> dict[str, str]:
    """The notes in `ended` after a job's end; empty where there is no such directory."""
    names = {"WATTLEDGER_NAMES_DIR": str(folder / "names")}
    run("epilog_slurmctld.sh", env | names | {"WATTLEDGER_ENDED_DIR": str(folder / "ended")}, shell)
    ended = folder / "ended"
    return {file.name: file.read_text() for file in ended.iterdir()} if ended.is_dir() else {}
