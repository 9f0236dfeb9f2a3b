"""Ended runs wait in the ledger until they are acknowledged, whatever fails or is killed when."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import Disk, batch, key, opened, take_back_schema_5
from wattledger.core.footprint import footprint
from wattledger.errors import CommitFailed
from wattledger.ledger import LedgerReader, SqliteLedger
from wattledger.ledger.migrations import scripts
from wattledger.ledger.run_exports import PATIENCE_COMMITS, RETRY_REFUSED_NS
from wattledger.model import Quality
from wattledger.model.exporting import Backlog, Delivery, EndedRun
from wattledger.model.jobs import JobRun, job_payee
from wattledger.outbox import MAX_UNWRITTEN, DeliveringLedger, Outbox
from wattledger.units import NS_PER_S, slot_of

OTLP = ("otlp",)
SLOT_S = slot_of(START_WALL_NS)


def run(number: int, *, end_s: int = 0, start_s: int = 0) -> JobRun:
    """A run of job `number`; it ended so many seconds after the clock's start, or (0) runs."""
    start_ns = START_WALL_NS + start_s * NS_PER_S
    end_ns = START_WALL_NS + end_s * NS_PER_S if end_s else 0
    return JobRun(job_payee("slurm", str(number), start_ns), last_seen_ns=start_ns, end_ns=end_ns)


class Node:
    """A ledger, its reader, and the outbox of one exporter."""

    def __init__(self, path: Path, exporters: tuple[str, ...] = OTLP, **more: object) -> None:
        self.path = path
        self.clock = FakeClock()
        self.exporters = exporters
        self.more = more
        self.open()

    def open(self) -> None:
        made = opened(self.path, self.clock, exporters=self.exporters, **self.more)  # type: ignore[arg-type]
        self.sqlite: SqliteLedger = made
        self.ledger = DeliveringLedger(made)
        self.reader = LedgerReader(self.path)
        self.outbox = Outbox("otlp", self.ledger, self.reader, self.clock)

    def commit(self, *runs: JobRun, energy_uj: int = 0, seconds: float = 5) -> None:
        now = self.clock.advance(seconds)
        booked = {key(SLOT_S, payee=one.payee): energy_uj for one in runs if energy_uj}
        self.ledger.commit(batch(booked, runs=runs, books_ns=now.wall_ns), now)

    def waiting(self, most: int = 1000) -> list[str]:
        return [one.book.run.payee.job_id for one in self.outbox.waiting(most)]

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()

    def reopen(self) -> None:
        """Another process: what was said and not written is gone."""
        self.close()
        self.open()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path / "ledger.sqlite")
    yield one
    one.close()


def test_a_run_waits_from_its_end_to_its_acknowledgement(node: Node) -> None:
    node.commit(run(1), run(2), energy_uj=100)
    assert node.waiting() == [] and node.outbox.backlog() == Backlog()
    node.commit(run(1, end_s=8), run(2), energy_uj=50)
    (ended,) = node.outbox.waiting(10)
    assert ended.book.run.payee.job_id == "1" and ended.book.run.end_ns
    assert ended.quality_uj == {Quality.METERED: 150}
    node.reopen()
    (again,) = node.outbox.waiting(10)
    assert again == ended, "and is the same to the last byte, its id too"
    node.outbox.delivered([again])
    assert node.waiting() == [], "said, though not written yet"
    node.commit()
    assert node.outbox.backlog() == Backlog()
    node.reopen()
    assert node.waiting() == []
    assert node.reader.check(footprint) == []


def test_what_was_acknowledged_and_not_written_is_delivered_again(node: Node) -> None:
    node.commit(run(1, end_s=3))
    first = node.outbox.waiting(1)
    node.outbox.delivered(first)
    node.reopen()  # killed between the acknowledgement and the commit
    assert node.outbox.waiting(1) == first


