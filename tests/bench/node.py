"""The simulated node: eight GPUs behind the C stub, and RAPL zones that a process keeps moving."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from nvml_stub import GpuStub, Stub, StubConfig, constant, square
from sysfs import RANGE_AMD_UJ, RaplTree, Wave

CALL_US = 500  # what a driver call takes on a real node, at best
MOVE_S = 0.008  # the RAPL counters move at 125 Hz: 8 ms × 240 W is under 2 J
WRAP_S = 20

RAPL_WAVES = {
    "package-0": Wave.constant(200),
    "package-1": Wave(240_000_000, 60_000_000, 700_000_000, 350_000_000),
    "package-0/dram": Wave.constant(25),
    "package-1/dram": Wave(40_000_000, 8_000_000, 300_000_000, 150_000_000),
}
# What the daemon has to call them.
RAPL_DEVICES = {
    "package-0": "cpu0",
    "package-1": "cpu1",
    "package-0/dram": "dram0",
    "package-1/dram": "dram1",
}
# 4 kJ at 200 W: once in 20 s. The daemon takes 300 W for this zone's most (twice the constraint's
# 150 W): only after 13 s without a reading could it not tell one wrap from two.
WRAPPING = "package-0"
WRAP_RANGE_UJ = 200_000_000 * WRAP_S


class Case(NamedTuple):
    """One GPU of the node: its load, and how its energy can be found.

    Attributes:
        load: the waveform, for people.
        by: the sensor that the daemon has to end up with.
        gpu: the stub's description.
    """

    load: str
    by: str
    gpu: GpuStub


def _loads(**sensors: int) -> dict[str, GpuStub]:
    sensors.setdefault("latency_us", CALL_US)
    return {
        "constant 300 W": constant(300, **sensors),
        "square 60/600 W, 300 ms": square(60, 600, period_s=0.3, **sensors),
        "bursts to 700 W, 80 ms each second": square(60, 700, period_s=1, duty=0.08, **sensors),
    }


def all_counters() -> list[Case]:
    """Eight GPUs with an energy counter, as every data-centre GPU since Volta has one."""
    slow, quick = _loads(), _loads(tick_ns=20_000_000)
    shifted = _loads(tick_phase_ns=37_000_000)
    picked = [*slow.items(), *quick.items(), *list(shifted.items())[1:]]
    return [Case(load, "counter", gpu) for load, gpu in picked]


def mixed() -> list[Case]:
    """Three counters, and every other way to find energy; most of them under the square wave."""
    counter = _loads()
    samples = _loads(counter=0, samples=120)
    average = _loads(counter=0, instant=0)
    instant = _loads(counter=0, average=0, usage_average=0)
    usage = _loads(counter=0, average=0, instant=0)
    wave, bursts = list(counter)[1:]
    return [
        *(Case(load, "counter", gpu) for load, gpu in counter.items()),
        Case(wave, "samples", samples[wave]),
        Case(bursts, "samples", samples[bursts]),
        Case(wave, "average", average[wave]),
        Case(wave, "usage", usage[wave]),
        Case(wave, "instant", instant[wave]),
    ]


class Node:
    """A node in a directory. `sysfs` is its /sys, `stub` its driver.

    All energies are closed forms of the wall clock, so that what the books say for an instant can
    be held against the truth at that instant.
    """

    def __init__(self, directory: Path, cases: list[Case]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.cases = cases
        self.stub = Stub(directory, StubConfig(gpus=[case.gpu for case in cases]))
        self.sysfs = directory / "sys"
        self._rapl_start_ns = 0

    @contextlib.contextmanager
    def moving(self) -> Iterator[Node]:
        """Keep the RAPL counters moving, from another process."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        mover = context.Process(target=_move, args=(self.sysfs, there), daemon=True)
        mover.start()
        try:
            self._rapl_start_ns = here.recv()
            yield self
        finally:
            here.send(None)
            mover.join(5)

    def true_joules(self, device: str, since_ns: int, until_ns: int) -> float:
        """What a device really used between two instants of the wall clock."""
        for zone, name in RAPL_DEVICES.items():
            if name == device:
                start_ns, wave = self._rapl_start_ns, RAPL_WAVES[zone]
                before_uj = wave.energy_uj(since_ns - start_ns)
                return (wave.energy_uj(until_ns - start_ns) - before_uj) / 1e6
        uuids = [gpu.uuid for gpu in self.stub.config.gpus]
        return self.stub.true_energy_uj(uuids.index(device), until_ns, since_ns) / 1e6


def _move(sysfs: Path, pipe: Connection) -> None:
    """The process that moves the counters; ends with the first message."""
    with RaplTree(
        sysfs, packages=2, range_uj=RANGE_AMD_UJ, start_uj=60_000_000_000, waves=RAPL_WAVES
    ) as tree:
        tree.set_range_uj(WRAPPING, WRAP_RANGE_UJ)
        tree.start_uj[WRAPPING] = 0
        start_ns = time.time_ns()
        tree.advance_to(0)
        pipe.send(start_ns)
        while not pipe.poll(MOVE_S):
            tree.advance_to(time.time_ns() - start_ns)
