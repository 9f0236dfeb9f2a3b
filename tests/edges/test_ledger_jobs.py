"""What the ledger remembers of jobs, for good, and how it is asked."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from fakes import START_WALL_NS, FakeClock
from ledgers import CPU, GPU, PRICE, batch, key, opened
from wattledger.core.footprint import footprint
from wattledger.ledger import LedgerReader
from wattledger.ledger.run_rows import job_total
from wattledger.model import IDLE, Basis, Kind, Quality
from wattledger.model.jobbooks import Cell, JobPart, JobQuery, UserKey
from wattledger.model.jobs import Held, Holding, JobKey, JobRun, KindBasis, job_payee
from wattledger.model.pricing import GridPart
from wattledger.model.sums import sums_of
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S
GPU_CELL = KindBasis(Kind.GPU, Basis.LIFECYCLE)
CPU_CELL = KindBasis(Kind.CPU, Basis.LIFECYCLE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def a_run(job_id: str, start_s: int = SLOT_S, manager: str = "slurm", **more: object) -> JobRun:
    run = JobRun(
        job_payee(manager, job_id, start_s * NS_PER_S),
        uid=1001,
        labels={"user": "alice", "account": "physics", "name": 'a "job"\nof\0 mine' + "x" * 10**6},
        cgroup=f"/slurm/uid_1001/job_{job_id}",
        inode=42,
        boot_id="boot-1",
        cpu_ns=5,
        holdings=(Holding(GPU.name, 1_000_000),),
        last_seen_ns=start_s * NS_PER_S,
    )
    return replace(run, **more)  # type: ignore[arg-type]


def booked(run: JobRun, energy_uj: int, device: str = GPU.name, slot_s: int = SLOT_S):  # type: ignore[no-untyped-def]
    return {key(slot_s, device, run.payee): energy_uj}


def test_a_runs_totals_survive_and_balance(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    run = a_run("7")
    where = key(SLOT_S, GPU.name, run.payee)
    ledger.commit(
        batch(
            {where: 1_000, key(SLOT_S, CPU.name, run.payee): 500, key(SLOT_S): 9},
            runs=(run,),
            held={where: Held(5000, 2000, 400)},
        ),
        clock.now(),
    )
    # What was held idle may be known later than the energy.
    ledger.commit(batch({where: 10}, runs=(run,)), clock.now())
    books = ledger.commit(batch(held={where: Held(0, 1000, 100)}), clock.now())
    price = PRICE

    cells = job_total(books.jobs, JobKey("slurm", "7"))
    assert cells == {
        GPU_CELL: Cell(footprint(1_010, price), Held(5000, 3000, 500)),
        CPU_CELL: Cell(footprint(500, price)),
    }
    assert books.jobs.users == {
        UserKey("slurm", "alice", "physics"): footprint(1_010, PRICE).plus(footprint(500, PRICE))
    }
    assert books.jobs.runs[run.payee].first_booked_ns == clock.wall_ns
    ledger.close()
    again = opened(path, clock)
    known = again.books.jobs.runs[run.payee].run
    assert job_total(again.books.jobs, JobKey("slurm", "7")) == cells
    assert (known.uid, known.inode, known.cpu_ns, known.holdings) == (1001, 42, 5, run.holdings)
    assert len(known.labels["name"]) == 256 and "\0" not in known.labels["name"]
    reader = LedgerReader(path)
    assert reader.check(footprint) == []
    reader.close()
    again.close()


def test_check_finds_a_run_that_does_not_balance(path: Path) -> None:
    ledger = opened(path)
    run = a_run("7")
    ledger.commit(batch(booked(run, 100), runs=(run,)), FakeClock().now())
    ledger.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE run_total SET held_ms = 1")
    connection.commit()
    connection.close()
    reader = LedgerReader(path)
    (finding,) = reader.check(footprint)
    assert "run ('slurm', '7'" in finding
    reader.close()


def test_an_ended_job_lingers_then_lives_on_in_the_ledger(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock, linger_ns=900 * NS_PER_S)
    run = a_run("7")
    ended = replace(run, end_ns=clock.wall_ns)
    ledger.commit(batch(booked(run, 100), runs=(run,)), clock.now())
    ledger.commit(batch(runs=(ended,)), clock.now())
    clock.advance(899)
    assert run.payee in ledger.commit(batch(books_ns=clock.wall_ns), clock.now()).jobs.runs
    clock.advance(2)
    books = ledger.commit(batch(books_ns=clock.wall_ns), clock.now())
    assert books.jobs.runs == {} and books.jobs.past == {}
    ledger.close()
    ledger = opened(path, clock)
    assert ledger.books.jobs.runs == {}
    reader = LedgerReader(path)
    detail = reader.job("slurm", "7")
    assert detail is not None and detail.total[GPU_CELL].amounts.energy_uj == 100
    assert reader.job("slurm", "8") is None and reader.job("pod", "7") is None

    # The id is used again: the series goes on where it was, the run is another.
    later = a_run("7", SLOT_S + 1000, last_seen_ns=clock.wall_ns)
    books = ledger.commit(batch(booked(later, 11), runs=(later,)), clock.now())
    assert job_total(books.jobs, JobKey("slurm", "7"))[GPU_CELL].amounts.energy_uj == 111
    assert [b.run.payee for b in books.jobs.runs.values()] == [later.payee]
    detail = reader.job("slurm", "7")
    assert detail is not None and detail.run_count == 2
    assert [b.run.payee for b in detail.runs] == [later.payee, run.payee]
    reader.close()
    ledger.close()


def test_the_runs_of_a_job_that_goes_on_do_not_pile_up(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock, linger_ns=60 * NS_PER_S)
    total = 0
    for number in range(20):
        run = a_run("train.service", SLOT_S + 30 * number, "unit")
        ended = replace(run, end_ns=clock.advance(30).wall_ns)
        ledger.commit(batch(booked(run, 10 + number), runs=(run,)), clock.now())
        total += 10 + number
        books = ledger.commit(batch(runs=(ended,)), clock.now())
        sums = job_total(books.jobs, JobKey("unit", "train.service"))
        assert sums[GPU_CELL].amounts.energy_uj == total
    assert len(books.jobs.runs) <= 4
    ledger.close()
    books = opened(path, clock).books
    sums = job_total(books.jobs, JobKey("unit", "train.service"))
    assert sums[GPU_CELL].amounts.energy_uj == total


def test_a_job_is_listed_at_first_sight_or_never(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock, max_series=2, linger_ns=60 * NS_PER_S)
    jobs = [a_run(str(n)) for n in range(5)]
    everything = {k: v for run in jobs for k, v in booked(run, 100).items()}
    books = ledger.commit(batch(everything, runs=tuple(jobs)), clock.now())
    assert books.jobs.unlisted == {JobKey("slurm", str(n)) for n in (2, 3, 4)}
    assert books.jobs.unlisted_total[GPU_CELL].amounts.energy_uj == 300
    assert books.jobs.unlisted_count == 3

    # Two end and leave; those that were left out stay out, also after a restart.
    ended = tuple(replace(run, end_ns=clock.wall_ns) for run in jobs[:2])
    ledger.commit(batch(runs=ended), clock.now())
    clock.advance(100)
    ledger.commit(batch(booked(jobs[3], 7), runs=()), clock.now())
    ledger.close()
    ledger = opened(path, clock, max_series=2, linger_ns=60 * NS_PER_S)
    new = a_run("99", SLOT_S + 100)
    books = ledger.commit(batch({**booked(jobs[4], 5), **booked(new, 1)}, runs=(new,)), clock.now())
    assert books.jobs.unlisted == {JobKey("slurm", str(n)) for n in (2, 3, 4)}
    assert books.jobs.unlisted_total[GPU_CELL].amounts.energy_uj == 312
    assert books.jobs.unlisted_count == 3
    assert job_total(books.jobs, JobKey("slurm", "99"))[GPU_CELL].amounts.energy_uj == 1
    ledger.close()


def some_jobs(path: Path) -> LedgerReader:
    clock = FakeClock()
    ledger = opened(path, clock)
    runs, energy = [], {}
    for number in range(10):
        start_s = SLOT_S + 300 * number
        run = a_run(str(number % 8), start_s, "slurm" if number % 2 else "pod")
        if number < 6:
            run = replace(run, end_ns=(start_s + 300) * NS_PER_S)
        if number % 3 == 0:
            run = replace(run, uid=1002, labels={"user": "bob"})
        if number == 9:
            run = replace(run, uid=None, labels={})
        runs.append(run)
        energy |= booked(run, 10 * (number + 1), slot_s=start_s)
    energy[key(SLOT_S, GPU.name, IDLE)] = 1000
    ledger.commit(batch(energy, runs=tuple(runs)), clock.now())
    ledger.close()
    return LedgerReader(path)


def energies(reader: LedgerReader, **asked: object) -> list[int]:
    rows = reader.jobs(JobQuery(**asked))  # type: ignore[arg-type]
    return [row.book.cells[GPU_CELL].amounts.energy_uj for row in rows]


def test_filters_sorting_and_paging(path: Path) -> None:
    reader = some_jobs(path)
    assert energies(reader) == [100, 90, 80, 70, 60, 50, 40, 30, 20, 10]
    assert energies(reader, manager="pod") == [90, 70, 50, 30, 10]
    assert energies(reader, user="bob") == [70, 40, 10]
    assert energies(reader, user="1002") == [70, 40, 10]
    assert energies(reader, user="bob' OR '1'='1") == []
    assert energies(reader, uid=1001) == [90, 80, 60, 50, 30, 20]
    assert energies(reader, user="bob", uid=1001) == []
    assert energies(reader, state="running") == [100, 90, 80, 70]
    assert energies(reader, state="ended", sort="energy") == [60, 50, 40, 30, 20, 10]
    span = {"since_ns": (SLOT_S + 900) * NS_PER_S, "until_ns": (SLOT_S + 1500) * NS_PER_S}
    assert energies(reader, **span) == [50, 40, 30]

    for sort in ("start", "energy"):
        seen, after = [], None
        while True:
            rows = reader.jobs(JobQuery(sort=sort, limit=3, after=after))
            if not rows:
                break
            seen += [row.book.cells[GPU_CELL].amounts.energy_uj for row in rows]
            after = rows[-1].position
        assert seen == [100, 90, 80, 70, 60, 50, 40, 30, 20, 10]
    with pytest.raises(ValueError):
        reader.jobs(JobQuery(sort="name; DROP TABLE run"))
    reader.close()


def test_totals_by_job_and_user_are_the_nodes(path: Path) -> None:
    reader = some_jobs(path)

    def by(what: str, uid: int | None = None) -> dict[str, int]:
        rows = reader.totals(0, 2**62, what, uid)
        return {row.group: row.amounts.energy_uj for row in rows}

    jobs = by("job")
    assert jobs["pod/0"] == 10 + 90 and jobs["slurm/1"] == 20 + 100 and jobs["(idle)"] == 1000
    assert by("user") == {"alice": 330, "bob": 120, "(unknown)": 100, "(idle)": 1000}
    assert sum(jobs.values()) == sum(by("user").values()) == by("all")["all"]
    assert by("job", 1002) == {"pod/0": 10, "slurm/3": 40, "pod/6": 70}
    assert by("user", 1002) == {"bob": 120}
    with pytest.raises(ValueError):
        by("device", 1002)
    reader.close()


def test_a_jobs_time_line(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    run = a_run("7")
    ledger.commit(
        batch(
            {
                key(SLOT_S, GPU.name, run.payee): 10,
                key(SLOT_S, CPU.name, run.payee, Quality.ESTIMATED): 3,
                key(SLOT_S + 300, GPU.name, run.payee): 20,
            },
            runs=(run,),
        ),
        clock.now(),
    )
    reader = LedgerReader(path)
    detail = reader.job("slurm", "7")
    assert detail is not None
    assert detail.moments == (
        (SLOT_S, Kind.CPU, 3),
        (SLOT_S, Kind.GPU, 10),
        (SLOT_S + 300, Kind.GPU, 20),
    )
    table = PRICE.part
    assert table == GridPart("WORLD", "table", Basis.LIFECYCLE, True, 1_560_000, level=2)
    assert detail.grain_s == 300
    assert {part: cell.amounts.energy_uj for part, cell in detail.parts.items()} == {
        JobPart(Quality.METERED, table): 30,
        JobPart(Quality.ESTIMATED, table): 3,
    }
    assert detail.weights == {table: 33 * PRICE.intensity_ug_per_kwh}
    ledger.commit(batch({key(SLOT_S + 86_400, GPU.name, run.payee): 1}), clock.now())
    detail = reader.job("slurm", "7")
    assert detail is not None and detail.grain_s == 3600
    assert [m.energy_uj for m in detail.moments] == [3, 30, 1]
    ledger.commit(batch({key(SLOT_S + 25 * 86_400, GPU.name, run.payee): 7}), clock.now())
    detail = reader.job("slurm", "7")
    assert detail is not None and detail.grain_s == 86_400
    assert [m.energy_uj for m in detail.moments] == [3, 30, 1, 7]
    reader.close()
    ledger.close()


def test_a_tariff_of_each_slot_makes_no_part_of_its_own_and_what_idled_costs_its_price(
    path: Path,
) -> None:
    clock, run = FakeClock(), a_run("7")
    ledger = opened(path, clock)
    prices = [
        PRICE._replace(
            market_ug_per_kwh=10**8 + number,
            cost_u_per_kwh=200_000 + number // 10,
            currency="CHF" if number > 30 else "EUR",
        )
        for number in range(40)
    ]
    keys = [
        key(SLOT_S + number * 300, GPU.name, run.payee)._replace(price=price)
        for number, price in enumerate(prices)
    ]
    held = {one: Held(1000, 500, 3 + number) for number, one in enumerate(keys)}
    booked = dict.fromkeys(keys, 1_000_000)
    ledger.commit(replace(batch(booked, runs=(run,)), held=held), clock.now())
    reader = LedgerReader(path)
    detail = reader.job("slurm", "7")
    assert detail is not None
    assert list(detail.parts) == [JobPart(Quality.METERED, PRICE.part)]
    assert detail.weights == {PRICE.part: 40_000_000 * PRICE.intensity_ug_per_kwh}
    assert (
        detail.idle_sums.costs
        == sums_of((price, 3 + number) for number, price in enumerate(prices)).costs
    )
    assert sorted(detail.idle_sums.costs) == ["CHF", "EUR"]
    reader.close()
    ledger.close()


def test_one_job_among_many_is_found_by_an_index(path: Path) -> None:
    """Not by how long it takes, but by what SQLite says it does; the bench takes the time."""
    opened(path).close()
    connection = sqlite3.connect(path)
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    from wattledger.ledger.job_queries import find_job, list_jobs

    connection.executescript(
        "INSERT INTO payee VALUES (1, 'jobs', 'slurm', '7', 5);"
        "INSERT INTO run (payee_id, start_ns, last_seen_ns) VALUES (1, 5, 5);"
    )
    seen.clear()
    assert find_job(connection, "slurm", "7") is not None
    list_jobs(connection, JobQuery(uid=1001))
    list_jobs(connection, JobQuery(user="alice"))
    list_jobs(connection, JobQuery())
    list_jobs(connection, JobQuery(state="running"))
    asked = [text for text in seen if text.lstrip().startswith(("SELECT", "WITH"))]
    connection.set_trace_callback(None)
    for text in asked:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
        scans = [line for line in plan if line.startswith("SCAN") and "USING" not in line]
        big = {"entry", "entry_hour", "run", "run_total", "payee"}
        assert not [line for line in scans if line.split()[1] in big], (text, plan)
    connection.close()


def test_a_damaged_row_is_said_as_damage(path: Path) -> None:
    some_jobs(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE run SET labels = '[1'")
    connection.commit()
    connection.close()
    from wattledger.errors import LedgerError

    reader = LedgerReader(path)
    with pytest.raises(LedgerError, match="damaged"):
        reader.jobs(JobQuery())
    reader.close()
