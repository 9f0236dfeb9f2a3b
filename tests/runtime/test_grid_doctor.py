"""What `doctor` says of a source that the books are never priced with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakes import FakeClock
from snapshots import snapshot
from wattledger import build
from wattledger.config import parse_config
from wattledger.doctor import examine
from wattledger.grid.feed import MARGINAL
from wattledger.remote import Remote
from wattledger_exporters.http.api import status

CONFIG = """
    [site]
    zone = "US"
    [[grid.source]]
    kind = "watttime"
    zone = "CAISO_NORTH"
    user = "site"
    token_file = "/run/credentials/watttime"
    [meters]
    nvml.enabled = false
    [path]
    sysfs = "{sysfs}"
    [ledger]
    path = "{ledger}"
"""


class Told(Remote):
    """A daemon that answers so."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__([])
        self._answer = answer

    def request(
        self, path: str, query: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Any:
        return self._answer


def test_a_marginal_source_is_noted_and_no_problem(tmp_path: Path) -> None:
    config = parse_config(CONFIG.format(sysfs=tmp_path / "sys", ledger=tmp_path / "l.sqlite"))
    clock = FakeClock()
    grid = build.grid_feed(config, clock, ())
    shown = snapshot(grid=grid.at(clock.wall_ns), sources=grid.statuses())
    found = [f for f in examine(config, Told(status(shown, clock.wall_ns))) if f.area == "grid"]

    assert [finding.level for finding in found] == ["note", "note"]
    assert "country table" in found[0].message
    assert MARGINAL[0] in found[1].message and found[1].hint == MARGINAL[1]
