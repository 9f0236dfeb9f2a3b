"""`wattledger report --export FILE`: the books as JSON lines that anybody can recompute.

{"record": "ledger", …}      what the figures are, and the formulas
{"record": "entry", …}       energy of a slot (or of an hour of n slots), its amounts, its price
{"record": "settlement", …}  how much of an entry was settled or restated, and what that changes
{"record": "history", …}     which version of a source's history a settlement used, and when
{"record": "restatement", …} what somebody says of a span of the past, who, when and why
{"record": "price", …}       intensity, PUE, WUE and EWIF, where they came from
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain
from typing import Any, TextIO

from wattledger import build
from wattledger.config import Config
from wattledger.errors import ConfigError, DaemonUnreachable, WattledgerError
from wattledger.ledger import open_reader_offline
from wattledger.remote import Remote
from wattledger.units import PPM, UJ_PER_KWH
from wattledger_exporters.http.query import BadRequest
from wattledger_exporters.http.settle_api import (
    AUDIT_PATH,
    MAX_RECORDS,
    audit_json,
    audit_query,
)

HEAD = {
    "record": "ledger",
    "format": 1,
    "units": "_uj µJ, _ug µg, _ul µL, _ns ns since 1970, _ppm millionths, _s Unix seconds",
    "co2e_ug": f"floor(energy_uj * pue_ppm * intensity_ug_per_kwh / {UJ_PER_KWH * PPM})",
    "water_onsite_ul": f"floor(energy_uj * wue_ul_per_kwh / {UJ_PER_KWH})",
    "water_grid_ul": f"floor(energy_uj * pue_ppm * ewif_ul_per_kwh / {UJ_PER_KWH * PPM})",
    "settled_price_id": "what was published since; price_id where settled_uj is 0",
    "final_price_id": "settled_price_id with the factors that the last restatements of the time "
    "name",
    "co2e_diff_ug": "that of the settlement's energy at final_price_id less that at price_id; so "
    "are water_grid_diff_ul and water_onsite_diff_ul",
    "co2e_taken_ug": "where the final basis is another one: what the booked basis gives up",
    "hours": "an entry of n slots sums n floors, and so does its settlement",
}
Page = Callable[[Mapping[str, str]], Mapping[str, Any]]


def export(options: argparse.Namespace, config: Callable[[], Config], remote: Remote) -> int:
    """Writes the file, whole or not at all.

    Raises:
        ConfigError: an option that cannot be.
        WattledgerError: the file cannot be written.
        LedgerError: no daemon runs, and its ledger cannot be read either.
    """
    asked = {name: getattr(options, name) for name in ("since", "until") if getattr(options, name)}
    if str(options.export) == "-":
        _write(asked, config, remote, sys.stdout)
        return 0
    part = options.export.with_name(f"{options.export.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            count = _write(asked, config, remote, file)
        part.replace(options.export)
    except OSError as error:
        raise WattledgerError(f"{options.export} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    sys.stdout.write(f"{options.export}: {count} records\n")
    return 0


def _write(
    asked: Mapping[str, str], config: Callable[[], Config], remote: Remote, file: TextIO
) -> int:
    count = 0
    for record in chain([HEAD], read_records(asked, config, remote)):
        file.write(json.dumps(record) + "\n")
        count += 1
    return count


def read_records(
    asked: Mapping[str, str], config: Callable[[], Config], remote: Remote
) -> Generator[Mapping[str, Any], None, None]:
    """Of the daemon; from where it ends in the middle on, of its ledger: a cursor knows its books.

    Args:
        asked: parameters of `/api/v1/audit`.
        config: of the ledger.
        remote: the daemon.

    Raises:
        ConfigError: an option that cannot be.
        WattledgerError: there are other books behind the cursor by now, or none.
    """
    try:
        for answer in _pages(lambda query: _object(remote.request(AUDIT_PATH, query)), asked):
            yield from answer["records"]
            asked = {"cursor": answer["next_cursor"]}
    except DaemonUnreachable:
        yield from _records_here(asked, config())


def _records_here(asked: Mapping[str, str], config: Config) -> Iterator[Mapping[str, Any]]:
    reader = open_reader_offline(build.ledger_path(config))
    now_ns = time.time_ns()

    def page(given: Mapping[str, str]) -> Mapping[str, Any]:
        query = audit_query(given, now_ns)
        records, after = reader.audit(*query, MAX_RECORDS)
        return audit_json(records, query, after)

    try:
        for answer in _pages(page, asked):
            yield from answer["records"]
    except BadRequest as error:
        raise ConfigError([("report", str(error))]) from error
    finally:
        reader.close()


def _pages(page: Page, asked: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    while True:
        answer = page(asked)
        yield answer
        if answer["next_cursor"] is None:
            return
        asked = {"cursor": answer["next_cursor"]}


def _object(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return answer
