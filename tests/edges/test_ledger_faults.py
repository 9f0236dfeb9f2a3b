"""Commits that fail: nothing is lost, nothing is booked twice, and it is said once."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import (
    COMMIT,
    CPU,
    DEVICES,
    GPU,
    PRICE,
    Disk,
    batch,
    energy_uj,
    key,
    opened,
    reading,
)
from wattledger.core.footprint import footprint
from wattledger.errors import CommitFailed, LedgerError
from wattledger.ledger import LedgerReader
from wattledger.ledger.database import Connection
from wattledger.model import IDLE, EntryKey, PayeeKind
from wattledger.model.jobs import Held, JobRun, job_payee
from wattledger.model.settling import HistoryVersion, Settlement
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S

KEYS = st.builds(
    key,
    st.integers(0, 3).map(lambda n: SLOT_S + 300 * n),
    st.sampled_from([device.name for device in DEVICES]),
    st.sampled_from([IDLE, *(job_payee("slurm", str(n), 10 + n) for n in range(3))]),
)


def held(pending: Counter[EntryKey]) -> dict[EntryKey, Held]:
    """Some time and energy for each of a job's bookings."""
    return {
        k: Held(uj % 1000, uj % 10, uj // 2)
        for k, uj in pending.items()
        if k.payee.kind is PayeeKind.JOBS
    }


def runs(pending: Counter[EntryKey], *, named: bool) -> tuple[JobRun, ...]:
    """Job 0's user is not always known."""
    payees = {k.payee for k in pending if k.payee.kind is PayeeKind.JOBS}
    return tuple(
        JobRun(
            payee,
            1000,
            {"user": "alice"} if named or payee.job_id != "0" else {},
            *("/a", 7, "boot-1", 5, (), 99, 0),
        )
        for payee in sorted(payees)
    )


def settled(number: int) -> tuple[Settlement, ...]:
    """Every slot at another price each time."""
    price = PRICE._replace(intensity_ug_per_kwh=10**8 * number, source="neso")
    history = HistoryVersion("neso", PRICE.zone, PRICE.basis, 0, 1, 2, "digest", number)
    return tuple(Settlement(SLOT_S + 300 * n, PRICE, price, history) for n in range(4))


def test_a_read_that_fails_after_a_commit_of_unknown_outcome_is_done_again(tmp_path: Path) -> None:
    """Each statement in turn: what the first try left is complete or is not there."""
    for fail_at in range(40):
        clock, disk = FakeClock(), Disk()
        ledger = opened(tmp_path / f"{fail_at}.sqlite", clock, factory=disk.factory())
        energy: Counter[EntryKey] = Counter({key(SLOT_S): 1})
        disk.arm(COMMIT)
        with pytest.raises(CommitFailed):
            ledger.commit(batch(energy), clock.now())
        energy[key(SLOT_S, payee=job_payee("slurm", "1", 5))] = 7
        made = batch(energy, runs=runs(energy, named=True))
        disk.arm(fail_at)
        with suppress(CommitFailed):
            ledger.commit(made, clock.now())
            made = batch({})
        disk.arm(-1)
        books = ledger.commit(made, clock.now())
        assert energy_uj(books) == {GPU.name: 8}
        ledger.close()


FAULTS = st.tuples(st.one_of(st.just(COMMIT), st.integers(-1, 40)), st.booleans(), st.booleans())
STEPS = st.tuples(st.dictionaries(KEYS, st.integers(1, 10**12), max_size=3), FAULTS, st.booleans())


@settings(max_examples=80, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=6))
def test_no_failure_loses_or_doubles_a_booking(
    steps: list[tuple[dict[EntryKey, int], tuple[int, bool, bool], bool]],
) -> None:
    """Any statement of any commit fails, before or after it took effect, with the connection
    lost or not; the caller keeps its batch, adds to it, sometimes under a coarser slot."""
    with tempfile.TemporaryDirectory() as directory:
        path, clock, disk = Path(directory) / "ledger.sqlite", FakeClock(), Disk()
        ledger = opened(path, clock, factory=disk.factory(), max_series=2)
        pending: Counter[EntryKey] = Counter()
        booked: Counter[str] = Counter()
        rounds = [*steps, ({}, (-1, False, False), True)]
        for raw_uj, (energies, (fail_at, after, sticky), coarser) in enumerate(rounds, start=1):
            pending.update(energies)
            booked.update({k.device: 0 for k in energies})
            for entry, energy in energies.items():
                booked[entry.device] += energy
            before = ledger.books
            disk.arm(fail_at, after=after, sticky=sticky)
            try:
                books = ledger.commit(
                    batch(
                        pending,
                        checkpoints={GPU.name: reading(GPU.name, clock.now(), raw_uj)},
                        unobserved_ms={CPU.name: raw_uj},
                        notes={"raw": str(raw_uj)},
                        runs=runs(pending, named=raw_uj % 3 == 0),
                        held=held(pending),
                        settlements=settled(raw_uj),
                    ),
                    clock.now(),
                )
            except CommitFailed:
                assert ledger.books == before
                assert ledger.status.message and ledger.status.pending_entries == len(pending)
                if coarser:
                    merged: Counter[EntryKey] = Counter()
                    for entry, energy in pending.items():
                        merged[entry._replace(slot_s=SLOT_S)] += energy
                    pending = merged
            else:
                assert +Counter(energy_uj(books)) == +booked
                assert books.notes["raw"] == str(raw_uj)
                assert sum(s.energy_uj for s in books.settled.values()) == sum(booked.values())
                assert ledger.status.message == ""
                pending.clear()
            disk.arm(-1)

        assert +Counter(energy_uj(ledger.books)) == +booked
        reader = LedgerReader(path)
        assert reader.check(footprint) == []
        reader.close()
        written = ledger.books
        ledger.close()
        again = opened(path, clock)
        assert again.books == written
        again.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=5))
