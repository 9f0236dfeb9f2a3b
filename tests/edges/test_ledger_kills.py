"""Versions and violence: upgrades, refusals, and kills at any point of them."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import ledgers
from fakes import START_WALL_NS, FakeClock
from ledgers import GPU, batch, energy_uj, filled, key, opened, take_back_schema_5
from wattledger.core.footprint import footprint
from wattledger.errors import LedgerError
from wattledger.ledger import LedgerReader, open_reader_offline
from wattledger.ledger.migrations import WRITABLE_SINCE, scripts
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


KNOWN = len(scripts())
MILD = "ALTER TABLE entry ADD COLUMN future_ms INTEGER NOT NULL DEFAULT 0;"
HARSH = (
    "CREATE TABLE future (id INTEGER PRIMARY KEY) STRICT; "
    f"UPDATE meta SET writable_since = {KNOWN + 2};"
)


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found


def test_an_older_ledger_is_brought_up_to_date(path: Path) -> None:
    epoch = filled(path, 3)
    assert version(path) == KNOWN

    ledger = opened(path, steps=(*scripts(), MILD, HARSH))

    assert ledger.books.epoch == epoch and ledger.books.commits == 4
    ledger.commit(batch({key(SLOT_S): 3}), FakeClock().now())
    ledger.close()
    assert version(path) == KNOWN + 2


def test_the_first_schema_is_brought_up_to_date_with_all_it_holds(path: Path) -> None:
    """As version 0.1 left it, which must not go on with the file afterwards."""
    epoch = filled(path, 3)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = OFF")
    take_back_schema_5(connection)
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN "
        "('run', 'run_total', 'unlisted_job', 'unlisted_total', 'user_total', 'user_waiting')"
    ).fetchall()
    for (name,) in names:
        connection.execute(f"DROP TABLE {name}")
    for table in ("entry", "entry_hour"):
        connection.execute(f"DROP INDEX {table}_payee")
        connection.execute(f"DROP INDEX {table}_held")
        for column in ("held_ms", "held_idle_ms", "held_idle_uj"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    assert len(names) == 6

    ledger = opened(path)
    assert ledger.books.epoch == epoch and ledger.books.commits == 4
    assert ledger.books.jobs.runs == {}
    ledger.commit(batch({key(SLOT_S): 3}), FakeClock().now())
    ledger.close()
    assert version(path) == KNOWN
    reader = open_reader_offline(path)
    assert reader.check(footprint) == []
    reader.close()
    connection = sqlite3.connect(path)
    (since,) = connection.execute("SELECT writable_since FROM meta").fetchone()
    assert since == WRITABLE_SINCE
    connection.close()


def test_a_newer_ledger_opens_where_it_was_made_to(path: Path) -> None:
    filled(path, 1)
    opened(path, steps=(*scripts(), MILD)).close()

    ledger = opened(path)
    books = ledger.commit(batch({key(SLOT_S): 3}), FakeClock().now())
    ledger.close()

    assert books.commits == 3
    assert version(path) == KNOWN + 1, "an older program does not take the number back"


def test_a_newer_ledger_is_refused_with_the_remedy_and_stays(path: Path) -> None:
    filled(path, 1)
    opened(path, steps=(*scripts(), MILD, HARSH)).close()
    content = path.read_bytes()

    with pytest.raises(LedgerError, match="newer wattledger") as refusal:
        opened(path)
    with pytest.raises(LedgerError, match="newer wattledger"):
        open_reader_offline(path)

    assert "upgrade" in refusal.value.hint
    assert path.read_bytes() == content


def test_a_migration_that_fails_leaves_the_old_version(path: Path) -> None:
    epoch = filled(path, 1)
    broken = "CREATE TABLE twice (id INTEGER) STRICT; CREATE TABLE twice (id INTEGER) STRICT;"
    with pytest.raises(LedgerError, match=f"schema {KNOWN + 2}") as refusal:
        opened(path, steps=(*scripts(), MILD, broken))

    assert "unharmed" in refusal.value.hint
    assert version(path) == KNOWN + 1
    ledger = opened(path, steps=(*scripts(), MILD, HARSH))
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
    """At every twelfth or so of SQLite's own steps, from an empty file and from ours."""
    (tmp_path / "test_steps.py").write_text(f"STEPS = ({MILD!r}, {HARSH!r})")
    program = tmp_path / "killed.py"
    program.write_text(KILLED_IN_A_MIGRATION)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    here = str(Path(ledgers.__file__).parent)
    for start, calls in ((0, range(5, 2000, 85)), (1, range(1, 400, 45))):
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
                assert version(fresh) in range(KNOWN + 3)
            ledger = opened(fresh, steps=(*scripts(), MILD, HARSH))
            assert ledger.status.quarantined == ""
            assert ledger.books.commits == 2 * start
            assert not start or ledger.books.epoch == epoch
            ledger.close()
            if done.returncode == 0:
                break
        else:
            pytest.fail("the last of these kills came before the end")


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
