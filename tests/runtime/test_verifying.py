"""`verify`: by the daemon, which goes on answering, or over a file while there is none."""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import START_WALL_NS, FakeClock
from ledgers import batch, key, opened
from wattledger.audit.verify_command import verify_command
from wattledger.books_door import MAX_DIFFERENCES, BooksDoor
from wattledger.config import Config
from wattledger.config.settings import LedgerSettings
from wattledger.core.footprint import footprint
from wattledger.errors import DaemonUnreachable
from wattledger.ledger import LedgerReader
from wattledger.remote import Remote
from wattledger.setting import FilePath
from wattledger.units import NS_PER_S, SLOT_S
from wattledger_exporters.http.settle_api import verify_json

FIRST_S = START_WALL_NS // NS_PER_S
SLOTS = MAX_DIFFERENCES + 7
ALL = (0, 2**62)


class Door(BooksDoor):
    """The daemon's door to a ledger."""

    def __init__(self, path: Path) -> None:
        self._reader = LedgerReader(path)

    def close(self) -> None:
        self._reader.close()


class Asked(Remote):
    """A daemon that answers of a door; None: there is none."""

    def __init__(self, door: Door | None) -> None:
        self.door = door

    def request(self, *_args: object, **_kwargs: object) -> Any:
        if self.door is None:
            raise DaemonUnreachable("gone")
        return json.loads(json.dumps(verify_json(self.door.verify())))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    ledger = opened(path)
    energy = {key(FIRST_S + SLOT_S * n): 10**9 for n in range(SLOTS)}
    ledger.commit(batch(energy), FakeClock().now())
    ledger.close()
    return path


@contextmanager
def door_to(path: Path) -> Iterator[Door]:
    with closing(Door(path)) as door:
        yield door


def damage(path: Path) -> None:
    """Each entry's CO2e, and none of the sums over them: one is as much more as another less."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE entry SET co2e_ug = co2e_ug + iif(slot_s = ?, ?, -1)", (FIRST_S, SLOTS - 1)
        )
        connection.commit()


def verify(path: Path, door: Door | None, *, as_json: bool = False) -> int:
    config = replace(Config(), ledger=LedgerSettings(path=FilePath(str(path))))
    return verify_command(argparse.Namespace(json=as_json), lambda: config, Asked(door))


def test_the_daemon_tells_the_first_differences_and_counts_the_rest(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with door_to(path) as door:
        assert door.verify() == ((), 0) and verify(path, door) == 0
        assert "The books balance" in capsys.readouterr().out
        damage(path)
        found = door.verify()
        assert (len(found.differences), found.found) == (MAX_DIFFERENCES, SLOTS)
        assert verify(path, door) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[:-1] == list(found.differences) and lines[-1].startswith("and 7 more")
        assert verify(path, door, as_json=True) == 1
        answer = json.loads(capsys.readouterr().out)
        assert not answer["balanced"] and answer["count"] == SLOTS


def test_without_a_daemon_all_of_them_are_told(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(path, None) == 0 and "The books balance" in capsys.readouterr().out
    assert verify(path, None, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"balanced": True, "count": 0, "differences": []}
    damage(path)
    assert verify(path, None) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == SLOTS and all("µJ book" in line for line in lines)
    assert verify(path, None, as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["differences"] == lines


@pytest.mark.timeout(20)
def test_a_check_and_other_questions_do_not_wait_for_one_another(path: Path) -> None:
    """In one thread: who waited for the reader that all others share would wait for ever."""
    damage(path)
    with door_to(path) as door, closing(door._reader.findings(footprint)) as held:
        assert next(held), "the shared reader is in use"
        assert door.verify().found == SLOTS
        records, after = door.audit(*ALL, None, 5)
        assert len(records) == 5 and after is not None
        assert len(door.audit(*ALL, after, 7)[0]) == 7
