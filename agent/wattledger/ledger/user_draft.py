"""What a commit means for users' sums: a run is counted once it is known whose it is.

A user's name is looked up while the run goes on already, and the files of a scheduler's hooks are
read now and then only. A counter never falls, so that what was counted for nobody could not become
somebody's: what a run uses meanwhile waits, in the ledger as well.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from wattledger.ledger import run_rows
from wattledger.ledger.run_rows import clean
from wattledger.model import Amounts, Payee
from wattledger.model.jobbooks import Cells, JobBooks, RunBook, UserKey
from wattledger.model.jobs import SLURM, JobRun
from wattledger.units import NS_PER_S

LATE_NS = 30 * NS_PER_S  # so long after a run's beginning or end something may become known of it


class UserSums(NamedTuple):
    """As in `JobBooks`."""

    users: Mapping[UserKey, Amounts]
    waiting: Mapping[Payee, Amounts]


def count_users(
    connection: sqlite3.Connection,
    payee_id: Callable[[Payee], int],
    old: JobBooks,
    books: Mapping[Payee, RunBook],
    grown: Mapping[Payee, Cells],
    now_ns: int,
    *,
    doubtful: bool,
) -> UserSums:
    """Writes the rows; returns the sums once they are committed.

    Args:
        connection: in the commit's transaction.
        payee_id: finds or makes a payee's row.
        old: the committed books.
        books: the runs as they will be.
        grown: run → what its totals grow by.
        now_ns: wall clock.
        doubtful: an earlier try may have reached the file.
    """
    if not grown and not old.waiting and not doubtful:
        return UserSums(old.users, old.waiting)
    users, waiting = dict(old.users), dict(old.waiting)
    for payee, cells in grown.items():
        waiting[payee] = _sum(waiting.get(payee), *(cell.amounts for cell in cells.values()))
    changed: set[UserKey] = set()
    for payee in list(waiting):
        # One that lingered to its end is no more in the books, as after a restart.
        book = books.get(payee) or run_rows.load_run(connection, payee)
        key = _whose(book.run if book is not None else JobRun(payee), now_ns)
        if key is not None:
            users[key] = _sum(users.get(key), waiting.pop(payee))
            changed.add(key)
    gone = old.waiting.keys() - waiting.keys()
    still = {p: sums for p, sums in waiting.items() if sums is not old.waiting.get(p)}
    if doubtful:
        connection.execute("DELETE FROM user_total")
        connection.execute("DELETE FROM user_waiting")
        changed, gone, still = set(users), set(), waiting
    connection.executemany(
        run_rows.UPSERT_USER_TOTAL, run_rows.user_rows({key: users[key] for key in changed})
    )
    connection.executemany(
        "DELETE FROM user_waiting WHERE payee_id = ?", [(payee_id(payee),) for payee in gone]
    )
    connection.executemany(
        run_rows.UPSERT_USER_WAITING, [(payee_id(payee), *sums) for payee, sums in still.items()]
    )
    return UserSums(MappingProxyType(users), MappingProxyType(waiting))


def _whose(run: JobRun, now_ns: int) -> UserKey | None:
    """For whom a run is counted; None: that may still become known."""
    manager = run.payee.manager
    user, account = clean(run.labels.get("user", "")), clean(run.labels.get("account", ""))
    early = 0 <= now_ns - (run.end_ns or run.payee.start_ns) < LATE_NS
    if user:
        waits = early and not account and manager == SLURM
    else:  # a unit of the system or a pod has no user, and never will
        waits = (early or not run.end_ns) and (run.uid is not None or manager == SLURM)
    return None if waits else UserKey(manager, user, account)


def _sum(first: Amounts | None, *more: Amounts) -> Amounts:
    return Amounts(*map(sum, zip(first or Amounts(), *more, strict=True)))
