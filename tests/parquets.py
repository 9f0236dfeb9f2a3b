"""A ledger, its Parquet export, and DuckDB that reads it as its users do."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from fakes import START_WALL_NS
from ledgers import PRICE, batch, key
from restating import NOW_NS, Node, noded, settlement
from wattledger.audit.parquet_export import export_parquet
from wattledger.config import Config
from wattledger.config.settings import LedgerSettings
from wattledger.ledger import LedgerReader
from wattledger.model.jobs import Held, JobRun, job_payee
from wattledger.remote import Remote
from wattledger.setting import FilePath
from wattledger.units import NS_PER_S
from wattledger_exporters.http.settle_api import audit_json, audit_query

HOUR, DAY = 3600, 86_400
DAY_S = START_WALL_NS // NS_PER_S // DAY * DAY
RUN = JobRun(
    payee=job_payee("slurm", "42", START_WALL_NS + 7),
    uid=1000,
    labels={"user": "ada", "account": "physics", "name": "train"},
    last_seen_ns=START_WALL_NS,
)


class Pages(Remote):
    """A daemon that answers of a ledger, so many records at a time."""

    def __init__(self, path: Path, most: int = 20) -> None:
        self.path, self.most = path, most

    def request(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        method: str = "GET",
        timeout_s: float | None = None,
    ) -> Any:
        asked = audit_query(query or {}, NOW_NS)
        with closing(LedgerReader(self.path)) as reader:
            records, after = reader.audit(*asked, self.most)
            self.read()
            return audit_json(records, asked, after)

    def read(self) -> None:
        """A page was read."""


def export(
    remote: Pages,
    lake: Path,
    *,
    since: str = "",
    until: str = "",
    node: str = "gpu01",
    only_settled: bool = False,
    names: bool = False,
) -> dict[Path, bytes]:
    """What lies in the directory then: all of it, hidden files too."""
    options = argparse.Namespace(
        export=lake, since=since, until=until, node=node, only_settled=only_settled, names=names
    )
    config = replace(Config(), ledger=LedgerSettings(path=FilePath(str(remote.path))))
    assert export_parquet(options, lambda: config, remote) == 0
    return content(lake)


def content(lake: Path) -> dict[Path, bytes]:
    found = (path for path in lake.rglob("*") if path.is_file())
    return {path.relative_to(lake): path.read_bytes() for path in found}


def ask(lake: Path, sql: str) -> list[tuple[Any, ...]]:
    """`lake` is the table."""
    table = f"read_parquet('{lake}/*/*/*.parquet', hive_partitioning=true)"
    with duckdb.connect() as connection:
        return connection.execute(f"WITH lake AS (FROM {table}) {sql}").fetchall()


@contextmanager
def two_days(tmp_path: Path) -> Iterator[Node]:
    """Two days of an idle GPU and one that a job holds; the books are complete to their end."""
    with noded(tmp_path / "ledger.sqlite") as made:
        made.clock.advance(3 * DAY)
        slots = range(DAY_S, DAY_S + 2 * DAY, HOUR)
        energy = {key(at): 10**9 + at for at in slots}
        held = {key(at, payee=RUN.payee): Held(300_000, 60_000, 4) for at in slots}
        of_run = dict.fromkeys(held, 10**10)
        made.ledger.commit(
            batch(energy | of_run, runs=(RUN,), held=held, books_ns=(DAY_S + 2 * DAY) * NS_PER_S),
            made.clock.now(),
        )
        yield made


def settle_day(node: Node, number: int) -> None:
    settle(node, *range(DAY_S + number * DAY, DAY_S + (number + 1) * DAY, HOUR))


def settle(node: Node, *slots_s: int) -> None:
    """At the day's number; how far the books are complete stays."""
    settlements = tuple(settlement(at, PRICE, 100 + (at - DAY_S) // DAY) for at in slots_s)
    done = batch(settlements=settlements, books_ns=node.ledger.books.books_ns)
    node.ledger.commit(done, node.clock.now())
