"""Lists of jobs, page by page, and one job that several users ran."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import GPU, PRICE, batch, key, opened
from wattledger.core.footprint import footprint
from wattledger.ledger import LedgerReader, migrations
from wattledger.ledger.job_queries import list_jobs
from wattledger.ledger.run_rows import load_past
from wattledger.model import Basis, Kind
from wattledger.model.jobbooks import JOB_SORTS, JobQuery
from wattledger.model.jobs import Held, JobKey, JobRun, KindBasis, job_payee
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S
GPU_CELL = KindBasis(Kind.GPU, Basis.LIFECYCLE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def a_run(job_id: str, number: int, uid: int | None, **labels: str) -> JobRun:
    start_ns = START_WALL_NS + number * NS_PER_S
    return JobRun(
        job_payee("slurm", job_id, start_ns),
        uid=uid,
        labels=labels,
        last_seen_ns=start_ns + NS_PER_S,
        end_ns=start_ns + NS_PER_S,
    )


# ── pages ───────────────────────────────────────────────────────────────────────────────────────


class Table:
    """Only the tables that a list reads."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for script in migrations.scripts():
            self.connection.executescript(script)
        self.number = 0

    def add(self, start_ns: int, energy_uj: int, co2e_ug: int = 0, idle_uj: int = 0) -> int:
        self.number += 1
        self.connection.execute(
            "INSERT INTO payee VALUES (?, 'jobs', 'slurm', ?, ?)",
            (self.number, str(self.number), start_ns),
        )
        self.connection.execute(
            "INSERT INTO run (payee_id, start_ns, last_seen_ns, end_ns) VALUES (?, ?, ?, ?)",
            (self.number, start_ns, start_ns, start_ns + 1),
        )
        self.connection.execute(
            "INSERT INTO run_total VALUES (?, 'gpu', 'lifecycle', ?, ?, 0, 0, 0, 0, ?)",
            (self.number, energy_uj, co2e_ug, idle_uj),
        )
        return self.number


FEW = st.integers(0, 3)  # so that most are equal


@given(
    st.lists(st.tuples(FEW, FEW, FEW, FEW), max_size=12),
    st.sampled_from(JOB_SORTS),
    st.booleans(),
    st.integers(1, 5),
    st.lists(st.integers(0, 2), max_size=8),
)
def test_each_run_is_on_one_page(
    runs: list[tuple[int, int, int, int]],
    sort: str,
    ascending: bool,
    limit: int,
    arrivals: list[int],
) -> None:
    """Whatever is equal, and while new jobs begin between two pages."""
    table = Table()
    column = JOB_SORTS.index(sort)
    known = {table.add(*run): run[column] for run in runs}
    there = sorted(known, key=lambda n: (known[n], n), reverse=not ascending)
    seen: list[int] = []
    after = None
    while True:
        page = list_jobs(
            table.connection, JobQuery(sort=sort, ascending=ascending, limit=limit, after=after)
        )
        seen += [int(row.book.run.payee.job_id) for row in page]
        if len(page) < limit:
            break
        after = page[-1].position
        for _ in range(arrivals.pop() if arrivals else 0):
            table.add(100, 0)  # a job that begins now has used nothing yet
    assert [number for number in seen if number in known] == there
    assert len(set(seen)) == len(seen)
    table.connection.close()


def test_filters_by_account_and_name(path: Path) -> None:
    ledger = opened(path)
    runs = (
        a_run("1", 1, 1001, user="alice", account="physics", name="train-1"),
        a_run("2", 2, 1001, user="alice", account="maths", name="train-2"),
        a_run("3", 3, 1002, user="bob", account="physics", name="it's [x]*"),
        a_run("4", 4, 1002),
    )
    ledger.commit(batch(runs=runs), FakeClock().now())
    reader = LedgerReader(path)

    def found(**asked: object) -> list[str]:
        rows = reader.jobs(JobQuery(**asked))  # type: ignore[arg-type]
        return [row.book.run.payee.job_id for row in rows]

    assert found(account="physics") == ["3", "1"]
    assert found(account="physics", uid=1001) == ["1"]
    assert found(account="none") == []
    assert found(name="train-*") == ["2", "1"]
    assert found(name="train-?", account="maths") == ["2"]
    assert found(name="it's [[]x][*]") == ["3"]
    assert found(name="train") == []
    assert found(ascending=True) == ["1", "2", "3", "4"]
    reader.close()
    ledger.close()


