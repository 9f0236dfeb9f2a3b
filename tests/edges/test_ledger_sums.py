"""Money and market-based CO2e in the ledger: equal to the entries' prices whatever fails when."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import COMMIT, CPU, GPU, PRICE, Disk, batch, key, opened
from wattledger.core.footprint import footprint
from wattledger.core.summing import Summing
from wattledger.errors import CommitFailed
from wattledger.ledger import LedgerReader
from wattledger.ledger.check import check_books
from wattledger.model import IDLE, EntryKey, Price
from wattledger.model.embodied import Embodied
from wattledger.model.jobs import Held, JobRun, job_payee
from wattledger.model.sums import NO_SUMS, NODE_NOTE, read_node, sums_of, total
from wattledger.units import slot_of

SLOT_S = slot_of(START_WALL_NS)
JOB = job_payee("slurm", "7", SLOT_S * 10**9)
OTHER = job_payee("slurm", "8", SLOT_S * 10**9)
RUNS = (JobRun(JOB, uid=1, last_seen_ns=SLOT_S * 10**9), JobRun(OTHER, uid=2))


def price(cost_u: int | None, currency: str, market_ug: int | None, pue_ppm: int) -> Price:
    return PRICE._replace(
        cost_u_per_kwh=cost_u, currency=currency, market_ug_per_kwh=market_ug, pue_ppm=pue_ppm
    )


PRICES = st.builds(
    price,
    st.sampled_from([None, 0, 250_000, 333_333]),
    st.sampled_from(["EUR", "CHF"]),
    st.sampled_from([None, 0, 123_456_789]),
    st.sampled_from([1_000_000, 1_560_000]),
)
KEYS = st.builds(
    key,
    st.sampled_from([SLOT_S, SLOT_S + 300, SLOT_S - 61 * 86_400]),  # the last is rolled up
    st.sampled_from([GPU.name, CPU.name]),
    st.sampled_from([JOB, OTHER, IDLE]),
    price=PRICES,
)
FAULTS = st.none() | st.tuples(
    st.sampled_from([*range(24), COMMIT, COMMIT]), st.booleans(), st.booleans()
)
STEPS = st.lists(
    st.tuples(st.dictionaries(KEYS, st.integers(1, 10**12), max_size=4), FAULTS, st.booleans()),
    min_size=1,
    max_size=8,
)
OF_JOB = {key(SLOT_S, payee=JOB, price=price(250_000, "EUR", 10**8, 1_560_000)): 10**12}


@settings(max_examples=60)
@given(STEPS)
@example([(OF_JOB, (COMMIT, True, True), False), (OF_JOB, None, True), (OF_JOB, None, False)])
@example([(OF_JOB, (COMMIT, False, False), False), (OF_JOB, (3, False, True), True)])
@example([({}, (COMMIT, True, True), False), (OF_JOB, (0, False, False), True)])
def test_no_commit_loses_or_doubles(
    steps: list[tuple[dict[EntryKey, int], tuple[int, bool, bool] | None, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path, clock, disk = Path(directory, "l.sqlite"), FakeClock(), Disk()
        ledger = opened(path, clock, factory=disk.factory())
        summing = Summing(Embodied(gpus_ug=(("*", 10**12),), host_ug=10**12), 0)
        pending: dict[EntryKey, int] = {}
        booked: dict[EntryKey, int] = {}
        on_disk: dict[EntryKey, int] = {}  # of a commit that was reported as failed
        shown = NO_SUMS
        for energy_uj, fault, restarts in steps:
            for entry, uj in energy_uj.items():
                pending[entry] = pending.get(entry, 0) + uj
            now = clock.advance(5)
            held = {entry: Held(1000, 0, 0) for entry in pending}
            made = summing.complete(
                batch(pending, runs=RUNS, held=held), ledger.books.notes, now.boottime_ns
            )
            if fault is not None:
                disk.arm(fault[0], after=fault[1], sticky=fault[2])
            commits = disk.commits
            try:
                ledger.commit(made, now)
            except CommitFailed:
                if disk.commits > commits:
                    on_disk = dict(pending)
            else:
                for entry, uj in pending.items():
                    booked[entry] = booked.get(entry, 0) + uj
                pending, on_disk = {}, {}
                summing.committed()
            disk.arm(-1)
            if restarts:
                ledger.close()
                ledger = opened(path, clock, factory=disk.factory())
                for entry, uj in on_disk.items():
                    booked[entry] = booked.get(entry, 0) + uj
                pending, on_disk = {}, {}
                summing = Summing(Embodied(), now.boottime_ns)
            whole = total(read_node(ledger.books.notes).values())
            expected = sums_of((entry.price, uj) for entry, uj in booked.items())
            assert (dict(whole.costs), whole.market) == (dict(expected.costs), expected.market)
            assert whole.embodied_fg >= shown.embodied_fg
            shown = whole
        ledger.close()
        for entry, uj in on_disk.items():
            booked[entry] = booked.get(entry, 0) + uj
        expected = sums_of((entry.price, uj) for entry, uj in booked.items())
        with closing(sqlite3.connect(path)) as connection:
            assert list(check_books(connection, footprint)) == []
        reader = LedgerReader(path)
        for payee in (JOB, OTHER):
            detail = reader.job("slurm", payee.job_id)
            of_job = sums_of((e.price, uj) for e, uj in booked.items() if e.payee == payee)
            told = detail.sums if detail is not None else NO_SUMS
            assert (dict(told.costs), told.market) == (dict(of_job.costs), of_job.market)
            if detail is not None:
                assert detail.runs[0].sums == told
        rows = reader.totals(0, 2**62, "job")
        in_report = total(row.sums for row in rows)
        assert (dict(in_report.costs), in_report.market) == (dict(expected.costs), expected.market)
        reader.close()


@pytest.mark.parametrize("body", ['{"gpu": null}', "{", "7"])
def test_a_damaged_note_is_told_and_made_anew_of_the_entries(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    path, clock = tmp_path / "l.sqlite", FakeClock()
    ledger = opened(path, clock)
    summing = Summing(Embodied(), 0)
    made = summing.complete(batch(OF_JOB, runs=RUNS), {}, 0)
    ledger.commit(made, clock.now())
    summing.committed()
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE note SET body = ? WHERE name = 'sums'", (body,))
        connection.commit()
    ledger = opened(path, clock)
    assert read_node(ledger.books.notes) == read_node(made.notes)
    assert [r.levelname for r in caplog.records if "sums" in r.message] == ["ERROR"]
    again = summing.complete(batch(OF_JOB, runs=RUNS), ledger.books.notes, 0)
    ledger.commit(again, clock.now())
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        assert list(check_books(connection, footprint)) == []
        kept = "SELECT body FROM note WHERE name = 'sums_damaged'"
        assert connection.execute(kept).fetchone() == (body,)
    caplog.clear()
    opened(path, clock).close()
    assert [r for r in caplog.records if "sums" in r.message] == []


@pytest.mark.parametrize(
    "spoil",
    [
        'UPDATE note SET body = replace(body, \'"costs":{"EUR":["\', \'"costs":{"EUR":["1\')',
        "UPDATE note SET body = '' WHERE name = 'sums'",
        "UPDATE run_sums SET sums = replace(sums, 'EUR', 'CHF')",
        "DELETE FROM run_sums",
        "INSERT INTO run_sums SELECT payee.id, sums FROM payee, run_sums WHERE kind = 'idle'",
        "UPDATE price SET cost_u_per_kwh = 250001",
        "UPDATE price SET market_ug_per_kwh = NULL",
    ],
)
def test_a_difference_is_found(tmp_path: Path, spoil: str) -> None:
    path, clock = tmp_path / "l.sqlite", FakeClock()
    ledger = opened(path, clock)
    energy = {**OF_JOB, key(SLOT_S, payee=IDLE): 5}
    made = Summing(Embodied(), 0).complete(batch(energy, runs=RUNS), {}, 0)
    assert NODE_NOTE in made.notes
    ledger.commit(made, clock.now())
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        assert list(check_books(connection, footprint)) == []
        assert connection.execute(spoil).rowcount > 0
        assert any("cost" in finding for finding in check_books(connection, footprint))
