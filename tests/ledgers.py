"""Ledgers for tests, and a writer to be killed: `python tests/ledgers.py LEDGER`.

The writer commits batch 1, 2, 3, … and prints each number once it is acknowledged. Batch n adds
n µJ to each of two devices, so that the number of commits in a file fixes its totals.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fakes import FakeClock
from wattledger.core.footprint import footprint
from wattledger.ledger import SqliteLedger, open_ledger
from wattledger.ledger.database import Connection
from wattledger.model import (
    IDLE,
    SYSTEM,
    Basis,
    Batch,
    Books,
    CounterReading,
    DeviceInfo,
    EntryKey,
    GridSignal,
    Instant,
    Kind,
    Payee,
    Price,
    Quality,
)
from wattledger.model.jobs import Held, JobRun
from wattledger.model.restating import Restatement, Stale
from wattledger.model.settling import Settlement
from wattledger.units import NS_PER_S, slot_of

GPU = DeviceInfo("GPU-1", Kind.GPU, "nvml", "0", "H100", "0000:01:00.0")
CPU = DeviceInfo("cpu0", Kind.CPU, "rapl", "0")
DEVICES = (GPU, CPU)
PRICE = Price(
    475_000_000,
    "WORLD",
    "table",
    Basis.LIFECYCLE,
    True,
    2,
    0,
    10**18,
    1_560_000,
    360_000,
    1_800_000,
)


COMMIT = 10_000


class Disk:
    """Makes one statement fail, before or after it took effect, and perhaps all that follow.

    Attributes:
        fail_at: statements until the one that fails; below 0: none does; `COMMIT`: that one.
        after: it takes effect all the same.
        sticky: the connection answers nothing any more.
        commits: that took effect, whatever was reported.
    """

    def __init__(self) -> None:
        self.fail_at = -1
        self.after = False
        self.sticky = False
        self.commits = 0
        self.code = sqlite3.SQLITE_IOERR

    def arm(self, fail_at: int, *, after: bool = False, sticky: bool = False) -> None:
        self.fail_at, self.after, self.sticky = fail_at, after, sticky

    def factory(self) -> type[Connection]:
        disk = self

        class Failing(Connection):
            broken = False

            def execute(self, *args: Any) -> sqlite3.Cursor:
                if args == ("COMMIT",) and disk.fail_at > COMMIT // 2:
                    disk.fail_at = 0
                return self.attempt(lambda: self.done(*args))

            def done(self, *args: Any) -> sqlite3.Cursor:
                cursor = super().execute(*args)
                disk.commits += args == ("COMMIT",)
                return cursor

            def executemany(self, *args: Any) -> sqlite3.Cursor:
                return self.attempt(lambda: super(Failing, self).executemany(*args))

            def attempt(self, statement: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
                if self.broken:
                    raise disk.error()
                disk.fail_at -= 1
                if disk.fail_at != -1:
                    return statement()
                self.broken = disk.sticky
                if disk.after:
                    statement()
                raise disk.error()

        return Failing

    def error(self) -> sqlite3.Error:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = self.code
        return error


def opened(
    path: Path,
    clock: FakeClock | None = None,
    *,
    volatile: bool = False,
    procfs: Path = Path("/proc"),
    keep_days: int = 60,
    factory: type[sqlite3.Connection] = Connection,
    steps: Sequence[str] | None = None,
    linger_ns: int = 900 * NS_PER_S,
    max_series: int = 1000,
    exporters: tuple[str, ...] = (),
) -> SqliteLedger:
    """A ledger with the real footprint."""
    return open_ledger(
        path,
        clock=clock or FakeClock(),
        footprint=footprint,
        volatile=volatile,
        procfs=procfs,
        keep_days=keep_days,
        factory=factory,
        steps=steps,
        linger_ns=linger_ns,
        max_series=max_series,
        exporters=exporters,
    )


def key(
    slot_s: int,
    device: str = GPU.name,
    payee: Payee = IDLE,
    quality: Quality = Quality.METERED,
    price: Price = PRICE,
) -> EntryKey:
    return EntryKey(slot_s, device, payee, quality, price)


def batch(
    energy_uj: Mapping[EntryKey, int] | None = None,
    *,
    unobserved_ms: Mapping[str, int] | None = None,
    resets: Mapping[str, int] | None = None,
    devices: tuple[DeviceInfo, ...] = DEVICES,
    checkpoints: Mapping[str, CounterReading | None] | None = None,
    signals: tuple[GridSignal, ...] = (),
    notes: Mapping[str, str] | None = None,
    books_ns: int = 0,
    runs: tuple[JobRun, ...] = (),
    held: Mapping[EntryKey, Held] | None = None,
    settlements: tuple[Settlement, ...] = (),
    restatements: tuple[Restatement, ...] = (),
    stale: tuple[Stale, ...] = (),
) -> Batch:
    return Batch(
        energy_uj or {},
        unobserved_ms or {},
        resets or {},
        devices,
        checkpoints or {},
        signals,
        notes or {},
        books_ns,
        runs,
        held or {},
        settlements=settlements,
        restatements=restatements,
        stale=stale,
    )


def reading(device: str, at: Instant, raw_uj: int) -> CounterReading:
    return CounterReading(device, at, raw_uj, 262_143_328_850, 400_000_000, 1_000_000, "boot-1")


def energy_uj(books: Books) -> dict[str, int]:
    """Each device's total."""
    sums: dict[str, int] = {}
    for cell, total in books.totals.items():
        sums[cell.device] = sums.get(cell.device, 0) + total.amounts.energy_uj
    return sums


