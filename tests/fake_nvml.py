"""A driver of pynvml's surface in the test's hands: every answer is an attribute.

For the meter's remedies, which need precise control. Whole scenarios are the simulated driver's,
the real library's structs and loading those of `nvml_stub`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from fakes import FakeClock
from wattledger.meters.nvml.binding import real_driver

NVMLError: type[Exception] = real_driver().NVMLError
_UINT, _ULL = 1, 3


@dataclass
class FakeGpu:
    """One GPU. Codes: 0 is success; `None` energy and power values are NOT_SUPPORTED."""

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    power_mw: int = 300_000
    energy_mj: int | None = None  # None: power times time, see `FakeNvml`
    counter: bool = True
    fields: set[tuple[int, int]] = field(default_factory=lambda: {(185, 0), (186, 0)})
    field_error: dict[int, int] = field(default_factory=dict)  # field id → code of its own
    samples: list[tuple[int, int]] | None = None  # (µs, mW); None: not supported
    busy_samples: list[tuple[int, int]] | None = None  # (µs, per cent); None: not supported
    busy: int | None = 0  # per cent; None: not supported
    limit_mw: int | None = 700_000
    mig: int | None = 0
    arch: int = 9
    device_id: int = 0x2330
    error: int = 0
    handle_error: int = 0
    pids: list[int] = field(default_factory=list)
    graphics_pids: list[int] = field(default_factory=list)
    process_error: int = 0
    use: dict[int, list[tuple[int, int]]] | None = None  # pid → (µs, per cent); None: unsupported
    use_error: int = 0
    minor: int | None = None  # None: NOT_SUPPORTED
    slices: int = 7
    instances: list[FakeInstance] = field(default_factory=list)
    present: bool = True


@dataclass
class FakeInstance:
    """A MIG instance of a GPU; `error` is what questions about it answer."""

    uuid: str
    gpu_instance: int
    slices: int
    pids: list[int] = field(default_factory=list)
    error: int = 0
    process_error: int = 0


class FakeNvml:
    """pynvml's functions over a list of GPUs.

    Attributes:
        gpus: in order of their index.
        init_error: what nvmlInit answers.
        refcount: initialisations less shutdowns.
        calls: names of the driver's entry points as the C library would see them.
        init_times: CLOCK_MONOTONIC in s of each attempt to initialise.
        use_asked_us: since when each question for the use by process asked.
    """

    NVMLError = NVMLError

    def __init__(self, clock: FakeClock, *gpus: FakeGpu) -> None:
        self.clock = clock
        self.gpus = list(gpus)
        self.init_error = 0
        self.error = 0
        self.refcount = 0
        self.version = "570.124.06"
        self.calls: list[str] = []
        self.init_times: list[float] = []
        self.use_asked_us: list[int] = []

    def _enter(self, name: str, handle: Any = None) -> None:
        self.calls.append(name)
        if not self.refcount:
            raise NVMLError(1)
        if self.error:
            raise NVMLError(self.error)
        if isinstance(handle, FakeGpu) and not handle.present:
            raise NVMLError(15)
        if isinstance(handle, (FakeGpu, FakeInstance)) and handle.error:
            raise NVMLError(handle.error)

    def nvmlInit(self) -> None:
        self.calls.append("init")
        self.init_times.append(self.clock.monotonic_ns / 1e9)
        if self.init_error:
            raise NVMLError(self.init_error)
        self.refcount += 1

    def nvmlShutdown(self) -> None:
        self.calls.append("shutdown")
        if not self.refcount:
            raise NVMLError(1)
        self.refcount -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        self._enter("version")
        return self.version

    def nvmlDeviceGetCount(self) -> int:
        self._enter("count")
        return sum(gpu.present for gpu in self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        self._enter("handle")
        gpu = [gpu for gpu in self.gpus if gpu.present][index]
        return self._handle(gpu)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        self._enter("handle_by_uuid")
        for gpu in self.gpus:
            if gpu.uuid == uuid and gpu.present:
                return self._handle(gpu)
        raise NVMLError(6)

    def _handle(self, gpu: FakeGpu) -> FakeGpu:
        if gpu.handle_error:
            raise NVMLError(gpu.handle_error)
        return gpu

    def nvmlDeviceGetUUID(self, handle: FakeGpu | FakeInstance) -> str:
        self._enter("uuid", handle)
        return handle.uuid

    def nvmlDeviceGetMinorNumber(self, handle: FakeGpu) -> int:
        self._enter("minor", handle)
        if handle.minor is None:
            raise NVMLError(3)
        return handle.minor

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: FakeGpu) -> int:
        self._enter("mig_count", handle)
        return handle.slices if handle.mig else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: FakeGpu, index: int) -> FakeInstance:
        self._enter("mig_handle", handle)
        if index >= len(handle.instances):
            raise NVMLError(6)
        return handle.instances[index]

    def nvmlDeviceGetGpuInstanceId(self, handle: FakeInstance) -> int:
        self._enter("mig_id", handle)
        return handle.gpu_instance

    def nvmlDeviceGetAttributes(self, handle: FakeInstance) -> Any:
        self._enter("mig_attributes", handle)
        return SimpleNamespace(computeInstanceSliceCount=handle.slices)

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str:
        self._enter("name", handle)
        return handle.name

    def nvmlDeviceGetPciInfo(self, handle: FakeGpu) -> Any:
        self._enter("pci", handle)
        bus = 0x10 + self.gpus.index(handle)
        return SimpleNamespace(
            domain=0, bus=bus, device=0, pciDeviceId=handle.device_id << 16 | 0x10DE
        )

    def nvmlDeviceGetArchitecture(self, handle: FakeGpu) -> int:
        self._enter("architecture", handle)
        return handle.arch

    def nvmlDeviceGetMigMode(self, handle: FakeGpu) -> Sequence[int]:
        self._enter("mig", handle)
        if handle.mig is None:
            raise NVMLError(3)
        return [handle.mig, handle.mig]

    def nvmlDeviceGetPersistenceMode(self, handle: FakeGpu) -> int:
        self._enter("persistence", handle)
        return 1

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: FakeGpu) -> int:
        self._enter("limit", handle)
        raise NVMLError(3)

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: FakeGpu) -> Sequence[int]:
        self._enter("constraints", handle)
        raise NVMLError(3)

    def energy_mj(self, gpu: FakeGpu) -> int:
        """What the counter shows: a constant power since the boot, unless it was set."""
        if gpu.energy_mj is not None:
            return gpu.energy_mj
        return gpu.power_mw * self.clock.boottime_ns // 10**9

    def nvmlDeviceGetFieldValues(
        self, handle: FakeGpu, fields: Sequence[tuple[int, int]]
    ) -> list[Any]:
        self._enter("fields", handle)
        return [self._field(handle, *asked) for asked in fields]

    def _field(self, gpu: FakeGpu, field_id: int, scope: int) -> Any:
        value_type, value, code = _UINT, 0, 0
        if field_id == 83:
            value_type, value = _ULL, self.energy_mj(gpu)
            code = 0 if gpu.counter else 3
        elif field_id in (185, 186):
            value, code = gpu.power_mw, 0 if (field_id, scope) in gpu.fields else 3
        elif field_id in (188, 190) and gpu.limit_mw is not None and not scope:
            value = gpu.limit_mw
        else:
            code = 3
        code = gpu.field_error.get(field_id, code)
        union = SimpleNamespace(uiVal=value, ullVal=value)
        return SimpleNamespace(nvmlReturn=code, valueType=value_type, value=union)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: FakeGpu) -> int:
        self._enter("energy", handle)
        if not handle.counter:
            raise NVMLError(3)
        return self.energy_mj(handle)

    def nvmlDeviceGetPowerUsage(self, handle: FakeGpu) -> int:
        self._enter("usage", handle)
        return handle.power_mw

    def nvmlDeviceGetSamples(
        self, handle: FakeGpu, sampling_type: int, last_seen_us: int
    ) -> tuple[int, Sequence[Any]]:
        self._enter("samples", handle)
        ring = {0: handle.samples, 1: handle.busy_samples}.get(sampling_type)
        if ring is None:
            raise NVMLError(3)
        new = [
            SimpleNamespace(timeStamp=stamp, sampleValue=SimpleNamespace(uiVal=value))
            for stamp, value in ring
            if stamp > last_seen_us
        ]
        if not new:
            raise NVMLError(6)
        return _UINT, new

    def nvmlDeviceGetUtilizationRates(self, handle: FakeGpu) -> Any:
        self._enter("rates", handle)
        if handle.busy is None:
            raise NVMLError(3)
        return SimpleNamespace(gpu=handle.busy, memory=0)

    def _processes(self, name: str, handle: FakeGpu | FakeInstance, pids: list[int]) -> list[Any]:
        self._enter(name, handle)
        if handle.process_error:
            raise NVMLError(handle.process_error)
        if pids:
            self.calls.append(name)  # once for the size, once for the list
        instance = 0xFFFFFFFF if isinstance(handle, FakeGpu) else handle.gpu_instance
        return [SimpleNamespace(pid=pid, gpuInstanceId=instance) for pid in pids]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeGpu | FakeInstance) -> list[Any]:
        return self._processes("compute", handle, handle.pids)

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: FakeGpu) -> list[Any]:
        return self._processes("graphics", handle, handle.graphics_pids)

    def nvmlDeviceGetProcessUtilization(self, handle: FakeGpu, last_seen_us: int) -> list[Any]:
        self._enter("use", handle)
        if handle.use_error or handle.use is None:
            raise NVMLError(handle.use_error or 3)
        self.calls.append("use")
        rows = [
            SimpleNamespace(pid=pid, timeStamp=stamp, smUtil=percent)
            for pid, samples in handle.use.items()
            for stamp, percent in samples
        ]
        self.use_asked_us.append(last_seen_us)
        if not rows:
            raise NVMLError(6)
        return rows
