"""How jobs' runs and their totals lie in the tables."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from wattledger.ledger.database import Damaged
from wattledger.model import Amounts, Basis, Kind, Payee, PayeeKind
from wattledger.model.jobbooks import (
    Cell,
    Cells,
    JobBooks,
    PastRuns,
    RunBook,
    UserKey,
    sum_of,
)
from wattledger.model.jobs import Held, Holding, JobKey, JobRun, KindBasis
from wattledger.model.sums import Sums, of_text, total

MAX_ENDED = 10_000
TEXT_CHARS = 256  # of a name, a label or a path: they come from outside

CELL_COLUMNS = (
    "kind, basis, energy_uj, co2e_ug, water_onsite_ul, water_grid_ul, "
    "held_ms, held_idle_ms, held_idle_uj"
)
_AMOUNTS = ("energy_uj", "co2e_ug", "water_onsite_ul", "water_grid_ul")
_HELD = ("held_ms", "held_idle_ms", "held_idle_uj")


def _set(columns: Iterable[str]) -> str:
    return ", ".join(f"{column} = excluded.{column}" for column in columns)


_RUN_COLUMNS = (
    "start_ns",
    "end_ns",
    "last_seen_ns",
    "uid",
    "user",
    "labels",
    "cgroup",
    "inode",
    "boot_id",
    "cpu_ns",
    "holdings",
    "first_booked_ns",
)
RUN_COLUMNS = ", ".join(f"run.{column}" for column in _RUN_COLUMNS)
UPSERT_RUN = (
    f"INSERT INTO run (payee_id, {', '.join(_RUN_COLUMNS)}) "  # noqa: S608
    f"VALUES ({', '.join('?' * 13)}) ON CONFLICT (payee_id) DO UPDATE SET {_set(_RUN_COLUMNS)}"
)
UPSERT_RUN_TOTAL = (
    f"INSERT INTO run_total (payee_id, {CELL_COLUMNS}) VALUES ({', '.join('?' * 10)}) "  # noqa: S608
    f"ON CONFLICT DO UPDATE SET {_set(_AMOUNTS + _HELD)}"
)
UPSERT_UNLISTED_TOTAL = (
    f"INSERT INTO unlisted_total ({CELL_COLUMNS}) VALUES ({', '.join('?' * 9)}) "  # noqa: S608
    f"ON CONFLICT DO UPDATE SET {_set(_AMOUNTS + _HELD)}"
)
UPSERT_USER_TOTAL = (
    f"INSERT INTO user_total (manager, user, account, {', '.join(_AMOUNTS)}) "  # noqa: S608
    f"VALUES ({', '.join('?' * 7)}) ON CONFLICT DO UPDATE SET {_set(_AMOUNTS)}"
)
UPSERT_USER_WAITING = (
    f"INSERT INTO user_waiting (payee_id, {', '.join(_AMOUNTS)}) "  # noqa: S608
    f"VALUES ({', '.join('?' * 5)}) ON CONFLICT DO UPDATE SET {_set(_AMOUNTS)}"
)
UPSERT_RUN_SUMS = (
    "INSERT INTO run_sums (payee_id, sums) VALUES (?, ?) "
    "ON CONFLICT DO UPDATE SET sums = excluded.sums"
)
SELECT_SUMS = "SELECT sums FROM run_sums WHERE payee_id = ?"
_SELECT_CELLS = f"SELECT {CELL_COLUMNS} FROM run_total WHERE payee_id = ?"  # noqa: S608
# Letter for letter the expression of the index `run_account`, else SQLite does not use it.
ACCOUNT = "iif(json_valid(run.labels), json_extract(run.labels, '$.account'), NULL)"
GROUP_OF_USER = "coalesce(nullif(run.user, ''), 'uid ' || run.uid, '(unknown)')"


def run_row(payee_id: int, book: RunBook) -> tuple[int | str | None, ...]:
    """A run's row for `UPSERT_RUN`."""
    run = book.run
    return (
        payee_id,
        run.payee.start_ns,
        run.end_ns,
        run.last_seen_ns,
        run.uid,
        clean(run.labels.get("user", "")),
        json.dumps({clean(k): clean(v) for k, v in sorted(run.labels.items())}),
        clean(run.cgroup),
        run.inode & (2**63 - 1),
        run.boot_id,
        run.cpu_ns,
        json.dumps([list(holding) for holding in run.holdings]),
        book.first_booked_ns,
    )


