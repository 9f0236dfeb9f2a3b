"""The Parquet export, read by DuckDB as its users do: its sums are the ledger's own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import CPU, GPU, PRICE, batch, key, opened
from restating import NOW_NS, Node, noded, restatement, settlement
from wattledger.audit.parquet_export import INSTALL, ROW_GROUP, export_parquet
from wattledger.audit.parquet_schema import COLUMNS, NAMED, PARTITIONS, VERSION, document
from wattledger.cli import main
from wattledger.config import Config
from wattledger.config.settings import LedgerSettings
from wattledger.errors import ConfigError, LedgerError
from wattledger.ledger import LedgerReader
from wattledger.model import IDLE, Basis, EntryKey
from wattledger.model.jobs import Held, JobRun, job_payee
from wattledger.model.settling import sum_of_settled
from wattledger.remote import Remote
from wattledger.setting import FilePath
from wattledger.units import NS_PER_S, SLOT_S
from wattledger_exporters.http.settle_api import audit_json, audit_query

HOUR, DAY = 3600, 86_400
DAY_S = START_WALL_NS // NS_PER_S // DAY * DAY
RUN = JobRun(
    payee=job_payee("slurm", "42", START_WALL_NS + 7),
    uid=1000,
    labels={"user": "ada", "account": "physics", "name": "train"},
    last_seen_ns=START_WALL_NS,
)
OTHER = PRICE._replace(intensity_ug_per_kwh=987_654_321, basis=Basis.DIRECT)


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


SUMS = """
SELECT sum(energy_uj), sum(co2e_ug), sum(water_onsite_ul), sum(water_grid_ul), sum(settled_uj),
       sum(co2e_final_ug) - sum(co2e_ug), sum(water_grid_final_ul) - sum(water_grid_ul),
       sum(water_onsite_final_ul) - sum(water_onsite_ul), sum(restated_uj)
FROM lake
"""


def sums_of(node: Node) -> tuple[int, ...]:
    """The same of the ledger's own sums, which stay whatever is rolled up."""
    cells = [total.amounts for total in node.ledger.books.totals.values()]
    amounts = [sum(column) for column in zip(*cells, strict=True)]
    settled = sum_of_settled(node.ledger.books.settled)
    return (
        *amounts, settled.energy_uj, settled.co2e_ug, settled.water_grid_ul,
        settled.water_onsite_ul, settled.restated_uj,
    )  # fmt: skip


bookings = st.dictionaries(
    st.builds(
        lambda day, slot, device, payee, price: key(
            DAY_S + day * DAY + slot * SLOT_S, device, payee, price=price
        ),
        st.integers(0, 2),
        st.sampled_from([0, 1, 11, 12, 287]),
        st.sampled_from([GPU.name, CPU.name]),
        st.sampled_from([IDLE, RUN.payee]),
        st.sampled_from([PRICE, OTHER]),
    ),
    st.integers(1, 10**13),
    min_size=1,
    max_size=30,
)


