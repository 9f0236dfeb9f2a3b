"""The driver's sample buffer: accuracy, and clocks that jump; process lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_nvml import FakeGpu, FakeNvml
from fakes import FakeClock
from wattledger.core.intervals import advance
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.model import PowerReading, Reading
from wattledger.model.measuring import Process
from wattledger.units import NS_PER_MS, NS_PER_S, UW_PER_W

UUID = "GPU-a"
PERIOD_NS = 20_060_000
WINDOW_NS = 10 * NS_PER_MS
LO_W, HI_W = 60, 600


def square_ns(t_ns: int, period_ns: int) -> int:
    """How long of the first t_ns the load was on, at 50 % duty."""
    periods, within = divmod(t_ns, period_ns)
    return periods * (period_ns // 2) + min(within, period_ns // 2)


class Sensor:
    """A ring of 120 samples on a node whose clock is in the test's hands."""

    def __init__(self, load_period_ns: int = 300 * NS_PER_MS, length: int = 120) -> None:
        self.clock = FakeClock()
        self.load_period_ns = load_period_ns
        self.gpu = FakeGpu(UUID, counter=False, fields=set(), samples=[])
        self.length = length
        self.taken = self.clock.monotonic_ns // PERIOD_NS - length
        self.pass_time(0)
        self.meter = NvmlMeter(
            FakeNvml(self.clock, self.gpu), self.clock, sysfs=Path("/nonexistent"), procfs=None
        )
        self.readings: list[Reading] = []

    def energy_uj(self, start_ns: int, end_ns: int) -> int:
        on_ns = square_ns(end_ns, self.load_period_ns) - square_ns(start_ns, self.load_period_ns)
        uwns = LO_W * UW_PER_W * (end_ns - start_ns) + (HI_W - LO_W) * UW_PER_W * on_ns
        return uwns // NS_PER_S

    def pass_time(self, seconds: float) -> None:
        """Samples are taken meanwhile, stamped by the wall clock of their moment."""
        self.clock.advance(seconds)
        assert self.gpu.samples is not None
        offset_ns = self.clock.wall_ns - self.clock.monotonic_ns
        while (self.taken + 1) * PERIOD_NS <= self.clock.monotonic_ns:
            self.taken += 1
            at_ns = self.taken * PERIOD_NS
            mean_uw = self.energy_uj(at_ns - WINDOW_NS, at_ns) * NS_PER_S // WINDOW_NS
            self.gpu.samples.append(((at_ns + offset_ns) // 1000, mean_uw // 1000))
        del self.gpu.samples[: -self.length]

    def run(self, seconds: int, step_s: float = 1.0) -> None:
        for _ in range(round(seconds / step_s)):
            self.pass_time(step_s)
            report = self.meter.read()
            assert not report.faults
            self.readings += report.readings

    def booked(self) -> tuple[int, int]:
        """Energy in µJ, and the time in ns that nothing measured."""
        energy_uj = unobserved_ns = 0
        for last, now in zip([None, *self.readings], self.readings, strict=False):
            step = advance(last, now)
            energy_uj += step.interval.energy_uj if step.interval else 0
            unobserved_ns += step.unobserved_ns
        return energy_uj, unobserved_ns

    def truth_uj(self) -> int:
        first, last = self.readings[0].at, self.readings[-1].at
        return self.energy_uj(first.monotonic_ns, last.monotonic_ns)


@pytest.mark.parametrize("load_period_ms", [300, 100, 1000, 7300])
def test_square_wave_is_integrated_within_two_percent(load_period_ms: int) -> None:
    sensor = Sensor(load_period_ms * NS_PER_MS)
    sensor.run(60)
    assert sensor.meter.estimators() == {UUID: "samples"}
    energy_uj, unobserved_ns = sensor.booked()
    assert unobserved_ns == 0
    assert energy_uj == pytest.approx(sensor.truth_uj(), rel=0.02)


def test_a_turn_is_one_mean_whose_window_reaches_back_to_the_last() -> None:
    sensor = Sensor()
    sensor.run(20)
    assert len(sensor.readings) == 19
    for last, now in zip(sensor.readings, sensor.readings[1:], strict=False):
        assert isinstance(now, PowerReading)
        assert now.window_ns == now.at.boottime_ns - last.at.boottime_ns


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.just(("run", 0.0)),
            st.tuples(st.just("step"), st.floats(-7200, 7200)),
            st.tuples(st.just("sleep"), st.floats(0, 3600)),
            st.tuples(st.just("stall"), st.floats(0, 20)),
        ),
        max_size=8,
    )
)
def test_no_clock_that_jumps_makes_energy(events: list[tuple[str, float]]) -> None:
    """Whatever the clocks and the scheduler do, no more is booked than the load could draw."""
    sensor = Sensor()
    sensor.run(4)
    for event, seconds in events:
        if event == "step":
            sensor.clock.step_wall(seconds)
        elif event == "sleep":
            sensor.clock.sleep(seconds)
        elif event == "stall":
            sensor.pass_time(seconds)
        sensor.run(4)
    energy_uj, unobserved_ns = sensor.booked()
    truth_uj = sensor.truth_uj()
    whole_ns = sensor.readings[-1].at.boottime_ns - sensor.readings[0].at.boottime_ns
    awake_ns = sensor.readings[-1].at.monotonic_ns - sensor.readings[0].at.monotonic_ns
    assert unobserved_ns <= whole_ns
    # Each event may cost or stretch up to the longest gap that is bridged.
    slack_uj = len(events) * 5 * HI_W * UW_PER_W
    assert energy_uj <= truth_uj * 1.02 + slack_uj
    assert energy_uj <= HI_W * UW_PER_W * awake_ns // NS_PER_S
    ordered = [reading.at.boottime_ns for reading in sensor.readings]
    assert ordered == sorted(ordered)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 0.5, -0.5])
