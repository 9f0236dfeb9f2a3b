"""How busy the node's CPUs are, to learn what they draw when idle."""

from __future__ import annotations

from pathlib import Path

from wattledger.procfs import NS_PER_TICK, busy_and_total_ticks
from wattledger.units import PPM


class NodeLoad:
    """The busy share of all CPUs between two calls.

    The kernel writes all of /proc/stat for each read, interrupt counters included: up to a
    millisecond on machines with hundreds of CPUs, so call it every few seconds there.

    Args:
        procfs: root of procfs.
    """

    def __init__(self, procfs: Path) -> None:
        self._procfs = procfs
        self._last: tuple[int, int] | None = None

    @property
    def busy_ns(self) -> int | None:
        """CPU time that all CPUs together spent busy since boot, as of the last `busy_ppm`."""
        return None if self._last is None else self._last[0] * NS_PER_TICK

    def busy_ppm(self) -> int | None:
        """Millionths of all CPU time since the last call that were spent busy.

        None at the first call, where no tick has passed, and where /proc/stat does not tell.
        """
        try:
            busy, total = busy_and_total_ticks(self._procfs)
        except (OSError, ValueError):
            self._last = None
            return None
        last, self._last = self._last, (busy, total)
        if last is None or total <= last[1]:
            return None
        passed = total - last[1]
        return min(max(busy - last[0], 0), passed) * PPM // passed
