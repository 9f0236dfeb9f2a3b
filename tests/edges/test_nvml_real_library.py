"""The unmodified nvidia-ml-py over a real shared library: its structs, its codes, its loading.

Each test starts a process that finds the stub through LD_LIBRARY_PATH; that process takes one
command per line and answers with one line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nvml_stub import GpuStub, Stub, StubConfig, build, constant, square

# `make test` needs no compiler; the gate as a whole (`.ci/run`) installs one and skips nothing.
pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None and not os.environ.get("CI"),
    reason="needs a C compiler (Debian: gcc libc6-dev) for the stub library",
)

AGENT = Path(__file__).parents[2] / "agent"
PROGRAM = """
import json, sys
from wattledger.clock import SystemClock
from wattledger.errors import MeterUnavailable
from wattledger.meters.nvml.binding import real_driver
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.meters.nvml.survey import survey
from wattledger.model import CounterReading

meter = NvmlMeter(real_driver(), SystemClock())

def answer(command):
    if command == "close":
        meter.close()
        return {}
    if command == "survey":
        found = survey(real_driver())
        return {"gpus": [[f.uuid, f.estimator, f.persistence, f.error] for f in found]}
    report = meter.read()
    return {
        "readings": {
            r.device: [r.at.wall_ns, r.raw_uj if isinstance(r, CounterReading) else r.power_uw]
            for r in report.readings
        },
        "windows": [getattr(r, "window_ns", None) for r in report.readings],
        "present": {d.name: d.present for d in report.devices},
        "pci": {d.name: d.pci for d in report.devices},
        "faults": [[f.device, f.reason] for f in report.faults],
        "processes": dict(report.processes),
        "estimators": dict(meter.estimators()),
        "module": meter.module_scope(),
    }

for line in sys.stdin:
    try:
        reply = answer(line.strip())
    except MeterUnavailable as error:
        reply = {"unavailable": error.reason, "retry_after_s": error.retry_after_s}
    print(json.dumps(reply), flush=True)
"""


class Daemon:
    """The process; each call is one command and its answer."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, command: str = "read") -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def running(stub: Stub) -> Iterator[Daemon]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=stub.env({**os.environ, "PYTHONPATH": str(AGENT)}),
    )
    with process:
        try:
            yield Daemon(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


def node(tmp_path: Path, library: Path, *gpus: GpuStub, present: bool = True) -> Stub:
    stub = Stub(tmp_path, StubConfig(gpus=list(gpus)), library=False)
    if present:
        (stub.library_dir / library.name).symlink_to(library)
    return stub


def test_counter_shows_the_true_energy_within_one_tick(tmp_path: Path, library: Path) -> None:
    stub = node(tmp_path, library, square(60, 600, period_s=0.3), constant(300, pids=[1]))
    names = [gpu.uuid for gpu in stub.config.gpus]
    with running(stub) as daemon:
        first = daemon()
        time.sleep(0.5)
        last = daemon()
    for place, name in enumerate(names):
        for reply in (first, last):
            wall_ns, raw_uj = reply["readings"][name]
            behind_uj = stub.true_energy_uj(place, wall_ns) - raw_uj
            # One tick of 100 ms, and the moments between the library's clock and ours.
            assert 0 <= behind_uj <= stub.config.gpus[place].peak_uw * 0.5
    assert first["pci"][names[0]] == "0000:10:00.0"
    assert first["processes"] == {names[0]: 0, names[1]: 1}
    assert first["estimators"] == dict.fromkeys(names, "counter")


def test_library_that_arrives_later_is_taken_up_by_the_running_process(
    tmp_path: Path, library: Path
) -> None:
    stub = node(tmp_path, library, constant(300), present=False)
    with running(stub) as daemon:
        assert daemon() == {"unavailable": "no_library", "retry_after_s": 60.0}
        (stub.library_dir / library.name).symlink_to(library)
        stub.config.init_error = 9
        stub.write()
        assert daemon()["unavailable"] == "no_driver"
        stub.config.init_error = 0
        stub.write()
        assert len(daemon()["readings"]) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [(18, "driver_mismatch"), (4, "no_permission"), (999, "driver_error"), (77, "driver_error")],
)
def test_codes_of_the_library(tmp_path: Path, library: Path, code: int, reason: str) -> None:
    stub = node(tmp_path, library, constant(300))
    stub.config.init_error = code
    stub.write()
    with running(stub) as daemon:
        assert daemon()["unavailable"] == reason
        assert daemon("survey")["unavailable"] == reason


