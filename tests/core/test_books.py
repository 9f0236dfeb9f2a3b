"""Pending books: nothing is lost on the way to the ledger."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fakes import START_WALL_NS
from wattledger.core.attribution import attribute
from wattledger.core.books import PendingBooks
from wattledger.model import IDLE, SYSTEM, Basis, Batch, EnergyInterval, Price, Quality, Usage
from wattledger.units import NS_PER_S

PRICE = Price(473_000_000, "WORLD", "table", Basis.LIFECYCLE, True, 2, 0, 1, 1, 1, 1)


def batch_of(pending: PendingBooks) -> Batch:
    return pending.batch(devices=(), checkpoints={}, signals=(), notes={}, books_ns=0)


def book(pending: PendingBooks, start_s: float, end_s: float, energy_uj: int) -> None:
    interval = EnergyInterval(
        "GPU-1",
        START_WALL_NS + round(start_s * NS_PER_S),
        START_WALL_NS + round(end_s * NS_PER_S),
        energy_uj,
        Quality.METERED,
    )
    usage = Usage("GPU-1", ((SYSTEM, 1),), 3, IDLE)
    pending.book(attribute(interval, usage), lambda slot_s: replace_price(slot_s))


def replace_price(slot_s: int) -> Price:
    return PRICE._replace(signal_from_ns=slot_s // 1800)


@given(
    st.lists(
        st.tuples(st.floats(0, 10**7), st.floats(0, 4000), st.integers(0, 10**12)),
        max_size=60,
    )
)
def test_what_is_booked_is_in_the_batch(bookings: list[tuple[float, float, int]]) -> None:
    """Also where so much is pending that the grain of time becomes coarser."""
    pending = PendingBooks(max_entries=20)
    for start, length, energy in bookings:
        book(pending, start, start + length, energy)
    batch = batch_of(pending)

    assert sum(batch.energy_uj.values()) == sum(energy for _, _, energy in bookings)
    assert all(uj > 0 for uj in batch.energy_uj.values())


def test_a_long_outage_of_the_disk_does_not_grow_without_bound() -> None:
    pending = PendingBooks(max_entries=500)
    for day in range(30):
        for hour in range(24):
            book(pending, day * 86400 + hour * 3600, day * 86400 + hour * 3600 + 3600, 3600)

    assert sum(batch_of(pending).energy_uj.values()) == 30 * 24 * 3600
    assert len(pending) < 5000  # 30 days × 48 prices × 2 payees would be 2,880 at day grain


def test_a_failed_commit_keeps_everything_and_a_good_one_nothing() -> None:
    pending = PendingBooks()
    book(pending, 0, 1, 1000)
    pending.unobserved("GPU-1", 1_500_000)
    pending.reset("GPU-1")
    first = batch_of(pending)

    assert batch_of(pending) == first
    pending.committed()
    empty = batch_of(pending)
    assert (empty.energy_uj, empty.resets) == ({}, {})
    pending.unobserved("GPU-1", 500_000)
    assert first.unobserved_ms == {"GPU-1": 1}
    assert batch_of(pending).unobserved_ms == {"GPU-1": 1}  # 0.5 ms were left, 0.5 ms came


def test_batches_are_not_changed_by_later_bookings() -> None:
    pending = PendingBooks()
    book(pending, 0, 1, 1000)
    batch = batch_of(pending)
    before = replace(batch, energy_uj=dict(batch.energy_uj))
    book(pending, 0, 1, 1000)

    assert batch == before
