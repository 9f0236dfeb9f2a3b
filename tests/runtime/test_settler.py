"""Settling by what sources publish: outages, revisions, other zones and bases, twice."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import SITE, FakeClock
from grid_feeds import HALF_HOUR, HOUR, T0, TABLE, signal
from ledgers import batch, key, opened
from settling import TABLE_HERE, Provider, live, table_price
from wattledger.core.footprint import footprint, price_of
from wattledger.core.settling import plan, settled_price
from wattledger.errors import LedgerError
from wattledger.grid.history import published
from wattledger.grid.outcome import Outcome, failure
from wattledger.ledger import LedgerReader, SqliteLedger
from wattledger.model import Basis, EntryKey, FallbackLevel, GridChoice, Price
from wattledger.model.settling import PricedSlot, Settled, Settlement
from wattledger.settler import DAY_NS, Settler, SettleSources
from wattledger.units import NS_PER_S, UG_PER_G, micro

SLOT_S = T0 // NS_PER_S


def writer(ledger: SqliteLedger, clock: FakeClock):  # type: ignore[no-untyped-def]
    def take(settlements: Sequence[Settlement]) -> None:
        ledger.commit(batch(settlements=tuple(settlements), devices=()), clock.now())

    return take


class Node:
    """A ledger, its clock, and a settler over some sources."""

    def __init__(self, path: Path, *sources: Provider, table_zone: str = "GB") -> None:
        self.clock = FakeClock(T0)
        self.path = path
        self.ledger = opened(path, self.clock)
        self.reader = LedgerReader(path)
        self.settler = Settler(
            SettleSources(sources, table_zone),
            self.reader,
            self.clock,
            writer(self.ledger, self.clock),
        )

    def book(self, *bookings: tuple[int, Price, int]) -> None:
        entries = {key(slot_s, price=price): uj for slot_s, price, uj in bookings}
        self.ledger.commit(batch(entries), self.clock.now())

    def close(self) -> None:
        self.reader.close()
        self.ledger.close()


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def node(tmp_path: Path, provider: Provider):  # type: ignore[no-untyped-def]
    made = Node(tmp_path / "ledger.sqlite", provider)
    yield made
    made.close()


def test_an_outage_is_priced_as_it_was_and_twice_changes_nothing(
    node: Node, provider: Provider
) -> None:
    """Live, then the last good signal, then the table for two days."""
    uj = 10**10
    late = price_of(GridChoice(signal(T0, 100), FallbackLevel.LAST_GOOD, True), SITE)
    slots = [SLOT_S + 1800 * number for number in range(96)]
    prices = [live(T0, 100), *[late] * 12, *[table_price()] * 83]
    node.book(*((slot_s, price, uj) for slot_s, price in zip(slots, prices, strict=True)))
    provider.past = {slot_s * NS_PER_S: 100 + n for n, slot_s in enumerate(slots)}
    node.clock.advance(96 * 1800)

    report = node.settler.settle(45 * DAY_NS)

    final = [
        footprint(uj, price._replace(intensity_ug_per_kwh=(100 + n) * UG_PER_G)).co2e_ug
        for n, price in enumerate(prices)
    ]
    total = report.total
    assert total.settled.energy_uj == total.amounts.energy_uj == 96 * uj
    assert total.amounts.co2e_ug + total.settled.co2e_ug == sum(final)
    assert (report.changed_slots, report.problems, report.unpublished_uj) == (96, (), 0)
    again = node.settler.settle(45 * DAY_NS)
    assert again == report._replace(changed_slots=0)
    assert node.reader.check(footprint) == []

    provider.past[slots[40] * NS_PER_S] += 1
    revised = node.settler.settle(45 * DAY_NS)
    assert revised.changed_slots == 1
    assert revised.total.settled.co2e_ug > total.settled.co2e_ug
    assert revised.total.amounts == total.amounts


def test_another_basis_settles_nothing_of_a_source_and_is_told(node: Node) -> None:
    """The source counted something else when it priced this: that is no correction of it."""
    before = live(T0, 100, basis=Basis.DIRECT)
    node.book((SLOT_S, before, 7 * 10**9), (SLOT_S, live(T0, 100), 10**9))
    node.clock.advance(3600)
    report = node.settler.settle(DAY_NS)
    assert report.other_basis_uj == 7 * 10**9
    assert report.total.settled.energy_uj == 10**9
    assert report.total.settled_bases == (Basis.DIRECT, Basis.GENERATION)
    assert set(node.ledger.books.settled) == {Basis.GENERATION}


def test_an_outage_is_settled_on_the_basis_of_its_source(node: Node, provider: Provider) -> None:
    """The table counts life cycles, the source generation: the books take it from the one basis
    and add it to the other, and say which."""
    table, uj = table_price(TABLE), 7 * 10**9
    node.book((SLOT_S, table, uj), (SLOT_S, live(T0, 250), 10**9))
    booked = node.ledger.books.totals
    node.clock.advance(3600)

    report = node.settler.settle(DAY_NS)

    assert (report.other_basis_uj, report.total.settled.energy_uj) == (0, uj + 10**9)
    assert set(report.total.bases) == {Basis.LIFECYCLE, Basis.GENERATION}
    assert report.total.settled_bases == (Basis.GENERATION,)
    before = footprint(uj, table)
    after = footprint(uj, table._replace(intensity_ug_per_kwh=250 * UG_PER_G))
    assert node.ledger.books.totals == booked
    assert node.ledger.books.settled == {
        Basis.LIFECYCLE: Settled(co2e_ug=-before.co2e_ug, moved_uj=-uj),
        Basis.GENERATION: Settled(uj + 10**9, after.co2e_ug, moved_uj=uj),
    }
    assert report.total.settled.co2e_ug == after.co2e_ug - before.co2e_ug
    assert node.reader.check(footprint) == []
    assert node.settler.settle(DAY_NS).changed_slots == 0


def test_the_mix_tells_its_water_too(node: Node, provider: Provider) -> None:
    """A slot booked with the table's water is settled with that of the mix, but for a site that
    names its own."""
    provider.ewif_ul_per_kwh = 900_000
    own = live(T0, 250)._replace(ewif_source="config")
    node.book((SLOT_S, table_price(), 10**10), (SLOT_S, own, 10**10))
    node.clock.advance(3600)
    report = node.settler.settle(DAY_NS)
    found = {s.price: s.settled for s in node.reader.priced_slots(0, 2**62)}
    settled, kept = found[table_price()], found[own]
    assert settled is not None and kept is not None
    assert (settled.ewif_ul_per_kwh, settled.ewif_source) == (900_000, "mix")
    assert (kept.ewif_ul_per_kwh, kept.ewif_source) == (own.ewif_ul_per_kwh, "config")
    expected = footprint(10**10, settled).water_grid_ul
    assert (
        report.total.settled.water_grid_ul
        == expected - footprint(10**10, table_price()).water_grid_ul
        != 0
    )
    assert node.reader.check(footprint) == []


@pytest.mark.parametrize(
    "price",
    [
        live(T0, 100, zone="DE"),
        live(T0, 100, source="second"),
        table_price(TABLE_HERE)._replace(zone="WORLD"),
    ],
    ids=["zone", "source", "table of another zone"],
)
def test_a_source_settles_what_it_stood_for_only(
    node: Node, provider: Provider, price: Price
) -> None:
    """A node that moved keeps what it was booked where it was."""
    node.book((SLOT_S, price, 10**9))
    node.clock.advance(3600)
    report = node.settler.settle(DAY_NS)
    assert (report.changed_slots, report.unpublished_uj) == (0, 10**9)
    assert provider.asked == [], "it is not asked in vain"


def test_the_table_gives_way_to_the_first_source_that_published(tmp_path: Path) -> None:
    first, second = Provider("first"), Provider("second")
    first.gaps = {T0}
    first.past = {T0 + HALF_HOUR: 10}
    second.past = {T0: 20, T0 + HALF_HOUR: 30}
    node = Node(tmp_path / "ledger.sqlite", first, second)
    node.book((SLOT_S, table_price(), 10**9), (SLOT_S + 1800, table_price(), 10**9))
    node.clock.advance(7200)
    node.settler.settle(DAY_NS)
    found = node.reader.priced_slots(0, 2**62)
    node.close()
    assert [(s.settled.source, s.settled.intensity_ug_per_kwh // UG_PER_G) for s in found] == [  # type: ignore[union-attr]
        ("second", 20),
        ("first", 10),
    ]


def test_a_gap_leaves_what_was_settled(node: Node, provider: Provider) -> None:
    node.book((SLOT_S, table_price(), 10**9))
    node.clock.advance(3600)
    before = node.settler.settle(DAY_NS)
    provider.gaps = {T0}
    assert node.settler.settle(DAY_NS) == before._replace(changed_slots=0)


def test_only_the_window_is_looked_at_the_newest_first(node: Node, provider: Provider) -> None:
    old = [SLOT_S + 86_400 * day for day in range(20)]
    node.book(*((slot_s, table_price(), 10**9) for slot_s in old))
    node.clock.advance(20 * 86_400)
    report = node.settler.settle(10 * DAY_NS)
    assert report.changed_slots == 10 and report.total.amounts.energy_uj == 10**10
    assert provider.asked == sorted(provider.asked, reverse=True)
    now_ns = node.clock.now().wall_ns
    assert provider.asked[-1][0] == now_ns - 10 * DAY_NS
    assert all(end - start <= 5 * DAY_NS for start, end in provider.asked)


def test_a_source_that_fails_is_asked_once_and_named(node: Node, provider: Provider) -> None:
    node.book(*((SLOT_S + 86_400 * day, table_price(), 10**9) for day in range(20)))
    node.clock.advance(20 * 86_400)
    provider.error = Outcome.HTTP_401
    report = node.settler.settle(45 * DAY_NS)
    assert len(provider.asked) == 1
    ((name, why),) = report.problems
    assert name == "first" and "out" in why
    assert report.unpublished_uj == 20 * 10**9


@pytest.mark.parametrize(
    "wrong",
    [
        {"zone": "DE"},
        {"basis": Basis.MARGINAL},
        {"intensity_ug_per_kwh": 2_001 * UG_PER_G},
        {"valid_to_ns": T0},
        {"valid_from_ns": T0 + 10 * HOUR, "valid_to_ns": T0 + 11 * HOUR},
    ],
)
def test_what_no_feed_would_take_settles_nothing(wrong: dict[str, object]) -> None:
    source = Provider()
    good, bad = signal(T0 - HALF_HOUR), signal(T0, **wrong)  # type: ignore[arg-type]
    source.between = lambda *_: [bad]  # type: ignore[method-assign]
    with pytest.raises(type(failure(Outcome.NO_DATA, ""))):
        published(source, T0 - HOUR, T0 + HOUR, T0 + HOUR)
    source.between = lambda *_: [bad, good]  # type: ignore[method-assign]
    assert published(source, T0 - HOUR, T0 + HOUR, T0 + HOUR).signals == (good,)


def test_a_version_has_one_name_whenever_it_is_fetched() -> None:
    source = Provider()
    first = published(source, T0, T0 + HOUR, T0 + 2 * HOUR).history
    later = published(source, T0, T0 + HOUR, T0 + 9 * HOUR).history
    assert first._replace(fetched_at_ns=0) == later._replace(fetched_at_ns=0)
    source.past[T0] = 251
    assert published(source, T0, T0 + HOUR, T0 + 2 * HOUR).history.digest != first.digest


def test_pue_wue_and_ewif_stay(provider: Provider) -> None:
    booked = table_price()._replace(pue_ppm=1_234_567, wue_ul_per_kwh=7, ewif_ul_per_kwh=9)
    settled = settled_price(booked, signal(T0, 77))
    assert settled[8:] == booked[8:]
    assert (settled.intensity_ug_per_kwh, settled.source) == (77 * UG_PER_G, "first")
    assert (settled.level, settled.estimated) == (FallbackLevel.LIVE, False)


def test_the_present_slot_takes_the_price_of_now(provider: Provider) -> None:
    """What comes later in it is not published yet."""
    words = published(provider, T0, T0 + HALF_HOUR, T0)
    slot = PricedSlot(SLOT_S, table_price(), 5, None)
    found = plan([slot], [words], table_zone="GB", now_ns=T0 + 1)
    assert [one.settled.intensity_ug_per_kwh for one in found.settlements] == [250 * UG_PER_G]


def test_books_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    clock = FakeClock(T0)
    reader = LedgerReader(tmp_path / "none.sqlite")
    settler = Settler(SettleSources((), "GB"), reader, clock, lambda _: None)
    with pytest.raises(LedgerError):
        settler.settle(DAY_NS)
    reader.close()


_STEP = st.one_of(
    st.tuples(st.just("book"), st.integers(1, 10**12), st.sampled_from(["live", "late", "table"])),
    st.tuples(st.just("revise"), st.integers(0, 60), st.integers(0, 1500)),
    st.tuples(st.just("settle"), st.booleans(), st.just("")),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(_STEP, min_size=1, max_size=25))
def test_any_outages_revisions_and_settlements(steps: list[tuple[str, int, object]]) -> None:
    """Counters only grow; in the end settled = Σ floor(energy × what is published)."""
    with tempfile.TemporaryDirectory() as place:
        provider = Provider()
        node = Node(Path(place) / "ledger.sqlite", provider)
        energy: dict[EntryKey, int] = {}
        for what, number, how in steps:
            before = node.ledger.books
            if what == "book":
                now_ns = node.clock.advance(600).wall_ns
                half_ns = now_ns // HALF_HOUR * HALF_HOUR
                price = {
                    "live": live(half_ns, number % 900),
                    "late": price_of(
                        GridChoice(signal(T0, 100), FallbackLevel.LAST_GOOD, True), SITE
                    ),
                    "table": table_price(),
                }[str(how)]
                entry = key(now_ns // NS_PER_S // 300 * 300, price=price)
                node.book((entry.slot_s, price, number))
                energy[entry] = energy.get(entry, 0) + number
            elif what == "revise":
                assert isinstance(how, int)
                provider.past[T0 + HALF_HOUR * number] = how
            else:
                provider.error = Outcome.CONNECT_ERROR if number else None
                node.settler.settle(45 * DAY_NS)
                assert node.ledger.books.totals == before.totals
            for cell, total in before.totals.items():
                grown = map(int.__sub__, node.ledger.books.totals[cell].amounts, total.amounts)
                assert all(part >= 0 for part in grown)
        provider.error = None
        node.settler.settle(45 * DAY_NS)
        booked_ug = sum(t.amounts.co2e_ug for t in node.ledger.books.totals.values())
        settled = node.ledger.books.settled.get(Basis.GENERATION, Settled())
        expected_ug = 0
        for entry, uj in energy.items():
            half_ns = entry.slot_s * NS_PER_S // HALF_HOUR * HALF_HOUR
            final = entry.price._replace(
                intensity_ug_per_kwh=micro(provider.past.get(half_ns, 250))
            )
            expected_ug += footprint(uj, final).co2e_ug
        assert booked_ug + settled.co2e_ug == expected_ug
        assert settled.energy_uj == sum(energy.values())
        assert node.reader.check(footprint) == []
        node.close()
