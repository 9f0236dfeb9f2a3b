"""Which estimator serves a GPU, what it reads, and when it gives way to the next."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from fake_nvml import FakeGpu, FakeInstance, FakeNvml
from fakes import FakeClock
from wattledger.core.intervals import advance
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.model import CounterReading, MeterReport, PowerReading, Reading
from wattledger.units import NS_PER_MS, NS_PER_S, UJ_PER_J, UW_PER_W

UUID = "GPU-a"


def meter_over(
    gpu: FakeGpu, clock: FakeClock, tmp_path: Path | None = None
) -> tuple[NvmlMeter, FakeNvml]:
    driver = FakeNvml(clock, gpu)
    return NvmlMeter(driver, clock, sysfs=tmp_path or Path("/nonexistent"), procfs=None), driver


def turns(meter: NvmlMeter, clock: FakeClock, count: int, step_s: float = 1.0) -> list[MeterReport]:
    reports = []
    for _ in range(count):
        reports.append(meter.read())
        clock.advance(step_s)
    return reports


def readings(reports: list[MeterReport]) -> list[Reading]:
    return [reading for report in reports for reading in report.readings]


def booked_uj(of: list[Reading]) -> int:
    """What the books make of readings."""
    total = 0
    for last, now in zip([None, *of], of, strict=False):
        step = advance(last, now)
        total += step.interval.energy_uj if step.interval else 0
    return total


def reasons(reports: list[MeterReport]) -> list[str]:
    return [fault.reason for report in reports for fault in report.faults]


# ── the counter ─────────────────────────────────────────────────────────────────────────────────


def test_counter_is_read_in_microjoules_with_its_limits_and_its_driver(tmp_path: Path) -> None:
    clock = FakeClock()
    module = tmp_path / "module/nvidia"
    module.mkdir(parents=True)
    gpu = FakeGpu(UUID, energy_mj=123_456)
    meter, _ = meter_over(gpu, clock, tmp_path)
    (reading,) = meter.read().readings
    assert reading == CounterReading(
        device=UUID,
        at=clock.now(),
        raw_uj=123_456_000,
        range_uj=None,
        max_power_uw=700 * UW_PER_W,
        tick_ns=100 * NS_PER_MS,
        boot_id="boot-1",
        driver_load=f"570.124.06:{module.stat().st_ino}",
    )
    assert meter.estimators() == {UUID: "counter"}
    assert meter.interval_ns == NS_PER_S


def test_counter_that_answers_by_its_own_call_only_is_still_a_counter() -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID, field_error={83: 3})
    meter, driver = meter_over(gpu, clock)
    reports = turns(meter, clock, 10)
    assert all(isinstance(r, CounterReading) for r in readings(reports))
    assert booked_uj(readings(reports)) == 9 * 300 * UJ_PER_J
    driver.calls.clear()
    meter.read()
    assert driver.calls.count("energy") == 1


@pytest.mark.parametrize("code", [2, 3, 13])
def test_old_driver_without_field_values(code: int) -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID)
    driver = FakeNvml(clock, gpu)

    class Old:
        def __getattr__(self, name: str) -> object:
            if name == "nvmlDeviceGetFieldValues":
                return self.refuse
            return getattr(driver, name)

        def refuse(self, *_: object) -> None:
            raise driver.NVMLError(code)

    meter = NvmlMeter(Old(), clock, sysfs=Path("/nonexistent"), procfs=None)  # type: ignore[arg-type]
    (reading,) = meter.read().readings
    assert isinstance(reading, CounterReading)
    assert reading.max_power_uw == 1500 * UW_PER_W, "no limit is told: a bound for any board"


def test_value_that_has_not_moved_is_held_back_until_it_does() -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID, energy_mj=1000)
    meter, _ = meter_over(gpu, clock)
    assert len(meter.read().readings) == 1
    clock.advance(1)
    assert meter.read().readings == (), "no difference is not: no energy"
    clock.advance(1)
    gpu.energy_mj = 601_000
    (reading,) = meter.read().readings
    assert isinstance(reading, CounterReading)
    assert reading.raw_uj == 601_000_000


def test_counter_that_shows_no_power_and_no_energy_is_believed() -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID, energy_mj=1000, power_mw=0, fields={(185, 0)})
    meter, _ = meter_over(gpu, clock)
    assert meter.estimators() == {}
    reports = turns(meter, clock, 100)
    assert reasons(reports) == []
    assert meter.estimators() == {UUID: "counter"}


def test_frozen_counter_gives_way_and_comes_back_only_when_it_moves() -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID)
    meter, driver = meter_over(gpu, clock)
    turns(meter, clock, 3)
    gpu.energy_mj = driver.energy_mj(gpu)
    reports = turns(meter, clock, 65)
    assert reasons(reports) == ["counter_frozen"]
    assert meter.estimators() == {UUID: "average"}
    assert isinstance(readings(reports)[-1], PowerReading)

    reports = turns(meter, clock, 700)  # looked at again in between, and found frozen
    assert reasons(reports) == []
    assert booked_uj(readings(reports)) >= 690 * 300 * UJ_PER_J

    gpu.energy_mj = None  # it moves again
    reports = turns(meter, clock, 400)
    assert meter.estimators() == {UUID: "counter"}
    assert isinstance(readings(reports)[-1], CounterReading)


def test_frozen_counter_without_a_power_field_is_found_out_by_one_more_call() -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID, energy_mj=5, fields=set())
    meter, driver = meter_over(gpu, clock)
    reports = turns(meter, clock, 59)
    assert driver.calls.count("usage") == 0
    reports += turns(meter, clock, 4)
    assert reasons(reports) == ["counter_frozen"]
    assert meter.estimators() == {UUID: "usage"}


# ── below the counter ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "estimator"),
    [
        (lambda gpu, now_us: None, "counter"),
        (lambda gpu, now_us: setattr(gpu, "counter", False), "average"),
        (
            lambda gpu, now_us: (
                setattr(gpu, "counter", False),
                setattr(gpu, "samples", [(now_us - 20_000 * k, 300_000) for k in range(99, 0, -1)]),
            ),
            "samples",
        ),
        (
            lambda gpu, now_us: (
                setattr(gpu, "counter", False),
                setattr(gpu, "fields", {(186, 0)}),
            ),
            "instant",
        ),
        (
            lambda gpu, now_us: (setattr(gpu, "counter", False), setattr(gpu, "fields", set())),
            "usage",
        ),
    ],
)
def test_ladder(change: Callable[[FakeGpu, int], object], estimator: str) -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID)
    change(gpu, clock.wall_ns // 1000)
    meter, _ = meter_over(gpu, clock)
    reports = turns(meter, clock, 3)
    assert meter.estimators() == {UUID: estimator}
    assert reasons(reports) == [], "a sensor that was never there is no fault"


def test_average_power_is_the_mean_of_the_last_second() -> None:
    clock = FakeClock()
    meter, _ = meter_over(FakeGpu(UUID, counter=False), clock)
    (reading,) = meter.read().readings
    assert reading == PowerReading(UUID, clock.now(), 300 * UW_PER_W, NS_PER_S, 2500 * NS_PER_MS)


def test_average_of_zero_is_no_sensor() -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID, counter=False, power_mw=0)
    meter, _ = meter_over(gpu, clock)
    meter.read()
    assert meter.estimators() == {UUID: "usage"}


def test_instant_power_is_polled_at_the_sensors_period_and_the_others_are_not() -> None:
    clock = FakeClock()
    slow = FakeGpu("GPU-slow")
    fast = FakeGpu("GPU-fast", counter=False, fields={(186, 0)})
    driver = FakeNvml(clock, slow, fast)
    meter = NvmlMeter(driver, clock, sysfs=Path("/nonexistent"), procfs=None)
    meter.read()
    assert meter.interval_ns == 100 * NS_PER_MS
    clock.advance(0.1)
    reports = turns(meter, clock, 100, 0.1)
    by_device = [reading.device for reading in readings(reports)]
    assert by_device.count("GPU-fast") == 100
    assert by_device.count("GPU-slow") == 10
    assert isinstance(readings(reports)[-1], PowerReading)
    assert {r.window_ns for r in readings(reports) if isinstance(r, PowerReading)} == {0}


@pytest.mark.parametrize(
    ("arch", "device_id", "name", "version", "averaged"),
    [
        (9, 0x2330, "NVIDIA H100 80GB HBM3", "570.1", True),
        (9, 0x2330, "NVIDIA H100 80GB HBM3", "530.30.02", False),
        (8, 0x26B9, "NVIDIA L40S", "550.1", True),
        (7, 0x2235, "NVIDIA A40", "550.1", True),
        (7, 0x20B2, "NVIDIA A100-SXM4-80GB", "550.1", False),
        (7, 0, "NVIDIA A30", "550.1", False),
        (5, 0x1DB1, "Tesla V100-SXM2-16GB", "550.1", False),
        (0xFFFFFFFF, 0, "NVIDIA something", "550.1", False),
    ],
)
def test_power_usage_means_what_architecture_and_driver_make_of_it(
    arch: int, device_id: int, name: str, version: str, averaged: bool
) -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID, name, counter=False, fields=set(), arch=arch, device_id=device_id)
    meter, driver = meter_over(gpu, clock)
    driver.version = version
    (reading,) = meter.read().readings
    assert isinstance(reading, PowerReading)
    assert reading.window_ns == (NS_PER_S if averaged else 0)
    assert meter.interval_ns == (NS_PER_S if averaged else 100 * NS_PER_MS)


def test_sensor_that_stops_being_supported_is_given_up_with_a_word() -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID)
    meter, _ = meter_over(gpu, clock)
    turns(meter, clock, 3)
    gpu.counter = False
    reports = turns(meter, clock, 3)
    assert reasons(reports) == ["unsupported"]
    assert len(reports[0].readings) == 1, "the next estimator answers in the same turn"
    assert meter.estimators() == {UUID: "average"}


def test_sensor_that_keeps_failing_while_the_gpu_answers_is_given_up() -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID)
    meter, driver = meter_over(gpu, clock)
    turns(meter, clock, 3)
    gpu.field_error = {83: 999}
    reports = turns(meter, clock, 6)
    assert reasons(reports) == ["read_failed"] * 3
    assert meter.estimators() == {UUID: "average"}
    assert driver.calls.count("init") == 1, "the others are left alone"


def test_gpu_without_any_sensor_says_so() -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID, counter=False, fields=set())
    meter, _ = meter_over(gpu, clock)
    gpu.power_mw = 0
    reports = turns(meter, clock, 5)
    assert readings(reports) == []
    assert "no_estimator" in reasons(reports)
    assert meter.estimators() == {UUID: ""}


# ── superchips, MIG, cross-check ────────────────────────────────────────────────────────────────


def test_gh200_is_read_at_module_scope_and_says_so() -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID, "NVIDIA GH200 480GB", fields={(185, 1), (186, 1)})
    meter, _ = meter_over(gpu, clock)
    (reading,) = meter.read().readings
    (facts,) = meter.facts()
    assert meter.module_scope()
    assert facts.scope == "module"
    assert isinstance(reading, CounterReading)
    assert reading.max_power_uw == 1400 * UW_PER_W
    gpu.counter = False
    clock.advance(1)
    (reading,) = meter.read().readings
    assert isinstance(reading, PowerReading)
    assert reading.power_uw == 300 * UW_PER_W


def test_ordinary_gpu_is_not_of_module_scope() -> None:
    clock = FakeClock()
    meter, _ = meter_over(FakeGpu(UUID, fields={(185, 0), (185, 1)}), clock)
    meter.read()
    assert not meter.module_scope()
    assert meter.facts()[0].scope == "gpu"


def test_mig_parent_appears_once() -> None:
    clock = FakeClock()
    instance = FakeInstance("MIG-1", 1, 7, process_error=3)
    gpu = FakeGpu(UUID, mig=1, process_error=3, instances=[instance])
    meter, driver = meter_over(gpu, clock)
    reports = turns(meter, clock, 30)
    assert [d.name for d in reports[-1].devices] == [UUID]
    assert {r.device for r in readings(reports)} == {UUID}
    assert meter.facts()[0].mig is True
    assert reports[-1].processes == {UUID: None}
    assert driver.calls.count("compute") == 1, "not supported is remembered"


@pytest.mark.parametrize(("gain", "warned"), [(1.0, False), (0.8, True), (1.25, True)])
def test_counter_is_checked_against_the_power_sensor(
    gain: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID, energy_mj=0)
    meter, _ = meter_over(gpu, clock)
    report = MeterReport()
    with caplog.at_level(logging.WARNING):
        for second in range(130):
            gpu.energy_mj = round(second * 300_000 * gain)
            report = meter.read()
            clock.advance(1)
            assert second >= 60 or not report.counter_power_ratio
    assert report.counter_power_ratio[UUID] == pytest.approx(gain)
    assert len([r for r in caplog.records if "times what" in r.message]) == int(warned)
