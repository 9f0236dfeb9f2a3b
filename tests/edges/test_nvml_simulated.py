"""The meter over the simulated driver: whatever goes wrong, no joule is booked twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes import FakeClock
from wattledger.core.intervals import advance
from wattledger.errors import MeterUnavailable
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.meters.simulated.driver import SimulatedNvml
from wattledger.meters.simulated.reader import load_scenario
from wattledger.model import Reading
from wattledger.units import NS_PER_S, UW_PER_W

SCENARIOS = Path(__file__).parents[2] / "configs/scenarios"
PEAK_UW = 700 * UW_PER_W


class Run:
    """A scenario played for a while; what the books would make of it."""

    def __init__(self, name: str, seconds: int) -> None:
        self.clock = FakeClock()
        scenario = load_scenario(SCENARIOS / name)
        self.driver = SimulatedNvml(scenario, self.clock, sleep=self._hang)
        self.meter = NvmlMeter(self.driver, self.clock, sysfs=Path("/nonexistent"), procfs=None)
        self.first: dict[str, Reading] = {}
        self.last: dict[str, Reading] = {}
        self.booked_uj: dict[str, int] = {}
        self.unobserved_ns: dict[str, int] = {}
        self.states: set[str] = set()
        end_ns = self.clock.monotonic_ns + seconds * NS_PER_S
        while self.clock.monotonic_ns < end_ns:
            self._turn()

    def _hang(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def _turn(self) -> None:
        try:
            report = self.meter.read()
        except MeterUnavailable as error:
            self.states.add(error.reason)
            self.clock.advance(min(error.retry_after_s, 5))
            return
        self.states |= {fault.reason for fault in report.faults}
        for reading in report.readings:
            name = reading.device
            self.first.setdefault(name, reading)
            step = advance(self.last.get(name), reading)
            self.last[name] = reading
            energy_uj = step.interval.energy_uj if step.interval else 0
            self.booked_uj[name] = self.booked_uj.get(name, 0) + energy_uj
            self.unobserved_ns[name] = self.unobserved_ns.get(name, 0) + step.unobserved_ns
        self.clock.advance(self.meter.interval_ns / NS_PER_S)

    def truth_uj(self, name: str) -> int:
        start, end = self.first[name].at, self.last[name].at
        return self.driver.true_energy_uj(
            name, boottime_ns=end.boottime_ns
        ) - self.driver.true_energy_uj(name, boottime_ns=start.boottime_ns)


def test_tour_of_faults_books_what_was_used_and_says_what_was_not_seen() -> None:
    run = Run("faults.toml", 900)
    assert len(run.booked_uj) == 8, "the one that appears later too"
    for name, booked_uj in run.booked_uj.items():
        missing_uj = run.truth_uj(name) - booked_uj
        tick_uj = PEAK_UW // 10
        assert missing_uj >= -2 * tick_uj, "nothing is booked twice"
        assert missing_uj <= run.unobserved_ns[name] * PEAK_UW // NS_PER_S + 2 * tick_uj
    assert set(run.meter.estimators().values()) == {"counter"}, "all came back to their counters"
    assert {"no_library", "no_driver", "driver_mismatch", "driver_error"} <= run.states
    assert {"gpu_lost", "no_permission"} <= run.states


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
