"""Opening the books: where they lie, whether they are sound, which version they are."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from wattledger.errors import LedgerError
from wattledger.ledger import database, migrations, rows, storage
from wattledger.ledger.database import SQL_ERRORS, Damaged, beside, explain, is_damage, primary_code
from wattledger.ledger.draft import Footprint
from wattledger.ledger.rollup import merge_left
from wattledger.ledger.writer import SqliteLedger
from wattledger.model import Books, LedgerStatus
from wattledger.ports import Clock
from wattledger.units import NS_PER_S

log = logging.getLogger(__name__)

LINGER_NS = 15 * 60 * NS_PER_S
MAX_SERIES = 1000
KEEP_DAYS = 60  # at the grain of 5 minutes; longer than grid.settle_window


def open_ledger(
    path: Path,
    *,
    clock: Clock,
    footprint: Footprint,
    volatile: bool = False,
    procfs: Path = Path("/proc"),
    keep_days: int = KEEP_DAYS,
    linger_ns: int = LINGER_NS,
    max_series: int = MAX_SERIES,
    factory: type[sqlite3.Connection] = database.Connection,
    steps: Sequence[str] | None = None,
    exporters: tuple[str, ...] = (),
) -> SqliteLedger:
    """Opens the ledger to write, made anew where there is none.

    A damaged file is set aside, never deleted, and a new epoch begins.

    Args:
        path: the database file; symlinks are followed.
        clock: the time of a new epoch, and how long commits take.
        footprint: the exact amounts of a cumulative energy (µJ) at a price.
        volatile: the operator accepts that the books are lost with the machine's memory.
        procfs: where the proc file system is mounted.
        keep_days: older slots are merged into hours.
        linger_ns: how long a job stays among those in memory after its end.
        max_series: how many jobs have totals of their own there at a time.
        factory: the connection's class; for tests that make statements fail.
        steps: the migrations' texts; for tests of upgrades.
        exporters: those that deliver ended runs: each run comes to wait for them.

    Raises:
        LedgerLocked: another process keeps it.
        LedgerError: it cannot be kept there, or not by this user or version.
    """
    path = Path(os.path.realpath(path))
    storage.check_filesystem(path, volatile, procfs)
    storage.prepare_directory(path.parent)
    storage.check_file(path)
    lock = storage.Lock(path)
    try:
        steps = migrations.scripts() if steps is None else steps
        quarantined = ""
        try:
            connection, books = _open_sound(path, clock, steps, factory, linger_ns)
        except (*SQL_ERRORS, Damaged) as error:
            quarantined = _set_aside(error, path, clock, lock)
            connection, books = _open_sound(path, clock, steps, factory, linger_ns)
        lock.prove()
        return SqliteLedger(
            path,
            connection,
            lock,
            books,
            LedgerStatus(
                storage="volatile" if volatile else "disk",
                path=str(path),
                size_bytes=database.size_bytes(path),
                quarantined=quarantined,
            ),
            clock=clock,
            footprint=footprint,
            keep_days=keep_days,
            factory=factory,
            linger_ns=linger_ns,
            max_series=max_series,
            exporters=exporters,
        )
    except (*SQL_ERRORS, Damaged) as error:
        lock.release()
        raise LedgerError(*explain(error, path)) from error
    except OSError as error:
        lock.release()
        raise LedgerError(f"the ledger {path} cannot be opened: {error.strerror}") from error
    except BaseException:
        lock.release()
        raise


def _set_aside(error: Exception, path: Path, clock: Clock, lock: storage.Lock) -> str:
    """Sets a damaged ledger aside and says so; raises the error where it is no damage.

    Raises:
        LedgerError: it is not damage to a ledger of ours.
    """
    if not is_damage(error):
        raise error
    if not lock.proven and not database.is_marked(path):
        # A mistyped --ledger must not move somebody's file away, whatever its name.
        raise LedgerError(
            f"{path} is not a wattledger ledger: {error}",
            "give another path with ledger.path or --ledger, or remove that file",
        ) from error
    lock.prove()  # once its header is gone, killed between two renames, the lock still says so
    aside = database.set_aside(path, clock.now().wall_ns)
    log.error(
        "the ledger %s is damaged (%s): set aside as %s, a new epoch begins with counters at 0",
        path,
        error,
        aside,
    )
    return str(aside)


def _open_sound(
    path: Path,
    clock: Clock,
    steps: Sequence[str],
    factory: type[sqlite3.Connection],
    linger_ns: int,
) -> tuple[sqlite3.Connection, Books]:
    size = path.stat().st_size if path.exists() else -1
    write_ahead = beside(path, "-wal")
    if size <= 0 and write_ahead.exists() and write_ahead.stat().st_size:
        # SQLite would delete the log of an empty database.
        raise Damaged("its write-ahead log is there, the database is not")
    if size < 0:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        storage.sync_directory(path.parent)
    connection = database.open_plain(path, "rw", factory)
    try:
        migrations.claim(connection, path)
        version = migrations.check_version(connection, path, len(steps))
        if 0 < version <= len(steps) and not _trusted(connection, size):
            database.check_content(connection)
        database.configure(connection, path)
        migrations.migrate(connection, path, version, steps)
        try:
            _begin_epoch(connection, clock.now().wall_ns)
            if len(steps) >= migrations.SETTLED:
                merge_left(connection)
            books = rows.load(connection, linger_ns)
        except (ValueError, sqlite3.Error) as error:
            raise _unreadable(error, path, newer=version > len(steps)) from error
    except BaseException:
        connection.close()
        raise
    return connection, books


def _unreadable(error: Exception, path: Path, *, newer: bool) -> Exception:
    """What it means that the small tables cannot be read though the file is sound."""
    # 0: Python's own complaint, of text that is not UTF-8; ERROR: a table or column is gone.
    if isinstance(error, sqlite3.Error) and primary_code(error) not in {0, sqlite3.SQLITE_ERROR}:
        return error
    if newer:
        return LedgerError(
            f"the ledger {path} holds what only a newer wattledger knows: {error}",
            "upgrade wattledger, or give another path with ledger.path or --ledger",
        )
    return Damaged(str(error))


def _trusted(connection: sqlite3.Connection, size: int) -> bool:
    """Whether the long check of a big file can be left out: it was closed in good order."""
    if size < database.CHECK_ALWAYS_BELOW_BYTES:
        return False
    row = connection.execute("SELECT clean FROM meta").fetchone()
    return row is not None and row[0] == 1


def _begin_epoch(connection: sqlite3.Connection, wall_ns: int) -> None:
    """Writes the one row of `meta` where the ledger is new."""
    counts = "SELECT (SELECT count(*) FROM meta), (SELECT count(*) FROM device)"
    if connection.execute(counts).fetchone() == (0, 0):
        import uuid  # once in the life of a ledger

        connection.execute(
            "INSERT INTO meta (id, epoch, epoch_start_ns, writable_since) VALUES (1, ?, ?, ?)",
            (str(uuid.uuid4()), wall_ns, migrations.WRITABLE_SINCE),
        )
