"""Questions to a ledger of a million runs: how long each takes, over a connection of its own.

Each is asked several times, each time by a new reader, as the first question of somebody who has
just come; the operating system may still have the file's pages in memory.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import million
from bench.table import Result
from fakes import FakeClock
from ledgers import opened
from wattledger.ledger import LedgerReader
from wattledger.model.jobbooks import JobQuery
from wattledger.units import NS_PER_S

JOB_MS = 20
USER_MS = 200
WASTE_MS = 200
ASKED = 40
NOW_NS = million.END_S * NS_PER_S
MONTH_NS = NOW_NS - 30 * million.DAY_S * NS_PER_S
WEEK_NS = NOW_NS - 7 * million.DAY_S * NS_PER_S


def measure(directory: Path, result: Result) -> None:
    """Makes the ledger and adds a row for each question."""
    path = directory / "million.sqlite"
    directory.mkdir(exist_ok=True)
    print("… a ledger of a million runs", file=sys.stderr, flush=True)
    begin_s = time.perf_counter()
    million.build(path)
    took_s = time.perf_counter() - begin_s
    size = path.stat().st_size / 1e6
    begin_s = time.perf_counter()
    opened(path, FakeClock()).close()
    note = f"{million.RUNS:,} runs, {size:,.0f} MB, made in {took_s:.0f} s"
    result.add("ledger opened and closed", 1000 * (time.perf_counter() - begin_s), "ms", note=note)

    chance = random.Random(4711)
    jobs = [str(million.FIRST_JOB + chance.randrange(million.RUNS)) for _ in range(ASKED)]
    users = [chance.randrange(million.USERS) for _ in range(5)]
    ask = _Asker(path, result)
    ask("one job", JOB_MS, [lambda r, job=job: r.job("slurm", job) for job in jobs])
    ask(
        "one job, by its owner",
        JOB_MS,
        [lambda r, job=job: r.job("slurm", job, _owner(job)) for job in jobs],
    )
    ask(
        "a user's month, the runs",
        USER_MS,
        [
            lambda r, uid=million.FIRST_UID + user: r.jobs(
                JobQuery(uid=uid, since_ns=MONTH_NS, limit=1000)
            )
            for user in users
        ],
    )
    ask(
        "a user's month by name, most energy first",
        USER_MS,
        [
            lambda r, user=user: r.jobs(
                JobQuery(user=f"user{user}", since_ns=MONTH_NS, sort="energy", limit=1000)
            )
            for user in users
        ],
    )
    ask(
        "a user's month, totals by job",
        USER_MS,
        [
            lambda r, uid=million.FIRST_UID + user: r.totals(MONTH_NS, NOW_NS, "job", uid)
            for user in users
        ],
    )
    for by in ("user", "account"):
        asked = [lambda r, by=by: r.waste(WEEK_NS, NOW_NS, by).rows] * 5
        ask(f"waste of 7 days by {by}", WASTE_MS, asked)
    own = [
        lambda r, uid=million.FIRST_UID + user: r.waste(WEEK_NS, NOW_NS, "user", uid).rows
        for user in users
    ]
    ask("waste of 7 days, one user's", WASTE_MS, own)
    ask("the newest 100 runs", None, [lambda r: r.jobs(JobQuery())] * 5)
    ask("an account's newest 100", None, [lambda r: r.jobs(JobQuery(account="account7"))] * 5)
    ask("most energy first, of all", None, [lambda r: r.jobs(JobQuery(sort="energy"))])


def _owner(job_id: str) -> int:
    return million.FIRST_UID + million.user_of(int(job_id) - million.FIRST_JOB)


class _Asker:
    def __init__(self, path: Path, result: Result) -> None:
        self._path = path
        self._result = result

    def __call__(
        self, name: str, at_most_ms: float | None, questions: Sequence[Callable[[Any], Any]]
    ) -> None:
        """The slowest of them; each must find something."""
        times_ms = []
        for question in questions:
            reader = LedgerReader(self._path)
            begin_s = time.perf_counter()
            found = question(reader)
            times_ms.append(1000 * (time.perf_counter() - begin_s))
            reader.close()
            if not found:
                raise RuntimeError(f"{name}: nothing was found")
        times_ms.sort()
        note = f"slowest of {len(times_ms)}; median {times_ms[len(times_ms) // 2]:.2f} ms"
        self._result.add(f"ledger: {name}", times_ms[-1], "ms", at_most_ms, note)
