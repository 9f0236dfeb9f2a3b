"""What HTTP's threads may ask of the books: the part of `ports.Daemon` that needs no sampling."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from wattledger.core.footprint import footprint
from wattledger.ledger import LedgerReader
from wattledger.model import TotalsRow
from wattledger.model.jobbooks import JobDetail, JobQuery, JobRow, Waste
from wattledger.model.restating import Restatement
from wattledger.model.settle_report import RestateResult, SettleResult, Verified
from wattledger.settle_desk import SettleDesk
from wattledger.settler import DAY_NS

if TYPE_CHECKING:
    from wattledger.ledger.audit import AuditCursor, Record

MAX_DIFFERENCES = 1000
"""That are told; the rest is counted. The command tells all of them while no daemon runs."""


class BooksDoor:
    """Questions to the books of the running daemon, and the requests to settle and restate them."""

    _reader: LedgerReader
    _settling: SettleDesk

    def totals(
        self, since_ns: int, until_ns: int, by: str, uid: int | None = None
    ) -> list[TotalsRow]:
        """Amounts of the slots that begin in [since, until), grouped."""
        return self._reader.totals(since_ns, until_ns, by, uid)

    def jobs(self, asked: JobQuery) -> list[JobRow]:
        """The runs that are asked for, with their totals."""
        return self._reader.jobs(asked)

    def job(self, manager: str, job_id: str, uid: int | None = None) -> JobDetail | None:
        """All about one job, of the runs that are this user's or all; None: there are none."""
        return self._reader.job(manager, job_id, uid)

    def waste(self, since_ns: int, until_ns: int, by: str, uid: int | None = None) -> Waste:
        """What was held without use, of the slots that begin in [since, until)."""
        return self._reader.waste(since_ns, until_ns, by, uid)

    def settle(self, days: int | None, wait_s: float) -> SettleResult:
        """Settle the last so many days, at most the window; see `SettleDesk.settle`."""
        return self._settling.settle(None if days is None else days * DAY_NS, wait_s)

    def restate(self, made: Restatement, wait_s: float) -> RestateResult:
        """Record a restatement and bring it to the entries; see `SettleDesk.restate`."""
        return self._settling.restate(made, wait_s)

    def restatements(self) -> tuple[Restatement, ...]:
        """All that were ever made, in that order."""
        return self._reader.restatements()

    def verify(self) -> Verified:
        """The differences between the books and what is recomputed of them."""
        with (
            closing(self._reader.another()) as reader,
            closing(reader.findings(footprint)) as found,
        ):
            first = tuple(islice(found, MAX_DIFFERENCES))
            return Verified(first, len(first) + sum(1 for _ in found))

    def audit(
        self, since_ns: int, until_ns: int, after: AuditCursor | None, most: int
    ) -> tuple[list[Record], AuditCursor | None]:
        """A page of the books as records, and where the next begins; see `LedgerReader.audit`."""
        with closing(self._reader.another()) as reader:
            return reader.audit(since_ns, until_ns, after, most)
