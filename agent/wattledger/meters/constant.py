"""The rest of the node as a constant: fans, mainboard, disks, as the configuration states them."""

from __future__ import annotations

from wattledger.model import DeviceInfo, Kind, MeterReport, PowerReading, Quality
from wattledger.ports import Clock
from wattledger.units import UW_PER_W

NAME = "constant"
DEVICE = "other"


class ConstantMeter:
    """A configured power of the device `other`; implements `wattledger.ports.Meter`.

    Args:
        clock: stamps each reading.
        watts: from the configuration.
        interval_ns: how often to be read.

    Raises:
        ValueError: negative watts.
    """

    name = NAME

    def __init__(self, clock: Clock, watts: float, interval_ns: int) -> None:
        if watts < 0:
            raise ValueError(f"cannot be: {watts} W")
        self.interval_ns = interval_ns
        self._clock = clock
        self._power_uw = round(watts * UW_PER_W)
        self._devices = (
            DeviceInfo(DEVICE, Kind.OTHER, NAME, model=f"configured constant, {watts:g} W"),
        )

    def read(self) -> MeterReport:
        """The constant, as the mean of the last interval. Never fails."""
        reading = PowerReading(
            DEVICE,
            self._clock.now(),
            self._power_uw,
            window_ns=self.interval_ns,
            max_gap_ns=self.interval_ns * 5 // 2,
            quality=Quality.ESTIMATED,
        )
        return MeterReport(devices=self._devices, readings=(reading,))

    def close(self) -> None:
        """There is nothing to close."""
