"""`wattledger report --export DIR --format parquet`: settled slots, for DuckDB, Spark and Trino.

A file for each UTC day, node and ledger epoch, which is replaced as a whole and only if it changes.
What its columns mean: `parquet_schema`.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from wattledger.audit.export import read_records
from wattledger.audit.parquet_schema import COLUMNS, NAMED, schema
from wattledger.config import Config
from wattledger.errors import ConfigError, LedgerError, WattledgerError
from wattledger.model.restating import END_S
from wattledger.node_name import node_name
from wattledger.remote import Refused, Remote
from wattledger.units import NS_PER_S, NS_PER_US
from wattledger_exporters.http.query import BadRequest, instant_ns

DAY_S = 86_400
US_PER_S = 1_000_000
INSTALL = "pip install 'wattledger[parquet]'; of the package: make deb EXTRAS=otlp,parquet"
ROWS_AT_ONCE = 2_000
TRIES = 5
PART = ".wattledger-part-"
OLD_S = DAY_S
ROW_GROUP = 15 * ROWS_AT_ONCE
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_EPOCH = re.compile(r"[A-Za-z0-9-]{1,64}")
Row = Mapping[str, Any]
Asked = Mapping[str, str]


class _Books(NamedTuple):
    """Which books these are.

    Attributes:
        epoch: a UUID.
        books_ns: wall clock up to which they are complete.
        first_s: where the first slot of the day or after it begins; None: there is none.
    """

    epoch: str
    books_ns: int
    first_s: int | None


class _Day(NamedTuple):
    """A day of the export.

    Attributes:
        start_s: Unix seconds.
        books: as they were when it was read.
    """

    start_s: int
    books: _Books

    @property
    def complete(self) -> bool:
        """Whether nothing more will be booked on it."""
        return self.books.books_ns >= (self.start_s + DAY_S) * NS_PER_S

    @property
    def name(self) -> str:
        """In ISO form."""
        return datetime.fromtimestamp(self.start_s, UTC).date().isoformat()


def export_parquet(
    options: argparse.Namespace, config: Callable[[], Config], remote: Remote
) -> int:
    """Writes the days that are asked for, and tells what became of them.

    Args:
        options: `export`, the directory; `since`, `until`, `node`, `only_settled`, `names`.
        config: of the ledger that is read where no daemon runs.
        remote: the daemon.

    Raises:
        ConfigError: an option that cannot be.
        WattledgerError: pyarrow is missing, a file cannot be written, or these books lie there
            under another node's name.
        LedgerError: no daemon runs, and its ledger cannot be read either; or the books were rolled
            up or settled each time that a day was read: the days before it are there.
    """
    _see_pyarrow()
    node = options.node or node_name()
    if not _NODE.fullmatch(node):
        text = f"{node!r} makes no directory: letters, digits, '.', '_' and '-' only"
        raise ConfigError([("--node", text)])
    now_ns = time.time_ns()
    try:
        since_ns = instant_ns("since", options.since, now_ns) if options.since else 0
        until_ns = instant_ns("until", options.until, now_ns) if options.until else END_S * NS_PER_S
    except BadRequest as error:
        raise ConfigError([("report", str(error))]) from error

    def read(from_s: int) -> Generator[Row, None, None]:
        asked = {"view": "slots", "since": str(from_s), "until": str(from_s + DAY_S)}
        return read_records(asked, config, remote)

    writer = _Writer(options.export, node, only_settled=options.only_settled, names=options.names)
    start_s = since_ns // NS_PER_S // DAY_S * DAY_S
    try:
        options.export.mkdir(parents=True, exist_ok=True)
        _remove_old_parts(options.export)
        while start_s * NS_PER_S < until_ns:
            books = _write_day(writer, read, start_s)
            if books.first_s is None:
                break
            start_s = max(start_s + DAY_S, books.first_s // DAY_S * DAY_S)
    except OSError as error:
        what = error.filename or options.export
        raise WattledgerError(f"{what} cannot be written: {error.strerror}") from error
    sys.stdout.write(f"{options.export}: {writer.told()}\n")
    return 0


def _write_day(
    writer: _Writer, read: Callable[[int], Generator[Row, None, None]], start_s: int
) -> _Books:
    """Writes the books' next day, if it is this one. Books that change meanwhile are read again."""
    for left in reversed(range(TRIES)):
        try:
            with closing(read(start_s)) as records:
                books = _books(records)
                if books.first_s is not None and books.first_s < start_s + DAY_S:
                    writer.write(_Day(start_s, books), records)
                break
        except (LedgerError, Refused):
            if not left:
                raise
    return books


def _remove_old_parts(directory: Path) -> None:
    """What was left by those that were killed. A younger one may be at work, on any node."""
    for part in directory.glob(f"{PART}*"):
        try:
            if part.stat().st_mtime < time.time() - OLD_S:
                part.unlink()
        except OSError:  # somebody else's, or just gone
            continue


def _see_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise WattledgerError("Parquet is written by pyarrow, which is missing", INSTALL) from error


def _books(records: Iterator[Row]) -> _Books:
    """The first record of the view.

    Raises:
        WattledgerError: it is another's.
    """
    first = next(records, None)
    if first is None or first["record"] != "books" or not _EPOCH.fullmatch(str(first["epoch"])):
        raise WattledgerError(
            "the daemon does not tell slots", "restart it: it is an older version"
        )
    return _Books(str(first["epoch"]), int(first["books_ns"]), first["first_s"])


