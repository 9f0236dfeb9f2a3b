"""Who tells the site's factors, weather and PUE: whether they answer, and what holds by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wattledger import build
from wattledger.clock import SystemClock
from wattledger.config import Config
from wattledger.doctor.finding import Finding, Level
from wattledger.grid.live_pue import NAME as LIVE_PUE
from wattledger.model import SiteFactors
from wattledger.site_build import site_feed
from wattledger.site_feed import OUT_OF_RANGE
from wattledger.units import PPM, liters


def of_status(status: Mapping[str, Any]) -> Iterator[Finding]:
    """By a running daemon."""
    site = status["site"]
    pue, wue = site["pue"], site["wue_l_per_kwh"]
    for source in status["site_sources"]:
        yield _finding(
            source["source"],
            source["message"] or "",
            source["hint"] or "",
            pue=f"{pue['value']:g} ({pue['source']})",
            wue=f"{wue['value']:g} L/kWh ({wue['source']})",
        )


def of_config(config: Config) -> Iterator[Finding]:
    """Asked from here, while no daemon runs."""
    clock = SystemClock(Path(config.path.procfs))
    site = site_feed(config, build.site_factors(config), clock)
    site.poll_once()
    now: SiteFactors = site.at(clock.now().wall_ns)
    for source in site.statuses():
        yield _finding(
            source.source,
            source.message,
            source.hint,
            pue=f"{now.pue_ppm / PPM:g} ({now.pue_source})",
            wue=f"{liters(now.wue_ul_per_kwh):g} L/kWh ({now.wue_source})",
        )


def _finding(name: str, message: str, hint: str, *, pue: str, wue: str) -> Finding:
    holds = f"PUE {pue}" if name == LIVE_PUE else f"WUE {wue}"
    if not message:
        return Finding("site", "ok", f"{name} answers: {holds}")
    # Of the weather itself nobody is to blame.
    level: Level = "note" if message == OUT_OF_RANGE else "problem"
    return Finding("site", level, f"{name}: {message}; {holds} holds", hint)
