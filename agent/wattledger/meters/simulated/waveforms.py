"""Power over time whose energy is known in closed form.

Time is CLOCK_BOOTTIME in ns, power µW, energy µW·ns (10⁻¹⁵ J): all integers, so that a week of
uptime costs as much as a second and loses nothing. Every waveform repeats for ever, in both
directions: before t = 0 its energy is negative, which makes differences right everywhere.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

_SETTLED = 16.0  # time constants after which a first-order lag has forgotten: e^-16 = 1.1e-7


class Waveform(Protocol):
    """The true power of a card.

    Attributes:
        period_ns: it repeats after this long.
        floor_uw: it never falls below.
        peak_uw: it never rises above.
    """

    period_ns: int
    floor_uw: int
    peak_uw: int

    def power_uw(self, t_ns: int) -> int:
        """The power at an instant."""
        ...

    def energy_uwns(self, t_ns: int) -> int:
        """The energy from 0 to `t_ns`."""
        ...

    def lagged_uw(self, t_ns: int, tau_ns: int) -> float:
        """The power as a first-order lag with time constant `tau_ns` follows it."""
        ...


class Piecewise:
    """Straight pieces that repeat: constants, squares, bursts, traces.

    Args:
        pieces: (length in ns, power at its start, power at its end), in order.
        phase_ns: at t = 0 the waveform is this far into its cycle.

    Raises:
        ValueError: no piece, or one without length.
    """

    def __init__(self, pieces: Sequence[tuple[int, int, int]], phase_ns: int = 0) -> None:
        if not pieces or min(length for length, _, _ in pieces) <= 0:
            raise ValueError("a waveform needs pieces, each longer than 0")
        self._starts: list[int] = []
        self._twice: list[int] = []  # twice the energy before each piece: trapezoids stay whole
        at = twice = 0
        for length, first, last in pieces:
            self._starts.append(at)
            self._twice.append(twice)
            at += length
            twice += (first + last) * length
        self._pieces = tuple(pieces)
        self._cycle_twice = twice
        self.period_ns = at
        self.floor_uw = min(min(first, last) for _, first, last in pieces)
        self.peak_uw = max(max(first, last) for _, first, last in pieces)
        self._phase_ns = phase_ns % at
        self._origin_twice = self._twice_before(self._phase_ns)

    def power_uw(self, t_ns: int) -> int:
        """The power at an instant; at a jump, the one after it."""
        into = (t_ns + self._phase_ns) % self.period_ns
        piece = bisect_right(self._starts, into) - 1
        length, first, last = self._pieces[piece]
        return first + (last - first) * (into - self._starts[piece]) // length

    def energy_uwns(self, t_ns: int) -> int:
        """The energy from 0 to `t_ns`, exact, rounded down."""
        return (self._twice_before(t_ns + self._phase_ns) - self._origin_twice) // 2

    def lagged_uw(self, t_ns: int, tau_ns: int) -> float:
        """∫ P(s) e^(−(t−s)/τ)/τ ds: of each straight piece it is [(P − τP′) e^(−(t−s)/τ)]."""
        end = (t_ns + self._phase_ns) % self.period_ns  # pieces are walked backwards from t
        piece = bisect_right(self._starts, end) - 1
        lagged = age = 0.0
        cycle = self.period_ns / tau_ns
        for _ in range(len(self._pieces) + 1):
            length, first, last = self._pieces[piece]
            slope = (last - first) / length
            older = min(age + (end - self._starts[piece]) / tau_ns, cycle)
            at_end = first + slope * (end - self._starts[piece])
            at_start = at_end - slope * (older - age) * tau_ns
            lagged += (at_end - slope * tau_ns) * math.exp(-age)
            lagged -= (at_start - slope * tau_ns) * math.exp(-older)
            age = older
            if age >= min(_SETTLED, cycle):
                break
            end = self._starts[piece] if piece else self.period_ns
            piece -= 1  # before the first comes the last
        return lagged / -math.expm1(-cycle)  # all cycles before: a geometric series

    def _twice_before(self, into_ns: int) -> int:
        cycles, into = divmod(into_ns, self.period_ns)
        piece = bisect_right(self._starts, into) - 1
        length, first, last = self._pieces[piece]
        dt = into - self._starts[piece]
        within = 2 * first * dt + (last - first) * dt * dt // length
        return cycles * self._cycle_twice + self._twice[piece] + within


class Sine:
    """mean + amplitude · sin(2πt/period + phase), never below 0."""

    def __init__(self, mean_uw: int, amplitude_uw: int, period_ns: int, phase_ns: int = 0) -> None:
        if not 0 <= amplitude_uw <= mean_uw:
            raise ValueError("a sine's amplitude is at most its mean: power is never negative")
        self._mean_uw = mean_uw
        self._amplitude_uw = amplitude_uw
        self._phase_ns = phase_ns % period_ns
        self.period_ns = period_ns
        self.floor_uw = mean_uw - amplitude_uw
        self.peak_uw = mean_uw + amplitude_uw

    def power_uw(self, t_ns: int) -> int:
        """The power at an instant."""
        return self._mean_uw + round(self._amplitude_uw * math.sin(self._angle(t_ns)))

    def energy_uwns(self, t_ns: int) -> int:
        """The energy from 0 to `t_ns`: whole cycles are exact, the rest is off by < 10⁻¹² J."""
        scale = self._amplitude_uw * self.period_ns / math.tau
        wave = scale * (math.cos(self._angle(0)) - math.cos(self._angle(t_ns)))
        return self._mean_uw * t_ns + round(wave)

    def lagged_uw(self, t_ns: int, tau_ns: int) -> float:
        """A first-order lag damps a sine by 1/√(1+(ωτ)²) and delays it by atan ωτ."""
        omega_tau = math.tau * tau_ns / self.period_ns
        angle = self._angle(t_ns) - math.atan(omega_tau)
        return self._mean_uw + self._amplitude_uw * math.sin(angle) / math.hypot(1.0, omega_tau)

    def _angle(self, t_ns: int) -> float:
        return math.tau * ((t_ns + self._phase_ns) % self.period_ns) / self.period_ns


def constant(power_uw: int, every_ns: int = 1_000_000_000) -> Piecewise:
    """The same power always; it repeats after any time, `every_ns` is as good as another."""
    return Piecewise([(every_ns, power_uw, power_uw)])


def square(low_uw: int, high_uw: int, period_ns: int, high_ns: int, phase_ns: int = 0) -> Piecewise:
    """High for `high_ns`, then low for the rest of the period."""
    pieces = [(high_ns, high_uw, high_uw), (period_ns - high_ns, low_uw, low_uw)]
    return Piecewise([piece for piece in pieces if piece[0] > 0], phase_ns)


def bursts(
    low_uw: int,
    high_uw: int,
    width_ns: int,
    every_ns: int,
    offsets_ns: Sequence[int],
    phase_ns: int = 0,
) -> Piecewise:
    """One burst in each slot of `every_ns`, `offset` after the slot's start; slots repeat."""
    pieces: list[tuple[int, int, int]] = []
    for offset in offsets_ns:
        pieces.append((offset, low_uw, low_uw))
        pieces.append((width_ns, high_uw, high_uw))
        pieces.append((every_ns - offset - width_ns, low_uw, low_uw))
    return Piecewise([piece for piece in pieces if piece[0] > 0], phase_ns)


def trace(points: Sequence[tuple[int, int]], linear: bool, phase_ns: int = 0) -> Piecewise:
    """Recorded (time in ns, µW); the last point's time ends the cycle.

    `linear` joins the points; otherwise each power holds until the next point, and the last
    point's power is never reached.
    """
    return Piecewise(
        [(t1 - t0, p0, p1 if linear else p0) for (t0, p0), (t1, p1) in pairwise(points)], phase_ns
    )
