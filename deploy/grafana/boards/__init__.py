"""The Grafana dashboards as code; `build.py` beside this folder writes them to `dashboards/`."""

from __future__ import annotations

from collections.abc import Callable

from grafana_foundation_sdk.builders.dashboard import Dashboard

from boards import fleet, footprint, health, job, node, users

BOARDS: dict[str, Callable[[], Dashboard]] = {
    "fleet": fleet.board,
    "node": node.board,
    "job": job.board,
    "users": users.board,
    "footprint": footprint.board,
    "health": health.board,
}
"""File name → what builds it."""
