"""A GPU node whose true energy is known, behind the unmodified nvidia-ml-py.

`stub.c` is built as `libnvidia-ml.so.1`; a process that is started with `Stub.env()` finds it
through LD_LIBRARY_PATH. Power is a closed form of the wall clock, so that truth needs no
co-operation of that process:

    stub = Stub(tmp_path, StubConfig(gpus=[square(60, 600, period_s=0.3), constant(300)]))
    subprocess.Popen([...], env=stub.env())
    ...
    stub.true_energy_uj(0, time.time_ns())     # µJ since t0, exact to 1 µJ
    stub.config.gpus[0].error = 15             # the GPU is lost …
    stub.write()                               # … from the next driver call on
    stub.stats().calls                         # driver calls so far, of all processes

Power of a GPU: `hi_w` for the first `on` part of each period since t0, `lo_w` for the rest.
"""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("stub.c")
LIBRARY = "libnvidia-ml.so.1"
MAX_GPUS = 32
_NS = 1_000_000_000


@dataclass
class MigStub:
    """A MIG instance: its UUID, the id of its GPU instance, its compute slices, its processes."""

    uuid: str
    gpu_instance: int
    slices: int
    pids: list[int] = field(default_factory=list)


_LISTS = ("pids", "sm", "instances")


@dataclass
class GpuStub:
    """One GPU. Fields that end in a unit are integers of it; the others are flags or codes.

    Attributes:
        lo_uw: power in the rest of each period; constant power where `period_ns` is 0.
        hi_uw: power in the first `on_ns` of each period.
        tick_ns: how often the counter moves; 0: with every read.
        tick_phase_ns: when, within a tick.
        zero_ns: wall clock at which the counter was reset; 0: t0.
        frozen_ns: wall clock from which on the counter stands still; 0: it does not.
        gain_ppm: what the counter shows of the true energy.
        counter, average, instant: whether the energy counter, field 185 and field 186 answer.
        usage_average: nvmlDeviceGetPowerUsage gives a 1-s mean, else the momentary value.
        scope: at which scope the power fields answer: 0 GPU, 1 module.
        samples: length of the driver's ring of power samples; 0: there is none.
        sample_period_ns: of the ring and of the momentary power.
        sample_window_ns: what each sample is the mean of.
        present: it is on the bus; without, it answers GPU_IS_LOST and is not counted.
        error: code that every call about it answers.
        handle_error: code that asking for its handle answers (4: no permission).
        energy_error: code of the energy counter alone.
        process_error: code of the process lists alone.
        latency_us: how long each call takes.
        hang_ms: how long each call hangs besides.
        mig: 1 on, 0 off, -1 the board does not know it.
        arch: nvmlDeviceArchitecture_t: 9 is Hopper.
        device_id: PCI device id; 0x20xx is GA100.
        pids: its compute processes.
        utilization: what its samples of utilisation say, in percent, which its processes share
            equally; -1: it has none.
        use_error: code of the use by process alone.
        slices: compute slices, told while MIG is on.
        sm: what single processes use of it, in percent.
        instances: its MIG instances while `mig` is 1; its processes are theirs then.
    """

    uuid: str = ""
    name: str = "NVIDIA H100 80GB HBM3"
    lo_uw: int = 300_000_000
    hi_uw: int = 300_000_000
    period_ns: int = 0
    on_ns: int = 0
    tick_ns: int = 100_000_000
    tick_phase_ns: int = 0
    zero_ns: int = 0
    frozen_ns: int = 0
    gain_ppm: int = 1_000_000
    counter: int = 1
    average: int = 1
    instant: int = 1
    usage_average: int = 1
    scope: int = 0
    samples: int = 0
    sample_period_ns: int = 20_060_000  # not 20 ms: it must not lock onto a load's period
    sample_window_ns: int = 10_000_000
    present: int = 1
    error: int = 0
    handle_error: int = 0
    energy_error: int = 0
    process_error: int = 0
    latency_us: int = 0
    hang_ms: int = 0
    limit_mw: int = 700_000
    mig: int = 0
    persistence: int = 1
    arch: int = 9
    device_id: int = 0x2330
    bus: int = 0
    utilization: int = -1
    use_error: int = 0
    slices: int = 7
    pids: list[int] = field(default_factory=list)
    sm: dict[int, int] = field(default_factory=dict)
    instances: list[MigStub] = field(default_factory=list)

    def energy_uwns(self, t_ns: int) -> int:
        """True energy in µW·ns in the first `t_ns` since t0."""
        if self.period_ns <= 0:
            return self.lo_uw * t_ns
        periods, within = divmod(t_ns, self.period_ns)
        on = periods * self.on_ns + min(within, self.on_ns)
        return self.lo_uw * t_ns + (self.hi_uw - self.lo_uw) * on

    @property
    def peak_uw(self) -> int:
        """The most it draws."""
        return max(self.lo_uw, self.hi_uw) if self.period_ns else self.lo_uw


def constant(power_w: float, **more: object) -> GpuStub:
    """A GPU that always draws the same."""
    return GpuStub(lo_uw=round(power_w * 1e6), **more)  # type: ignore[arg-type]