def test_gpu_is_lost_and_returns_while_the_other_goes_on(tmp_path: Path, library: Path) -> None:
    stub = node(tmp_path, library, constant(300), constant(200))
    lost, other = (gpu.uuid for gpu in stub.config.gpus)
    with running(stub) as daemon:
        daemon()
        stub.config.gpus[0].present = 0
        stub.write()
        assert daemon()["faults"] == [[lost, "gpu_lost"]]
        time.sleep(0.11)
        reply = daemon()
        assert reply["present"] == {lost: False, other: True}
        stub.config.gpus[0].present = 1
        stub.write()
        time.sleep(1.1)
        reply = daemon()
        assert reply["present"] == {lost: True, other: True}
        assert set(reply["readings"]) == {lost, other}


def test_close_leaves_no_initialisation_and_the_next_read_takes_it_up(
    tmp_path: Path, library: Path
) -> None:
    stub = node(tmp_path, library, constant(300))
    with running(stub) as daemon:
        before = daemon()
        assert stub.stats().refcount == 1
        daemon("close")
        assert stub.stats().refcount == 0
        time.sleep(0.2)
        after = daemon()
        assert stub.stats().refcount == 1
    (name,) = before["readings"]
    assert after["readings"][name][1] > before["readings"][name][1]


@pytest.mark.parametrize(
    ("gpu", "estimator"),
    [
        (constant(250, counter=0, samples=120), "samples"),
        (constant(250, counter=0), "average"),
        (constant(250, counter=0, average=0), "instant"),
        (constant(250, counter=0, average=0, instant=0, arch=5, usage_average=0), "usage"),
    ],
)
def test_ladder_over_the_library(
    tmp_path: Path, library: Path, gpu: GpuStub, estimator: str
) -> None:
    stub = node(tmp_path, library, gpu)
    (name,) = (gpu.uuid for gpu in stub.config.gpus)
    with running(stub) as daemon:
        daemon()
        time.sleep(0.1)
        reply = daemon()
        assert reply["estimators"] == {name: estimator}
        assert reply["readings"][name][1] == 250_000_000
        assert daemon("survey")["gpus"] == [[name, estimator, "on", ""]]


def test_module_scope_over_the_library(tmp_path: Path, library: Path) -> None:
    stub = node(tmp_path, library, constant(250, name="NVIDIA GH200 480GB", counter=0, scope=1))
    with running(stub) as daemon:
        reply = daemon()
    assert reply["module"] is True
    assert next(iter(reply["readings"].values()))[1] == 250_000_000


def test_sample_buffer_follows_a_square_wave(tmp_path: Path, library: Path) -> None:
    """Six seconds suffice to see that windows tile and stamps are understood."""
    stub = node(tmp_path, library, square(60, 600, period_s=0.3, counter=0, samples=120))
    (name,) = (gpu.uuid for gpu in stub.config.gpus)
    means: list[tuple[int, int, int]] = []
    with running(stub) as daemon:
        daemon()
        for _ in range(6):
            time.sleep(1)
            reply = daemon()
            wall_ns, power_uw = reply["readings"][name]
            means.append((wall_ns, power_uw, reply["windows"][0]))
    booked = sum(power_uw * window_ns for _, power_uw, window_ns in means) // 10**9
    start_ns = means[0][0] - means[0][2]
    true_uj = stub.true_energy_uj(0, means[-1][0], start_ns)
    assert booked == pytest.approx(true_uj, rel=0.02)


def test_driver_calls_are_counted_by_the_library(tmp_path: Path, library: Path) -> None:
    stub = node(tmp_path, library, *(constant(300, pids=[1]) for _ in range(4)))
    with running(stub) as daemon:
        daemon()
        before = stub.stats()
        for _ in range(3):
            daemon()
        after = stub.stats()
    assert [b - a for a, b in zip(before.gpu_calls, after.gpu_calls, strict=True)][:4] == [3] * 4
    assert after.cpu_ns > before.cpu_ns
