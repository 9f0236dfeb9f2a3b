"""Which estimator serves a GPU: the best that answers, one rung lower when it fails for good."""

from __future__ import annotations

import logging
from typing import Any

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import CallFailed, NvmlDriver
from wattledger.meters.nvml.estimators import (
    CounterEstimator,
    CounterFrozen,
    Estimator,
    PowerEstimator,
    usage_is_averaged,
)
from wattledger.meters.nvml.facts import GpuFacts
from wattledger.meters.nvml.remedies import METER, Remedy, gpu_fault, remedy
from wattledger.meters.nvml.samples import SamplesEstimator
from wattledger.model import CounterReading, Fault, Reading
from wattledger.ports import Clock

log = logging.getLogger(__name__)

PATIENCE = 3  # failures in a row before something is done about them


def rungs(facts: GpuFacts) -> list[str]:
    """The estimators that a GPU's sensors allow, best first."""
    sensors = facts.sensors
    there = {
        "counter": bool(sensors.energy),
        "samples": True,  # only asking tells
        "average": sensors.average,
        "instant": sensors.instant,
        "usage": True,
    }
    return [name for name, possible in there.items() if possible]


class Ladder:
    """One GPU's estimators. What does not answer is not asked again until the ladder is new."""

    def __init__(
        self, driver: NvmlDriver, clock: Clock, facts: GpuFacts, version: str, driver_load: str
    ) -> None:
        """Args: version, driver_load: of the driver, see `session.Session`."""
        self._driver = driver
        self._clock = clock
        self._facts = facts
        self._version = version
        self._driver_load = driver_load
        self._rungs = rungs(facts)
        self._estimator: Estimator | None = None
        self._answered = False  # the present estimator has answered before
        self._failures = 0
        self._raw_uj: int | None = None
        self.frozen_uj: int | None = None  # where the counter stopped

    @property
    def name(self) -> str:
        """The estimator that serves the GPU, or is about to; empty: none answers."""
        return self._rungs[0] if self._rungs else ""

    @property
    def incomplete(self) -> bool:
        """It has lost a rung that the GPU's sensors promised."""
        return not self._rungs or (self._facts.counter and self.name != "counter")

    @property
    def interval_ns(self) -> int:
        """How often the GPU wants to be read; 0: as often as the meter is."""
        return self._estimator.interval_ns if self._estimator is not None else 0

    @property
    def ratio(self) -> float | None:
        """Energy by counter over energy by power sensor."""
        return self._estimator.ratio if self._estimator is not None else None

    def skip_frozen(self, handle: Any, frozen_uj: int | None) -> None:
        """Leave the counter out if it still shows where it once stopped."""
        if frozen_uj is None or self.name != "counter":
            return
        counter = CounterEstimator(self._driver, self._clock, self._facts, self._driver_load)
        readings = counter.read(handle)
        if any(isinstance(r, CounterReading) and r.raw_uj == frozen_uj for r in readings):
            self.frozen_uj = frozen_uj
            del self._rungs[0]

    def read(self, handle: Any, faults: list[Fault]) -> list[Reading]:
        """What the best estimator that answers has to say; why one was given up is added to faults.

        Raises:
            NVMLError: the GPU does not answer.
            CallFailed: one of its sensors does not, which may pass.
        """
        driver_error = self._driver.NVMLError
        while self._rungs:
            try:
                if self._estimator is None:
                    self._estimator = self._build(self._rungs[0], handle)
                readings = self._estimator.read(handle)
            except CounterFrozen:
                self.frozen_uj = self._raw_uj
                self._give_up(faults, self._frozen())
            except (driver_error, CallFailed) as error:
                code = nvml.error_code(error)
                proven = self._answered or self._rungs[0] == "counter"
                if code == nvml.INVALID_ARGUMENT and proven and isinstance(error, driver_error):
                    # What was valid a moment ago: the handle is void, not the question.
                    raise CallFailed(nvml.GPU_NOT_FOUND) from None
                kind = remedy(code)
                # A sensor that fails while the GPU answers is given up when it goes on.
                self._failures += isinstance(error, CallFailed) or not proven
                # Forbidden after it has answered: the GPU was taken from us, not the sensor.
                forbidden = kind is Remedy.FORBIDDEN and not self._answered
                final = forbidden or kind is Remedy.UNSUPPORTED
                if not final and (kind is not Remedy.RETRY or self._failures < PATIENCE):
                    raise
                self._give_up(faults, gpu_fault(self._facts.uuid, self._facts.label, code))
            else:
                self._failures = 0
                if readings:
                    self._answered = True
                    last = readings[-1]
                    self._raw_uj = last.raw_uj if isinstance(last, CounterReading) else None
                return readings
        return []

    def _build(self, name: str, handle: Any) -> Estimator:
        driver, clock, facts = self._driver, self._clock, self._facts
        if name == "counter":
            return CounterEstimator(driver, clock, facts, self._driver_load)
        if name == "samples":
            return SamplesEstimator(driver, clock, facts)
        if name == "usage":
            averaged = usage_is_averaged(driver, handle, facts, self._version)
            return PowerEstimator(driver, clock, facts, field=None, averaged=averaged)
        averaged = name == "average"
        field = nvml.FIELD_POWER_AVERAGE if averaged else nvml.FIELD_POWER_INSTANT
        return PowerEstimator(driver, clock, facts, field=field, averaged=averaged)

    def _give_up(self, faults: list[Fault], fault: Fault) -> None:
        """Go one rung down; a sensor that never answered is merely not there."""
        if self._answered:
            faults.append(fault)
        was = self._rungs.pop(0)
        self._estimator = None
        self._failures = 0
        if not self._rungs:
            faults.append(self._nothing_left())
        elif self._answered:
            log.warning(
                "%s: %s; from here on its energy is found by %r, no longer by %r",
                self._facts.label,
                fault.reason.replace("_", " "),
                self._rungs[0],
                was,
            )
        self._answered = False

    def _frozen(self) -> Fault:
        return Fault(
            METER,
            "counter_frozen",
            f"{self._facts.label}: its energy counter stands still while it draws power",
            "the last minute is unobserved, from here on its power is integrated; a driver "
            "reload or a reset may mend the counter",
            self._facts.uuid,
        )

    def _nothing_left(self) -> Fault:
        return Fault(
            METER,
            "no_estimator",
            f"{self._facts.label}: neither energy nor power can be read",
            "`nvidia-smi -q -d POWER` shows what the board offers; its energy is not in the books",
            self._facts.uuid,
        )
