"""Grace's ACPI power meters: the socket once, never its parts, never beside its module."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeClock
from sysfs import HwmonTree, put
from wattledger.errors import MeterUnavailable
from wattledger.meters.hwmon import POLL_NS, HwmonMeter, survey
from wattledger.model import Kind, MeterReport, PowerReading, Quality
from wattledger.units import NS_PER_MS, NS_PER_S


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def powers(report: MeterReport) -> dict[str, int]:
    shown = [reading for reading in report.readings if isinstance(reading, PowerReading)]
    return {reading.device: reading.power_uw for reading in shown}


@pytest.mark.parametrize("in_device", [True, False])
def test_only_the_sockets_are_read(tmp_path: Path, clock: FakeClock, in_device: bool) -> None:
    tree = HwmonTree(tmp_path, sockets=2, in_device=in_device)
    watts = {"Module": 700, "Grace": 250, "CPU": 120, "SysIO": 60}
    for scope, socket in tree.directories:
        tree.set_power_uw(scope, socket, watts[scope] * 10**6 + socket)
    meter = HwmonMeter(clock, sysfs=tmp_path)

    report = meter.read()

    assert powers(report) == {"cpu0": 250_000_000, "cpu1": 250_000_001}
    assert {(device.name, device.kind) for device in report.devices} == {
        ("cpu0", Kind.CPU),
        ("cpu1", Kind.CPU),
    }
    assert not report.faults
    meter.close()


def test_a_reading_says_over_what_it_is_the_mean(tmp_path: Path, clock: FakeClock) -> None:
    tree = HwmonTree(tmp_path, interval_ms=100)
    tree.set_power_uw("Grace", 0, 5)
    meter = HwmonMeter(clock, sysfs=tmp_path)

    assert meter.read().readings == (
        PowerReading(
            "cpu0",
            clock.now(),
            5,
            window_ns=100 * NS_PER_MS,
            max_gap_ns=2500 * NS_PER_MS,
            quality=Quality.INTEGRATED,
        ),
    )
    meter.close()


@pytest.mark.parametrize(("text", "window_ms"), [("", 50), ("x", 50), ("-4", 1), ("99999", 1000)])
def test_a_strange_averaging_interval_does_no_harm(
    tmp_path: Path, text: str, window_ms: int
) -> None:
    tree = HwmonTree(tmp_path, scopes=("Grace",))
    put(tree.directories["Grace", 0] / "power1_average_interval", text)

    (sensor,) = survey(tmp_path)

    assert sensor.window_ns == window_ms * NS_PER_MS


@pytest.mark.parametrize("period_ms", [100, 200, 250, 500, 1000])
def test_the_period_drifts_through_the_phases_of_a_load(period_ms: int) -> None:
    phases = {POLL_NS // NS_PER_MS * turn % period_ms for turn in range(200)}

    assert len(phases) >= 10
    gaps = [b - a for a, b in itertools.pairwise(sorted(phases))]
    assert max(gaps) <= period_ms / 10


def test_unused_meters_say_why(tmp_path: Path) -> None:
    HwmonTree(tmp_path)

    reasons = {sensor.label: sensor.message for sensor in survey(tmp_path) if not sensor.device}

    assert reasons == {
        "Module Power Socket 0": "holds the GPU as well; never added",
        "CPU Power Socket 0": "is inside the Grace meter; never added",
        "SysIO Power Socket 0": "is inside the Grace meter; never added",
    }


def test_a_second_meter_of_a_socket_is_never_added(tmp_path: Path) -> None:
    tree = HwmonTree(tmp_path, sockets=2, scopes=("Grace",))
    put(tree.directories["Grace", 1] / "power1_oem_info", "Grace Power Socket 0")

    assert [sensor.usable for sensor in survey(tmp_path)] == [True, False]


@pytest.mark.parametrize(
    "info", ["", "Grace Power Socket", "Grace Power Socket -1", "Total Power Socket 0", "\x00"]
)
def test_what_is_not_known_is_not_read(tmp_path: Path, clock: FakeClock, info: str) -> None:
    tree = HwmonTree(tmp_path, scopes=("Grace",))
    put(tree.directories["Grace", 0] / "power1_oem_info", info)

    with pytest.raises(MeterUnavailable) as caught:
        HwmonMeter(clock, sysfs=tmp_path).read()

    assert caught.value.reason == "absent"
    assert "force_cap_on=y" in caught.value.hint


def test_no_hwmon_at_all_is_absent(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(MeterUnavailable) as caught:
        HwmonMeter(clock, sysfs=tmp_path).read()

    assert caught.value.reason == "absent"


def test_a_meter_inside_the_gpus_module_stands_back(tmp_path: Path, clock: FakeClock) -> None:
    HwmonTree(tmp_path)
    answers = iter([False, True, True, False])
    meter = HwmonMeter(clock, sysfs=tmp_path, module_scope=lambda: next(answers))

    assert meter.read().readings
    for _ in range(2):
        with pytest.raises(MeterUnavailable) as caught:
            meter.read()
        assert caught.value.reason == "covered_by_gpu_module"
    assert meter.read().readings
    meter.close()


def test_a_socket_that_fails_leaves_the_other_alone(tmp_path: Path, clock: FakeClock) -> None:
    tree = HwmonTree(tmp_path, sockets=2)
    tree.set_power_uw("Grace", 1, 9)
    meter = HwmonMeter(clock, sysfs=tmp_path)
    meter.read()
    put(tree.directories["Grace", 0] / "power1_average", "")
    clock.advance(0.2)

    report = meter.read()

    assert powers(report) == {"cpu1": 9}
    assert [(fault.reason, fault.device) for fault in report.faults] == [("bad_value", "cpu0")]
    tree.set_power_uw("Grace", 0, 8)
    clock.advance(0.2)
    assert powers(meter.read()) == {"cpu0": 8, "cpu1": 9}
    meter.close()


@given(power_uw=st.integers(-(10**12), 10**12))
def test_power_is_never_negative(tmp_path_factory: pytest.TempPathFactory, power_uw: int) -> None:
    sysfs = tmp_path_factory.mktemp("sys")
    tree = HwmonTree(sysfs, scopes=("Grace",))
    put(tree.directories["Grace", 0] / "power1_average", f"{power_uw}\n")
    meter = HwmonMeter(FakeClock(), sysfs=sysfs)

    assert powers(meter.read()) == {"cpu0": max(power_uw, 0)}
    meter.close()


def test_a_slow_reader_accepts_its_own_pace(tmp_path: Path, clock: FakeClock) -> None:
    HwmonTree(tmp_path)
    meter = HwmonMeter(clock, sysfs=tmp_path, interval_ns=2 * NS_PER_S)

    (reading,) = meter.read().readings

    assert isinstance(reading, PowerReading) and reading.max_gap_ns == 5 * NS_PER_S
    meter.close()
