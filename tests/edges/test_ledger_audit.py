"""The export: every entry once, whatever becomes of books and daemon between pages."""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import START_WALL_NS, FakeClock
from ledgers import PRICE, batch, key, opened
from wattledger.audit.export import export
from wattledger.config import Config
from wattledger.config.settings import LedgerSettings
from wattledger.errors import DaemonUnreachable, LedgerError, LedgerLocked
from wattledger.ledger import LedgerReader
from wattledger.ledger.audit import AuditCursor, Record
from wattledger.ledger.rollup import roll_up
from wattledger.model import Basis, EntryKey
from wattledger.model.settling import HistoryVersion, Settlement
from wattledger.remote import Remote
from wattledger.setting import FilePath
from wattledger.units import NS_PER_S, SLOT_S
from wattledger_exporters.http.settle_api import audit_json, audit_query

HOUR = 3600
FIRST_S = START_WALL_NS // NS_PER_S // HOUR * HOUR
ALL = (0, 2**62)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def book(path: Path, slots: int, first_s: int = FIRST_S) -> None:
    ledger = opened(path)
    energy: dict[EntryKey, int] = {key(first_s + SLOT_S * n): 10**9 + n for n in range(slots)}
    ledger.commit(batch(energy), FakeClock().now())
    ledger.close()


def settle(path: Path) -> None:
    ledger = opened(path)
    live = PRICE._replace(intensity_ug_per_kwh=1, zone="GB", source="neso", level=0)
    history = HistoryVersion("neso", "GB", Basis.LIFECYCLE, 1, 2, 3, "digest", 4)
    ledger.commit(
        batch(settlements=(Settlement(FIRST_S, PRICE, live, history),)), FakeClock().now()
    )
    ledger.close()


def roll(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert roll_up(connection, FIRST_S + 2 * HOUR)


def other_books(path: Path) -> None:
    path.unlink()
    book(path, 60)


@pytest.mark.parametrize("between", [roll, settle, other_books])
@pytest.mark.parametrize("most", [7, 20])
def test_books_that_were_rolled_up_or_settled_between_pages_are_no_page(
    path: Path, between: Callable[[Path], None], most: int
) -> None:
    book(path, 60)
    with closing(LedgerReader(path)) as reader:
        _, after = reader.audit(*ALL, None, most)
    between(path)
    with closing(LedgerReader(path)) as reader:
        with pytest.raises(LedgerError, match="since the first page"):
            reader.audit(*ALL, after, most)
        records: list[Record] = []
        after = None
        while not records or after is not None:
            more, after = reader.audit(*ALL, after, most)
            records += more
    found = [int(one["energy_uj"]) for one in records if one["record"] == "entry"]
    assert sum(found) == sum(10**9 + n for n in range(60))


def test_what_is_booked_between_pages_does_no_harm(path: Path) -> None:
    book(path, 60)
    with closing(LedgerReader(path)) as reader:
        records, after = reader.audit(*ALL, None, 20)
        book(path, 1, FIRST_S + 60 * SLOT_S)
        while after is not None:
            more, after = reader.audit(*ALL, after, 20)
            records += more
    starts = [one["start_s"] for one in records if one["record"] == "entry"]
    assert starts == [FIRST_S + n * SLOT_S for n in range(61)]


@pytest.mark.parametrize(
    "after", [(), (0,), (0, 1), (0, "x", 1, 1, 1, "q", 1), (99, "0" * 64, 1), (6, "0" * 64)]
)
def test_a_cursor_that_no_page_gave_is_none(path: Path, after: AuditCursor) -> None:
    book(path, 1)
    with closing(LedgerReader(path)) as reader, pytest.raises(ValueError, match=r"there is|no key"):
        reader.audit(*ALL, after, 20)


class Ending(Remote):
    """A daemon that ends after so many pages."""

    def __init__(self, path: Path, pages: int, then: Callable[[], None] = lambda: None) -> None:
        self.path, self.pages, self.then = path, pages, then

    def request(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        method: str = "GET",
        timeout_s: float | None = None,
    ) -> Any:
        if self.pages == 0:
            self.then()
            raise DaemonUnreachable("gone")
        self.pages -= 1
        asked = audit_query(query or {}, 1)
        with closing(LedgerReader(self.path)) as reader:
            records, after = reader.audit(*asked, 20)
            return audit_json(records, asked, after)


def write(path: Path, remote: Remote) -> list[dict[str, Any]]:
    """Exported to a file."""
    file = path.parent / "books.jsonl"
    options = argparse.Namespace(export=file, since=None, until=None)
    config = replace(Config(), ledger=LedgerSettings(path=FilePath(str(path))))
    export(options, lambda: config, remote)
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("pages", range(5))
def test_a_daemon_that_ends_in_the_middle_is_followed_by_its_ledger(path: Path, pages: int) -> None:
    book(path, 60)
    records = write(path, Ending(path, pages))
    starts = [one["start_s"] for one in records if one["record"] == "entry"]
    assert starts == [FIRST_S + n * SLOT_S for n in range(60)]
    assert [one["record"] for one in records].count("ledger") == 1
    assert len([one for one in records if one["record"] == "price"]) == 1


def test_books_that_are_others_by_then_are_no_export(path: Path) -> None:
    book(path, 60)
    with pytest.raises(LedgerError, match="since the first page"):
        write(path, Ending(path, 1, lambda: other_books(path)))
    assert not (path.parent / "books.jsonl").exists(), "whole or not at all"


def test_a_daemon_that_only_does_not_answer_is_no_reason_to_read_its_ledger(path: Path) -> None:
    book(path, 60)
    ledger = opened(path)
    with pytest.raises(LedgerLocked):
        write(path, Ending(path, 1))
    ledger.close()
    assert not (path.parent / "books.jsonl").exists()
