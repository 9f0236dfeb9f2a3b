"""What is told of a site: its PUE as it is measured, or the weather around it.

Not the grid's word, but asked for with the same client, under the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from wattledger.grid.checks import FUTURE_NS
from wattledger.grid.outcome import Outcome, failure
from wattledger.units import NS_PER_S


class SiteReading(NamedTuple):
    """A factor of the site, and when it holds.

    Attributes:
        from_ns: wall clock.
        to_ns: exclusive.
        millionths: of a PUE, or of the litres per kWh of a WUE; None: it was told that none holds.
    """

    from_ns: int
    to_ns: int
    millionths: int | None


class SiteSource(Protocol):
    """Who tells a factor. Used from one thread only; `latest` may block."""

    @property
    def name(self) -> str:
        """The `source` label of its requests."""
        ...

    @property
    def cadence_ns(self) -> int:
        """How often there is something new."""
        ...

    @property
    def identity(self) -> str:
        """What is asked for; readings kept over a restart are taken up by an equal one only."""
        ...

    def latest(self, now_wall_ns: int) -> list[SiteReading]:
        """One request: the newest readings, at least one, oldest first.

        Raises:
            GridError: none came; `outcome` says how it ended.
        """
        ...


def check_times(readings: Sequence[SiteReading], now_wall_ns: int, max_age_ns: int) -> None:
    """Refuse what is of a time to come, or too old to hold now; the newest reading counts.

    Raises:
        GridError: outcome `no_data`, `bad_value`, `future` or `stale`.
    """
    if not readings:
        raise failure(Outcome.NO_DATA, "the source gave nothing")
    newest = readings[-1]
    if any(reading.from_ns >= reading.to_ns for reading in readings):
        raise failure(Outcome.BAD_VALUE, "a reading ends before it begins")
    if newest.from_ns > now_wall_ns + FUTURE_NS:
        ahead_s = (newest.from_ns - now_wall_ns) // NS_PER_S
        raise failure(Outcome.FUTURE, f"the reading is for a time {ahead_s} s ahead of this clock")
    if now_wall_ns >= newest.to_ns + max_age_ns:
        age_s = (now_wall_ns - newest.to_ns) // NS_PER_S
        raise failure(Outcome.STALE, f"the newest reading ended {age_s} s ago: beyond grid.max_age")