def numbered_batch(number: int, at: Instant) -> Batch:
    """Batch n of the writer; its checkpoint is what the counter has shown so far."""
    return batch(
        {
            key(slot_of(at.wall_ns), device.name, payee): share
            for device in DEVICES
            for payee, share in ((IDLE, number // 2), (SYSTEM, number - number // 2))
            if share
        },
        checkpoints={d.name: reading(d.name, at, number * (number + 1) // 2) for d in DEVICES},
        books_ns=at.wall_ns,
    )


def expected_uj(commits: int) -> int:
    """What each device's total is after so many batches."""
    return commits * (commits + 1) // 2


def filled(path: Path, commits: int = 40) -> str:
    """Leaves a closed ledger of several dozen pages; returns its epoch."""
    clock = FakeClock()
    ledger = opened(path, clock)
    for number in range(1, commits + 1):
        ledger.commit(numbered_batch(number, clock.advance(300)), clock.now())
    old_s = slot_of(clock.now().wall_ns) - 300 * commits
    ledger.commit(batch({key(old_s - 300 * n): 5 for n in range(1, 800)}), clock.now())
    epoch = ledger.books.epoch
    ledger.close()
    return epoch


SCHEMA_5 = (
    *("settled_slot", "settled", "settled_hour", "settled_total", "settled_run", "restatement"),
    "run_sums",
    "history",  # the others refer to it
)
"""The tables that schema 5 added."""


def take_back_schema_5(connection: sqlite3.Connection) -> None:
    """Leaves a ledger as schema 4 had it."""
    connection.execute("DROP TABLE run_export")  # which schema 6 added
    for name in SCHEMA_5:
        connection.execute(f"DROP TABLE {name}")
    connection.execute("DROP INDEX price_found")
    more = ("market_ug_per_kwh", "cost_u_per_kwh", "currency")
    for name in ("pue_source", "wue_source", "ewif_source", *more):
        connection.execute(f"ALTER TABLE price DROP COLUMN {name}")
    connection.execute("ALTER TABLE signal DROP COLUMN ewif_ul_per_kwh")
    connection.execute("UPDATE meta SET writable_since = 1")
    connection.execute("PRAGMA user_version = 4")


def take_back_schema_4(connection: sqlite3.Connection) -> None:
    """Leaves a ledger as schema 3 had it."""
    take_back_schema_5(connection)
    connection.execute("DROP TABLE user_waiting")
    connection.execute("PRAGMA user_version = 3")


def take_back_schema_3(connection: sqlite3.Connection) -> None:
    """Leaves a ledger as schema 2 had it; its indexes on runs were fewer, which nothing notices."""
    take_back_schema_4(connection)
    for name in ("entry_held", "entry_hour_held", "run_account"):
        connection.execute(f"DROP INDEX {name}")
    connection.execute("PRAGMA user_version = 2")


def main() -> None:
    """The writer; a volatile ledger may lie anywhere, so that tests can use a tmpfs."""
    clock = FakeClock()
    ledger = opened(Path(sys.argv[1]), clock, volatile=True)
    clock.advance(5 * ledger.books.commits)
    while True:
        number = ledger.books.commits + 1
        ledger.commit(numbered_batch(number, clock.advance(5)), clock.now())
        print(number, flush=True)


if __name__ == "__main__":
    main()
