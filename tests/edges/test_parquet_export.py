"""The Parquet export's files: which days, what they say, when they are replaced, who is named."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from documents import chosen, commands
from fakes import START_WALL_NS, FakeClock
from ledgers import GPU, PRICE, batch, key, opened
from parquets import DAY, DAY_S, HOUR, Pages, ask, content, export, settle, settle_day, two_days
from restating import Node, noded, restatement, settlement
from served_books import books_daemon
from serving import serving
from wattledger.audit.parquet_export import INSTALL, ROW_GROUP
from wattledger.audit.parquet_schema import COLUMNS, NAMED, PARTITIONS, VERSION, document
from wattledger.cli import main
from wattledger.errors import ConfigError, LedgerError
from wattledger.model.jobs import job_payee
from wattledger.units import NS_PER_S, SLOT_S


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with two_days(tmp_path) as made:
        yield made


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


def test_the_documents_queries_are_answered(node: Node, tmp_path: Path) -> None:
    settle_day(node, 1)
    export(Pages(node.path), tmp_path / "lake")
    (block,) = chosen("sql")
    queries = [query for query in block.text.split(";") if query.strip()]
    assert len(queries) == 2
    for query in queries:
        assert "'/srv/wattledger/" in query
        with duckdb.connect() as connection:
            said = connection.execute(query.replace("/srv/wattledger", f"{tmp_path}/lake"))
            assert all(value is not None for value in said.fetchall()[0]), query


def test_the_documents_export_is_one(
    node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = chosen("sh lake")
    (command,) = commands(block)
    name, *words = command.typed.replace("/srv/wattledger", str(tmp_path / "lake")).split()
    assert name == "wattledger"
    node.ledger.close()
    assert main([*words, "--ledger", str(node.path), "--socket", str(tmp_path / "none")]) == 0
    assert "days written" in capsys.readouterr().out


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


def test_a_running_daemon_is_asked_over_its_socket(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as short,
        books_daemon(tmp_path / "ledger.sqlite") as daemon,
        serving(Path(short) / "s", daemon=daemon),
    ):
        asked = ["--format", "parquet", "--names", "--socket", f"{short}/s"]
        assert main(["report", "--export", str(tmp_path / "lake"), *asked]) == 0
        by_user = {
            row.group: row.amounts.energy_uj for row in daemon.reader.totals(0, 2**62, "user")
        }
    query = "SELECT user, sum(energy_uj) FROM lake WHERE payee = 'jobs' GROUP BY ALL"
    found = ask(tmp_path / "lake", query)
    assert len(found) == 2 and dict(found) == {name: by_user[name] for name, _ in found}
    assert len(ask(tmp_path / "lake", "SELECT DISTINCT node FROM lake")) == 1


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
    assert "make deb EXTRAS=otlp,parquet" in INSTALL
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
