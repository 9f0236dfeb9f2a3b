"""The schema's versions, in order, and how a file gets from one to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from wattledger.errors import LedgerError
from wattledger.ledger.database import APPLICATION_ID, SQL_ERRORS, primary_code

HERE = Path(__file__).parent
# Script n (from 1) makes schema version n of version n − 1. A script that was released is never
# changed. One after which an older program must not write sets meta.writable_since to its own
# number; new columns that older programs do not know have defaults.
SCRIPTS: tuple[Path, ...] = tuple(
    HERE / f"schema{number}.sql" for number in ("", "2", "3", "4", "5", "6")
)

SETTLED = 5  # the first version with corrections
WRITABLE_SINCE = 5  # of a ledger that begins now; what the scripts set is that of one that grew


def scripts() -> tuple[str, ...]:
    """The text of every migration, in order."""
    return tuple(path.read_text() for path in SCRIPTS)


def claim(connection: sqlite3.Connection, path: Path) -> None:
    """Marks an empty file as ours, or sees that it is.

    Raises:
        LedgerError: it is another program's database.
        sqlite3.Error: it cannot be read, or is no database at all.
    """
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    if owner == APPLICATION_ID:
        return
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if owner or tables or version:
        raise LedgerError(
            f"{path} is a database, but not a wattledger ledger",
            "give another path with ledger.path or --ledger",
        )
    # Before the file is in WAL mode, so that the mark lies in the file itself from the start.
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def check_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Sees that the file is a ledger, without writing.

    Raises:
        LedgerError: it is not.
        sqlite3.Error: it cannot be read, or is no database at all.
    """
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise LedgerError(
            f"{path} is not a wattledger ledger",
            "give another path with ledger.path or --ledger",
        )


def check_version(connection: sqlite3.Connection, path: Path, known: int) -> int:
    """The file's schema version, where this program may write it.

    Raises:
        LedgerError: a newer program made it, in a way that this one would harm.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > known:
        try:
            row = connection.execute("SELECT writable_since FROM meta").fetchone()
        except SQL_ERRORS:
            row = None  # not even its schema can be understood: newer SQLite syntax, say
        if row is None or row[0] > known:
            raise LedgerError(
                f"the ledger {path} was written by a newer wattledger (schema {version}, this one "
                f"knows {known})",
                "upgrade wattledger, or give another path with ledger.path or --ledger",
            )
    return version


def migrate(connection: sqlite3.Connection, path: Path, version: int, steps: Sequence[str]) -> None:
    """Brings the schema up to the last step, each step and its number in one transaction.

    Killed at any point, the file has a version before or after a step, never one between.

    Raises:
        sqlite3.Error: a step could not be applied; the file is as before that step.
        LedgerError: the step does not fit the file: a fault of ours, so the file stays in place.
    """
    for number, step in enumerate(steps[version:], start=version + 1):
        try:
            # Off, since a step may make a table anew that others refer to; it keeps the ids.
            connection.executescript(
                "PRAGMA foreign_keys = OFF;\n"
                f"BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;\n"
                "PRAGMA foreign_keys = ON;"
            )
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("PRAGMA foreign_keys = ON")
            if primary_code(error) in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT}:
                raise LedgerError(
                    f"the ledger {path} cannot be brought to schema {number}: {error}",
                    "it is unharmed: go on with the version of wattledger that wrote it, and "
                    "report this",
                ) from error
            raise