class _Writer:
    """Writes days under a directory."""

    def __init__(self, directory: Path, node: str, *, only_settled: bool, names: bool) -> None:
        self._directory, self._node = directory, node
        self._only_settled, self._names = only_settled, names
        self._written = self._unchanged = self._left_out = self._rows = 0

    def told(self) -> str:
        """What became of the days."""
        left_out = f", {self._left_out} left out: not settled" if self._left_out else ""
        return (
            f"{self._written} days written, {self._unchanged} unchanged{left_out}; "
            f"{self._rows} rows of {self._node}"
        )

    def write(self, day: _Day, rows: Iterator[Row]) -> None:
        """Write a day, or leave what is there where it is the same.

        Raises:
            OSError: it cannot be written; what was there is there.
            WattledgerError: these books lie there under another node's name.
        """
        if self._only_settled and not day.complete:
            self._left_out += 1
            return
        self._see_no_other_name(day)
        # Beside the partitions, under a name that no reader of them takes for a part.
        handle, name = tempfile.mkstemp(prefix=PART, dir=self._directory)
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                count, is_settled = self._fill(file, day, rows)
                file.flush()
                os.fsync(file.fileno())
            if not count:
                return
            if self._only_settled and not is_settled:
                self._left_out += 1
                return
            self._rows += count
            self._replace(part, day)
        finally:
            part.unlink(missing_ok=True)

    def _target(self, day: _Day) -> Path:
        folder = self._directory / f"day={day.name}" / f"node={self._node}"
        return folder / f"part-{day.books.epoch}.parquet"

    def _see_no_other_name(self, day: _Day) -> None:
        """Only where the file is new: many nodes' directories are looked into."""
        target = self._target(day)
        if target.exists():
            return
        for other in self._directory.glob(f"day={day.name}/node=*/{target.name}"):
            named = other.parent.name.removeprefix("node=")
            raise WattledgerError(
                f"{other} holds the same books, as those of {named}: they would be counted twice",
                f"add --node {named}, or rename its directories to node={self._node}",
            )

    def _replace(self, part: Path, day: _Day) -> None:
        target = self._target(day)
        if target.is_file() and filecmp.cmp(part, target, shallow=False):
            self._unchanged += 1
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        self._written += 1

    def _fill(self, file: Any, day: _Day, rows: Iterator[Row]) -> tuple[int, bool]:
        """Args: file: to write. Returns: how many rows, and whether all of them are settled."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        form = schema({"wattledger.day_complete": str(day.complete).lower()})
        count, is_settled = 0, True
        batches: list[Any] = []
        with pq.ParquetWriter(file, form, compression="zstd") as writer:

            def write_group() -> None:
                if batches:
                    writer.write_table(pa.Table.from_batches(batches), row_group_size=ROW_GROUP)
                    batches.clear()

            # The same row groups whatever the pages were: the same books are the same bytes.
            for chunk in _chunks(rows):
                count += len(chunk)
                is_settled &= all(row["settled_uj"] == row["energy_uj"] for row in chunk)
                batches.append(pa.RecordBatch.from_pydict(self._columns(chunk, day), schema=form))
                if len(batches) * ROWS_AT_ONCE == ROW_GROUP:
                    write_group()
            write_group()
        return count, is_settled

    def _columns(self, rows: list[Row], day: _Day) -> dict[str, list[Any]]:
        made = [_worked_out(row, day) for row in rows]
        columns: dict[str, list[Any]] = {}
        for column in COLUMNS:
            if not column.source:
                columns[column.name] = [one[column.name] for one in made]
            elif column.name in NAMED and not self._names:
                columns[column.name] = [None] * len(rows)
            else:
                to = _TO[column.kind]
                columns[column.name] = [
                    None if (value := row[column.source]) is None else to(value) for row in rows
                ]
        return columns


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """So many rows each, in which no more than one of them is held as records."""
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        yield chunk


def _worked_out(row: Row, day: _Day) -> dict[str, Any]:
    """The columns that no field of a record is as it stands."""
    start_s, energy_uj, settled_uj = row["start_s"], int(row["energy_uj"]), int(row["settled_uj"])
    is_run = row["payee"] == "jobs"
    run_start_ns = int(row["run_start_ns"]) if is_run else None
    return {
        "ledger_epoch": day.books.epoch,
        "start": start_s * US_PER_S,
        "end": (start_s + row["grain_s"]) * US_PER_S,
        "day_complete": day.complete,
        "manager": row["manager"] if is_run else None,
        "job_id": row["job_id"] if is_run else None,
        "run_start": None if run_start_ns is None else run_start_ns // NS_PER_US,
        "run_start_ns": run_start_ns,
        "settlement": "booked" if not settled_uj else _settlement(settled_uj, energy_uj),
        "co2e_final_ug": int(row["co2e_ug"]) + int(row["co2e_diff_ug"]),
        "water_onsite_final_ul": int(row["water_onsite_ul"]) + int(row["water_onsite_diff_ul"]),
        "water_grid_final_ul": int(row["water_grid_ul"]) + int(row["water_grid_diff_ul"]),
    }


def _settlement(settled_uj: int, energy_uj: int) -> str:
    return "settled" if settled_uj == energy_uj else "partly"


_TO: Mapping[str, Callable[[Any], Any]] = {
    "int64": int,
    "int32": int,
    "boolean": bool,
    "string": str,
    "timestamp": lambda ns: int(ns) // NS_PER_US,
}


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
