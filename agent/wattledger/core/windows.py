"""When to use energy: exact windows over a forecast of unequal periods. Pure.

The intensity of a forecast is a step function of time. What a window of a fixed length is exposed
to, ∫ intensity dt, is piecewise linear in the window's start, and bends only where the start or
the end of the window passes a step: so one of these few starts is the best of all, and no grid of
trial times is needed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import NamedTuple

from wattledger.model import GridSignal
from wattledger.units import NS_PER_S, PPM, UJ_PER_KWH


class Period(NamedTuple):
    """A span of wall clock, end exclusive, and the intensity throughout.

    Or what else a kWh of that time is charged with, such as its µL of water: what is said about
    intensities here holds for it too.
    """

    start_ns: int
    end_ns: int
    intensity_ug_per_kwh: int


class Window(NamedTuple):
    """A span that is forecast without a gap.

    Attributes:
        start_ns: wall clock.
        end_ns: wall clock, exclusive.
        exposure: ∫ intensity dt over it, in µg/kWh × ns.
    """

    start_ns: int
    end_ns: int
    exposure: int

    @property
    def mean_ug_per_kwh(self) -> Fraction:
        """The mean intensity, exact."""
        return Fraction(self.exposure, self.end_ns - self.start_ns)

    def co2e_ug(self, power_uw: int, pue_ppm: int) -> int:
        """What a constant IT power over the window emits: the floor of P × PUE × ∫ intensity dt."""
        return power_uw * pue_ppm * self.exposure // (NS_PER_S * PPM * UJ_PER_KWH)


def periods_of(
    signals: Iterable[GridSignal],
    value: Callable[[GridSignal], int | None] = lambda signal: signal.intensity_ug_per_kwh,
) -> list[Period]:
    """The signals of one source as periods that do not overlap, oldest first.

    Where two overlap, the one that begins later holds from there.

    Args:
        signals: in any order.
        value: what of them, per kWh; one without it leaves a gap.

    Raises:
        ValueError: they are of several sources, zones or bases, which nothing may mix.
    """
    ordered = sorted(signals, key=lambda signal: signal.valid_from_ns)
    if len({(signal.source, signal.zone, signal.basis) for signal in ordered}) > 1:
        raise ValueError("the signals are not of one source, zone and basis")
    found: list[Period] = []
    for signal, later in zip(ordered, [*ordered[1:], None], strict=True):
        end_ns = (
            signal.valid_to_ns if later is None else min(signal.valid_to_ns, later.valid_from_ns)
        )
        level = value(signal)
        if level is not None and signal.valid_from_ns < end_ns:
            found.append(Period(signal.valid_from_ns, end_ns, level))
    return found


class Curve:
    """Intensity over time, with gaps where nothing is known; each look costs O(log n)."""

    def __init__(self, periods: Iterable[Period]) -> None:
        """Args: periods: oldest first, none overlapping another, as of `periods_of`."""
        self._periods = list(periods)
        self._starts = [period.start_ns for period in self._periods]
        self._exposed = [0]  # ∫ intensity dt and ∫ dt of all periods before the i-th
        self._covered = [0]
        for start_ns, end_ns, intensity in self._periods:
            self._exposed.append(self._exposed[-1] + (end_ns - start_ns) * intensity)
            self._covered.append(self._covered[-1] + end_ns - start_ns)

    def _until(self, wall_ns: int) -> tuple[int, int]:
        """∫ intensity dt and ∫ dt of what is known before an instant."""
        at = bisect_right(self._starts, wall_ns) - 1
        if at < 0:
            return 0, 0
        start_ns, end_ns, intensity = self._periods[at]
        inside_ns = min(wall_ns, end_ns) - start_ns
        return self._exposed[at] + inside_ns * intensity, self._covered[at] + inside_ns

    def window(self, start_ns: int, end_ns: int) -> Window | None:
        """What a span is exposed to; None: it is empty, or not known throughout."""
        exposure, covered_ns = self.known(start_ns, end_ns)
        if start_ns >= end_ns or covered_ns < end_ns - start_ns:
            return None
        return Window(start_ns, end_ns, exposure)

    def known(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """∫ intensity dt, and for how many ns it is known, over a span that may have gaps."""
        exposed, covered_ns = self._until(start_ns)
        exposed_later, covered_later_ns = self._until(end_ns)
        return exposed_later - exposed, covered_later_ns - covered_ns

    def soonest(self, length_ns: int, earliest_ns: int, latest_end_ns: int) -> Window | None:
        """The first window of a length that begins and ends within a span; None: none is known."""
        windows = self._windows(length_ns, earliest_ns, latest_end_ns)
        return min(windows, key=lambda window: window.start_ns, default=None)

    def cleanest(self, length_ns: int, earliest_ns: int, latest_end_ns: int) -> Window | None:
        """The window with the least exposure that lies within a span; of equals the first.

        Args:
            length_ns: of the window, above 0.
            earliest_ns: wall clock; it begins no earlier.
            latest_end_ns: wall clock; it ends no later.

        Returns:
            None: no window of this length is known throughout.
        """
        windows = self._windows(length_ns, earliest_ns, latest_end_ns)
        return min(windows, key=lambda window: (window.exposure, window.start_ns), default=None)

    def _windows(self, length_ns: int, earliest_ns: int, latest_end_ns: int) -> list[Window]:
        """Those windows that can be the first or the best."""
        latest_ns = latest_end_ns - length_ns
        steps = {step for start, end, _ in self._periods for step in (start, end)}
        starts = {earliest_ns, latest_ns, *steps, *(step - length_ns for step in steps)}
        inside = (start for start in starts if earliest_ns <= start <= latest_ns)
        found = (self.window(start, start + length_ns) for start in inside)
        return [window for window in found if window is not None]
