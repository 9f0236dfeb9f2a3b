"""What settling needs: a source with a past, and prices as they were booked."""

from __future__ import annotations

from dataclasses import replace

from fakes import SITE
from grid_feeds import HALF_HOUR, TABLE, FakeSource, signal
from wattledger.core.footprint import price_of
from wattledger.grid.outcome import failure
from wattledger.model import Basis, FallbackLevel, GridChoice, GridSignal, Price

TABLE_HERE = replace(TABLE, basis=Basis.GENERATION)
"""A table of the source's own basis."""


class Provider(FakeSource):
    """A source with a past: g/kWh by half hour, or as many as it is told; 250 where it is not."""

    def __init__(self, name: str = "first") -> None:
        super().__init__(name)
        self.past: dict[int, int] = {}
        self.gaps: set[int] = set()
        self.asked: list[tuple[int, int]] = []
        self.ewif_ul_per_kwh: int | None = None

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        self.asked.append((start_ns, end_ns))
        if self.error is not None:
            raise failure(self.error, "out")
        first = start_ns // HALF_HOUR * HALF_HOUR
        return [
            signal(
                at_ns,
                self.past.get(at_ns, 250),
                source=self.name,
                basis=self.basis,
                zone=self.zone,
                fetched_at_ns=now_wall_ns,
                ewif_ul_per_kwh=self.ewif_ul_per_kwh,
            )
            for at_ns in range(first, end_ns, HALF_HOUR)
            if at_ns not in self.gaps
        ]


def live(start_ns: int, grams: int, source: str = "first", **changes: object) -> Price:
    found = signal(start_ns, grams, source=source, **changes)
    return price_of(GridChoice(found, FallbackLevel.LIVE, False), SITE)


def table_price(found: GridSignal = TABLE_HERE) -> Price:
    return price_of(GridChoice(found, FallbackLevel.TABLE, True), SITE)
