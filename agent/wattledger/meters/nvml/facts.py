"""What is fixed about a GPU: its identity, its limits, and which of its sensors answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import CallFailed, NvmlDriver
from wattledger.meters.nvml.mig import WHOLE_SLICES, Partition
from wattledger.meters.nvml.remedies import Remedy, optional, remedy
from wattledger.model.measuring import GpuNames, MigInstance
from wattledger.units import UJ_PER_MJ, UW_PER_W

# Above any single board of today (a GB300 GPU: 1400 W), for boards that tell no limit.
UNKNOWN_LIMIT_UW = 1500 * UW_PER_W

_PROBE = (
    (nvml.FIELD_ENERGY, nvml.SCOPE_GPU),
    (nvml.FIELD_POWER_AVERAGE, nvml.SCOPE_GPU),
    (nvml.FIELD_POWER_INSTANT, nvml.SCOPE_GPU),
    (nvml.FIELD_POWER_AVERAGE, nvml.SCOPE_MODULE),
    (nvml.FIELD_POWER_INSTANT, nvml.SCOPE_MODULE),
    (nvml.FIELD_POWER_MAX_LIMIT, nvml.SCOPE_GPU),
    (nvml.FIELD_POWER_LIMIT, nvml.SCOPE_GPU),
)
_MODULE_COUNTER = re.compile(r"\bGH200\b")  # its energy counter covers the whole superchip
_GA100_PCI = 0x2000  # device ids 0x20xx: A100, A30, A800 and their kin
_GA100_NAME = re.compile(r"\bA(?:100|800|30)X?\b")


@dataclass(frozen=True, slots=True)
class Sensors:
    """Which sensors answered when they were asked once.

    Attributes:
        energy: the energy counter: `field` (read together with power), `call` or empty.
        average: the 1-s average power (field 185) answers at the chosen scope.
        instant: the instantaneous power (field 186) answers at the chosen scope.
        scope: the power scope, `binding.SCOPE_GPU` or `SCOPE_MODULE`.
    """

    energy: str
    average: bool
    instant: bool
    scope: int


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """A GPU as `doctor` shows it and as the meter knows it.

    Attributes:
        uuid: its name in the books; empty where it could not be opened.
        index: the driver's number for it.
        model: for people.
        pci: address as in sysfs, such as `0000:65:00.0`.
        sensors: which of its sensors answer.
        module: power and energy cover the whole superchip: the CPU's are not to be added.
        limit_uw: power limit of the board; None: it tells none.
        mig: whether MIG is on; None: the board does not know it.
        slices: compute slices of the whole GPU, as told while MIG is on.
        instances: its MIG instances; None: MIG is on, and they cannot be told.
        ga100: an A100 or its kin, whose power readings are instantaneous.
        estimator: how its energy is found (the meter's present choice, or the likely one).
        persistence: `on`, `off` or `unknown`; only asked by `survey`.
        error: why it cannot be read; empty: it can.
        minor: the N of /dev/nvidiaN; None: it is not told.
    """

    uuid: str
    index: int
    model: str = ""
    pci: str = ""
    sensors: Sensors = Sensors("", False, False, nvml.SCOPE_GPU)
    module: bool = False
    limit_uw: int | None = None
    mig: bool | None = None
    slices: int = WHOLE_SLICES
    instances: tuple[MigInstance, ...] | None = ()
    ga100: bool = False
    estimator: str = ""
    persistence: str = "unknown"
    error: str = ""
    minor: int | None = None

    @property
    def label(self) -> str:
        """How people know it."""
        return f"GPU {self.index} ({self.model or self.uuid or 'unknown'})"

    @property
    def counter(self) -> bool:
        """It has an energy counter."""
        return bool(self.sensors.energy)

    @property
    def scope(self) -> str:
        """What its power and energy cover: `gpu` or `module`."""
        return "module" if self.module else "gpu"

    @property
    def names(self) -> GpuNames:
        """All that others may call it."""
        return GpuNames(self.uuid, self.index, self.minor, self.instances or (), self.slices)

    @property
    def max_power_uw(self) -> int:
        """More than this it cannot draw, save for the tenth that the books allow.

        A superchip's limit is told for the GPU alone; CPU and memory never add more than as much.
        """
        limit_uw = self.limit_uw or UNKNOWN_LIMIT_UW
        return 2 * limit_uw if self.module else limit_uw


def read_facts(
    driver: NvmlDriver, handle: Any, index: int, uuid: str, partition: Partition
) -> GpuFacts:
    """Everything fixed about a GPU, in as few driver calls as possible.

    Args:
        driver: the driver.
        handle: the GPU's.
        index: the driver's number for it.
        uuid: its name.
        partition: how it is cut up, see `mig.read_partition`.

    Raises:
        NVMLError: the GPU itself does not answer; what is merely unsupported is left out.
    """
    model = driver.nvmlDeviceGetName(handle)
    pci = optional(driver, driver.nvmlDeviceGetPciInfo, handle)
    sensors, limit_uw = _probe(driver, handle, prefer_module=bool(_MODULE_COUNTER.search(model)))
    device_id = 0 if pci is None else int(pci.pciDeviceId) >> 16
    return GpuFacts(
        uuid=uuid,
        index=index,
        model=model,
        pci="" if pci is None else f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0",
        sensors=sensors,
        module=sensors.scope == nvml.SCOPE_MODULE or bool(_MODULE_COUNTER.search(model)),
        limit_uw=limit_uw or _limit_by_call(driver, handle),
        mig=partition.mig,
        slices=partition.slices,
        instances=partition.instances,
        ga100=device_id & 0xFF00 == _GA100_PCI or bool(_GA100_NAME.search(model)),
        minor=optional(driver, driver.nvmlDeviceGetMinorNumber, handle),
    )


def _probe(driver: NvmlDriver, handle: Any, *, prefer_module: bool) -> tuple[Sensors, int | None]:
    """Ask all sensors in one call: on superchips some answer at module scope only.

    Raises:
        NVMLError: the GPU does not answer, for a reason that may pass.
    """
    try:
        fields = driver.nvmlDeviceGetFieldValues(handle, _PROBE)
    except driver.NVMLError as error:
        if remedy(nvml.error_code(error)) is not Remedy.UNSUPPORTED:
            raise
        return Sensors(_counter_by_call(driver, handle), False, False, nvml.SCOPE_GPU), None
    average, instant, module_average, module_instant, max_limit, limit = (
        _positive(field) for field in fields[1:]
    )
    module = bool(module_average or module_instant) and (prefer_module or not (average or instant))
    # An error that may pass is no proof that there is no counter: try it in earnest.
    absent = remedy(int(fields[0].nvmlReturn)) in (Remedy.UNSUPPORTED, Remedy.FORBIDDEN)
    sensors = Sensors(
        energy=_counter_by_call(driver, handle) if fields[0].nvmlReturn and absent else "field",
        average=bool(module_average if module else average),
        instant=bool(module_instant if module else instant),
        scope=nvml.SCOPE_MODULE if module else nvml.SCOPE_GPU,
    )
    return sensors, max(max_limit, limit) or None


def _counter_by_call(driver: NvmlDriver, handle: Any) -> str:
    """`call` where the counter answers by a call of its own, as with older drivers; or empty."""
    energy_mj = optional(driver, driver.nvmlDeviceGetTotalEnergyConsumption, handle)
    return "" if energy_mj is None else "call"


def _positive(field: Any) -> int:
    """A power field in µW; 0 where it fails: boards without the sensor may answer 0 as well."""
    try:
        return max(0, nvml.field_micro(field))
    except CallFailed:
        return 0


def _limit_by_call(driver: NvmlDriver, handle: Any) -> int | None:
    """The power limit where the driver does not know it as a field."""
    limits = [optional(driver, driver.nvmlDeviceGetEnforcedPowerLimit, handle)]
    limits += optional(driver, driver.nvmlDeviceGetPowerManagementLimitConstraints, handle) or ()
    return max((limit for limit in limits if limit), default=0) * UJ_PER_MJ or None


def runtime_status_file(sysfs: Path, pci: str) -> Path | None:
    """The file that tells whether a GPU sleeps; None where it never does by itself.

    A GPU whose `power/control` is `auto` may be suspended by the kernel (laptops), and any
    question to it would wake it. See Documentation/power/runtime_pm.rst of Linux.
    """
    power = sysfs / "bus/pci/devices" / pci / "power"
    try:
        automatic = (power / "control").read_text().strip() == "auto"
    except OSError:
        return None
    return power / "runtime_status" if pci and automatic else None
