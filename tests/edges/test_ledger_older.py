"""An older program and a ledger of this one: refused, and what it did all the same is repaired."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fakes import FakeClock
from ledgers import batch, key, opened, take_back_schema_5
from restating import HOUR, NOW_NS, SLOT_S, Node, noded, restatement
from wattledger.core.footprint import footprint
from wattledger.errors import LedgerError
from wattledger.ledger import LedgerReader, migrations
from wattledger.ledger.rollup import _MERGE


def old_roll_up(path: Path, *hours: int) -> None:
    """What a program that knows schema 4 does: it merges entries, and leaves their corrections."""
    with closing(sqlite3.connect(path)) as connection:
        for hour in hours:
            start_s = SLOT_S + HOUR * hour
            connection.execute(_MERGE, {"hour": start_s})
            connection.execute(
                "DELETE FROM entry WHERE slot_s >= ? AND slot_s < ?", (start_s, start_s + HOUR)
            )
        connection.commit()


def restated(node: Node) -> None:
    node.book({key(SLOT_S + 300 * n): 10**10 for n in range(36)})
    node.say(restatement(0, 3, pue_ppm=1_200_000))
    node.apply()


@pytest.mark.parametrize("hours", [(0,), (0, 1, 2)])
def test_what_was_restated_is_not_restated_twice(tmp_path: Path, hours: tuple[int, ...]) -> None:
    with noded(tmp_path / "ledger.sqlite") as node:
        restated(node)
        before = node.settled
        node.close()
        old_roll_up(node.path, *hours)
        node.ledger = opened(node.path, node.clock)
        node.reader = LedgerReader(node.path)
        with closing(sqlite3.connect(node.path)) as connection:
            (left,) = connection.execute("SELECT count(*) FROM settled").fetchone()
        assert left == 36 - 12 * len(hours), "merged like their entries"
        assert node.apply() == 0 and node.settled == before
        assert node.reader.check(footprint) == []
        # Another factor is brought to hours and slots alike.
        node.say(restatement(0, 3, made_at_ns=6, pue_ppm=1_100_000))
        node.apply()
        assert node.settled.restated_uj == before.restated_uj
        assert node.settled.water_grid_ul < before.water_grid_ul
        assert node.reader.check(footprint) == []


def test_corrections_that_are_still_to_be_merged_are_not_taken_for_missing(tmp_path: Path) -> None:
    """Where an older entry keeps them from being merged at the start."""
    with noded(tmp_path / "ledger.sqlite") as node:
        restated(node)
        before = node.settled
        node.close()
        old_roll_up(node.path, 1)
        node.ledger = opened(node.path, node.clock)
        node.reader = LedgerReader(node.path)
        assert node.apply() == 0 and node.settled == before
        node.roll_up(SLOT_S + 3 * HOUR)
        assert node.apply() == 0 and node.settled == before
        assert node.reader.check(footprint) == []


@pytest.mark.parametrize("grown", [False, True], ids=["fresh", "brought up"])
def test_a_program_that_would_lose_money_is_refused(tmp_path: Path, grown: bool) -> None:
    """It books energy, and not what that costs: the sums would never be right again."""
    path, clock = tmp_path / "ledger.sqlite", FakeClock(NOW_NS)
    ledger = opened(path, clock)
    ledger.commit(batch({key(SLOT_S): 7}), clock.now())
    ledger.close()
    if grown:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            take_back_schema_5(connection)
            connection.commit()
        opened(path, clock).close()
    content = path.read_bytes()
    with pytest.raises(LedgerError, match="newer wattledger") as refusal:
        opened(path, clock, steps=migrations.scripts()[:4])
    assert "upgrade" in refusal.value.hint and path.read_bytes() == content
    with noded(path) as node:
        assert node.reader.check(footprint) == []