def test_stepped_wall_clock_costs_at_most_a_turn(step_s: float) -> None:
    sensor = Sensor()
    sensor.run(30)
    sensor.clock.step_wall(step_s)
    sensor.run(30)
    energy_uj, unobserved_ns = sensor.booked()
    assert unobserved_ns <= 3 * NS_PER_S
    assert energy_uj == pytest.approx(sensor.truth_uj(), rel=0.06)
    assert sensor.readings[-1].at.boottime_ns > sensor.clock.boottime_ns - NS_PER_S


def test_short_ring_is_emptied_more_often() -> None:
    sensor = Sensor(length=40)
    sensor.run(1)
    assert sensor.meter.interval_ns < 500 * NS_PER_MS
    sensor.run(30, step_s=0.39)
    energy_uj, unobserved_ns = sensor.booked()
    assert unobserved_ns == 0
    assert energy_uj == pytest.approx(sensor.truth_uj(), rel=0.02)


def test_ring_that_stays_empty_gives_way() -> None:
    sensor = Sensor()
    sensor.run(5)
    assert sensor.gpu.samples is not None
    sensor.gpu.samples.clear()
    reports = []
    for _ in range(15):
        sensor.clock.advance(1)
        reports.append(sensor.meter.read())
    assert [fault.reason for report in reports for fault in report.faults] == ["unsupported"]
    assert sensor.meter.estimators() == {UUID: "usage"}
    assert reports[-1].readings


# ── process lists ───────────────────────────────────────────────────────────────────────────────


def counts(gpu: FakeGpu, procfs: Path | None) -> int | None:
    clock = FakeClock()
    driver = FakeNvml(clock, gpu)
    meter = NvmlMeter(driver, clock, sysfs=Path("/nonexistent"), procfs=procfs)
    return meter.read().processes[UUID]


def procfs_with(root: Path, *pids: int, host: bool = False) -> Path:
    for pid in pids:
        (root / str(pid)).mkdir()
    if host:
        (root / "2").mkdir()
        (root / "2/comm").write_text("kthreadd\n")
    return root


def test_compute_and_graphics_processes_count_once_each(tmp_path: Path) -> None:
    gpu = FakeGpu(UUID, pids=[10, 11], graphics_pids=[11, 12])
    assert counts(gpu, procfs_with(tmp_path, 10, 11, 12)) == 3
    assert counts(FakeGpu(UUID), tmp_path) == 0


def test_dead_process_that_is_still_listed_does_not_count(tmp_path: Path) -> None:
    gpu = FakeGpu(UUID, pids=[10, 99])
    assert counts(gpu, procfs_with(tmp_path, 10)) == 1


def test_where_only_dead_ones_are_listed_the_hosts_proc_decides(tmp_path: Path) -> None:
    gpu = FakeGpu(UUID, pids=[98, 99])
    assert counts(gpu, tmp_path) == 2, "this /proc is a container's: they may live"
    assert counts(gpu, procfs_with(tmp_path, host=True)) == 0
    assert counts(gpu, None) == 2


@pytest.mark.parametrize(("code", "count"), [(3, None), (4, None), (13, None), (999, None), (6, 0)])
def test_process_list_that_fails_is_unknown_and_one_not_found_is_empty(
    code: int, count: int | None
) -> None:
    assert counts(FakeGpu(UUID, pids=[1], process_error=code), None) == count


