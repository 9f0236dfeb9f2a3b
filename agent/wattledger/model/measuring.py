"""How much: devices, readings, intervals, and the health of what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Process(NamedTuple):
    """A process as a driver lists it.

    Attributes:
        pid: process id.
        start_ticks: field 22 of /proc/PID/stat when it was listed: ids are used again; 0: unknown.
        sm: its use of the GPU's multiprocessors since the list before (the sum of the driver's
            samples in percent); None: not told.
        instance: UUID of the MIG instance that it is on; None: the GPU is whole, or it cannot be
            told.
    """

    pid: int
    start_ticks: int = 0
    sm: int | None = None
    instance: str | None = None


class MigInstance(NamedTuple):
    """A MIG instance.

    Attributes:
        uuid: its own.
        gpu_instance: the id of its GPU instance on the parent.
        slices: compute slices that it has.
    """

    uuid: str
    gpu_instance: int
    slices: int


class GpuNames(NamedTuple):
    """A GPU by all its names.

    Attributes:
        uuid: what the rest of the program calls it.
        nvml_index: NVML's; -1: it has none now.
        minor: the N of /dev/nvidiaN; None: not known.
        instances: its MIG instances; empty: MIG is off.
        slices: compute slices of the whole GPU (7 on the A100 and its successors).
    """

    uuid: str
    nvml_index: int
    minor: int | None = None
    instances: tuple[MigInstance, ...] = ()
    slices: int = 7


class Kind(StrEnum):
    """What a device is; the value of the metrics' `kind` label."""

    GPU = "gpu"
    CPU = "cpu"
    DRAM = "dram"
    OTHER = "other"


class Quality(StrEnum):
    """How an energy was found; part of every ledger entry."""

    METERED = "metered"  # the difference of a hardware energy counter
    INTEGRATED = "integrated"  # measured power over time
    ESTIMATED = "estimated"  # a model or a configured constant: no meter saw it
    RECOVERED = "recovered"  # a hardware counter moved while nobody was reading it


class Instant(NamedTuple):
    """One moment on three clocks, each in ns.

    `monotonic` stands still while the machine sleeps and serves rates; `boottime` runs on and
    serves gaps; `wall` (Unix time, may be stepped) serves slots and labels only.
    """

    monotonic_ns: int
    boottime_ns: int
    wall_ns: int


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A metered device.

    Attributes:
        name: stable for life: a GPU's UUID, `cpu0`, `dram0`, `other`.
        kind: what it is.
        meter: which meter reads it now (`nvml`, `rapl`, `hwmon`, `estimate`, `constant`).
        index: the driver's number for it, as text; may change at the next boot.
        model: for people.
        pci: PCI address, or empty.
        present: False once the device has left; its totals stay.
    """

    name: str
    kind: Kind
    meter: str
    index: str = ""
    model: str = ""
    pci: str = ""
    present: bool = True


@dataclass(frozen=True, slots=True)
class CounterReading:
    """What a cumulative energy counter showed.

    Attributes:
        device: the device's stable name.
        at: when it was read.
        raw_uj: the counter in µJ, as the hardware gives it.
        range_uj: the counter wraps after this many µJ; None: it never wraps, a fall is a reset.
        max_power_uw: more than this the device cannot draw (a power limit, or a bound for its
            class); differences beyond 1.1 times this are not booked.
        tick_ns: how often the hardware moves the counter.
        boot_id: the kernel's boot id: another one means the counter began anew.
        driver_load: changes when the driver was loaded anew; empty where there is none to load.
    """

    device: str
    at: Instant
    raw_uj: int
    range_uj: int | None
    max_power_uw: int
    tick_ns: int
    boot_id: str
    driver_load: str = ""


@dataclass(frozen=True, slots=True)
class PowerReading:
    """What a power sensor, a model or a constant showed.

    Attributes:
        device: the device's stable name.
        at: when the value was true (for an average: when its window ended).
        power_uw: µW.
        window_ns: the value is the mean over this long before `at`; 0: it is instantaneous.
        max_gap_ns: two readings farther apart than this leave the time between unobserved.
        quality: `INTEGRATED` for a sensor, `ESTIMATED` for a model or a constant.
    """

    device: str
    at: Instant
    power_uw: int
    window_ns: int
    max_gap_ns: int
    quality: Quality = Quality.INTEGRATED


Reading = CounterReading | PowerReading


@dataclass(frozen=True, slots=True)
class EnergyInterval:
    """Energy of one device over a span of time.

    Attributes:
        device: the device's stable name.
        start_ns: wall clock; `end_ns` less the span's length on CLOCK_BOOTTIME.
        end_ns: wall clock when the closing reading was taken.
        energy_uj: at least 0.
        quality: how it was found.
    """

    device: str
    start_ns: int
    end_ns: int
    energy_uj: int
    quality: Quality


@dataclass(frozen=True, slots=True)
class Fault:
    """Something a meter could not do; counted in `meter_errors_total{meter,reason}`.

    Attributes:
        meter: the meter's name.
        reason: one lower-case word with underscores.
        message: a sentence for the log and for `doctor`.
        hint: what to do about it.
        device: the device concerned, or empty for the whole meter.
        permanent: the meter as a whole does not answer (`meter_up 0`), not just one read.
    """

    meter: str
    reason: str
    message: str
    hint: str = ""
    device: str = ""
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class MeterReport:
    """All that one turn of a meter brought.

    Attributes:
        devices: every device the meter knows, those that left with `present=False`.
        readings: in order of time for each device.
        faults: what could not be read this time.
        processes: GPU name → number of processes on it, None: cannot be told; only where asked.
        counter_power_ratio: device → energy by counter over energy by power sensor, for devices
            where both answer; a cross-check, 1.0 when they agree.
        listed: GPU → the processes on it, where they can be told; the same tuple until the driver
            was asked again.
        used: GPU → whether it did anything at all since this was last told, where it was told in
            this turn.
    """

    devices: tuple[DeviceInfo, ...] = ()
    readings: tuple[Reading, ...] = ()
    faults: tuple[Fault, ...] = ()
    processes: Mapping[str, int | None] = field(default_factory=lambda: MappingProxyType({}))
    counter_power_ratio: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    listed: Mapping[str, tuple[Process, ...]] = field(default_factory=lambda: MappingProxyType({}))
    used: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """A meter's health, for metrics, `/api/v1/status` and `doctor`.

    Attributes:
        meter: its name.
        up: it answered at its last turn, and that was not too long ago.
        last_success_ns: wall clock of the last turn that brought readings; 0: never.
        errors: reason → count since the start of the process.
        message: why it is down; empty while up.
        hint: what to do about it.
        missed_ticks: turns that could not be held at their time.
    """

    meter: str
    up: bool
    last_success_ns: int
    errors: Mapping[str, int]
    message: str = ""
    hint: str = ""
    missed_ticks: int = 0
