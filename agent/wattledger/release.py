"""A release of the GPUs: until when, and how it outlives a restart of the daemon.

This package and the driver's may be upgraded in one go. The daemon is then started anew in the
middle of the exchange, and must not take up the GPUs before its end. So the end is kept in the
ledger's notes; with the next boot it is void.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from wattledger.model import Instant
from wattledger.units import NS_PER_S, format_duration

RELEASE_NOTE = "release"
LONGEST_NS = 86_400 * NS_PER_S
"""That the API takes; who kept more than that kept nonsense."""


class Released(NamedTuple):
    """Until when a meter is closed on request; 0: it is not.

    Attributes:
        monotonic_ns: CLOCK_MONOTONIC, which decides.
        wall_ns: the same instant on the wall clock, for people.
    """

    monotonic_ns: int = 0
    wall_ns: int = 0

    def note(self, boot_id: str) -> str:
        """What the ledger keeps of it; empty: nothing."""
        if not self.monotonic_ns:
            return ""
        return json.dumps({"boot_id": boot_id, "until_monotonic_ns": self.monotonic_ns})


NOT_RELEASED = Released()


def released_for(duration_ns: int, now: Instant) -> Released:
    """From now on for this long; 0: not at all."""
    if not duration_ns:
        return NOT_RELEASED
    return Released(now.monotonic_ns + duration_ns, now.wall_ns + duration_ns)


def recalled(note: str, now: Instant, boot_id: str) -> Released:
    """What is left of a release that an earlier process noted in this boot."""
    try:
        kept = json.loads(note)
        left_ns = int(kept["until_monotonic_ns"]) - now.monotonic_ns
        in_force = kept["boot_id"] == boot_id and 0 < left_ns <= LONGEST_NS
    except (ValueError, KeyError, TypeError):  # none, or damaged: then nothing is released
        return NOT_RELEASED
    return released_for(left_ns, now) if in_force else NOT_RELEASED


def describe_release(duration_ns: int, written: bool) -> str:
    """What `release` answers. Args: written: the books are on disk up to now."""
    if not duration_ns:
        return "NVML is taken up again; the gap is booked at the next commit."
    books = "The books are written and" if written else "The books could NOT be written now, but"
    return (
        f"{books} NVML is closed for {format_duration(duration_ns)}; "
        "GPUs with an energy counter lose nothing, the gap is booked afterwards."
    )
