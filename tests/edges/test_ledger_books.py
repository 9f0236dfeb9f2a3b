"""The ledger's arithmetic: what goes in comes out, exactly, whatever the order and the cuts."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import (
    CPU,
    DEVICES,
    GPU,
    PRICE,
    batch,
    energy_uj,
    expected_uj,
    key,
    numbered_batch,
    opened,
    reading,
)
from wattledger.core.footprint import footprint
from wattledger.errors import CommitFailed, LedgerLocked
from wattledger.ledger import LedgerReader, open_reader_offline
from wattledger.model import (
    IDLE,
    SYSTEM,
    UNATTRIBUTED,
    Amounts,
    Basis,
    EntryKey,
    GridSignal,
    Payee,
    PayeeKind,
    Quality,
    TotalKey,
)
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S
CLEAN = PRICE._replace(intensity_ug_per_kwh=123_456_789, zone="GB", source="neso", level=0)
DIRECT = CLEAN._replace(basis=Basis.DIRECT, wue_ul_per_kwh=0)
JOB = Payee(PayeeKind.JOBS, "slurm", "42", 17)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_an_empty_ledger_is_an_epoch_of_its_own(path: Path) -> None:
    ledger = opened(path)

    assert ledger.books.commits == ledger.books.books_ns == 0
    assert ledger.books.epoch_start_ns == START_WALL_NS
    assert not ledger.books.totals
    assert ledger.status.storage == "disk" and ledger.status.quarantined == ""
    assert path.stat().st_mode & 0o777 == 0o600
    ledger.close()


def test_all_that_a_commit_wrote_is_there_after_a_restart(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    signal = GridSignal(200, "GB", "neso", Basis.DIRECT, 1, 2, True, 3, 4)
    ledger.commit(
        batch(
            {key(SLOT_S): 7_000_000, key(SLOT_S, CPU.name, JOB, Quality.INTEGRATED, CLEAN): 5},
            unobserved_ms={GPU.name: 1500},
            resets={CPU.name: 1},
            checkpoints={GPU.name: reading(GPU.name, clock.now(), 99), CPU.name: None},
            signals=(signal,),
            notes={"idle_floor": '{"cpu0": 1}'},
            books_ns=START_WALL_NS,
        ),
        clock.now(),
    )
    clock.advance(5)
    written = ledger.commit(
        batch(
            {key(SLOT_S): 1},
            unobserved_ms={GPU.name: 1},
            resets={CPU.name: 2},
            signals=(signal, signal),
            notes={"other": "{}"},
            books_ns=START_WALL_NS + 5,
        ),
        clock.now(),
    )
    ledger.close()

    again = opened(path, clock)

    assert again.books == written
    assert again.books.commits == 2
    assert again.books.devices[GPU.name].unobserved_ms == 1501
    assert again.books.devices[GPU.name].last_reading == reading(GPU.name, FakeClock().now(), 99), (
        "a batch without a checkpoint leaves the last one"
    )
    assert again.books.devices[CPU.name].resets == 3
    assert set(again.books.notes) == {"idle_floor", "other"}
    assert again.books.signals == (signal, signal)
    cell = TotalKey(GPU.name, PayeeKind.IDLE, Quality.METERED, Basis.LIFECYCLE)
    assert again.books.totals[cell].amounts == footprint(7_000_001, PRICE)
    assert again.books.totals[cell].first_booked_ns == START_WALL_NS
    again.close()


def test_committed_books_do_not_change_under_their_reader(path: Path) -> None:
    ledger = opened(path)
    first = ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())
    before = dict(first.totals)

    ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())

    assert first.totals == before
    assert not hasattr(first.totals, "clear"), "a view that cannot be written"
    ledger.close()


def test_a_checkpoint_that_no_row_can_hold_does_not_cost_the_books(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    broken = reading(GPU.name, clock.now(), (2**64 - 1) * 1000)

    books = ledger.commit(batch({key(SLOT_S): 3}, checkpoints={GPU.name: broken}), clock.now())

    assert books.devices[GPU.name].last_reading is None
    assert energy_uj(books) == {GPU.name: 3}
    ledger.close()


def test_more_than_64_bits_is_refused_and_the_books_stay(path: Path) -> None:
    ledger = opened(path)
    ledger.commit(batch({key(SLOT_S): 2**62}), FakeClock().now())

    with pytest.raises(CommitFailed, match="64 bits"):
        ledger.commit(batch({key(SLOT_S): 2**62}), FakeClock().now())

    assert energy_uj(ledger.commit(batch(), FakeClock().now())) == {GPU.name: 2**62}
    ledger.close()


def test_what_no_batch_may_hold_is_a_programming_error(path: Path) -> None:
    ledger = opened(path)

    with pytest.raises(ValueError, match="above 0"):
        ledger.commit(batch({key(SLOT_S): -1}), FakeClock().now())
    with pytest.raises(ValueError, match="introduced"):
        ledger.commit(batch({key(SLOT_S, "nobody"): 1}), FakeClock().now())
    with pytest.raises(ValueError, match="not among the devices"):
        ledger.commit(batch(resets={"nobody": 1}), FakeClock().now())
    assert ledger.books.commits == 0
    ledger.close()


KEYS = st.builds(
    EntryKey,
    st.integers(0, 14).map(lambda n: SLOT_S + 300 * n),
    st.sampled_from([device.name for device in DEVICES]),
    st.sampled_from([IDLE, SYSTEM, UNATTRIBUTED, JOB, JOB._replace(start_ns=18)]),
    st.sampled_from(list(Quality)),
    st.sampled_from([PRICE, CLEAN, DIRECT]),
)
ENERGIES = st.dictionaries(KEYS, st.integers(1, 10**13), max_size=6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(ENERGIES, st.booleans()), max_size=8), st.integers(0, 3))
def test_entries_and_totals_are_the_sums_of_all_batches(
    steps: list[tuple[dict[EntryKey, int], bool]], hours_old: int
) -> None:
    """Whatever is committed in whatever order, with restarts and roll-ups in between."""
    with tempfile.TemporaryDirectory() as directory:
        path, clock = Path(directory) / "ledger.sqlite", FakeClock()
        ledger = opened(path, clock, keep_days=0)
        entries: Counter[EntryKey] = Counter()
        for energies, restart in steps:
            ledger.commit(batch(energies), clock.now())
            entries.update(energies)
            if restart:
                ledger.close()
                clock.advance(hours_old * 3600)
                ledger = opened(path, clock, keep_days=0)
        books = ledger.books
        reader = LedgerReader(path)
        rows = reader.totals(0, 2 * START_WALL_NS, "device")

        assert reader.check(footprint) == []

        ledger.close()
        reader.close()
        assert energy_uj(books) == {
            device.name: total
            for device in DEVICES
            if (total := sum(e for k, e in entries.items() if k.device == device.name))
        }
        cells = {(k.device, k.payee.kind, k.quality, k.price.basis) for k in entries}
        assert set(books.totals) == cells
        by_device = {row.group: row.amounts for row in rows}
        for device in {k.device for k in entries}:
            summed = Amounts()
            for cell, total in books.totals.items():
                summed = summed.plus(total.amounts) if cell.device == device else summed
            assert by_device[device] == summed


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=12))
def test_many_commits_into_an_entry_book_what_one_would(parts: list[int]) -> None:
    """CO2e and water are the floor of the cumulative energy: no rounding adds up."""
    with tempfile.TemporaryDirectory() as directory:
        ledger = opened(Path(directory) / "ledger.sqlite")
        for part in parts:
            ledger.commit(batch({key(SLOT_S): part}), FakeClock().now())

        (total,) = ledger.books.totals.values()

        assert total.amounts == footprint(sum(parts), PRICE)
        ledger.close()


def test_old_slots_become_hours_and_nothing_is_lost(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock, keep_days=60)
    for n in range(30):
        ledger.commit(
            batch({key(SLOT_S + 300 * n): 1000 + n, key(SLOT_S + 300 * n, CPU.name): 7}),
            clock.now(),
        )
    before = ledger.books.totals
    reader = LedgerReader(path)
    by_hour = reader.totals(0, 2 * START_WALL_NS, "hour")
    clock.advance(61 * 86400)
    late = key(SLOT_S + 300)
    for _ in range(4):
        ledger.commit(batch(), clock.now())

    rows = sqlite3.connect(path)
    assert rows.execute("SELECT count(*) FROM entry").fetchone() == (0,)
    assert rows.execute("SELECT count(*), sum(slots) FROM entry_hour").fetchone() == (6, 60)
    rows.close()
    assert ledger.books.totals == before
    assert reader.totals(0, 2 * START_WALL_NS, "hour") == by_hour
    assert reader.check(footprint) == []

    ledger.commit(batch({late: 5}), clock.now())
    clock.advance(86400)
    ledger.commit(batch(), clock.now())

    assert reader.check(footprint) == []
    assert reader.totals(0, 2 * START_WALL_NS, "hour")[0].amounts.energy_uj == (
        by_hour[0].amounts.energy_uj + 5
    )
    ledger.close()
    reader.close()


def test_a_booking_in_a_slot_that_was_just_rolled_up_counts_once(path: Path) -> None:
    clock = FakeClock(START_WALL_NS + 300 * NS_PER_S)
    ledger = opened(path, clock, keep_days=0)
    reader = LedgerReader(path)
    for _ in range(3):
        ledger.commit(batch({key(SLOT_S - 300): 10**12}), clock.now())

        assert reader.check(footprint) == []
    ledger.close()
    reader.close()


def test_a_balance_that_is_off_is_found(path: Path) -> None:
    ledger = opened(path)
    ledger.commit(batch({key(SLOT_S): 10**12, key(SLOT_S, CPU.name): 10**12}), FakeClock().now())
    ledger.close()
    vandal = sqlite3.connect(path)
    vandal.execute("UPDATE entry SET co2e_ug = co2e_ug + 1 WHERE device_id = 1")
    vandal.execute("UPDATE total SET energy_uj = energy_uj - 1 WHERE device_id = 2")
    vandal.commit()
    vandal.close()

    reader = open_reader_offline(path)
    findings = reader.check(footprint)
    reader.close()

    assert len(findings) == 3
    assert any("cpu0" in line and "total" in line for line in findings)
    assert any("slot" in line for line in findings)


def test_reports_group_by_time_device_kind_and_payee(path: Path) -> None:
    clock = FakeClock(wall_ns=START_WALL_NS - 3600 * NS_PER_S)
    ledger = opened(path, clock)
    first, second = key(SLOT_S - 300), key(SLOT_S, CPU.name, SYSTEM, Quality.ESTIMATED, DIRECT)
    ledger.commit(batch({first: 10**12, second: 10**13}), clock.now())
    reader = LedgerReader(path)

    def groups(by: str, since_ns: int = 0, until_ns: int = 2 * START_WALL_NS) -> dict[str, int]:
        return {r.group: r.amounts.energy_uj for r in reader.totals(since_ns, until_ns, by)}

    assert groups("device") == {GPU.name: 10**12, CPU.name: 10**13}
    assert groups("kind") == {"gpu": 10**12, "cpu": 10**13}
    assert groups("payee") == {"idle": 10**12, "system": 10**13}
    assert groups("hour") == {"2027-01-15T07:00:00Z": 10**12, "2027-01-15T08:00:00Z": 10**13}
    assert groups("day") == {"2027-01-15": 11 * 10**12}
    (row,) = reader.totals(0, 2 * START_WALL_NS, "all")
    assert row.amounts == footprint(10**12, PRICE).plus(footprint(10**13, DIRECT))
    assert row.estimated_uj == 10**13
    assert row.bases == (Basis.DIRECT, Basis.LIFECYCLE)

    assert groups("all", START_WALL_NS) == {"all": 10**13}, "a slot belongs where it begins"
    assert groups("all", START_WALL_NS + 1) == {}
    assert groups("all", 0, START_WALL_NS) == {"all": 10**12}
    assert groups("all", -(10**30), 10**30) == {"all": 11 * 10**12}
    with pytest.raises(ValueError, match="week"):
        reader.totals(0, 1, "week")
    ledger.close()
    reader.close()


def test_a_reader_sees_each_commit_and_writes_nothing(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    reader = LedgerReader(path)
    for number in range(1, 700):  # over several checkpoints of the log
        ledger.commit(numbered_batch(number, clock.advance(5)), clock.now())
        if number % 100 == 1:
            rows = reader.totals(0, 2 * START_WALL_NS, "device")
            assert {row.amounts.energy_uj for row in rows} == {expected_uj(number)}
    size = path.stat().st_size
    reader.close()

    assert path.stat().st_size == size
    assert ledger.status.size_bytes < 20 * 2**20, "the log is cut off in between"
    ledger.close()


def test_an_offline_report_needs_the_daemon_stopped(path: Path) -> None:
    ledger = opened(path)
    ledger.commit(batch({key(SLOT_S): 5}), FakeClock().now())
    with pytest.raises(LedgerLocked):
        open_reader_offline(path)
    ledger.close()

    reader = open_reader_offline(path)
    with pytest.raises(LedgerLocked):
        opened(path)
    (row,) = reader.totals(0, 2 * START_WALL_NS, "all")
    reader.close()

    assert row.amounts.energy_uj == 5
    opened(path).close()
