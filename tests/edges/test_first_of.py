"""The best meter that answers: down at once, up within a minute, each device once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeClock
from sysfs import ProcTree, RaplTree
from wattledger.errors import MeterUnavailable
from wattledger.meters.estimate import EstimateMeter
from wattledger.meters.first_of import FirstOf
from wattledger.meters.hwmon import HwmonMeter
from wattledger.meters.rapl import RaplMeter
from wattledger.model import DeviceInfo, Fault, Kind, MeterReport, PowerReading
from wattledger.units import NS_PER_S


class SwitchedMeter:
    """A meter that answers when told to."""

    def __init__(self, name: str, clock: FakeClock, devices: tuple[str, ...] = ("cpu0",)) -> None:
        self.name = name
        self.interval_ns = len(name) * NS_PER_S
        self.clock = clock
        self.devices = tuple(DeviceInfo(device, Kind.CPU, name) for device in devices)
        self.up = True
        self.empty = False
        self.retry_after_s = 60.0
        self.reads = 0
        self.closed = 0

    def read(self) -> MeterReport:
        self.reads += 1
        if not self.up:
            raise MeterUnavailable("down", f"{self.name} is down", "lift it", self.retry_after_s)
        if self.empty:
            return MeterReport(self.devices, (), (Fault(self.name, "read_error", "nothing"),))
        at = self.clock.now()
        readings = tuple(
            PowerReading(device.name, at, 1, NS_PER_S, NS_PER_S) for device in self.devices
        )
        return MeterReport(self.devices, readings)

    def close(self) -> None:
        self.closed += 1


class Three:
    """Three meters and their choice."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.best = SwitchedMeter("rapl", self.clock, ("cpu0", "cpu1", "dram0"))
        self.middle = SwitchedMeter("hwmon", self.clock, ("cpu0", "cpu1"))
        self.last = SwitchedMeter("estimate", self.clock)
        self.all = (self.best, self.middle, self.last)
        self.cpu = FirstOf("cpu", self.all, self.clock)


@pytest.fixture
def three() -> Three:
    return Three()


def test_the_best_is_taken_and_the_others_are_left_alone(three: Three) -> None:
    assert three.cpu.active == "" and three.cpu.interval_ns == three.best.interval_ns
    for _ in range(5):
        report = three.cpu.read()
        three.clock.advance(1)

    assert three.cpu.active == "rapl"
    assert {reading.device for reading in report.readings} == {"cpu0", "cpu1", "dram0"}
    assert [meter.reads for meter in three.all] == [5, 0, 0]


def test_a_refusal_is_a_permanent_fault_of_that_meter(three: Three) -> None:
    three.best.up = three.middle.up = False

    report = three.cpu.read()

    assert three.cpu.active == "estimate" and three.cpu.interval_ns == three.last.interval_ns
    assert report.faults == (
        Fault("rapl", "down", "rapl is down", "lift it", permanent=True),
        Fault("hwmon", "down", "hwmon is down", "lift it", permanent=True),
    )
    assert [reading.device for reading in report.readings] == ["cpu0"]


def test_better_ones_are_asked_again_once_a_minute(three: Three) -> None:
    three.best.up = three.middle.up = False
    faults = 0
    for _ in range(180):
        faults += len(three.cpu.read().faults)
        three.clock.advance(1)

    assert [meter.reads for meter in three.all] == [3, 3, 180]
    assert faults == 6


def test_a_meter_that_names_an_earlier_time_is_asked_then(three: Three) -> None:
    three.best.up = False
    three.best.retry_after_s = 5
    three.cpu.read()
    three.best.up = True
    three.clock.advance(4)
    three.cpu.read()
    assert three.cpu.active == "hwmon"
    three.clock.advance(1)
    three.cpu.read()
    assert three.cpu.active == "rapl"


