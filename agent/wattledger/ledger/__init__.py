"""What is remembered: the books in one SQLite file, crash-safe, exactly once.

open_ledger ── SqliteLedger.commit(batch) ─► one transaction ─► Books
LedgerReader / open_reader_offline ── totals(since, until, by)
"""

from wattledger.ledger.opening import open_ledger
from wattledger.ledger.reader import LedgerReader, open_reader_offline
from wattledger.ledger.writer import SqliteLedger

__all__ = ["LedgerReader", "SqliteLedger", "open_ledger", "open_reader_offline"]
