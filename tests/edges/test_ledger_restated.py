"""Restatements in the ledger: beside the books, versioned, on slots and hours, never in them."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgers import COMMIT, CPU, PRICE, Disk, batch, key
from restating import (
    ALL,
    HOUR,
    JOB,
    LIVE,
    SLOT_S,
    Node,
    bookings,
    noded,
    restatement,
    settlement,
)
from wattledger.core.footprint import footprint
from wattledger.errors import CommitFailed
from wattledger.model import Amounts, Basis, EntryKey, Price, TotalsRow
from wattledger.model.jobbooks import JobQuery
from wattledger.model.restating import (
    RESTATED,
    factors_at,
    restated_price,
    says_anew,
    spans,
)
from wattledger.model.settling import Settled, Settlement
from wattledger.units import NS_PER_S


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with noded(tmp_path / "ledger.sqlite") as made:
        yield made


def change(energy_uj: int, booked: Price, final: Price) -> Amounts:
    before, after = footprint(energy_uj, booked), footprint(energy_uj, final)
    return Amounts(*map(int.__sub__, after, before))


@pytest.mark.parametrize("rolled", [False, True], ids=["slots", "hours"])
def test_a_restated_pue_stands_beside_what_was_booked(node: Node, rolled: bool) -> None:
    node.book(
        {
            key(SLOT_S): 7_000_000_000,
            key(SLOT_S, CPU.name, JOB.payee): 3_000_000_000,
            key(SLOT_S + HOUR): 5_000_000_000,
        }
    )
    if rolled:
        node.roll_up(SLOT_S + 2 * HOUR)
    before = node.ledger.books
    said = restatement(pue_ppm=1_210_000, wue_ul_per_kwh=900_000)

    assert node.say(said) == (said,) and node.apply() == 1

    after = node.ledger.books
    assert (after.totals, after.jobs.runs) == (before.totals, before.jobs.runs)
    final = PRICE._replace(
        pue_ppm=1_210_000,
        wue_ul_per_kwh=900_000,
        pue_source=RESTATED,
        wue_source=RESTATED,
    )
    parts = [change(uj, PRICE, final) for uj in (7_000_000_000, 3_000_000_000)]
    _, co2e_ug, onsite_ul, grid_ul = map(sum, zip(*parts, strict=True))
    whole = Settled(0, co2e_ug, grid_ul, onsite_ul, 10_000_000_000)
    assert after.settled == {Basis.LIFECYCLE: whole} and co2e_ug < 0 < onsite_ul
    (row,) = node.reader.totals(*ALL, "all")
    assert row.settled == whole and row.settled_bases == (Basis.LIFECYCLE,)
    assert row.facility_uj == 15_000_000_000 * 1_560_000 // 10**6
    assert row.settled_facility_uj == (10_000_000_000 * 1_210_000 + 5 * 10**9 * 1_560_000) // 10**6
    detail = node.reader.job("slurm", "42")
    (listed,) = node.reader.jobs(JobQuery())
    assert detail is not None and detail.settled == listed.book.settled
    assert detail.settled[Basis.LIFECYCLE].co2e_ug == parts[1].co2e_ug
    assert node.reader.check(footprint) == []
    node.reopen()
    assert node.ledger.books.settled == after.settled
    assert node.ledger.books.restatements == (said,)


@pytest.mark.parametrize("rolled", [False, True], ids=["slots", "hours"])
def test_twice_is_once_and_the_last_one_holds(node: Node, rolled: bool) -> None:
    node.book({key(SLOT_S + 300 * n): 10**10 for n in range(24)})
    if rolled:
        node.roll_up(SLOT_S + 2 * HOUR)
    node.say(restatement(0, 2, pue_ppm=1_300_000))
    assert node.apply() == (2 if rolled else 24)
    once, first = node.content(), node.settled
    assert node.say(restatement(0, 1, made_at_ns=6, pue_ppm=1_300_000)) == () and node.apply() == 0
    assert node.content() == once, "it is in force already: nothing is written"

    node.say(restatement(1, 2, made_at_ns=7, pue_ppm=1_400_000))
    assert node.apply() == (1 if rolled else 12)
    # A factor that the later one leaves alone is still what the earlier one says.
    node.say(restatement(0, 2, made_at_ns=8, wue_ul_per_kwh=1))
    node.apply()
    assert node.settled.restated_uj == first.restated_uj == 24 * 10**10
    said = node.ledger.books.restatements
    for slot, pue_ppm in ((SLOT_S, 1_300_000), (SLOT_S + HOUR, 1_400_000)):
        assert factors_at(slot, said) == {"pue_ppm": pue_ppm, "wue_ul_per_kwh": 1}
    assert len(said) == 3 and node.reader.restatements() == said
    assert node.reader.check(footprint) == []


def test_settled_and_restated_are_one_price(node: Node) -> None:
    """In whichever order: what is published takes effect with what is restated."""
    for order in (0, 1):
        slot_s = SLOT_S + HOUR * order
        node.book({key(slot_s): 10**10})
        one = settlement(slot_s, PRICE, 100)
        said = restatement(order, order + 1, pue_ppm=1_200_000)
        if order:
            node.say(said)
            node.apply()
            node.settle(one)
        else:
            node.settle(one)
            node.say(said)
            node.apply()
        final = restated_price(one.settled, {"pue_ppm": 1_200_000})
        part = change(10**10, PRICE, final)
        rows = node.reader.totals(slot_s * NS_PER_S, (slot_s + 1) * NS_PER_S, "all")
        assert rows[0].settled == Settled(
            10**10, part.co2e_ug, part.water_grid_ul, part.water_onsite_ul, 10**10
        )
        assert node.apply() == 0
        node.settle(one)
    assert node.reader.check(footprint) == []


@pytest.mark.parametrize("rolled", [False, True], ids=["slots", "hours"])
def test_what_is_booked_later_into_a_restated_span_gets_it(node: Node, rolled: bool) -> None:
    node.book({key(SLOT_S): 10**10})
    node.say(restatement(0, None, pue_ppm=1_200_000))
    node.apply()
    node.book({key(SLOT_S): 7, key(SLOT_S + 300): 10**9})
    if rolled:
        node.roll_up(SLOT_S + HOUR)
    assert node.settled.restated_uj == 10**10, "not yet"
    assert node.apply() == (1 if rolled else 2)
    assert node.settled.restated_uj == 11 * 10**9 + 7
    assert node.apply() == 0 and node.reader.check(footprint) == []


def test_what_lies_ahead_or_elsewhere_is_left_alone(node: Node) -> None:
    node.book({key(SLOT_S): 10**10})
    node.say(restatement(1, 3, pue_ppm=1_200_000), restatement(40, None, pue_ppm=1_100_000))
    assert node.apply() == 0 and node.settled == Settled()


def test_restating_has_a_meaning_per_factor() -> None:
    one, two = restatement(0, 2, pue_ppm=1_200_000), restatement(1, 4, wue_ul_per_kwh=7)
    assert spans([two, one]) == [(SLOT_S, SLOT_S + 4 * HOUR)]
    assert spans([restatement(5, 6, pue_ppm=1), one]) == [
        (SLOT_S, SLOT_S + 2 * HOUR),
        (SLOT_S + 5 * HOUR, SLOT_S + 6 * HOUR),
    ]
    assert says_anew(one, ()) and not says_anew(one, (one, two))
    assert says_anew(restatement(0, 3, pue_ppm=1_200_000), (one, two)), "of the third hour"
    assert says_anew(one, (one, restatement(1, 2, pue_ppm=1))), "it was said otherwise since"
    assert restated_price(PRICE, {}) is PRICE


@pytest.mark.parametrize("after", [False, True])
def test_a_commit_of_unknown_outcome_says_it_once(tmp_path: Path, after: bool) -> None:
    disk = Disk()
    with noded(tmp_path / "ledger.sqlite", disk.factory()) as node:
        node.book({key(SLOT_S): 10**10})
        said = restatement(pue_ppm=1_200_000)
        disk.arm(COMMIT, after=after, sticky=True)
        with pytest.raises(CommitFailed):
            node.ledger.commit(batch(restatements=(said,)), node.clock.now())
        assert node.ledger.books.restatements == ()
        node.ledger.commit(batch(restatements=(said,)), node.clock.now())
        assert node.ledger.books.restatements == (said,) == node.reader.restatements()
        node.apply()
        assert node.settled.restated_uj == 10**10 and node.reader.check(footprint) == []


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE restatement SET pue_ppm = 1", "that nobody restated"),
        ("UPDATE restatement SET to_s = from_s + 3600, from_s = from_s - 3600", "nobody restated"),
        ("UPDATE settled SET water_onsite_diff_ul = water_onsite_diff_ul + 1", "settle by"),
        ("UPDATE settled SET restated_uj = 0", "settle by"),
        ("UPDATE settled SET settled_uj = energy_uj + 1", "settle by"),
        ("UPDATE settled_total SET moved_uj = 1", "basis lifecycle: settlements less"),
        ("UPDATE settled_run SET restated_uj = 0", "run 1 lifecycle: settlements less"),
    ],
)
def test_a_restatement_that_is_off_is_found(node: Node, damage: str, found: str) -> None:
    node.book({key(SLOT_S, payee=JOB.payee): 7_000_000_000})
    node.say(restatement(pue_ppm=1_200_000, wue_ul_per_kwh=5))
    node.apply()
    assert node.reader.check(footprint) == []
    with closing(sqlite3.connect(node.path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(damage.replace("to_s = from_s + 3600, ", "to_s = from_s, "))
        connection.commit()
    assert any(found in finding for finding in node.reader.check(footprint))


# ── whatever comes ──────────────────────────────────────────────────────────────────────────────

_HOURS = 3
_SLOTS = st.integers(0, 12 * _HOURS - 1).map(lambda number: SLOT_S + 300 * number)
_PRICES = (
    PRICE,
    LIVE,
    LIVE._replace(pue_ppm=1_100_000, ewif_ul_per_kwh=0, ewif_source="config"),
)
_BOOKINGS = bookings(_SLOTS, _PRICES)


@st.composite
def _settlements(draw: Callable[..., object]) -> Settlement:
    price: Price = draw(st.sampled_from(_PRICES))  # type: ignore[assignment]
    table = price.level == 2
    basis = draw(st.sampled_from([Basis.LIFECYCLE, Basis.DIRECT] if table else [Basis.LIFECYCLE]))
    one = settlement(draw(_SLOTS), price, draw(st.integers(0, 2000)), basis)  # type: ignore[arg-type]
    ewif_ul = draw(st.none() | st.integers(0, 5_000_000))
    if ewif_ul is None or price.ewif_source == "config":
        return one
    settled = one.settled._replace(ewif_ul_per_kwh=ewif_ul, ewif_source="mix")  # type: ignore[arg-type]
    history = one.history._replace(digest=f"{one.history.digest} {ewif_ul}")
    return one._replace(settled=settled, history=history)


_RESTATEMENTS = st.builds(
    lambda start, length, made, factors: restatement(start, start + length, made, **factors),
    st.integers(0, _HOURS - 1),
    st.integers(1, _HOURS),
    st.integers(1, 10**6),
    st.dictionaries(
        st.sampled_from(["pue_ppm", "wue_ul_per_kwh", "ewif_ul_per_kwh"]),
        st.integers(0, 3_000_000),
        min_size=1,
    ),
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("book"), _BOOKINGS),
            st.tuples(st.just("settle"), st.lists(_settlements(), max_size=6)),
            st.tuples(st.just("say"), _RESTATEMENTS),
            st.tuples(
                st.sampled_from(["apply", "reopen", "roll up"]),
                st.none(),
            ),
            st.tuples(st.just("fail"), st.tuples(st.booleans(), _BOOKINGS, _RESTATEMENTS)),
        ),
        min_size=1,
        max_size=14,
    )
)
def test_any_bookings_settlements_restatements_and_roll_ups_balance(
    steps: list[tuple[str, object]],
) -> None:
    """Counters only grow; provisional + difference = Σ floor(energy × final price), of an hour of n
    slots within n of it; and all of it again changes nothing."""
    disk = Disk()
    with (
        tempfile.TemporaryDirectory() as place,
        noded(Path(place) / "ledger.sqlite", disk.factory()) as node,
    ):
        energy: dict[EntryKey, int] = {}
        # What of an entry is corrected, and the price published for that; else that of the books.
        known: dict[EntryKey, tuple[int, Price]] = {}
        rolled_s = SLOT_S
        for what, argument in (*steps, ("apply", None)):
            before = node.ledger.books
            booked: dict[EntryKey, int] = {}
            if what == "book":
                booked = _since(argument, rolled_s)
                node.book(booked)
            elif what == "settle":
                node.settle(*argument)  # type: ignore[misc]
                for one in argument:  # type: ignore[attr-defined]
                    for k, uj in energy.items():
                        if (k.slot_s, k.price) == one[:2] and k.slot_s >= rolled_s:
                            known[k] = uj, one.settled
            elif what == "say":
                node.say(argument)  # type: ignore[arg-type]
            elif what == "apply":
                node.apply()
                for k, uj in energy.items():
                    if k.slot_s >= rolled_s and factors_at(k.slot_s, node.reader.restatements()):
                        known[k] = uj, known.get(k, (0, k.price))[1]
                once = node.content()
                assert node.apply() == 0 and node.content() == once
            elif what == "roll up":
                node.roll_up(rolled_s := rolled_s + HOUR)
            elif what == "fail":
                after, bookings, said = argument  # type: ignore[misc]
                booked = _since(bookings, rolled_s)
                both = batch(booked, runs=(JOB,), restatements=(said,))
                disk.arm(COMMIT, after=after, sticky=True)
                with pytest.raises(CommitFailed):
                    node.ledger.commit(both, node.clock.now())
                node.ledger.commit(both, node.clock.now())
            else:
                node.reopen()
            for k, uj in booked.items():
                energy[k] = energy.get(k, 0) + uj
            for cell, total in before.totals.items():
                grown = map(int.__sub__, node.ledger.books.totals[cell].amounts, total.amounts)
                assert all(part >= 0 for part in grown), "no counter falls"
            _all_balances(node)

        final: dict[Basis, Amounts] = {}
        for k, uj in energy.items():
            factors = factors_at(k.slot_s, node.ledger.books.restatements)
            known_uj, price = known.get(k, (0, k.price))
            rest = restated_price(k.price, factors if k.slot_s < rolled_s else {})
            late = map(int.__sub__, footprint(uj, rest), footprint(known_uj, rest))
            parts = (footprint(known_uj, restated_price(price, factors)), Amounts(*late))
            for basis, part in zip((price.basis, k.price.basis), parts, strict=True):
                final[basis] = final.get(basis, Amounts()).plus(part)
        slack = 0 if rolled_s == SLOT_S else 12 * len(energy)
        known_since, provisional = node.ledger.books.settled, _by_basis(node)
        for basis in Basis:
            co2e_ug = provisional.get(basis, 0) + known_since.get(basis, Settled()).co2e_ug
            assert abs(co2e_ug - final.get(basis, Amounts()).co2e_ug) <= slack
        (row,) = node.reader.totals(*ALL, "all") or [TotalsRow("all", Amounts(), 0)]
        for found, name in (
            (row.amounts.water_onsite_ul + row.settled.water_onsite_ul, "water_onsite_ul"),
            (row.amounts.water_grid_ul + row.settled.water_grid_ul, "water_grid_ul"),
        ):
            expected = sum(getattr(part, name) for part in final.values())
            assert abs(found - expected) <= slack
        parts_uj = {basis: part.energy_uj for basis, part in final.items()}
        assert set(row.settled_bases) == {basis for basis, uj in parts_uj.items() if uj}


def _since(bookings: object, rolled_s: int) -> dict[EntryKey, int]:
    assert isinstance(bookings, dict)
    return {k: uj for k, uj in bookings.items() if k.slot_s >= rolled_s}


def _by_basis(node: Node) -> dict[Basis, int]:
    found: dict[Basis, int] = {}
    for cell, total in node.ledger.books.totals.items():
        found[cell.basis] = found.get(cell.basis, 0) + total.amounts.co2e_ug
    return found


def _all_balances(node: Node) -> None:
    """The rows balance, and every grouping sums to what is said of the whole."""
    assert node.reader.check(footprint) == []
    whole = node.settled
    for by in ("all", "hour", "payee"):
        rows = node.reader.totals(*ALL, by)
        summed = Settled()
        for row in rows:
            summed = summed.plus(row.settled)
        assert summed == whole
    assert whole.moved_uj == 0
