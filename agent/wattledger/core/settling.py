"""Which published price settles what was booked.

    booked at a source's price (live or last good)   by that source, for its zone
    booked at the table's                            by the first source that published for it

What a source priced is settled on the basis that it was booked on: intensities of two bases are not
one figure with a correction, so that another basis is refused and told. What the table priced is
settled on the basis of the source that it stood in for, so that an outage ends up as what lies
before and after it: the books take it from the one basis and add it to the other. PUE and WUE stay,
and an EWIF that the site names; else that of the mix holds, where the source tells one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wattledger.model import Basis, FallbackLevel, GridSignal, Price
from wattledger.model.settling import PricedSlot, Published, Settlement
from wattledger.units import NS_PER_S, SLOT_NS


class Plan(NamedTuple):
    """What a look at the published past comes to.

    Attributes:
        settlements: those that change something.
        settled_uj: the energy that is settled with them.
        unpublished_uj: the energy that no source has published a price for.
        other_basis_uj: the energy that a source priced, and that has one on another basis only.
    """

    settlements: tuple[Settlement, ...] = ()
    settled_uj: int = 0
    unpublished_uj: int = 0
    other_basis_uj: int = 0


def plan(
    slots: Iterable[PricedSlot],
    published: Sequence[Published],
    *,
    table_zone: str,
    now_ns: int,
) -> Plan:
    """What has to be settled.

    A slot takes the intensity of its last instant, as energy of a past slot is booked; the present
    slot that of now.

    Args:
        slots: what was booked.
        published: what the sources say, in order of preference.
        table_zone: the row of the country table that stands in for those sources.
        now_ns: wall clock.
    """
    starts = [[signal.valid_from_ns for signal in words.signals] for words in published]
    settlements: list[Settlement] = []
    settled_uj = unpublished_uj = other_basis_uj = 0
    for slot in slots:
        at_ns = _decisive_ns(slot, now_ns)
        of_slot = [
            (words.history, signal)
            for words, from_ns in zip(published, starts, strict=True)
            if may_settle(words.history.source, words.history.zone, slot.price, table_zone)
            and (signal := _covering(words.signals, from_ns, at_ns)) is not None
        ]
        fitting = [
            one
            for one in of_slot
            if one[1].basis is slot.price.basis
            or (slot.price.level == FallbackLevel.TABLE and one[1].basis is not Basis.MARGINAL)
        ]
        if fitting:
            history, signal = fitting[0]
            settled = settled_price(slot.price, signal)
            settled_uj += slot.energy_uj
            if settled != slot.settled:
                settlements.append(
                    Settlement(slot.slot_s, slot.price, settled, history, slot.entries)
                )
        elif slot.settled is not None:  # what was published once stays
            settled_uj += slot.energy_uj
        elif of_slot:
            other_basis_uj += slot.energy_uj
        else:
            unpublished_uj += slot.energy_uj
    return Plan(tuple(settlements), settled_uj, unpublished_uj, other_basis_uj)


def needed(words: Published, slots: Iterable[PricedSlot], now_ns: int) -> Published:
    """What a source says, less the signals that decide about none of these slots.

    `plan` comes to the same by it, and what is held is bounded by the slots: not by a source that
    tells of each second.

    Args:
        words: what the source says.
        slots: those that will be planned for.
        now_ns: wall clock.
    """
    starts = [signal.valid_from_ns for signal in words.signals]
    looked_at = {bisect_right(starts, _decisive_ns(slot, now_ns)) - 1 for slot in slots}
    kept = tuple(words.signals[found] for found in sorted(looked_at) if found >= 0)
    return words._replace(signals=kept)


def may_settle(source: str, zone: str, price: Price, table_zone: str) -> bool:
    """Whether a source's word is about what a price stood for."""
    if price.level == FallbackLevel.TABLE:
        return price.zone == table_zone
    return (price.source, price.zone) == (source, zone)


def settled_price(price: Price, signal: GridSignal) -> Price:
    """The booked price with what was published since; all else stays.

    That is the intensity and, where the source tells of what the electricity was made and the site
    does not name an EWIF of its own, the water of that mix.
    """
    settled = price._replace(
        intensity_ug_per_kwh=signal.intensity_ug_per_kwh,
        zone=signal.zone,
        source=signal.source,
        basis=signal.basis,
        estimated=signal.estimated,
        level=FallbackLevel.LIVE,
        signal_from_ns=signal.valid_from_ns,
        signal_to_ns=signal.valid_to_ns,
    )
    if signal.ewif_ul_per_kwh is None or price.ewif_source == "config":
        return settled
    return settled._replace(ewif_ul_per_kwh=signal.ewif_ul_per_kwh, ewif_source="mix")


def _decisive_ns(slot: PricedSlot, now_ns: int) -> int:
    """The instant whose intensity a slot takes."""
    return min(slot.slot_s * NS_PER_S + SLOT_NS - 1, now_ns)


def _covering(
    signals: Sequence[GridSignal], starts: Sequence[int], at_ns: int
) -> GridSignal | None:
    """The signal that is valid at an instant; in a gap there is none."""
    found = bisect_right(starts, at_ns) - 1
    return signals[found] if found >= 0 and at_ns < signals[found].valid_to_ns else None
