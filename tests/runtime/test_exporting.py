"""Exporters in their threads: none disturbs the daemon or another, and their health is told."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from exporting import ListOutbox, ToolsFake
from fakes import FakeClock
from snapshots import snapshot
from wattledger.errors import ExportFailed
from wattledger.exporting import Exporters, ExporterThread, patience_s
from wattledger.model import Snapshot
from wattledger.model.exporting import ExporterStatus
from wattledger.units import NS_PER_S
from wattledger_exporters.page import PLUGIN, PageExporter, PrometheusSettings
from wattledger_exporters.prometheus import Renderer

ONE = snapshot()


class Fake:
    """An `Exporter` that does what it is told to."""

    def __init__(self, act: Callable[[Snapshot], float] = lambda _: 0.0) -> None:
        self.act = act
        self.seen: list[Snapshot] = []
        self.threads: set[int] = set()
        self.closed: list[Snapshot | None] = []

    def export(self, shown: Snapshot) -> float:
        self.threads.add(threading.get_ident())
        self.seen.append(shown)
        return self.act(shown)

    def close(self, last: Snapshot | None) -> None:
        self.closed.append(last)


def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.005)


def raising(error: BaseException) -> Callable[[Snapshot], float]:
    def act(_: Snapshot) -> float:
        raise error

    return act


class Host:
    """Exporters over fakes."""

    def __init__(self, **fakes: Fake) -> None:
        self.clock = FakeClock()
        self.fakes = fakes
        self.page = PLUGIN.make(PrometheusSettings(), ToolsFake(clock=self.clock))
        self.threads = [
            ExporterThread(name, lambda fake=fake: fake, self.clock)  # type: ignore[misc]
            for name, fake in fakes.items()
        ]
        self.all = Exporters(self.threads, self.page, self.clock)
        self.all.start()

    def status(self, name: str) -> ExporterStatus | None:
        return next((one for one in self.all.statuses() if one.exporter == name), None)


@pytest.fixture
def hosts() -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def make(**fakes: Fake) -> Host:
        made.append(Host(**fakes))
        return made[-1]

    yield make
    for host in made:
        host.all.stop(0.2)


def test_each_snapshot_is_exported_in_a_thread_of_its_own(hosts: Callable[..., Host]) -> None:
    a, b = Fake(), Fake()
    host = hosts(a=a, b=b)
    host.all.take(ONE)
    until(lambda: a.seen == [ONE] and b.seen == [ONE])
    two = snapshot()
    host.all.take(two)
    until(lambda: a.seen == [ONE, two] and b.seen == [ONE, two])
    threads = a.threads | b.threads
    assert len(threads) == 2 and threading.get_ident() not in threads
    until(lambda: len(host.all.statuses()) == 3)
    assert all(status.up and status.last_success_ns for status in host.all.statuses())


@pytest.mark.parametrize(
    ("error", "reason", "said"),
    [
        (ExportFailed("busy", "the receiver is busy", "wait", 0.05), "busy", "is busy"),
        (RuntimeError("a bug"), "unexpected", "a bug"),
        (SystemExit(3), "unexpected", "SystemExit"),
        (KeyboardInterrupt(), "unexpected", "KeyboardInterrupt"),
    ],
)
def test_one_that_raises_disturbs_nobody_and_is_said_once(
    hosts: Callable[..., Host],
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    reason: str,
    said: str,
) -> None:
    caplog.set_level(logging.INFO, "wattledger.exporting")
    bad, good = Fake(raising(error)), Fake()
    host = hosts(bad=bad, good=good)
    host.all.take(ONE)
    until(lambda: host.status("bad") is not None and good.seen)
    status = host.status("bad")
    assert status is not None and not status.up
    assert set(status.errors) == {reason} and said in status.message
    host.all.take(snapshot())
    until(lambda: len(good.seen) == 2)
    lines = [record for record in caplog.records if "exporter bad" in record.message]
    assert len(lines) == 1 and bool(lines[0].exc_info) == (reason == "unexpected")


def test_one_that_failed_is_tried_again_and_its_recovery_is_said(
    hosts: Callable[..., Host], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wattledger.exporting")
    bad = Fake(raising(ExportFailed("busy", "busy", retry_after_s=0.05)))
    host = hosts(bad=bad)
    host.all.take(ONE)
    until(lambda: len(bad.seen) >= 3)
    bad.act = lambda _: 0.0
    until(lambda: (status := host.status("bad")) is not None and status.up)
    status = host.status("bad")
    assert status is not None and status.errors["busy"] >= 3, "a counter does not fall"
    assert status.message == ""
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_one_that_cannot_be_made_is_tried_again(hosts: Callable[..., Host]) -> None:
    fake = Fake()
    tries = iter([ExportFailed("early", "not yet", retry_after_s=0.05), None])

    def make() -> Fake:
        if error := next(tries):
            raise error
        return fake

    thread = ExporterThread("late", make, FakeClock())
    thread.start()
    thread.offer(ONE)
    until(lambda: fake.seen)
    thread.stop()
    assert thread.done.wait(5) and fake.closed == [ONE]


def test_one_that_hangs_is_told_and_holds_up_neither_commits_nor_the_end(
    hosts: Callable[..., Host], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wattledger.exporting")
    release = threading.Event()
    hung, good = Fake(lambda _: float(release.wait(60)) * 0), Fake()
    host = hosts(hung=hung, good=good)
    host.all.take(ONE)
    until(lambda: hung.seen and good.seen)
    assert host.status("hung") is None
    host.clock.advance(61)
    status = host.status("hung")
    assert status is not None and not status.up and status.errors == {"hang": 1}
    assert host.status("hung") == status, "counted and said once"
    for _ in range(50):
        host.all.take(snapshot())
    until(lambda: good.seen[-1] is not ONE)
    assert (good_status := host.status("good")) is not None and good_status.up
    release.set()
    until(lambda: (one := host.status("hung")) is not None and one.up)
    after = host.status("hung")
    assert after is not None and after.errors == {"hang": 1}, "a counter does not fall"
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    release.clear()
    hung.act = lambda _: float(release.wait(60)) * 0
    host.all.take(snapshot())
    until(lambda: len(hung.seen) > 2)
    host.all.stop(0.1)
    assert good.closed and not hung.closed
    release.set()


def test_it_is_called_after_the_pause_it_asked_for_with_the_newest_snapshot(
    hosts: Callable[..., Host],
) -> None:
    slow = Fake(lambda _: 0.05)
    host = hosts(slow=slow)
    host.all.take(ONE)
    until(lambda: len(slow.seen) >= 3)
    assert set(map(id, slow.seen)) == {id(ONE)}
    two = snapshot()
    host.all.take(two)
    until(lambda: slow.seen[-1] is two)


@pytest.mark.parametrize("odd", [None, math.inf, -math.inf, math.nan, 10**400, "soon"])
def test_what_an_exporter_returns_that_is_no_time_is_a_fault_of_its(
    hosts: Callable[..., Host], odd: Any
) -> None:
    host = hosts(odd=Fake(lambda _: odd))
    host.all.take(ONE)
    until(lambda: host.status("odd") is not None)
    status = host.status("odd")
    assert status is not None and not status.up and set(status.errors) == {"unexpected"}
    host.threads[0].stop()
    assert host.threads[0].done.wait(5), "its thread lives, and ends when it is asked to"


def test_a_pause_is_a_day_at_most() -> None:
    fake = Fake(lambda _: 1e12)  # more than a thread can wait
    thread = ExporterThread("lazy", lambda: fake, FakeClock())
    thread.start()
    thread.offer(ONE)
    until(lambda: (one := thread.status()) is not None and one.up)
    thread.stop()
    assert thread.done.wait(5) and fake.closed == [ONE]


@pytest.mark.parametrize(
    ("asked_s", "least_s", "most_s"),
    [
        (0, 0.05, 0.05),
        (-math.inf, 0.05, 0.05),
        (77, 77, 77),
        (math.inf, 3600, 3600),
        (10**400, 3600, 3600),
        (None, 16, 24),
        (math.nan, 16, 24),
        ("soon", 16, 24),
        ([7], 16, 24),
    ],
)
def test_one_that_failed_is_left_alone_for_a_time_that_there_is(
    asked_s: Any, least_s: float, most_s: float
) -> None:
    error = ExportFailed("busy", "busy", retry_after_s=asked_s)
    assert least_s <= patience_s(error, 3) <= most_s


def test_one_that_asks_for_no_time_at_all_keeps_its_thread(hosts: Callable[..., Host]) -> None:
    host = hosts(bad=Fake(raising(ExportFailed("busy", "busy", retry_after_s="soon"))))  # type: ignore[arg-type]
    host.all.take(ONE)
    until(lambda: host.status("bad") is not None)
    host.threads[0].stop()
    assert host.threads[0].done.wait(5)


def test_one_whose_error_cannot_be_told_is_tried_again_all_the_same() -> None:
    class Odd(Exception):
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    fake = Fake(raising(ExportFailed(["no", "label"], "busy", retry_after_s=0.05)))  # type: ignore[arg-type]
    thread = ExporterThread("odd", lambda: fake, FakeClock())
    thread.start()
    thread.offer(ONE)
    until(lambda: len(fake.seen) >= 2)
    fake.act = raising(Odd())
    until(lambda: (one := thread.status()) is not None and "unexpected" in one.errors)
    status = thread.status()
    assert status is not None and status.message == "Odd"
    assert set(status.errors) == {"['no', 'label']", "unexpected"}
    thread.stop()
    assert thread.done.wait(5)


def test_a_page_that_cannot_be_made_does_not_end_the_daemon() -> None:
    clock = FakeClock()

    class Broken(PageExporter):
        def export(self, shown: Snapshot) -> float:
            raise RuntimeError("a bug")

    fake = Fake()
    thread = ExporterThread("good", lambda: fake, clock)
    exporters = Exporters([thread], Broken(ToolsFake(clock=clock)), clock)
    exporters.start()
    exporters.take(ONE)
    until(lambda: fake.seen == [ONE])
    (page,) = [one for one in exporters.statuses() if one.exporter == "prometheus"]
    assert not page.up and page.errors == {"unexpected": 1}
    exporters.stop(5)


def test_the_end_without_a_start_waits_for_nobody() -> None:
    thread = ExporterThread("never", Fake, FakeClock())
    closed: list[int] = []
    clock = FakeClock()
    page = PLUGIN.make(PrometheusSettings(), ToolsFake())
    Exporters([thread], page, clock, lambda: closed.append(1)).stop(60)
    assert closed == [1]


def test_health_is_on_the_page() -> None:
    shown = snapshot(
        exporters=(
            ExporterStatus("otlp", False, 5 * NS_PER_S, {"busy": 2}, "m", "h", 7, None),
            ExporterStatus("textfile", True),
        )
    )
    page = Renderer().render(shown, 1, process=False).text.decode()
    lines = [line for line in page.splitlines() if line.startswith("wattledger_exporter_")]
    assert lines == [
        'wattledger_exporter_up{exporter="otlp"} 0.0',
        'wattledger_exporter_up{exporter="textfile"} 1.0',
        'wattledger_exporter_last_success_timestamp_seconds{exporter="otlp"} 5.0',
        'wattledger_exporter_errors_total{exporter="otlp",reason="busy"} 2.0',
        'wattledger_exporter_runs_delivered_total{exporter="otlp"} 7.0',
    ]


def test_only_who_says_so_gets_ended_runs() -> None:
    from wattledger.exporting import Tools

    tools = Tools(FakeClock(), (), NS_PER_S)
    with pytest.raises(LookupError):
        _ = tools.runs
    assert ListOutbox().waiting(1) == []
