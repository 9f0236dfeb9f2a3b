"""Settling within the daemon: bit by bit with the commits, once a day, when asked, never twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import FakeClock
from grid_feeds import T0
from ledgers import batch, key, opened
from settling import Provider, table_price
from wattledger.errors import CommitFailed, LedgerError
from wattledger.grid.outcome import Outcome
from wattledger.ledger import LedgerReader, SqliteLedger
from wattledger.model import Basis, Batch, Books, Instant, LedgerStatus
from wattledger.model.restating import END_S, Restatement
from wattledger.model.settling import PricedSlot
from wattledger.settle_desk import SWITCHED_OFF, SettleDesk
from wattledger.settler import DAY_NS, SettleSources, Stopped
from wattledger.settling_ledger import SettlingLedger
from wattledger.units import NS_PER_S

SLOT_S = T0 // NS_PER_S
WAIT_S = 20.0


class Writing:
    """A ledger that counts the settlements of each commit, and fails when it is told to."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self.inner = ledger
        self.parts: list[int] = []
        self.stale: list[int] = []
        self.full = False
        self.close = ledger.close

    @property
    def books(self) -> Books:
        return self.inner.books

    @property
    def status(self) -> LedgerStatus:
        return self.inner.status

    def commit(self, batch: Batch, now: Instant) -> Books:
        self.parts.append(len(batch.settlements))
        self.stale.append(len(batch.stale))
        if self.full:
            raise CommitFailed("the disk is full")
        return self.inner.commit(batch, now)


class Desk:
    """A desk, its ledger, and a sampling thread that commits when it is asked to."""

    def __init__(self, path: Path, first_s: float = 3600.0) -> None:
        self.clock, self.provider = FakeClock(T0), Provider()
        self.written = Writing(opened(path, self.clock))
        self.ledger = SettlingLedger(self.written, most=3)
        entries = {key(SLOT_S + 300 * n, price=table_price()): 10**9 for n in range(8)}
        self.ledger.commit(batch(entries), self.clock.now())
        self.clock.advance(2400)
        self.reader = LedgerReader(path)
        self.asked = threading.Event()
        self.stopped = False
        self.extra: list[Batch] = []
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.desk = SettleDesk(self.ledger, self.reader, self.clock, self.asked.set, first_s)
        self.desk.configure(SettleSources((self.provider,), "GB"), DAY_NS)

    def _sample(self) -> None:
        while not self.stopped:
            self.asked.wait(0.02)
            self.asked.clear()
            more = self.extra[0] if self.extra else batch(devices=())
            try:
                self.ledger.commit(more, self.clock.now())
            except CommitFailed:
                continue
            if self.extra and self.extra[0] is more:
                self.extra.pop(0)

    def start(self) -> Desk:
        self.thread.start()
        self.desk.start()
        return self

    def close(self) -> None:
        self.desk.stop()
        self.stopped = True
        if self.thread.ident is not None:
            self.thread.join(WAIT_S)
        self.reader.close()
        self.ledger.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def test_who_asks_gets_the_report_and_commits_stay_small(desk: Desk) -> None:
    result = desk.start().desk.settle(None, WAIT_S)
    assert result.finished and result.report is not None
    assert (result.report.changed_slots, result.report.sources) == (8, ("first",))
    assert [part for part in desk.written.parts if part] == [3, 3, 2]
    assert desk.ledger.books.settled[Basis.GENERATION].energy_uj == 8 * 10**9
    again = desk.desk.settle(1 * NS_PER_S, WAIT_S)
    assert again.report is not None and again.report.changed_slots == 0
    assert again.report.total.amounts.energy_uj == 10**9, "of the last slot only"


def test_it_settles_of_itself(tmp_path: Path) -> None:
    made = Desk(tmp_path / "ledger.sqlite", first_s=0.0).start()
    done = threading.Event()
    while not made.ledger.books.settled or made.ledger._waiting:
        assert not done.wait(0.02)
    made.close()
    assert made.ledger.books.settled[Basis.GENERATION].energy_uj == 8 * 10**9
    assert len(made.provider.asked) == 1, "the next time is tomorrow"


def test_a_full_disk_loses_no_settlement(desk: Desk) -> None:
    desk.written.full = True
    desk.start()
    assert desk.desk.settle(None, 0.2) == (False, None, "")
    assert not desk.ledger.books.settled
    desk.written.full = False
    joined = desk.desk.settle(None, WAIT_S)
    assert joined.report is not None and joined.report.changed_slots == 8, "it was waited for"
    assert len(desk.provider.asked) == 1
    assert desk.ledger.books.settled[Basis.GENERATION].energy_uj == 8 * 10**9


