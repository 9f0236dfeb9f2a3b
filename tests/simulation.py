"""A simulated driver for tests, initialised."""

from __future__ import annotations

from fakes import FakeClock
from wattledger.meters.nvml.binding import real_driver
from wattledger.meters.simulated import SimulatedNvml, parse_scenario

NVML = real_driver()
SQUARE = 'kind = "square", low_w = 60, high_w = 600, period_s = 0.3'
ONE = f'[[gpu]]\nmodel = "H100 SXM"\nwaveform = {{ {SQUARE} }}\n'


def driver_of(text: str = ONE, clock: FakeClock | None = None) -> SimulatedNvml:
    driver = SimulatedNvml(parse_scenario(text, "test.toml"), clock or FakeClock())
    driver.nvmlInit()
    return driver


def code_of(call: object, *arguments: object) -> int:
    """The NVML error a call ends in; 0: none."""
    try:
        call(*arguments)  # type: ignore[operator]
    except NVML.NVMLError as error:
        return int(error.value)
    return 0
