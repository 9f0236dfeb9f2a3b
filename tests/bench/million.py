"""A ledger of a million runs, made in a minute: three years of a node with eight GPUs.

The schema is the ledger's own; the rows are made by SQLite itself, in the order of their keys.
64 runs at a time, one begins every 95 s; every fourth holds half a GPU, so that all are held, and
every third of these lets it idle. The last 60 days lie in slots, what is older in hours, as the
ledger keeps them.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fakes import START_WALL_NS, FakeClock
from ledgers import PRICE, batch, key, opened
from wattledger.core.footprint import footprint
from wattledger.model import DeviceInfo, Kind
from wattledger.units import NS_PER_S, SLOT_S

RUNS = 1_000_000
EVERY_S = 95
AT_A_TIME = 64
LASTS_S = EVERY_S * AT_A_TIME
USERS = 50
ACCOUNTS = 10
GPUS = 8
HOUR_S = 3600
DAY_S = 86_400
END_S = START_WALL_NS // NS_PER_S
FIRST_S = END_S - RUNS * EVERY_S
KEPT_FROM_S = END_S - 60 * DAY_S  # slots from here on
FIRST_JOB = 1_000_000
FIRST_UID = 1000
SLOT_UJ = 30_000_000_000  # of each run and device: 100 W for 5 minutes
HELD_MS = SLOT_S * 1000 // 2


def user_of(number: int) -> int:
    """Whose the nth run is: four after each other are one user's, one of which holds a GPU."""
    return number // 4 % USERS


_NUMBER = "WITH RECURSIVE number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < ?)"
_BEGIN = f"({FIRST_S} + {EVERY_S} * n)"
_END = f"min({_BEGIN} + {LASTS_S}, {END_S})"
_FIRST_SLOT = f"({_BEGIN} / {SLOT_S} * {SLOT_S})"
_LAST_SLOT = f"(({_END} - 1) / {SLOT_S} * {SLOT_S})"
_AMOUNTS = ", ".join(f"{amount} * slots" for amount in footprint(SLOT_UJ, PRICE))
_HOLDS = f"(n % {AT_A_TIME // GPUS // 2} = 0)"
_GPU = f"'GPU-' || (n / {AT_A_TIME // GPUS // 2} % {GPUS})"
_IDLES = f"(n / {AT_A_TIME // GPUS // 2} % 3 = 0)"
# `gpu` is 1 for one: CPUs are not held.
_HELD = f"""
    {HELD_MS} * gpu * slots, {HELD_MS} * gpu * slots * {_IDLES}, {SLOT_UJ} * gpu * slots * {_IDLES}
"""
_PAYEES = f"""{_NUMBER}
INSERT INTO payee (id, kind, manager, job_id, start_ns)
SELECT :offset + n, 'jobs', 'slurm', {FIRST_JOB} + n, {_BEGIN} * {NS_PER_S} FROM number
"""
_RUNS = f"""{_NUMBER}
INSERT INTO run (payee_id, start_ns, end_ns, last_seen_ns, uid, user, labels, cgroup, inode,
                 boot_id, cpu_ns, holdings, first_booked_ns)
SELECT :offset + n, {_BEGIN} * {NS_PER_S},
       iif({_BEGIN} + {LASTS_S} > {END_S}, 0, {_END} * {NS_PER_S}),
       {_END} * {NS_PER_S}, {FIRST_UID} + n / 4 % {USERS}, 'user' || (n / 4 % {USERS}),
       json_object('account', 'account' || (n / 4 % {USERS} % {ACCOUNTS}), 'name', 'train-' || n,
                   'partition', 'gpu', 'user', 'user' || (n / 4 % {USERS})),
       printf('/system.slice/slurmstepd.scope/job_%d', {FIRST_JOB} + n), n + 1,
       '6f1c0f0e-0000-4000-8000-000000000001', 1000000 * n,
       iif({_HOLDS}, json_array(json_array({_GPU}, 500000, json('true'))), '[]'),
       {_BEGIN} * {NS_PER_S}
FROM number
"""
_TOTALS = f"""{_NUMBER}
INSERT INTO run_total
SELECT :offset + n, kind, 'lifecycle', {_AMOUNTS}, {_HELD}
FROM (SELECT n, ({_LAST_SLOT} - {_FIRST_SLOT}) / {SLOT_S} + 1 AS slots FROM number)
CROSS JOIN (SELECT 'cpu' AS kind, 0 AS gpu UNION ALL SELECT 'gpu', 1)
WHERE NOT gpu OR {_HOLDS}
"""


def _entries(table: str, column: str, grain_s: int, more: str) -> str:
    """Rows of `entry` or `entry_hour` from :since until :until, in the order of the key."""
    most = AT_A_TIME + grain_s // EVERY_S + 1
    return f"""
WITH RECURSIVE
at(s) AS (SELECT :since UNION ALL SELECT s + {grain_s} FROM at WHERE s + {grain_s} < :until),
nth(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM nth WHERE i < {most}),
place AS (
    SELECT s, device.id AS device_id, device.kind = 'gpu' AS gpu, device.name,
           (s - {LASTS_S} - {FIRST_S}) / {EVERY_S} + i AS n
    FROM at CROSS JOIN device CROSS JOIN nth
),
part AS (
    SELECT s, device_id, gpu, n,
           (min({_LAST_SLOT}, s + {grain_s - SLOT_S}) - max({_FIRST_SLOT}, s)) / {SLOT_S} + 1
           AS slots
    FROM place
    WHERE n BETWEEN 0 AND {RUNS - 1} AND (NOT gpu OR ({_HOLDS} AND name = {_GPU}))
)
INSERT INTO {table} ({column}, device_id, payee_id, quality, price_id, energy_uj, co2e_ug,
                     water_onsite_ul, water_grid_ul, held_ms, held_idle_ms, held_idle_uj{more})
SELECT s, device_id, :offset + n, 'metered', 1, {_AMOUNTS}, {_HELD}{more} FROM part WHERE slots > 0
"""


def build(path: Path) -> None:
    """Makes the ledger; the last 64 runs are running."""
    clock = FakeClock()
    ledger = opened(path, clock)
    gpus = [DeviceInfo(f"GPU-{n}", Kind.GPU, "nvml", str(n), "H100") for n in range(GPUS)]
    cpu = DeviceInfo("cpu0", Kind.CPU, "rapl", "0")
    idle = {key(END_S - SLOT_S * (n + 1), f"GPU-{n % GPUS}"): 1_000_000 for n in range(20_000)}
    ledger.commit(batch(idle, devices=(*gpus, cpu), books_ns=clock.wall_ns), clock.now())
    ledger.close()

    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -200000")
    (offset,) = connection.execute("SELECT max(id) + 1 FROM payee").fetchone()
    # Made once all rows are there, in one pass each.
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL"
    ).fetchall()
    connection.execute("BEGIN")
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    for statement in (_PAYEES, _RUNS, _TOTALS):
        connection.execute(statement.replace("?", str(RUNS - 1)), {"offset": offset})
    for table, column, grain_s, more, since, until in (
        ("entry", "slot_s", SLOT_S, "", KEPT_FROM_S, END_S),
        ("entry_hour", "hour_s", HOUR_S, ", slots", FIRST_S // HOUR_S * HOUR_S, KEPT_FROM_S),
    ):
        span = {"offset": offset, "since": since, "until": until}
        connection.execute(_entries(table, column, grain_s, more), span)
    for _, sql in indexes:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
