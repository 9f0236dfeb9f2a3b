"""Each kind of source × each hostile reply: the metric, the label, the ledger row that result."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import grid_server as play
import ledgers
import snapshots
from fakes import FakeClock
from grid_cases import (
    ASKED,
    CANARY,
    CASES,
    NO_ECHO,
    TRANSPORT,
    VALUES,
    Case,
    fed,
)
from grid_server import GridServer
from wattledger.core.footprint import footprint, price_of
from wattledger.grid.feed import Feed
from wattledger.grid.kinds import KINDS
from wattledger.model import Basis, FallbackLevel
from wattledger.units import NS_PER_S, UJ_PER_KWH, slot_of
from wattledger_exporters.prometheus import Renderer

DAY_S = 86_400
DRIP_S = 0.5
TABLE = ("WORLD", "table", "lifecycle", 1, 2)
MIXES = ("entsoe", "eia")


def page_of(grid: Feed, clock: FakeClock) -> str:
    shown = snapshots.snapshot(grid=grid.at(clock.wall_ns), sources=grid.statuses())
    return Renderer().render(shown, 1, process=False).text.decode()


class Row(NamedTuple):
    """What a slot was booked with: who says it, how sure, and what came of a kWh."""

    who: tuple[Any, ...]
    grams: float
    co2e_ug: int


def booked(home: Path, grid: Feed, clock: FakeClock) -> Row:
    """The row of the ledger that 1 kWh at this time is booked with."""
    price = price_of(grid.at(clock.wall_ns), snapshots.snapshot().site)
    path = home / f"{clock.wall_ns}.sqlite"
    ledger = ledgers.opened(path, clock)
    entry = ledgers.key(slot_of(clock.wall_ns), price=price)
    ledger.commit(ledgers.batch({entry: UJ_PER_KWH}), clock.now())
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        [row] = connection.execute(
            "SELECT zone, source, basis, estimated, level, intensity_ug_per_kwh, co2e_ug "
            "FROM price JOIN entry ON entry.price_id = price.id"
        ).fetchall()
    assert row[-1] == footprint(UJ_PER_KWH, price).co2e_ug
    return Row(tuple(row[:5]), row[5] / 10**6, row[6])


def seen(case: Case, grid: Feed, clock: FakeClock, home: Path, level: int) -> Row:
    """The page, held to the ledger's row: both say the same, at this level."""
    page, row = page_of(grid, clock), booked(home, grid, clock)
    zone, source, basis, estimated, at_level = row.who
    assert at_level == level
    assert f"wattledger_grid_fallback_level {level}.0" in page
    labels = (
        f'basis="{basis}",estimated="{"true" if estimated else "false"}",'
        f'grid_zone="{zone}",source="{source}"'
    )
    assert f"grams_per_kwh{{{labels}}} {row.grams}" in page
    for outcome, count in grid.statuses()[0].outcomes.items():
        counted = f'requests_total{{outcome="{outcome}",source="{case.kind}"}} {count}.0'
        assert counted in page
    fallbacks = float(level == FallbackLevel.TABLE and case.basis is not Basis.LIFECYCLE)
    assert f'basis_fallbacks_total{{source="{case.kind}"}} {fallbacks}' in page
    assert CANARY not in page and CANARY not in f"{grid.statuses()}"
    return row


def of_source(case: Case, row: Row, *, estimated: bool, level: int, grams: float) -> None:
    who = (case.zone, case.kind, str(case.basis), int(estimated), level)
    assert (row.who, row.grams) == (who, grams)


# ── what it answers when all is well ────────────────────────────────────────────────────────────


class Provider:
    """What a source asks: a server, or for csv a file."""

    def __init__(self, case: Case, server: GridServer, home: Path) -> None:
        self.case, self.server = case, server
        self.path = home / "intensities.csv"
        self.where = str(self.path) if case.kind == "csv" else server.url

    def says(self, body: bytes) -> None:
        self.path.write_bytes(body)
        self.server.script = play.reply(body=body)


@pytest.fixture
def provide(tmp_path: Path):  # type: ignore[no-untyped-def]
    with GridServer(play.reply(503)) as server:
        yield lambda case: Provider(case, server, tmp_path)


EVERY = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_kind_is_here() -> None:
    # watttime never prices the books and has tests of its own below; a relay speaks for the others.
    assert {case.kind for case in CASES} == KINDS.keys() - {"watttime", "wattledger"}
    echoing = {str(case) for case in CASES if case.elsewhere is not None}
    assert echoing | NO_ECHO.keys() == {str(case) for case in CASES}
    assert not echoing & NO_ECHO.keys()


