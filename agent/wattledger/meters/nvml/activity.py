"""Whether a GPU did anything at all: what is held and not used is told apart by it."""

from __future__ import annotations

from typing import Any

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import CallFailed, NvmlDriver
from wattledger.meters.nvml.remedies import Remedy, remedy
from wattledger.units import NS_PER_US

GAP_US = 2_000_000  # samples are at most 1 s apart: a longer gap is of samples that are lost
GIVE_UP = (Remedy.UNSUPPORTED, Remedy.FORBIDDEN)


class Activity:
    """The utilisation of one GPU since the last question, at first since it was known.

    The driver keeps a ring of samples (GPU_UTILIZATION_SAMPLES of nvmlDeviceGetSamples, six a
    second, some 20 s); where it does not, the rate of its last sample period has to do. Neither is
    told with MIG. Of time that is no longer in the ring nobody knows: in doubt it was used.
    """

    def __init__(self, driver: NvmlDriver, wall_ns: int) -> None:
        """Args: wall_ns: the wall clock."""
        self._driver = driver
        self._samples = self._rates = True
        self._told_us = wall_ns // NS_PER_US

    def renew(self) -> None:
        """A new handle: what was not supported before may be now."""
        self._samples = self._rates = True

    @property
    def answers(self) -> bool:
        """Whether it is worth a question."""
        return self._samples or self._rates

    def read(self, handle: Any, wall_ns: int) -> bool | None:
        """Whether a sample since the last answer was above 0; None: it cannot be told."""
        if self._samples:
            try:
                return self._from_samples(handle, wall_ns // NS_PER_US)
            except (self._driver.NVMLError, CallFailed) as error:
                if remedy(nvml.error_code(error)) not in GIVE_UP:
                    return None
                self._samples = False
        if self._rates:
            try:
                return int(self._driver.nvmlDeviceGetUtilizationRates(handle).gpu) > 0
            except self._driver.NVMLError as error:
                self._rates = remedy(nvml.error_code(error)) not in GIVE_UP
        return None

    def _from_samples(self, handle: Any, now_us: int) -> bool | None:
        since_us = min(self._told_us, now_us)  # the wall clock may have been set back
        kind, samples = self._driver.nvmlDeviceGetSamples(
            handle, nvml.SAMPLES_GPU_UTILIZATION, since_us
        )
        fresh = [s for s in samples if s.timeStamp > since_us]
        if not fresh:
            return None
        stamps = [int(s.timeStamp) for s in fresh]
        self._told_us = max(stamps)
        lost = min(stamps) - since_us > GAP_US
        return lost or any(nvml.number(kind, s.sampleValue) > 0 for s in fresh)
