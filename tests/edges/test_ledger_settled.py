"""Settlements in the ledger: beside the books, exact, the same when done twice, never in them."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import START_WALL_NS, FakeClock
from ledgers import CPU, PRICE, batch, key, opened
from restating import ALL, HISTORY, JOB, LIVE, bookings
from wattledger.core.footprint import footprint
from wattledger.ledger import LedgerReader
from wattledger.ledger.rollup import roll_up
from wattledger.model import Basis, EntryKey, Price
from wattledger.model.jobbooks import JobQuery
from wattledger.model.settling import PricedSlot, Settled, Settlement
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S
PRICES = (PRICE, LIVE, LIVE._replace(pue_ppm=1_100_000, ewif_ul_per_kwh=0))


def at(price: Price, intensity: int) -> Price:
    return price._replace(
        intensity_ug_per_kwh=intensity, zone="GB", source="neso", estimated=False, level=0
    )


def settlement(slot_s: int, price: Price, intensity: int, **changes: object) -> Settlement:
    history = HISTORY._replace(**changes)  # type: ignore[arg-type]
    return Settlement(slot_s, price, at(price, intensity), history)


def content(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        lines = list(connection.iterdump())
        return [line for line in lines if not line.startswith('INSERT INTO "meta"')]
    finally:
        connection.close()


@contextmanager
def reading(path: Path) -> Iterator[LedgerReader]:
    reader = LedgerReader(path)
    try:
        yield reader
    finally:
        reader.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_what_is_settled_stands_beside_what_was_booked(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    booked = {
        key(SLOT_S): 7_000_000_000,
        key(SLOT_S, CPU.name, JOB.payee): 3_000_000_000,
        key(SLOT_S, price=LIVE): 5_000_000_000,
    }
    before = ledger.commit(batch(booked, runs=(JOB,)), clock.now())
    assert before.settled == {}

    after = ledger.commit(batch(settlements=(settlement(SLOT_S, PRICE, 10**8),)), clock.now())

    assert after.totals == before.totals and after.jobs == before.jobs
    parts = [footprint(uj, PRICE) for uj in (7_000_000_000, 3_000_000_000)]
    anew = [footprint(uj, at(PRICE, 10**8)) for uj in (7_000_000_000, 3_000_000_000)]
    co2e_ug = sum(new.co2e_ug - old.co2e_ug for old, new in zip(parts, anew, strict=True))
    assert after.settled == {Basis.LIFECYCLE: Settled(10_000_000_000, co2e_ug, 0)}
    assert co2e_ug < 0
    ledger.close()
    reopened = opened(path, clock)
    assert reopened.books.settled == after.settled
    reopened.close()
    with reading(path) as reader:
        assert reader.check(footprint) == []
        (row,) = reader.totals(*ALL, "all")
        assert row.settled == after.settled[Basis.LIFECYCLE]
        by_device = {row.group: row.settled for row in reader.totals(*ALL, "device")}
        assert by_device[CPU.name] == Settled(3_000_000_000, anew[1].co2e_ug - parts[1].co2e_ug, 0)
        detail = reader.job("slurm", "42")
        assert detail is not None and detail.settled == {Basis.LIFECYCLE: by_device[CPU.name]}
        (listed,) = reader.jobs(JobQuery())
        assert listed.book.settled == detail.runs[0].settled == detail.settled
        (own,) = reader.totals(*ALL, "job", uid=1000)
        assert own.settled == by_device[CPU.name]
        assert reader.priced_slots(*ALL) == [
            PricedSlot(SLOT_S, PRICE, 10_000_000_000, at(PRICE, 10**8), 2),
            PricedSlot(SLOT_S, LIVE, 5_000_000_000, None),
        ]


def test_twice_is_once_and_a_revision_leaves_its_trace(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    ledger.commit(batch({key(SLOT_S): 7_000_000_000}), clock.now())
    first = settlement(SLOT_S, PRICE, 10**8)
    ledger.commit(batch(settlements=(first,)), clock.now())
    once = content(path)
    ledger.commit(batch(settlements=(first, first)), clock.now())
    later = first._replace(history=HISTORY._replace(fetched_at_ns=5))
    ledger.commit(batch(settlements=(later,)), clock.now())
    assert content(path) == once, "another fetch that says the same changes nothing"

    revised = settlement(SLOT_S, PRICE, 2 * 10**8, fetched_at_ns=6, digest="other")
    books = ledger.commit(batch(settlements=(revised,)), clock.now())
    ledger.close()

    old, new = footprint(7_000_000_000, PRICE), footprint(7_000_000_000, revised.settled)
    assert books.settled[Basis.LIFECYCLE].co2e_ug == new.co2e_ug - old.co2e_ug
    connection = sqlite3.connect(path)
    used = connection.execute(
        "SELECT slot_s, digest, intensity_ug_per_kwh FROM settled_slot "
        "JOIN history ON history.id = history_id JOIN price ON price.id = settled_price_id"
    ).fetchall()
    connection.close()
    assert sorted(used) == [(SLOT_S, "digest", 10**8), (SLOT_S, "other", 2 * 10**8)]


@pytest.mark.parametrize(
    "change",
    [
        {"basis": Basis.DIRECT},
        {"pue_ppm": 1_000_000},
        {"wue_ul_per_kwh": 0},
        {"ewif_ul_per_kwh": 0},
    ],
)
def test_what_no_source_says_is_refused(path: Path, change: dict[str, object]) -> None:
    """The basis of what a source priced, PUE, WUE, and the EWIF that the site names."""
    ledger = opened(path)
    named = LIVE._replace(ewif_source="config")
    ledger.commit(batch({key(SLOT_S, price=named): 7}), FakeClock().now())
    good = settlement(SLOT_S, named, 10**8)
    bad = good._replace(settled=good.settled._replace(**change))  # type: ignore[arg-type]
    before = content(path)
    with pytest.raises(ValueError, match=next(iter(change))):
        ledger.commit(batch(settlements=(good, bad)), FakeClock().now())
    assert content(path) == before
    ledger.close()


def test_energy_that_comes_late_is_settled_the_next_time(path: Path) -> None:
    clock = FakeClock()
    ledger = opened(path, clock)
    one = settlement(SLOT_S, PRICE, 10**8)
    ledger.commit(batch({key(SLOT_S): 7_000_000_000}), clock.now())
    ledger.commit(batch(settlements=(one,)), clock.now())
    books = ledger.commit(batch({key(SLOT_S): 2_000_000_000}), clock.now())
    assert books.settled[Basis.LIFECYCLE].energy_uj == 7_000_000_000
    with reading(path) as reader:
        assert reader.check(footprint) == []
        assert reader.priced_slots(*ALL) == [PricedSlot(SLOT_S, PRICE, 9_000_000_000, None)]

    books = ledger.commit(batch(settlements=(one,)), clock.now())
    ledger.close()

    old, new = footprint(9_000_000_000, PRICE), footprint(9_000_000_000, one.settled)
    assert books.settled == {Basis.LIFECYCLE: Settled(9_000_000_000, new.co2e_ug - old.co2e_ug, 0)}


_SLOTS = st.integers(0, 26).map(lambda number: SLOT_S + 300 * number)
_BOOKINGS = bookings(_SLOTS, PRICES)
_SETTLEMENTS = st.lists(
    st.builds(  # another word of the source is another version of its history
        lambda slot_s, price, ug: settlement(slot_s, price, ug, digest=str(ug)),
        _SLOTS,
        st.sampled_from(PRICES),
        st.integers(0, 2 * 10**9),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("book"), _BOOKINGS),
            st.tuples(st.just("settle"), _SETTLEMENTS),
            st.tuples(st.sampled_from(["reopen", "roll up"]), st.none()),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_bookings_revisions_and_roll_ups_balance(steps: list[tuple[str, object]]) -> None:
    """Counters only grow; settled = Σ floor(energy × final price) = booked + difference."""
    with tempfile.TemporaryDirectory() as place:
        path, clock = Path(place) / "ledger.sqlite", FakeClock()
        ledger = opened(path, clock)
        energy: dict[EntryKey, int] = {}
        final: dict[EntryKey, tuple[int, Price]] = {}  # in hours nothing is settled any more
        rolled_s = 0
        for what, argument in steps:
            before = ledger.books
            if what == "book":
                assert isinstance(argument, dict)
                # A slot that was rolled up gets a row of its own again, with its own floor.
                new = {k: uj for k, uj in argument.items() if k.slot_s >= rolled_s}
                ledger.commit(batch(new, runs=(JOB,)), clock.now())
                for k, uj in new.items():
                    energy[k] = energy.get(k, 0) + uj
            elif what == "settle":
                assert isinstance(argument, list)
                ledger.commit(batch(settlements=tuple(argument)), clock.now())
                for one in argument:
                    for k, uj in energy.items():
                        if (k.slot_s, k.price) == one[:2] and k.slot_s >= rolled_s:
                            final[k] = uj, one.settled
                assert ledger.books.totals == before.totals
                assert ledger.books.jobs == before.jobs
            elif what == "roll up":
                ledger.close()
                connection = sqlite3.connect(path, isolation_level=None)
                rolled_s = max(rolled_s, SLOT_S + 3600 * (rolled_s >= SLOT_S + 3600) + 3600)
                while roll_up(connection, rolled_s):
                    pass
                connection.close()
                ledger = opened(path, clock)
            else:
                ledger.close()
                ledger = opened(path, clock)
            for cell, total in before.totals.items():
                grown = map(int.__sub__, ledger.books.totals[cell].amounts, total.amounts)
                assert all(part >= 0 for part in grown), "no counter falls"
        booked_ug = sum(t.amounts.co2e_ug for t in ledger.books.totals.values())
        settled = ledger.books.settled.get(Basis.LIFECYCLE, Settled())
        ledger.close()

        expected_ug = 0
        for k, uj in energy.items():
            settled_uj, price = final.get(k, (0, k.price))
            late = footprint(uj, k.price).co2e_ug - footprint(settled_uj, k.price).co2e_ug
            expected_ug += footprint(settled_uj, price).co2e_ug + late
        assert booked_ug + settled.co2e_ug == expected_ug
        assert settled.energy_uj == sum(settled_uj for settled_uj, _ in final.values())
        with reading(path) as reader:
            assert reader.check(footprint) == []
            rows = reader.totals(*ALL, "hour")
            assert sum(row.settled.co2e_ug for row in rows) == settled.co2e_ug


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE settled SET co2e_diff_ug = co2e_diff_ug + 1", "settle by"),
        ("UPDATE settled SET energy_uj = energy_uj + 10000000000", "are settled, but"),
        ("UPDATE settled_total SET co2e_diff_ug = 0", "basis lifecycle: settlements less"),
        ("UPDATE settled_run SET co2e_diff_ug = 0", "run 1 lifecycle: settlements less"),
        ("UPDATE price SET pue_ppm = 1 WHERE source = 'neso'", "of another pue_ppm"),
        ("UPDATE price SET source = 'rte' WHERE source = 'neso'", "no history says price 2"),
        ("UPDATE price SET zone = 'FR' WHERE source = 'neso'", "no history says price 2"),
        ("UPDATE history SET basis = 'direct'", "no history says price 2"),
        ("DELETE FROM settled_slot", "no history says price 2, which settles price 1"),
        ("UPDATE settled_slot SET slot_s = slot_s + 300", "no history says price 2"),
        ("UPDATE settled_slot SET slot_s = slot_s + 1", "no history says price 2"),
        ("UPDATE settled_slot SET settled_price_id = 1", "no history says price 2"),
        ("DELETE FROM history", "settled_slot: rows that name a history that is not there: 1"),
        ("UPDATE settled SET final_price_id = 77", "settled: rows that name a price"),
        ("UPDATE settled SET settled_price_id = 77", "settled: rows that name a price"),
        ("UPDATE entry SET price_id = 77", "entry: rows that name a price that is not there: 1"),
        ("DELETE FROM price WHERE id = 1", "entry: rows that name a price"),
        ("DELETE FROM payee", "entry: rows that name a payee"),
        ("UPDATE price SET basis = 'x' WHERE id = 1", "price 1: 'x' is not a valid Basis"),
        ("UPDATE price SET basis = 'x' WHERE id = 2", "price 2: 'x' is not a valid Basis"),
    ],
)
@pytest.mark.parametrize("rolled", [False, True], ids=["slots", "hours"])
def test_a_settlement_that_is_off_is_found(
    path: Path, damage: str, found: str, rolled: bool
) -> None:
    ledger = opened(path)
    booked = {key(SLOT_S, payee=JOB.payee): 7_000_000_000}
    ledger.commit(batch(booked, runs=(JOB,)), FakeClock().now())
    ledger.commit(batch(settlements=(settlement(SLOT_S, PRICE, 10**8),)), FakeClock().now())
    ledger.close()
    connection = sqlite3.connect(path, isolation_level=None)
    if rolled:
        assert roll_up(connection, SLOT_S + 7200)
        damage = re.sub(r"\b(entry|settled)(?= SET)", r"\1_hour", damage)
        damage = damage.replace("slot_s + 300", "slot_s + 3600")
        found = re.sub(r"^(entry|settled):", r"\1_hour:", found)
    connection.execute(damage)
    connection.close()
    with reading(path) as reader:
        assert any(found in finding for finding in reader.check(footprint))
