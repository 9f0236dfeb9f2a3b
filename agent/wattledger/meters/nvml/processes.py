"""Which processes use a GPU: the question behind whose it is, "idle" and "system"."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import NvmlDriver
from wattledger.meters.nvml.remedies import Remedy, remedy
from wattledger.model.measuring import Process
from wattledger.procfs import start_ticks
from wattledger.units import NS_PER_S

_COMPUTE = "nvmlDeviceGetComputeRunningProcesses"
_GRAPHICS = "nvmlDeviceGetGraphicsRunningProcesses"
_UNSUPPORTED, _FAILED = "unsupported", "failed"
GRAPHICS_INTERVAL_NS = 60 * NS_PER_S  # desktops only, and there it is always somebody


class Looked(Enum):
    """What came of a look."""

    NOT_DUE = auto()
    LISTED = auto()
    SKIPPED = auto()


class ProcessList:
    """The processes on one GPU, asked for every few seconds; what was last known.

    Attributes:
        listed: compute and graphics processes, a new tuple each time; None: it cannot be told.
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
        self._still = self._skipped = False
        self._compute: set[int] | None = None
        self._graphics: set[int] = set()
        self.listed: tuple[Process, ...] | None = None

    @property
    def count(self) -> int | None:
        """How many there are; None: it cannot be told."""
        return None if self.listed is None else len(self.listed)

    def forget(self) -> None:
        """It cannot be told any more."""
        self.listed = None

    def renew(self) -> None:
        """A new handle: what was not supported before may be now."""
        self._due_ns = self._graphics_due_ns = 0
        self._supported = True

    def read(self, handle: Any, now_ns: int, delay_ns: int, *, may_skip: bool = False) -> Looked:
        """Ask again if it is time.

        Args:
            handle: the GPU's.
            now_ns: CLOCK_MONOTONIC.
            delay_ns: added after the first time, so that GPUs are not all asked in one turn.
            may_skip: while the list stands still, let every second time pass for another question:
                each costs two calls, and a process that ends is seen in /proc.
        """
        if now_ns < self._due_ns or not self._supported:
            return Looked.NOT_DUE
        first = not self._due_ns
        slack_ns = self._interval_ns // 20  # turns are not held to the nanosecond
        self._due_ns = now_ns + self._interval_ns - slack_ns + (delay_ns if first else 0)
        if may_skip and self._still and not self._skipped:
            self._skipped = True
            return Looked.SKIPPED
        self._skipped = False
        before = self._compute
        compute = self._ask(_COMPUTE, handle)
        self._supported = compute is not _UNSUPPORTED  # with MIG, for one: not asked again
        self._compute = compute if isinstance(compute, set) else None
        if now_ns >= self._graphics_due_ns and self._supported:
            self._graphics_due_ns = now_ns + GRAPHICS_INTERVAL_NS + (delay_ns if first else 0)
            graphics = self._ask(_GRAPHICS, handle)
            self._graphics = graphics if isinstance(graphics, set) else set()
        if self._compute is None:
            self.listed = None
        else:
            self.listed = self._living(self._compute | self._graphics)
        self._still = bool(self._compute) and self._compute == before
        return Looked.LISTED

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

    def _living(self, pids: set[int]) -> tuple[Process, ...]:
        """Those that live: an id that is listed may be a dead process's.

        Where not one of them is found, this /proc is not the one they are of: all count.
        """
        listed = tuple(Process(pid) for pid in sorted(pids))
        if self._procfs is None or not pids:
            return listed
        living = []
        for process in listed:
            ticks = start_ticks(self._procfs, process.pid)
            if ticks is not None or (self._procfs / str(process.pid)).exists():
                living.append(process._replace(start_ticks=ticks or 0))
        if not living and not self._sees_host():
            return listed
        return tuple(living)

    def _sees_host(self) -> bool:
        """Whether /proc is the host's: the kernel's thread 2 shows in no other PID namespace."""
        if self._procfs is None:
            return False
        try:
            return (self._procfs / "2/comm").read_text().strip() == "kthreadd"
        except OSError:
            return False
