"""Where a ledger may lie, who may open it, and what becomes of a damaged one."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ledgers
from fakes import START_WALL_NS, FakeClock
from ledgers import GPU, batch, energy_uj, key, numbered_batch, opened
from wattledger.core.footprint import footprint
from wattledger.errors import LedgerError, LedgerLocked
from wattledger.ledger import LedgerReader, open_reader_offline
from wattledger.ledger.database import Damaged, findings_error, primary_code
from wattledger.ledger.migrations import scripts
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def filled(path: Path, commits: int = 40) -> str:
    """A closed ledger of several dozen pages; returns its epoch."""
    clock = FakeClock()
    ledger = opened(path, clock)
    for number in range(1, commits + 1):
        ledger.commit(numbered_batch(number, clock.advance(300)), clock.now())
    many = {key(SLOT_S - 300 * n): 5 for n in range(1, 800)}
    ledger.commit(batch(many), clock.now())
    epoch = ledger.books.epoch
    ledger.close()
    return epoch


# ── file systems ────────────────────────────────────────────────────────────────────────────────


def mounts(tmp_path: Path, *lines: tuple[str, str]) -> Path:
    """A proc file system whose mountinfo holds these (mount point, type)."""
    folder = tmp_path / "proc" / "self"
    folder.mkdir(parents=True)
    text = "".join(
        f"{n} 1 0:{n} / {point} rw,relatime shared:{n} - {kind} source rw\n"
        for n, (point, kind) in enumerate(lines, start=20)
    )
    (folder / "mountinfo").write_text(text)
    return tmp_path / "proc"


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "fuse.sshfs", "gpfs", "9p", "ceph"])
@pytest.mark.parametrize("volatile", [False, True])
def test_network_file_systems_are_refused_by_name(
    tmp_path: Path, kind: str, volatile: bool
) -> None:
    procfs = mounts(tmp_path, ("/", "ext4"), (str(tmp_path / "shared"), kind))

    with pytest.raises(LedgerError, match=kind) as refusal:
        opened(tmp_path / "shared" / "x" / "ledger.sqlite", procfs=procfs, volatile=volatile)

    assert "local disk" in refusal.value.hint
    assert not (tmp_path / "shared").exists(), "nothing is touched there"


def test_memory_is_refused_unless_it_was_declared(tmp_path: Path, path: Path) -> None:
    procfs = mounts(tmp_path, ("/", "overlay"), (str(tmp_path), "tmpfs"))

    with pytest.raises(LedgerError, match="next boot") as refusal:
        opened(path, procfs=procfs)
    assert "ledger.volatile = true" in refusal.value.hint

    ledger = opened(path, procfs=procfs, volatile=True)
    assert ledger.status.storage == "volatile"
    ledger.close()


def test_the_deepest_and_latest_mount_decides(tmp_path: Path) -> None:
    home = tmp_path / "a b\\c"
    escaped = str(home).replace("\\", "\\134").replace(" ", "\\040")
    procfs = mounts(
        tmp_path,
        ("/", "nfs4"),
        (escaped, "autofs"),
        (escaped, "xfs"),
        (f"{escaped}/data", "nfs4"),
        (str(tmp_path / "a"), "nfs4"),
    )

    opened(home / "ledger.sqlite", procfs=procfs).close()
    opened(home / "database" / "ledger.sqlite", procfs=procfs).close()
    with pytest.raises(LedgerError, match="nfs4"):
        opened(home / "data" / "ledger.sqlite", procfs=procfs)
    with pytest.raises(LedgerError, match="nfs4"):
        opened(tmp_path / "elsewhere.sqlite", procfs=procfs)


def test_without_mountinfo_the_ledger_opens(tmp_path: Path, path: Path) -> None:
    opened(path, procfs=tmp_path / "nothing").close()


# ── permissions and paths ───────────────────────────────────────────────────────────────────────


def test_a_missing_directory_is_made_for_the_owner_alone(tmp_path: Path) -> None:
    opened(tmp_path / "state" / "wattledger" / "ledger.sqlite").close()

    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / "wattledger").stat().st_mode & 0o777 == 0o700


def as_nobody(action: Callable[[], object]) -> str:
    """What the action raises for a user without rights, as text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        text = "nothing was raised"
        try:
            if os.geteuid() == 0:
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            action()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def test_missing_permissions_are_named_with_the_remedy() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        top = Path(made)
        top.chmod(0o755 if os.geteuid() == 0 else 0o555)
        locked = top / "locked"
        text = as_nobody(lambda: opened(locked / "ledger.sqlite"))
        assert text.startswith("LedgerError") and str(locked) in text and "chown" in text

        text = as_nobody(lambda: opened(top / "ledger.sqlite"))
        assert text.startswith("LedgerError") and "chown" in text
        top.chmod(0o777)
        foreign = top / "ledger.sqlite"
        filled(foreign, 1)
        foreign.chmod(0o400)
        foreign.with_name("ledger.sqlite.lock").chmod(0o666)
        text = as_nobody(lambda: opened(foreign))
        assert text.startswith("LedgerError") and "chown" in text
        text = as_nobody(lambda: open_reader_offline(foreign))
        assert text.startswith("LedgerError") and "chown" in text


