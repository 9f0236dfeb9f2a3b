"""What a scenario says once it has been read and found sound."""

from __future__ import annotations

from dataclasses import dataclass

from wattledger.meters.simulated.models import Model
from wattledger.meters.simulated.waveforms import Waveform
from wattledger.units import PPM


@dataclass(frozen=True, slots=True)
class Sensor:
    """How a card's sensors distort the truth. Times in ns, power in µW.

    Attributes:
        counter: there is an energy counter.
        window_mode: the counter adds up mean power over `window_ns` before each tick times the
            tick, instead of all energy.
        tick_ns: the counter moves this often.
        lag_ns: and shows the energy of this long ago.
        power_tick_ns: the power sensor moves this often.
        window_ns: instant power is the mean over this long.
        average: the average-power fields answer.
        average_ns: average power is the mean over this long.
        usage_averages: `nvmlDeviceGetPowerUsage` is the average, else the instant power.
        module: power answers in module scope only.
        gain_ppm: shown over true, for counter and power alike.
        offset_uw: added to both.
        noise_uw: standard deviation of the power readings.
        rise_ns: time constant with which power readings follow the truth; 0: at once.
        samples: the driver keeps a buffer of power samples.
        sample_ns: one sample is the mean over this long.
        sample_count: the buffer's length.
        call_timestamps: field timestamps are the time of the call, else of the sensor's tick.
    """

    counter: bool
    window_mode: bool
    tick_ns: int
    lag_ns: int
    power_tick_ns: int
    window_ns: int
    average: bool
    average_ns: int
    usage_averages: bool
    module: bool
    gain_ppm: int = PPM
    offset_uw: int = 0
    noise_uw: int = 0
    rise_ns: int = 0
    samples: bool = True
    sample_ns: int = 20_000_000
    sample_count: int = 120
    call_timestamps: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """When something holds.

    Attributes:
        at_ns: it begins, after the process's start (or after boot).
        for_ns: it lasts; None: for ever.
        since_boot: `at_ns` counts from boot.
    """

    at_ns: int = 0
    for_ns: int | None = None
    since_boot: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    """A process on a card.

    Attributes:
        pid: as the driver would list it; None: the process that asks.
        sm_util: per cent; None: an equal part of the card's utilisation.
        memory_mib: it holds.
        graphics: it is listed among the graphics processes, else among the compute processes.
        span: when it runs.
    """

    pid: int | None
    sm_util: int | None
    memory_mib: int
    graphics: bool
    span: Span


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A MIG instance: `slices` of the card's compute slices.

    Attributes:
        profile: as NVIDIA writes it, such as `3g.40gb`.
        slices: of compute.
        memory_mib: of it.
        processes: that run on it.
    """

    profile: str
    slices: int
    memory_mib: int
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card of the scenario; its number is its place in the file, from 0, for ever.

    Attributes:
        number: place in the scenario; the driver's index unless a fault reorders.
        uuid: derived from the scenario's seed and the number, or as written.
        minor: of /dev/nvidia<minor>.
        model: constants.
        waveform: the truth.
        power_limit_uw: enforced.
        persistence: persistence mode is on.
        sensor: the distortion.
        processes: on it.
        mig_on: MIG mode is enabled.
        mig: instances it has when MIG is on.
    """

    number: int
    uuid: str
    minor: int
    model: Model
    waveform: Waveform
    power_limit_uw: int
    persistence: bool
    sensor: Sensor
    processes: tuple[Process, ...]
    mig_on: bool
    mig: tuple[MigInstance, ...]


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """Something that goes wrong, or changes; `schema.FAULTS` says what each kind does.

    Attributes:
        kind: of `schema.FAULTS`.
        gpu: the card's number; None: all, or the driver itself.
        span: when.
        indices: for `reorder`: the card's number at each index.
        pid: for `zombie_pid`.
        value: for `util_over_100`, per cent.
        age_ns: for `stale_util`.
        catch_up: for `frozen_counter`: afterwards it shows all energy, else the frozen time's is
            missing for good.
        driver_version: for `driver_reload`: the version afterwards; empty: the same.
    """

    kind: str
    gpu: int | None
    span: Span
    indices: tuple[int, ...] = ()
    pid: int = 0
    value: int = 0
    age_ns: int = 0
    catch_up: bool = True
    driver_version: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A node of simulated GPUs: `simulated.load_scenario` reads one from a file.

    Attributes:
        name: for people.
        seed: of phases, noise, gains and UUIDs.
        driver_version: as the driver gives it.
        gpus: in order.
        faults: in order.
    """

    name: str
    seed: int
    driver_version: str
    gpus: tuple[Gpu, ...]
    faults: tuple[FaultSpec, ...]