def test_killed_after_any_failure_the_file_holds_whole_commits(
    steps: list[tuple[dict[EntryKey, int], tuple[int, bool, bool], bool]],
) -> None:
    """What is on disk after a failure, should the process end there, balances and agrees with
    its own checkpoint: the booking and the counter it came from are never apart."""
    with tempfile.TemporaryDirectory() as directory:
        path, clock, disk = Path(directory) / "ledger.sqlite", FakeClock(), Disk()
        raw_uj = 0
        for energies, (fail_at, after, sticky), _ in steps:
            ledger = opened(path, clock, factory=disk.factory())
            last = ledger.books.devices.get(GPU.name)
            on_disk = last.last_reading.raw_uj if last and last.last_reading else 0
            raw_uj = max(raw_uj, on_disk) + len(energies) + 1
            disk.arm(fail_at, after=after, sticky=sticky)
            with suppress(CommitFailed):
                ledger.commit(
                    batch(
                        {key(SLOT_S): raw_uj - on_disk},
                        checkpoints={GPU.name: reading(GPU.name, clock.now(), raw_uj)},
                    ),
                    clock.now(),
                )
            disk.arm(0, sticky=True)
            ledger.close()
            disk.arm(-1)
        ledger = opened(path, clock)
        record = ledger.books.devices.get(GPU.name)
        counted = record.last_reading.raw_uj if record and record.last_reading else 0
        assert energy_uj(ledger.books).get(GPU.name, 0) == counted
        reader = LedgerReader(path)
        assert reader.check(footprint) == []
        reader.close()
        ledger.close()


def test_a_commit_that_reported_an_error_and_was_done_counts(tmp_path: Path) -> None:
    disk = Disk()

    class LastWord(disk.factory()):  # type: ignore[misc]
        def execute(self, *args: Any) -> sqlite3.Cursor:
            cursor = super().execute(*args)
            if args == ("COMMIT",):
                raise disk.error()
            return cursor

    ledger = opened(tmp_path / "ledger.sqlite", factory=LastWord)
    for _ in range(3):
        ledger.commit(batch({key(SLOT_S): 10}), FakeClock().now())

    assert energy_uj(ledger.books) == {GPU.name: 30}
    assert ledger.books.commits == 3
    ledger.close()


def test_a_doubtful_commit_leaves_nothing_that_the_next_one_did_not_write(tmp_path: Path) -> None:
    """Done, but reported as failed over a connection that is lost; the caller drops a booking."""
    path, disk = tmp_path / "ledger.sqlite", Disk()
    ledger = opened(path, factory=disk.factory())
    ledger.commit(batch({key(SLOT_S): 10}), FakeClock().now())
    disk.arm(COMMIT, after=True, sticky=True)
    with pytest.raises(CommitFailed):
        ledger.commit(batch({key(SLOT_S): 5, key(SLOT_S, CPU.name): 7}), FakeClock().now())
    ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())

    assert energy_uj(ledger.books) == {GPU.name: 11}
    reader = LedgerReader(path)
    assert reader.check(footprint) == []
    reader.close()
    written = ledger.books
    ledger.close()
    again = opened(path)
    assert again.books == written
    again.close()


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()
    ledger = opened(tmp_path / "ledger.sqlite", factory=disk.factory())
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            disk.arm(0)
            with pytest.raises(CommitFailed):
                ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())
        assert ledger.status.errors == 3 and ledger.status.pending_entries == 1
        ledger.commit(batch({key(SLOT_S): 3}), FakeClock().now())
        ledger.commit(batch({key(SLOT_S): 3}), FakeClock().now())

    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert ledger.status.message == ledger.status.hint == ""
    assert ledger.status.errors == 3
    assert ledger.status.pending_entries == 0
    ledger.close()


