"""The columns of `wattledger report --export DIR --format parquet`: names, types, meanings.

python -m wattledger.audit.parquet_schema > exporters/PARQUET.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

VERSION = "1"
"""Of the columns. New ones may come at the end; what one means or is named never changes."""
PARTITIONS = (
    ("day", "UTC day in which the slot begins"),
    ("node", "`--node`; without it `$NODE_NAME`, else the host's name"),
)
SETTLEMENTS = ("booked", "partly", "settled")
NAMED = ("user", "account", "job_name")
"""Columns that only `--names` fills in."""


class Column(NamedTuple):
    """A column of the files.

    Attributes:
        name: its own.
        kind: a key of `KINDS`.
        text: what it holds.
        source: the field of a `row` record of the books' view `slots`; empty: worked out.
    """

    name: str
    kind: str
    text: str
    source: str = ""


KINDS = {
    "int64": "INT64",
    "int32": "INT32",
    "boolean": "BOOLEAN",
    "string": "BYTE_ARRAY, STRING",
    "timestamp": "INT64, TIMESTAMP(MICROS, isAdjustedToUTC)",
}


def _same(kind: str, **texts: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind, text, name) for name, text in texts.items())


def _price(prefix: str, before: str, whose: str, *, own_time: bool) -> tuple[Column, ...]:
    span = {
        "signal_from_ns": Column(
            f"{prefix}signal_from", "timestamp", "since when the signal is valid"
        ),
        "signal_to_ns": Column(f"{prefix}signal_to", "timestamp", "until when, exclusive"),
    }
    texts = (
        ("intensity_ug_per_kwh", "int64", "µgCO2e per kWh of facility energy"),
        ("zone", "string", "grid zone"),
        ("source", "string", "who told the intensity"),
        ("basis", "string", "what it counts: lifecycle, direct or generation"),
        ("estimated", "boolean", "the intensity is an estimate"),
        ("level", "int32", "0 live, 1 the last good one, 2 a table"),
        ("signal_from_ns", "", ""),
        ("signal_to_ns", "", ""),
        ("pue_ppm", "int64", "PUE in millionths"),
        ("wue_ul_per_kwh", "int64", "µL of water on site per kWh of IT energy"),
        ("ewif_ul_per_kwh", "int64", "µL of water of the grid per kWh of facility energy"),
        ("pue_source", "string", "who says the PUE"),
        ("wue_source", "string", "who says the WUE"),
        ("ewif_source", "string", "who says the EWIF"),
        ("market_ug_per_kwh", "int64", "µgCO2e per kWh by the site's contracts"),
        ("cost_u_per_kwh", "int64", "millionths of the currency per kWh of facility energy"),
        ("currency", "string", "of the cost"),
    )
    columns = []
    for name, kind, text in texts:
        if name in span:
            if own_time:
                columns.append(span[name]._replace(source=f"{before}{name}"))
        else:
            columns.append(Column(f"{prefix}{name}", kind, f"{whose}{text}", f"{before}{name}"))
    return tuple(columns)


COLUMNS: tuple[Column, ...] = (
    Column("ledger_epoch", "string", "UUID of the books; another one began again at 0"),
    Column("start", "timestamp", "where the slot begins"),
    Column("end", "timestamp", "exclusive"),
    *_same("int32", grain_s="300; 3600 where old slots were rolled up into hours"),
    *_same("int32", slots="how many slots it sums"),
    Column("day_complete", "boolean", "the books were complete to the end of the day"),
    *_same("string", device="stable name of the device"),
    Column("device_kind", "string", "gpu, cpu, dram, …", "kind"),
    Column("device_model", "string", "as the driver names it", "model"),
    *_same("string", quality="how it was measured: metered, integrated or estimated"),
    Column("payee", "string", "jobs, idle, system or unattributed", "payee"),
    Column("manager", "string", "who manages the job; NULL: it is no job's"),
    Column("job_id", "string", "the manager's id; NULL: it is no job's"),
    Column("run_start", "timestamp", "when this run of the job began; NULL: it is no job's"),
    Column(
        "run_start_ns", "int64", "the same in ns: with manager and job_id it identifies the run"
    ),
    *_same("string", user="who runs it; with `--names` only"),
    *_same("string", account="who is charged; with `--names` only"),
    *_same("string", job_name="its name; with `--names` only"),
    *_same("int64", energy_uj="µJ of IT energy"),
    *_same("int64", co2e_ug="µgCO2e as booked"),
    *_same("int64", water_onsite_ul="µL on site as booked"),
    *_same("int64", water_grid_ul="µL of the grid as booked"),
    *_same("int64", held_ms="device time held by the payee, times its share"),
    *_same("int64", held_idle_ms="of that, without any use"),
    *_same("int64", held_idle_uj="µJ of that time"),
    *_price("", "booked_", "", own_time=True),
    Column("settlement", "string", "booked: provisional; partly; settled: all that was published"),
    *_same("int64", settled_uj="of the energy, what its source has published the price of since"),
    *_same("int64", restated_uj="of the energy, what was restated"),
    Column("co2e_final_ug", "int64", "µgCO2e by what is known by now, over `final_basis`"),
    Column("water_onsite_final_ul", "int64", "µL on site by what is known by now"),
    Column("water_grid_final_ul", "int64", "µL of the grid by what is known by now"),
    *_price("final_", "final_", "by now: ", own_time=False),
    Column("settled_source", "string", "whose history settled it", "history_source"),
    Column("settled_digest", "string", "SHA-256 of that history: its version", "history_digest"),
    Column("settled_fetched", "timestamp", "when it was asked", "history_fetched_at_ns"),
)


def schema(metadata: Mapping[str, str]) -> Any:
    """The schema of a file; needs pyarrow.

    Args:
        metadata: more of the file's own.
    """
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "int32": pa.int32(),
        "boolean": pa.bool_(),
        "string": pa.string(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    fields = [pa.field(column.name, types[column.kind]) for column in COLUMNS]
    return pa.schema(fields, metadata={"wattledger.schema": VERSION, **metadata})


_HEAD = f"""\
# The Parquet export

