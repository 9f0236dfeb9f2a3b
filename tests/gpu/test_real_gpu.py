"""What only a real GPU can tell. Run with `pytest tests/gpu`; findings go to RESULTS.md.

The assertions are wide: they catch a wrong unit or a lost minute. The figures are for reading.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest

from wattledger.clock import SystemClock
from wattledger.core.intervals import advance
from wattledger.meters.nvml import binding
from wattledger.meters.nvml.binding import real_driver
from wattledger.meters.nvml.facts import GpuFacts
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.model import Reading
from wattledger.units import UJ_PER_J

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

Record = Callable[[str, str], None]
Load = Callable[[str, float], AbstractContextManager[None]]


def field(driver: Any, handle: Any, field_id: int, scope: int) -> int | None:
    """A field in µW or µJ; None where the board does not have it."""
    try:
        (value,) = driver.nvmlDeviceGetFieldValues(handle, [(field_id, scope)])
        return binding.field_micro(value)
    except (driver.NVMLError, binding.CallFailed):
        return None


def open_nvidia_files(pid: str) -> list[str]:
    """The NVIDIA device files that a process holds."""
    held = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("/dev/nvidia"):
            held.append(target)
    return held


# ── the counter, and what checks it ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["idle", "full", "bursts"])
def test_counter_against_integrated_power(
    kind: str, gpus: list[GpuFacts], nvml: Any, load: Load, record: Record
) -> None:
    facts = gpus[0]
    if not facts.counter:
        pytest.skip("this GPU has no energy counter")
    handle = nvml.nvmlDeviceGetHandleByIndex(facts.index)
    scope, seconds = facts.sensors.scope, 60.0
    with load(kind, seconds + 30):
        time.sleep(5)
        start = last = time.monotonic()
        first_uj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1000
        instant_uws = average_uws = 0.0
        while last - start < seconds:
            time.sleep(0.02)
            instant = field(nvml, handle, binding.FIELD_POWER_INSTANT, scope)
            average = field(nvml, handle, binding.FIELD_POWER_AVERAGE, scope)
            now = time.monotonic()
            instant_uws += (instant or 0) * (now - last)
            average_uws += (average or 0) * (now - last)
            last = now
        counter_uj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1000 - first_uj
    watts = counter_uj / 1e6 / (last - start)
    ratios = {
        name: counter_uj / integral
        for name, integral in (("1-s average", average_uws), ("instant at 50 Hz", instant_uws))
        if integral
    }
    text = ", ".join(f"{ratio:.3f} × {name}" for name, ratio in ratios.items())
    record(f"counter, {kind}", f"{watts:.1f} W by counter over {last - start:.0f} s = {text}")
    assert 1 < watts < facts.max_power_uw / 1e6 * 1.1
    assert all(0.7 < ratio < 1.3 for ratio in ratios.values())


def test_cadence_of_the_counter(
    gpus: list[GpuFacts], nvml: Any, load: Load, record: Record
) -> None:
    facts = gpus[0]
    if not facts.counter:
        pytest.skip("this GPU has no energy counter")
    handle = nvml.nvmlDeviceGetHandleByIndex(facts.index)
    steps_ms: list[float] = []
    last_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    moved = 0.0
    end = time.monotonic() + 10
    while (now := time.monotonic()) < end:
        energy_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        if energy_mj != last_mj:
            if moved:
                steps_ms.append((now - moved) * 1e3)
            moved, last_mj = now, energy_mj
    assert len(steps_ms) > 20, "the counter moves at least a few times a second"
    p5, *_, p95 = quantiles(steps_ms, n=20)
    record(
        "counter cadence",
        f"moves every {median(steps_ms):.1f} ms (5–95 %: {p5:.1f}–{p95:.1f}, n={len(steps_ms)})",
    )
    assert median(steps_ms) <= 200


def test_counter_over_a_shutdown_of_nvml(gpus: list[GpuFacts], record: Record) -> None:
    driver = real_driver()

    def counters() -> list[int]:
        driver.nvmlInit()
        try:
            return [
                driver.nvmlDeviceGetTotalEnergyConsumption(
                    driver.nvmlDeviceGetHandleByIndex(facts.index)
                )
                for facts in gpus
                if facts.counter
            ]
        finally:
            driver.nvmlShutdown()

    before = counters()
    time.sleep(5)
    after = counters()
    fell = sum(now < then for then, now in zip(before, after, strict=True))
    record(
        "counter over nvmlShutdown and 5 s",
        f"fell on {fell} of {len(before)} GPUs (persistence mode {gpus[0].persistence}; "
        "tells something only where that is off and nobody else uses the GPU)",
    )


# ── cost and buffers ────────────────────────────────────────────────────────────────────────────


def test_cost_of_each_driver_call(gpus: list[GpuFacts], nvml: Any, record: Record) -> None:
    facts = gpus[0]
    handle = nvml.nvmlDeviceGetHandleByIndex(facts.index)
    both = [(binding.FIELD_ENERGY, 0), (binding.FIELD_POWER_AVERAGE, facts.sensors.scope)]
    calls: dict[str, Callable[[], object]] = {
        "field values (energy, power)": lambda: nvml.nvmlDeviceGetFieldValues(handle, both),
        "total energy": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle),
        "power usage": lambda: nvml.nvmlDeviceGetPowerUsage(handle),
        "power samples": lambda: nvml.nvmlDeviceGetSamples(handle, 0, 0),
        "compute processes": lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle),
        "graphics processes": lambda: nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
        "device count": lambda: nvml.nvmlDeviceGetCount(),
        "handle by index": lambda: nvml.nvmlDeviceGetHandleByIndex(facts.index),
        "UUID": lambda: nvml.nvmlDeviceGetUUID(handle),
    }
    for name, call in calls.items():
        times_us: list[float] = []
        try:
            for _ in range(200):
                start = time.perf_counter()
                call()
                times_us.append((time.perf_counter() - start) * 1e6)
        except nvml.NVMLError as error:
            record(f"cost of {name}", f"does not answer ({error.value})")
            continue
        p95 = quantiles(times_us, n=20)[-1]
        record(f"cost of {name}", f"median {median(times_us):.0f} µs, p95 {p95:.0f} µs")


def test_length_of_the_sample_buffer(gpus: list[GpuFacts], nvml: Any, record: Record) -> None:
    handle = nvml.nvmlDeviceGetHandleByIndex(gpus[0].index)
    try:
        _, samples = nvml.nvmlDeviceGetSamples(handle, binding.SAMPLES_TOTAL_POWER, 0)
    except nvml.NVMLError as error:
        record("power sample buffer", f"does not answer ({error.value})")
        pytest.skip("no sample buffer")
    stamps_us = [sample.timeStamp for sample in samples]
    steps_ms = [(b - a) / 1e3 for a, b in pairwise(stamps_us)]
    age_s = time.time() - stamps_us[-1] / 1e6
    record(
        "power sample buffer",
        f"{len(samples)} samples, one every {median(steps_ms or [0]):.1f} ms, spanning "
        f"{(stamps_us[-1] - stamps_us[0]) / 1e6:.2f} s, the newest {age_s:.2f} s old",
    )
    assert abs(age_s) < 3600, "stamps are Unix time"


# ── the meter, the daemon ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["idle", "full"])
def test_meter_against_nvidia_smi(
    kind: str, gpus: list[GpuFacts], load: Load, record: Record
) -> None:
    smi = shutil.which("nvidia-smi")
    if smi is None:
        pytest.skip("no nvidia-smi")
    query = [smi, "--query-gpu=uuid,power.draw", "--format=csv,noheader,nounits"]
    facts = gpus[0]
    meter = NvmlMeter(real_driver(), SystemClock())
    shown: list[float] = []
    energy_uj = 0
    with load(kind, 60):
        time.sleep(5)
        first = last = one(meter, facts.uuid)
        for _ in range(20):
            time.sleep(1)
            reading = one(meter, facts.uuid)
            step = advance(last, reading)
            energy_uj += step.interval.energy_uj if step.interval else 0
            last = reading
            lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout
            draws = dict(line.split(", ") for line in lines.splitlines())
            shown.append(float(draws[facts.uuid]))
    estimator = meter.estimators()[facts.uuid]
    meter.close()
    span_s = (last.at.boottime_ns - first.at.boottime_ns) / 1e9
    watts, smi_watts = energy_uj / UJ_PER_J / span_s, sum(shown) / len(shown)
    record(
        f"meter against nvidia-smi, {kind}",
        f"{watts:.1f} W by {estimator}, {smi_watts:.1f} W by nvidia-smi (power.draw, mean of 20)",
    )
    assert watts == pytest.approx(smi_watts, rel=0.3)


def one(meter: NvmlMeter, uuid: str) -> Reading:
    """The GPU's next reading; a counter that has not moved gives none."""
    for _ in range(20):
        for reading in meter.read().readings:
            if reading.device == uuid:
                return reading
        time.sleep(0.05)
    raise AssertionError(f"{uuid} gives no reading")


