"""What corrections may not do: hold up the sampling thread, starve, keep energy from the books."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from fakes import FakeClock
from ledgers import CPU, GPU, PRICE, batch, key
from restating import HOUR, NOW_NS, SLOT_S, Node, restatement, settlement
from waiting import wait_until
from wattledger.core.footprint import footprint
from wattledger.errors import CommitFailed
from wattledger.model import Basis, Batch, Books, Instant, LedgerStatus
from wattledger.model.jobs import job_payee
from wattledger.model.restating import Stale
from wattledger.model.settling import PricedSlot, Settlement
from wattledger.settle_desk import SettleDesk
from wattledger.settler import DAY_NS, SettleSources
from wattledger.settling_ledger import Correction, SettlingLedger, in_parts, next_part

WAIT_S = 20.0
JOBS = [job_payee("slurm", str(number), 1) for number in range(12)]


class Writing:
    """A ledger that will not write some corrections, and tells what it wrote."""

    def __init__(self, node: Node) -> None:
        self.inner = node.ledger
        self.refuses: Callable[[Batch], Exception | None] = lambda batch: None
        self.written: list[Batch] = []
        self.close = node.ledger.close

    @property
    def books(self) -> Books:
        return self.inner.books

    @property
    def status(self) -> LedgerStatus:
        return self.inner.status

    def commit(self, batch: Batch, now: Instant) -> Books:
        if (error := self.refuses(batch)) is not None:
            raise error
        self.written.append(batch)
        return self.inner.commit(batch, now)


class Bench:
    """Books of some slots, a ledger that corrects them bit by bit, and who commits when asked."""

    def __init__(self, path: Path, most: int = 5) -> None:
        self.node = Node(path)
        self.written = Writing(self.node)
        self.ledger = SettlingLedger(self.written, most)
        self.clock = self.node.clock
        self.asked = threading.Event()
        self.ended = False
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.desks: list[SettleDesk] = []

    def desk(self, books: object | None = None, first_s: float = 3600.0) -> SettleDesk:
        reader = self.node.reader if books is None else books
        made = SettleDesk(self.ledger, reader, self.clock, self.asked.set, first_s)  # type: ignore[arg-type]
        made.configure(SettleSources((), "GB"), 45 * DAY_NS)
        self.desks.append(made)
        return made

    def _sample(self) -> None:
        while self.asked.wait() and not self.ended:
            self.asked.clear()
            self.ledger.commit(batch(), self.clock.now())

    def correct(self, corrections: list[Correction]) -> list[int]:
        """Returns how many rows each commit wrote."""
        for one in in_parts(corrections, self.ledger._most):
            self.ledger._waiting.append(one)
        changes = [self._rows()]
        while self.ledger._waiting:
            self.ledger.commit(batch(), self.clock.now())
            changes.append(self._rows())
        return [after - before for before, after in pairwise(changes)]

    def _rows(self) -> int:
        with closing(sqlite3.connect(self.node.path)) as connection:
            count = "SELECT (SELECT count(*) FROM settled) + (SELECT count(*) FROM settled_hour)"
            return int(connection.execute(count).fetchone()[0])

    def close(self) -> None:
        for desk in self.desks:
            desk.stop()
        self.ended = True
        self.asked.set()
        if self.thread.ident is not None:
            self.thread.join(WAIT_S)
        self.node.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "ledger.sqlite")
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["slots", "hours", "settlements"])
def test_a_commit_corrects_so_many_entries_however_many_a_place_has(
    tmp_path: Path, kind: str
) -> None:
    node = Node(tmp_path / "ledger.sqlite")
    node.book(
        {key(SLOT_S, d.name, job): 10**9 for job in JOBS for d in (GPU, CPU)}
        | {key(SLOT_S + HOUR + 300 * n): 10**9 for n in range(4)}
    )
    if kind == "hours":
        node.roll_up(SLOT_S + HOUR)
    bench = Bench.__new__(Bench)
    bench.node, bench.clock = node, node.clock
    bench.ledger = SettlingLedger(node.ledger, 5)
    if kind == "settlements":
        slots = node.reader.priced_slots(0, NOW_NS)
        assert [slot.entries for slot in slots] == [24, 1, 1, 1, 1]
        found: list[Correction] = [
            settlement(slot.slot_s, PRICE, 100)._replace(entries=slot.entries) for slot in slots
        ]
    else:
        node.say(restatement(0, None, pue_ppm=1_200_000))
        found = list(node.reader.stale(0, NOW_NS))
        assert sorted(one.entries for one in found if isinstance(one, Stale)) == [1, 1, 1, 1, 24]
    changes = bench.correct(found)
    assert sum(changes) == 28 and max(changes) <= 6, "payees are not spread to the last one"
    if kind == "settlements":
        assert all(slot.settled is not None for slot in node.reader.priced_slots(0, NOW_NS))
    assert node.apply() == 0 and node.reader.check(footprint) == []
    node.close()


def test_parts_are_as_large_as_a_commit_takes() -> None:
    found = list(in_parts([Stale(0, True, 11), Stale(1, True, 2), restatement(pue_ppm=1)], 5))
    assert [(one[2], one[3], one[4]) for one in found[:4] if isinstance(one, Stale)] == [
        *((4, 0, 3), (4, 1, 3), (4, 2, 3), (2, 0, 1))
    ]
    assert [len(next_part(found[n:], 5)) for n in range(5)] == [1, 1, 1, 2, 1]
    assert next_part((), 5) == ()


def test_who_asks_while_the_daily_run_is_under_way_does_not_wait_for_the_next_commits(
    bench: Bench,
) -> None:
    """Nobody hurries the daily run; from then on somebody waits for it."""
    bench.node.book({key(SLOT_S + 300 * n): 10**9 for n in range(24)})
    bench.node.say(restatement(0, None, pue_ppm=1_200_000))
    desk = bench.desk(first_s=0.0)
    desk.start()
    wait_until(lambda: bench.ledger._waiting, WAIT_S)
    assert not bench.asked.is_set()
    bench.thread.start()
    result = desk.restate(restatement(0, None, made_at_ns=9, pue_ppm=1_300_000), WAIT_S)
    assert result.finished and result.total is not None
    assert result.total.settled.restated_uj == 24 * 10**9


class Looked:
    """Books that are empty, and tell which windows were settled."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.windows_ns: list[int] = []

    def priced_slots(self, since_ns: int, until_ns: int) -> list[PricedSlot]:
        return []

    def totals(self, since_ns: int, until_ns: int, by: str) -> list[object]:
        self.windows_ns.append(until_ns - since_ns)
        return []

    def restatements(self) -> tuple[object, ...]:
        return ()


