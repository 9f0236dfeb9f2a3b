"""The books while no daemon runs: read, and corrected under their lock."""

from __future__ import annotations

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
from wattledger.settle_desk import SLOTS_PER_COMMIT, Correction, with_corrections


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
        for start in range(0, len(corrections), SLOTS_PER_COMMIT):
            books = self.ledger.books
            empty = Batch({}, {}, {}, (), {}, books.signals, {}, books.books_ns)
            part = corrections[start : start + SLOTS_PER_COMMIT]
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