def test_a_full_file_is_said_and_survived(tmp_path: Path) -> None:
    """SQLite's own SQLITE_FULL: it rolls back by itself, and a second ROLLBACK would raise."""
    kept: list[sqlite3.Connection] = []

    class Kept(Connection):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            kept.append(self)

    ledger = opened(tmp_path / "ledger.sqlite", factory=Kept)
    ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())
    pages = kept[0].execute("PRAGMA page_count").fetchone()[0]
    kept[0].execute(f"PRAGMA max_page_count = {pages}")
    many = {key(SLOT_S + 300 * n): 5 for n in range(2000)}
    with pytest.raises(CommitFailed, match="full") as failure:
        ledger.commit(batch(many), FakeClock().now())
    assert "space" in failure.value.hint
    assert ledger.books.commits == 1

    kept[0].execute("PRAGMA max_page_count = 1000000")
    ledger.commit(batch(many), FakeClock().now())

    assert energy_uj(ledger.books) == {GPU.name: 10_001}
    ledger.close()


def test_a_ledger_that_is_moved_away_is_not_written_into_the_void(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = opened(path)
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(CommitFailed, match="moved, deleted or replaced"):
        ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())
    path.write_bytes(b"")
    with pytest.raises(CommitFailed, match="moved, deleted or replaced"):
        ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())
    (tmp_path / "elsewhere").replace(path)

    assert energy_uj(ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())) == {GPU.name: 1}
    ledger.close()


def test_another_program_that_locks_or_changes_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = opened(path)
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(CommitFailed, match="another program"):
        ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())
    shell.execute("COMMIT")
    assert energy_uj(ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())) == {GPU.name: 1}

    shell.execute("UPDATE meta SET commits = 77")
    with pytest.raises(CommitFailed, match="changed by another program"):
        ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())
    shell.close()
    ledger.close()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@contextmanager
def small_tmpfs(where: Path, size: str) -> Iterator[Path]:
    """A real file system of a few hundred kilobytes."""
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)


@pytest.mark.root
@needs_root
def test_a_full_disk_keeps_the_books_in_memory_and_recovers(tmp_path: Path) -> None:
    with small_tmpfs(tmp_path / "full", "800k") as mount:
        clock = FakeClock()
        ledger = opened(mount / "ledger.sqlite", clock, volatile=True)
        ledger.commit(batch({key(SLOT_S): 1}), clock.now())
        with suppress(OSError), (mount / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        pending, failures = 0, 0
        messages: set[str] = set()
        for _ in range(300):
            pending += 7
            try:
                ledger.commit(batch({key(SLOT_S, CPU.name): pending}), clock.now())
            except CommitFailed:
                failures += 1
                messages.add(ledger.status.message)
            else:
                pending = 0
        assert failures > 0
        assert all("full" in message for message in messages)
        before = energy_uj(ledger.books)
        (mount / "ballast").unlink()

        books = ledger.commit(batch({key(SLOT_S, CPU.name): pending + 1}), clock.now())

        assert energy_uj(books) == {GPU.name: 1, CPU.name: before.get(CPU.name, 0) + pending + 1}
        assert energy_uj(books)[CPU.name] == 300 * 7 + 1
        assert ledger.status.storage == "volatile" and ledger.status.message == ""
        ledger.close()
        again = opened(mount / "ledger.sqlite", clock, volatile=True)
        assert again.books.totals == books.totals
        again.close()


@pytest.mark.root
@needs_root
def test_a_file_system_that_is_read_only_is_named(tmp_path: Path) -> None:
    with small_tmpfs(tmp_path / "ro", "2M") as mount:
        ledger = opened(mount / "ledger.sqlite", volatile=True)
        ledger.commit(batch({key(SLOT_S): 1}), FakeClock().now())
        ledger.close()
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        with pytest.raises(LedgerError, match="read-only"):
            opened(mount / "ledger.sqlite", volatile=True)
        subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
        again = opened(mount / "ledger.sqlite", volatile=True)
        assert energy_uj(again.books) == {GPU.name: 1}
        again.close()