def test_the_end_waits_for_nothing(desk: Desk) -> None:
    desk.written.full = True
    desk.start()
    desk.desk.settle(None, 0.1)
    desk.desk.stop()
    assert desk.desk.settle(None, WAIT_S).finished is False
    with pytest.raises(Stopped):
        desk.ledger.settle([])


def test_it_may_be_switched_off(desk: Desk) -> None:
    desk.desk.configure(SettleSources((desk.provider,), "GB"), 0)
    assert desk.start().desk.settle(None, WAIT_S) == (True, None, SWITCHED_OFF)
    assert desk.provider.asked == []


def test_what_fails_is_told_and_it_goes_on(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        fault: Exception | None = LedgerError("the ledger is gone")

        def priced_slots(self, since_ns: int, until_ns: int) -> list[PricedSlot]:
            if self.fault is not None:
                raise self.fault
            return desk.reader.priced_slots(since_ns, until_ns)

        totals = desk.reader.totals

    books = Broken()
    desk.desk._books = books
    desk.start()
    assert desk.desk.settle(None, WAIT_S).message == "the ledger is gone"
    books.fault = KeyError("a bug")
    assert "unexpected" in desk.desk.settle(None, WAIT_S).message
    books.fault = None
    desk.provider.error = Outcome.HTTP_403
    caplog.clear()
    for _ in range(2):
        report = desk.desk.settle(None, WAIT_S).report
        assert report is not None and [name for name, _ in report.problems] == ["first"]
    assert caplog.text.count("asked for its past") == 1, "said once, not every day"


def said(made_at_ns: int = 1, **factors: int) -> Restatement:
    from_s = SLOT_S // 3600 * 3600
    return Restatement("Ada", "bill", made_at_ns, from_s, END_S, **(factors or {"pue_ppm": 10**6}))


def test_who_restates_waits_for_it_and_nothing_is_said_twice(desk: Desk) -> None:
    result = desk.start().desk.restate(said(), WAIT_S)
    assert result.finished and result.is_new and result.total is not None
    assert result.total.settled.restated_uj == result.total.amounts.energy_uj == 8 * 10**9
    assert not desk.provider.asked, "no source is asked for it"
    again = desk.desk.restate(said(2), WAIT_S)
    assert again.finished and not again.is_new and again.total == result.total
    assert desk.ledger.books.restatements == (said(),) == desk.reader.restatements()
    assert max(desk.written.stale) == 3, "commits stay small"
    other = desk.desk.restate(said(3, wue_ul_per_kwh=7), WAIT_S)
    assert other.is_new and other.total is not None
    assert other.total.settled.water_onsite_ul != result.total.settled.water_onsite_ul


def test_a_full_disk_loses_no_restatement(desk: Desk) -> None:
    desk.written.full = True
    desk.start()
    first = desk.desk.restate(said(), 0.2)
    assert (first.finished, first.is_new) == (False, True)
    assert desk.desk.restate(said(2), 0.1)[:3] == (False, said(2), False), "it waits, too"
    assert desk.ledger.books.restatements == ()
    desk.written.full = False
    joined = desk.desk.restate(said(3), WAIT_S)
    assert joined.finished and joined.total is not None
    assert joined.total.settled.restated_uj == 8 * 10**9
    assert desk.ledger.books.restatements == (said(),)


def test_settling_brings_what_came_later_to_what_is_restated(desk: Desk) -> None:
    """And without a window it is restated all the same."""
    desk.start().desk.restate(said(), WAIT_S)
    late = {key(SLOT_S, price=table_price()): 7}
    desk.extra.append(batch(late))
    desk.desk.settle(None, WAIT_S)
    while desk.extra:
        desk.asked.set()
    result = desk.desk.settle(None, WAIT_S)
    assert result.report is not None
    assert result.report.total.settled.restated_uj == 8 * 10**9 + 7
    desk.desk.configure(SettleSources((), "GB"), 0)
    desk.extra.append(batch(late))
    while desk.extra:
        desk.asked.set()
    found = desk.desk.restate(said(9), WAIT_S).total
    assert found is not None and found.settled.restated_uj == 8 * 10**9 + 14
