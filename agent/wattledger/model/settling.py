"""What is known better later: the prices of the past as their source publishes them by now."""

from __future__ import annotations

from typing import NamedTuple

from wattledger.model.pricing import Basis, GridSignal, Price


class Settled(NamedTuple):
    """How far amounts are settled, and what that changes.

    Attributes:
        energy_uj: the energy that was priced anew.
        co2e_ug: its CO2e at the settled prices less that in the books; may be below 0.
        water_grid_ul: likewise of the grid's water.
    """

    energy_uj: int = 0
    co2e_ug: int = 0
    water_grid_ul: int = 0

    def plus(self, other: Settled) -> Settled:
        """The sum, quantity by quantity."""
        return Settled(
            self.energy_uj + other.energy_uj,
            self.co2e_ug + other.co2e_ug,
            self.water_grid_ul + other.water_grid_ul,
        )


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
    """

    slot_s: int
    price: Price
    energy_uj: int
    settled: Price | None


class Settlement(NamedTuple):
    """A slot's energy at one price is settled at another one.

    Attributes:
        slot_s: Unix seconds.
        price: that of the books.
        settled: the one published since; of the same basis, PUE and WUE.
        history: whose word that is.
    """

    slot_s: int
    price: Price
    settled: Price
    history: HistoryVersion


class Published(NamedTuple):
    """What a source says by now of a span of the past; its signals are oldest first."""

    history: HistoryVersion
    signals: tuple[GridSignal, ...]
