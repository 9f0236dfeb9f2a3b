"""Wall-clock time of past ticks, as a driver that noted it at the tick would give it."""

from __future__ import annotations

from wattledger.model import Instant

_STEP_NS = 1_000_000  # a smaller drift between the clocks is slewing, not a step
_KEPT = 16


class WallMap:
    """Boot time → wall clock, with the offset that was in force then.

    Reading two clocks one after the other gives an offset that trembles; a tick's time must not.
    """

    def __init__(self, now: Instant) -> None:
        self._offsets = [(-(1 << 80), now.wall_ns - now.boottime_ns)]

    def observe(self, now: Instant) -> None:
        """Take note of a stepped clock."""
        offset = now.wall_ns - now.boottime_ns
        if abs(offset - self._offsets[-1][1]) > _STEP_NS:
            self._offsets = [*self._offsets[1 - _KEPT :], (now.boottime_ns, offset)]

    def wall_us(self, t_ns: int) -> int:
        """The wall clock at boot time `t_ns`, in µs."""
        offsets = self._offsets
        if len(offsets) == 1:
            return (t_ns + offsets[0][1]) // 1000
        for since, offset in reversed(offsets):
            if since <= t_ns:
                return (t_ns + offset) // 1000
        return (t_ns + offsets[0][1]) // 1000

    def boottime_ns(self, wall_ns: int) -> int:
        """The boot time at a wall clock, by the offset in force now."""
        return wall_ns - self._offsets[-1][1]
