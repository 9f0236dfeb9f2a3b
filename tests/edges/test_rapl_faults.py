"""RAPL that does not answer: permissions, ranges, broken values, zones that leave and come."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from pathlib import Path

import pytest

from fakes import FakeClock
from sysfs import RANGE_INTEL_UJ, RaplTree, as_nobody, put, world_readable_folder
from wattledger.errors import MeterUnavailable
from wattledger.meters.rapl import GRANT, RaplMeter
from wattledger.model import CounterReading, MeterReport
from wattledger.units import NS_PER_S

NOBODY = 65534


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def meter_of(sysfs: Path, clock: FakeClock, **options: object) -> RaplMeter:
    return RaplMeter(clock, sysfs=sysfs, interval_ns=NS_PER_S, **options)  # type: ignore[arg-type]


def raw(report: MeterReport) -> dict[str, int]:
    counters = [reading for reading in report.readings if isinstance(reading, CounterReading)]
    return {reading.device: reading.raw_uj for reading in counters}


def test_no_tree_is_absent_not_zero(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(MeterUnavailable) as caught:
        meter_of(tmp_path, clock).read()

    assert caught.value.reason == "absent"
    assert "modprobe intel_rapl_msr" in caught.value.hint


def test_psys_alone_is_no_meter(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path, packages=0), pytest.raises(MeterUnavailable) as caught:
        meter_of(tmp_path, clock).read()

    assert caught.value.reason == "absent"


def test_a_container_that_hides_the_zones_is_told_apart(tmp_path: Path, clock: FakeClock) -> None:
    zone = tmp_path / "class/powercap/intel-rapl:0"
    zone.parent.mkdir(parents=True)
    zone.symlink_to("../../devices/virtual/powercap/intel-rapl/intel-rapl:0")

    with pytest.raises(MeterUnavailable) as caught:
        meter_of(tmp_path, clock).read()

    assert caught.value.reason == "masked"
    assert "--path.sysfs" in caught.value.hint


def test_no_permission_is_said_with_the_remedy(clock: FakeClock) -> None:
    with world_readable_folder() as sysfs, RaplTree(sysfs) as tree:
        for zone in tree.counted:
            tree.set_mode(zone, 0)
        meter = meter_of(sysfs, clock)
        with as_nobody(), pytest.raises(MeterUnavailable) as caught:
            meter.read()

    assert caught.value.reason == "no_permission"
    assert "CAP_DAC_READ_SEARCH" in caught.value.hint
    assert "CVE-2020-8694" in caught.value.hint
    assert "chmod" not in caught.value.hint


def test_partial_permission_is_a_fault_of_the_zone(clock: FakeClock) -> None:
    with world_readable_folder() as sysfs, RaplTree(sysfs) as tree:
        tree.set_mode("package-0", 0o444)
        tree.set_mode("package-0/dram", 0)
        meter = meter_of(sysfs, clock)
        with as_nobody():
            report = meter.read()

        assert set(raw(report)) == {"cpu0"}
        assert [(fault.reason, fault.device) for fault in report.faults] == [
            ("no_permission", "dram0")
        ]
        assert not report.faults[0].permanent
        meter.close()


def test_permission_that_comes_later_is_picked_up(clock: FakeClock) -> None:
    with world_readable_folder() as sysfs, RaplTree(sysfs) as tree:
        tree.set_mode("package-0", 0o444)
        tree.set_mode("package-0/dram", 0)
        meter = meter_of(sysfs, clock)
        with as_nobody():
            meter.read()
        tree.set_mode("package-0/dram", 0o444)
        with as_nobody():
            clock.advance(59)
            assert set(raw(meter.read())) == {"cpu0"}
            clock.advance(1)
            assert set(raw(meter.read())) == {"cpu0", "dram0"}
        meter.close()


def test_a_hidden_range_is_not_guessed(clock: FakeClock) -> None:
    with world_readable_folder() as sysfs, RaplTree(sysfs, dram=False) as tree:
        tree.set_mode("package-0", 0o444)
        tree.set_mode("package-0", 0, "max_energy_range_uj")
        with as_nobody(), pytest.raises(MeterUnavailable) as caught:
            meter_of(sysfs, clock).read()

    assert caught.value.reason == "range_unreadable"


def test_range_zero_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path) as tree:
        tree.set_range_uj("package-0", 0)
        meter = meter_of(tmp_path, clock)

        report = meter.read()

        assert set(raw(report)) == {"dram0"}
        assert [(fault.reason, fault.device) for fault in report.faults] == [("range_zero", "cpu0")]
        assert report.faults[0].hint
        meter.close()


def break_with_eio(tree: RaplTree, zone: str) -> Path:
    """Reading a process's memory at 0 fails with EIO, for root as well."""
    path = tree.directories[zone] / "energy_uj"
    path.rename(path.with_name("kept"))
    path.symlink_to("/proc/self/mem")
    return path