def test_close_leaves_no_handle_of_ours_open(gpus: list[GpuFacts], record: Record) -> None:
    meter = NvmlMeter(real_driver(), SystemClock())
    meter.read()
    held = len(open_nvidia_files("self"))
    meter.close()
    left = open_nvidia_files("self")
    record("files in /dev/nvidia* held while metering", f"{held}; after close {len(left)}")
    assert left == []
    one(meter, gpus[0].uuid)
    meter.close()


@contextmanager
def daemon(ledger: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon as an operator starts it; killed at the end."""
    command = [sys.executable, "-m", "wattledger.cli", "serve"]
    command += ["--listen", f"127.0.0.1:{port}", "--ledger", str(ledger)]
    with subprocess.Popen(command) as process:
        try:
            end = time.monotonic() + 30
            while not books(port):
                assert process.poll() is None, "the daemon has ended"
                assert time.monotonic() < end, "the daemon does not become ready"
                time.sleep(0.2)
            yield process
        finally:
            process.kill()


def books(port: int) -> dict[str, float]:
    """Energy in J of each device on the page; empty while there is no page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("wattledger_energy_joules_total{"):
            found[name.split('device="')[1].split('"')[0]] = float(value)
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


def test_restart_under_load_recovers_the_gap(
    tmp_path: Path, gpus: list[GpuFacts], nvml: Any, load: Load, record: Record
) -> None:
    facts = gpus[0]
    if not facts.counter:
        pytest.skip("this GPU has no energy counter")
    handle = nvml.nvmlDeviceGetHandleByIndex(facts.index)
    ledger, port = tmp_path / "books.sqlite", free_port()

    def both() -> tuple[float, float]:
        counter_j = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        return books(port)[facts.uuid], counter_j

    with load("full", 120):
        with daemon(ledger, port) as process:
            time.sleep(15)
            booked, counted = both()
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(30)  # nobody reads
        with daemon(ledger, port):
            time.sleep(15)
            booked_after, counted_after = both()
    booked_j, counted_j = booked_after - booked, counted_after - counted
    record(
        "restart under load",
        f"{booked_j:.0f} J booked over a kill and 30 s down, {counted_j:.0f} J by the counter",
    )
    # The page is up to a commit interval (5 s) and a turn behind, at either end.
    assert abs(booked_j - counted_j) <= facts.max_power_uw / 1e6 * 7


def test_release_closes_the_daemons_handles(
    tmp_path: Path, gpus: list[GpuFacts], record: Record
) -> None:
    ledger, port = tmp_path / "books.sqlite", free_port()
    release = [sys.executable, "-m", "wattledger.cli", "release", "--ledger", str(ledger)]
    with daemon(ledger, port) as process:
        time.sleep(3)
        held = len(open_nvidia_files(str(process.pid)))
        subprocess.run([*release, "--for", "1m"], check=True, timeout=60)
        left = open_nvidia_files(str(process.pid))
        subprocess.run([*release, "--end"], check=True, timeout=60)
        time.sleep(3)
        again = len(open_nvidia_files(str(process.pid)))
    record(
        "release", f"{held} files in /dev/nvidia* held, {len(left)} after release, {again} after"
    )
    assert left == []
