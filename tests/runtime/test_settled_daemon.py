"""The daemon's parts together, in simulated time: whatever the sources do, the counters only grow.

Sampler, feed, settling ledger, settler and page are the real ones; the meter counts what is true,
and the provider says what it likes of the present and, later, of the past.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
import threading
from contextlib import closing
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes import SITE, FakeClock, ListFeed
from grid_feeds import HALF_HOUR, MAX_AGE, T0, signal
from ledgers import COMMIT, GPU, Disk, opened
from settling import TABLE_HERE, Provider
from wattledger.core.footprint import footprint
from wattledger.grid.feed import Feed
from wattledger.grid.outcome import Outcome, failure
from wattledger.ledger import LedgerReader
from wattledger.model import Amounts, Basis, CounterReading, GridSignal, MeterReport, Snapshot
from wattledger.model.settle_report import SettleReport
from wattledger.sampler import Sampler
from wattledger.settler import DAY_NS, Settler, SettleSources
from wattledger.settling_ledger import SettlingLedger
from wattledger.units import NS_PER_S, SLOT_NS, UJ_PER_J, micro
from wattledger_exporters.prometheus import Renderer

MINUTE_S = 60
WINDOW_NS = 45 * DAY_NS
BOOKS = ("energy_joules_total", "co2e_grams_total", "water_liters_total")
"""What a scraper holds for good, over restarts too."""


class Grid(Provider):
    """Says of the half hour that ended last what it says of that one's past."""

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        if self.error is not None:
            raise failure(self.error, "out")
        start_ns = now_wall_ns // HALF_HOUR * HALF_HOUR - HALF_HOUR
        found = self.past.get(start_ns, 250)
        return [signal(start_ns, found, source=self.name, fetched_at_ns=now_wall_ns)]


