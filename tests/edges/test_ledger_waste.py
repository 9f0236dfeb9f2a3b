"""Who held GPUs for nothing: sums of the ledger, by user and by account."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import CPU, GPU, PRICE, batch, key, opened, take_back_schema_3
from wattledger.ledger import LedgerReader
from wattledger.ledger.rollup import roll_up
from wattledger.model import IDLE, DeviceInfo, EntryKey, Kind
from wattledger.model.jobbooks import JobQuery, Waste, WasteRow
from wattledger.model.jobs import Held, JobRun, job_payee
from wattledger.units import NS_PER_S, PPM

SLOT_S = START_WALL_NS // NS_PER_S
SECOND_GPU = DeviceInfo("GPU-2", Kind.GPU, "nvml", "1", "H100")
DEVICES = (GPU, SECOND_GPU, CPU)
LEAN = PRICE._replace(pue_ppm=1_200_000)
ALL = (0, 2**62)


def a_run(number: int, uid: int | None = 1001, user: str = "alice", account: str = "") -> JobRun:
    labels = {name: text for name, text in (("user", user), ("account", account)) if text}
    start_ns = START_WALL_NS + number
    return JobRun(
        job_payee("slurm", str(number), start_ns), uid=uid, labels=labels, last_seen_ns=start_ns
    )


def rows(found: Waste) -> dict[str, tuple[int, ...]]:
    return {
        row.group: (row.runs, *row.held, row.energy_uj, row.facility_uj, row.idle_facility_uj)
        for row in found.rows
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_worst_first_by_user_and_by_account(path: Path) -> None:
    ledger = opened(path)
    alice, late = a_run(1, account="physics"), a_run(2, account="maths")
    bob = a_run(3, 1002, "bob", "physics")
    nameless, nobody = a_run(4, 1003, ""), a_run(5, None, "")
    dear, cheap = key(SLOT_S, GPU.name, alice.payee), key(SLOT_S, GPU.name, late.payee, price=LEAN)
    of_bob = key(SLOT_S + 300, SECOND_GPU.name, bob.payee)
    busy = key(SLOT_S, SECOND_GPU.name, nameless.payee)
    unknown = key(SLOT_S + 300, GPU.name, nobody.payee)
    energy = {dear: 1000, cheap: 1000, of_bob: 9000, busy: 70, unknown: 60}
    others = {key(SLOT_S, CPU.name, alice.payee): 5000, key(SLOT_S, CPU.name): 11}
    free = {key(SLOT_S, GPU.name): 100, key(SLOT_S, GPU.name, IDLE, price=LEAN): 10}
    held = {
        dear: Held(10, 4, 400),
        cheap: Held(10, 5, 500),
        of_bob: Held(300, 300, 9000),
        busy: Held(7, 0, 0),
        unknown: Held(6, 6, 0),
    }
    runs = (alice, late, bob, nameless, nobody)
    ledger.commit(
        batch({**energy, **others, **free}, devices=DEVICES, runs=runs, held=held),
        FakeClock().now(),
    )
    reader = LedgerReader(path)
    by_user = reader.waste(*ALL, "user")
    assert [row.group for row in by_user.rows] == ["bob", "alice", "(unknown)", "uid 1003"]
    assert rows(by_user)["alice"] == (
        2,
        *(20, 9, 900),
        2000,
        1560 + 1200,
        400 * 1_560_000 // PPM + 600,
    )
    assert rows(by_user)["bob"] == (1, 300, 300, 9000, 9000, 14040, 14040)
    assert (by_user.unheld_uj, by_user.unheld_facility_uj) == (110, 156 + 12)

    by_account = reader.waste(*ALL, "account")
    assert [row.group for row in by_account.rows] == ["physics", "maths", "(none)"]
    assert rows(by_account)["physics"][:4] == (2, 310, 304, 9400)

    assert rows(reader.waste(*ALL, "user", 1001)) == {"alice": rows(by_user)["alice"]}
    assert list(rows(reader.waste(*ALL, "account", 1001))) == ["maths", "physics"]
    assert reader.waste(*ALL, "user", 4242).rows == ()
    later = reader.waste((SLOT_S + 1) * NS_PER_S, 2**62, "user")
    assert list(rows(later)) == ["bob", "(unknown)"] and later.unheld_uj == 0
    assert list(rows(reader.waste(0, SLOT_S * NS_PER_S + 1, "user"))) == ["alice", "uid 1003"]
    with pytest.raises(ValueError):
        reader.waste(*ALL, "job")
    reader.close()
    ledger.close()


PARTS = st.tuples(
    st.integers(0, 40),  # slot
    st.integers(0, 5),  # run
    st.sampled_from([GPU.name, SECOND_GPU.name]),
    st.sampled_from([PRICE, LEAN]),
    st.integers(1, 10**6),  # energy
    st.integers(1, 1000),  # held
    st.integers(0, 1000),
    st.integers(0, 10**6),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(PARTS, max_size=40), st.integers(0, 40))
def test_the_lines_are_what_the_runs_held(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple], cut: int
) -> None:
    """Nothing is lost or counted twice, before and after slots become hours."""
    path = tmp_path_factory.mktemp("waste") / "l.sqlite"
    ledger = opened(path)
    runs = [a_run(n, 1000 + n % 3, f"user{n % 3}", f"account{n % 2}") for n in range(6)]
    first_s = SLOT_S - SLOT_S % 3600
    energy: dict[EntryKey, int] = {}
    held: dict[EntryKey, Held] = {}
    for slot, run, device, price, energy_uj, held_ms, idle_ms, idle_uj in parts:
        where = key(first_s + 300 * slot, device, runs[run].payee, price=price)
        idle = Held(held_ms, min(idle_ms, held_ms), min(idle_uj, energy_uj))
        energy[where] = energy.get(where, 0) + energy_uj
        held[where] = held.get(where, Held()).plus(idle)
    made = batch(energy, devices=DEVICES, runs=tuple(runs), held=held)
    ledger.commit(made, FakeClock().now())
    ledger.close()

    def whole(found: Waste) -> WasteRow:
        total = WasteRow("", 0, Held(), 0, 0, 0)
        for row in found.rows:
            total = total.plus(row)
        return total

    def asked() -> list[Waste]:
        reader = LedgerReader(path)
        middle_ns = (first_s + cut // 12 * 3600) * NS_PER_S
        found = [
            reader.waste(*ALL, "user"),
            reader.waste(*ALL, "account"),
            reader.waste(0, middle_ns, "user"),
            reader.waste(middle_ns, 2**62, "user"),
            *(reader.waste(*ALL, "user", 1000 + n) for n in range(3)),
        ]
        reader.close()
        return found

    before = asked()
    by_user, by_account, early, late, *own = before
    connection = sqlite3.connect(path, isolation_level=None)
    expected = connection.execute(
        "SELECT coalesce(sum(held_ms), 0), coalesce(sum(held_idle_ms), 0), "
        "coalesce(sum(held_idle_uj), 0), coalesce(sum(energy_uj), 0) FROM run_total"
    ).fetchone()
    total = whole(by_user)
    assert (*total.held, total.energy_uj) == expected
    assert (*whole(by_account).held, whole(by_account).energy_uj) == expected
    assert whole(early).held.plus(whole(late).held) == total.held
    assert sorted(row for one in own for row in one.rows) == sorted(by_user.rows)
    worst = [(-row.held.idle_uj, -row.held.idle_ms, row.group) for row in by_user.rows]
    assert worst == sorted(worst)
    while roll_up(connection, first_s + 7200):
        pass
    connection.close()
    assert asked() == before


def test_an_older_ledger_is_brought_up_and_gone_on_with(path: Path) -> None:
    clock = FakeClock()
    old = opened(path, clock)
    run = a_run(1, account="physics")
    where = key(SLOT_S, GPU.name, run.payee)
    old.commit(batch({where: 50}, runs=(run,), held={where: Held(10, 5, 20)}), clock.now())
    old.close()
    connection = sqlite3.connect(path)
    take_back_schema_3(connection)
    connection.commit()
    connection.close()
    opened(path, clock).close()
    reader = LedgerReader(path)
    assert rows(reader.waste(*ALL, "account"))["physics"][:4] == (1, 10, 5, 20)
    reader.close()

    again = opened(path, clock)
    ended = replace(run, labels={"account": "maths"}, end_ns=START_WALL_NS + NS_PER_S)
    again.commit(batch({where: 1}, runs=(ended,), held={where: Held(1, 1, 1)}), clock.now())
    again.close()
    reader = LedgerReader(path)
    assert rows(reader.waste(*ALL, "account")) == {"maths": (1, 11, 6, 21, 51, 79, 32)}
    (row,) = reader.jobs(JobQuery(account="maths"))
    assert row.book.run.end_ns == ended.end_ns
    assert reader.jobs(JobQuery(account="physics")) == []
    reader.close()