def test_a_directory_a_file_or_nothing_in_the_way(tmp_path: Path, path: Path) -> None:
    with pytest.raises(LedgerError, match="is not a file"):
        opened(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(LedgerError, match="cannot be made"):
        opened(path / "below" / "ledger.sqlite")
    with pytest.raises(LedgerError, match="no ledger"):
        open_reader_offline(tmp_path / "absent.sqlite")
    opened(path).close()


# ── the lock ────────────────────────────────────────────────────────────────────────────────────


def test_a_second_process_is_told_who_keeps_the_ledger(tmp_path: Path, path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, ledgers.__file__, path], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "1\n"
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(LedgerLocked, match=f"pid {writer.pid}") as refusal:
            opened(name)
        assert "--ledger" in refusal.value.hint
    writer.kill()
    writer.communicate()

    ledger = opened(link)
    assert ledger.books.commits >= 1, "the lock goes with its process"
    assert ledger.status.path == str(path)
    ledger.close()


def test_a_failed_opening_leaves_no_lock(path: Path) -> None:
    sqlite3.connect(path).execute("CREATE TABLE mine (x)").connection.close()
    for _ in range(2):
        with pytest.raises(LedgerError, match="not a wattledger ledger"):
            opened(path)
    path.unlink()
    opened(path).close()


# ── damage ──────────────────────────────────────────────────────────────────────────────────────


def overwrite_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4096 // 2 * 4096)
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
    for _ in range(2):
        text = tmp_path / "thesis.tex"
        text.write_text("\\documentclass{article}" * 100)
        with pytest.raises(LedgerError, match="not a wattledger ledger"):
            opened(text)
        assert text.exists() and not list(tmp_path.glob("*damaged*"))


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


# ── versions ────────────────────────────────────────────────────────────────────────────────────

STEP_2 = "ALTER TABLE entry ADD COLUMN held_ms INTEGER NOT NULL DEFAULT 0;"
STEP_3 = "CREATE TABLE job (id INTEGER PRIMARY KEY) STRICT; UPDATE meta SET writable_since = 3;"


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found


def test_an_older_ledger_is_brought_up_to_date(path: Path) -> None:
    epoch = filled(path, 3)
    assert version(path) == 1

    ledger = opened(path, steps=(*scripts(), STEP_2, STEP_3))

    assert ledger.books.epoch == epoch and ledger.books.commits == 4
    ledger.commit(batch({key(SLOT_S): 3}), FakeClock().now())
    ledger.close()
    assert version(path) == 3


def test_a_newer_ledger_opens_where_it_was_made_to(path: Path) -> None:
    filled(path, 1)
    opened(path, steps=(*scripts(), STEP_2)).close()

    ledger = opened(path)
    books = ledger.commit(batch({key(SLOT_S): 3}), FakeClock().now())
    ledger.close()

    assert books.commits == 3
    assert version(path) == 2, "an older program does not take the number back"


def test_a_newer_ledger_is_refused_with_the_remedy_and_stays(path: Path) -> None:
    filled(path, 1)
    opened(path, steps=(*scripts(), STEP_2, STEP_3)).close()
    content = path.read_bytes()

    with pytest.raises(LedgerError, match="newer wattledger") as refusal:
        opened(path)
    with pytest.raises(LedgerError, match="newer wattledger"):
        open_reader_offline(path)

    assert "upgrade" in refusal.value.hint
    assert path.read_bytes() == content


def test_a_migration_that_fails_leaves_the_old_version(path: Path) -> None:
    epoch = filled(path, 1)
    broken = "CREATE TABLE job (id INTEGER) STRICT; CREATE TABLE job (id INTEGER) STRICT;"
    with pytest.raises(LedgerError, match="schema 3") as refusal:
        opened(path, steps=(*scripts(), STEP_2, broken))

    assert "unharmed" in refusal.value.hint
    assert version(path) == 2
    ledger = opened(path, steps=(*scripts(), STEP_2, STEP_3))
    assert ledger.books.epoch == epoch
    ledger.close()


KILLED_IN_A_MIGRATION = """
import os, sqlite3, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from ledgers import opened
from wattledger.ledger.database import Connection
from wattledger.ledger.migrations import scripts
from test_steps import STEPS

class Killed(Connection):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        left = int(sys.argv[2])
        def count(*_):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), 9)
            return sqlite3.SQLITE_OK
        self.set_authorizer(count)

opened(Path(sys.argv[1]), factory=Killed, steps=(*scripts(), *STEPS))
"""


def test_killed_anywhere_in_an_opening_the_ledger_has_one_version(
    tmp_path: Path, path: Path
) -> None:
    """At every twelfth or so of SQLite's own steps, from an empty file and from schema 1."""
    (tmp_path / "test_steps.py").write_text(f"STEPS = ({STEP_2!r}, {STEP_3!r})")
    program = tmp_path / "killed.py"
    program.write_text(KILLED_IN_A_MIGRATION)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    here = str(Path(ledgers.__file__).parent)
    for start, calls in ((0, range(5, 1000, 55)), (1, range(1, 400, 45))):
        for number in calls:
            fresh = path.with_name(f"{start}-{number}.sqlite")
            epoch = filled(fresh, 1) if start else ""
            done = subprocess.run(
                [sys.executable, program, fresh, str(number), here],
                env=environment,
                check=False,
                capture_output=True,
            )
            assert done.returncode in (0, -9), done.stderr
            if fresh.exists():
                assert version(fresh) in (0, 1, 2, 3)
            ledger = opened(fresh, steps=(*scripts(), STEP_2, STEP_3))
            assert ledger.status.quarantined == ""
            assert ledger.books.commits == 2 * start
            assert not start or ledger.books.epoch == epoch
            ledger.close()
            if done.returncode == 0:
                break
        else:
            pytest.fail("the last of these kills came before the end")


# ── kills ───────────────────────────────────────────────────────────────────────────────────────


def test_kill_minus_nine_twenty_times_loses_no_acknowledged_commit(path: Path) -> None:
    chance = random.Random(3)
    acknowledged = 0
    for _ in range(20):
        writer = subprocess.Popen(
            [sys.executable, ledgers.__file__, path], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(chance.randrange(1, 60)):
            line = writer.stdout.readline()
            acknowledged = int(line)
        writer.kill()
        rest, _ = writer.communicate()
        acknowledged = max([acknowledged, *map(int, rest.split("\n")[:-1])])

        ledger = opened(path)
        commits = ledger.books.commits
        assert acknowledged <= commits <= acknowledged + 1
        assert set(energy_uj(ledger.books).values()) == {ledgers.expected_uj(commits)}
        last = ledger.books.devices[GPU.name].last_reading
        assert last is not None and last.raw_uj == ledgers.expected_uj(commits)
        reader = LedgerReader(path)
        assert reader.check(footprint) == []
        reader.close()
        ledger.close()