def test_the_daily_look_comes_however_often_somebody_asks(bench: Bench) -> None:
    books = Looked(bench.clock)
    desk = bench.desk(books, first_s=0.05)
    desk.start()
    end_s = time.monotonic() + WAIT_S
    while not any(ns > 2 * DAY_NS for ns in books.windows_ns) and time.monotonic() < end_s:
        assert desk.settle(DAY_NS, WAIT_S).finished
        time.sleep(0.001)
    whole = [ns for ns in books.windows_ns if ns > 2 * DAY_NS]
    for _ in range(3):
        desk.settle(DAY_NS, WAIT_S)
    assert len(whole) == 1 == sum(ns > 2 * DAY_NS for ns in books.windows_ns), "once a day"


def test_two_who_restate_the_same_hours_each_wait_for_their_own(bench: Bench) -> None:
    bench.node.book({key(SLOT_S): 10**9})
    one = restatement(made_at_ns=1, pue_ppm=1_200_000)
    two = restatement(made_at_ns=2, pue_ppm=1_300_000)
    desk = bench.desk()
    desk.start()
    for mine in (one, two):
        begun = desk.restate(mine, 0.05)
        assert (begun.finished, begun.is_new) == (False, True), "nobody commits"
        wait_until(lambda: bench.ledger._waiting, WAIT_S)  # the run of the first is under way
    bench.thread.start()
    bench.asked.set()
    for _ in range(3):
        for mine in (one, two):
            result = desk.restate(mine, WAIT_S)
            assert (result.finished, result.is_new) == (True, True) and result.total is not None
    assert bench.ledger.books.restatements == (one, two)
    assert desk._begun == 2, "who is told that it is done has nothing looked at again"
    bench.node.reopen()
    assert bench.node.ledger.books.restatements == (one, two)