Made by `python -m wattledger.audit.parquet_schema`; schema version {VERSION}.

```sh build
make install EXTRAS=otlp,parquet    # or: pip install '.[parquet]'
```

```sh lake
wattledger report --export /srv/wattledger --format parquet --since 46d
```

writes `day=2026-11-23/node=gpu01/part-EPOCH.parquet` under the directory: one file for each UTC
day, node and ledger epoch, zstd, one row for each entry of the books. Spans are widened to whole
days.

- **Again and again.** A day's file is replaced as a whole (written beside, then renamed), and only
  if it would change. `--since 46d` each night therefore brings all that was settled meanwhile
  (`grid.settle_window` is 45 days); after `wattledger restate` of an older time, export that time.
  The file of a day that is over is of one moment: where the books are rolled up or settled while
  it is read, it is read again, up to five times; then the command ends with an error, the days
  before it are there, and it is to be run again. An unfinished day grows while it is read.
- **A node keeps its name**, as its books keep their epoch: the same books of the same day under
  another node's name would be counted twice, and are refused. In a pod the host's name changes with
  each restart, so the DaemonSet sets `$NODE_NAME`. Was a node renamed, give it the old name with
  `--node`, or rename its directories.
- **What an export that was killed left** (`.wattledger-part-…` in the directory) is removed by the
  next one after a day.
- **Provisional days** are marked: `settlement` in each row, `day_complete` for today. With
  `--only-settled` a day is written once it is over and every µJ of it is settled. What a static
  table or a source without a history priced is never settled: leave the option out there.
- **Rolled-up hours** have `grain_s` 3600. Their sums are exact. An entry whose parts have different
  final prices has NULL in the `final_…` columns of the price; so has one that grew after it was
  settled, until it is settled again.
- **Sums** of one row fit INT64. Those of a fleet need not: 2,000 nodes at 10 kW reach 2^63 µJ in
  5 days. DuckDB sums BIGINT as HUGEINT; in Spark and Trino write
  `sum(CAST(energy_uj AS DECIMAL(38, 0)))`.
- **CO2e of different bases is not one sum**: group `co2e_ug` by `basis`, `co2e_final_ug` by
  `final_basis`.
- **Who may see it.** What `--export` writes comes from all of the books: operators only, as
  `/api/v1/audit`; users' names, accounts and jobs' names are NULL unless `--names` is given. Files
  get the permissions of the caller's umask.

```sql
SELECT sum(energy_uj) FROM read_parquet('/srv/wattledger/*/*/*.parquet', hive_partitioning = true);
SELECT day, node, sum(energy_uj) / 3.6e12 AS kwh, sum(co2e_final_ug) / 1e6 AS co2e_g
FROM read_parquet('/srv/wattledger/*/*/*.parquet', hive_partitioning = true)
WHERE final_basis = 'lifecycle' GROUP BY ALL ORDER BY ALL;
```

| column | type | meaning |
| --- | --- | --- |
"""  # noqa: S608


def document() -> str:
    """The reference, Markdown."""
    rows = [f"| `{name}` | partition | {text} |\n" for name, text in PARTITIONS]
    rows += [f"| `{c.name}` | {KINDS[c.kind]} | {c.text} |\n" for c in COLUMNS]
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(document())