def test_an_account_is_found_by_its_index(path: Path) -> None:
    opened(path).close()
    connection = sqlite3.connect(path)
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    list_jobs(connection, JobQuery(account="physics"))
    connection.set_trace_callback(None)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {seen[-1]}")]
    assert any("USING INDEX run_account" in line for line in plan), plan
    assert not any("TEMP B-TREE" in line for line in plan[:1]), plan
    connection.close()


# ── one job of several users ────────────────────────────────────────────────────────────────────


def test_each_user_gets_their_own_runs_of_a_job_id(path: Path) -> None:
    """Over the years a job number is used again, any number of times, by others."""
    ledger = opened(path)
    runs, energy, held = [], {}, {}
    for number in range(360):
        run = a_run("7", number, (1001, 1002, None)[number % 3])
        where = key(SLOT_S + 300 * (number % 3), GPU.name, run.payee)
        energy[where], held[where] = 10 ** (3 * (number % 3)), Held(number % 3, 0, 0)
        runs.append(run)
    ledger.commit(batch(energy, runs=tuple(runs), held=held), FakeClock().now())
    reader = LedgerReader(path)
    assert reader.job("slurm", "7", 4242) is None
    seen = {}
    for part, uid in enumerate((1001, 1002)):
        detail = reader.job("slurm", "7", uid)
        assert detail is not None
        assert {book.run.uid for book in detail.runs} == {uid}
        assert (detail.run_count, len(detail.runs)) == (120, 100)
        assert detail.begun_ns == START_WALL_NS + part * NS_PER_S
        assert detail.ran_ns == 120 * NS_PER_S
        assert detail.total[GPU_CELL].amounts.energy_uj == 120 * 1000**part
        assert detail.total[GPU_CELL].held.held_ms == 120 * part
        assert [moment[::2] for moment in detail.moments] == [
            (SLOT_S + 300 * part, 120 * 1000**part)
        ]
        (cell,) = detail.parts.values()
        assert cell == detail.total[GPU_CELL]
        seen[uid] = cell.amounts.energy_uj
    everybody = reader.job("slurm", "7")
    assert everybody is not None and everybody.run_count == 360
    assert everybody.total[GPU_CELL].amounts.energy_uj == sum(seen.values()) + 120 * 10**6
    reader.close()
    ledger.close()


def test_an_owner_learnt_late_is_written_and_not_unlearnt(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock, linger_ns=60 * NS_PER_S)
    run = a_run("7", 0, None)
    running = replace(run, end_ns=0)
    where = key(SLOT_S, GPU.name, run.payee)
    ledger.commit(batch({where: 5}, runs=(running,)), clock.now())
    ledger.commit(batch(runs=(run,)), clock.now())
    reader = LedgerReader(path)
    assert reader.job("slurm", "7", 1001) is None, "nobody's: for operators only"
    assert reader.job("slurm", "7") is not None
    clock.advance(3600)
    ledger.commit(batch(books_ns=clock.wall_ns), clock.now())
    assert ledger.books.jobs.runs == {}, "long gone from memory"

    ledger.commit(batch(runs=(replace(run, uid=1001, labels={"user": "alice"}),)), clock.now())
    detail = reader.job("slurm", "7", 1001)
    assert detail is not None and detail.total[GPU_CELL].amounts == footprint(5, PRICE)
    ledger.commit(batch({where: 1}, runs=(run,)), clock.now())
    detail = reader.job("slurm", "7", 1001)
    assert detail is not None and detail.total[GPU_CELL].amounts.energy_uj == 6
    reader.close()
    ledger.close()