def test_what_appears_later_is_taken_and_the_other_closed(three: Three) -> None:
    three.best.up = three.middle.up = False
    three.cpu.read()
    three.best.up = True
    three.clock.advance(60)

    report = three.cpu.read()

    assert three.cpu.active == "rapl"
    assert three.last.closed == 1
    assert {device.name: device.meter for device in report.devices} == dict.fromkeys(
        ("cpu0", "cpu1", "dram0"), "rapl"
    )


def test_what_fails_is_replaced_in_the_same_turn_and_its_devices_leave(three: Three) -> None:
    three.middle.up = False
    three.cpu.read()
    three.best.up = False
    three.clock.advance(1)

    report = three.cpu.read()

    assert three.cpu.active == "estimate"
    assert [reading.device for reading in report.readings] == ["cpu0"]
    assert {device.name: (device.meter, device.present) for device in report.devices} == {
        "cpu0": ("estimate", True),
        "cpu1": ("rapl", False),
        "dram0": ("rapl", False),
    }
    assert three.best.closed == 1

    three.best.up = True
    three.clock.advance(60)
    assert all(device.present for device in three.cpu.read().devices)


def test_a_better_one_that_brings_nothing_is_not_taken(three: Three) -> None:
    three.best.up = three.middle.up = False
    three.cpu.read()
    three.best.up = three.best.empty = True
    three.clock.advance(60)

    report = three.cpu.read()

    assert three.cpu.active == "estimate" and report.readings
    assert [(fault.meter, fault.permanent) for fault in report.faults] == [
        ("rapl", False),
        ("hwmon", True),
    ]
    assert three.best.closed == 1


def test_the_one_in_use_may_bring_nothing_for_a_turn(three: Three) -> None:
    three.cpu.read()
    three.best.empty = True

    assert three.cpu.read().readings == ()
    assert three.cpu.active == "rapl"


def test_when_none_answers_all_say_why(three: Three) -> None:
    for meter in three.all:
        meter.up = False
    three.middle.retry_after_s = 7

    with pytest.raises(MeterUnavailable) as caught:
        three.cpu.read()

    assert caught.value.reason == "down"
    assert caught.value.retry_after_s == 7
    assert all(f"{meter.name} is down (lift it)" in str(caught.value) for meter in three.all)
    assert three.cpu.active == ""


def test_when_none_answers_it_recovers_by_itself(three: Three) -> None:
    three.cpu.read()
    for meter in three.all:
        meter.up = False
    with pytest.raises(MeterUnavailable):
        three.cpu.read()
    three.last.up = True
    three.clock.advance(60)

    report = three.cpu.read()

    assert three.cpu.active == "estimate"
    assert {device.name for device in report.devices if device.present} == {"cpu0"}


def test_a_switch_is_logged_once_in_one_line_with_the_remedy(
    three: Three, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    three.best.up = three.middle.up = False
    for _ in range(100):
        three.cpu.read()
        three.clock.advance(1)
    three.best.up = True
    for _ in range(100):
        three.cpu.read()
        three.clock.advance(1)

    down, up = [record.getMessage() for record in caplog.records]
    why = "rapl: rapl is down (lift it); hwmon: hwmon is down (lift it)"
    assert down == f"cpu: measuring with estimate, since {why}"
    assert up == "cpu: measuring with rapl again, which now answers"


def test_a_loss_is_a_warning_and_what_the_machine_never_had_is_not(
    three: Three, caplog: pytest.LogCaptureFixture
) -> None:
    """Else each program that measures itself on a virtual machine would begin with a warning."""
    caplog.set_level(logging.INFO)
    three.best.up = False
    three.cpu.read()
    assert [record.levelname for record in caplog.records] == ["INFO"]
    three.middle.up = False
    three.cpu.read()
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]


def test_close_closes_all_and_read_chooses_anew(three: Three) -> None:
    three.best.up = False
    three.cpu.read()
    three.cpu.close()
    three.best.up = True

    three.cpu.read()

    assert three.cpu.active == "rapl"
    assert all(meter.closed for meter in three.all)