def square(
    lo_w: float, hi_w: float, *, period_s: float, duty: float = 0.5, **more: object
) -> GpuStub:
    """A GPU under a load that comes and goes; with a small duty, bursts."""
    period_ns = round(period_s * _NS)
    return GpuStub(
        lo_uw=round(lo_w * 1e6),
        hi_uw=round(hi_w * 1e6),
        period_ns=period_ns,
        on_ns=round(period_ns * duty),
        **more,  # type: ignore[arg-type]
    )


@dataclass
class StubConfig:
    """The node.

    Attributes:
        gpus: up to 32; a UUID and a PCI bus number are given to those that have none.
        t0_ns: wall clock at which all energies are 0; default: an hour ago.
        init_error: code that nvmlInit answers.
        error: code that every other call answers.
        busy: latencies burn CPU time, as a driver does, instead of sleeping.
        driver_version: as nvmlSystemGetDriverVersion tells it.
    """

    gpus: list[GpuStub]
    t0_ns: int = field(default_factory=lambda: time.time_ns() - 3600 * _NS)
    init_error: int = 0
    error: int = 0
    busy: int = 0
    driver_version: str = "570.124.06"

    def __post_init__(self) -> None:
        for index, gpu in enumerate(self.gpus):
            gpu.uuid = gpu.uuid or f"GPU-{index:08x}-0000-4000-8000-{index:012x}"
            gpu.bus = gpu.bus or 0x10 + index

    def text(self) -> str:
        """As `stub.c` reads it."""
        lines = [f"{f.name}\t{getattr(self, f.name)}" for f in fields(self) if f.name != "gpus"]
        for gpu in self.gpus:
            lines.append("gpu\t")
            numbers = [f.name for f in fields(gpu) if f.name not in _LISTS]
            lines += [f"{name}\t{getattr(gpu, name)}" for name in numbers]
            lines += [f"pid\t{pid} {gpu.sm.get(pid, -1)}" for pid in gpu.pids]
            for one in gpu.instances:
                lines.append(f"instance\t{one.gpu_instance} {one.slices} {one.uuid}")
                lines += [f"tenant\t{pid}" for pid in one.pids]
        return "\n".join(lines) + "\n"


class Stats(NamedTuple):
    """What the library counted since the file was new, over all processes.

    Attributes:
        calls: entries into the library.
        cpu_ns: CPU time spent inside.
        inits, shutdowns: successful ones.
        refcount: initialisations that are open in the process that changed it last.
        gpu_calls: calls about each GPU.
    """

    calls: int
    cpu_ns: int
    inits: int
    shutdowns: int
    refcount: int
    gpu_calls: tuple[int, ...]


def build(directory: Path) -> Path:
    """Compile the library into a directory (about half a second), unless it is there.

    Raises:
        subprocess.CalledProcessError: the compiler's complaint is in `stderr`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / LIBRARY
    if not library.exists():
        fresh = directory / f".{LIBRARY}.{os.getpid()}"
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(fresh), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        fresh.rename(library)  # a process may be waiting for it to appear
    return library


class Stub:
    """A node in a directory: the library, its configuration and its statistics."""

    def __init__(self, directory: Path, config: StubConfig, *, library: bool = True) -> None:
        """Args: library: build it now; else `build(stub.library_dir)` makes it appear later."""
        self.config = config
        self.library_dir = directory / "nvml"
        self.library_dir.mkdir(parents=True, exist_ok=True)
        self.config_file = directory / "nvml.conf"
        self.stats_file = directory / "nvml.stats"
        if library:
            build(self.library_dir)
        self.write()

    def write(self) -> None:
        """Make the configuration as it is now effective, in running processes too."""
        fresh = self.config_file.with_suffix(".new")
        fresh.write_text(self.config.text())
        fresh.rename(self.config_file)

    def env(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a process that finds this node."""
        env = dict(os.environ if base is None else base)
        env["LD_LIBRARY_PATH"] = str(self.library_dir)
        env["NVML_STUB_CONFIG"] = str(self.config_file)
        env["NVML_STUB_STATS"] = str(self.stats_file)
        return env

    def true_energy_uj(self, gpu: int, wall_ns: int, since_wall_ns: int | None = None) -> int:
        """What a GPU really used until an instant, in µJ.

        Args:
            gpu: its place in the configuration.
            wall_ns: until when.
            since_wall_ns: from when on; default: t0, as the counter shows it.
        """
        spec, t0_ns = self.config.gpus[gpu], self.config.t0_ns
        start_ns = 0 if since_wall_ns is None else since_wall_ns - t0_ns
        return (spec.energy_uwns(wall_ns - t0_ns) - spec.energy_uwns(start_ns)) // _NS

    def stats(self) -> Stats:
        """The calls and the CPU time so far."""
        try:
            raw = self.stats_file.read_bytes()
        except FileNotFoundError:
            raw = b""
        numbers = struct.unpack(f"={5 + MAX_GPUS}Q", raw.ljust(8 * (5 + MAX_GPUS), b"\0"))
        calls, cpu_ns, inits, shutdowns, refcount, *gpu_calls = numbers
        return Stats(calls, cpu_ns, inits, shutdowns, refcount, tuple(gpu_calls))