def clean(text: str) -> str:
    """What SQLite can keep: valid UTF-8 without NUL, not too long."""
    if len(text) <= TEXT_CHARS and text.isascii() and "\0" not in text:  # nearly always
        return text
    return text[:TEXT_CHARS].encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def cell_row(key: KindBasis, cell: Cell) -> tuple[int | str, ...]:
    """A cell for one of the tables of totals."""
    held = cell.held
    return (key.kind, key.basis, *cell.amounts, held.held_ms, held.idle_ms, held.idle_uj)


def cells_of(rows: Iterable[tuple[str | int, ...]]) -> dict[KindBasis, Cell]:
    """Cells from rows of `CELL_COLUMNS`."""
    return {
        KindBasis(Kind(str(kind)), Basis(str(basis))): Cell(
            Amounts(*map(int, numbers[:4])), Held(*map(int, numbers[4:]))
        )
        for kind, basis, *numbers in rows
    }


def book_of(
    connection: sqlite3.Connection, payee_id: int, row: tuple[str | int | None, ...]
) -> RunBook:
    """A run's book from (manager, job id, `RUN_COLUMNS`)."""
    manager, job_id, start, end, seen, uid, _, labels, cgroup, inode, boot, cpu, held, first = row
    try:
        known = {str(k): str(v) for k, v in json.loads(str(labels)).items()}
        holdings = tuple(Holding(str(d), int(ppm), bool(e)) for d, ppm, e in json.loads(str(held)))
    except (ValueError, TypeError, AttributeError) as error:
        raise Damaged(f"run {payee_id}: {error}") from error
    run = JobRun(
        payee=Payee(PayeeKind.JOBS, str(manager), str(job_id), _int(start)),
        uid=None if uid is None else _int(uid),
        labels=MappingProxyType(known),
        cgroup=str(cgroup),
        inode=_int(inode),
        boot_id=str(boot),
        cpu_ns=None if cpu is None else _int(cpu),
        holdings=holdings,
        last_seen_ns=_int(seen),
        end_ns=_int(end),
    )
    cells = cells_of(connection.execute(_SELECT_CELLS, (payee_id,)))
    sums = sums_in(connection.execute(SELECT_SUMS, (payee_id,)))
    return RunBook(run, MappingProxyType(cells), _int(first), sums=sums)


def sums_in(rows: Iterable[tuple[str]]) -> Sums:
    """The sum of rows of `run_sums`.

    Raises:
        Damaged: one of them was not written by us.
    """
    try:
        return total(of_text(text) for (text,) in rows)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Damaged(f"run_sums: {error}") from error


def load_run(connection: sqlite3.Connection, payee: Payee) -> RunBook | None:
    """A run's book; None: there is none yet."""
    row = connection.execute(
        f"SELECT payee.id, payee.manager, payee.job_id, {RUN_COLUMNS} "  # noqa: S608
        "FROM payee JOIN run ON run.payee_id = payee.id "
        "WHERE (payee.kind, manager, job_id, payee.start_ns) = (?, ?, ?, ?)",
        (*payee,),
    ).fetchone()
    return None if row is None else book_of(connection, row[0], row[1:])