@EVERY
def test_an_outage_goes_from_live_over_the_last_good_to_the_table_and_back(
    case: Case, provide: Callable[[Case], Provider], tmp_path: Path
) -> None:
    provider = provide(case)
    provider.says(case.body(case.good))
    grid, clock = fed(case, provider.where, tmp_path)
    grid.poll_once()
    assert grid.statuses()[0].outcomes == {"ok": 1}
    first = seen(case, grid, clock, tmp_path, FallbackLevel.LIVE)
    of_source(case, first, estimated=case.estimated, level=0, grams=case.grams)

    provider.server.script = play.reply(503)
    provider.path.unlink()
    signal = grid.at(clock.wall_ns).signal
    clock.advance((signal.valid_to_ns - clock.wall_ns) / NS_PER_S + 1)
    row = seen(case, grid, clock, tmp_path, FallbackLevel.LIVE)
    of_source(case, row, estimated=True, level=0, grams=case.grams)

    clock.advance(2 * signal.cadence_ns / NS_PER_S)
    grid.poll_once()
    lost = "no_data" if case.kind == "csv" else "http_5xx"
    assert grid.statuses()[0].outcomes == {"ok": 1, lost: 1}
    row = seen(case, grid, clock, tmp_path, FallbackLevel.LAST_GOOD)
    of_source(case, row, estimated=True, level=1, grams=case.grams)

    clock.advance(7 * 3600)
    grid.poll_once()
    assert seen(case, grid, clock, tmp_path, FallbackLevel.TABLE).who == TABLE
    then_ns = signal.valid_from_ns
    assert grid.at(then_ns).signal == signal, "what was known of then is known still"


@EVERY
def test_a_revised_value_prices_what_comes_and_not_what_was(
    case: Case, provide: Callable[[Case], Provider], tmp_path: Path
) -> None:
    provider = provide(case)
    provider.says(case.body(case.good))
    grid, clock = fed(case, provider.where, tmp_path)
    grid.poll_once()
    before = seen(case, grid, clock, tmp_path, FallbackLevel.LIVE)
    revised, grams = case.revised or (None, case.grams / 2)
    value = case.good if case.revised else str(grams)
    provider.says(case.body(value, revised))
    [asked] = grid._asked
    asked.due_ns = 0
    asked.ask()
    grid._publish()
    clock.advance(1)
    after = seen(case, grid, clock, tmp_path, FallbackLevel.LIVE)
    assert grid.statuses()[0].outcomes == {"ok": 2}
    assert (before.grams, after.grams) == (case.grams, grams)
    assert after.who == before.who


# ── what else may be answered, whatever the kind ────────────────────────────────────────────────


@pytest.mark.parametrize("case", ASKED, ids=str)  # a file has no connection; see `FILES`
@pytest.mark.parametrize("fault", TRANSPORT)
def test_a_connection_that_fails(case: Case, fault: str, tmp_path: Path) -> None:
    script, outcome = TRANSPORT[fault]
    with GridServer(script()) as server:
        slow = outcome == "timeout"
        grid, clock = fed(case, server.url, tmp_path, deadline_s=DRIP_S if slow else 10.0)
        grid.poll_once()
        assert len(server.requests) == 1, "once, and no redirect is followed"
    nothing_prices(case, grid, clock, tmp_path, outcome)


def nothing_prices(case: Case, grid: Feed, clock: FakeClock, home: Path, outcome: str) -> None:
    """It is counted as this, told with a remedy, and the table prices."""
    [status] = grid.statuses()
    assert status.outcomes == {outcome: 1}
    assert status.message and status.hint
    assert seen(case, grid, clock, home, FallbackLevel.TABLE).who == TABLE


@pytest.mark.parametrize("case", ASKED, ids=str)
def test_a_provider_on_ipv6_only_from_a_node_that_does_not_reach_it(
    case: Case, tmp_path: Path
) -> None:
    with socket.socket() as taken:  # a port at which nobody listens, on IPv6 or at all
        taken.bind(("127.0.0.1", 0))
        url = f"http://[::1]:{taken.getsockname()[1]}"
        grid, clock = fed(case, url, tmp_path)
        grid.poll_once()
    nothing_prices(case, grid, clock, tmp_path, "connect_error")


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 on loopback to listen at")
@pytest.mark.parametrize("case", ASKED, ids=str)
def test_a_provider_on_ipv6_only(case: Case, tmp_path: Path) -> None:
    with GridServer(play.reply(body=case.body(case.good)), host="::1") as server:
        grid, clock = fed(case, server.url, tmp_path)
        grid.poll_once()
    row = seen(case, grid, clock, tmp_path, FallbackLevel.LIVE)
    of_source(case, row, estimated=case.estimated, level=0, grams=case.grams)


