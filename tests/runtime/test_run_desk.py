"""Between commands that end and the books: when a receipt is given, and what is asked for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fakes import FakeClock
from processes import FakeProcesses
from waiting import wait_until
from wattledger.clock import SystemClock
from wattledger.errors import MeterUnavailable, RunRefused
from wattledger.jobs.runs import RunRegistry
from wattledger.model import DeviceInfo, Instant, Kind, MeterReport, PowerReading
from wattledger.model.jobs import Holding, JobRun
from wattledger.model.receipts import Receipt
from wattledger.model.running import RunRequest
from wattledger.run_desk import KEPT_NS, RunDesk
from wattledger.services import FOREVER_NS, MeterThread
from wattledger.units import NS_PER_S

wait_for = partial(wait_until, timeout_s=10, pause_s=0.002)
UID = 1000


class FakeTurns:
    """A meter's thread in the test's hands."""

    def __init__(self) -> None:
        self.asked = 0
        self.up_to_ns = 0

    def read_now(self) -> None:
        self.asked += 1

    def read_up_to_ns(self) -> int:
        return self.up_to_ns


class Desk:
    """A desk over two meters and one process."""

    def __init__(self, root: Path) -> None:
        self.clock = FakeClock()
        fake = FakeProcesses(root / "proc")
        for pid in (100, 101):
            fake.spawn(pid, 1, uid=UID)
        self.registry = RunRegistry(self.clock, procfs=fake.procfs)
        self.meters = [FakeTurns(), FakeTurns()]
        self.commits = 0
        self.counters: dict[str, int] = {}
        self.known: dict[str, Receipt] = {}
        self.desk = RunDesk(
            self.registry,
            self.clock,
            self.meters,
            self.known.get,
            self._ask_commit,
            lambda device: self.counters.get(device),
        )

    def _ask_commit(self) -> None:
        self.commits += 1

    def begin(self, pid: int = 100) -> str:
        ticket = self.desk.begin(RunRequest(pid, UID))
        run = JobRun(ticket.payee, UID)
        self.known[ticket.payee.job_id] = Receipt(run, since_ns=ticket.payee.start_ns)
        return ticket.payee.job_id

    def read(self) -> None:
        for meter in self.meters:
            meter.up_to_ns = self.clock.monotonic_ns


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_receipt_waits_for_a_reading_a_commit_and_the_note_of_its_end(desk: Desk) -> None:
    run_id = desk.begin()
    ended = desk.clock.advance(5)
    assert desk.desk.finish(run_id, UID, 3) is None
    assert [meter.asked for meter in desk.meters] == [1, 1]
    assert desk.commits == 0
    desk.clock.advance(0.01)
    desk.meters[0].up_to_ns = desk.clock.monotonic_ns
    assert desk.desk.finish(run_id, UID, 3) is None
    assert desk.commits == 0  # one meter has not been read yet
    desk.read()
    for _ in range(3):
        assert desk.desk.finish(run_id, UID, 3) is None
    assert desk.commits == 1 and [meter.asked for meter in desk.meters] == [1, 1]

    up_to_ns = desk.desk.read_up_to_ns()
    assert desk.desk.close(up_to_ns)
    assert desk.desk.finish(run_id, UID, 3) is None  # a kill now would forget its end
    assert not desk.registry  # the next survey tells it, and the next commit writes it
    desk.desk.answer()
    result = desk.desk.finish(run_id, UID, 3)
    assert result is not None and result.complete and result.exit_code == 3
    assert result.receipt.run.end_ns == ended.wall_ns


def test_a_turn_that_began_before_the_end_does_not_count(desk: Desk) -> None:
    run_id = desk.begin()
    desk.read()
    desk.clock.advance(0.001)
    desk.desk.finish(run_id, UID, 0)
    assert not desk.desk.close(desk.desk.read_up_to_ns())
    desk.clock.advance(0.001)
    desk.read()
    assert desk.desk.close(desk.desk.read_up_to_ns())


def test_a_counter_read_twice_within_its_tick_is_waited_for(desk: Desk) -> None:
    run_id = desk.begin()
    receipt = desk.known[run_id]
    held = replace(receipt.run, holdings=(Holding("GPU-1", 1_000_000),))
    desk.known[run_id] = replace(receipt, run=held)
    desk.counters["GPU-1"] = desk.clock.advance(1).monotonic_ns
    desk.clock.advance(0.01)
    assert desk.desk.finish(run_id, UID, 0) is None
    desk.clock.advance(0.01)
    desk.read()
    assert desk.desk.finish(run_id, UID, 0) is None
    assert desk.commits == 1
    assert not desk.desk.close(desk.desk.read_up_to_ns())  # its counter has not moved
    assert desk.desk.finish(run_id, UID, 0) is None
    assert desk.commits == 1
    desk.counters["GPU-1"] = desk.clock.advance(0.9).monotonic_ns
    desk.read()
    assert desk.desk.finish(run_id, UID, 0) is None
    assert desk.commits == 2
    assert desk.desk.close(desk.desk.read_up_to_ns())


def test_a_counter_that_does_not_move_is_not_waited_for_long(desk: Desk) -> None:
    run_id = desk.begin()
    receipt = desk.known[run_id]
    held = replace(receipt.run, holdings=(Holding("GPU-1", 1_000_000),))
    desk.known[run_id] = replace(receipt, run=held)
    desk.counters["GPU-1"] = 1
    desk.clock.advance(1)
    desk.desk.finish(run_id, UID, 0)
    desk.clock.advance(2)
    desk.read()
    assert desk.desk.close(desk.desk.read_up_to_ns())


def test_readings_on_request_are_one_a_second_over_all_commands(desk: Desk) -> None:
    first, second = desk.begin(), desk.begin(101)
    desk.desk.finish(first, UID, 0)
    desk.clock.advance(0.2)
    desk.read()
    desk.desk.close(desk.desk.read_up_to_ns())
    desk.clock.advance(0.2)
    for _ in range(20):
        desk.desk.finish(second, UID, 0)
        desk.clock.advance(0.02)
    assert desk.meters[0].asked == 1  # the regular turn has to do
    desk.clock.advance(0.4)
    desk.desk.finish(second, UID, 0)
    assert desk.meters[0].asked == 2


def test_at_the_latest_what_is_known_has_to_do(desk: Desk) -> None:
    run_id = desk.begin()
    assert desk.desk.finish(run_id, UID, 1) is None
    result = desk.desk.finish(run_id, UID, 1, at_once=True)
    assert result is not None and not result.complete
    assert not desk.registry
    desk.desk.answer()
    assert desk.desk.finish(run_id, UID, 1) == result


def test_a_receipt_is_kept_for_who_lost_the_answer_but_not_for_ever(desk: Desk) -> None:
    run_id = desk.begin()
    desk.desk.finish(run_id, UID, 0, at_once=True)
    assert desk.desk.result(run_id, UID).receipt.run.end_ns
    for uid in (UID + 1, 0):
        with pytest.raises(RunRefused):
            desk.desk.result(run_id, uid)
        with pytest.raises(RunRefused):
            desk.desk.finish(run_id, uid, 0)
    assert desk.desk.result(run_id, None)
    desk.clock.advance(KEPT_NS / NS_PER_S + 1)
    desk.desk.finish(desk.begin(101), UID, 0, at_once=True)
    with pytest.raises(RunRefused) as refused:
        desk.desk.result(run_id, UID)
    assert refused.value.reason == "unknown"


def test_before_any_survey_a_receipt_is_empty_and_not_a_fault(desk: Desk) -> None:
    run_id = desk.begin()
    desk.known.clear()
    receipt = desk.desk.result(run_id, UID).receipt
    assert receipt.run.payee.job_id == run_id and not receipt.cells


def test_where_commands_are_switched_off_they_are_refused(desk: Desk) -> None:
    off = RunDesk(None, desk.clock, desk.meters, desk.known.get, lambda: None)
    with pytest.raises(RunRefused) as refused:
        off.begin(RunRequest(100, UID))
    assert refused.value.reason == "off" and not off.close(0)
    for ask in (lambda: off.result("1", UID), lambda: off.finish("1", UID, 0)):
        with pytest.raises(RunRefused) as refused:
            ask()
        assert refused.value.reason == "unknown"


# ── a turn on request ───────────────────────────────────────────────────────────────────────────


class SlowMeter:
    """A `Meter` that is not read again of itself: no turn of its grid falls into a test."""

    name = "nvml"
    interval_ns = 10**17  # three years since the boot

    def __init__(self) -> None:
        self.reads = 0
        self.do_read: Callable[[], None] = lambda: None

    def read(self) -> MeterReport:
        self.reads += 1
        self.do_read()
        device = DeviceInfo("GPU-1", Kind.GPU, "nvml")
        return MeterReport((device,), (PowerReading("GPU-1", Instant(1, 1, 1), 1, 0, 1),))

    def close(self) -> None:
        pass


@pytest.fixture
def meter() -> SlowMeter:
    return SlowMeter()


def started(meter: SlowMeter) -> MeterThread:
    thread = MeterThread(meter, SystemClock())
    thread.start()
    assert thread.first_turn.wait(10)
    return thread


def test_a_turn_is_taken_at_once_where_it_is_asked_for(meter: SlowMeter) -> None:
    thread = started(meter)
    asked_ns = time.monotonic_ns()
    assert thread.read_up_to_ns() < asked_ns
    thread.read_now()
    wait_for(lambda: thread.read_up_to_ns() >= asked_ns)
    assert meter.reads == 2 and len(thread.drain()) == 2
    assert thread.statuses()[0].missed_ticks == 0
    thread.stop()
    assert thread.done.wait(10)
    assert thread.read_up_to_ns() == FOREVER_NS


def test_the_first_turn_is_waited_for_too(meter: SlowMeter) -> None:
    go = threading.Event()
    meter.do_read = lambda: go.wait(10) and None
    thread = MeterThread(meter, SystemClock())
    thread.start()
    assert thread.read_up_to_ns() == 0  # of a daemon that just started, and a command that ended
    go.set()
    wait_for(lambda: 0 < thread.read_up_to_ns() < FOREVER_NS)
    thread.stop()
    assert thread.done.wait(10)


def test_what_is_read_in_a_turn_can_be_drained_before_it_counts(meter: SlowMeter) -> None:
    thread = started(meter)
    thread.drain()
    go, asked_ns = threading.Event(), time.monotonic_ns()
    meter.do_read = lambda: go.wait(10) and None
    thread.read_now()
    wait_for(lambda: meter.reads == 2)
    assert thread.read_up_to_ns() < asked_ns and thread.drain() == []
    go.set()
    wait_for(lambda: thread.read_up_to_ns() >= asked_ns)
    assert len(thread.drain()) == 1
    thread.stop()
    assert thread.done.wait(10)


def test_a_meter_that_does_not_answer_is_neither_asked_nor_waited_for(meter: SlowMeter) -> None:
    def fail() -> None:
        raise MeterUnavailable("no_driver", "there is none", retry_after_s=3600)

    meter.do_read = fail
    thread = started(meter)
    assert thread.read_up_to_ns() == FOREVER_NS
    thread.read_now()
    thread.stop()
    assert thread.done.wait(10)
    assert meter.reads == 1


def test_a_released_meter_stays_closed(meter: SlowMeter) -> None:
    thread = started(meter)
    assert thread.release(3600 * NS_PER_S, 10)
    reads = meter.reads
    assert thread.read_up_to_ns() == FOREVER_NS
    thread.read_now()
    thread.stop()
    assert thread.done.wait(10)
    assert meter.reads == reads
