"""What becomes of a damaged ledger, and of a file that is none."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import GPU, batch, energy_uj, filled, key, opened
from wattledger.core.footprint import footprint
from wattledger.errors import LedgerError
from wattledger.ledger import open_reader_offline
from wattledger.ledger.database import (
    CHECK_ALWAYS_BELOW_BYTES,
    Damaged,
    findings_error,
    primary_code,
)
from wattledger.model import Instant
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def overwrite_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 2 * 4096)  # old entries, which no opening reads
        file.write(random.Random(1).randbytes(1024))


def zero_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 10)
        file.write(bytes(4096))


def zero_the_first_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(4096))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def fill_with_garbage(path: Path) -> None:
    path.write_bytes(random.Random(2).randbytes(50_000))


def empty_meta(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM meta")
    connection.commit()
    connection.close()


def drop_a_table(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = 'CREATE nonsense' WHERE name = 'entry'")
    connection.commit()
    connection.close()


def lose_the_database(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"commits that the database never saw")
    path.unlink()


def empty_the_database(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"commits that the database never saw")
    os.truncate(path, 0)


@pytest.mark.parametrize(
    "damage",
    [
        overwrite_a_page,
        zero_a_page,
        zero_the_first_page,
        truncate,
        fill_with_garbage,
        empty_meta,
        drop_a_table,
        lose_the_database,
        empty_the_database,
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_file_is_set_aside_and_a_new_epoch_begins(
    path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    epoch = filled(path)
    damage(path)
    wal = path.with_name(path.name + "-wal")
    evidence = {p.read_bytes() for p in (path, wal) if p.exists()}

    with caplog.at_level(logging.INFO):
        ledger = opened(path)

    aside = sorted(path.parent.glob("ledger.sqlite.damaged-20270115T080000Z*"))
    assert ledger.status.quarantined == str(aside[0])
    assert evidence <= {file.read_bytes() for file in aside}, "nothing of it is lost"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert ledger.books.epoch != epoch
    assert ledger.books.commits == 0 and not ledger.books.totals
    assert energy_uj(ledger.commit(batch({key(SLOT_S): 3}), FakeClock().now())) == {GPU.name: 3}
    ledger.close()

    again = opened(path)
    assert again.status.quarantined == "", "the new one is sound"
    again.close()


def test_two_damaged_files_in_one_second_get_two_names(path: Path) -> None:
    asides = set()
    for _ in range(3):
        opened(path).close()
        fill_with_garbage(path)
        ledger = opened(path)
        asides.add(ledger.status.quarantined)
        ledger.close()

    assert len(asides) == 3 and all(Path(aside).exists() for aside in asides)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4096))
def test_any_damage_is_set_aside_or_harmless(seed: int, length: int) -> None:
    """Random bytes anywhere: either the books open whole and balanced, or a new epoch begins."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ledger.sqlite"
        epoch = filled(path, 2)
        with path.open("r+b") as file:
            file.seek(chance.randrange(path.stat().st_size))
            file.write(chance.randbytes(length))
        try:
            ledger = opened(path)
        except LedgerError as error:
            # Its own mark or version number was hit: somebody must look at it.
            refusal = error.message
        else:
            refusal = ""
        if refusal:
            assert "newer" in refusal or "not a wattledger" in refusal
            return
        assert bool(ledger.status.quarantined) == (ledger.books.epoch != epoch)
        ledger.commit(batch({key(SLOT_S): 3}), FakeClock().now())
        ledger.close()


def test_an_unreadable_disk_is_not_damage() -> None:
    unread = ["*** in database main ***", "Tree 4 page 7: unable to get the page. error code=522"]
    assert primary_code(findings_error(unread)) == sqlite3.SQLITE_IOERR
    assert isinstance(findings_error(["Tree 4 page 7 cell 1: invalid page number 9"]), Damaged)
    torn = ["Tree 4 page 7: btreeInitPage() returns error code 11"]
    assert isinstance(findings_error(torn), Damaged)


def test_a_file_of_others_is_left_alone(tmp_path: Path, path: Path) -> None:
    sqlite3.connect(path).execute("CREATE TABLE mine (x)").connection.close()
    with pytest.raises(LedgerError, match="not a wattledger ledger"):
        opened(path)
    with pytest.raises(LedgerError, match="not a wattledger ledger"):
        open_reader_offline(path)