@settings(
    max_examples=20,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    energy_uj=bookings,
    settled=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 11]), st.integers(1, 900))
    ),
    rolled_days=st.integers(0, 2),
    restated_h=st.integers(1, 60),
    most=st.sampled_from([1, 7, 2000]),
)
def test_its_sums_are_the_ledgers(
    tmp_path_factory: pytest.TempPathFactory,
    energy_uj: dict[EntryKey, int],
    settled: list[tuple[int, int, int]],
    rolled_days: int,
    restated_h: int,
    most: int,
) -> None:
    home = tmp_path_factory.mktemp("parquet")
    with noded(home / "ledger.sqlite") as node:
        node.clock.advance(4 * DAY)
        node.ledger.commit(batch(energy_uj, runs=(RUN,)), node.clock.now())
        for day, slot, grams in settled:
            node.settle(settlement(DAY_S + day * DAY + slot * SLOT_S, PRICE, grams))
        node.roll_up(DAY_S + rolled_days * DAY)
        node.say(restatement(-24, restated_h, pue_ppm=1_900_000, wue_ul_per_kwh=0))
        node.apply()
        files = export(Pages(home / "ledger.sqlite", most), home / "lake")
        assert ask(home / "lake", SUMS) == [sums_of(node)]
        by_basis: dict[str, int] = {}
        for cell, total in node.ledger.books.totals.items():
            uj = total.amounts.co2e_ug
            by_basis[cell.basis.value] = by_basis.get(cell.basis.value, 0) + uj
        asked = "SELECT basis, sum(co2e_ug) FROM lake GROUP BY ALL"
        assert dict(ask(home / "lake", asked)) == by_basis
    assert len(files) == len({one.slot_s // DAY for one in energy_uj})


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
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


def test_a_second_export_changes_nothing_and_a_settled_day_is_replaced(
    node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = tmp_path / "lake"
    first = export(Pages(node.path), lake)
    stamps = {path: (lake / path).stat() for path in first}
    assert export(Pages(node.path, 2000), lake) == first, "whatever the pages were"
    assert {path: (lake / path).stat().st_mtime_ns for path in first} == {
        path: stat.st_mtime_ns for path, stat in stamps.items()
    }
    assert "0 days written, 2 unchanged; 96 rows of gpu01" in capsys.readouterr().out
    settle_day(node, 1)
    then = export(Pages(node.path), lake)
    one, two = sorted(first)
    assert then.keys() == first.keys() and then[one] == first[one] and then[two] != first[two]
    assert ask(lake, "SELECT day::text, settlement, sum(settled_uj) = sum(energy_uj) FROM lake "
                     "GROUP BY ALL ORDER BY ALL") == [
        (one.parts[0].removeprefix("day="), "booked", False),
        (two.parts[0].removeprefix("day="), "settled", True),
    ]  # fmt: skip


def test_only_settled_days_are_written_where_that_is_asked(node: Node, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    assert export(Pages(node.path), lake, only_settled=True) == {}
    settle_day(node, 0)
    (path,) = export(Pages(node.path), lake, only_settled=True)
    assert ask(lake, "SELECT DISTINCT day_complete, settlement FROM lake") == [(True, "settled")]
    assert path.parts[1:] == ("node=gpu01", f"part-{node.ledger.books.epoch}.parquet")
    later = key(DAY_S + 2 * DAY)
    node.ledger.commit(
        batch({later: 5}, books_ns=(later.slot_s + 300) * NS_PER_S), FakeClock().now()
    )
    settle(node, later.slot_s)
    assert len(export(Pages(node.path), lake, only_settled=True)) == 1, "that day is not over"
    assert len(export(Pages(node.path), lake)) == 3
    assert ask(lake, "SELECT DISTINCT day_complete FROM lake ORDER BY ALL") == [(False,), (True,)]


def test_spans_are_widened_to_whole_days_so_that_no_day_is_cut(node: Node, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    noon = str(DAY_S + DAY // 2)
    (path,) = export(Pages(node.path), lake, since=noon, until=str(DAY_S + DAY // 2 + 1))
    assert ask(lake, "SELECT count(*), min(epoch(start))::bigint FROM lake") == [(48, DAY_S)]
    assert set(export(Pages(node.path), lake, since=str(DAY_S + DAY))) > {path}


def test_each_slot_says_whose_it_is_and_what_priced_it_then_and_now(
    node: Node, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    settle_day(node, 0)
    node.say(restatement(-24, None, pue_ppm=1_500_000))
    node.apply()
    export(Pages(node.path), lake, node="rack-1.gpu_7")
    query = (
        "SELECT DISTINCT node, device, device_kind, manager, job_id, run_start_ns, held_idle_ms, "
        "zone, final_zone, intensity_ug_per_kwh, final_intensity_ug_per_kwh, pue_ppm, "
        "final_pue_ppm, final_pue_source, settled_source, settled_digest, date_diff('second', "
        "start, \"end\"), user FROM lake WHERE payee = 'jobs' AND settled_uj > 0"
    )
    assert ask(lake, query) == [(
        "rack-1.gpu_7", GPU.name, "gpu", "slurm", "42", START_WALL_NS + 7, 60_000,
        PRICE.zone, "GB", PRICE.intensity_ug_per_kwh, 100_000_000, PRICE.pue_ppm,
        1_500_000, "restated", "neso", "100", 300, None,
    )]  # fmt: skip
    query = (
        "SELECT DISTINCT manager, job_id, run_start, run_start_ns FROM lake WHERE payee = 'idle'"
    )
    assert ask(lake, query) == [(None,) * 4]
    named = export(Pages(node.path), tmp_path / "named", names=True)
    assert len(named) == 2
    asked = "SELECT DISTINCT user, account, job_name FROM lake WHERE payee = 'jobs'"
    assert ask(tmp_path / "named", asked) == [("ada", "physics", "train")]
    plain = b"".join(content(lake).values())
    assert b"physics" not in plain and b"train" not in plain


def test_a_rolled_up_hour_of_several_prices_keeps_its_sums_and_names_none(
    node: Node, tmp_path: Path
) -> None:
    start_s = DAY_S + 2 * DAY
    node.book({key(start_s + n * SLOT_S): 10**9 for n in range(12)})
    node.settle(*(settlement(start_s + n * SLOT_S, PRICE, n // 6 + 1) for n in range(12)))
    node.book({key(start_s + HOUR + n * SLOT_S): 10**9 for n in range(12)})
    node.settle(*(settlement(start_s + HOUR + n * SLOT_S, PRICE, 3) for n in range(12)))
    node.roll_up(start_s + 2 * HOUR)
    export(Pages(node.path), tmp_path / "lake", since=str(start_s))
    asked = "SELECT slots, grain_s, settlement, final_intensity_ug_per_kwh FROM lake ORDER BY start"
    assert ask(tmp_path / "lake", asked) == [
        (12, 3600, "settled", None),
        (12, 3600, "settled", 3_000_000),
    ]


def test_types_are_those_of_the_document(node: Node, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    first, *_ = export(Pages(node.path), lake)
    file = pq.ParquetFile(lake / first)
    assert file.schema_arrow.names == [column.name for column in COLUMNS]
    arrow = {"int64": pa.int64(), "int32": pa.int32(), "boolean": pa.bool_(), "string": pa.string(),
             "timestamp": pa.timestamp("us", tz="UTC")}  # fmt: skip
    for column, field in zip(COLUMNS, file.schema_arrow, strict=True):
        assert field.type == arrow[column.kind], column.name
        assert column.name not in dict(PARTITIONS)
        logical = str(file.schema.column(file.schema_arrow.names.index(column.name)).logical_type)
        if column.kind == "timestamp":
            assert "isAdjustedToUTC=true, timeUnit=microseconds" in logical
    assert {*NAMED} <= {column.name for column in COLUMNS}
    assert file.schema_arrow.metadata[b"wattledger.schema"] == VERSION.encode()
    assert ask(lake, "SELECT typeof(day), typeof(node) FROM lake LIMIT 1") == [("DATE", "VARCHAR")]


def test_the_columns_of_this_version_stay() -> None:
    """Files of many nodes and months are read as one table. New columns: append, and here too."""
    named = " ".join(f"{column.name}:{column.kind}" for column in COLUMNS)
    assert (VERSION, named.split()) == ("1", STABLE.split())


def test_the_document_is_the_codes() -> None:
    text = (Path(__file__).parents[2] / "exporters" / "PARQUET.md").read_text()
    assert text == document(), "python -m wattledger.audit.parquet_schema > exporters/PARQUET.md"


def test_other_books_are_files_beside_and_what_was_exported_stays(
    node: Node, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    first = export(Pages(node.path), lake)
    with noded(tmp_path / "new.sqlite") as other:
        other.book({key(DAY_S + DAY): 17})
        then = export(Pages(other.path), lake)
    assert {path: then[path] for path in first} == first and len(then) == 3
    assert ask(lake, "SELECT count(DISTINCT ledger_epoch) FROM lake") == [(2,)]


def test_books_that_are_settled_in_the_middle_of_a_day_leave_what_was_there(
    node: Node, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    first = export(Pages(node.path), lake)

    class Settling(Pages):
        def read(self) -> None:
            node.settle(settlement(DAY_S, PRICE, node.ledger.books.commits))

    with pytest.raises(LedgerError, match="settled since"):
        export(Settling(node.path), lake)
    assert content(lake) == first, "no half of a day, and nothing beside"


def test_large_days_are_written_in_groups_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    payees = [job_payee("slurm", str(n), START_WALL_NS) for n in range(ROW_GROUP // 200)]
    with closing(opened(path)) as ledger:
        energy = {
            key(DAY_S + n * SLOT_S, payee=payee): 1 + n for n in range(201) for payee in payees
        }
        ledger.commit(batch(energy), FakeClock().now())
    where = ["--ledger", str(path), "--socket", str(tmp_path / "none")]
    asked = ["--format", "parquet", "--node", "gpu01", *where]
    assert main(["report", "--export", str(tmp_path / "lake"), *asked]) == 0
    (found,) = (tmp_path / "lake").rglob("*.parquet")
    groups = pq.ParquetFile(found).metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [ROW_GROUP, 150]
    assert ask(tmp_path / "lake", "SELECT sum(energy_uj) FROM lake") == [(sum(energy.values()),)]


@pytest.mark.parametrize("name", ["a/b", "..", "node=1", "ü", "-x", """ ' """])
def test_a_node_that_makes_no_directory_is_refused(node: Node, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="makes no directory"):
        export(Pages(node.path), tmp_path / "lake", node=name)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--format", "parquet"], "--format: parquet goes with --export"),
        (["--format", "parquet", "--export", "-"], "--format: parquet goes with --export"),
        (["--names"], "--names: goes with --export and --format parquet"),
        (["--export", "x", "--only-settled"], "--only-settled: goes with"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *arguments]) == 2
    assert capsys.readouterr().err.startswith(told)


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from wattledger.cli import main\n"
        f"sys.exit(main(['report', '--export', {str(tmp_path)!r}, '--format', 'parquet']))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 1
    assert INSTALL in ended.stderr and "Traceback" not in ended.stderr


STABLE = """
ledger_epoch:string start:timestamp end:timestamp grain_s:int32 slots:int32 day_complete:boolean
device:string device_kind:string device_model:string quality:string payee:string manager:string
job_id:string run_start:timestamp run_start_ns:int64 user:string account:string job_name:string
energy_uj:int64 co2e_ug:int64 water_onsite_ul:int64 water_grid_ul:int64 held_ms:int64
held_idle_ms:int64 held_idle_uj:int64 intensity_ug_per_kwh:int64 zone:string source:string
basis:string estimated:boolean level:int32 signal_from:timestamp signal_to:timestamp
pue_ppm:int64 wue_ul_per_kwh:int64 ewif_ul_per_kwh:int64 pue_source:string wue_source:string
ewif_source:string market_ug_per_kwh:int64 cost_u_per_kwh:int64 currency:string
settlement:string settled_uj:int64 restated_uj:int64 co2e_final_ug:int64
water_onsite_final_ul:int64 water_grid_final_ul:int64 final_intensity_ug_per_kwh:int64
final_zone:string final_source:string final_basis:string final_estimated:boolean
final_level:int32 final_pue_ppm:int64 final_wue_ul_per_kwh:int64 final_ewif_ul_per_kwh:int64
final_pue_source:string final_wue_source:string final_ewif_source:string
final_market_ug_per_kwh:int64 final_cost_u_per_kwh:int64 final_currency:string
settled_source:string settled_digest:string settled_fetched:timestamp
"""