class Daemon:
    """Its parts over one ledger file, its meter, and what a scraper saw last."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock, self.disk = path, FakeClock(T0), Disk()
        self.provider = Grid()
        self.raw_uj = self.first_uj = 5_000 * UJ_PER_J
        self.seen: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        self.meter = ListFeed()
        self.written = opened(self.path, self.clock, factory=self.disk.factory())
        self.ledger = SettlingLedger(self.written, most=2)
        self.grid = Feed(
            (self.provider,),
            TABLE_HERE,
            self.clock,
            max_age_ns=MAX_AGE,
            remembered=self.ledger.books.signals,
        )
        self.sampler = Sampler(
            clock=self.clock,
            feeds=[self.meter],
            grid=self.grid,
            site=SITE,
            ledger=self.ledger,
            node_load=lambda: 0,
        )
        self.reader = LedgerReader(self.path)
        self.read()

    def stop(self) -> None:
        self.reader.close()
        self.written.close()

    def read(self) -> None:
        now = self.clock.now()
        reading = CounterReading(
            GPU.name, now, self.raw_uj, None, 700_000_000, 10**8, self.clock.boot_id, "1"
        )
        self.meter.put(MeterReport((GPU,), (reading,), {GPU.name: 0}))
        self.sampler.tick()

    def run(self, minutes: int, watts: int) -> None:
        for _ in range(minutes):
            self.clock.advance(MINUTE_S)
            self.raw_uj += watts * MINUTE_S * UJ_PER_J
            self.grid.poll_once()
            self.read()

    def settle(self) -> SettleReport:
        """As the daemon does: in a thread, which waits for the commits of the sampling thread."""
        reports: list[SettleReport] = []
        sources = SettleSources((self.provider,), "GB")
        settler = Settler(sources, self.reader, self.clock, self.ledger.settle)
        thread = threading.Thread(target=lambda: reports.append(settler.settle(WINDOW_NS)))
        thread.start()
        while thread.is_alive():
            self.scrape()
            thread.join(0.001)
        [report] = reports
        return report

    def scrape(self) -> Snapshot:
        """A commit and its page: no counter of the books has fallen, and none is gone."""
        snapshot = self.sampler.commit()
        text = Renderer().render(snapshot, 1, process=False).text.decode()
        now = {
            name: float(value)
            for name, value in re.findall(
                r"^(wattledger_\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE
            )
            if name.split("{")[0].removeprefix("wattledger_") in BOOKS
        }
        for name, before in self.seen.items():
            assert now[name] >= before, name
        self.seen = now
        [told] = re.findall(r"^wattledger_co2e_settlement_grams (\S+)$", text, re.MULTILINE)
        exact = sum(part.co2e_ug for part in snapshot.books.settled.values())
        assert float(told) == exact / 10**6
        return snapshot

    def provisional(self) -> Amounts:
        total = Amounts()
        for found in self.ledger.books.totals.values():
            total = total.plus(found.amounts)
        return total

    def final_price(self) -> tuple[int, int]:
        """Energy booked, and the CO2e of all of it at what is published by now: entry by entry."""
        now_ns = self.clock.wall_ns
        energy_uj = co2e_ug = 0
        prices = {
            (slot.slot_s, slot.price): slot.price for slot in self.reader.priced_slots(0, 2**62)
        }
        with closing(sqlite3.connect(self.path)) as connection:
            entries = connection.execute(
                "SELECT slot_s, energy_uj, pue_ppm, wue_ul_per_kwh, ewif_ul_per_kwh "
                "FROM entry JOIN price ON price.id = entry.price_id"
            ).fetchall()
        like = next(iter(prices.values()))
        for slot_s, uj, pue_ppm, wue, ewif in entries:
            at_ns = min(slot_s * NS_PER_S + SLOT_NS - 1, now_ns)
            grams = self.provider.past.get(at_ns // HALF_HOUR * HALF_HOUR, 250)
            price = like._replace(
                intensity_ug_per_kwh=micro(grams),
                pue_ppm=pue_ppm,
                wue_ul_per_kwh=wue,
                ewif_ul_per_kwh=ewif,
            )
            energy_uj += uj
            co2e_ug += footprint(uj, price).co2e_ug
        return energy_uj, co2e_ug


_STEP = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 90), st.integers(0, 700)),
    st.tuples(st.just("sleep"), st.integers(1, 20), st.just(0)),
    st.tuples(st.just("outage"), st.booleans(), st.just(0)),
    st.tuples(st.just("revise"), st.integers(-2, 60), st.integers(1, 1500)),
    st.tuples(st.just("gap"), st.integers(-2, 60), st.just(0)),
    st.tuples(st.just("settle"), st.just(0), st.just(0)),
    st.tuples(st.just("restart"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("disk"), st.sampled_from([0, 3, COMMIT]), st.booleans()),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(_STEP, min_size=1, max_size=16))
@example(
    [
        ("run", 30, 400),  # live
        ("outage", True, 0),
        *[("run", 90, 300)] * 6,  # over the last good signal to the table
        ("settle", 0, 0),  # in vain: it is out
        ("restart", 2, 0),
        ("outage", False, 0),
        ("settle", 0, 0),
        ("revise", 3, 900),
        ("disk", COMMIT, True),
        ("settle", 0, 0),
        ("run", 20, 200),
    ]
)
def test_any_sequence_of_outages_revisions_and_settlements(
    steps: list[tuple[str, int, int]],
) -> None:
    with tempfile.TemporaryDirectory() as place:
        daemon = Daemon(Path(place) / "ledger.sqlite")
        try:
            for step in steps:
                take(daemon, *step)
            all_is_settled(daemon)
        finally:
            daemon.stop()


def take(daemon: Daemon, what: str, number: int, more: int) -> None:
    provider = daemon.provider
    half_ns = T0 + HALF_HOUR * number
    if what == "run":
        daemon.run(number, more)
    elif what == "sleep":  # the whole daemon hangs, and energy is used
        daemon.clock.advance(number * 600)
        daemon.raw_uj += number * 600 * 100 * UJ_PER_J
        daemon.read()
    elif what == "outage":
        provider.error = Outcome.CONNECT_ERROR if number else None
    elif what == "revise":
        provider.past[half_ns] = more
        provider.gaps.discard(half_ns)
    elif what == "gap":
        provider.gaps.add(half_ns)
    elif what == "settle":
        daemon.scrape()
        before = daemon.ledger.books.totals
        daemon.settle()
        assert daemon.ledger.books.totals == before, "settling moves no counter"
    elif what == "restart":
        daemon.disk.arm(-1)
        daemon.scrape()
        daemon.stop()
        daemon.clock.advance(number * 1200 + 1)
        daemon.raw_uj += number * 1200 * 50 * UJ_PER_J
        daemon.start()
    else:
        daemon.run(3, 300)
        daemon.disk.arm(number, after=bool(more))  # the next commit that gets so far fails
    daemon.scrape()


def all_is_settled(daemon: Daemon) -> None:
    """Once every source answers: settled = Σ energy × final intensity, whatever came before."""
    daemon.disk.arm(-1)
    daemon.provider.error = None
    daemon.provider.gaps.clear()
    daemon.run(1, 100)
    daemon.scrape()
    report = daemon.settle()
    assert report.unpublished_uj == report.other_basis_uj == 0
    booked, settled = daemon.provisional(), daemon.ledger.books.settled[Basis.GENERATION]
    energy_uj, final_ug = daemon.final_price()
    assert energy_uj == booked.energy_uj == daemon.raw_uj - daemon.first_uj, "no joule is lost"
    assert settled.energy_uj == energy_uj
    assert booked.co2e_ug + settled.co2e_ug == final_ug
    totals = report.total
    assert (totals.amounts, totals.settled) == (booked, settled)
    assert daemon.reader.check(footprint) == []
    assert daemon.settle().changed_slots == 0, "twice changes nothing"