def _too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(17 * 1024 * 1024)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no_data"),
    "no-file": (Path.mkdir, "no_data"),
    "a-pipe-nobody-writes": (os.mkfifo, "no_data"),
    "too-large": (_too_large, "no_data"),
    "empty": (Path.touch, "bad_value"),
    "not-text": (lambda path: path.write_bytes(b"\xff\xfe\0\0"), "no_data"),
    "other-columns": (lambda path: path.write_text("a,b\n1,2\n"), "bad_value"),
    "no-rows": (lambda path: path.write_text("start,end,value\n"), "no_data"),
}
CSV = next(case for case in CASES if case.kind == "csv")


@pytest.mark.parametrize("fault", FILES)
def test_a_file_that_is_none(fault: str, tmp_path: Path) -> None:
    make, outcome = FILES[fault]
    make(tmp_path / "spoilt.csv")
    grid, clock = fed(CSV, str(tmp_path / "spoilt.csv"), tmp_path)
    grid.poll_once()
    nothing_prices(CSV, grid, clock, tmp_path, outcome)


# ── what is wrong with what it says ─────────────────────────────────────────────────────────────

TEXTS = ("entsoe", "csv", "prometheus")
"""Their values are texts of numbers, so that what is none is no number rather than no JSON."""


def outcome_of_value(case: Case, fault: str) -> str:
    """What a value is refused as; what differs between kinds differs for a reason."""
    if fault == "null" and case.kind not in (*TEXTS, "carbon_aware"):
        return "no_data"  # so they say "not known"; Carbon Aware SDK's schema has no null
    if fault == "-1" and case.kind in MIXES:
        return "no_data"  # a plant may use more than it makes: it makes nothing
    if fault in ("NaN", "1e999", "text") and case.kind not in TEXTS:
        return "bad_json"
    return "bad_value"


@EVERY
@pytest.mark.parametrize("fault", VALUES)
def test_a_value_that_is_none(
    case: Case, fault: str, provide: Callable[[Case], Provider], tmp_path: Path
) -> None:
    provider = provide(case)
    provider.says(case.body(VALUES[fault]))
    grid, clock = fed(case, provider.where, tmp_path)
    grid.poll_once()
    nothing_prices(case, grid, clock, tmp_path, outcome_of_value(case, fault))


BODIES = {
    "empty-object": b"{}",
    "empty-list": b"[]",
    "null": b"null",
    "nothing": b"",
    "half": None,
    "html": b"<!DOCTYPE html><html><p>sorry</html>",
    "deep": b"[" * 100_000,
}


NOTHING: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("neso", "electricity_maps", "energy_charts", "energinet"), ("empty-object",)),
    **dict.fromkeys(("rte", "eia", "prometheus"), ("empty-object",)),
    "carbon_aware": ("empty-list", "null"),  # its document is a list
    "json": ("empty-object", "empty-list", "null"),  # nothing is where the pointer points
}
"""Kind → the documents that are sound and hold nothing."""


def outcome_of_body(case: Case, fault: str) -> str:
    if fault in NOTHING.get(case.kind, ()):
        return "no_data"
    is_json = fault in ("empty-object", "empty-list", "null")
    return "bad_value" if is_json or case.kind in ("entsoe", "csv") else "bad_json"


@EVERY
@pytest.mark.parametrize("fault", BODIES)
def test_a_body_that_is_none(
    case: Case, fault: str, provide: Callable[[Case], Provider], tmp_path: Path
) -> None:
    provider = provide(case)
    whole = case.body(case.good)
    spoilt = BODIES[fault]
    provider.says(whole[: len(whole) // 2] if spoilt is None else spoilt)
    grid, clock = fed(case, provider.where, tmp_path)
    grid.poll_once()
    nothing_prices(case, grid, clock, tmp_path, outcome_of_body(case, fault))


@pytest.mark.parametrize("case", [c for c in CASES if c.elsewhere is not None], ids=str)
def test_the_reply_is_for_another_zone(
    case: Case, provide: Callable[[Case], Provider], tmp_path: Path
) -> None:
    provider = provide(case)
    provider.says(case.body(case.good, case.elsewhere))
    grid, clock = fed(case, provider.where, tmp_path)
    grid.poll_once()
    nothing_prices(case, grid, clock, tmp_path, "wrong_zone")


SEES_ITS_WINDOW_ONLY = ("energy_charts", "csv")
"""They choose from a row of times what is near now; what is far is no data."""


@EVERY
@pytest.mark.parametrize("days", [-2, 3], ids=["of-the-future", "stale-for-days"])
def test_a_reply_of_another_day(
    case: Case, days: int, provide: Callable[[Case], Provider], tmp_path: Path
) -> None:
    provider = provide(case)
    provider.says(case.body(case.good))
    grid, clock = fed(case, provider.where, tmp_path, now_s=case.now_s + days * DAY_S)
    grid.poll_once()
    outcome = "stale" if days > 0 else "future"
    if case.kind in SEES_ITS_WINDOW_ONLY:
        outcome = "no_data"
    nothing_prices(case, grid, clock, tmp_path, outcome)
