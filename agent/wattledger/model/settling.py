"""What is known better later: the prices of the past as their source publishes them by now."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from wattledger.model.pricing import Basis, GridSignal, Price


class Settled(NamedTuple):
    """What is known better of amounts by now, and what that changes.

    Where the intensity that was published since counts something else (another `Basis`) than the
    one that was booked, the CO2e booked is taken away from the one and the final one added to the
    other; all other figures count where the final one does.

    Attributes:
        energy_uj: the energy that was priced anew by what its source published.
        co2e_ug: CO2e at the final prices less that in the books; may be below 0.
        water_grid_ul: likewise of the grid's water.
        water_onsite_ul: likewise of the water on site.
        restated_uj: the energy of which a factor was restated.
        moved_uj: of one basis: energy that came to it from others (or, below 0, went); of all: 0.
    """

    energy_uj: int = 0
    co2e_ug: int = 0
    water_grid_ul: int = 0
    water_onsite_ul: int = 0
    restated_uj: int = 0
    moved_uj: int = 0

    def plus(self, other: Settled) -> Settled:
        """The sum, quantity by quantity."""
        return Settled(*map(int.__add__, self, other))

    def less(self, other: Settled) -> Settled:
        """The difference, quantity by quantity."""
        return Settled(*map(int.__sub__, self, other))


NOT_SETTLED = Settled()
SettledBy = Mapping[Basis, Settled]
"""By what the intensities count."""
NONE_SETTLED: SettledBy = MappingProxyType({})


def sum_of_settled(settled: SettledBy) -> Settled:
    """Over all bases: CO2e that counts unlike things, where there are several."""
    whole = Settled()
    for part in settled.values():
        whole = whole.plus(part)
    return whole


def final_bases(booked_uj: Mapping[Basis, int], settled: SettledBy) -> tuple[Basis, ...]:
    """What the final CO2e counts, in order.

    Args:
        booked_uj: the energy by the basis that it was booked on.
        settled: what is known better.
    """
    final_uj = dict(booked_uj)
    for basis, part in settled.items():
        final_uj[basis] = final_uj.get(basis, 0) + part.moved_uj
    return tuple(sorted(basis for basis, uj in final_uj.items() if uj)) or tuple(sorted(booked_uj))


class HistoryVersion(NamedTuple):
    """One word of a source on the past: which it was, and when it was given.

    Attributes:
        source: its name.
        zone: as it names it.
        basis: what its intensities count.
        from_ns: wall clock, the span that was asked for.
        to_ns: wall clock, exclusive.
        signals: how many it gave.
        digest: SHA-256 of them, in hex.
        fetched_at_ns: wall clock.
    """

    source: str
    zone: str
    basis: Basis
    from_ns: int
    to_ns: int
    signals: int
    digest: str
    fetched_at_ns: int


class PricedSlot(NamedTuple):
    """The energy of a slot that one price was booked at.

    Attributes:
        slot_s: Unix seconds.
        price: that of the books.
        energy_uj: over all its entries.
        settled: the price that all of it was settled at; None: not all of it, or not at one.
        entries: how many they are.
    """

    slot_s: int
    price: Price
    energy_uj: int
    settled: Price | None
    entries: int = 1


class Settlement(NamedTuple):
    """A slot's energy at one price is settled at another one.

    Attributes:
        slot_s: Unix seconds.
        price: that of the books.
        settled: the one published since; of the same PUE and WUE. What no source priced (the
            table did) may be settled on another basis.
        history: whose word that is.
        entries: how many they are.
        part: of them, those of the payees whose row is this, modulo `parts`.
        parts: in how many parts they are corrected, each with a commit of its own.
    """

    slot_s: int
    price: Price
    settled: Price
    history: HistoryVersion
    entries: int = 1
    part: int = 0
    parts: int = 1


class Published(NamedTuple):
    """What a source says by now of a span of the past; its signals are oldest first."""

    history: HistoryVersion
    signals: tuple[GridSignal, ...]