def test_a_run_waits_until_the_books_go_beyond_its_end(node: Node) -> None:
    node.commit(run(1, end_s=9))
    assert node.waiting() == [] and node.outbox.backlog() == Backlog(1)
    node.commit()
    assert node.waiting() == ["1"]


def test_a_clock_that_was_set_back_holds_up_nothing(node: Node) -> None:
    node.commit(run(1, end_s=86_400))
    for _ in range(PATIENCE_COMMITS):
        assert node.waiting() == []
        node.commit()
    assert node.waiting() == ["1"]


def test_what_is_booked_later_makes_it_leave_again_with_the_same_id(node: Node) -> None:
    node.commit(run(1, end_s=3), energy_uj=100)
    (first,) = node.outbox.waiting(1)
    node.commit(run(1, end_s=3), energy_uj=7)  # a meter that hung has answered
    node.outbox.delivered([first])
    node.commit()
    (second,) = node.outbox.waiting(1)
    assert second.record_id == first.record_id
    assert second.quality_uj == {Quality.METERED: 107}
    node.outbox.delivered([second])
    node.commit()
    assert node.waiting() == []


def test_one_that_runs_again_waits_for_its_end(node: Node) -> None:
    node.commit(run(1, end_s=3))
    node.commit(run(1))
    assert node.waiting() == []
    node.commit(run(1, end_s=14), seconds=10)
    assert node.waiting() == ["1"]


def test_what_is_refused_is_kept_and_tried_again_a_day_later(node: Node) -> None:
    node.commit(run(1, end_s=3), run(2, end_s=3))
    node.outbox.refused(node.outbox.waiting(1))
    node.commit()
    assert node.waiting() == ["2"] and node.outbox.backlog() == Backlog(1, 1)
    node.reopen()
    assert node.waiting() == ["2"]
    node.clock.advance(RETRY_REFUSED_NS / NS_PER_S)
    assert node.waiting() == ["2", "1"], "those that were never tried come first"
    node.outbox.delivered(node.outbox.waiting(2))
    node.commit()
    assert node.outbox.backlog() == Backlog()


def test_nothing_waits_where_nobody_delivers(tmp_path: Path) -> None:
    node = Node(tmp_path / "ledger.sqlite", ())
    node.commit(run(1, end_s=3))
    assert node.outbox.backlog() == Backlog()
    node.exporters = OTLP
    node.reopen()
    node.commit(run(2, end_s=8))
    assert node.waiting() == ["2"], "what ended before it was switched on does not leave"
    node.close()


def test_each_exporter_has_a_queue_of_its_own(tmp_path: Path) -> None:
    node = Node(tmp_path / "ledger.sqlite", ("otlp", "other"))
    node.commit(run(1, end_s=3))
    node.outbox.delivered(node.outbox.waiting(1))
    node.commit()
    other = Outbox("other", node.ledger, node.reader, node.clock)
    assert node.waiting() == [] and len(other.waiting(9)) == 1
    node.close()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["end", "deliver", "refuse", "commit", "kill"]), max_size=25),
    st.integers(1, 5),
)
def test_each_run_is_delivered_at_least_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], most: int
) -> None:
    node = Node(tmp_path_factory.mktemp("d") / "ledger.sqlite")
    ended: set[str] = set()
    got: dict[str, set[str]] = {}

    def deliver(runs: list[EndedRun]) -> None:
        for one in runs:
            got.setdefault(one.book.run.payee.job_id, set()).add(one.record_id)
        node.outbox.delivered(runs)

    for step in steps:
        if step == "end":
            ended.add(str(len(ended)))
            node.commit(run(len(ended) - 1, end_s=1))
        elif step == "deliver":
            deliver(node.outbox.waiting(most))
        elif step == "refuse":
            node.outbox.refused(node.outbox.waiting(1))
        elif step == "kill":
            node.reopen()
        else:
            node.commit()
    node.commit()
    node.clock.advance(RETRY_REFUSED_NS / NS_PER_S)
    while runs := node.outbox.waiting(most):
        deliver(runs)
    node.commit()
    assert set(got) == ended and node.outbox.backlog() == Backlog()
    assert all(len(ids) == 1 for ids in got.values())
    assert len(set.union(set(), *got.values())) == len(ended)
    node.close()


