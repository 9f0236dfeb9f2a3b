"""Who uses a shared GPU how much, as NVML tells it, with the traps of that call."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_nvml import FakeGpu, FakeNvml
from fakes import FakeClock
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.meters.nvml.multiprocessors import RING_US
from wattledger.model.measuring import Process

UUID = "GPU-a"
Sm = dict[int, int | None]


class Shared:
    """A GPU with two processes, and a meter over it."""

    def __init__(self, **more: object) -> None:
        self.clock = FakeClock()
        self.gpu = FakeGpu(UUID, pids=[7, 8], use={}, **more)  # type: ignore[arg-type]
        self.driver = FakeNvml(self.clock, self.gpu)
        self.meter = NvmlMeter(self.driver, self.clock, sysfs=Path("/nonexistent"), procfs=None)
        self.listed: tuple[Process, ...] | None = None

    def now_us(self) -> int:
        return self.clock.wall_ns // 1000

    def used(self, age_s: float = 0.5, **percent: int) -> None:
        """The rows of the driver: p7=70 is pid 7 at 70 per cent, so long ago."""
        stamp_us = self.now_us() - round(age_s * 1e6)
        assert self.gpu.use is not None
        for name, value in percent.items():
            self.gpu.use.setdefault(int(name[1:]), []).append((stamp_us, value))

    def turns(self, count: int) -> Sm:
        """So many seconds; the use of each process as told at the end."""
        for _ in range(count):
            self.listed = self.meter.read().listed.get(UUID)
            self.clock.advance(1)
        return {p.pid: p.sm for p in self.listed or ()}

    def asked(self) -> int:
        """How often the use was asked for; two calls of the library each."""
        return self.driver.calls.count("use") // 2


def test_each_ones_use_is_told_once_it_was_asked_for() -> None:
    s = Shared()
    assert s.turns(4) == {7: None, 8: None}, "nothing was asked yet"
    s.used(p7=70, p8=30)
    assert s.turns(4) == {7: 70, 8: 30}
    s.used(p7=10)
    s.gpu.use = {7: s.gpu.use[7][-1:]}  # type: ignore[index]
    assert s.turns(15) == {7: 10, 8: 0}, "no row is no use"


def test_samples_of_one_process_are_summed_up_and_none_counts_twice() -> None:
    s = Shared()
    s.turns(4)
    s.used(2.5, p7=40)
    s.used(1.5, p7=50)
    s.used(0.5, p8=10)
    s.gpu.use[7] *= 2  # type: ignore[index] # each row comes twice
    assert s.turns(4) == {7: 90, 8: 10}
    # The driver gives the old rows again, as long as its ring holds them.
    assert s.turns(15) == {7: 0, 8: 0}
    s.used(0.5, p8=20)
    assert s.turns(15) == {7: 0, 8: 20}


def test_rows_of_others_and_nonsense_are_left_out() -> None:
    s = Shared()
    s.turns(4)
    s.used(p7=60, p8=40, p99=100, p0=100)
    assert s.turns(4) == {7: 60, 8: 40}
    s.used(p7=60, p8=4_000_000_000)
    assert s.turns(15) == {7: 60, 8: None}, "more than the whole is no use, and not 0 either"


@pytest.mark.parametrize("code", [6, 0])
def test_no_samples_are_no_use(code: int) -> None:
    """NOT_FOUND; and pynvml raises success where the library counts no rows at once."""
    s = Shared(use_error=code or 6)
    if not code:
        s.gpu.use_error = 0
        error = s.driver.NVMLError(0)
        s.driver.nvmlDeviceGetProcessUtilization = _raising(error)  # type: ignore[method-assign, assignment]
    assert s.turns(9) == {7: 0, 8: 0}


def _raising(error: Exception) -> object:
    def ask(handle: object, since_us: int) -> list[object]:
        raise error

    return ask


def test_a_passing_error_leaves_it_untold_and_it_is_asked_again() -> None:
    s = Shared(use_error=999)
    assert s.turns(9) == {7: None, 8: None}
    s.gpu.use_error = 0
    s.used(p7=70, p8=30)
    assert s.turns(15) == {7: 70, 8: 30}
    s.gpu.use_error = 10
    assert s.turns(15) == {7: None, 8: None}, "what was told before is old"


@pytest.mark.parametrize("code", [3, 4, 13])
def test_a_board_that_does_not_tell_is_asked_once(code: int) -> None:
    s = Shared(use_error=code)
    asked: list[int] = []
    s.driver.nvmlDeviceGetProcessUtilization = _counting(s.driver, asked)  # type: ignore[method-assign, assignment]
    assert s.turns(60) == {7: None, 8: None}
    assert len(asked) == 1
    s.meter.close()
    s.turns(10)
    assert len(asked) == 2, "a new driver may know more"


def _counting(driver: FakeNvml, asked: list[int]) -> object:
    ask = driver.nvmlDeviceGetProcessUtilization

    def counted(handle: FakeGpu, since_us: int) -> list[object]:
        asked.append(since_us)
        return ask(handle, since_us)

    return counted


def test_more_rows_than_a_moment_ago_are_asked_for_again_at_once() -> None:
    s = Shared()
    ask = s.driver.nvmlDeviceGetProcessUtilization
    tries: list[int] = []

    def grown(handle: FakeGpu, since_us: int) -> list[object]:
        tries.append(since_us)
        if len(tries) == 1:
            raise s.driver.NVMLError(7)
        return ask(handle, since_us)

    s.driver.nvmlDeviceGetProcessUtilization = grown  # type: ignore[method-assign, assignment]
    s.turns(4)
    s.used(p7=70, p8=30)
    assert s.turns(4) == {7: 70, 8: 30}
    assert len(tries) == 2


def test_who_is_alone_is_not_asked_about() -> None:
    s = Shared()
    s.gpu.pids = [7]
    s.used(p7=70)
    assert s.turns(60) == {7: None}
    assert s.asked() == 0
    s.gpu.pids = [7, 8]
    s.used(p7=70, p8=10)
    assert s.turns(20) == {7: 70, 8: 10}
    s.gpu.pids = [8]
    assert s.turns(15) == {8: None}


def test_one_who_came_since_is_not_told_of_yet() -> None:
    s = Shared()
    s.used(p7=70, p8=30)
    s.turns(9)
    s.gpu.pids = [7, 8, 9]
    seen = []
    for _ in range(20):
        told = s.turns(1)
        if told.get(9, 0) is None:
            seen.append(told)
    assert seen[0] == {7: 70, 8: 30, 9: None}
    assert s.turns(1)[9] == 0


def test_the_list_is_another_tuple_when_the_use_changed() -> None:
    s = Shared()
    s.turns(4)
    before = s.listed
    s.turns(1)
    assert s.listed is before
    s.used(p7=70)
    s.turns(4)
    assert s.listed is not before


def test_questions_go_on_from_the_newest_sample_and_over_steps_of_the_wall_clock() -> None:
    s = Shared()
    s.turns(4)
    s.used(p7=70)
    newest_us = s.gpu.use[7][0][0]  # type: ignore[index]
    s.turns(20)
    first, second, *_ = s.driver.use_asked_us
    assert newest_us - 5_000_000 <= first + RING_US <= newest_us + 5_000_000
    assert second == newest_us
    s.clock.step_wall(-3600)
    s.gpu.use = {}
    s.turns(5)
    s.used(p8=50)
    assert s.turns(15) == {7: 0, 8: 50}, "stamps began anew below the newest one"
    asked = len(s.driver.use_asked_us)
    s.clock.step_wall(7200)
    s.turns(30)
    assert all(s.now_us() - us < RING_US + 60e6 for us in s.driver.use_asked_us[asked:])


def test_shared_gpus_stay_within_the_budget() -> None:
    """1.5 calls per GPU and second, whether the processes stay or come and go all the time."""
    clock = FakeClock()
    ring: list[tuple[int, int]] = []
    gpus = [
        FakeGpu(f"GPU-{i}", pids=[i + 10, i + 20], use={i + 10: ring}, busy_samples=ring)
        for i in range(8)
    ]
    driver = FakeNvml(clock, *gpus)
    meter = NvmlMeter(driver, clock, sysfs=Path("/nonexistent"), procfs=None)
    told = 0
    for second in range(1200):
        ring[:] = [*ring[-20:], (clock.wall_ns // 1000 - 500_000, 50)]
        for gpu in gpus[:4]:
            gpu.pids[1] = 100 + second // 5
        before = len(driver.calls)
        report = meter.read()
        if second > 30:
            assert len(driver.calls) - before <= 8 * 4, "questions are spread over the turns"
            told += report.used.get("GPU-7") is True
        clock.advance(1)
    assert len(driver.calls) / 8 / 1200 <= 1.5
    assert told >= 1170 // 16, "what is held and not used is told all the same"
    assert driver.calls.count("use") / 2 >= 8 * 1200 // 16