@pytest.mark.parametrize(
    "error", [CommitFailed("it would not"), ValueError("never"), TypeError("no such price")]
)
def test_what_cannot_be_written_keeps_no_energy_from_the_books(
    bench: Bench, error: Exception
) -> None:
    """And neither what comes with it: it alone is given up, and told."""
    bench.node.book({key(SLOT_S + 300 * n): 10**9 for n in range(24)})
    bad_s = SLOT_S + 300 * 7
    bench.written.refuses = lambda batch: (
        error if any(one.start_s == bad_s for one in batch.stale) else None
    )
    desk = bench.desk()
    desk.start()
    bench.thread.start()
    result = desk.restate(restatement(0, None, pue_ppm=1_200_000), WAIT_S)
    assert result.finished and str(error) in result.message
    assert sum(part.restated_uj for part in bench.ledger.books.settled.values()) == 23 * 10**9
    bench.ledger.commit(batch({key(SLOT_S): 7}), bench.clock.now())
    bench.written.refuses = lambda batch: None
    again = desk.restate(restatement(0, None, made_at_ns=8, pue_ppm=1_200_000), WAIT_S)
    assert again.finished and not again.message and again.total is not None
    assert again.total.settled.restated_uj == 24 * 10**9 + 7


@pytest.mark.parametrize(
    ("settled", "told"),
    [
        (settlement(SLOT_S, PRICE, 90), "settled_uj"),  # would take a sum below 0
        (settlement(SLOT_S, PRICE, 90, Basis.MARGINAL), "marginal"),
    ],
)
def test_what_the_file_refuses_keeps_no_energy_from_the_books(
    bench: Bench, settled: Settlement, told: str
) -> None:
    node = bench.node
    node.book({key(SLOT_S): 10**11})
    node.settle(settlement(SLOT_S, PRICE, 100, Basis.DIRECT))
    node.close()
    with closing(sqlite3.connect(node.path)) as connection:
        connection.execute("UPDATE settled_total SET settled_uj = 5")
        connection.commit()
    node.reopen()
    ledger = SettlingLedger(node.ledger)
    ledger._waiting.append(settled)
    books = ledger.commit(batch({key(SLOT_S + 300): 7}), bench.clock.now())
    assert sum(total.amounts.energy_uj for total in books.totals.values()) == 10**11 + 7
    assert told in ledger.take_failure() and not ledger._waiting
    with pytest.raises(ValueError, match="energies"):
        ledger.commit(batch({key(SLOT_S): -1}), bench.clock.now())


def test_a_restatement_that_cannot_be_written_is_told(bench: Bench) -> None:
    bench.node.book({key(SLOT_S): 10**9})
    bench.written.refuses = lambda batch: CommitFailed("no") if batch.restatements else None
    desk = bench.desk()
    desk.start()
    bench.thread.start()
    result = desk.restate(restatement(pue_ppm=1_200_000), WAIT_S)
    assert result.finished and "no" in result.message and not bench.ledger.books.restatements


def test_a_full_disk_gives_up_nothing(bench: Bench) -> None:
    bench.node.book({key(SLOT_S): 10**9})
    bench.written.refuses = lambda batch: CommitFailed("the disk is full")
    desk = bench.desk()
    desk.start()
    desk.restate(restatement(pue_ppm=1_200_000), 0.05)
    for _ in range(3):
        with pytest.raises(CommitFailed):
            bench.ledger.commit(batch({key(SLOT_S): 7}), bench.clock.now())
    bench.written.refuses = lambda batch: None
    bench.thread.start()
    bench.asked.set()
    result = desk.restate(restatement(made_at_ns=8, pue_ppm=1_200_000), WAIT_S)
    assert result.finished and not result.message
    assert len(bench.ledger.books.restatements) == 1 and bench.ledger.take_failure() == ""
