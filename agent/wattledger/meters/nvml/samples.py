"""The driver's buffer of power samples: all of a turn's samples at the cost of one question."""

from __future__ import annotations

from typing import Any

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import CallFailed, NvmlDriver
from wattledger.meters.nvml.facts import GpuFacts
from wattledger.model import Instant, PowerReading, Reading
from wattledger.ports import Clock
from wattledger.units import NS_PER_MS, NS_PER_S, UJ_PER_MJ

MAX_GAP_NS = 2_500 * NS_PER_MS
_STEP_NS = 100 * NS_PER_MS  # the wall clock was set: more than slewing moves it in a turn
_FUTURE_NS = 20 * NS_PER_MS
_FRESH_NS = 10 * NS_PER_S  # without a new sample for this long the buffer is of no use
_LONGEST_PERIOD_NS = NS_PER_S
_SHORTEST_INTERVAL_NS = 100 * NS_PER_MS


class SamplesEstimator:
    """Power samples, each the mean over the sensor's window, weighted with their own spacing.

    The driver stamps samples with the wall clock, which may be set at any time. So a stamp is only
    taken as an age, and the age places the sample on our own clocks; what would lie before the
    last one or in the future is dropped, and no energy can come of a clock that jumped.

    All samples of a turn become one mean with the window that they cover together.
    """

    name = "samples"
    ratio = None

    def __init__(self, driver: NvmlDriver, clock: Clock, facts: GpuFacts) -> None:
        self._driver = driver
        self._clock = clock
        self._device = facts.uuid
        self._implausible_uw = 2 * facts.max_power_uw
        at_module = facts.sensors.scope == nvml.SCOPE_MODULE
        self._type = nvml.SAMPLES_MODULE_POWER if at_module else nvml.SAMPLES_TOTAL_POWER
        self.interval_ns = 0
        self._started_ns = 0
        self._seen_us = 0  # the newest stamp taken
        self._placed_ns = 0  # and where it lies on CLOCK_BOOTTIME
        self._period_ns = 0  # spacing of the samples; 0: not known yet
        self._wall_less_boot_ns = 0

    def read(self, handle: Any) -> list[Reading]:
        """See `Estimator.read`.

        Raises:
            CallFailed: NOT_SUPPORTED when no new sample has come for a while.
        """
        try:
            value_type, samples = self._driver.nvmlDeviceGetSamples(
                handle, self._type, self._seen_us
            )
        except self._driver.NVMLError as error:
            if nvml.error_code(error) != nvml.NOT_FOUND:
                raise
            value_type, samples = 0, ()  # nothing new
        now = self._clock.now()
        self._notice_step(now)
        if not self._started_ns:
            self._begin(now, samples)
            return []
        readings = self._integrate(now, value_type, samples)
        if now.boottime_ns - max(self._started_ns, self._placed_ns) > _FRESH_NS:
            raise CallFailed(nvml.NOT_SUPPORTED)
        return readings

    def _notice_step(self, now: Instant) -> None:
        """After the wall clock was set back, stamps begin anew below the newest one seen."""
        wall_less_boot_ns = now.wall_ns - now.boottime_ns
        if abs(wall_less_boot_ns - self._wall_less_boot_ns) > _STEP_NS:
            self._seen_us = 0
        self._wall_less_boot_ns = wall_less_boot_ns

    def _begin(self, now: Instant, samples: Any) -> None:
        """The first look: what is in the buffer lies before our time, but tells its rhythm."""
        self._started_ns = self._placed_ns = now.boottime_ns
        stamps_us = [
            sample.timeStamp for sample in samples if 0 < sample.timeStamp * 1000 <= now.wall_ns
        ]
        if len(stamps_us) < 3 or stamps_us[-1] <= stamps_us[0]:
            return
        self._seen_us = stamps_us[-1]
        span_ns = (stamps_us[-1] - stamps_us[0]) * 1000
        self._period_ns = min(span_ns // (len(stamps_us) - 1), _LONGEST_PERIOD_NS)
        age_ns = now.wall_ns - stamps_us[-1] * 1000
        if age_ns < _FRESH_NS:
            self._placed_ns = now.boottime_ns - age_ns
        if span_ns < 2 * NS_PER_S:  # a short buffer has to be emptied more often
            self.interval_ns = max(span_ns // 2, _SHORTEST_INTERVAL_NS)

    def _integrate(self, now: Instant, value_type: int, samples: Any) -> list[Reading]:
        to_boot_ns = now.boottime_ns - now.wall_ns
        newest_ns = now.boottime_ns + _FUTURE_NS
        longest_ns = max(4 * self._period_ns, 100 * NS_PER_MS)
        placed_ns = self._placed_ns
        readings: list[Reading] = []
        energy = span_ns = 0  # µW·ns over ns, since the last gap
        for sample in samples:
            stamp_us = sample.timeStamp
            at_ns = stamp_us * 1000 + to_boot_ns
            if not placed_ns < at_ns <= newest_ns:
                continue
            power_uw = nvml.number(value_type, sample.sampleValue) * UJ_PER_MJ
            if not 0 < power_uw <= self._implausible_uw:
                continue
            step_ns = at_ns - placed_ns
            if step_ns > longest_ns:  # samples are missing: say nothing of the time between
                if span_ns:
                    readings.append(self._reading(now, placed_ns, energy, span_ns))
                    energy = span_ns = 0
                step_ns = self._period_ns or 20 * NS_PER_MS
            energy += power_uw * step_ns
            span_ns += step_ns
            placed_ns = at_ns
            self._seen_us = stamp_us
        if span_ns:
            readings.append(self._reading(now, placed_ns, energy, span_ns))
        self._placed_ns = placed_ns
        return readings

    def _reading(self, now: Instant, at_ns: int, energy: int, span_ns: int) -> PowerReading:
        age_ns = now.boottime_ns - at_ns
        at = Instant(now.monotonic_ns - age_ns, at_ns, now.wall_ns - age_ns)
        power_uw = (energy + span_ns // 2) // span_ns
        return PowerReading(self._device, at, power_uw, span_ns, MAX_GAP_NS)
