"""Slurm's hooks for receipts, run without a Slurm."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from deploy.slurm_node import SLURM

BATCH = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "1", "SLURMD_NODENAME": "gpu01"}


def run(
    script: str, env: dict[str, str], shell: str = "sh", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """A hook of deploy/slurm, which has to end with `code`, and within half a minute.

    All signals are blocked in it, as most are in what slurmctld starts, SIGCHLD and SIGTERM too.
    """
    command = [shell, *(["sh"] if shell == "busybox" else []), str(SLURM / script)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with process:
        try:
            out, err = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
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