@pytest.mark.parametrize("fail_at", range(0, 24, 2))
@pytest.mark.parametrize("after", [False, True])
def test_a_disk_that_fails_loses_no_run_and_no_acknowledgement(
    tmp_path: Path, fail_at: int, after: bool
) -> None:
    disk = Disk()
    node = Node(tmp_path / "ledger.sqlite", factory=disk.factory())
    node.commit(run(1, end_s=3), energy_uj=10)
    node.outbox.delivered(node.outbox.waiting(1))
    disk.arm(fail_at, after=after)
    # Tried again as the sampler does: the same batch, until it is written.
    now = node.clock.advance(5)
    whole = batch({key(SLOT_S): 1}, runs=(run(2, end_s=8),), books_ns=now.wall_ns)
    for _ in range(3):
        try:
            node.ledger.commit(whole, now)
        except CommitFailed:
            disk.arm(-1)
        else:
            break
    disk.arm(-1)
    node.commit()
    assert node.waiting() == ["2"]
    assert node.outbox.backlog() == Backlog(1)
    assert not node.ledger.is_behind
    node.close()


def test_a_disk_that_stays_full_does_not_grow_memory(node: Node) -> None:
    node.commit(*(run(n, end_s=3) for n in range(20)))
    runs = node.outbox.waiting(20)
    node.ledger.write([Delivery("otlp", 10_000 + n, 1) for n in range(MAX_UNWRITTEN)])
    assert runs and node.outbox.waiting(20) == []


def test_deliveries_are_written_a_part_at_a_time(tmp_path: Path) -> None:
    node = Node(tmp_path / "ledger.sqlite")
    node.ledger = DeliveringLedger(node.sqlite, most=3)
    node.outbox = Outbox("otlp", node.ledger, node.reader, node.clock)
    node.commit(*(run(n, end_s=3) for n in range(8)))
    node.outbox.delivered(node.outbox.waiting(8))
    left = []
    while node.ledger.is_behind:
        node.commit()
        left.append(node.outbox.backlog().waiting)
    assert left == [5, 2, 0]
    node.close()


def test_what_comes_next_does_not_wait_for_what_was_said(node: Node) -> None:
    node.commit(*(run(n, end_s=3) for n in range(8)))
    node.outbox.delivered(node.outbox.waiting(4))
    assert node.waiting(4) == ["4", "5", "6", "7"]


def test_an_older_program_may_go_on_and_what_ends_then_does_not_leave(tmp_path: Path) -> None:
    node = Node(tmp_path / "ledger.sqlite")
    node.commit(run(1, end_s=3), run(2))
    node.close()
    node.exporters, node.more = (), {"steps": scripts()[:5]}
    node.open()
    node.commit(run(2, end_s=8))
    node.close()
    node.exporters, node.more = OTLP, {}
    node.open()
    node.commit(run(3, end_s=14), seconds=10)
    assert node.waiting() == ["1", "3"] and node.reader.check(footprint) == []
    node.close()


def test_a_ledger_of_schema_5_gets_the_queue_and_an_older_program_may_go_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    opened(path).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT writable_since FROM meta").fetchone() == (5,)
        take_back_schema_5(connection)
        connection.commit()
    node = Node(path)
    node.commit(run(1, end_s=3))
    assert node.waiting() == ["1"]
    node.close()


def test_a_receipt_of_the_ledger_and_the_record_agree(node: Node) -> None:
    node.commit(run(1), energy_uj=2**53 + 1)
    node.commit(replace(run(1, end_s=8), uid=7), energy_uj=2)
    (ended,) = node.outbox.waiting(1)
    detail = node.reader.job("slurm", "1")
    assert detail is not None and detail.runs[0].cells == ended.book.cells
    assert sum(ended.quality_uj.values()) == 2**53 + 3
