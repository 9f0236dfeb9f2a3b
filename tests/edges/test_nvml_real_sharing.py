"""Shared GPUs and MIG through the unmodified nvidia-ml-py: its structs, its way with sizes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nvml_stub import MigStub, Stub, StubConfig, constant

# `make test` needs no compiler; the gate as a whole (`.ci/run`) installs one and skips nothing.
pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None and not os.environ.get("CI"),
    reason="needs a C compiler (Debian: gcc libc6-dev) for the stub library",
)

AGENT = Path(__file__).parents[2] / "agent"
# Questions every 50 ms, so that two of each kind take a fraction of a second.
PROGRAM = """
import json, sys, time
from wattledger.clock import SystemClock
from wattledger.meters.nvml.binding import real_driver
from wattledger.meters.nvml.meter import NvmlMeter

meter = NvmlMeter(real_driver(), SystemClock(), procfs=None, process_interval_ns=50_000_000)
reports = []
for _ in range(10):
    reports.append(meter.read())
    time.sleep(0.06)
print(json.dumps({
    "first": {gpu: [p._asdict() for p in listed] for gpu, listed in reports[0].listed.items()},
    "last": {gpu: [p._asdict() for p in listed] for gpu, listed in reports[-1].listed.items()},
    "sm": {
        gpu: [[p.sm for p in r.listed[gpu]] for r in reports] for gpu in reports[-1].listed
    },
    "names": meter.gpu_names(),
    "mig": {facts.uuid: facts.mig for facts in meter.facts()},
    "faults": [fault.reason for r in reports for fault in r.faults],
}))
"""


def played(tmp_path: Path, *gpus: Any) -> tuple[Stub, Any]:
    stub = Stub(tmp_path, StubConfig(gpus=list(gpus)))
    environment = stub.env({**os.environ, "PYTHONPATH": str(AGENT)})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return stub, json.loads(done.stdout)


def test_the_use_of_a_shared_gpu_by_process(tmp_path: Path) -> None:
    stub, seen = played(
        tmp_path,
        constant(300, pids=[7, 8, 9], utilization=100, sm={7: 70, 8: 30, 9: 0}),
        constant(300, pids=[1], utilization=100),
        constant(300, pids=[1, 2], utilization=-1),
        constant(300, pids=[1, 2], utilization=100, use_error=4),
        constant(300, pids=[1, 2], utilization=100, use_error=999),
        constant(300, pids=[1, 2], utilization=0),
    )
    shared, alone, untold, forbidden, failing, idle = (gpu.uuid for gpu in stub.config.gpus)
    assert [70, 30, 0] in seen["sm"][shared], "a row for each that used it, none for the third"
    assert all(sm in ([None] * 3, [70, 30, 0], [0, 0, 0]) for sm in seen["sm"][shared]), (
        "each sample counts once"
    )
    assert {*map(tuple, seen["sm"][alone])} == {(None,)}
    for gpu in (untold, forbidden, failing):
        assert {*map(tuple, seen["sm"][gpu])} == {(None, None)}
    assert [0, 0] in seen["sm"][idle], "NOT_FOUND is no use"
    assert seen["faults"] == []
    assert [name[2] for name in seen["names"]] == [0, 1, 2, 3, 4, 5], "minor numbers"


def test_mig_instances_and_who_is_on_them(tmp_path: Path) -> None:
    stub, seen = played(
        tmp_path,
        constant(
            300,
            mig=1,
            utilization=100,
            instances=[
                MigStub("MIG-00000000-0000-4000-8000-000000000002", 2, 3, pids=[7, 8]),
                MigStub("MIG-00000000-0000-4000-8000-000000000001", 1, 4, pids=[9]),
            ],
        ),
        constant(300, mig=1),
        constant(300, mig=0, pids=[5]),
        constant(300, mig=-1, pids=[6]),
    )
    cut, bare, whole, unable = (gpu.uuid for gpu in stub.config.gpus)
    three, four = (one.uuid for one in stub.config.gpus[0].instances)
    for when in ("first", "last"):
        assert [(p["pid"], p["instance"], p["sm"]) for p in seen[when][cut]] == [
            (7, three, None),
            (8, three, None),
            (9, four, None),
        ]
        assert seen[when][bare] == []
        assert [p["instance"] for p in seen[when][whole] + seen[when][unable]] == [None, None]
    assert seen["names"][0] == [cut, 0, 0, [[three, 2, 3], [four, 1, 4]], 7]
    assert [name[3] for name in seen["names"][1:]] == [[], [], []]
    assert seen["mig"] == {cut: True, bare: True, whole: False, unable: None}
    assert seen["faults"] == []
