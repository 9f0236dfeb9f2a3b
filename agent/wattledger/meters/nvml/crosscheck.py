"""The energy counter against the power sensor of the same board."""

from __future__ import annotations

import logging

from wattledger.units import NS_PER_S

log = logging.getLogger(__name__)

AVERAGED_WINDOW_NS = 60 * NS_PER_S
# A momentary value once a second can lock onto a periodic load; it takes longer to even out.
INSTANT_WINDOW_NS = 600 * NS_PER_S
LONGEST_STEP_NS = 5 * NS_PER_S // 2
LOW, HIGH = 0.9, 1.1


class CrossCheck:
    """The ratio of energy by counter to energy by power sensor, window after window."""

    def __init__(self, label: str, *, averaged: bool) -> None:
        """Args: label: the GPU's name for the log. averaged: the power is a mean of 1 s."""
        self.ratio: float | None = None
        self._label = label
        self._window_ns = AVERAGED_WINDOW_NS if averaged else INSTANT_WINDOW_NS
        self._last_ns = 0
        self._start_ns = 0
        self._start_uj = 0
        self._integral = 0  # µW·ns
        self._agrees = True

    def add(self, at_ns: int, raw_uj: int, power_uw: int) -> None:
        """One reading of both, at a time on CLOCK_MONOTONIC."""
        step_ns = at_ns - self._last_ns
        self._last_ns = at_ns
        if step_ns > LONGEST_STEP_NS or raw_uj < self._start_uj or power_uw <= 0:
            self._begin(at_ns, raw_uj)
            return
        self._integral += power_uw * step_ns
        if at_ns - self._start_ns >= self._window_ns:
            self._judge((raw_uj - self._start_uj) * NS_PER_S / self._integral)
            self._begin(at_ns, raw_uj)

    def _begin(self, at_ns: int, raw_uj: int) -> None:
        self._start_ns = at_ns
        self._start_uj = raw_uj
        self._integral = 0

    def _judge(self, ratio: float) -> None:
        self.ratio = ratio
        agrees = LOW <= ratio <= HIGH
        if agrees != self._agrees:
            if agrees:
                log.info("%s: energy counter and power sensor agree again", self._label)
            else:
                log.warning(
                    "%s: the energy counter shows %.2f times what the power sensor does; the "
                    "counter is booked, one of the two is wrong",
                    self._label,
                    ratio,
                )
        self._agrees = agrees
