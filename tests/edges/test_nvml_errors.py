"""Each of NVML's errors and its remedy; GPUs that leave and return; the number of driver calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_nvml import FakeGpu, FakeNvml
from fakes import FakeClock
from wattledger.core.intervals import advance
from wattledger.errors import MeterUnavailable
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.meters.nvml.remedies import Remedy, remedy
from wattledger.meters.nvml.survey import survey
from wattledger.model import MeterReport, Reading
from wattledger.units import UJ_PER_J

A, B = "GPU-a", "GPU-b"


class Bench:
    """Two GPUs, a meter over them and the reports of its turns."""

    def __init__(self, tmp_path: Path | None = None) -> None:
        self.clock = FakeClock()
        self.a, self.b = FakeGpu(A), FakeGpu(B)
        self.driver = FakeNvml(self.clock, self.a, self.b)
        sysfs = tmp_path or Path("/nonexistent")
        self.meter = NvmlMeter(self.driver, self.clock, sysfs=sysfs, procfs=None)

    def turn(self) -> MeterReport:
        try:
            return self.meter.read()
        finally:
            self.clock.advance(1)

    def turns(self, count: int) -> list[MeterReport]:
        return [self.turn() for _ in range(count)]

    def failure(self) -> MeterUnavailable:
        with pytest.raises(MeterUnavailable) as caught:
            self.turn()
        return caught.value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def devices(report: MeterReport) -> dict[str, bool]:
    return {info.name: info.present for info in report.devices}


def read_devices(report: MeterReport) -> list[str]:
    return [reading.device for reading in report.readings]


def reasons(report: MeterReport) -> list[tuple[str, str]]:
    return [(fault.device, fault.reason) for fault in report.faults]


# ── at initialisation ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "reason", "hint", "retry_s"),
    [
        (12, "no_library", "install the NVIDIA driver", 60),
        (9, "no_driver", "modprobe nvidia", 60),
        (18, "driver_mismatch", "systemctl restart wattledger", 60),
        (4, "no_permission", 'sudo usermod -aG video "$USER"', 60),
        (4, "no_permission", "SupplementaryGroups=video", 60),
        (999, "driver_error", "dmesg", 1),
        (10, "driver_error", "dmesg", 1),
        (4711, "driver_error", "dmesg", 1),
    ],
)
def test_init_errors_are_named_by_their_remedy(
    bench: Bench, code: int, reason: str, hint: str, retry_s: float
) -> None:
    bench.driver.init_error = code
    error = bench.failure()
    assert error.reason == reason
    assert hint in error.hint
    assert error.retry_after_s == retry_s
    bench.driver.init_error = 0
    assert read_devices(bench.turn()) == [A, B], "it is picked up when it arrives"
    assert bench.driver.refcount == 1


def test_errors_that_may_pass_are_waited_for_longer_and_longer_up_to_a_minute(bench: Bench) -> None:
    bench.driver.init_error = 999
    waits = [bench.failure().retry_after_s for _ in range(9)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    bench.driver.init_error = 0
    bench.turn()
    bench.meter.close()
    bench.driver.init_error = 999
    assert bench.failure().retry_after_s == 1, "it was well in between"


def test_machine_whose_driver_lists_no_gpu(bench: Bench) -> None:
    bench.driver.gpus = []
    assert bench.failure().reason == "no_devices"
    assert bench.driver.refcount == 0, "NVML is not held for nothing"
    bench.driver.gpus = [bench.a]
    assert read_devices(bench.turn()) == [A]


def test_gpu_that_is_anothers_is_skipped_with_its_name(bench: Bench) -> None:
    bench.a.handle_error = 4
    report = bench.turn()
    assert read_devices(report) == [B]
    assert reasons(report) == [("", "no_permission")]
    assert "GPU 0" in report.faults[0].message
    assert bench.turn().faults == (), "said once, not every second"


def test_only_gpus_of_others(bench: Bench) -> None:
    bench.a.handle_error = bench.b.handle_error = 4
    assert bench.failure().reason == "no_permission"


# ── while reading ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [10, 999, 20, 4711])
def test_one_failure_is_one_fault_and_the_others_go_on(bench: Bench, code: int) -> None:
    bench.turns(2)
    bench.a.error = code
    report = bench.turn()
    assert read_devices(report) == [B]
    assert reasons(report) == [(A, "read_failed")]
    bench.a.error = 0
    assert read_devices(bench.turn()) == [A, B]
    assert bench.driver.calls.count("init") == 1


def test_driver_that_fails_everywhere_is_shut_down_and_tried_again(bench: Bench) -> None:
    first = bench.turns(2)[-1]
    bench.a.error = bench.b.error = 999
    assert len(bench.turn().faults) == 2
    assert len(bench.turn().faults) == 2
    error = bench.failure()
    assert (error.reason, error.retry_after_s) == ("driver_error", 1)
    assert bench.driver.refcount == 0
    assert bench.failure().retry_after_s == 2, "as long as it fails, the waits double"
    bench.a.error = bench.b.error = 0
    report = bench.turn()
    assert read_devices(report) == [A, B]
    assert bench.driver.refcount == 1
    assert _joules(first, report) == 300 * 5, "the gap is booked"


def test_one_gpu_that_keeps_failing_costs_a_new_initialisation_only_now_and_then(
    bench: Bench,
) -> None:
    bench.turns(2)
    bench.a.error = 999
    reports = bench.turns(600)
    assert all(read_devices(report) == [B] for report in reports), "the other never stops"
    assert bench.driver.calls.count("init") < 8
    assert bench.driver.refcount == 1
    bench.a.error = 0
    bench.turns(61)
    assert read_devices(bench.turn()) == [A, B]


def test_nvml_that_somebody_shut_down_is_initialised_again(bench: Bench) -> None:
    bench.turns(2)
    bench.driver.refcount = 0
    assert bench.failure().retry_after_s == 1
    assert read_devices(bench.turn()) == [A, B]


@pytest.mark.parametrize(
    ("code", "reason"), [(18, "driver_mismatch"), (9, "no_driver"), (12, "no_library")]
)
def test_driver_that_changes_under_the_meter(bench: Bench, code: int, reason: str) -> None:
    bench.turns(2)
    bench.driver.error = code
    assert bench.failure().reason == reason
    assert bench.driver.refcount == 0


# ── loss and return ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "reason"), [(15, "gpu_lost"), (16, "reset_required"), (4, "no_permission")]
)
def test_lost_gpu_is_frozen_and_taken_up_again_by_its_uuid(
    bench: Bench, code: int, reason: str
) -> None:
    bench.turns(2)
    bench.a.error = bench.a.handle_error = code
    report = bench.turn()
    assert reasons(report) == [(A, reason)]
    assert devices(report) == {A: True, B: True}, "once may be chance"
    report = bench.turn()
    assert devices(report) == {A: False, B: True}
    reports = bench.turns(120)
    assert all(read_devices(r) == [B] for r in reports)
    assert A not in reports[-1].processes
    assert bench.driver.calls.count("handle_by_uuid") < 10, "it is not pestered"

    bench.a.error = bench.a.handle_error = 0
    reports = bench.turns(61)
    assert devices(reports[-1]) == {A: True, B: True}
    assert set(read_devices(reports[-1])) == {A, B}


def test_gpu_taken_off_the_bus_and_put_back_under_another_number(bench: Bench) -> None:
    bench.turns(2)
    bench.a.present = False
    bench.turns(3)
    bench.a.present = True
    bench.driver.gpus = [bench.b, bench.a]
    report = bench.turns(80)[-1]
    assert {info.name: info.index for info in report.devices} == {A: "1", B: "0"}
    assert devices(report) == {A: True, B: True}


def test_void_handle_is_resolved_by_uuid_without_leaving_the_counter(bench: Bench) -> None:
    bench.turns(2)
    bench.a.error = 2
    bench.turns(2)
    bench.a.error = 0
    bench.turns(2)
    assert read_devices(bench.turn()) == [A, B]
    assert bench.meter.estimators() == {A: "counter", B: "counter"}


def test_gpu_that_appears_later_is_picked_up_within_a_minute(bench: Bench) -> None:
    bench.b.present = False
    assert read_devices(bench.turn()) == [A]
    bench.b.present = True
    reports = bench.turns(61)
    assert read_devices(reports[-1]) == [A, B]


def test_when_all_are_lost_nvml_is_let_go_so_that_they_can_be_reset(bench: Bench) -> None:
    bench.turns(2)
    for gpu in (bench.a, bench.b):
        gpu.error = gpu.handle_error = 15
    bench.turn()
    report = bench.turn()
    assert devices(report) == {A: False, B: False}
    assert [fault.reason for fault in report.faults if fault.permanent] == ["gpu_lost"]
    assert bench.driver.refcount == 0
    error = bench.failure()
    assert error.reason == "gpu_lost"
    assert 0 < error.retry_after_s <= 10
    bench.a.error = bench.a.handle_error = 0
    bench.clock.advance(10)
    assert read_devices(bench.turn()) == [A]
    bench.b.error = bench.b.handle_error = 0
    assert set(read_devices(bench.turns(62)[-1])) == {A, B}


# ── close and reopen ────────────────────────────────────────────────────────────────────────────


def test_release_closes_everything_and_the_gap_is_booked_afterwards(bench: Bench) -> None:
    before = bench.turns(2)[-1]
    bench.meter.close()
    bench.meter.close()
    assert bench.driver.refcount == 0
    bench.clock.advance(900)
    after = bench.turn()
    assert bench.driver.refcount == 1
    assert _joules(before, after) == 300 * 901
    assert before.devices == after.devices


def test_close_never_raises(bench: Bench) -> None:
    bench.meter.close()
    bench.turn()
    bench.driver.refcount = 0
    bench.meter.close()


def test_new_driver_load_is_told_by_the_modules_inode(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    module = tmp_path / "module/nvidia"
    module.mkdir(parents=True)
    first = _load(bench.turn().readings[0])
    bench.meter.close()
    assert _load(bench.turn().readings[0]) == first
    bench.meter.close()
    module.rename(tmp_path / "old")
    module.mkdir()
    assert _load(bench.turn().readings[0]) != first


def _load(reading: Reading) -> str:
    load = getattr(reading, "driver_load", None)
    assert isinstance(load, str)
    return load


def _joules(before: MeterReport, after: MeterReport) -> int:
    """What the books make of the first GPU between two reports."""
    step = advance(before.readings[0], after.readings[0])
    assert step.interval is not None
    return step.interval.energy_uj // UJ_PER_J


# ── sleep, budget, survey ───────────────────────────────────────────────────────────────────────


def test_sleeping_gpu_is_left_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    power = tmp_path / "bus/pci/devices/0000:10:00.0/power"
    power.mkdir(parents=True)
    (power / "control").write_text("auto\n")
    (power / "runtime_status").write_text("active\n")
    assert read_devices(bench.turn()) == [A, B]
    (power / "runtime_status").write_text("suspended\n")
    bench.driver.calls.clear()
    reports = bench.turns(700)
    assert all(read_devices(r) == [B] and not r.faults for r in reports)
    assert "handle" not in bench.driver.calls, "asking for its handle would wake it"
    assert devices(reports[-1]) == {A: True, B: True}
    (power / "runtime_status").write_text("active\n")
    assert read_devices(bench.turn()) == [A, B]


def test_driver_calls_stay_within_the_budget() -> None:
    """1.5 calls per GPU and second, with processes on every GPU and the start counted in."""
    clock = FakeClock()
    gpus = [FakeGpu(f"GPU-{i}", pids=[i + 10, i + 20]) for i in range(8)]
    driver = FakeNvml(clock, *gpus)
    meter = NvmlMeter(driver, clock, sysfs=Path("/nonexistent"), procfs=None)
    worst = 0
    for _ in range(1200):
        before = len(driver.calls)
        report = meter.read()
        worst = max(worst, len(driver.calls) - before) if clock.monotonic_ns > 10**12 else 0
        clock.advance(1)
        assert len(report.readings) == 8
        elapsed_s = (clock.monotonic_ns - 1_000 * 10**9) / 1e9
        if elapsed_s == 120 or elapsed_s == 1200:
            assert len(driver.calls) / 8 / elapsed_s <= 1.5
    assert worst <= 8 * 4, "process lists are spread over the turns"


@pytest.mark.parametrize("code", range(1, 31))
def test_every_code_has_a_remedy(code: int) -> None:
    assert isinstance(remedy(code), Remedy)
    assert remedy(code + 5000) is Remedy.RETRY


def test_survey_tells_what_doctor_wants_to_know(bench: Bench) -> None:
    bench.a.counter = False
    bench.b.error = 15
    a, b = survey(bench.driver, sysfs=Path("/nonexistent"))
    assert (a.uuid, a.pci, a.estimator, a.counter) == (A, "0000:10:00.0", "average", False)
    assert (a.persistence, a.mig, a.scope, a.limit_uw) == ("on", False, "gpu", 700_000_000)
    assert (b.index, b.error) == (1, "the GPU is lost (NVML 15)")
    assert bench.driver.refcount == 0


@pytest.mark.parametrize(("code", "reason"), [(12, "no_library"), (4, "no_permission")])
def test_survey_without_nvml(bench: Bench, code: int, reason: str) -> None:
    bench.driver.init_error = code
    with pytest.raises(MeterUnavailable) as caught:
        survey(bench.driver)
    assert caught.value.reason == reason
    assert caught.value.hint