def test_driver_before_510_is_asked_in_its_own_form() -> None:
    clock = FakeClock()

    class Old(FakeNvml):
        def nvmlDeviceGetComputeRunningProcesses_v2(self, handle: FakeGpu) -> list[object]:
            return self._processes("compute", handle, [7, 8])

        def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeGpu) -> list[object]:
            raise self.NVMLError(13)

    meter = NvmlMeter(Old(clock, FakeGpu(UUID)), clock, sysfs=Path("/nonexistent"), procfs=None)
    assert meter.read().processes == {UUID: 2}


def told(gpu: FakeGpu, seconds: int = 11, change: Callable[[int], None] = lambda _: None) -> list:  # type: ignore[type-arg]
    """What the meter says of the GPU's use, each time it says something."""
    clock = FakeClock()
    driver = FakeNvml(clock, gpu)
    meter = NvmlMeter(driver, clock, sysfs=Path("/nonexistent"), procfs=None)
    said = []
    for second in range(seconds):
        change(second)
        said += list(meter.read().used.values())
        clock.advance(1)
    return said


def test_a_gpu_that_did_nothing_at_all_is_told(tmp_path: Path) -> None:
    start_us = FakeClock().now().wall_ns // 1000
    ring: list[tuple[int, int]] = [(start_us - 20, 99), (start_us - 10, 99)]  # of before
    gpu = FakeGpu(UUID, pids=[1], busy_samples=ring)

    def change(second: int) -> None:
        ring.append((start_us + second * 1_000_000, 7 if second == 27 else 0))

    # Asked for at 10, 20, 30 and 40 s.
    assert told(gpu, 41, change) == [False, False, True, False]
    assert told(FakeGpu(UUID, pids=[1], busy=0), 21) == [False, False]
    assert told(FakeGpu(UUID, pids=[1], busy=3), 21) == [True, True]
    assert told(FakeGpu(UUID, pids=[1], busy=None), 21) == []
    assert told(FakeGpu(UUID, pids=[], busy=None), 16) == [False, False]  # nobody is on it
    assert told(FakeGpu(UUID, pids=[1], busy=3, mig=1), 21) == []


def test_who_came_and_went_between_two_lists_did_something() -> None:
    start_us = FakeClock().now().wall_ns // 1000
    ring: list[tuple[int, int]] = []
    gpu = FakeGpu(UUID, pids=[], busy_samples=ring)

    def change(second: int) -> None:
        # Listed at 0, 5, 10, … s, where nobody is to be seen; its use is told every second time.
        ring.append((start_us + second * 1_000_000, 80 if second in (12, 13) else 0))

    assert told(gpu, 31, change) == [False, True, False]


def test_of_samples_that_are_lost_nobody_is_accused() -> None:
    start_us = FakeClock().now().wall_ns // 1000
    ring: list[tuple[int, int]] = []
    gpu = FakeGpu(UUID, pids=[1], busy_samples=ring)

    def change(second: int) -> None:
        ring.append((start_us + second * 1_000_000, 0))
        del ring[:-5]  # a ring that is too short for the questions at 10, 20 and 30 s
        if second == 25:
            ring[:] = [(start_us + s * 1_000_000, 0) for s in range(20, 26)]
        elif second > 25:
            ring.insert(0, (start_us + 21 * 1_000_000, 0))

    assert told(gpu, 31, change) == [True, True, False]


def test_processes_are_told_by_id_and_start(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text("7 (a b) c) S" + " 1" * 18 + " 4711 1 1")
    clock = FakeClock()
    driver = FakeNvml(clock, FakeGpu(UUID, pids=[7, 8]))
    meter = NvmlMeter(driver, clock, sysfs=Path("/nonexistent"), procfs=tmp_path)
    first = meter.read().listed[UUID]
    clock.advance(1)
    assert first == (Process(7, 4711),)
    assert meter.read().listed[UUID] is first  # nothing new was asked for


def test_process_list_is_asked_for_every_five_seconds() -> None:
    clock = FakeClock()
    gpu = FakeGpu(UUID, pids=[1])
    driver = FakeNvml(clock, gpu)
    meter = NvmlMeter(driver, clock, sysfs=Path("/nonexistent"), procfs=None)
    seen = []
    for second in range(11):
        gpu.pids = list(range(second + 1))
        seen.append(meter.read().processes[UUID])
        clock.advance(1)
    assert seen == [1, 1, 1, 1, 1, 6, 6, 6, 6, 6, 11]
