"""Each kind of source, asked for its past: the revised is settled, the hostile changes nothing.

WattTime is here, too: its marginal rates may be asked for, and never price the books.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import grid_bodies as bodies
import grid_server as play
import ledgers
import snapshots
from fakes import SITE, FakeClock
from grid_cases import CASES, TRANSPORT, VALUES, Case, V, fed, token
from grid_server import GridServer, Script
from wattledger.core.footprint import footprint, price_of
from wattledger.errors import GridError
from wattledger.grid.client import HttpClient
from wattledger.grid.feed import Feed
from wattledger.grid.feed.feed import MARGINAL
from wattledger.grid.source import History
from wattledger.grid.table import CountryTable
from wattledger.grid.watttime import WattTime
from wattledger.ledger import LedgerReader
from wattledger.model.settle_report import SettleReport
from wattledger.model.settling import Settlement
from wattledger.settler import DAY_NS, Settler, SettleSources
from wattledger.units import NS_PER_S, UJ_PER_KWH, slot_of
from wattledger_exporters.prometheus import Renderer

NO_PAST = {"json plant": "a document tells the present only"}


class Books:
    """A kWh booked at what a source said then, and a settler over what it says now."""

    def __init__(self, case: Case, server: GridServer, home: Path) -> None:
        self.case, self.server, self.file = case, server, home / "past.csv"
        self.says(case.body(case.good))
        where = str(self.file) if case.kind == "csv" else server.url
        self.grid, self.clock = fed(case, where, home)
        self.grid.poll_once()
        [signal, *_] = self.grid.signals()
        then_ns = signal.valid_from_ns
        price = price_of(self.grid.at(then_ns), SITE)
        path = home / "ledger.sqlite"
        self.ledger = ledgers.opened(path, self.clock)
        entry = ledgers.key(slot_of(then_ns), price=price)
        self.price = price
        self.ledger.commit(ledgers.batch({entry: UJ_PER_KWH}), self.clock.now())
        self.reader = LedgerReader(path)
        [source] = [asked.source for asked in self.grid._asked]
        self.source = source

    def says(self, body: bytes) -> None:
        self.file.write_bytes(body)
        self.server.script = play.reply(body=body)

    def settle(self) -> SettleReport:
        def take(settlements: Sequence[Settlement]) -> None:
            batch = ledgers.batch(settlements=tuple(settlements), devices=())
            self.ledger.commit(batch, self.clock.now())

        assert isinstance(self.source, History)
        sources = SettleSources((self.source,), "WORLD")
        return Settler(sources, self.reader, self.clock, take).settle(DAY_NS)

    def page(self) -> str:
        shown = snapshots.snapshot(books=self.ledger.books, grid=self.grid.at(self.clock.wall_ns))
        return Renderer().render(shown, 1, process=False).text.decode()

    def counters(self) -> list[str]:
        names = ("energy_joules_total", "co2e_grams_total", "water_liters_total")
        return [line for line in self.page().splitlines() if any(name in line for name in names)]

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()


@pytest.fixture
def books(case: Case, tmp_path: Path) -> Iterator[Books]:
    with GridServer(play.reply(503)) as server:
        made = Books(case, server, tmp_path)
        yield made
        made.close()


KNOWING = [case for case in CASES if str(case) not in NO_PAST]


@pytest.mark.parametrize("case", [case for case in CASES if str(case) in NO_PAST], ids=str)
def test_who_has_no_past_does_not_claim_one(books: Books) -> None:
    assert not isinstance(books.source, History)


@pytest.mark.parametrize("case", KNOWING, ids=str)
def test_a_revised_history_is_settled_once(case: Case, books: Books) -> None:
    before, counters = books.ledger.books.totals, books.counters()
    reply, grams = case.revised or (None, case.grams / 2)
    value = case.good if case.revised else str(grams)
    books.says(case.body(value, case.past if reply is None else reply))
    books.clock.advance(7200)
    report = books.settle()
    assert (report.changed_slots, report.problems) == (1, ())
    [found] = books.reader.priced_slots(0, 2**62)
    assert found.settled is not None
    assert (found.price, found.settled.intensity_ug_per_kwh) == (books.price, round(grams * 10**6))
    assert (found.settled.source, found.settled.basis) == (case.kind, case.basis)
    booked, final = footprint(UJ_PER_KWH, books.price), footprint(UJ_PER_KWH, found.settled)
    difference_g = (final.co2e_ug - booked.co2e_ug) / 10**6
    page = books.page()
    [line] = [n for n in page.splitlines() if n.startswith("wattledger_co2e_settlement_grams ")]
    assert float(line.split()[1]) == pytest.approx(difference_g)
    assert (books.ledger.books.totals, books.counters()) == (before, counters)
    assert books.settle().changed_slots == 0, "twice changes nothing"
    assert books.reader.check(footprint) == []


PAST_FAULTS = {
    **{name: TRANSPORT[name] for name in ("401-with-a-valid-token", "429", "500", "reset")},
    **{name: TRANSPORT[name] for name in ("redirect-to-another-host", "10-MB", "gzip-bomb")},
}


@pytest.mark.parametrize("case", [c for c in KNOWING if c.kind != "csv"], ids=str)
@pytest.mark.parametrize("fault", PAST_FAULTS)
def test_a_past_that_cannot_be_asked_for_changes_nothing(
    case: Case, fault: str, books: Books
) -> None:
    script, _ = PAST_FAULTS[fault]
    books.server.script = script()
    unsettled(case, books, told=True)


@pytest.mark.parametrize("case", KNOWING, ids=str)
@pytest.mark.parametrize("fault", VALUES)
def test_a_past_of_no_values_changes_nothing(case: Case, fault: str, books: Books) -> None:
    books.says(case.body(VALUES[fault], case.past))
    # That nothing is known of a time is an answer, and no fault.
    unsettled(case, books, told=None)


def unsettled(case: Case, books: Books, *, told: bool | None) -> None:
    before, counters = books.ledger.books, books.counters()
    books.clock.advance(7200)
    report = books.settle()
    assert report.changed_slots == 0
    if told is not None:
        assert [name for name, _ in report.problems] == [case.kind] * told
    assert report.problems or report.unpublished_uj == UJ_PER_KWH
    assert books.ledger.books.totals == before.totals and not books.ledger.books.settled
    assert books.counters() == counters
    assert "wattledger_co2e_settlement_grams 0.0" in books.page()


# ── WattTime: marginal, so that no reply of any kind prices the books ───────────────────────────

T0 = 1_657_843_260


def watttime(server: GridServer, home: Path, deadline_s: float = 10.0) -> WattTime:
    return WattTime(
        HttpClient(deadline_s=deadline_s),
        zone="CAISO_NORTH",
        user="site",
        token_file=token(home),
        url=server.url,
    )


def logged_in(then: Script) -> Script:
    """A login that succeeds, and what comes after."""
    return play.in_turn(play.reply(body={"token": "t"}), then)


@pytest.mark.parametrize("fault", TRANSPORT)
@pytest.mark.parametrize("at", ["login", "data"])
def test_watttime_whose_connection_fails(fault: str, at: str, tmp_path: Path) -> None:
    script, outcome = TRANSPORT[fault]
    with GridServer(script() if at == "login" else logged_in(script())) as server:
        source = watttime(server, tmp_path, 0.15 if outcome == "timeout" else 10.0)
        with pytest.raises(GridError) as caught:
            source.forecast(T0 * NS_PER_S)
    assert caught.value.outcome == outcome


@pytest.mark.parametrize("fault", VALUES)
def test_watttime_of_no_values(fault: str, tmp_path: Path) -> None:
    body = json.dumps(bodies.watttime(V)).replace(f'"{V}"', VALUES[fault]).encode()
    with GridServer(logged_in(play.reply(body=body))) as server, pytest.raises(GridError) as caught:
        watttime(server, tmp_path).forecast(T0 * NS_PER_S)
    is_json = fault in ("null", "-1", "too-much")
    assert caught.value.outcome == ("bad_value" if is_json else "bad_json")


def test_watttime_elsewhere_or_in_another_unit(tmp_path: Path) -> None:
    spoilt = {"region": "PJM_DC"}, {"units": "percentile"}, {"signal_type": "health_damage"}
    outcomes = []
    for meta in spoilt:
        body = bodies.watttime(870, **meta)
        with GridServer(logged_in(play.reply(body=body))) as server:
            with pytest.raises(GridError) as caught:
                watttime(server, tmp_path).forecast(T0 * NS_PER_S)
            outcomes.append(caught.value.outcome)
    assert outcomes == ["wrong_zone", "bad_value", "bad_value"]


def test_watttime_is_not_asked_for_the_books(tmp_path: Path) -> None:
    with GridServer(logged_in(play.reply(body=bodies.watttime(870)))) as server:
        table = CountryTable.load().signal("WORLD")
        clock = FakeClock(T0 * NS_PER_S)
        grid = Feed([watttime(server, tmp_path)], table, clock, max_age_ns=DAY_NS)
        grid.poll_once()
        assert server.requests == []
    [status] = grid.statuses()
    assert (status.outcomes, status.message, status.hint) == ({}, *MARGINAL)
    shown = snapshots.snapshot(grid=grid.at(clock.wall_ns), sources=grid.statuses())
    page = Renderer().render(shown, 1, process=False).text.decode()
    assert "wattledger_grid_fallback_level 2.0" in page
    assert 'basis="lifecycle",estimated="true",grid_zone="WORLD",source="table"' in page
    assert "grid_requests_total{" not in page
    assert price_of(grid.at(clock.wall_ns), shown.site).source == "table"
