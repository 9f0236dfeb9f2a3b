"""How the installed program starts Python: alone, and with small code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

INSTALL = Path(__file__).parents[2] / "deploy/install.sh"
LOOK = """
import json, sys
print(sys.flags.isolated, next(iter(json.dumps.__code__.co_positions()))[2:])
"""


def test_it_hears_nobody_and_keeps_no_columns() -> None:
    """As a script's first line has it: all options are one word."""
    (options,) = re.findall(r"^#!\$lib/bin/python3 (.+)$", INSTALL.read_text(), re.MULTILINE)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, options, "-c", LOOK],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "1 (None, None)\n", done