@pytest.mark.parametrize("name", ["thesis.tex", "other.db", "other.sqlite", "other.ledger"])
@pytest.mark.parametrize("content", [b"\\documentclass{article}" * 100, b"short", b"\0" * 8192])
def test_a_mistyped_path_moves_nobodys_file_away(tmp_path: Path, name: str, content: bytes) -> None:
    """Whatever it is called: its name proves nothing."""
    foreign = tmp_path / name
    foreign.write_bytes(content)
    for _ in range(2):
        with pytest.raises(LedgerError, match="not a wattledger ledger") as refusal:
            opened(foreign)
        assert "--ledger" in refusal.value.hint and "remove" in refusal.value.hint
        assert foreign.read_bytes() == content and not list(tmp_path.glob("*damaged*"))


def test_anothers_damaged_database_is_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "other.db"
    connection = sqlite3.connect(foreign)
    connection.executescript("CREATE TABLE mine (x); INSERT INTO mine VALUES (zeroblob(50000))")
    connection.close()
    with foreign.open("r+b") as file:
        file.seek(100)
        file.write(random.Random(3).randbytes(3996))  # its schema, not its header
    content = foreign.read_bytes()

    with pytest.raises(LedgerError, match="not a wattledger ledger"):
        opened(foreign)

    assert foreign.read_bytes() == content and not list(tmp_path.glob("*damaged*"))


def test_anothers_log_without_a_database_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "other.db-wal"
    log.write_bytes(b"commits of somebody else")

    with pytest.raises(LedgerError, match="not a wattledger ledger"):
        opened(tmp_path / "other.db")

    assert log.read_bytes() == b"commits of somebody else"


def restored(path: Path, damage: Callable[[Path], None]) -> Path:
    """A damaged ledger without its lock, as a backup brings it back."""
    filled(path)
    path.with_name(path.name + ".lock").unlink()
    damage(path)
    return path


@pytest.mark.parametrize("damage", [truncate, overwrite_a_page, empty_meta])
def test_without_its_lock_the_mark_in_the_header_proves_it_ours(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    ledger = opened(restored(tmp_path / "books", damage))

    assert ledger.status.quarantined
    ledger.close()


@pytest.mark.parametrize("damage", [zero_the_first_page, fill_with_garbage])
def test_without_lock_and_mark_nothing_proves_it_ours(
    path: Path, damage: Callable[[Path], None]
) -> None:
    content = restored(path, damage).read_bytes()

    with pytest.raises(LedgerError, match="not a wattledger ledger"):
        opened(path)

    assert path.read_bytes() == content


class Dying(FakeClock):
    """The process dies when it asks for the time."""

    def now(self) -> Instant:
        raise KeyboardInterrupt


def test_what_its_mark_proved_ours_is_set_aside_to_the_end(path: Path) -> None:
    """Killed after the database was renamed and before its log: the lock remembers whose it is."""
    restored(path, truncate)
    with pytest.raises(KeyboardInterrupt):
        opened(path, Dying())
    lose_the_database(path)

    ledger = opened(path)

    assert ledger.status.quarantined.endswith("-wal")
    ledger.close()


def test_a_ledger_of_any_name_that_was_ours_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "books"
    filled(path, 1)
    fill_with_garbage(path)

    ledger = opened(path)

    assert ledger.status.quarantined
    ledger.close()


def test_a_damaged_ledger_offline_is_said_and_stays(path: Path) -> None:
    filled(path)
    truncate(path)
    try:
        reader = open_reader_offline(path)
    except LedgerError:
        return
    assert reader.check(footprint)
    reader.close()
    assert not list(path.parent.glob("*damaged*"))


def test_a_big_file_is_checked_only_after_an_end_out_of_order(path: Path) -> None:
    """The long check of many megabytes is spared where the daemon was stopped in good order."""
    filled(path)
    vandal = sqlite3.connect(path, isolation_level=None)
    page = path.stat().st_size - 2 * 4096  # old entries
    vandal.execute("CREATE TABLE ballast (x)")
    vandal.execute("INSERT INTO ballast VALUES (zeroblob(?))", (CHECK_ALWAYS_BELOW_BYTES,))
    vandal.close()
    with path.open("r+b") as file:
        file.seek(page)
        file.write(bytes(4096))

    ledger = opened(path)
    assert ledger.status.quarantined == ""
    ledger.close()

    vandal = sqlite3.connect(path, isolation_level=None)
    vandal.execute("UPDATE meta SET clean = 0")
    vandal.close()
    ledger = opened(path)
    assert ledger.status.quarantined
    ledger.close()
