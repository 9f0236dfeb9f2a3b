"""What the house promises about itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "agent").rglob("*.py"), *(ROOT / "exporters").rglob("*.py")])


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_outgrows_its_room(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("door", [
    ("pynvml", "agent/wattledger/meters/nvml/binding.py"),
    ("httpx", "agent/wattledger/grid"),
    ("httpcore", "agent/wattledger/grid"),
    ("sqlite3", "agent/wattledger/ledger"),
    ("prometheus_client", "exporters/wattledger_exporters"),
    ("uvicorn", "exporters/wattledger_exporters"),
    ("yaml", "exporters/wattledger_exporters"),
    ("bcrypt", "exporters/wattledger_exporters"),
    ("cattrs", "agent/wattledger/config"),
    ("psutil", "agent/wattledger/procfs.py"),
    ("h2", "agent/wattledger/jobs/claims"),
    ("opentelemetry", "exporters/wattledger_exporters/otlp"),
    ("requests", "exporters/wattledger_exporters/otlp"),
    ("pyarrow", "agent/wattledger/audit"),
])  # fmt: skip
def test_one_door_per_library(door: tuple[str, str]) -> None:
    library, room = door
    pattern = re.compile(rf"^\s*(?:import|from)\s+{library}\b", re.MULTILINE)
    outside = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if pattern.search(path.read_text()) and not path.is_relative_to(ROOT / room)
    ]

    assert outside == []


def test_the_daemon_imports_nothing_heavy_that_it_does_not_need() -> None:
    """httpx, rich, yaml and bcrypt cost tens of MB; only some users need them.

    The HTTP rooms that answer people, TLS and passwords are half a MB of our own.
    """
    script = (
        "import sys, wattledger.app, wattledger.cli\n"
        "heavy = {'httpx', 'httpcore', 'rich', 'yaml', 'bcrypt', 'cryptography', 'h2', 'difflib',\n"
        "         'opentelemetry', 'requests', 'google', 'pyarrow'}\n"
        "ours = {'advice', 'http.jobs_api', 'http.openapi', 'http.schemas', 'http.waste_api',\n"
        "        'receipts', 'status_page', 'tls', 'web_config'}\n"
        "heavy |= {'wattledger_exporters.' + room for room in ours}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()

    assert loaded == "[]"


def test_version_and_changelog_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    from wattledger import __version__

    assert version == __version__
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_is_pinned_for_the_gate() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    names = {re.match(r"[A-Za-z0-9_.-]+", text)[0].lower().replace("_", "-") for text in wanted}  # type: ignore[index]

    assert names - {"wattledger"} <= pinned  # `dev` takes its other extras in
