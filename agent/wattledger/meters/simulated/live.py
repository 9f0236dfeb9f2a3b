"""Power that somebody outside dictates while it is played: programs in a test, a load generator.

The file is CSV with the columns t_s (since boot, CLOCK_BOOTTIME) and watts, and only grows; each
power holds until the next point. Whoever writes a point a little ahead of its time (by more than
the counter's tick) never changes what the counter has shown.
"""

from __future__ import annotations

from pathlib import Path

from wattledger.meters.simulated.schema import SECONDS, WATTS
from wattledger.meters.simulated.waveforms import Piecewise

FOR_EVER_NS = 1 << 62  # longer than a machine runs: what repeats after it, repeats never


class Live:
    """A waveform that follows a file; exact between any two instants, as the others are.

    A line that is no point, is not complete, or is not later than the point before it is left out;
    more than `peak_uw` is drawn by no card.

    Args:
        file: where the points come; it need not exist yet.
        idle_uw: power before the first point.
        peak_uw: the card's limit.
    """

    period_ns = FOR_EVER_NS
    floor_uw = 0

    def __init__(self, file: Path, idle_uw: int, peak_uw: int) -> None:
        self.peak_uw = peak_uw
        self._file = file
        self._points = [(0, min(idle_uw, peak_uw))]
        self._seen_bytes = self._read_bytes = 0
        self._wave = self._drawn()

    def power_uw(self, t_ns: int) -> int:
        """The power at an instant, as far as it is written."""
        return self._now().power_uw(t_ns)

    def energy_uwns(self, t_ns: int) -> int:
        """The energy from 0 to `t_ns`."""
        return self._now().energy_uwns(t_ns)

    def lagged_uw(self, t_ns: int, tau_ns: int) -> float:
        """The power as a first-order lag with time constant `tau_ns` follows it."""
        return self._now().lagged_uw(t_ns, tau_ns)

    def _now(self) -> Piecewise:
        """The waveform with all points that are written by now."""
        try:
            size_bytes = self._file.stat().st_size
            if size_bytes > self._seen_bytes:
                with self._file.open("rb") as file:
                    file.seek(self._read_bytes)
                    self._take(file.read())
                self._seen_bytes = size_bytes
        except OSError:
            pass
        return self._wave

    def _take(self, more: bytes) -> None:
        text = more[: more.rfind(b"\n") + 1]
        self._read_bytes += len(text)
        known = len(self._points)
        for line in text.splitlines():
            cells = line.split(b",")
            try:
                at_ns, power_uw = SECONDS(float(cells[0])), WATTS(float(cells[1]))
            except (ValueError, IndexError):
                continue
            if at_ns > self._points[-1][0]:
                self._points.append((at_ns, min(power_uw, self.peak_uw)))
        if len(self._points) > known:
            self._wave = self._drawn()

    def _drawn(self) -> Piecewise:
        ends = [at_ns for at_ns, _ in self._points[1:]] + [FOR_EVER_NS]
        return Piecewise(
            [(end - at, uw, uw) for (at, uw), end in zip(self._points, ends, strict=True)]
        )
