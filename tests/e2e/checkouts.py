"""A copy of the checkout in which somebody types, on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from documents import ROOT
from e2e.packages import copy_checkout


def working_copy(folder: Path) -> Path:
    """A copy, whose `.venv` starts the programs of the one that runs this."""
    checkout = copy_checkout(folder)
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests", checkout / "tests", ignore=left_out)
    tools = checkout / ".venv/bin"
    tools.mkdir(parents=True)
    for name in ("python", "wattledger"):
        real = Path(sys.executable).parent / name
        (tools / name).write_text(f'#!/bin/sh\nexec "{real}" "$@"\n')
        (tools / name).chmod(0o755)
    (checkout / ".venv/.ready").touch()  # newer than what `make` would set it up again for
    return checkout


def environment(checkout: Path) -> dict[str, str]:
    """Of whoever types there; what is installed goes into a directory beside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return kept | {
        "PATH": f"{checkout}/.venv/bin:{os.environ['PATH']}",
        "COLUMNS": "160",
        "HOME": str(checkout.parent),
        "DESTDIR": str(checkout.parent / "installed"),
    }


def run(
    command: str, checkout: Path, *before: str, timeout_s: float = 600
) -> subprocess.CompletedProcess[str]:
    """At a shell in the checkout.

    Args:
        command: what is typed.
        checkout: where.
        before: a command that starts the shell.
        timeout_s: how long it may take.
    """
    return subprocess.run(
        [*before, "bash", "-c", f"exec 2>&1; {command}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=checkout,
        timeout=timeout_s,
        env=environment(checkout),
    )