@pytest.mark.parametrize("content", [b"", b"\n", b"12x\n", b"<unsupported>\n"])
def test_a_bad_value_is_a_fault_and_then_it_is_back(
    tmp_path: Path, clock: FakeClock, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with RaplTree(tmp_path) as tree:
        meter = meter_of(tmp_path, clock)
        meter.read()
        tree.write_raw("package-0", content)
        for _ in range(3):
            clock.advance(1)
            report = meter.read()
            assert set(raw(report)) == {"dram0"}
        assert {device.name for device in report.devices if device.present} == {"cpu0", "dram0"}
        assert [record.levelname for record in caplog.records] == ["WARNING"]

        tree.set_energy_uj("package-0", 5)
        clock.advance(60)

        assert raw(meter.read()) == {"cpu0": 5, "dram0": 0}
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        meter.close()


def test_a_failing_zone_is_looked_for_ever_more_rarely(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path) as tree:
        meter = meter_of(tmp_path, clock)
        meter.read()
        tree.write_raw("package-0", b"")
        faults = 0
        for _ in range(300):
            clock.advance(1)
            faults += len(meter.read().faults)

        assert 8 <= faults <= 14
        meter.close()


def test_a_read_error_of_the_hardware_is_named(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path) as tree:
        break_with_eio(tree, "package-0")
        meter = meter_of(tmp_path, clock)

        (fault,) = meter.read().faults

        assert (fault.reason, fault.device) == ("read_error", "cpu0")
        assert "EIO" in fault.message
        meter.close()


def test_when_all_fail_the_meter_is_down_and_comes_back(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path, dram=False) as tree:
        meter = meter_of(tmp_path, clock)
        meter.read()
        tree.write_raw("package-0", b"")
        clock.advance(1)
        report = meter.read()
        assert not report.readings and [fault.reason for fault in report.faults] == ["bad_value"]
        clock.advance(1)
        with pytest.raises(MeterUnavailable) as caught:
            meter.read()
        assert caught.value.retry_after_s < 60
        with pytest.raises(MeterUnavailable):
            meter.read()  # asked again too early: still no empty report
        tree.set_energy_uj("package-0", 99)
        clock.advance(caught.value.retry_after_s)

        assert raw(meter.read()) == {"cpu0": 99}
        meter.close()


def test_a_driver_loaded_anew_is_not_confused(tmp_path: Path, clock: FakeClock) -> None:
    """The same zone number may stand for another package afterwards."""
    with RaplTree(tmp_path, packages=2, dram=False) as tree:
        meter = meter_of(tmp_path, clock)
        meter.read()
        put(tree.directories["package-0"] / "name", "package-1\n")
        put(tree.directories["package-1"] / "name", "package-0\n")
        tree.set_energy_uj("package-0", 111)  # zone intel-rapl:0, now package 1
        tree.set_energy_uj("package-1", 222)
        clock.advance(60)

        assert raw(meter.read()) == {"cpu1": 111, "cpu0": 222}
        meter.close()


def test_a_zone_that_leaves_is_not_present_and_one_that_comes_is_found(
    tmp_path: Path, clock: FakeClock
) -> None:
    with RaplTree(tmp_path, packages=2, dram=False) as tree:
        meter = meter_of(tmp_path, clock)
        meter.read()
        tree.remove("package-1")
        clock.advance(60)
        report = meter.read()
        assert {device.name: device.present for device in report.devices} == {
            "cpu0": True,
            "cpu1": False,
        }
        assert set(raw(report)) == {"cpu0"}

        directory = tmp_path / "devices/virtual/powercap/intel-rapl/intel-rapl:1"
        tree.add("package-1", directory, "package-1", RANGE_INTEL_UJ)
        tree.set_energy_uj("package-1", 3)
        clock.advance(60)
        report = meter.read()
        assert all(device.present for device in report.devices)
        assert raw(report)["cpu1"] == 3
        meter.close()


def held(folder: Path) -> int:
    """How many files under a folder this process has open."""
    links = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    return sum(str(folder) in str(fd.readlink()) for fd in links)


def test_close_lets_go_of_every_file_and_read_opens_again(tmp_path: Path, clock: FakeClock) -> None:
    RaplTree(tmp_path, packages=2).close()
    meter = meter_of(tmp_path, clock)
    for _ in range(3):
        meter.read()
        assert held(tmp_path) == 4
        meter.close()
        meter.close()
        assert held(tmp_path) == 0


def test_files_of_zones_that_left_are_closed(tmp_path: Path, clock: FakeClock) -> None:
    with RaplTree(tmp_path, packages=2) as tree:
        others = held(tmp_path)
        meter = meter_of(tmp_path, clock)
        meter.read()
        assert held(tmp_path) == others + 4
        others -= len([zone for zone in tree.directories if zone.startswith("package-1")])
        tree.remove("package-1")
        clock.advance(60)
        meter.read()
        assert held(tmp_path) == others + 2
        meter.close()


SUDO = """#!/bin/sh
printf '%s\\0' "$@" > "$HOME/asked"
"""
WATTLEDGER = """#!/bin/sh
printf '%s %s %s %s %s\\n' "$HOME" "$(id -u)" "$(id -g)" "$(id -G)" "$*"
cat energy_uj && mkdir -p "$HOME/.local/state/wattledger"
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do what sudo does")
def test_the_command_that_is_told_works_when_pasted() -> None:
    """Nobody pastes it; what sudo is asked to do is then done as sudo does it: as root, HOME too.

    It has to reach a file that root alone may read, and the user's own home.
    """
    command = re.search(r"by hand: (sudo .* serve);", GRANT)
    assert command is not None
    with world_readable_folder() as folder:
        home = folder / "home"
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        for name, text in (("sudo", SUDO), ("wattledger", WATTLEDGER)):
            put(folder / "bin" / name, text)
            (folder / "bin" / name).chmod(0o755)
        put(folder / "energy_uj", "262143\n")
        (folder / "energy_uj").chmod(0o400)
        path = f"{folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin"

        pasted = ["sh", "-euc", command[1]]
        users = {"HOME": str(home), "USER": "nobody", "PATH": path}
        subprocess.run(pasted, user=NOBODY, group=NOBODY, extra_groups=[], env=users, check=True)
        asked = (home / "asked").read_text().split("\0")[:-1]
        roots = {"HOME": "/root", "USER": "root", "PATH": path}
        done = subprocess.run(
            asked, cwd=folder, env=roots, check=False, capture_output=True, text=True
        )

        assert done.stdout == f"{home} {NOBODY} {NOBODY} {NOBODY} serve\n262143\n", done.stderr
        assert (home / ".local/state/wattledger").stat().st_uid == NOBODY
