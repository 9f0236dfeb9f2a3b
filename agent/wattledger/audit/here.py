"""The books while no daemon runs: read, and corrected under their lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from wattledger import build
from wattledger.clock import SystemClock
from wattledger.config import Config
from wattledger.errors import LedgerError
from wattledger.ledger import LedgerReader, SqliteLedger
from wattledger.model import Batch
from wattledger.settling_ledger import (
    ENTRIES_PER_COMMIT,
    Correction,
    in_parts,
    next_part,
    with_corrections,
)


class Here(NamedTuple):
    """The books, to ask and to correct."""

    ledger: SqliteLedger
    reader: LedgerReader
    clock: SystemClock

    def take(self, corrections: Sequence[Correction]) -> None:
        """Write corrections, a part to each commit.

        Raises:
            CommitFailed: what was not written yet is not.
        """
        waiting = deque(in_parts(corrections, ENTRIES_PER_COMMIT))
        while part := next_part(waiting, ENTRIES_PER_COMMIT):
            for _ in part:
                waiting.popleft()
            books = self.ledger.books
            empty = Batch({}, {}, {}, (), {}, books.signals, {}, books.books_ns)
            self.ledger.commit(with_corrections(empty, part), self.clock.now())


@contextmanager
def books_here(config: Config) -> Iterator[Here]:
    """The ledger of some settings, locked while it is used.

    Raises:
        LedgerError: there is none, a daemon has it open, or it cannot be read.
    """
    path = build.ledger_path(config)
    if not path.is_file():
        raise LedgerError(
            f"there is no ledger at {path}", "name it with --ledger, or start the daemon"
        )
    clock = SystemClock(Path(config.path.procfs))
    ledger = build.ledger(config, clock)
    reader = LedgerReader(path)
    try:
        yield Here(ledger, reader, clock)
    finally:
        reader.close()
        ledger.close()
