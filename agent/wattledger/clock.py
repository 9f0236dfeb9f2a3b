"""The real clocks."""

from __future__ import annotations

import time
from pathlib import Path

from wattledger.model import Instant


class SystemClock:
    """The machine's own time."""

    def __init__(self, procfs: Path = Path("/proc")) -> None:
        """Args: procfs: where the boot id is read."""
        self._boot_id = _read_boot_id(procfs)

    @property
    def boot_id(self) -> str:
        """The kernel's id of this boot."""
        return self._boot_id

    def now(self) -> Instant:
        """This moment on all three clocks."""
        return Instant(
            time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns()
        )


def _read_boot_id(procfs: Path) -> str:
    # A re-rooted /proc may lack it; the kernel is the same one.
    for root in (procfs, Path("/proc")):
        try:
            return (root / "sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            continue
    # The same for ever: a reboot then shows as counters that fell, which books no joule twice.
    return "unknown"


class TickGrid:
    """The instants at which all meters take their turns: multiples of an interval, jittered.

    All meters share the grid, so that a commit holds readings of one moment. The jitter (up to
    5 % of the interval, the same for all) keeps an instantaneous power sensor from falling into
    step with a load of the same period; for counters and averages it changes nothing.
    """

    JITTER = 20  # a twentieth

    def __init__(self, interval_ns: int) -> None:
        self.interval_ns = interval_ns

    def next_after(self, monotonic_ns: int) -> int:
        """The first turn after this instant (both on CLOCK_MONOTONIC)."""
        number = monotonic_ns // self.interval_ns
        while True:
            turn_ns = number * self.interval_ns + self._jitter_ns(number)
            if turn_ns > monotonic_ns:
                return turn_ns
            number += 1

    def _jitter_ns(self, number: int) -> int:
        # A multiplicative hash (Knuth): even, deterministic, and without a period in sight.
        fraction = (number * 2654435761 & 0xFFFFFFFF) >> 8
        return self.interval_ns // self.JITTER * fraction >> 24
