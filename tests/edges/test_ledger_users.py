"""Users' sums: each is that of their runs, whenever it became known whose these are."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import COMMIT, GPU, Disk, batch, key, opened
from wattledger.core.footprint import footprint
from wattledger.errors import CommitFailed
from wattledger.ledger import LedgerReader, SqliteLedger, open_reader_offline
from wattledger.ledger.user_draft import LATE_NS
from wattledger.model import Payee
from wattledger.model.jobbooks import UserKey
from wattledger.model.jobs import Holding, JobRun, job_payee
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S
LATE_S = LATE_NS // NS_PER_S
ALICE = UserKey("run", "alice", "")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def a_run(manager: str = "run", job_id: str = "a1", **more: object) -> JobRun:
    run = JobRun(job_payee(manager, job_id, START_WALL_NS), uid=1001, last_seen_ns=START_WALL_NS)
    return replace(run, **more)  # type: ignore[arg-type]


def book(ledger: SqliteLedger, clock: FakeClock, *runs: JobRun, uj: int = 0) -> None:
    """Commit the runs, each with so much more."""
    energy = {key(SLOT_S, GPU.name, run.payee): uj for run in runs if uj}
    ledger.commit(batch(energy, runs=runs, books_ns=clock.wall_ns), clock.now())


def users(ledger: SqliteLedger) -> dict[UserKey, int]:
    return {key: sums.energy_uj for key, sums in ledger.books.jobs.users.items()}


def waiting(ledger: SqliteLedger) -> dict[Payee, int]:
    return {payee: sums.energy_uj for payee, sums in ledger.books.jobs.waiting.items()}


def test_a_command_is_counted_for_its_user_from_its_first_joule(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    run = a_run()
    book(ledger, clock, run, uj=100)  # its user's name is being looked up
    assert users(ledger) == {} and waiting(ledger) == {run.payee: 100}

    book(ledger, clock, replace(run, labels={"user": "alice"}), uj=10)
    assert users(ledger) == {ALICE: 110} and waiting(ledger) == {}
    ledger.close()


def test_a_restarted_daemon_knows_whose_a_run_is(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    run = a_run(labels={"user": "alice", "name": "train"})
    book(ledger, clock, run, uj=100)
    ledger.close()

    ledger = opened(path, clock)
    book(ledger, clock, replace(run, labels={"name": "train"}), uj=7)  # as it is restored
    assert users(ledger) == {ALICE: 107}
    assert ledger.books.jobs.runs[run.payee].run.labels == {"user": "alice", "name": "train"}
    ledger.close()


def test_what_waits_survives_the_daemon(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    run = a_run()
    book(ledger, clock, run, uj=100)
    ledger.close()

    ledger = opened(path, clock)
    assert users(ledger) == {} and waiting(ledger) == {run.payee: 100}
    book(ledger, clock, replace(run, labels={"user": "alice"}))  # nothing was used meanwhile
    assert users(ledger) == {ALICE: 100}
    ledger.close()
    ledger = opened(path, clock)
    assert users(ledger) == {ALICE: 100} and waiting(ledger) == {}
    ledger.close()


def test_a_name_that_comes_a_little_after_the_end_counts(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    over = a_run(end_ns=clock.wall_ns)
    book(ledger, clock, over, uj=100)
    clock.advance(LATE_S - 1)
    book(ledger, clock, replace(over, labels={"user": "alice"}))
    assert users(ledger) == {ALICE: 100}
    ledger.close()


@pytest.mark.parametrize("restart", [False, True])
def test_whose_name_never_comes_is_nobodys_in_the_end(path: Path, restart: bool) -> None:
    clock = FakeClock()
    ledger = opened(path, clock, linger_ns=NS_PER_S)
    run = a_run()
    book(ledger, clock, run, uj=100)
    clock.advance(3600)
    book(ledger, clock, run, uj=1)
    assert users(ledger) == {}, "it runs, so that its name may come"
    book(ledger, clock, replace(run, end_ns=clock.wall_ns))
    clock.advance(2)
    book(ledger, clock)
    assert users(ledger) == {}, "it lingers no longer, but its name may still come"
    clock.advance(LATE_S)
    if restart:
        ledger.close()
        ledger = opened(path, clock, linger_ns=NS_PER_S)
        assert run.payee not in ledger.books.jobs.runs
    book(ledger, clock)
    assert users(ledger) == {UserKey("run", "", ""): 101} and waiting(ledger) == {}
    assert ledger.books.jobs.unlisted_count == 0
    ledger.close()


def test_a_slurm_job_waits_for_its_account_a_moment(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    named, other = (a_run("slurm", job, labels={"user": "alice"}) for job in ("7", "8"))
    book(ledger, clock, named, other, uj=100)
    assert users(ledger) == {}
    of_physics = replace(named, labels={"user": "alice", "account": "physics"})
    book(ledger, clock, of_physics, other, uj=10)  # the prolog's file was read now
    assert users(ledger) == {UserKey("slurm", "alice", "physics"): 110}
    clock.advance(LATE_S)
    book(ledger, clock, named, other, uj=1)  # a Slurm that keeps no accounts
    assert users(ledger) == {
        UserKey("slurm", "alice", "physics"): 111,
        UserKey("slurm", "alice", ""): 111,
    }
    ledger.close()


@pytest.mark.parametrize("manager", ["unit", "pod", "docker"])
def test_what_has_no_user_does_not_wait_for_one(path: Path, manager: str) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    book(ledger, clock, a_run(manager, uid=None), uj=5)
    assert users(ledger) == {UserKey(manager, "", ""): 5}
    ledger.close()


def test_an_ended_run_that_is_told_of_again_keeps_what_it_held(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    held = (Holding(GPU.name, 1_000_000),)
    over = a_run(end_ns=clock.wall_ns, holdings=held)
    book(ledger, clock, over, uj=1)
    book(ledger, clock, replace(over, holdings=(), labels={"user": "alice"}))
    known = ledger.books.jobs.runs[over.payee].run
    assert known.holdings == held and known.labels == {"user": "alice"}
    ledger.close()


def test_check_finds_users_that_do_not_balance(path: Path) -> None:
    ledger = opened(path)
    book(ledger, FakeClock(), a_run(labels={"user": "alice"}), uj=100)
    ledger.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE user_total SET co2e_ug = co2e_ug + 1")
    connection.commit()
    connection.close()
    reader = open_reader_offline(path)
    (finding,) = reader.check(footprint)
    assert "users of run" in finding
    reader.close()


STEP = st.tuples(
    st.integers(0, 3),  # which run
    st.sampled_from(["book", "book", "name", "account", "end", "late", "restart", "fail"]),
    st.integers(1, 50),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_no_sum_falls_and_all_of_them_are_the_runs(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int]]
) -> None:
    path, clock, disk = tmp_path_factory.mktemp("users") / "ledger.sqlite", FakeClock(), Disk()

    def start() -> SqliteLedger:
        return opened(path, clock, linger_ns=NS_PER_S, factory=disk.factory())

    ledger = start()
    runs = [
        a_run("slurm", "1"),
        a_run("slurm", "2", uid=None),
        a_run("run", "3"),
        a_run("unit", "4", uid=None),
    ]
    before: dict[UserKey, int] = {}
    booked = 0
    for number, what, uj in steps:
        run = runs[number]
        if what == "name" and run.payee.manager != "unit":
            run = replace(run, labels={**run.labels, "user": f"user{number}"})
        elif what == "account" and run.payee.manager == "slurm":
            run = replace(run, labels={**run.labels, "account": "physics"})
        elif what == "end":
            run = replace(run, end_ns=run.end_ns or clock.wall_ns)
        elif what == "late":
            clock.advance(uj)
        elif what == "restart":
            ledger.close()
            ledger = start()
        runs[number] = run
        if what == "fail":  # of unknown outcome: it did take effect, and is tried again
            disk.arm(COMMIT, after=True, sticky=True)
            with pytest.raises(CommitFailed):
                book(ledger, clock, run, uj=uj)
            run = runs[number] = replace(run, labels={**run.labels, "user": f"user{number}"})
        book(ledger, clock, run, uj=uj)
        booked += uj
        now = users(ledger)
        assert all(now[key] >= sums for key, sums in before.items())
        assert sum(now.values()) + sum(waiting(ledger).values()) == booked
        before = now
    ledger.close()
    reader = LedgerReader(path)
    assert reader.check(footprint) == []
    reader.close()
