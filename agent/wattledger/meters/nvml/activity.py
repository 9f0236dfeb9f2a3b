"""Whether a GPU did anything at all: what is held and not used is told apart by it."""

from __future__ import annotations

from typing import Any

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import CallFailed, NvmlDriver
from wattledger.meters.nvml.remedies import Remedy, remedy

GIVE_UP = (Remedy.UNSUPPORTED, Remedy.FORBIDDEN)


class Activity:
    """The utilisation of one GPU since the last question.

    The driver keeps a ring of samples (GPU_UTILIZATION_SAMPLES of nvmlDeviceGetSamples, six a
    second); where it does not, the rate of its last sample period has to do. Neither is told with
    MIG.
    """

    def __init__(self, driver: NvmlDriver) -> None:
        self._driver = driver
        self._samples = self._rates = True
        self._last_us = 0

    def renew(self) -> None:
        """A new handle: what was not supported before may be now."""
        self._samples = self._rates = True

    @property
    def answers(self) -> bool:
        """Whether it is worth a question."""
        return self._samples or self._rates

    def read(self, handle: Any) -> bool | None:
        """Whether a sample since the last call was above 0; None: it cannot be told."""
        if self._samples:
            try:
                return self._from_samples(handle)
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

    def _from_samples(self, handle: Any) -> bool | None:
        first = not self._last_us
        kind, samples = self._driver.nvmlDeviceGetSamples(
            handle, nvml.SAMPLES_GPU_UTILIZATION, self._last_us
        )
        fresh = [s for s in samples if s.timeStamp > self._last_us]
        if not fresh:
            return None
        self._last_us = max(int(s.timeStamp) for s in fresh)
        if first:
            return None  # the ring reaches back to before anybody asked
        return any(nvml.number(kind, s.sampleValue) > 0 for s in fresh)
