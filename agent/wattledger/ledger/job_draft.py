"""What a commit means for jobs: their runs' rows and totals, who gets a series, users' sums.

All rows hold absolute values, as everywhere in the ledger: a commit that is tried again writes the
same cells over. What it reads from the file before its first try is kept for the next one, since
after a try of unknown outcome the file may hold that try's values already.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from wattledger.ledger import run_rows
from wattledger.ledger.run_exports import queue_runs
from wattledger.ledger.user_draft import count_users
from wattledger.model import Instant, Payee
from wattledger.model.jobbooks import (
    NO_CELLS,
    Cells,
    JobBooks,
    PastRuns,
    RunBook,
    sum_of,
)
from wattledger.model.jobs import JobKey, JobRun
from wattledger.model.sums import NO_SUMS, Sums, to_text


class Read:
    """What commits of unknown outcome read from the file before they wrote."""

    def __init__(self) -> None:
        self.runs: dict[Payee, RunBook] = {}
        self.past: dict[JobKey, PastRuns] = {}
        self.unlisted: dict[JobKey, bool] = {}


class JobDraft:
    """The jobs' part of a commit in the making."""

    def __init__(
        self,
        old: JobBooks,
        runs: tuple[JobRun, ...],
        now: Instant,
        linger_ns: int,
        max_series: int,
        exporters: tuple[str, ...] = (),
    ) -> None:
        """A draft that has written nothing.

        Args:
            old: the committed state.
            runs: as in `Batch`.
            now: when.
            linger_ns: how long an ended job stays.
            max_series: how many have a series.
            exporters: those that deliver ended runs.
        """
        self._old = old
        self._runs = {run.payee: run for run in runs}
        self._now = now
        self._linger_ns = linger_ns
        self._max_series = max_series
        self._exporters = exporters

    def write(
        self,
        connection: sqlite3.Connection,
        payee_id: Callable[[Payee], int],
        grown: Mapping[Payee, Cells],
        read: Read,
        *,
        sums: Mapping[Payee, Sums],
        doubtful: bool,
        commit: int,
    ) -> JobBooks:
        """Writes the rows; returns the books once they are committed.

        Args:
            connection: in the commit's transaction.
            payee_id: finds or makes a payee's row.
            grown: run → what its totals grow by.
            read: what earlier tries of this commit read; added to.
            sums: run → what its sums beside the amounts grow by.
            doubtful: an earlier try may have reached the file.
            commit: its number.
        """
        touched = dict.fromkeys((*self._runs, *grown, *sums))
        if doubtful:
            touched.update(dict.fromkeys((*self._old.runs, *read.runs)))
        books = dict(self._old.runs)
        changed: dict[Payee, RunBook] = {}
        ended: list[Payee] = []
        for payee in touched:
            before = self._before(connection, payee, read)
            after = self._after(
                before, self._runs.get(payee), grown.get(payee, NO_CELLS), sums.get(payee)
            )
            books[payee] = after
            if doubtful or _differs(before, after) or payee not in self._old.runs:
                changed[payee] = after
            if after.run.end_ns and _differs(before, after):
                ended.append(payee)
        past, unlisted = self._admit(connection, books, read)
        rows = [(payee_id(payee), book) for payee, book in changed.items()]
        connection.executemany(
            run_rows.UPSERT_RUN, (run_rows.run_row(number, book) for number, book in rows)
        )
        connection.executemany(
            run_rows.UPSERT_RUN_TOTAL,
            (
                (number, *run_rows.cell_row(key, cell))
                for number, book in rows
                for key, cell in book.cells.items()
            ),
        )
        connection.executemany(
            run_rows.UPSERT_RUN_SUMS,
            ((number, to_text(book.sums)) for number, book in rows if book.sums != NO_SUMS),
        )
        queue_runs(connection, self._exporters, [payee_id(payee) for payee in ended], commit)
        new = unlisted - self._old.unlisted
        marked = new if not doubtful else unlisted
        connection.executemany(
            "INSERT OR IGNORE INTO unlisted_job (manager, job_id) VALUES (?, ?)", marked
        )
        counted = self._old.unlisted_count + sum(1 for key in new if not read.unlisted[key])
        unlisted_total = self._unlisted_total(connection, grown, unlisted, doubtful=doubtful)
        counted_users = count_users(
            connection, payee_id, self._old, books, grown, self._now.wall_ns, doubtful=doubtful
        )
        return self._kept(
            JobBooks(
                runs=books,
                past=past,
                unlisted=frozenset(unlisted),
                unlisted_total=unlisted_total,
                unlisted_count=counted,
                users=counted_users.users,
                waiting=counted_users.waiting,
            )
        )

    # ── runs ────────────────────────────────────────────────────────────────────────────────────

    def _before(self, connection: sqlite3.Connection, payee: Payee, read: Read) -> RunBook:
        known = self._old.runs.get(payee) or read.runs.get(payee)
        if known is None:
            known = run_rows.load_run(connection, payee) or RunBook(
                JobRun(payee, last_seen_ns=payee.start_ns)
            )
            read.runs[payee] = known
        return known

    def _after(
        self, before: RunBook, run: JobRun | None, grown: Cells, more: Sums | None
    ) -> RunBook:
        cells = before.cells
        if grown:
            cells = MappingProxyType(sum_of((cells, grown)))
        first_ns = before.first_booked_ns or (self._now.wall_ns if grown else 0)
        run = before.run if run is None else _with_what_was_learnt(run, before.run)
        sums = before.sums if more is None else before.sums.plus(more)
        return RunBook(run, cells, first_ns, sums=sums)

    def _admit(
        self, connection: sqlite3.Connection, books: Mapping[Payee, RunBook], read: Read
    ) -> tuple[dict[JobKey, PastRuns], set[JobKey]]:
        """The sums of earlier runs, and who has no series: decided once for each job."""
        past, unlisted = dict(self._old.past), set(self._old.unlisted)
        jobs: dict[JobKey, list[Payee]] = {}
        for payee, book in books.items():
            jobs.setdefault(book.run.key, []).append(payee)
        staying = self._staying(books)
        listed = sum(1 for key in self._old.past if key not in unlisted and key in staying)
        for key, payees in jobs.items():
            if key in past:
                if any(p not in self._old.runs and self._was_past(p, read) for p in payees):
                    past[key] = run_rows.load_past(connection, key, payees)
                continue
            if key not in read.past:
                before = run_rows.load_past(connection, key, payees)
                read.unlisted[key] = run_rows.is_unlisted(connection, key)
                read.past[key] = before  # last: either may fail, and then both are read again
            past[key] = read.past[key]
            if read.unlisted[key] or listed >= self._max_series:
                unlisted.add(key)
            else:
                listed += 1
        return past, unlisted

    @staticmethod
    def _was_past(payee: Payee, read: Read) -> bool:
        """Whether a run came back that had been summed up among the earlier ones."""
        known = read.runs.get(payee)
        return known is not None and bool(known.cells)

    # ── sums ────────────────────────────────────────────────────────────────────────────────────

    def _unlisted_total(
        self,
        connection: sqlite3.Connection,
        grown: Mapping[Payee, Cells],
        unlisted: set[JobKey],
        *,
        doubtful: bool,
    ) -> Cells:
        parts = [c for p, c in grown.items() if JobKey(p.manager, p.job_id) in unlisted]
        if not parts and not doubtful:
            return self._old.unlisted_total
        total = sum_of((self._old.unlisted_total, *parts))
        if doubtful:
            connection.execute("DELETE FROM unlisted_total")
        connection.executemany(
            run_rows.UPSERT_UNLISTED_TOTAL, (run_rows.cell_row(*item) for item in total.items())
        )
        return MappingProxyType(total)

    def _staying(self, books: Mapping[Payee, RunBook]) -> set[JobKey]:
        """The jobs that run, or ended a short while ago."""
        keep_from_ns = self._now.wall_ns - self._linger_ns
        return {
            book.run.key
            for book in books.values()
            if not book.run.end_ns or book.run.end_ns >= keep_from_ns
        }

    def _kept(self, books: JobBooks) -> JobBooks:
        """Without the runs that ended longer ago than they linger; their sums stay with the job."""
        keep_from_ns = self._now.wall_ns - self._linger_ns
        kept = self._staying(books.runs)
        past = {key: sums for key, sums in books.past.items() if key in kept}
        runs: dict[Payee, RunBook] = {}
        for payee, book in books.runs.items():
            key = book.run.key
            if key not in kept:
                continue
            if not book.run.end_ns or book.run.end_ns >= keep_from_ns:
                runs[payee] = book
            else:  # an earlier run of a job that goes on
                sums = past[key]
                past[key] = PastRuns(
                    MappingProxyType(sum_of((sums.cells, book.cells))),
                    min(filter(None, (sums.first_booked_ns, book.first_booked_ns)), default=0),
                )
        return replace(
            books,
            runs=MappingProxyType(runs),
            past=MappingProxyType(past),
            unlisted=books.unlisted & kept,
        )


def _with_what_was_learnt(run: JobRun, before: JobRun) -> JobRun:
    """What was learnt once is not unlearnt, as by a daemon that has just been started."""
    if run.uid is None and before.uid is not None:
        run = replace(run, uid=before.uid)
    known = {n: before.labels[n] for n in ("user", "account") if before.labels.get(n)}
    if any(not run.labels.get(name) for name in known):
        given = {name: text for name, text in run.labels.items() if text}
        run = replace(run, labels=MappingProxyType({**known, **given}))
    if run.end_ns and before.end_ns and not run.holdings and before.holdings:
        run = replace(run, holdings=before.holdings)
    return run


def _differs(before: RunBook, after: RunBook) -> bool:
    """Whether there is something to write: the last sign of life alone is not worth a row."""
    if before.cells is not after.cells or before.first_booked_ns != after.first_booked_ns:
        return True
    if before.sums is not after.sums:
        return True
    if before.run is after.run:
        return False
    return replace(before.run, last_seen_ns=0) != replace(after.run, last_seen_ns=0)
