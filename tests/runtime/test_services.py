"""A meter in its thread: hangs, bugs, absence and release touch nobody else."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeClock
from waiting import wait_until
from wattledger.clock import SystemClock, TickGrid
from wattledger.errors import MeterUnavailable
from wattledger.model import DeviceInfo, Fault, Instant, Kind, MeterReport, PowerReading
from wattledger.release import LONGEST_NS, NOT_RELEASED, recalled, released_for
from wattledger.services import MeterThread, PollingThread
from wattledger.systemd import Notifier
from wattledger.units import NS_PER_S

wait_for = partial(wait_until, timeout_s=10, pause_s=0.002)

DEVICE = DeviceInfo("GPU-1", Kind.GPU, "nvml")
READING = PowerReading("GPU-1", Instant(1, 1, 1), 1, 0, 1)
REPORT = MeterReport(devices=(DEVICE,), readings=(READING,))


class ScriptedMeter:
    """A `Meter` whose reads do what the test says."""

    name = "nvml"
    interval_ns = NS_PER_S // 50

    def __init__(self, read: Callable[[], MeterReport] = lambda: REPORT) -> None:
        self.do_read = read
        self.reads = 0
        self.closes = 0

    def read(self) -> MeterReport:
        self.reads += 1
        return self.do_read()

    def close(self) -> None:
        self.closes += 1


def test_it_reads_at_once_and_on_and_takes_a_last_turn_at_the_end() -> None:
    meter = ScriptedMeter()
    thread = MeterThread(meter, SystemClock())
    thread.start()
    assert thread.first_turn.wait(10)
    wait_for(lambda: meter.reads >= 3)
    reads = meter.reads
    thread.stop()
    assert thread.done.wait(10)

    assert meter.reads > reads
    assert meter.closes == 1
    assert len(thread.drain()) == meter.reads
    assert thread.drain() == []
    (status,) = thread.statuses()
    assert status.up
    assert status.last_success_ns > 0


def test_a_call_that_hangs_is_seen_and_the_gap_ends_when_it_returns() -> None:
    clock = FakeClock()
    go = threading.Event()
    meter = ScriptedMeter()

    def hang() -> MeterReport:
        go.wait(20)
        return REPORT

    meter.do_read = hang
    thread = MeterThread(meter, clock)
    thread.start()
    wait_for(lambda: meter.reads == 1)
    assert not thread.statuses()[0].up
    clock.advance(60)
    (status,) = thread.statuses()
    assert not status.up
    assert "60 s" in status.message
    assert status.hint
    go.set()
    wait_for(lambda: thread.statuses()[0].up)
    thread.stop()
    assert thread.done.wait(10)


def test_a_hanging_call_does_not_hold_the_end() -> None:
    never = threading.Event()
    meter = ScriptedMeter(lambda: (never.wait(60) and REPORT) or REPORT)
    thread = MeterThread(meter, SystemClock())
    thread.start()
    thread.stop()

    assert not thread.done.wait(0.05)
    never.set()
    assert thread.done.wait(10)


def test_a_bug_in_a_meter_is_counted_and_tried_again(caplog) -> None:  # type: ignore[no-untyped-def]
    def bug() -> MeterReport:
        raise ZeroDivisionError

    meter = ScriptedMeter(bug)
    thread = MeterThread(meter, SystemClock())
    thread.start()
    assert thread.first_turn.wait(10)
    (status,) = thread.statuses()
    thread.stop()
    assert thread.done.wait(10)

    assert not status.up
    assert status.errors == {"unexpected": 1}
    assert meter.closes >= 1
    assert "ZeroDivisionError" in caplog.text


def unavailable(reason: str) -> Callable[[], MeterReport]:
    def read() -> MeterReport:
        raise MeterUnavailable(reason, "no permission", "grant it", retry_after_s=3600)

    return read


def test_absence_is_a_fact_unless_the_meter_is_required() -> None:
    for required, expected in ((frozenset(), 0), (frozenset({"nvml"}), 1)):
        thread = MeterThread(
            ScriptedMeter(unavailable("no_library")), SystemClock(), required=required
        )
        thread.start()
        assert thread.first_turn.wait(10)
        assert len(thread.statuses()) == expected
        thread.stop()
        assert thread.done.wait(10)


def test_a_driver_upgraded_under_us_asks_for_a_new_process() -> None:
    clock = FakeClock()
    answers = [lambda: REPORT, unavailable("driver_mismatch")]
    meter = ScriptedMeter(lambda: answers.pop(0)() if len(answers) > 1 else answers[0]())
    thread = MeterThread(meter, clock)
    thread._turn()
    assert not thread.wants_restart()
    thread._turn()
    assert thread.wants_restart()


def test_half_an_installed_driver_is_given_ten_minutes() -> None:
    clock = FakeClock()
    thread = MeterThread(ScriptedMeter(unavailable("driver_mismatch")), clock)
    thread._turn()
    clock.advance(599)
    assert not thread.wants_restart()
    clock.advance(1)
    assert thread.wants_restart()


def test_no_permission_is_no_fact_but_a_fault() -> None:
    thread = MeterThread(ScriptedMeter(unavailable("no_permission")), SystemClock())
    thread.start()
    assert thread.first_turn.wait(10)
    (status,) = thread.statuses()
    thread.stop()
    assert thread.done.wait(10)

    assert (status.up, status.message, status.hint) == (False, "no permission", "grant it")


def test_faults_of_meters_behind_it_have_a_status_of_their_own() -> None:
    meter = ScriptedMeter(
        lambda: MeterReport(
            devices=(DeviceInfo("cpu0", Kind.CPU, "estimate"),),
            faults=(Fault("rapl", "no_permission", "cannot", "grant it", permanent=True),),
        )
    )
    meter.name = "cpu"
    thread = MeterThread(meter, SystemClock())
    thread.start()
    assert thread.first_turn.wait(10)
    statuses = {status.meter: status.up for status in thread.statuses()}
    thread.stop()
    assert thread.done.wait(10)

    assert statuses == {"estimate": True, "rapl": False}


def test_a_meter_that_was_left_for_a_better_one_is_neither_up_nor_down() -> None:
    reports = [
        MeterReport(devices=(DeviceInfo("cpu0", Kind.CPU, "estimate"),)),
        MeterReport(devices=(DeviceInfo("cpu0", Kind.CPU, "rapl"),)),
    ]
    meter = ScriptedMeter(lambda: reports.pop(0))
    meter.name = "cpu"
    thread = MeterThread(meter, FakeClock())
    thread._turn()
    assert [s.meter for s in thread.statuses()] == ["estimate"]
    thread._turn()
    assert [(s.meter, s.up) for s in thread.statuses()] == [("rapl", True)]


def test_signals_reach_their_actions() -> None:
    script = (
        "import os, signal, threading\n"
        "from wattledger.systemd import Signals\n"
        "got = threading.Event()\n"
        "signals = Signals({signal.SIGTERM: got.set})\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"  # before anybody waits: not lost
        "signals.start()\n"
        "print(got.wait(10))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (run.returncode, run.stdout) == (0, "True\n"), run.stderr


def test_one_failing_device_does_not_take_its_meter_down() -> None:
    meter = ScriptedMeter(
        lambda: MeterReport(
            devices=(DEVICE,), faults=(Fault("nvml", "gpu_is_lost", "lost", device="GPU-2"),)
        )
    )
    thread = MeterThread(meter, SystemClock())
    thread.start()
    assert thread.first_turn.wait(10)
    (status,) = thread.statuses()
    thread.stop()
    assert thread.done.wait(10)

    assert status.up
    assert status.errors["gpu_is_lost"] >= 1


def test_release_closes_and_takes_up_again() -> None:
    meter = ScriptedMeter()
    thread = MeterThread(meter, SystemClock())
    thread.start()
    wait_for(lambda: meter.reads >= 2)
    assert thread.release(3600 * NS_PER_S, 10)
    reads, closes = meter.reads, meter.closes
    assert closes >= 1
    assert thread.released().wall_ns > time.time_ns()
    assert not thread.statuses()[0].up
    assert "on request" in thread.statuses()[0].message
    time.sleep(0.1)
    assert meter.reads == reads
    thread.release(0, 10)
    wait_for(lambda: meter.reads > reads)
    wait_for(lambda: thread.statuses()[0].up)
    assert thread.released() == NOT_RELEASED
    thread.stop()
    assert thread.done.wait(10)


def test_the_end_of_a_release_does_not_wait_for_a_retry() -> None:
    """An operator mends the driver and says so: the minute of patience is over."""

    def absent() -> MeterReport:
        raise MeterUnavailable("driver_error", "gone", retry_after_s=3600)

    meter = ScriptedMeter(absent)
    thread = MeterThread(meter, SystemClock())
    thread.start()
    assert thread.first_turn.wait(10)
    meter.do_read = lambda: REPORT
    thread.release(0, 10)
    wait_for(lambda: thread.statuses()[0].up)
    meter.do_read = absent
    wait_for(lambda: not thread.statuses()[0].up)
    assert thread.release(NS_PER_S // 20, 10)
    meter.do_read = lambda: REPORT
    wait_for(lambda: thread.statuses()[0].up)
    thread.stop()
    assert thread.done.wait(10)


def test_a_full_queue_of_systemd_holds_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            filler.connect(str(tmp_path / "notify"))
            with contextlib.suppress(BlockingIOError):
                while True:
                    filler.send(b"x")
        notifier.alive()  # returns, though nobody reads


def test_a_release_is_prolonged_without_opening_in_between() -> None:
    meter = ScriptedMeter()
    thread = MeterThread(meter, SystemClock())
    thread.start()
    assert thread.release(3600 * NS_PER_S, 10)
    reads = meter.reads
    first = thread.released()
    assert thread.release(7200 * NS_PER_S, 10)
    time.sleep(0.1)

    assert thread.released() > first
    assert meter.reads == reads
    thread.stop()
    assert thread.done.wait(10)


def test_release_ends_by_itself() -> None:
    meter = ScriptedMeter()
    thread = MeterThread(meter, SystemClock())
    thread.start()
    assert thread.release(NS_PER_S // 20, 10)
    reads = meter.reads
    wait_for(lambda: meter.reads > reads)
    thread.stop()
    assert thread.done.wait(10)


def test_a_release_is_gone_on_with_after_a_restart() -> None:
    """Of a driver's exchange that this package's own upgrade falls into the middle of."""
    first = MeterThread(ScriptedMeter(), SystemClock())
    first.start()
    assert first.release(3600 * NS_PER_S, 10)
    note = first.released().note(SystemClock().boot_id)
    first.stop()
    assert first.done.wait(10)

    meter = ScriptedMeter()
    thread = MeterThread(meter, SystemClock())
    thread.stay_released(note)
    thread.start()
    assert thread.first_turn.wait(10)  # nobody waits for what will not come
    assert "on request" in thread.statuses()[0].message
    assert thread.released().monotonic_ns == first.released().monotonic_ns
    assert thread.release(7200 * NS_PER_S, 10)  # prolonged: nothing is opened in between
    assert meter.reads == 0
    thread.release(0, 10)
    wait_for(lambda: thread.statuses()[0].up)
    assert thread.released().note("boot") == ""
    thread.stop()
    assert thread.done.wait(10)


def test_and_ends_by_itself() -> None:
    meter = ScriptedMeter()
    thread = MeterThread(meter, SystemClock())
    soon = released_for(NS_PER_S // 20, SystemClock().now())
    thread.stay_released(soon.note(SystemClock().boot_id))
    thread.start()
    wait_for(lambda: meter.reads >= 1)
    thread.stop()
    assert thread.done.wait(10)


@given(st.integers(1, LONGEST_NS), st.integers(0, 2 * LONGEST_NS))
def test_of_a_release_what_is_left_stays_in_force(asked_ns: int, later_ns: int) -> None:
    clock = FakeClock()
    asked = released_for(asked_ns, clock.now())
    note = asked.note(clock.boot_id)
    clock.advance(later_ns / NS_PER_S)
    kept = recalled(note, clock.now(), clock.boot_id)
    assert kept == (asked if clock.monotonic_ns < asked.monotonic_ns else NOT_RELEASED)
    clock.step_wall(-3600)  # which decides nothing
    assert recalled(note, clock.now(), clock.boot_id).monotonic_ns == kept.monotonic_ns
    clock.reboot("boot-2")
    assert recalled(note, clock.now(), clock.boot_id) == NOT_RELEASED


@pytest.mark.parametrize(
    "note",
    [
        "", "{}", "[]", "7", "{", '{"boot_id": "boot-1"}',
        '{"boot_id": "boot-1", "until_monotonic_ns": "soon"}',
        '{"boot_id": "boot-1", "until_monotonic_ns": null}',
        '{"boot_id": "boot-1", "until_monotonic_ns": 9000000000000000000}',
    ],
)  # fmt: skip
def test_a_damaged_note_releases_nothing(note: str) -> None:
    clock = FakeClock()
    assert recalled(note, clock.now(), clock.boot_id) == NOT_RELEASED


def test_release_says_when_a_call_hangs() -> None:
    go = threading.Event()
    meter = ScriptedMeter(lambda: (go.wait(20) and REPORT) or REPORT)
    thread = MeterThread(meter, SystemClock())
    thread.start()

    assert not thread.release(NS_PER_S, 0.05)
    go.set()
    thread.stop()
    assert thread.done.wait(10)


def test_late_turns_are_counted() -> None:
    clock = SystemClock()
    meter = ScriptedMeter()

    def slow() -> MeterReport:
        time.sleep(0.07)
        return REPORT

    meter.do_read = slow
    thread = MeterThread(meter, clock)
    thread.start()
    wait_for(lambda: thread.statuses()[0].missed_ticks >= 3)
    thread.stop()
    assert thread.done.wait(10)


def test_polling_goes_on_after_a_bug(caplog) -> None:  # type: ignore[no-untyped-def]
    calls: list[int] = []

    def step() -> float:
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("what a server sent")
        return 3600

    thread = PollingThread("grid", step)
    thread.PAUSE_AFTER_BUG_S = 0.01
    thread.start()
    wait_for(lambda: len(calls) == 2)
    thread.stop()

    assert "what a server sent" in caplog.text


def test_systemd_hears_of_it(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        notifier = Notifier(address)
        notifier.ready("metering 3 devices")
        notifier.alive()
        notifier.reloading(5_000_000)
        notifier.stopping()
        heard = [sock.recv(1000).decode() for _ in range(4)]

    assert heard == [
        "READY=1\nSTATUS=metering 3 devices",
        "WATCHDOG=1",
        "RELOADING=1\nMONOTONIC_USEC=5000",
        "STOPPING=1",
    ]


def test_nobody_listens_and_nothing_breaks(tmp_path: Path) -> None:
    Notifier("").ready("x")
    Notifier(str(tmp_path / "gone")).ready("x")
    Notifier("@wattledger-test-nobody").alive()


@given(st.integers(1, 60 * NS_PER_S), st.integers(0, 10**18))
def test_turns_of_the_grid_are_one_interval_apart(interval_ns: int, start_ns: int) -> None:
    grid = TickGrid(interval_ns)
    at_ns = start_ns
    for _ in range(20):
        following = grid.next_after(at_ns)
        assert following > at_ns
        assert following - at_ns <= 2 * interval_ns
        at_ns = following

    # All meters of an interval share the grid, whenever they ask.
    assert grid.next_after(start_ns) == TickGrid(interval_ns).next_after(start_ns)
