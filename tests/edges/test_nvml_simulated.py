"""The meter over the simulated driver: whatever goes wrong, no joule is booked twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TypeVar

import pytest

from fakes import FakeClock
from wattledger.core.intervals import advance
from wattledger.errors import MeterUnavailable
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.meters.simulated.driver import SimulatedNvml
from wattledger.meters.simulated.reader import load_scenario
from wattledger.model import CounterReading, MeterReport, Reading
from wattledger.units import NS_PER_S, UW_PER_W

SCENARIOS = Path(__file__).parents[2] / "configs/scenarios"
PEAK_UW = 700 * UW_PER_W
T = TypeVar("T")
DRIVER_STATES = {"no_library", "no_driver", "driver_mismatch", "driver_error"}


class Run:
    """A scenario played for a while; what the books would make of it, and what was seen.

    An absent meter is asked again when it says so, as the daemon does.

    Attributes:
        states: reasons of which the whole meter was unavailable, and those of single cards.
        faults: reasons by the card's number.
        resets: resets of its counter by the card's number.
        gaps: reasons why time of a card was unobserved.
        estimators: by the card's number, in order.
        shown: (is present, index) by the card's number, in order.
        processes: numbers of processes that were listed.
        hung_s: how long calls hung.
        loads: driver versions that counters were read with.
    """

    def __init__(self, name: str, seconds: int) -> None:
        self.clock = FakeClock()
        scenario = load_scenario(SCENARIOS / name)
        self.driver = SimulatedNvml(scenario, self.clock, sleep=self._hang)
        self.meter = NvmlMeter(self.driver, self.clock, sysfs=Path("/nonexistent"), procfs=None)
        self.numbers = {gpu.uuid: gpu.number for gpu in scenario.gpus}
        self.first: dict[str, Reading] = {}
        self.last: dict[str, Reading] = {}
        self.booked_uj: dict[str, int] = {}
        self.unobserved_ns: dict[str, int] = {}
        self.states: set[str] = set()
        self.faults: set[tuple[int, str]] = set()
        self.resets: Counter[int] = Counter()
        self.gaps: set[tuple[int, str]] = set()
        self.estimators: dict[int, list[str]] = {}
        self.shown: dict[int, list[tuple[bool, str]]] = {}
        self.mig: set[int] = set()
        self.processes: dict[int, set[int | None]] = {}
        self.hung_s: list[float] = []
        self.loads: set[str] = set()
        self.played_s = 0
        self.play_until(seconds)

    def play_until(self, seconds: int) -> None:
        """Goes on until so long after the start."""
        end_ns = self.clock.monotonic_ns + (seconds - self.played_s) * NS_PER_S
        while self.clock.monotonic_ns < end_ns:
            self._turn()
        self.played_s = seconds

    def _hang(self, seconds: float) -> None:
        self.hung_s.append(seconds)
        self.clock.advance(seconds)

    def _turn(self) -> None:
        try:
            report = self.meter.read()
        except MeterUnavailable as error:
            self.states.add(error.reason)
            self.clock.advance(error.retry_after_s)
            return
        self.states |= {fault.reason for fault in report.faults}
        self._look(report)
        for reading in report.readings:
            name = reading.device
            self.first.setdefault(name, reading)
            step = advance(self.last.get(name), reading)
            self.last[name] = reading
            energy_uj = step.interval.energy_uj if step.interval else 0
            self.booked_uj[name] = self.booked_uj.get(name, 0) + energy_uj
            self.unobserved_ns[name] = self.unobserved_ns.get(name, 0) + step.unobserved_ns
            number = self.numbers[name]
            self.resets[number] += step.reset
            if step.unobserved_ns:
                self.gaps.add((number, step.reason))
            if isinstance(reading, CounterReading):
                self.loads.add(reading.driver_load.split(":")[0])
        self.clock.advance(self.meter.interval_ns / NS_PER_S)

    def _look(self, report: MeterReport) -> None:
        for fault in report.faults:
            if fault.device:
                self.faults.add((self.numbers[fault.device], fault.reason))
        for name, estimator in self.meter.estimators().items():
            _note(self.estimators, self.numbers[name], estimator)
        for device in report.devices:
            _note(self.shown, self.numbers[device.name], (device.present, device.index))
        for name, count in report.processes.items():
            self.processes.setdefault(self.numbers[name], set()).add(count)
        self.mig |= {self.numbers[facts.uuid] for facts in self.meter.facts() if facts.mig}

    def truth_uj(self, name: str) -> int:
        start, end = self.first[name].at, self.last[name].at
        return self.driver.true_energy_uj(
            name, boottime_ns=end.boottime_ns
        ) - self.driver.true_energy_uj(name, boottime_ns=start.boottime_ns)


def _note(history: dict[int, list[T]], number: int, now: T) -> None:
    """What it is now, where it was something else before."""
    past = history.setdefault(number, [])
    if past[-1:] != [now]:
        past.append(now)


def test_a_daemon_sees_every_fault_of_the_tour() -> None:
    run = Run("faults.toml", 145)

    assert {n: count for n, count in run.resets.items() if count} == {0: 1, 1: 1}
    assert run.faults >= {
        (0, "gpu_lost"),
        (2, "counter_frozen"),
        (3, "unsupported"),
        (4, "reset_required"),
        (5, "no_permission"),
    }
    for number in (0, 4, 5):
        present = [shown[0] for shown in run.shown[number]]
        assert (present[0], False in present, present[-1]) == (True, True, True), "gone and back"
    for number in (2, 3):
        assert run.estimators[number] == ["counter", "samples", "counter"]
    assert (3, "gap") in run.gaps, "the samples that are missing"
    assert run.shown[7][0] == (True, "7"), "it appeared"
    assert [run.shown[n][-1] for n in range(8)] == [(True, str(7 - n)) for n in range(8)]
    assert run.processes[6] == {1, 2}
    assert run.mig == {2}
    assert run.hung_s and 8 < sum(run.hung_s) <= 12
    assert run.states & DRIVER_STATES == {"driver_error"}
    assert run.loads == {"570.133.20"}

    run.play_until(300)
    assert run.states >= DRIVER_STATES

    run.play_until(360)
    assert run.resets == {number: 1 + (number < 2) for number in range(8)}
    assert run.loads == {"570.133.20", "575.57.08"}
    assert all(run.meter.estimators()[name] == "counter" for name in run.numbers)


def test_tour_of_faults_books_what_was_used_and_says_what_was_not_seen() -> None:
    run = Run("faults.toml", 360)
    assert len(run.booked_uj) == 8, "the one that appears later too"
    for name, booked_uj in run.booked_uj.items():
        missing_uj = run.truth_uj(name) - booked_uj
        tick_uj = PEAK_UW // 10
        assert missing_uj >= -2 * tick_uj, "nothing is booked twice"
        assert missing_uj <= run.unobserved_ns[name] * PEAK_UW // NS_PER_S + 2 * tick_uj
    assert set(run.meter.estimators().values()) == {"counter"}, "all came back to their counters"


@pytest.mark.parametrize("name", ["eight-h100.toml", "mig.toml"])
def test_scenarios_without_faults_are_exact(name: str) -> None:
    run = Run(name, 200)
    assert run.states == set()
    for device, booked_uj in run.booked_uj.items():
        assert abs(run.truth_uj(device) - booked_uj) <= PEAK_UW // 5
        assert run.unobserved_ns[device] == 0


def test_mixed_fleet_takes_the_best_that_each_board_has() -> None:
    run = Run("mixed-fleet.toml", 120)
    by_model = {facts.model: run.meter.estimators()[facts.uuid] for facts in run.meter.facts()}
    assert by_model["Tesla V100-SXM2-32GB"] == "samples"
    assert by_model["Tesla T4"] == "instant"
    assert by_model["NVIDIA L40S"] == "counter"
    assert run.meter.module_scope(), "a GH200 is among them"
    for device, booked_uj in run.booked_uj.items():
        assert booked_uj == pytest.approx(run.truth_uj(device), rel=0.05), "sensors have a gain"
