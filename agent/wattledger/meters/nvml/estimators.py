"""How a GPU's energy is found, from the best way to the last resort.

    counter   the energy counter, read together with the power that checks it
    samples   the driver's own buffer of power samples: nothing between two turns is missed
    average   mean power of the last second (field 185)
    instant   momentary power (field 186), polled at the sensor's own period
    usage     nvmlDeviceGetPowerUsage: a 1-s mean or momentary, by architecture and driver

Each reads one GPU at each turn. What the sensors mean: nvml.h, and Yang et al., "Part-time Power
Measurements", SC24 (arXiv 2312.02741) for their periods and windows.
"""

from __future__ import annotations

from typing import Any, Protocol

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import CallFailed, NvmlDriver
from wattledger.meters.nvml.crosscheck import CrossCheck
from wattledger.meters.nvml.facts import GpuFacts
from wattledger.model import CounterReading, PowerReading, Reading
from wattledger.ports import Clock
from wattledger.units import NS_PER_MS, NS_PER_S, UJ_PER_MJ

COUNTER_TICK_NS = 100 * NS_PER_MS  # 20 to 100 ms by model
AVERAGE_WINDOW_NS = NS_PER_S
INSTANT_INTERVAL_NS = 100 * NS_PER_MS  # the sensor's period from Turing on
AVERAGE_MAX_GAP_NS = 2_500 * NS_PER_MS  # one turn may be missed
INSTANT_MAX_GAP_NS = NS_PER_S
FROZEN_NS = 60 * NS_PER_S


class CounterFrozen(Exception):
    """The energy counter stands still while the GPU draws power."""


class Estimator(Protocol):
    """One way to find a GPU's energy."""

    @property
    def name(self) -> str:
        """As in the list above."""
        ...

    @property
    def interval_ns(self) -> int:
        """How often it wants to be read; 0: as often as the meter is."""
        ...

    @property
    def ratio(self) -> float | None:
        """Counter over power sensor, where it reads both; None: not known (yet)."""
        ...

    def read(self, handle: Any) -> list[Reading]:
        """What there is since the last turn, in order of time.

        Raises:
            NVMLError: the call failed.
            CallFailed: a part of it failed.
            CounterFrozen: the counter is not to be believed any more.
        """
        ...


class CounterEstimator:
    """The energy counter.

    A value that has not moved is not handed on while the GPU draws power, or may: no difference
    is not "no energy", and the next value that moves covers the time.
    """

    name = "counter"
    interval_ns = 0

    def __init__(self, driver: NvmlDriver, clock: Clock, facts: GpuFacts, driver_load: str) -> None:
        self._driver = driver
        self._clock = clock
        self._device = facts.uuid
        self._max_power_uw = facts.max_power_uw
        self._driver_load = driver_load
        sensors = facts.sensors
        self._fields: list[tuple[int, int]] | None = None
        self._crosscheck: CrossCheck | None = None
        if sensors.energy == "field":
            self._fields = [(nvml.FIELD_ENERGY, nvml.SCOPE_GPU)]
            if sensors.average or sensors.instant:
                power = nvml.FIELD_POWER_AVERAGE if sensors.average else nvml.FIELD_POWER_INSTANT
                self._fields.append((power, sensors.scope))
                self._crosscheck = CrossCheck(facts.label, averaged=sensors.average)
        self._raw_uj = -1
        self._moved_ns = 0

    @property
    def ratio(self) -> float | None:
        """Counter over power sensor."""
        return self._crosscheck.ratio if self._crosscheck is not None else None

    def read(self, handle: Any) -> list[Reading]:
        """See `Estimator.read`."""
        power_uw: int | None = None
        if self._fields is not None:
            values = self._driver.nvmlDeviceGetFieldValues(handle, self._fields)
            at = self._clock.now()
            raw_uj = nvml.field_micro(values[0])
            if self._crosscheck is not None and not values[1].nvmlReturn:
                power_uw = nvml.field_micro(values[1])
                self._crosscheck.add(at.monotonic_ns, raw_uj, power_uw)
        else:
            energy_mj = self._driver.nvmlDeviceGetTotalEnergyConsumption(handle)
            at = self._clock.now()
            raw_uj = energy_mj * UJ_PER_MJ
        if raw_uj != self._raw_uj:
            self._raw_uj = raw_uj
            self._moved_ns = at.monotonic_ns
        elif at.monotonic_ns - self._moved_ns > FROZEN_NS:
            if power_uw is None:  # this once, the power costs a call of its own
                power_uw = self._driver.nvmlDeviceGetPowerUsage(handle) * UJ_PER_MJ
            if power_uw > 0:
                raise CounterFrozen
        elif power_uw is None or power_uw > 0:
            return []
        return [
            CounterReading(
                self._device,
                at,
                raw_uj,
                None,
                self._max_power_uw,
                COUNTER_TICK_NS,
                self._clock.boot_id,
                self._driver_load,
            )
        ]


class PowerEstimator:
    """A power sensor that is asked for one value at each turn.

    Args:
        field: the field id, or None for nvmlDeviceGetPowerUsage.
        averaged: the value is the mean of the last second, else momentary.
    """

    ratio = None

    def __init__(
        self,
        driver: NvmlDriver,
        clock: Clock,
        facts: GpuFacts,
        *,
        field: int | None,
        averaged: bool,
    ) -> None:
        self._driver = driver
        self._clock = clock
        self._device = facts.uuid
        self._implausible_uw = 2 * facts.max_power_uw
        self._fields = None if field is None else [(field, facts.sensors.scope)]
        self._window_ns = AVERAGE_WINDOW_NS if averaged else 0
        self._max_gap_ns = AVERAGE_MAX_GAP_NS if averaged else INSTANT_MAX_GAP_NS
        self.interval_ns = 0 if averaged else INSTANT_INTERVAL_NS
        self.name = "usage" if field is None else "average" if averaged else "instant"

    def read(self, handle: Any) -> list[Reading]:
        """See `Estimator.read`."""
        if self._fields is None:
            power_mw = self._driver.nvmlDeviceGetPowerUsage(handle)
            at = self._clock.now()
            power_uw = power_mw * UJ_PER_MJ
        else:
            values = self._driver.nvmlDeviceGetFieldValues(handle, self._fields)
            at = self._clock.now()
            power_uw = nvml.field_micro(values[0])
        if not 0 < power_uw <= self._implausible_uw:
            # 0 W is how some boards say that they do not know.
            raise CallFailed(nvml.UNKNOWN)
        return [PowerReading(self._device, at, power_uw, self._window_ns, self._max_gap_ns)]


def usage_is_averaged(driver: NvmlDriver, handle: Any, facts: GpuFacts, version: str) -> bool:
    """Whether nvmlDeviceGetPowerUsage gives a 1-s mean on this GPU.

    nvml.h: on Ampere and newer except GA100 it is averaged, on GA100 and older it is momentary.
    The SC24 study found release 530 momentary everywhere.

    Raises:
        NVMLError: the architecture cannot be asked, for a reason other than lack of support.
    """
    if facts.ga100 or version.startswith("530."):
        return False
    try:
        architecture = driver.nvmlDeviceGetArchitecture(handle)
    except driver.NVMLError as error:
        if nvml.error_code(error) in (nvml.NOT_SUPPORTED, nvml.FUNCTION_NOT_FOUND):
            return False  # a driver that old knows no averages
        raise
    return nvml.ARCH_AMPERE <= architecture != nvml.ARCH_UNKNOWN