def test_a_programming_error_is_not_hidden(three: Three) -> None:
    class Broken(SwitchedMeter):
        def read(self) -> MeterReport:
            raise RuntimeError("a bug")

    cpu = FirstOf("cpu", [Broken("rapl", three.clock), three.last], three.clock)

    with pytest.raises(RuntimeError, match="a bug"):
        cpu.read()


def test_no_meters_is_refused(three: Three) -> None:
    with pytest.raises(ValueError, match="no meters"):
        FirstOf("cpu", [], three.clock)


@given(
    turns=st.lists(
        st.tuples(st.sampled_from([1, 30, 60]), st.booleans(), st.booleans(), st.booleans()),
        max_size=30,
    )
)
def test_each_device_is_measured_once_by_the_meter_in_use(
    turns: list[tuple[int, bool, bool, bool]],
) -> None:
    three = Three()
    since_change: dict[str, int] = {}
    for seconds, *ups in turns:
        three.clock.advance(seconds)
        for meter, up in zip(three.all, ups, strict=True):
            same = meter.up == up
            since_change[meter.name] = since_change.get(meter.name, 60) + seconds if same else 0
            meter.up = up
        try:
            report = three.cpu.read()
        except MeterUnavailable:
            assert three.cpu.active == ""
            continue
        active = next(meter for meter in three.all if meter.name == three.cpu.active)
        names = [reading.device for reading in report.readings]
        assert len(names) == len(set(names))
        assert {device.name for device in report.devices if device.present} == set(names)
        assert {device.meter for device in report.devices if device.present} == {active.name}
        for better in three.all[: three.all.index(active)]:
            assert not better.up or since_change[better.name] < 60


# ── the real ones together ──────────────────────────────────────────────────────────────────────


def real(root: Path, clock: FakeClock, module_scope: Callable[[], bool] = lambda: False) -> FirstOf:
    sysfs, procfs = root / "sys", root / "proc"
    return FirstOf(
        "cpu",
        [
            RaplMeter(clock, sysfs=sysfs, interval_ns=NS_PER_S),
            HwmonMeter(clock, sysfs=sysfs, module_scope=module_scope),
            EstimateMeter(clock, procfs=procfs, interval_ns=NS_PER_S, module_scope=module_scope),
        ],
        clock,
    )


def test_rapl_that_appears_later_replaces_the_model(tmp_path: Path) -> None:
    clock = FakeClock()
    proc = ProcTree(tmp_path / "proc")
    cpu = real(tmp_path, clock)
    report = cpu.read()
    assert cpu.active == "estimate"
    assert [(fault.meter, fault.reason) for fault in report.faults] == [
        ("rapl", "absent"),
        ("hwmon", "absent"),
    ]
    with RaplTree(tmp_path / "sys") as tree:
        proc.run(60, 0.5)
        clock.advance(60)
        assert {reading.device for reading in cpu.read().readings} == {"cpu0", "dram0"}
        assert cpu.active == "rapl"

        for zone in ("package-0", "psys", "mmio"):
            tree.remove(zone)
        (tmp_path / "sys/class/powercap").rmdir()
        clock.advance(60)
        report = cpu.read()
        assert cpu.active == "estimate"
        assert report.readings == ()  # the hour before belongs to RAPL: the model begins anew
        assert {device.name: device.present for device in report.devices} == {
            "cpu0": True,
            "dram0": False,
        }
        proc.run(1, 0.5)
        clock.advance(1)
        assert [reading.device for reading in cpu.read().readings] == ["cpu0"]
    cpu.close()


def test_nothing_is_added_to_a_gpu_module(tmp_path: Path) -> None:
    ProcTree(tmp_path / "proc")
    cpu = real(tmp_path, FakeClock(), module_scope=lambda: True)

    with pytest.raises(MeterUnavailable) as caught:
        cpu.read()

    assert caught.value.reason == "covered_by_gpu_module"
