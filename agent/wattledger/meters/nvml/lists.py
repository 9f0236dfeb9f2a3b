"""The driver's lists of processes, and which of those listed live."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import NvmlDriver
from wattledger.meters.nvml.remedies import Remedy, remedy
from wattledger.model.measuring import Process
from wattledger.procfs import start_ticks

COMPUTE = "nvmlDeviceGetComputeRunningProcesses"
GRAPHICS = "nvmlDeviceGetGraphicsRunningProcesses"

Pids = dict[int, int | None]
"""Process id → the GPU instance that the list names, None: none. Only an instance's own list is
believed in that."""


class Failure(Enum):
    """Why there is no list."""

    LASTING = auto()  # not supported, or not permitted
    PASSING = auto()


class Lists:
    """Asks for lists, and looks the processes up."""

    def __init__(self, driver: NvmlDriver, procfs: Path | None) -> None:
        """Args: procfs: where process ids are looked up; None: they are not of this machine."""
        self._driver = driver
        self._procfs = procfs

    def ask(self, name: str, handle: Any) -> Pids | Failure:
        """What is in one of the lists, `COMPUTE` or `GRAPHICS`, of a GPU or of a MIG instance."""
        try:
            return {
                int(process.pid): getattr(process, "gpuInstanceId", None)
                for process in self._call(name, handle)
            }
        except self._driver.NVMLError as error:
            kind = remedy(nvml.error_code(error))
            if kind is Remedy.EMPTY:
                return {}
            lasting = kind in (Remedy.UNSUPPORTED, Remedy.FORBIDDEN)
            return Failure.LASTING if lasting else Failure.PASSING

    def _call(self, name: str, handle: Any) -> Sequence[Any]:
        """The list in the driver's present form, or in that of drivers before 510."""
        try:
            return getattr(self._driver, name)(handle)  # type: ignore[no-any-return]
        except self._driver.NVMLError as error:
            older = getattr(self._driver, f"{name}_v2", None)
            if nvml.error_code(error) != nvml.FUNCTION_NOT_FOUND or older is None:
                raise
        return older(handle)  # type: ignore[no-any-return]

    def living(self, pids: Iterable[int]) -> tuple[Process, ...]:
        """Those that live: an id that is listed may be a dead process's.

        Where not one of them is found, this /proc is not the one they are of: all count.
        """
        listed = tuple(Process(pid) for pid in sorted(pids))
        if self._procfs is None or not listed:
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
