"""A daemon for the HTTP server whose books are a real ledger with jobs in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import snapshots
from fakes import START_WALL_NS, FakeClock
from ledgers import CPU, GPU, batch, key, opened
from serving import FakeDaemon
from wattledger.core.footprint import footprint
from wattledger.ledger import LedgerReader
from wattledger.model import TotalsRow
from wattledger.model.jobbooks import JobDetail, JobQuery, JobRow, Waste
from wattledger.model.jobs import Held, Holding, JobRun, job_payee
from wattledger.model.settle_report import Verified
from wattledger.units import NS_PER_S, SLOT_S

FIRST_S = START_WALL_NS // NS_PER_S - 24 * SLOT_S
OWNERS = (("7", 1001), ("8", 1001), ("0", 1002))


class BooksDaemon(FakeDaemon):
    """Answers questions about the books from a ledger; the rest as its parent."""

    def __init__(self, path: Path) -> None:
        super().__init__(snapshots.with_jobs())
        self.finish_after = 0
        self.reader = LedgerReader(path)

    def totals(
        self, since_ns: int, until_ns: int, by: str, uid: int | None = None
    ) -> list[TotalsRow]:
        return self.reader.totals(since_ns, until_ns, by, uid)

    def jobs(self, asked: JobQuery) -> list[JobRow]:
        return self.reader.jobs(asked)

    def job(self, manager: str, job_id: str, uid: int | None = None) -> JobDetail | None:
        return self.reader.job(manager, job_id, uid)

    def waste(self, since_ns: int, until_ns: int, by: str, uid: int | None = None) -> Waste:
        return self.reader.waste(since_ns, until_ns, by, uid)

    def verify(self) -> Verified:
        found = tuple(self.reader.check(footprint))
        return Verified(found, len(found))

    def audit(
        self, since_ns: int, until_ns: int, after: tuple[int | str, ...] | None, most: int
    ) -> tuple[list[dict[str, Any]], tuple[int | str, ...] | None]:
        return self.reader.audit(since_ns, until_ns, after, min(most, 10))


@contextmanager
def books_daemon(path: Path) -> Iterator[BooksDaemon]:
    """Over a new ledger of two hours with three jobs of two users."""
    clock = FakeClock()
    ledger = opened(path, clock)
    for number, (job_id, uid) in enumerate(OWNERS):
        start_s = FIRST_S + number * SLOT_S
        run = JobRun(
            job_payee("slurm", job_id, start_s * NS_PER_S),
            uid=uid,
            labels={"user": f"u{uid}", "account": "physics", "name": "train"},
            holdings=(Holding(GPU.name, 1_000_000),),
            last_seen_ns=clock.wall_ns,
        )
        slots = range(start_s, START_WALL_NS // NS_PER_S, SLOT_S)
        at_gpu = {key(slot_s, GPU.name, run.payee): 10**9 + slot_s for slot_s in slots}
        rest = {key(slot_s, CPU.name): 10**6 for slot_s in slots}
        held = dict.fromkeys(at_gpu, Held(300_000, 60_000, 4_000_000))
        ledger.commit(batch({**at_gpu, **rest}, runs=(run,), held=held), clock.now())
    ledger.close()
    daemon = BooksDaemon(path)
    try:
        yield daemon
    finally:
        daemon.reader.close()
