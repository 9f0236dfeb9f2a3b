"""Readings to intervals: every rule of the table in core.intervals, and its promises."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from wattledger.core.intervals import advance, over_slots
from wattledger.model import CounterReading, PowerReading, Quality
from wattledger.units import NS_PER_S, SLOT_NS, UJ_PER_J

W = 1_000_000  # µW


def gpu(clock: FakeClock, joules: float, **changes: object) -> CounterReading:
    reading = CounterReading(
        device="GPU-1",
        at=clock.now(),
        raw_uj=round(joules * UJ_PER_J),
        range_uj=None,
        max_power_uw=700 * W,
        tick_ns=NS_PER_S // 10,
        boot_id=clock.boot_id,
        driver_load="580:1",
    )
    return replace(reading, **changes)  # type: ignore[arg-type]


def rapl(clock: FakeClock, raw_uj: int, range_uj: int = 65_532_610_987) -> CounterReading:
    return CounterReading(
        "cpu0", clock.now(), raw_uj, range_uj, 280 * W, NS_PER_S // 1000, clock.boot_id
    )


def power(clock: FakeClock, watts: float, window_s: float = 0, **changes: object) -> PowerReading:
    reading = PowerReading(
        "GPU-1", clock.now(), round(watts * W), round(window_s * NS_PER_S), 2 * NS_PER_S
    )
    return replace(reading, **changes)  # type: ignore[arg-type]


def test_first_sight_is_a_baseline() -> None:
    step = advance(None, gpu(FakeClock(), 1e9))

    assert (step.interval, step.unobserved_ns, step.reset) == (None, 0, False)


def test_the_difference_is_booked_over_the_gap() -> None:
    clock = FakeClock()
    last = gpu(clock, 1000)
    clock.advance(2)
    step = advance(last, gpu(clock, 1500))

    assert step.interval is not None
    assert step.interval.energy_uj == 500 * UJ_PER_J
    assert step.interval.end_ns - step.interval.start_ns == 2 * NS_PER_S
    assert step.interval.quality is Quality.METERED


def test_after_a_restart_the_difference_is_recovered() -> None:
    clock = FakeClock()
    last = gpu(clock, 1000)
    clock.advance(600)
    step = advance(last, gpu(clock, 61_000), recovered=True)

    assert step.interval is not None
    assert step.interval.energy_uj == 60_000 * UJ_PER_J
    assert step.interval.quality is Quality.RECOVERED
    assert step.unobserved_ns == 0


def test_more_than_the_device_can_draw_is_not_booked() -> None:
    clock = FakeClock()
    last = gpu(clock, 0)
    clock.advance(1)
    most = 1.1 * 700 + 70  # 1.1 × limit × gap + one tick

    assert advance(last, gpu(clock, most)).interval is not None
    step = advance(last, gpu(clock, most + 0.001))
    assert step.interval is None
    assert step.unobserved_ns == NS_PER_S
    assert step.reason == "implausible"


def test_a_gpu_counter_that_falls_is_a_reset_never_a_wrap() -> None:
    clock = FakeClock()
    last = gpu(clock, 10_000)
    clock.advance(10)
    step = advance(last, gpu(clock, 3000))

    assert step.reset
    assert step.interval is not None
    assert step.interval.energy_uj == 3000 * UJ_PER_J
    assert step.unobserved_ns == 10 * NS_PER_S


def test_a_new_driver_load_is_a_reset_even_if_the_counter_rose() -> None:
    clock = FakeClock()
    last = gpu(clock, 100)
    clock.advance(10)
    step = advance(last, gpu(clock, 300, driver_load="580:2"))

    assert step.reset
    assert step.interval is not None
    assert step.interval.energy_uj == 300 * UJ_PER_J


def test_another_boot_books_a_gpu_counter_since_the_boot() -> None:
    clock = FakeClock()
    last = gpu(clock, 50_000)
    clock.reboot("boot-2", seconds_down=300)
    step = advance(last, gpu(clock, 900), recovered=True)

    assert step.reset
    assert step.interval is not None
    assert step.interval.energy_uj == 900 * UJ_PER_J
    assert step.interval.end_ns - step.interval.start_ns == 20 * NS_PER_S
    assert step.unobserved_ns == 300 * NS_PER_S


def test_another_boot_gives_rapl_a_baseline() -> None:
    clock = FakeClock()
    last = rapl(clock, 50_000)
    clock.reboot("boot-2", seconds_down=300)
    step = advance(last, rapl(clock, 60_000), recovered=True)

    assert step.interval is None
    assert step.unobserved_ns == 300 * NS_PER_S


def test_rapl_wraps_once() -> None:
    clock = FakeClock()
    last = rapl(clock, 65_532_610_987 - 40 * UJ_PER_J)
    clock.advance(1)
    step = advance(last, rapl(clock, 60 * UJ_PER_J))

    assert step.interval is not None
    assert step.interval.energy_uj == 100 * UJ_PER_J
    assert not step.reset


def test_rapl_gap_that_may_hold_a_wrap_is_unobserved_also_when_the_counter_rose() -> None:
    clock = FakeClock()
    last = rapl(clock, 0)
    clock.advance(240)  # 65.5 kJ at 280 W wrap after 234 s

    for raw_uj in (0, 5_000 * UJ_PER_J):
        step = advance(last, rapl(clock, raw_uj), recovered=True)
        assert step.interval is None
        assert step.unobserved_ns == 240 * NS_PER_S
        assert step.reason == "wraps_unknown"


def test_rapl_that_falls_over_a_sleep_is_no_wrap() -> None:
    clock = FakeClock()
    last = rapl(clock, 65_532_610_987 - 40 * UJ_PER_J)
    clock.sleep(30)
    clock.advance(1)
    step = advance(last, rapl(clock, 60 * UJ_PER_J))

    assert step.interval is None
    assert step.unobserved_ns == 31 * NS_PER_S


def test_a_mean_over_the_gap_is_a_rectangle() -> None:
    clock = FakeClock()
    last = power(clock, 100, window_s=1)
    clock.advance(1)
    step = advance(last, power(clock, 300, window_s=1))

    assert step.interval is not None
    assert step.interval.energy_uj == 300 * UJ_PER_J
    assert step.interval.quality is Quality.INTEGRATED


def test_instantaneous_power_is_a_trapezoid() -> None:
    clock = FakeClock()
    last = power(clock, 100)
    clock.advance(1)
    step = advance(last, power(clock, 300))

    assert step.interval is not None
    assert step.interval.energy_uj == 200 * UJ_PER_J


def test_a_long_gap_keeps_what_the_last_window_saw_and_says_the_rest() -> None:
    clock = FakeClock()
    last = power(clock, 100, window_s=1)
    clock.advance(10)
    step = advance(last, power(clock, 300, window_s=1))

    assert step.interval is not None
    assert step.interval.energy_uj == 300 * UJ_PER_J
    assert step.unobserved_ns == 9 * NS_PER_S


def test_power_is_never_interpolated_across_a_sleep() -> None:
    clock = FakeClock()
    last = power(clock, 100, window_s=1)
    clock.sleep(1.2)
    clock.advance(0.5)
    step = advance(last, power(clock, 300, window_s=1))

    assert step.interval is None
    assert step.unobserved_ns == round(1.7 * NS_PER_S)


def test_another_kind_of_meter_is_a_baseline() -> None:
    clock = FakeClock()
    counter = gpu(clock, 100)
    clock.advance(1)
    sensor = power(clock, 100)
    clock.advance(1)

    assert advance(counter, sensor).interval is None
    assert advance(sensor, gpu(clock, 1e6)).interval is None
    assert advance(sensor, gpu(clock, 1e6)).unobserved_ns == NS_PER_S


def test_a_stepped_wall_clock_changes_no_energy() -> None:
    clock = FakeClock()
    last = gpu(clock, 1000)
    clock.advance(1)
    clock.step_wall(-3600)
    step = advance(last, gpu(clock, 1100))

    assert step.interval is not None
    assert step.interval.energy_uj == 100 * UJ_PER_J
    assert step.interval.end_ns - step.interval.start_ns == NS_PER_S


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0.01, 200),  # seconds
            st.floats(0, 280),  # watts
            st.sampled_from(["run", "sleep", "step"]),
        ),
        max_size=30,
    ),
    range_uj=st.sampled_from([65_532_610_987, 262_143_328_850, 65_712_999_613]),
    start=st.integers(0, 65_532_610_986),
)
def test_rapl_books_what_it_counted_whatever_wraps(
    steps: list[tuple[float, float, str]], range_uj: int, start: int
) -> None:
    clock = FakeClock()
    truth = start
    last = rapl(clock, truth % range_uj, range_uj)
    booked = unobserved = spent_uj = 0
    for seconds, watts, event in steps:
        used = round(seconds * watts * UJ_PER_J)
        clock.advance(seconds)
        if event == "sleep":
            clock.sleep(30)
        elif event == "step":
            clock.step_wall(3600)
        truth += used
        now = rapl(clock, truth % range_uj, range_uj)
        step = advance(last, now)
        if step.interval is not None:
            booked += step.interval.energy_uj
            spent_uj += used
            assert step.interval.energy_uj == used
        else:
            unobserved += step.unobserved_ns
            assert step.unobserved_ns == now.at.boottime_ns - last.at.boottime_ns
        last = now

    assert booked == spent_uj


@given(
    readings=st.lists(
        st.tuples(st.floats(0.05, 5), st.integers(0, 5_000_000), st.sampled_from(["b", "c", "d"])),
        max_size=40,
    )
)
def test_a_gpu_counter_never_books_more_than_it_could_have_used(
    readings: list[tuple[float, int, str]],
) -> None:
    """Whatever the counter and the driver do, no step exceeds what the device can draw."""
    clock = FakeClock()
    last = gpu(clock, 0)
    for seconds, millijoules, load in readings:
        clock.advance(seconds)
        now = gpu(clock, millijoules / 1000, driver_load=load)
        step = advance(last, now)
        if step.interval is not None:
            assert 0 <= step.interval.energy_uj <= (1.1 * 700 * seconds + 70) * UJ_PER_J + 1
        last = now


@given(
    start=st.integers(0, 10 * SLOT_NS),
    length=st.integers(0, 20 * SLOT_NS),
    amount=st.integers(0, 10**15),
)
def test_slots_sum_to_the_whole_and_lie_in_the_span(start: int, length: int, amount: int) -> None:
    start += START_WALL_NS
    parts = list(over_slots(start, start + length, amount))

    assert sum(part for _, part in parts) == amount
    assert all(part > 0 for _, part in parts)
    assert len({slot for slot, _ in parts}) == len(parts)
    for slot_s, part in parts:
        begin, end = slot_s * NS_PER_S, slot_s * NS_PER_S + SLOT_NS
        overlap = max(0, min(end, start + length) - max(begin, start))
        if length:
            assert abs(part - amount * overlap / length) <= 1 + amount * 1e-12
