"""How many processes use a GPU: the question behind "idle" and "system"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import NvmlDriver
from wattledger.meters.nvml.remedies import Remedy, remedy
from wattledger.units import NS_PER_S

_COMPUTE = "nvmlDeviceGetComputeRunningProcesses"
_GRAPHICS = "nvmlDeviceGetGraphicsRunningProcesses"
_UNSUPPORTED, _FAILED = "unsupported", "failed"
GRAPHICS_INTERVAL_NS = 60 * NS_PER_S  # desktops only, and there it is always somebody


class ProcessList:
    """The processes on one GPU, asked for every few seconds; `count` is what was last known.

    Attributes:
        count: compute and graphics processes; None: it cannot be told.
    """

    def __init__(self, driver: NvmlDriver, procfs: Path | None, interval_ns: int) -> None:
        """A list not read yet.

        Args:
            driver: the driver.
            procfs: where process ids are looked up; None: they are not of this machine.
            interval_ns: how often to ask for compute processes.
        """
        self._driver = driver
        self._procfs = procfs
        self._interval_ns = interval_ns
        self._due_ns = self._graphics_due_ns = 0
        self._supported = True
        self._compute: set[int] | None = None
        self._graphics: set[int] = set()
        self.count: int | None = None

    def renew(self) -> None:
        """A new handle: what was not supported before may be now."""
        self._due_ns = self._graphics_due_ns = 0
        self._supported = True

    def read(self, handle: Any, now_ns: int, delay_ns: int) -> None:
        """Ask again if it is time.

        Args:
            handle: the GPU's.
            now_ns: CLOCK_MONOTONIC.
            delay_ns: added after the first time, so that GPUs are not all asked in one turn.
        """
        if now_ns < self._due_ns or not self._supported:
            return
        first = not self._due_ns
        slack_ns = self._interval_ns // 20  # turns are not held to the nanosecond
        self._due_ns = now_ns + self._interval_ns - slack_ns + (delay_ns if first else 0)
        compute = self._ask(_COMPUTE, handle)
        self._supported = compute is not _UNSUPPORTED  # with MIG, for one: not asked again
        self._compute = compute if isinstance(compute, set) else None
        if now_ns >= self._graphics_due_ns and self._supported:
            self._graphics_due_ns = now_ns + GRAPHICS_INTERVAL_NS + (delay_ns if first else 0)
            graphics = self._ask(_GRAPHICS, handle)
            self._graphics = graphics if isinstance(graphics, set) else set()
        if self._compute is None:
            self.count = None
        else:
            self.count = self._living(self._compute | self._graphics)

    def _ask(self, name: str, handle: Any) -> set[int] | str:
        """The ids in one of the lists, or why there is none."""
        try:
            return {int(process.pid) for process in self._call(name, handle)}
        except self._driver.NVMLError as error:
            kind = remedy(nvml.error_code(error))
            if kind is Remedy.EMPTY:
                return set()
            return _UNSUPPORTED if kind in (Remedy.UNSUPPORTED, Remedy.FORBIDDEN) else _FAILED

    def _call(self, name: str, handle: Any) -> Sequence[Any]:
        """The list in the driver's present form, or in that of drivers before 510."""
        try:
            return getattr(self._driver, name)(handle)  # type: ignore[no-any-return]
        except self._driver.NVMLError as error:
            older = getattr(self._driver, f"{name}_v2", None)
            if nvml.error_code(error) != nvml.FUNCTION_NOT_FOUND or older is None:
                raise
        return older(handle)  # type: ignore[no-any-return]

    def _living(self, pids: set[int]) -> int:
        """Their number, without ids that are listed but dead.

        Where not one of them is found, this /proc is not the one they are of: all count.
        """
        if self._procfs is None or not pids:
            return len(pids)
        living = sum((self._procfs / str(pid)).exists() for pid in pids)
        if not living and not self._sees_host():
            return len(pids)
        return living

    def _sees_host(self) -> bool:
        """Whether /proc is the host's: the kernel's thread 2 shows in no other PID namespace."""
        if self._procfs is None:
            return False
        try:
            return (self._procfs / "2/comm").read_text().strip() == "kthreadd"
        except OSError:
            return False
