"""The simulated NVML: pynvml's own surface over a scenario.

    driver = SimulatedNvml(load_scenario(Path("configs/scenarios/eight-h100.toml")), clock)
    driver.nvmlInit()
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    driver.nvmlDeviceGetTotalEnergyConsumption(handle)  # mJ, as the sensor shows it
    driver.true_energy_uj(0)                            # µJ, as it really was

Functions, constants, errors and the shapes of results are pynvml's, so a meter runs unchanged over
either. What NVML leaves open is chosen thus:

- time 0 of every waveform and counter is the machine's boot, when its driver was loaded: a process
  that starts again finds counters that went on, as hardware's do;
- a handle stands for its physical card until the initialisation it came from ends; then, and after
  the card left the bus and came back, it is refused (INVALID_ARGUMENT, GPU_IS_LOST). A change of
  indices leaves it alone;
- a driver load ends every initialisation from before: calls answer UNKNOWN until `nvmlShutdown`
  has been called down to 0 and `nvmlInit` again;
- faults change what the driver shows, never what the card draws.

Safe from any thread, as NVML is.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Any

from wattledger.meters.simulated.card import UWNS_PER_MJ, Card
from wattledger.meters.simulated.faults import window_ns
from wattledger.meters.simulated.scenario import Process
from wattledger.meters.simulated.session import Handle, Session, mig_uuid, pci_address

_FIELD = struct.Struct("=IIqqIIQ")  # nvmlFieldValue_t: written at once, ten times as fast
_SAMPLE = struct.Struct("=QQ")  # nvmlSample_t
_SCOPE_GPU, _SCOPE_MODULE = 0, 1
_TOTAL_POWER_SAMPLES, _GPU_UTILIZATION_SAMPLES, _MODULE_POWER_SAMPLES = 0, 1, 7
_ENERGY_FIELDS = (83, 191)  # NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, NVML_FI_DEV_ENERGY
_AVERAGE_FIELD, _INSTANT_FIELD = 185, 186
_MIN_LIMIT, _MAX_LIMIT, _DEFAULT_LIMIT, _CURRENT_LIMIT, _REQUESTED_LIMIT = 187, 188, 189, 190, 192
_NO_INSTANCE = 0xFFFFFFFF
_UTILIZATION_NS = 166_666_667  # the driver samples utilisation six times a second


class SimulatedNvml(Session):
    """pynvml's functions over a scenario.

    Args:
        scenario: the node.
        clock: boot time moves the waveforms, wall time labels the samples.
        sleep: how a hanging call blocks, in seconds.
    """

    # pynvml's names; what each does is in NVIDIA's nvml.h. Powers mW, energies mJ, times µs.
    # ruff: noqa: N802, N815, D102

    # ── the system ──────────────────────────────────────────────────────────────────────────────

    def nvmlSystemGetDriverVersion(self) -> str:
        return self._plan.driver_version(self.scenario.driver_version, self._enter())

    def nvmlSystemGetNVMLVersion(self) -> str:
        return f"12.{self.nvmlSystemGetDriverVersion()}"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        self._enter()
        return 12_080

    # ── what a device is ────────────────────────────────────────────────────────────────────────

    def nvmlDeviceGetUUID(self, handle: Handle) -> str:
        card, _ = self._enter_device(handle)
        return card.gpu.uuid if handle.instance is None else mig_uuid(card, handle.instance)

    def nvmlDeviceGetName(self, handle: Handle) -> str:
        card, _ = self._enter_device(handle)
        name = card.gpu.model.name
        if handle.instance is None:
            return name
        return f"{name} MIG {card.gpu.mig[handle.instance].profile}"

    def nvmlDeviceGetSerial(self, handle: Handle) -> str:
        card, _ = self._enter_card(handle)
        return f"{int(card.gpu.uuid[4:12], 16):013d}"

    def nvmlDeviceGetBrand(self, handle: Handle) -> int:
        return self._enter_card(handle)[0].gpu.model.brand

    def nvmlDeviceGetArchitecture(self, handle: Handle) -> int:
        return self._enter_device(handle)[0].gpu.model.architecture

    def nvmlDeviceGetIndex(self, handle: Handle) -> int:
        card, now_ns = self._enter_card(handle)
        return self._plan.order(now_ns).index(card.gpu.number)

    def nvmlDeviceGetMinorNumber(self, handle: Handle) -> int:
        return self._enter_card(handle)[0].gpu.minor

    def nvmlDeviceGetPersistenceMode(self, handle: Handle) -> int:
        return int(self._enter_card(handle)[0].gpu.persistence)

    def nvmlDeviceGetPciInfo(self, handle: Handle) -> Any:
        card, _ = self._enter_device(handle)
        info = self._nvml.nvmlPciInfo_t()
        info.busId = address = pci_address(card.gpu.number).upper()
        info.busIdLegacy = address[4:]
        info.bus = int(address[9:11], 16)
        info.pciDeviceId = card.gpu.model.pci_device_id
        return info

    nvmlDeviceGetPciInfo_v3 = nvmlDeviceGetPciInfo

    # ── limits ──────────────────────────────────────────────────────────────────────────────────

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Handle) -> int:
        return self._enter_card(handle)[0].gpu.power_limit_uw // 1000

    nvmlDeviceGetPowerManagementLimit = nvmlDeviceGetEnforcedPowerLimit

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: Handle) -> int:
        return self._enter_card(handle)[0].gpu.model.max_limit_w * 1000

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: Handle) -> list[int]:
        model = self._enter_card(handle)[0].gpu.model
        return [model.min_limit_w * 1000, model.max_limit_w * 1000]

    # ── energy and power ────────────────────────────────────────────────────────────────────────

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Handle) -> int:
        card, now_ns = self._enter_card(handle)
        energy_mj = self._counter_mj(card, now_ns)
        if energy_mj is None:
            raise self._error(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        return energy_mj

    def nvmlDeviceGetPowerUsage(self, handle: Handle) -> int:
        card, now_ns = self._enter_card(handle)
        averages = card.gpu.sensor.usage_averages
        return card.average_mw(now_ns) if averages else card.instant_mw(now_ns)

    def nvmlDeviceGetFieldValues(
        self, handle: Handle, fields: Sequence[int | tuple[int, int]]
    ) -> Any:
        card, now_ns = self._enter_device(handle)
        values = (self._nvml.c_nvmlFieldValue_t * len(fields))()
        for place, field in enumerate(fields):
            field_id, scope = (field, 0) if isinstance(field, int) else field
            if handle.instance is None:
                code, kind, value, tick_ns = self._field(card, field_id, scope, now_ns)
            else:
                code, kind, value, tick_ns = self._nvml.NVML_ERROR_NOT_SUPPORTED, 0, 0, now_ns
            shown_ns = now_ns if card.gpu.sensor.call_timestamps else tick_ns
            wall_us = self._wall.wall_us(shown_ns)
            _FIELD.pack_into(values, place * 40, field_id, scope, wall_us, 0, kind, code, value)
        return values

    def _field(
        self, card: Card, field_id: int, scope: int, now_ns: int
    ) -> tuple[int, int, int, int]:
        """One field's (error code, value type, value, time of its tick)."""
        gpu, sensor = card.gpu, card.gpu.sensor
        unsupported = self._nvml.NVML_ERROR_NOT_SUPPORTED, 0, 0, now_ns
        if field_id == 83 or (
            field_id in _ENERGY_FIELDS and scope in (_SCOPE_GPU, int(sensor.module))
        ):
            energy_mj = self._counter_mj(card, now_ns)
            if energy_mj is None:
                return unsupported
            tick_ns = card.counter_tick_ns(now_ns)
            return 0, self._nvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, energy_mj, tick_ns
        if scope != (_SCOPE_MODULE if sensor.module else _SCOPE_GPU):
            return unsupported
        tick_ns = card.power_tick_ns(now_ns)
        if field_id == _INSTANT_FIELD:
            power_mw = card.instant_mw(now_ns)
        elif field_id == _AVERAGE_FIELD and sensor.average:
            power_mw = card.average_mw(now_ns)
        elif field_id in (_CURRENT_LIMIT, _REQUESTED_LIMIT):
            power_mw = gpu.power_limit_uw // 1000
        elif field_id in (_MAX_LIMIT, _DEFAULT_LIMIT):
            power_mw = gpu.model.max_limit_w * 1000
        elif field_id == _MIN_LIMIT:
            power_mw = gpu.model.min_limit_w * 1000
        else:
            return unsupported
        return 0, self._nvml.NVML_VALUE_TYPE_UNSIGNED_INT, power_mw, tick_ns

    def nvmlDeviceGetSamples(
        self, handle: Handle, sampling_type: int, last_seen_us: int
    ) -> tuple[int, list[Any]]:
        card, now_ns = self._enter_card(handle)
        sensor = card.gpu.sensor
        if sampling_type == _GPU_UTILIZATION_SAMPLES and not self._mig_on(card, now_ns):
            return self._utilization_samples(card, now_ns, last_seen_us)
        kept = _MODULE_POWER_SAMPLES if sensor.module else _TOTAL_POWER_SAMPLES
        if not sensor.samples or sampling_type != kept:
            raise self._error(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        number, plan, wall_us = card.gpu.number, self._plan, self._wall.wall_us
        ticks = [
            (stamp, tick)
            for tick in card.sample_ticks_ns(now_ns)
            if (stamp := wall_us(tick)) > last_seen_us
        ]
        if plan.any_of_gpu[number]:
            ticks = [t for t in ticks if plan.of_gpu(number, "missed_samples", t[1]) is None]
        if not ticks:
            raise self._error(self._nvml.NVML_ERROR_NOT_FOUND)
        samples = (self._nvml.c_nvmlSample_t * len(ticks))()
        for place, (stamp, tick) in enumerate(ticks):
            _SAMPLE.pack_into(samples, place * 16, stamp, card.sample_mw(tick))
        return self._nvml.NVML_VALUE_TYPE_UNSIGNED_INT, samples[0 : len(ticks)]

    def _utilization_samples(
        self, card: Card, now_ns: int, last_seen_us: int
    ) -> tuple[int, list[Any]]:
        """The driver's ring of utilisation, in percent."""
        newest = now_ns // _UTILIZATION_NS
        ticks = [n * _UTILIZATION_NS for n in range(max(1, newest - 119), newest + 1)]
        fresh = [t for t in ticks if self._wall.wall_us(t) > last_seen_us]
        if not fresh:
            raise self._error(self._nvml.NVML_ERROR_NOT_FOUND)
        samples = (self._nvml.c_nvmlSample_t * len(fresh))()
        for place, tick in enumerate(fresh):
            percent = card.utilization(tick)
            _SAMPLE.pack_into(samples, place * 16, self._wall.wall_us(tick), percent)
        return self._nvml.NVML_VALUE_TYPE_UNSIGNED_INT, samples[0 : len(fresh)]

    def _counter_mj(self, card: Card, now_ns: int) -> int | None:
        """What the energy counter shows; None where there is none."""
        if not card.gpu.sensor.counter:
            return None
        number, plan = card.gpu.number, self._plan
        if not plan.any_of_gpu[number]:
            return card.counter_uwns(now_ns) // UWNS_PER_MJ
        if plan.of_gpu(number, "no_energy", now_ns):
            return None
        shown_ns = plan.frozen_at_ns(number, now_ns)
        reset_ns = plan.last_reset_ns(number, now_ns)
        energy = (
            card.counter_uwns(shown_ns)
            if reset_ns is None
            else card.counter_since_uwns(shown_ns, reset_ns)
        )
        for start_ns, end_ns in plan.skipped(number, reset_ns or 0, shown_ns):
            energy -= card.counter_uwns(end_ns) - card.counter_uwns(start_ns)
        return max(0, energy) // UWNS_PER_MJ

    # ── processes and utilisation ───────────────────────────────────────────────────────────────

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> list[Any]:
        return self._processes(handle, graphics=False)

    nvmlDeviceGetComputeRunningProcesses_v2 = nvmlDeviceGetComputeRunningProcesses
    nvmlDeviceGetComputeRunningProcesses_v3 = nvmlDeviceGetComputeRunningProcesses

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Handle) -> list[Any]:
        return self._processes(handle, graphics=True)

    nvmlDeviceGetGraphicsRunningProcesses_v2 = nvmlDeviceGetGraphicsRunningProcesses
    nvmlDeviceGetGraphicsRunningProcesses_v3 = nvmlDeviceGetGraphicsRunningProcesses

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: Handle) -> list[Any]:
        self._enter_device(handle)
        return []

    def nvmlDeviceGetUtilizationRates(self, handle: Handle) -> Any:
        card, now_ns = self._enter_card(handle)
        if self._mig_on(card, now_ns):
            raise self._error(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        busy = card.utilization(now_ns)
        illegal = self._plan.of_gpu(card.gpu.number, "util_over_100", now_ns)
        return self._nvml.c_nvmlUtilization_t(illegal.spec.value if illegal else busy, busy // 2)

    def nvmlDeviceGetProcessUtilization(self, handle: Handle, last_seen_us: int) -> list[Any]:
        card, now_ns = self._enter_card(handle)
        if self._mig_on(card, now_ns):
            raise self._error(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        number, plan = card.gpu.number, self._plan
        stamp_us = self._wall.wall_us(now_ns - now_ns % _UTILIZATION_NS)
        if stale := plan.of_gpu(number, "stale_util", now_ns):
            stamp_us -= stale.spec.age_ns // 1000
        running = [p for p, _ in self._running(card, None, now_ns)]
        if (not stale and stamp_us <= last_seen_us) or not running:
            raise self._error(self._nvml.NVML_ERROR_NOT_FOUND)
        share = card.utilization(now_ns) // len(running)
        illegal = plan.of_gpu(number, "util_over_100", now_ns)
        rows = []
        for process in running:
            used = share if process.sm_util is None else process.sm_util
            used = illegal.spec.value if illegal else used
            if used:
                pid = os.getpid() if process.pid is None else process.pid
                row = self._nvml.c_nvmlProcessUtilizationSample_t(pid, stamp_us, used, used // 2)
                rows.append(row)
        if not rows:
            raise self._error(self._nvml.NVML_ERROR_NOT_FOUND)
        return rows

    def _processes(self, handle: Handle, graphics: bool) -> list[Any]:
        card, now_ns = self._enter_device(handle)
        return [
            self._nvml.nvmlFriendlyObject(
                {
                    "pid": os.getpid() if process.pid is None else process.pid,
                    "usedGpuMemory": process.memory_mib << 20,
                    "gpuInstanceId": _NO_INSTANCE if instance is None else instance + 1,
                    "computeInstanceId": _NO_INSTANCE if instance is None else 0,
                }
            )
            for process, instance in self._running(card, handle.instance, now_ns)
            if process.graphics == graphics
        ]

    def _running(
        self, card: Card, instance: int | None, now_ns: int
    ) -> list[tuple[Process, int | None]]:
        """Processes on a card, or on one of its instances, with the instance they run on."""
        instances = self._instances(card, now_ns)
        if instances:
            found: list[tuple[Process, int | None]] = [
                (process, place)
                for place, mig in enumerate(instances)
                for process in mig.processes
                if instance in (None, place)
            ]
        else:
            found = [(process, None) for process in card.gpu.processes]
        if zombie := self._plan.of_gpu(card.gpu.number, "zombie_pid", now_ns):
            ghost = Process(zombie.spec.pid, None, 0, graphics=False, span=zombie.spec.span)
            found.append((ghost, instance))
        return [f for f in found if self._runs(f[0], now_ns)]

    def _runs(self, process: Process, now_ns: int) -> bool:
        start_ns, end_ns = window_ns(process.span, self._started_ns)
        return start_ns <= now_ns < end_ns

    # ── MIG ─────────────────────────────────────────────────────────────────────────────────────

    def nvmlDeviceGetMigMode(self, handle: Handle) -> list[int]:
        card, now_ns = self._enter_card(handle)
        if not card.gpu.model.mig_slices:
            raise self._error(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        mode = int(self._mig_on(card, now_ns))
        return [mode, mode]

    def nvmlDeviceIsMigDeviceHandle(self, handle: Handle) -> ctypes.c_uint:
        self._enter_device(handle)
        return ctypes.c_uint(handle.instance is not None)  # pynvml forgets the .value here

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Handle) -> int:
        card, now_ns = self._enter_card(handle)
        return card.gpu.model.mig_slices if self._mig_on(card, now_ns) else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Handle, index: int) -> Handle:
        card, now_ns = self._enter_card(handle)
        if not 0 <= index < len(self._instances(card, now_ns)):
            raise self._error(self._nvml.NVML_ERROR_NOT_FOUND)
        return Handle(card, handle.epoch, now_ns, index)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: Handle) -> Handle:
        card, now_ns = self._enter_device(handle)
        if handle.instance is None:
            raise self._error(self._nvml.NVML_ERROR_INVALID_ARGUMENT)
        return Handle(card, handle.epoch, now_ns)

    def nvmlDeviceGetGpuInstanceId(self, handle: Handle) -> int:
        self._enter_device(handle)
        if handle.instance is None:
            raise self._error(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        return handle.instance + 1

    def nvmlDeviceGetComputeInstanceId(self, handle: Handle) -> int:
        self._enter_device(handle)
        if handle.instance is None:
            raise self._error(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        return 0

    def nvmlDeviceGetAttributes(self, handle: Handle) -> Any:
        card, _ = self._enter_device(handle)
        if handle.instance is None:
            raise self._error(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        instance, model = card.gpu.mig[handle.instance], card.gpu.model
        attributes = self._nvml.c_nvmlDeviceAttributes()
        attributes.multiprocessorCount = model.sm_count * instance.slices // 8
        attributes.gpuInstanceSliceCount = instance.slices
        attributes.computeInstanceSliceCount = instance.slices
        attributes.memorySizeMB = instance.memory_mib
        return attributes

    nvmlDeviceGetAttributes_v2 = nvmlDeviceGetAttributes
