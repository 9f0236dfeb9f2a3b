"""The closed forms against numeric integration, and the counter against the truth."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeClock
from wattledger.meters.simulated import SimulatedNvml, parse_scenario
from wattledger.meters.simulated.waveforms import (
    Piecewise,
    Sine,
    Waveform,
    bursts,
    constant,
    square,
    trace,
)
from wattledger.units import NS_PER_MS, NS_PER_S

WEEK_NS = 7 * 86_400 * NS_PER_S
watts = st.integers(0, 700).map(lambda w: w * 1_000_000)
length = st.integers(1, 5_000).map(lambda ms: ms * NS_PER_MS)
phase = st.integers(0, 20_000).map(lambda ms: ms * NS_PER_MS)


@st.composite
def waveforms(draw: st.DrawFn) -> Waveform:
    kind = draw(st.sampled_from(["constant", "square", "sine", "burst", "step", "linear"]))
    low, high = sorted((draw(watts), draw(watts)))
    if kind == "constant":
        return constant(high)
    if kind == "square":
        period = draw(length)
        return square(low, high, period, draw(st.integers(0, period)), draw(phase))
    if kind == "sine":
        return Sine(high, low, draw(length), draw(phase))
    if kind == "burst":
        every = draw(length)
        width = draw(st.integers(1, every))
        offsets = draw(st.lists(st.integers(0, every - width), min_size=1, max_size=4))
        return bursts(low, high, width, every, offsets, draw(phase))
    steps = draw(st.lists(st.tuples(length, watts), min_size=2, max_size=6))
    points, at = [], 0
    for step, power in steps:
        points.append((at, power))
        at += step
    return trace(points, kind == "linear", draw(phase))


@settings(max_examples=60, deadline=None)
@given(waveforms(), st.integers(0, WEEK_NS), st.integers(1, 4_000))
def test_energy_is_the_integral_of_power(wave: Waveform, start: int, span_ms: int) -> None:
    end, steps = start + span_ms * NS_PER_MS, 2_000
    dt = (end - start) / steps

    numeric = sum(wave.power_uw(start + round((i + 0.5) * dt)) for i in range(steps)) * dt
    exact = wave.energy_uwns(end) - wave.energy_uwns(start)

    jumps = 12 + 12 * (end - start) / wave.period_ns  # each may be missed by a step
    assert abs(exact - numeric) <= (wave.peak_uw - wave.floor_uw) * dt * jumps + 1e-6 * numeric + 10


@given(waveforms(), st.integers(-WEEK_NS, WEEK_NS), st.integers(0, 10_000))
def test_a_cycle_always_holds_the_same_energy(wave: Waveform, at: int, cycles: int) -> None:
    one = wave.energy_uwns(wave.period_ns) - wave.energy_uwns(0)
    several = wave.energy_uwns(at + cycles * wave.period_ns) - wave.energy_uwns(at)

    assert several == pytest.approx(one * cycles, abs=cycles + 100)


@given(waveforms(), st.integers(0, WEEK_NS), st.integers(0, WEEK_NS))
def test_energy_grows_between_floor_and_peak(wave: Waveform, one: int, other: int) -> None:
    start, end = sorted((one, other))
    energy = wave.energy_uwns(end) - wave.energy_uwns(start)

    slack = 1_000 if isinstance(wave, Sine) else 1  # µW·ns: a float's error
    assert wave.floor_uw * (end - start) - slack <= energy
    assert energy <= wave.peak_uw * (end - start) + slack


@settings(max_examples=40, deadline=None)
@given(waveforms(), st.integers(0, WEEK_NS), st.integers(50, 250))
def test_the_lag_keeps_the_energy(wave: Waveform, at: int, tau_ms: int) -> None:
    """y' = (P − y)/τ, so ∫P = ∫y + τ·Δy; the step is fine enough for the trapezoid."""
    tau, steps = tau_ms * NS_PER_MS, 400
    span = 2 * tau
    ticks = [at + span * i // steps for i in range(steps + 1)]
    lagged = [wave.lagged_uw(tick, tau) for tick in ticks]

    integral = sum(
        (a + b) / 2 * (t1 - t0)
        for (a, b), (t0, t1) in zip(pairwise(lagged), pairwise(ticks), strict=True)
    )
    energy = wave.energy_uwns(at + span) - wave.energy_uwns(at)

    assert all(wave.floor_uw - 200 <= y <= wave.peak_uw * (1 + 1e-6) + 200 for y in lagged)
    assert energy == pytest.approx(
        integral + tau * (lagged[-1] - lagged[0]), abs=wave.peak_uw * span / steps + 1e3
    )


def test_a_square_is_known_by_hand() -> None:
    wave = square(60_000_000, 600_000_000, 300 * NS_PER_MS, 150 * NS_PER_MS)

    assert wave.energy_uwns(3 * NS_PER_S) == 330_000_000 * 3 * NS_PER_S
    assert wave.energy_uwns(100 * NS_PER_MS) == 600_000_000 * 100 * NS_PER_MS
    assert [wave.power_uw(ms * NS_PER_MS) for ms in (0, 149, 150, 299, 300)] == [
        600_000_000, 600_000_000, 60_000_000, 60_000_000, 600_000_000,
    ]  # fmt: skip


def test_a_sine_lags_as_a_low_pass_does() -> None:
    """At ωτ = 1 the swing falls to 1/√2 and comes an eighth of a cycle late."""
    wave = Sine(300_000_000, 200_000_000, NS_PER_S)
    tau = round(NS_PER_S / math.tau)

    assert wave.lagged_uw(NS_PER_S * 3 // 8, tau) == pytest.approx(300e6 + 200e6 / math.sqrt(2))


def test_pieces_must_have_length() -> None:
    with pytest.raises(ValueError, match="longer than 0"):
        Piecewise([(0, 1, 1)])


# ── the counter ─────────────────────────────────────────────────────────────────────────────────

WAVES = [
    'kind = "constant", watts = 300',
    'kind = "square", low_w = 60, high_w = 600, period_s = 0.3',
    'kind = "sine", mean_w = 300, amplitude_w = 300, period_s = 7.3',
    'kind = "burst", low_w = 70, high_w = 700, width_s = 0.08, every_s = 1, random = true',
    'kind = "trace", points = [[0, 80], [1.7, 650], [3.1, 90]], interpolation = "linear"',
]


def driver_of(text: str, clock: FakeClock) -> SimulatedNvml:
    driver = SimulatedNvml(parse_scenario(text, "test.toml"), clock)
    driver.nvmlInit()
    return driver


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(WAVES),
    st.integers(0, 1_000),
    st.lists(st.integers(1, 3_000_000_000), min_size=2, max_size=20),
)
def test_the_counter_is_the_truth_at_most_a_tick_late(
    wave: str, seed: int, steps: list[int]
) -> None:
    clock = FakeClock()
    driver = driver_of(
        f'seed = {seed}\n[[gpu]]\nmodel = "H100 SXM"\nwaveform = {{ {wave} }}\n', clock
    )
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    before = 0
    for step in steps:
        clock.advance(step / NS_PER_S)
        shown_uj = driver.nvmlDeviceGetTotalEnergyConsumption(handle) * 1000
        truth_uj = driver.true_energy_uj(0)

        assert shown_uj <= truth_uj
        assert truth_uj - shown_uj <= 700_000_000 // 10 + 1_000  # a tick at 700 W, and 1 mJ
        assert shown_uj >= before
        before = shown_uj


def test_the_counter_stands_still_between_ticks() -> None:
    clock = FakeClock()
    driver = driver_of(f'[[gpu]]\nmodel = "H100 SXM"\nwaveform = {{ {WAVES[0]} }}\n', clock)
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    shown = []
    for _ in range(1_000):
        clock.advance(0.001)
        shown.append(driver.nvmlDeviceGetTotalEnergyConsumption(handle))

    assert len(set(shown)) in (10, 11)  # one second, ticks of 100 ms
    assert {b - a for a, b in pairwise(sorted(set(shown)))} == {30_000}  # 300 W × 0.1 s in mJ


def test_lag_gain_and_offset_distort_the_counter_only() -> None:
    clock = FakeClock()
    text = (
        '[[gpu]]\nmodel = "H100 SXM"\nwaveform = {{ kind = "constant", watts = 300 }}\n'
        "sensor = {{ {} }}\n"
    )
    plain = driver_of(text.format(""), clock)
    odd = driver_of(text.format("gain = 0.95, offset_w = 3, lag_ms = 200"), clock)
    shown = [
        d.nvmlDeviceGetTotalEnergyConsumption(d.nvmlDeviceGetHandleByIndex(0)) for d in (plain, odd)
    ]

    ticks_s = shown[0] / 300_000
    assert shown[1] == pytest.approx((ticks_s - 0.2) * (0.95 * 300 + 3) * 1000, abs=1)
    assert plain.true_energy_uj(0) == odd.true_energy_uj(0) == 300 * 1_000_000_000


def test_a_counter_that_adds_windows_locks_on_to_the_load() -> None:
    """25 ms of every 100 ms seen: right on average over phases, far off at each one."""
    clock = FakeClock()
    text = (
        'seed = {}\n[[gpu]]\nmodel = "H100 SXM"\nsensor = {{ mode = "window" }}\n'
        'waveform = {{ kind = "square", low_w = 60, high_w = 600, period_s = 0.1 }}\n'
    )
    ratios = []
    for seed in range(60):
        driver = driver_of(text.format(seed), clock)
        handle = driver.nvmlDeviceGetHandleByIndex(0)
        shown_mj = driver.nvmlDeviceGetTotalEnergyConsumption(handle)
        ratios.append(shown_mj * 1000 / driver.true_energy_uj(0))

    assert min(ratios) < 0.25 and max(ratios) > 1.7  # 60 W or 600 W for 330 W
    assert sum(ratios) / len(ratios) == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("wave", WAVES[:3])
def test_a_counter_that_adds_windows_agrees_with_adding_them_one_by_one(wave: str) -> None:
    clock = FakeClock()
    offset = clock.wall_ns - clock.boottime_ns
    text = f'[[gpu]]\nmodel = "H100 SXM"\nsensor = {{ mode = "window" }}\nwaveform = {{ {wave} }}\n'
    driver = driver_of(text, clock)
    handle = driver.nvmlDeviceGetHandleByIndex(0)
    energy = driver.scenario.gpus[0].waveform.energy_uwns
    window, tick = 25 * NS_PER_MS, 100 * NS_PER_MS
    start = driver.nvmlDeviceGetFieldValues(handle, [83])[0]
    seen, added = start.timestamp, 0
    for _ in range(400):
        clock.advance(0.07)
        stamp = driver.nvmlDeviceGetFieldValues(handle, [83])[0].timestamp
        if stamp != seen:
            at = stamp * 1000 - offset
            added += (energy(at) - energy(at - window)) * tick // window
            seen = stamp
    moved_mj = driver.nvmlDeviceGetTotalEnergyConsumption(handle) - start.value.ullVal

    assert moved_mj == pytest.approx(added / 1e12, rel=1e-4)  # stamps are whole µs


def test_a_week_of_uptime_needs_no_stepping() -> None:
    """The shipped waveforms at a week's uptime: the same energy as a week times the mean."""
    clock = FakeClock()
    clock.boottime_ns = WEEK_NS
    for wave in WAVES:
        driver = driver_of(f'[[gpu]]\nmodel = "H100 SXM"\nwaveform = {{ {wave} }}\n', clock)
        wf = driver.scenario.gpus[0].waveform
        mean = wf.energy_uwns(wf.period_ns) / wf.period_ns

        assert driver.true_energy_uj(0) == pytest.approx(mean * WEEK_NS / 1e9, rel=1e-4)


def test_a_process_that_starts_again_finds_the_counter_moved_on() -> None:
    clock = FakeClock()
    text = f'[[gpu]]\nmodel = "H100 SXM"\ncount = 2\nwaveform = {{ {WAVES[1]} }}\n'
    first = driver_of(text, clock)
    before = first.nvmlDeviceGetTotalEnergyConsumption(first.nvmlDeviceGetHandleByIndex(1))
    uuid = first.nvmlDeviceGetUUID(first.nvmlDeviceGetHandleByIndex(1))
    clock.advance(12)
    second = driver_of(text, clock)
    handle = second.nvmlDeviceGetHandleByUUID(uuid)

    moved = second.nvmlDeviceGetTotalEnergyConsumption(handle) - before
    assert moved == 12 * 330 * 1000  # 40 whole cycles, and 120 whole ticks
