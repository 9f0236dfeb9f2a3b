"""The utilisation model and the configured constant: power that no meter saw."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeClock
from sysfs import ProcTree, put
from wattledger.errors import MeterUnavailable
from wattledger.meters.constant import ConstantMeter
from wattledger.meters.estimate import UNCERTAINTY, EstimateMeter
from wattledger.model import DeviceInfo, Kind, PowerReading, Quality
from wattledger.model.uncertainty import ENERGY, TERMS
from wattledger.procfs import busy_and_total_ticks, cpu_model, logical_cpus
from wattledger.units import NS_PER_S


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def proc(tmp_path: Path) -> ProcTree:
    return ProcTree(tmp_path, cpus=4)


def meter_of(proc: ProcTree, clock: FakeClock, **options: float | None) -> EstimateMeter:
    return EstimateMeter(clock, procfs=proc.procfs, interval_ns=NS_PER_S, **options)  # type: ignore[arg-type]


def power_uw(meter: EstimateMeter) -> int:
    (reading,) = meter.read().readings
    assert isinstance(reading, PowerReading)
    return reading.power_uw


def test_the_first_read_is_the_baseline(proc: ProcTree, clock: FakeClock) -> None:
    proc.run(1000, 1)
    report = meter_of(proc, clock).read()

    assert report.readings == () and report.faults == ()
    (device,) = report.devices
    assert (device.name, device.kind, device.meter) == ("cpu0", Kind.CPU, "estimate")


def test_a_reading_is_the_mean_since_the_last_and_says_that_it_is_estimated(
    proc: ProcTree, clock: FakeClock
) -> None:
    meter = meter_of(proc, clock)
    meter.read()
    proc.run(1, 0.5)
    clock.advance(1.25)

    assert meter.read().readings == (
        PowerReading(
            "cpu0",
            clock.now(),
            round(4 * (0.74 + 3.5) / 2 * 1e6),
            window_ns=NS_PER_S * 5 // 4,
            max_gap_ns=NS_PER_S * 5 // 2,
            quality=Quality.ESTIMATED,
        ),
    )


@pytest.mark.parametrize(
    ("idle_w", "max_w", "idle_uw", "max_uw"),
    [
        (None, None, 2_960_000, 14_000_000),  # 4 × 0.74 W and 4 × 3.5 W
        (40.0, 200.0, 40_000_000, 200_000_000),
        (None, 350.0, 74_000_000, 350_000_000),  # the default curve's shape
        (5.0, None, 5_000_000, 14_000_000),
        (90.0, None, 90_000_000, 90_000_000),  # never less at full load than when idle
        (0.0, 10.0, 0, 10_000_000),
    ],
)
def test_watts_may_be_configured(
    proc: ProcTree,
    clock: FakeClock,
    idle_w: float | None,
    max_w: float | None,
    idle_uw: int,
    max_uw: int,
) -> None:
    meter = meter_of(proc, clock, idle_w=idle_w, max_w=max_w)
    meter.read()
    shown = []
    for busy in (0, 1):
        proc.run(1, busy)
        clock.advance(1)
        shown.append(power_uw(meter))

    assert shown == [idle_uw, max_uw]


@pytest.mark.parametrize(("idle_w", "max_w"), [(-1.0, None), (None, -1.0), (10.0, 9.0)])
def test_impossible_watts_are_refused(
    proc: ProcTree, clock: FakeClock, idle_w: float | None, max_w: float | None
) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        meter_of(proc, clock, idle_w=idle_w, max_w=max_w)


@given(loads=st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=5))
def test_power_stays_between_idle_and_full_load(
    tmp_path_factory: pytest.TempPathFactory, loads: list[tuple[int, float]]
) -> None:
    clock = FakeClock()
    proc = ProcTree(tmp_path_factory.mktemp("proc"), cpus=4)
    meter = meter_of(proc, clock, idle_w=10, max_w=110)
    meter.read()
    for seconds, busy in loads:
        proc.run(seconds, busy)
        clock.advance(seconds)
        shown = power_uw(meter)
        assert 10_000_000 <= shown <= 110_000_000
        assert shown == pytest.approx(10e6 + 100e6 * busy, abs=0.2e6)


def test_no_tick_no_reading_and_nothing_is_lost(proc: ProcTree, clock: FakeClock) -> None:
    meter = meter_of(proc, clock, idle_w=0, max_w=100)
    meter.read()
    clock.advance(0.001)
    assert meter.read().readings == ()
    proc.run(1, 0.25)
    clock.advance(0.999)

    (reading,) = meter.read().readings

    assert isinstance(reading, PowerReading)
    assert (reading.power_uw, reading.window_ns) == (25_000_000, NS_PER_S)


def test_counters_that_fall_are_a_new_baseline(proc: ProcTree, clock: FakeClock) -> None:
    proc.run(100, 1)
    meter = meter_of(proc, clock)
    meter.read()
    clock.advance(1)
    ProcTree(proc.procfs, cpus=4)  # all at 0 again

    assert meter.read().readings == ()


@pytest.mark.parametrize(("busy", "idle", "expected_uw"), [(50, 450, 0), (700, 0, 100_000_000)])
def test_ticks_that_contradict_each_other_stay_within_the_curve(
    proc: ProcTree, clock: FakeClock, busy: int, idle: int, expected_uw: int
) -> None:
    """Idle and busy time may each go back a little when CPUs go offline."""
    put(proc.procfs / "stat", "cpu  100 0 0 200 0 0 0 0 0 0\n")
    meter = meter_of(proc, clock, idle_w=0, max_w=100)
    meter.read()
    put(proc.procfs / "stat", f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\n")
    clock.advance(1)

    assert power_uw(meter) == expected_uw


def test_after_close_the_time_between_is_not_measured(proc: ProcTree, clock: FakeClock) -> None:
    meter = meter_of(proc, clock)
    meter.read()
    meter.close()
    proc.run(3600, 1)
    clock.advance(3600)

    assert meter.read().readings == ()


def test_cpus_may_come_and_go(proc: ProcTree, clock: FakeClock) -> None:
    meter = meter_of(proc, clock)
    meter.read()
    proc.cpus = 8
    proc.run(60, 1)
    clock.advance(60)  # they are counted once a minute
    report = meter.read()

    (reading,) = report.readings
    assert isinstance(reading, PowerReading) and reading.power_uw == 28_000_000
    assert "8 logical CPUs" in report.devices[0].model


def test_the_model_states_its_uncertainty(proc: ProcTree, clock: FakeClock) -> None:
    """The one that totals are judged by."""
    (term,) = [term for term in TERMS if (term.name, term.of) == (ENERGY, "estimated")]
    assert (1 - term.low, term.high - 1) == (UNCERTAINTY, UNCERTAINTY)
    (device,) = meter_of(proc, clock).read().devices

    assert device.model == "utilisation model, 4 logical CPUs, 2.96–14 W, ±50%"


@pytest.mark.parametrize("text", [None, "", "cpu \n", "cpu  1 2\n", "cpu  a b c d\n", "intr 1\n"])
def test_without_proc_it_is_unavailable_not_zero(
    tmp_path: Path, clock: FakeClock, text: str | None
) -> None:
    if text is not None:
        put(tmp_path / "stat", text)

    with pytest.raises(MeterUnavailable) as caught:
        EstimateMeter(clock, procfs=tmp_path, interval_ns=NS_PER_S).read()

    assert caught.value.reason == "no_procfs"
    assert "--path.procfs" in caught.value.hint


def test_a_cpu_inside_the_gpus_counter_is_not_estimated_beside_it(
    proc: ProcTree, clock: FakeClock
) -> None:
    meter = EstimateMeter(
        clock, procfs=proc.procfs, interval_ns=NS_PER_S, module_scope=lambda: True
    )

    with pytest.raises(MeterUnavailable) as caught:
        meter.read()

    assert caught.value.reason == "covered_by_gpu_module"


def test_it_reads_the_machine_it_runs_on(clock: FakeClock) -> None:
    (device,) = EstimateMeter(clock, procfs=Path("/proc"), interval_ns=NS_PER_S).read().devices

    assert device.name == "cpu0"


# ── /proc/stat ──────────────────────────────────────────────────────────────────────────────────


def test_the_line_cpu_is_taken_apart(tmp_path: Path) -> None:
    put(tmp_path / "stat", "cpu  1 20 300 4000 50000 600000 7000000 80000000 5 6\ncpu0 9 9 9 9\n")

    assert busy_and_total_ticks(tmp_path) == (7_600_321, 87_654_321)


@given(fields=st.lists(st.integers(0, 2**40), min_size=10, max_size=10))
def test_busy_is_a_part_of_the_total(tmp_path_factory, fields: list[int]) -> None:  # type: ignore[no-untyped-def]
    procfs = tmp_path_factory.mktemp("proc")
    put(procfs / "stat", "cpu  " + " ".join(map(str, fields)) + "\n")
    busy, total = busy_and_total_ticks(procfs)

    assert 0 <= busy <= total == sum(fields[:8])


@given(text=st.text(max_size=200))
def test_any_text_is_either_ticks_or_a_value_error(tmp_path_factory, text: str) -> None:  # type: ignore[no-untyped-def]
    procfs = tmp_path_factory.mktemp("proc")
    for candidate in (text, "cpu " + text):
        put(procfs / "stat", candidate)
        try:
            busy, total = busy_and_total_ticks(procfs)
        except ValueError:
            continue
        assert busy <= total


def test_logical_cpus_are_counted(tmp_path: Path) -> None:
    each = "".join(f"cpu{n} 1 2 3 4 5 6 7 8 9 10\n" for n in (0, 1, 17))
    put(tmp_path / "stat", f"cpu  1 2 3 4 5 6 7 8 9 10\n{each}intr 9\n")

    assert logical_cpus(tmp_path) == 3


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (
            "processor\t: 0\nmodel\t: 79\nmodel name\t: Intel(R)  Xeon(R): E5\n\n",
            "Intel(R) Xeon(R): E5",
        ),
        ("processor\t: 0\nBogoMIPS\t: 2000.00\nCPU implementer\t: 0x41\n", ""),
        ("", ""),
    ],
)
def test_the_cpus_model(text: str, model: str) -> None:
    assert cpu_model(text) == model


# ── the constant ────────────────────────────────────────────────────────────────────────────────


def test_the_constant_is_what_was_configured(clock: FakeClock) -> None:
    meter = ConstantMeter(clock, 120.5, NS_PER_S)

    report = meter.read()

    assert report.devices == (
        DeviceInfo("other", Kind.OTHER, "constant", model="configured constant, 120.5 W"),
    )
    assert report.readings == (
        PowerReading(
            "other",
            clock.now(),
            120_500_000,
            window_ns=NS_PER_S,
            max_gap_ns=NS_PER_S * 5 // 2,
            quality=Quality.ESTIMATED,
        ),
    )
    meter.close()


def test_a_negative_constant_is_refused(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        ConstantMeter(clock, -1, NS_PER_S)
