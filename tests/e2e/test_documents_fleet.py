"""What the documents ask a Prometheus about many nodes, asked of one with hours of a fleet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from documents import Block, chosen, commands, fits
from e2e.history import Prometheus

ADDRESS = "http://prometheus:9090"


@pytest.mark.parametrize(
    "block", chosen("console fleet", "sh fleet"), ids=lambda block: str(block.where)
)
def test_a_fleet_is_asked(block: Block, fleet_prometheus: Prometheus, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command in commands(block):
        assert ADDRESS in command.typed
        done = subprocess.run(
            ["bash", "-c", command.typed.replace(ADDRESS, fleet_prometheus.url)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
            env={"PATH": path, "HOME": str(tmp_path), "COLUMNS": "160"},
        )
        assert done.returncode == 0, done.stderr
        if command.shown:
            assert fits(command.shown, done.stdout) == ""