def load_past(connection: sqlite3.Connection, key: JobKey, loaded: Iterable[Payee]) -> PastRuns:
    """The sum of a job's runs but for those that are loaded."""
    # As JSON in one parameter: a unit that is restarted all the time has any number of runs.
    but = json.dumps([payee.start_ns for payee in loaded])
    which = (
        "FROM payee JOIN {table} ON {table}.payee_id = payee.id WHERE payee.kind = 'jobs' "
        "AND manager = ? AND job_id = ? "
        "AND payee.start_ns NOT IN (SELECT value FROM json_each(?))"
    )
    sums = ", ".join(f"sum({column})" for column in _AMOUNTS + _HELD)
    cells = cells_of(
        connection.execute(
            f"SELECT run_total.kind, basis, {sums} "
            + which.format(table="run_total")
            + " GROUP BY run_total.kind, basis",
            (*key, but),
        )
    )
    first = connection.execute(
        "SELECT min(nullif(first_booked_ns, 0)) " + which.format(table="run"), (*key, but)
    ).fetchone()[0]
    return PastRuns(MappingProxyType(cells), int(first or 0))


def is_unlisted(connection: sqlite3.Connection, key: JobKey) -> bool:
    """Whether the job was left without a series of its own."""
    return (
        connection.execute(
            "SELECT 1 FROM unlisted_job WHERE manager = ? AND job_id = ?", key
        ).fetchone()
        is not None
    )


def load_jobs(connection: sqlite3.Connection, books_ns: int, linger_ns: int) -> JobBooks:
    """The runs that run or ended a short while ago, with their jobs' sums, and all other sums."""
    select = (
        f"SELECT payee.id, payee.manager, payee.job_id, {RUN_COLUMNS} "  # noqa: S608
        "FROM run JOIN payee ON payee.id = run.payee_id WHERE run.end_ns "
    )
    found = connection.execute(select + "= 0").fetchall()
    found += connection.execute(
        # A clock that was set back must not make all that ever ended look recent.
        select + f">= ? ORDER BY run.end_ns DESC LIMIT {MAX_ENDED}",
        (max(books_ns - linger_ns, 1),),
    ).fetchall()
    runs: dict[Payee, RunBook] = {}
    for payee_id, *row in found:
        book = book_of(connection, payee_id, tuple(row))
        runs[book.run.payee] = book
    by_job: dict[JobKey, list[Payee]] = {}
    for payee, book in runs.items():
        by_job.setdefault(book.run.key, []).append(payee)
    users = {
        UserKey(manager, user, account): Amounts(*numbers)
        for manager, user, account, *numbers in connection.execute(
            "SELECT manager, user, account, energy_uj, co2e_ug, water_onsite_ul, water_grid_ul "
            "FROM user_total"
        )
    }
    waiting = {
        Payee(PayeeKind(kind), manager, job_id, start_ns): Amounts(*numbers)
        for kind, manager, job_id, start_ns, *numbers in connection.execute(
            f"SELECT kind, manager, job_id, start_ns, {', '.join(_AMOUNTS)} "  # noqa: S608
            "FROM user_waiting JOIN payee ON payee.id = payee_id"
        )
    }
    unlisted_total = connection.execute(f"SELECT {CELL_COLUMNS} FROM unlisted_total")  # noqa: S608
    return JobBooks(
        runs=MappingProxyType(runs),
        past=MappingProxyType(
            {key: load_past(connection, key, payees) for key, payees in by_job.items()}
        ),
        unlisted=frozenset(key for key in by_job if is_unlisted(connection, key)),
        unlisted_total=MappingProxyType(cells_of(unlisted_total)),
        unlisted_count=connection.execute("SELECT count(*) FROM unlisted_job").fetchone()[0],
        users=MappingProxyType(users),
        waiting=MappingProxyType(waiting),
    )


def job_total(books: JobBooks, key: JobKey) -> Cells:
    """The sum of all runs of a job that is in the books."""
    past = books.past.get(key, PastRuns()).cells
    return sum_of((past, *(b.cells for b in books.runs.values() if b.run.key == key)))


def user_rows(users: Mapping[UserKey, Amounts]) -> list[tuple[str | int, ...]]:
    """Users' sums for `UPSERT_USER_TOTAL`."""
    return [(*key, *amounts) for key, amounts in users.items()]


def _int(value: str | int | None) -> int:
    if not isinstance(value, int):
        raise Damaged(f"{value!r} stands where a number must")
    return value
