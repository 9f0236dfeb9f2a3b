"""NVML's own life: initialised once, held, and let go of as a whole."""

from __future__ import annotations

from pathlib import Path

from wattledger.errors import MeterUnavailable
from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import NvmlDriver
from wattledger.meters.nvml.remedies import driver_error, init_failed

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0


class Session:
    """One initialisation of NVML at a time; its reference count is ours alone.

    Initialised once and held: with persistence mode off, each first client costs a GPU
    initialisation of seconds (docs.nvidia.com/deploy/driver-persistence).

    Attributes:
        version: of the driver; empty where it does not tell.
        driver_load: changes when the kernel module is loaded anew.
    """

    def __init__(self, driver: NvmlDriver, sysfs: Path) -> None:
        self._driver = driver
        self._module = sysfs / "module/nvidia"
        self._backoff_s = FIRST_BACKOFF_S
        self.is_open = False
        self.version = ""
        self.driver_load = ""

    def open(self) -> None:
        """Initialise NVML.

        Raises:
            MeterUnavailable: with the reason, a remedy and when to try again.
        """
        try:
            self._driver.nvmlInit()
        except self._driver.NVMLError as error:
            raise self.failed(nvml.error_code(error)) from None
        self.is_open = True
        try:
            self.version = self._driver.nvmlSystemGetDriverVersion()
        except self._driver.NVMLError:
            self.version = ""
        self.driver_load = f"{self.version}:{self._module_id()}"

    def _module_id(self) -> str:
        """The inode of the module's directory: kernfs gives a new one at each load."""
        try:
            return str(self._module.stat().st_ino)
        except OSError:
            return ""

    def failed(self, code: int) -> MeterUnavailable:
        """Shut down after an error, and the state to report; the wait doubles up to a minute."""
        self.close()
        backoff_s = self._backoff_s
        self._backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
        if code == nvml.UNINITIALIZED:
            return driver_error(code, backoff_s)
        return init_failed(code, backoff_s)

    def answers(self) -> None:
        """All is well again: the next trouble starts with a short wait."""
        self._backoff_s = FIRST_BACKOFF_S

    def close(self) -> None:
        """Shut NVML down; all handles are void from here on. Never raises."""
        if not self.is_open:
            return
        self.is_open = False
        try:
            self._driver.nvmlShutdown()
        except self._driver.NVMLError:
            return  # it was not initialised, or is beyond help: the next init tells