def test_a_job_of_any_number_of_runs_is_summed_up(path: Path) -> None:
    """More than SQLite has parameters for: a unit that is restarted every few seconds."""
    opened(path).close()
    connection = sqlite3.connect(path)
    old, new = a_run("7", 0, 1), a_run("7", 1, 1)
    for number, run in enumerate((old, new), 1):
        connection.execute("INSERT INTO payee VALUES (?, ?, ?, ?, ?)", (number, *run.payee))
        connection.execute(
            "INSERT INTO run (payee_id, start_ns, last_seen_ns, first_booked_ns) "
            "VALUES (?, ?, 0, ?)",
            (number, run.payee.start_ns, number),
        )
        connection.execute(
            "INSERT INTO run_total VALUES (?, 'gpu', 'lifecycle', ?, 0, 0, 0, 0, 0, 0)",
            (number, 10**number),
        )
    loaded = [job_payee("slurm", "7", START_WALL_NS + number) for number in range(1, 300_000)]
    past = load_past(connection, JobKey("slurm", "7"), [new.payee, *loaded])
    assert past.cells[GPU_CELL].amounts.energy_uj == 10 and past.first_booked_ns == 1
    assert load_past(connection, JobKey("slurm", "7"), [old.payee, new.payee]).cells == {}
    connection.close()


def test_what_was_rolled_up_has_the_grain_of_hours(path: Path) -> None:
    """Else an hour's energy would be drawn as that of five minutes."""
    ledger = opened(path, keep_days=1)
    clock = FakeClock()
    run = a_run("7", 0, 1)
    energy = {key(SLOT_S + 300 * n, GPU.name, run.payee): 10 for n in range(13)}
    ledger.commit(batch(energy, runs=(run,)), clock.now())
    reader = LedgerReader(path)
    detail = reader.job("slurm", "7")
    assert detail is not None and detail.grain_s == 300 and len(detail.moments) == 13
    clock.advance(3 * 86_400)
    for _ in range(2):
        ledger.commit(batch(books_ns=clock.wall_ns), clock.now())
    detail = reader.job("slurm", "7")
    assert detail is not None and detail.grain_s == 3600
    assert [moment.energy_uj for moment in detail.moments] == [120, 10]
    reader.close()
    ledger.close()


# ── runs whose totals stand still ───────────────────────────────────────────────────────────────


def test_a_run_that_uses_nothing_has_run_as_long_as_the_books_go(path: Path) -> None:
    """A sign of life alone is not written, so that its row is as old as what it last used."""
    clock = FakeClock()
    ledger = opened(path, clock)
    still = replace(a_run("7", 0, 1001), end_ns=0)
    ended = a_run("8", 0, 1001)
    ledger.commit(batch(runs=(still, ended), books_ns=clock.wall_ns), clock.now())
    now = clock.advance(30)
    seen = replace(still, last_seen_ns=now.wall_ns)
    ledger.commit(batch(runs=(seen,), books_ns=now.wall_ns), now)
    reader = LedgerReader(path)
    shown = {row.book.run.payee.job_id: row.book.run for row in reader.jobs(JobQuery())}
    assert shown["7"].last_seen_ns - shown["7"].payee.start_ns == 30 * NS_PER_S
    assert shown["8"].last_seen_ns == ended.last_seen_ns
    detail, past = reader.job("slurm", "7"), reader.job("slurm", "8")
    assert detail is not None and past is not None
    assert (detail.ran_ns, past.ran_ns) == (30 * NS_PER_S, NS_PER_S)
    assert detail.runs[0].run == shown["7"]
    reader.close()
    ledger.close()
