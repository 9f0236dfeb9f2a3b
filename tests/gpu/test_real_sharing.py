"""Shared GPUs and MIG on real hardware: what the driver tells of each process, and at what cost.

The assertions are wide, as in `test_real_gpu`; the figures are for reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from wattledger.clock import SystemClock
from wattledger.meters.nvml.binding import real_driver
from wattledger.meters.nvml.facts import GpuFacts
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.meters.nvml.mig import read_partition
from wattledger.meters.nvml.multiprocessors import SmUse
from wattledger.model.measuring import Process
from wattledger.units import NS_PER_MS

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

Record = Callable[[str, str], None]
Load = Callable[[str, float], AbstractContextManager[None]]
KERNEL_GPUS = Path("/proc/driver/nvidia/gpus")


def took_ms(call: Callable[[], object]) -> tuple[float, int]:
    """How long a call takes, and the code it ends in."""
    start, code = time.perf_counter(), 0
    try:
        call()
    except Exception as error:  # the driver's own class; anything else has no value
        code = int(error.value)  # type: ignore[attr-defined]
    return (time.perf_counter() - start) * 1e3, code


def test_minor_numbers_are_those_of_the_kernel_module(gpus: list[GpuFacts], record: Record) -> None:
    told = {facts.pci: facts.minor for facts in gpus}
    known: dict[str, int] = {}
    for path in KERNEL_GPUS.glob("*/information"):
        for line in path.read_text().splitlines():
            if line.startswith("Device Minor:"):
                known[path.parent.name] = int(line.split(":")[1])
    if not known:
        pytest.skip("the kernel module shows no GPUs in /proc")
    order = [minor for _, minor in sorted(told.items())]
    record("minor numbers", f"{order} by PCI address, indices {[f.index for f in gpus]}")
    assert {pci: minor for pci, minor in told.items() if pci in known} == {
        pci: minor for pci, minor in known.items() if pci in told
    }


def test_cost_of_asking_for_each_ones_use(gpus: list[GpuFacts], nvml: Any, record: Record) -> None:
    handle = nvml.nvmlDeviceGetHandleByIndex(gpus[0].index)
    since_us = time.time_ns() // 1000 - 10_000_000
    calls: dict[str, Callable[[], object]] = {
        "use by process": lambda: nvml.nvmlDeviceGetProcessUtilization(handle, since_us),
        "MIG mode": lambda: nvml.nvmlDeviceGetMigMode(handle),
        "MIG partition": lambda: read_partition(nvml, handle),
        "minor number": lambda: nvml.nvmlDeviceGetMinorNumber(handle),
    }
    for name, call in calls.items():
        found = [took_ms(call) for _ in range(20)]
        codes = sorted({code for _, code in found})
        times_ms = [ms for ms, _ in found]
        record(
            f"cost of {name}",
            f"median {median(times_ms):.2f} ms, worst {max(times_ms):.2f} ms, codes {codes}",
        )
        assert max(times_ms) < 10_000


def test_two_processes_on_one_gpu_are_told_apart_by_their_use(
    gpus: list[GpuFacts], load: Load, record: Record
) -> None:
    """One computes without a pause, one for 80 ms of every second: the first uses more."""
    facts = gpus[0]
    if facts.mig:
        pytest.skip("use is not told with MIG")
    meter = NvmlMeter(real_driver(), SystemClock(), process_interval_ns=1000 * NS_PER_MS)
    seen: dict[int, list[int]] = {}
    before = {p.pid for p in meter.read().listed.get(facts.uuid, ())}
    with ExitStack() as running:
        running.enter_context(load("full", 90))
        running.enter_context(load("bursts", 90))
        told: tuple[Process, ...] = ()
        for _ in range(40):
            time.sleep(1)
            told = meter.read().listed.get(facts.uuid, ())
            for process in told:
                if process.sm is not None:
                    seen.setdefault(process.pid, []).append(process.sm)
    meter.close()
    means = sorted(
        (sum(samples) / len(samples) for pid, samples in seen.items() if pid not in before),
        reverse=True,
    )
    record(
        "use of two processes, one at work for 8 % of the time",
        f"{[round(mean, 1) for mean in means]} per cent, of {len(told)} listed",
    )
    if not means:
        pytest.skip("the driver does not tell the use by process")
    assert len(means) == 2
    assert means[0] > means[1]


def test_stamps_of_the_use_are_unix_time(
    gpus: list[GpuFacts], nvml: Any, load: Load, record: Record
) -> None:
    handle = nvml.nvmlDeviceGetHandleByIndex(gpus[0].index)
    use = SmUse(nvml, SystemClock())
    with load("full", 60):
        time.sleep(3)
        try:
            rows = nvml.nvmlDeviceGetProcessUtilization(handle, 0)
        except nvml.NVMLError as error:
            record("use by process", f"does not answer ({error.value})")
            pytest.skip("the driver does not tell the use by process")
        ages_s = [time.time() - row.timeStamp / 1e6 for row in rows if row.timeStamp]
        counted = use.read(handle)
    record(
        "use by process",
        f"{len(rows)} rows from the whole ring, {min(ages_s):.2f} to {max(ages_s):.2f} s old, "
        f"per cent: {[row.smUtil for row in rows]}",
    )
    assert all(-1 < age_s < 3600 for age_s in ages_s)
    assert counted and max(value or 0 for value in counted.values()) > 0


def test_mig_instances_have_names_slices_and_lists(
    gpus: list[GpuFacts], nvml: Any, record: Record
) -> None:
    cut = [facts for facts in gpus if facts.mig]
    if not cut:
        record("MIG", f"off or unknown on all GPUs ({[facts.mig for facts in gpus]})")
        pytest.skip("no GPU has MIG on")
    for facts in cut:
        assert facts.instances is not None
        assert sum(one.slices for one in facts.instances) <= facts.slices
        assert all(one.uuid.startswith("MIG-") for one in facts.instances)
        partition = read_partition(nvml, nvml.nvmlDeviceGetHandleByIndex(facts.index))
        assert partition.instances == facts.instances
        times_ms = [
            took_ms(partial(nvml.nvmlDeviceGetComputeRunningProcesses, child))
            for child in partition.handles
        ]
        record(
            "MIG",
            f"{[(one.gpu_instance, one.slices) for one in facts.instances]} of {facts.slices} "
            f"slices; ms and code of each list: {[(round(ms, 2), c) for ms, c in times_ms]}",
        )
    meter = NvmlMeter(real_driver(), SystemClock())
    report = meter.read()
    known = {one.uuid for facts in cut for one in facts.instances or ()}
    for facts in cut:
        assert {p.instance for p in report.listed.get(facts.uuid, ())} <= {*known, None}
    meter.close()
