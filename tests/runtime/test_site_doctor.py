"""What `doctor` says of those that tell the site's weather and PUE, and receipts of its water."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grid_server as play
from fakes import FakeClock
from grid_server import GridServer
from snapshots import snapshot
from wattledger import build
from wattledger.config import parse_config
from wattledger.doctor import examine, site
from wattledger.doctor.finding import Finding
from wattledger.model import Snapshot
from wattledger.remote import Remote
from wattledger.site_build import site_feed
from wattledger.site_feed import OUT_OF_RANGE
from wattledger_exporters.http.api import status


class Told(Remote):
    """A daemon that answers so."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__([])
        self._answer = answer

    def request(
        self, path: str, query: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Any:
        return self._answer


def of_site(text: str) -> list[Finding]:
    return list(site.of_config(parse_config(text)))


def test_a_meter_is_asked_from_here() -> None:
    with GridServer(play.reply(body={"pue": 1.21})) as server:
        text = f'[site.live_pue]\nkind = "json"\nurl = "{server.url}/"\npointer = "/pue"\n'
        [found] = of_site(text)
        assert found == ("site", "ok", "live_pue answers: PUE 1.21 (live)", "")
        server.script = play.reply(body={"pue": 121})
        [found] = of_site("[site]\npue = 1.3\n" + text)
    assert found.level == "problem"
    assert "no number from 1 to 5" in found.message
    assert "PUE 1.3 (config) holds" in found.message
    assert found.hint


def test_nobody_to_ask_is_nothing_to_say() -> None:
    assert of_site("") == []


def told_by(shown: Snapshot, tmp_path: Path) -> list[Finding]:
    config = parse_config(
        f'[meters]\nnvml.enabled = false\n[path]\nsysfs = "{tmp_path}"\n'
        f'[ledger]\npath = "{tmp_path}/l.sqlite"\n'
    )
    found = examine(config, Told(status(shown, shown.at_ns)))
    return [f for f in found if f.area == "site" and "embodied" not in f.message]


def test_a_daemon_tells_of_its_weather(tmp_path: Path) -> None:
    clock = FakeClock()
    with GridServer(play.reply(503)) as server:
        config = parse_config(
            f'[site.weather]\nlatitude = 1\nlongitude = 2\nurl = "{server.url}"\n'
        )
        feed = site_feed(config, build.site_factors(config), clock)
        feed.poll_once()
    shown = replace(snapshot(), site=feed.at(clock.wall_ns), site_sources=feed.statuses())
    [found] = told_by(shown, tmp_path)
    assert found.level == "problem"
    assert "status 503" in found.message
    assert "WUE 0.36 L/kWh (default) holds" in found.message
    [dry] = told_by(
        replace(shown, site_sources=(replace(feed.statuses()[0], message=OUT_OF_RANGE),)), tmp_path
    )
    assert dry.level == "note"
    assert told_by(replace(shown, site_sources=()), tmp_path) == []
