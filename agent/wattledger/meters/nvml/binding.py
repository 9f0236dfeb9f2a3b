"""The only door to nvidia-ml-py: the driver's surface, its field ids and its error codes.

The meter talks to any object with pynvml's own functions: the module itself, or the simulated
driver, which takes constants and error classes from here. Importing pynvml loads no library;
`nvmlInit` does.
"""
# ruff: noqa: N802 (the driver's own names)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from wattledger.units import UJ_PER_MJ

# Field ids of nvmlDeviceGetFieldValues (nvml.h).
FIELD_ENERGY = 83  # NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION: mJ since the driver was loaded
FIELD_POWER_AVERAGE = 185  # NVML_FI_DEV_POWER_AVERAGE: mW, mean of the last second
FIELD_POWER_INSTANT = 186  # NVML_FI_DEV_POWER_INSTANT: mW, the sensor's own short window
FIELD_POWER_MAX_LIMIT = 188  # NVML_FI_DEV_POWER_MAX_LIMIT: mW
FIELD_POWER_LIMIT = 190  # NVML_FI_DEV_POWER_CURRENT_LIMIT: mW

# Scopes of the power fields (nvml.h, NVML_POWER_SCOPE_*).
SCOPE_GPU = 0
SCOPE_MODULE = 1  # GPU, CPU and memory of a superchip together

# Sampling types of nvmlDeviceGetSamples (nvml.h, nvmlSamplingType_t).
SAMPLES_TOTAL_POWER = 0
SAMPLES_GPU_UTILIZATION = 1
SAMPLES_MODULE_POWER = 7

# Architectures (nvml.h, NVML_DEVICE_ARCH_*).
ARCH_AMPERE = 7
ARCH_UNKNOWN = 0xFFFFFFFF

# nvmlReturn_t (nvml.h).
SUCCESS = 0
UNINITIALIZED = 1
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
INSUFFICIENT_SIZE = 7
DRIVER_NOT_LOADED = 9
TIMEOUT = 10
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
LIB_RM_VERSION_MISMATCH = 18
GPU_NOT_FOUND = 28
UNKNOWN = 999

# nvmlValueType_t → the member of the value union that holds it.
_VALUE_MEMBER = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
_ULL = 3


class NvmlDriver(Protocol):
    """What the meter calls, under pynvml's own names.

    Handles are opaque. Field values, samples, processes and PCI info have the attributes of
    pynvml's structs. Every function may raise `NVMLError`, whose `value` is the code.
    """

    @property
    def NVMLError(self) -> type[Exception]: ...  # noqa: D102

    def nvmlInit(self) -> object: ...  # noqa: D102
    def nvmlShutdown(self) -> object: ...  # noqa: D102
    def nvmlSystemGetDriverVersion(self) -> str: ...  # noqa: D102
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: D102
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> Any: ...  # noqa: D102
    def nvmlDeviceGetHandleByUUID(self, uuid: str, /) -> Any: ...  # noqa: D102
    def nvmlDeviceGetUUID(self, handle: Any, /) -> str: ...  # noqa: D102
    def nvmlDeviceGetName(self, handle: Any, /) -> str: ...  # noqa: D102
    def nvmlDeviceGetPciInfo(self, handle: Any, /) -> Any: ...  # noqa: D102
    def nvmlDeviceGetArchitecture(self, handle: Any, /) -> int: ...  # noqa: D102
    def nvmlDeviceGetMigMode(self, handle: Any, /) -> Sequence[int]: ...  # noqa: D102
    def nvmlDeviceGetMinorNumber(self, handle: Any, /) -> int: ...  # noqa: D102
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, /) -> int: ...  # noqa: D102
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int, /) -> Any: ...  # noqa: D102
    def nvmlDeviceGetGpuInstanceId(self, handle: Any, /) -> int: ...  # noqa: D102
    def nvmlDeviceGetAttributes(self, handle: Any, /) -> Any: ...  # noqa: D102
    def nvmlDeviceGetPersistenceMode(self, handle: Any, /) -> int: ...  # noqa: D102
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any, /) -> int: ...  # noqa: D102
    def nvmlDeviceGetPowerManagementLimitConstraints(  # noqa: D102
        self, handle: Any, /
    ) -> Sequence[int]: ...
    def nvmlDeviceGetFieldValues(  # noqa: D102
        self, handle: Any, fields: Sequence[tuple[int, int]], /
    ) -> Sequence[Any]: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, /) -> int: ...  # noqa: D102
    def nvmlDeviceGetPowerUsage(self, handle: Any, /) -> int: ...  # noqa: D102
    def nvmlDeviceGetSamples(  # noqa: D102
        self, handle: Any, sampling_type: int, last_seen_us: int, /
    ) -> tuple[int, Sequence[Any]]: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any, /) -> Any: ...  # noqa: D102
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any, /) -> Sequence[Any]: ...  # noqa: D102
    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Any, /) -> Sequence[Any]: ...  # noqa: D102
    def nvmlDeviceGetProcessUtilization(  # noqa: D102
        self, handle: Any, last_seen_us: int, /
    ) -> Sequence[Any]: ...


class CallFailed(Exception):
    """A part of a call failed, as one field of several; `value` is its code, as in NVMLError."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


def real_driver() -> Any:
    """nvidia-ml-py, an `NvmlDriver`, with its constants, structs and error classes.

    The library behind it is looked for by `nvmlInit`, not before.
    """
    import pynvml

    return pynvml


def error_code(error: Exception) -> int:
    """The code of an `NVMLError` or `CallFailed`.

    pynvml's errors can neither be hashed nor compared with a number; only `value` is safe.
    """
    return int(getattr(error, "value", UNKNOWN))


def number(value_type: int, value: Any) -> int:
    """The number in an nvmlValue_t union.

    Raises:
        CallFailed: a value type that nvml.h does not know, or no finite number.
    """
    if value_type == _ULL:
        return int(value.ullVal)
    if not 0 <= value_type < len(_VALUE_MEMBER):
        raise CallFailed(UNKNOWN)
    try:
        return int(getattr(value, _VALUE_MEMBER[value_type]))
    except (ValueError, OverflowError):
        raise CallFailed(UNKNOWN) from None


def field_micro(field: Any) -> int:
    """A field's mJ or mW as µJ or µW.

    Raises:
        CallFailed: the field carries an error of its own.
    """
    if field.nvmlReturn:
        raise CallFailed(int(field.nvmlReturn))
    return number(field.valueType, field.value) * UJ_PER_MJ
