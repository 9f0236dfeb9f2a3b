"""RAPL through a powercap tree: which zones count, what they are called, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeClock
from sysfs import (
    RANGE_AMD_UJ,
    RANGE_DRAM_UJ,
    RANGE_INTEL_UJ,
    RANGES_UJ,
    ProcTree,
    RaplTree,
    Wave,
)
from wattledger.meters.rapl import RaplMeter, survey
from wattledger.model import CounterReading, Kind, MeterReport
from wattledger.units import NS_PER_MS, NS_PER_S


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def meter_of(sysfs: Path, clock: FakeClock, **options: object) -> RaplMeter:
    return RaplMeter(clock, sysfs=sysfs, interval_ns=NS_PER_S, **options)  # type: ignore[arg-type]


def raw(report: MeterReport) -> dict[str, int]:
    counters = [reading for reading in report.readings if isinstance(reading, CounterReading)]
    return {reading.device: reading.raw_uj for reading in counters}


def test_packages_and_dram_are_read_and_nothing_else(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path, packages=2) as tree:
        for number, zone in enumerate(tree.directories, 1):
            tree.set_energy_uj(zone, number * 1000)
        meter = meter_of(tmp_path, clock)

        report = meter.read()

        expected = {
            "cpu0": "package-0",
            "dram0": "package-0/dram",
            "cpu1": "package-1",
            "dram1": "package-1/dram",
        }
        order = list(tree.directories)
        assert raw(report) == {
            device: (order.index(zone) + 1) * 1000 for device, zone in expected.items()
        }
        kinds = {device.name: device.kind for device in report.devices}
        assert kinds == {name: Kind(name.rstrip("01")) for name in expected}
        assert not report.faults
        meter.close()


def test_a_reading_says_all_that_its_meaning_depends_on(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path) as tree:
        tree.set_energy_uj("package-0", 42)
        meter = meter_of(tmp_path, clock)

        package, dram = meter.read().readings

        assert package == CounterReading(
            device="cpu0",
            at=clock.now(),
            raw_uj=42,
            range_uj=RANGE_INTEL_UJ,
            max_power_uw=300_000_000,
            tick_ns=NS_PER_MS,
            boot_id="boot-1",
        )
        assert isinstance(dram, CounterReading)
        assert (dram.range_uj, dram.max_power_uw) == (RANGE_DRAM_UJ, 300_000_000)
        meter.close()


def test_the_values_are_read_anew_each_turn(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path, dram=False) as tree:
        meter = meter_of(tmp_path, clock)
        seen = []
        for value in (10_000_000_000, 9, 123_456):  # a shorter number after a longer one
            tree.set_energy_uj("package-0", value)
            seen.append(raw(meter.read())["cpu0"])
            clock.advance(1)

        assert seen == [10_000_000_000, 9, 123_456]
        meter.close()


@given(
    range_uj=st.sampled_from(RANGES_UJ),
    start_uj=st.integers(0, RANGE_INTEL_UJ),
    steps=st.lists(st.integers(0, RANGE_DRAM_UJ // 2), min_size=1, max_size=8),
)
@settings(max_examples=25, deadline=None)
def test_wraps_of_every_range_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, range_uj: int, start_uj: int, steps: list[int]
) -> None:
    clock = FakeClock()
    sysfs = tmp_path_factory.mktemp("sys")
    with RaplTree(sysfs, dram=False, range_uj=range_uj, start_uj=start_uj) as tree:
        meter = meter_of(sysfs, clock)
        true_uj = total_uj = 0
        before = meter.read().readings[0]
        for step_uj in steps:
            true_uj += step_uj
            tree.set_energy_uj("package-0", tree.start_uj["package-0"] + true_uj)
            clock.advance(1)
            after = meter.read().readings[0]
            assert isinstance(before, CounterReading) and isinstance(after, CounterReading)
            assert after.range_uj == range_uj
            total_uj += (after.raw_uj - before.raw_uj) % range_uj
            before = after

        assert total_uj == true_uj
        meter.close()


def test_dies_have_names_of_their_own(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path, packages=2, dies=2):
        meter = meter_of(tmp_path, clock)

        names = {device.name for device in meter.read().devices}

        assert names == {
            f"{kind}{package}-die{die}"
            for kind in ("cpu", "dram")
            for package in (0, 1)
            for die in (0, 1)
        }
        meter.close()


def test_a_name_does_not_depend_on_what_else_is_there(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path, packages=3, dram=False) as tree:
        tree.remove("package-0")
        tree.set_energy_uj("package-2", 7)
        meter = meter_of(tmp_path, clock)

        assert raw(meter.read()) == {"cpu1": 0, "cpu2": 7}
        meter.close()


def test_ten_zones_keep_their_order(tmp_path: Path) -> None:
    with RaplTree(tmp_path, packages=12, dram=False):
        order = [zone.device.name for zone in survey(tmp_path) if zone.device is not None]

        assert order == [f"cpu{number}" for number in range(12)]


def test_without_the_class_the_devices_are_found(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path, virtual_only=True):
        meter = meter_of(tmp_path, clock)

        assert set(raw(meter.read())) == {"cpu0", "dram0"}
        meter.close()


@pytest.mark.parametrize(
    ("max_power_w", "limit_w", "expected_w"),
    [
        (150, 180, 300),  # twice the design power
        (125, 4096, 1500),  # "unlimited" is not believed
        (15, 64, 150),  # nothing believable is so low
        (0, 280, 280),  # no design power stated
        (0, 0, 600),  # nothing stated
    ],
)
def test_a_package_cannot_draw_more_than_its_bound(
    tmp_path: Path, clock: FakeClock, max_power_w: int, limit_w: int, expected_w: int
) -> None:
    with RaplTree(tmp_path, dram=False) as tree:
        tree.drop_constraints("package-0")
        tree.constraint("package-0", 0, "long_term", max_power_w=max_power_w, limit_w=0)
        tree.constraint("package-0", 1, "short_term", max_power_w=9999, limit_w=limit_w)
        (zone,) = [zone for zone in survey(tmp_path) if zone.usable]

        assert zone.max_power_uw == expected_w * 1_000_000


def test_the_configuration_overrules_the_bound(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path, range_uj=RANGE_AMD_UJ) as tree:
        tree.drop_constraints("package-0")
        meter = meter_of(tmp_path, clock, max_power_w={Kind.CPU: 900.0, Kind.DRAM: 40.0})

        bounds = {
            reading.device: reading.max_power_uw
            for reading in meter.read().readings
            if isinstance(reading, CounterReading)
        }
        assert bounds == {"cpu0": 900_000_000, "dram0": 40_000_000}
        meter.close()


def test_the_model_comes_from_procfs(tmp_path: Path, clock: FakeClock) -> None:
    proc = ProcTree(tmp_path / "proc", model="Some  CPU")
    with RaplTree(tmp_path / "sys"):
        meter = meter_of(tmp_path / "sys", clock, procfs=proc.procfs)

        models = {device.name: device.model for device in meter.read().devices}
        assert models == {"cpu0": "Some CPU", "dram0": ""}
        meter.close()


def test_every_unused_zone_says_why(tmp_path: Path) -> None:
    with RaplTree(tmp_path):
        reasons = {zone.label: zone.message for zone in survey(tmp_path) if zone.device is None}

        assert reasons == {
            "intel-rapl:0:0 (core)": "is inside its package; never added",
            "intel-rapl:0:1 (uncore)": "is inside its package; never added",
            "intel-rapl:1 (psys)": "is the platform around the packages; never added",
            "intel-rapl-mmio:0 (package-0)": "shows the packages a second time; never added",
        }


def test_a_package_inside_a_package_is_not_known(tmp_path: Path) -> None:
    with RaplTree(tmp_path) as tree:
        inside = tree.directories["package-0"] / "intel-rapl:0:9"
        tree.add("package-0/odd", inside, "package-1", RANGE_AMD_UJ)

        assert {zone.zone for zone in survey(tmp_path) if zone.device is not None} == {
            "intel-rapl:0",
            "intel-rapl:0:2",
        }


@pytest.mark.parametrize("name", ["package-0", "dram", "package-", "package-x", "gpu", ""])
def test_a_strange_or_doubled_zone_is_never_added(tmp_path: Path, name: str) -> None:
    with RaplTree(tmp_path) as tree:
        directory = tmp_path / "devices/virtual/powercap/intel-rapl/intel-rapl:7"
        tree.add("strange", directory, name, RANGE_AMD_UJ)

        used = [zone.zone for zone in survey(tmp_path) if zone.device is not None]

        assert used == ["intel-rapl:0", "intel-rapl:0:2"]


# ── the fixture itself ──────────────────────────────────────────────────────────────────────────


@given(
    watts=st.tuples(st.integers(0, 700), st.integers(0, 700)),
    high_ms=st.integers(0, 300),
    at_ms=st.integers(0, 10_000),
)
def test_the_waves_closed_form_is_the_sum_of_its_milliseconds(
    watts: tuple[int, int], high_ms: int, at_ms: int
) -> None:
    wave = Wave(watts[0] * 10**6, watts[1] * 10**6, 300 * NS_PER_MS, high_ms * NS_PER_MS)
    summed = sum(watts[0] if ms % 300 < high_ms else watts[1] for ms in range(at_ms)) * 1000

    assert wave.energy_uj(at_ms * NS_PER_MS) == summed


def test_the_tree_moves_by_itself_and_knows_the_truth(tmp_path: Path) -> None:
    tree = RaplTree(tmp_path, dram=False, waves={"package-0": Wave.constant(250)})
    moments = iter(range(0, 10**12, 7 * NS_PER_MS))
    with tree, tree.follow(period_s=0.0001, clock_ns=lambda: next(moments)):
        path = tree.directories["package-0"] / "energy_uj"
        while not (shown := int(path.read_bytes())):
            pass

    assert shown % tree.true_energy_uj("package-0", 7 * NS_PER_MS) == 0
