"""Instants as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime

from wattledger.units import NS_PER_S


def iso(wall_ns: int) -> str | None:
    """UTC to the second as RFC 3339; None for 0, which stands for never."""
    if wall_ns <= 0:
        return None
    return datetime.fromtimestamp(wall_ns // NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
