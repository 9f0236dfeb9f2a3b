"""A ledger and what restates it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import CPU, GPU, PRICE, batch, key, opened
from wattledger.ledger import LedgerReader
from wattledger.ledger.rollup import roll_up
from wattledger.model import IDLE, Basis, EntryKey, Price
from wattledger.model.jobs import JobRun, job_payee
from wattledger.model.restating import END_S, Restatement, Stale
from wattledger.model.settling import HistoryVersion, Settled, Settlement, sum_of_settled
from wattledger.restater import record, restate
from wattledger.units import NS_PER_S

HOUR = 3600
SLOT_S = START_WALL_NS // NS_PER_S // HOUR * HOUR
NOW_NS = (SLOT_S + 12 * HOUR) * NS_PER_S
ALL = (0, 2**62)
LIVE = PRICE._replace(intensity_ug_per_kwh=123_456_789, zone="GB", source="neso", level=0)
HISTORY = HistoryVersion("neso", "GB", Basis.LIFECYCLE, 1, 2, 3, "digest", 4)
JOB = JobRun(payee=job_payee("slurm", "42", START_WALL_NS), last_seen_ns=START_WALL_NS, uid=1000)


def bookings(
    slots: st.SearchStrategy[int], prices: Sequence[Price]
) -> st.SearchStrategy[dict[EntryKey, int]]:
    """What a commit may book of two devices, for a job and for nobody: entry → µJ."""
    keys = st.builds(
        key,
        slots,
        st.sampled_from([GPU.name, CPU.name]),
        st.sampled_from([IDLE, JOB.payee]),
        price=st.sampled_from(prices),
    )
    return st.dictionaries(keys, st.integers(1, 10**13), min_size=1, max_size=6)


def restatement(
    from_h: int = 0, to_h: int | None = 1, made_at_ns: int = 5, **factors: int
) -> Restatement:
    to_s = END_S if to_h is None else SLOT_S + HOUR * to_h
    return Restatement("Ada", "meter read", made_at_ns, SLOT_S + HOUR * from_h, to_s, **factors)


def settlement(slot_s: int, price: Price, grams: int, basis: Basis = Basis.LIFECYCLE) -> Settlement:
    settled = price._replace(
        intensity_ug_per_kwh=grams * 10**6, zone="GB", source="neso", basis=basis, level=0
    )
    return Settlement(slot_s, price, settled, HISTORY._replace(basis=basis, digest=str(grams)))


class Node:
    """A ledger and what restates it, as a daemon or a command does."""

    def __init__(self, path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> None:
        self.path, self.clock, self.factory = path, FakeClock(NOW_NS), factory
        self.ledger = opened(path, self.clock, factory=factory)
        self.reader = LedgerReader(path)

    def reopen(self) -> None:
        self.close()
        self.ledger = opened(self.path, self.clock, factory=self.factory)
        self.reader = LedgerReader(self.path)

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()

    def book(self, energy_uj: dict[EntryKey, int]) -> None:
        self.ledger.commit(batch(energy_uj, runs=(JOB,)), self.clock.now())

    def settle(self, *settlements: Settlement) -> None:
        self.ledger.commit(batch(settlements=settlements), self.clock.now())

    def say(self, *made: Restatement) -> tuple[Restatement, ...]:
        def take(new: tuple[Restatement, ...]) -> None:
            self.ledger.commit(batch(restatements=new), self.clock.now())

        return record(made, self.ledger.books.restatements, lambda new: take(tuple(new)))

    def apply(self) -> int:
        return restate(
            self.reader,
            self.clock.now().wall_ns,
            lambda found: self._write(tuple(found)),
        )

    def _write(self, found: tuple[Stale, ...]) -> None:
        self.ledger.commit(batch(stale=found), self.clock.now())

    def roll_up(self, before_s: int) -> None:
        self.close()
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            while roll_up(connection, before_s):
                pass
        self.ledger = opened(self.path, self.clock, factory=self.factory)
        self.reader = LedgerReader(self.path)

    @property
    def settled(self) -> Settled:
        return sum_of_settled(self.ledger.books.settled)

    def content(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            lines = list(connection.iterdump())
        return [line for line in lines if not line.startswith('INSERT INTO "meta"')]


@contextmanager
def noded(path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> Iterator[Node]:
    made = Node(path, factory)
    try:
        yield made
    finally:
        made.close()
