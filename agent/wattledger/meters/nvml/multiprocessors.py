"""How much each process uses a GPU's multiprocessors: by it, those who share a GPU pay."""

from __future__ import annotations

from typing import Any

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import NvmlDriver
from wattledger.meters.nvml.remedies import Remedy, remedy
from wattledger.ports import Clock
from wattledger.units import NS_PER_US

# The driver's ring of utilisation holds some 70 to 100 samples, six a second at most.
RING_US = 20_000_000
MOST_PERCENT = 100


class SmUse:
    """The use of one GPU's multiprocessors by process, since the last question.

    nvmlDeviceGetProcessUtilization gives a row for each process that used the GPU since a time
    stamp (Unix time in µs, of the driver's samples), and no row for one that did not. Known traps
    of it (NVIDIA/go-nvml#51, Syllo/nvtop#110): rows have stamps of their own, seconds apart and
    not in order; rows from before the stamp come again; values far above 100 percent occur, and
    rows of processes that are long gone. Not told with MIG.
    """

    def __init__(self, driver: NvmlDriver, clock: Clock) -> None:
        self._driver = driver
        self._clock = clock
        self.answers = True
        self._seen_us = 0

    def renew(self) -> None:
        """A new handle: what was not supported before may be now."""
        self.answers = True

    def read(self, handle: Any) -> dict[int, int | None] | None:
        """Each process's samples since the last call, summed up, in percent.

        Args:
            handle: the GPU's.

        Returns:
            Process id → its sum, None where it was told nonsense; who is not in it used nothing.
            None: it cannot be told, `answers` says whether ever.
        """
        # After a long pause only what the ring may hold; the stamp lies ahead of a clock set back.
        wall_us = self._clock.now().wall_ns // NS_PER_US
        oldest_us = wall_us - RING_US
        since_us = self._seen_us if oldest_us <= self._seen_us <= wall_us else oldest_us
        try:
            rows = self._ask(handle, max(since_us, 0))
        except self._driver.NVMLError as error:
            code = nvml.error_code(error)
            if code == nvml.SUCCESS or remedy(code) is Remedy.EMPTY:
                return {}  # pynvml raises SUCCESS where the driver counts 0 rows
            self.answers = remedy(code) not in (Remedy.UNSUPPORTED, Remedy.FORBIDDEN)
            return None
        samples = {
            (int(row.pid), int(row.timeStamp)): int(row.smUtil)
            for row in rows
            if row.timeStamp > since_us
        }
        used: dict[int, int | None] = {}
        for (pid, stamp_us), percent in samples.items():
            self._seen_us = max(stamp_us, self._seen_us if self._seen_us <= wall_us else 0)
            before = used.get(pid, 0)
            if percent > MOST_PERCENT or before is None:
                used[pid] = None
            else:
                used[pid] = before + percent
        return used

    def _ask(self, handle: Any, since_us: int) -> Any:
        """The rows; once more if there are more of them than a moment ago."""
        try:
            return self._driver.nvmlDeviceGetProcessUtilization(handle, since_us)
        except self._driver.NVMLError as error:
            if nvml.error_code(error) != nvml.INSUFFICIENT_SIZE:
                raise
        return self._driver.nvmlDeviceGetProcessUtilization(handle, since_us)
