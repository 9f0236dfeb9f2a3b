"""Feeds for tests: a table, a source that says what it is told to, and the polling thread."""

from __future__ import annotations

from dataclasses import replace

from fakes import START_WALL_NS, FakeClock
from wattledger.grid.feed import Feed
from wattledger.grid.outcome import Outcome, failure
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S, UG_PER_G

MINUTE = 60 * NS_PER_S
HALF_HOUR = 30 * MINUTE
HOUR = 60 * MINUTE
MAX_AGE = 6 * HOUR
T0 = START_WALL_NS  # the start of a half hour

TABLE = GridSignal(
    217 * UG_PER_G,
    "GB",
    "table",
    Basis.LIFECYCLE,
    T0 - 9_000 * HOUR,
    T0 - 300 * HOUR,
    True,
    T0,
    HOUR,
)


def signal(start_ns: int, grams: int = 100, **changes: object) -> GridSignal:
    made = GridSignal(
        intensity_ug_per_kwh=grams * UG_PER_G,
        zone="GB",
        source="first",
        basis=Basis.GENERATION,
        valid_from_ns=start_ns,
        valid_to_ns=start_ns + HALF_HOUR,
        estimated=False,
        fetched_at_ns=start_ns + HALF_HOUR,
        cadence_ns=HALF_HOUR,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


class FakeSource:
    """A `Source` that gives the last complete half hour, or what it is told to."""

    zone = "GB"
    basis = Basis.GENERATION
    cadence_ns = HALF_HOUR

    def __init__(self, name: str = "first", grams: int = 100) -> None:
        self.name = name
        self.grams = grams
        self.error: Outcome | None = None
        self.retry_after_s: float | None = None
        self.given: list[GridSignal] | None = None
        self.asked_at: list[int] = []

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        self.asked_at.append(now_wall_ns)
        if self.error is not None:
            raise failure(self.error, "out", retry_after_s=self.retry_after_s)
        if self.given is not None:
            return self.given
        start_ns = now_wall_ns // HALF_HOUR * HALF_HOUR - HALF_HOUR
        return [signal(start_ns, self.grams, source=self.name, fetched_at_ns=now_wall_ns)]


def feed(
    *sources: FakeSource, clock: FakeClock, max_age_ns: int = MAX_AGE, **options: object
) -> Feed:
    return Feed(sources, TABLE, clock, max_age_ns=max_age_ns, **options)  # type: ignore[arg-type]


def run(feed: Feed, clock: FakeClock, seconds: float) -> None:
    """What the polling thread does, in simulated time."""
    end_ns = clock.boottime_ns + round(seconds * NS_PER_S)
    while clock.boottime_ns <= end_ns:
        clock.advance(feed.poll_once())
