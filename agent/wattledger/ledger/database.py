"""The file itself: connections, what SQLite's errors mean, and setting a damaged file aside."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from wattledger.errors import LedgerError
from wattledger.ledger.storage import ELSEWHERE, sync_directory
from wattledger.units import NS_PER_S

APPLICATION_ID = 0x57614C67  # "WaLg"
_APPLICATION_ID_OFFSET = 68  # big-endian (https://www.sqlite.org/fileformat2.html, §1.3)
SIDE_FILES = ("-wal", "-shm", "-journal")
# A report may overlap a commit for some milliseconds; more than this must not hold up a tick.
BUSY_TIMEOUT_S = 0.25
# Above this a check takes long (188 MB, 3.8 million entries: 1.2 s, 4.2 s from a cold disk; a
# ledger of 12 devices and 60 days is some 20 MB), so a big file is checked only after an end that
# was not in good order.
CHECK_ALWAYS_BELOW_BYTES = 64 * 2**20

# What a statement over a damaged file may raise: Python fails to decode a text in it, or SQLite's
# own message where that quotes the damaged text.
SQL_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_RESULT_CODE = re.compile(r"error code[= ](\d+)")


class Damaged(Exception):
    """The file's content is not what SQLite or we wrote."""


class Connection(sqlite3.Connection):
    """A connection; a class of its own so that tests can make statements fail."""


def connect(path: Path, factory: type[sqlite3.Connection] = Connection) -> sqlite3.Connection:
    """The one connection that writes, to a file that is known to be ours.

    Raises:
        sqlite3.Error: it cannot be opened.
        LedgerError: the file system has no shared memory.
    """
    connection = open_plain(path, "rw", factory)
    try:
        configure(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def configure(connection: sqlite3.Connection, path: Path) -> None:
    """Settings of the connection that writes.

    WAL with `synchronous=FULL` loses no acknowledged commit in a power cut; NORMAL loses all
    since the last checkpoint (https://www.sqlite.org/pragma.html#pragma_synchronous).

    Raises:
        LedgerError: the file system has no shared memory.
    """
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise LedgerError(f"SQLite cannot keep a write-ahead log beside {path}", ELSEWHERE)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA wal_autocheckpoint = 500")
    connection.execute(f"PRAGMA journal_size_limit = {4 * 2**20}")


def open_plain(
    path: Path, mode: str, factory: type[sqlite3.Connection] = Connection
) -> sqlite3.Connection:
    """A connection in SQLite's own transaction mode that creates nothing and sets little.

    Args:
        path: absolute.
        mode: `rw` or `ro`.
        factory: the connection's class.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,  # each connection is used by one thread at a time
        factory=factory,
    )
    try:
        connection.execute("PRAGMA cache_size = -1024")
    except BaseException:
        connection.close()
        raise
    return connection


def is_marked(path: Path) -> bool:
    """Whether the file's header bears our application id, however damaged the rest is.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(_APPLICATION_ID_OFFSET)
            return file.read(4) == APPLICATION_ID.to_bytes(4, "big")
    except FileNotFoundError:
        return False


def primary_code(error: BaseException) -> int:
    """SQLite's primary result code of an error, or 0 where it carries none."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def is_damage(error: BaseException) -> bool:
    """Whether the error says that the content is damaged, not that it could not be read."""
    return isinstance(error, Damaged | UnicodeDecodeError) or primary_code(error) in _DAMAGE


def explain(error: BaseException, path: Path) -> tuple[str, str]:
    """What an error of SQLite means here, and what to do: (message, hint)."""
    code = sqlite3.SQLITE_CORRUPT if is_damage(error) else primary_code(error)
    if code == sqlite3.SQLITE_IOERR and _is_full(path):
        code = sqlite3.SQLITE_FULL  # the log's shared memory fails to grow in its own words
    match code:
        case sqlite3.SQLITE_FULL:
            return (
                f"the disk that holds {path} is full",
                "free some space; until then a daemon that runs keeps the totals in memory",
            )
        case sqlite3.SQLITE_READONLY:
            return (
                f"the ledger {path} cannot be written any more",
                "look whether its file system was remounted read-only (dmesg) or its owner changed",
            )
        case sqlite3.SQLITE_IOERR:
            return (
                f"reading or writing {path} failed: {error}",
                "look for errors of the disk with dmesg",
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return (
                f"another program has the ledger {path} open and locked",
                "close it (fuser -v shows it); only the daemon may open its ledger",
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return (
                f"the ledger {path} is damaged: {error}",
                "restart wattledger: it sets the damaged file aside and begins a new one",
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return (f"the ledger {path} cannot be opened: {error}", "check its permissions")
    return (f"the ledger {path} failed: {error}", "")


def _is_full(path: Path) -> bool:
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False


def check_content(connection: sqlite3.Connection) -> None:
    """SQLite's quick_check: every page, every row's shape.

    Point reads over a damaged page elsewhere succeed, so nothing less finds it.

    Raises:
        Damaged: the content is damaged.
        sqlite3.Error: it could not be read; that is not damage.
    """
    rows = [str(row[0]) for row in connection.execute("PRAGMA quick_check(20)")]
    if rows != ["ok"]:
        raise findings_error(rows)


def findings_error(rows: Iterable[str]) -> Exception:
    """What the findings of a quick_check amount to: damage, or a disk that did not answer.

    The check lists pages that it could not read among its findings, with the result code.
    """
    lines = [line for row in rows for line in row.split("\n") if not line.startswith("***")]
    for line in lines:
        code = _RESULT_CODE.search(line)
        if code and int(code[1]) & 0xFF not in _DAMAGE:
            error = sqlite3.OperationalError(line)
            error.sqlite_errorcode = int(code[1])
            return error
    more = f" and {len(lines) - 1} findings more" if len(lines) > 1 else ""
    return Damaged(f"{lines[0] if lines else 'quick_check fails'}{more}")


def set_aside(path: Path, wall_ns: int) -> Path:
    """Renames a damaged ledger and its side files together; nothing is deleted.

    The database goes first: killed in between, the next start finds a log without its database,
    which is set aside too, and never a database without its log, which would look sound and old.

    Returns:
        The database's new path (of the log's, where the database was gone).

    Raises:
        LedgerError: it cannot be renamed.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_ns // NS_PER_S))
    base = f"{path.name}.damaged-{stamp}"
    target, attempt = path.with_name(base), 1
    while any(beside(target, suffix).exists() for suffix in ("", *SIDE_FILES)):
        attempt += 1
        target = path.with_name(f"{base}-{attempt}")
    moved = ""
    for suffix in ("", *SIDE_FILES):
        old = beside(path, suffix)
        if old.exists():
            try:
                old.rename(beside(target, suffix))
            except OSError as error:
                raise LedgerError(
                    f"the ledger {path} is damaged and cannot be set aside: {error.strerror}",
                    f"move {old} away by hand, or {ELSEWHERE}",
                ) from error
            moved = moved or suffix or "database"
    sync_directory(path.parent)
    return target if moved == "database" else beside(target, moved)


def beside(path: Path, suffix: str) -> Path:
    """The path of a ledger's side file."""
    return path.with_name(path.name + suffix)


def size_bytes(path: Path) -> int:
    """Bytes of the database and its log."""
    total = 0
    for suffix in ("", "-wal"):
        try:
            total += beside(path, suffix).stat().st_size
        except OSError:
            continue
    return total
