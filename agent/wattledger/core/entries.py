"""Bookings by entry: energy, and how long devices were held for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wattledger.core.intervals import only_slot, over_slots
from wattledger.model import (
    AttributedInterval,
    EnergyInterval,
    EntryKey,
    Payee,
    Price,
    Quality,
    Usage,
)
from wattledger.model.jobs import Held
from wattledger.units import NS_PER_MS

MAX_UNDECIDED = 256  # holders and slots of one device


@dataclass(slots=True)
class HeldTime:
    """How long a device was held, how much of that for nothing."""

    held_ns: int = 0
    idle_ns: int = 0
    idle_uj: int = 0

    def add(self, other: HeldTime) -> None:
        """Add another to this one."""
        self.held_ns += other.held_ns
        self.idle_ns += other.idle_ns
        self.idle_uj += other.idle_uj

    def whole(self) -> Held:
        """In whole milliseconds."""
        return Held(self.held_ns // NS_PER_MS, self.idle_ns // NS_PER_MS, self.idle_uj)

    def rest(self) -> HeldTime | None:
        """What is left below a millisecond."""
        held_ns, idle_ns = self.held_ns % NS_PER_MS, self.idle_ns % NS_PER_MS
        return HeldTime(held_ns, idle_ns) if held_ns or idle_ns else None


class Entries:
    """Bookings that nobody has taken yet.

    Attributes:
        energy_uj: entry → µJ.
        held: entry → how long its device was held.
        undecided: device → entry → time and energy that were idle if the device is told to have
            been.
    """

    def __init__(self) -> None:
        self.energy_uj: dict[EntryKey, int] = {}
        self.held: dict[EntryKey, HeldTime] = {}
        self.undecided: dict[str, dict[EntryKey, HeldTime]] = {}

    def book(
        self,
        attributed: AttributedInterval,
        price_at: Callable[[int], Price],
        usage: Usage | None = None,
    ) -> None:
        """Add an interval's shares.

        Args:
            attributed: the interval and who pays.
            price_at: the price of a slot, by its start in Unix seconds.
            usage: by what they were found; where the payees hold the device, that is counted too.
        """
        interval = attributed.interval
        if usage is not None and usage.held:
            self._hold(attributed, usage, price_at)
        device, quality, energy_uj = interval.device, interval.quality, self.energy_uj
        slot_s = only_slot(interval.start_ns, interval.end_ns)
        if slot_s is not None:  # nearly always, and there is one share for each job
            price = price_at(slot_s)
            for payee, share_uj in attributed.shares:
                key = EntryKey(slot_s, device, payee, quality, price)
                energy_uj[key] = energy_uj.get(key, 0) + share_uj
            return
        for payee, share_uj in attributed.shares:
            for slot_s, part_uj in over_slots(interval.start_ns, interval.end_ns, share_uj):
                key = EntryKey(slot_s, device, payee, quality, price_at(slot_s))
                energy_uj[key] = energy_uj.get(key, 0) + part_uj

    def _hold(
        self, attributed: AttributedInterval, usage: Usage, price_at: Callable[[int], Price]
    ) -> None:
        interval = attributed.interval
        shares = dict(attributed.shares)
        waiting = self.undecided.setdefault(interval.device, {})
        if len(waiting) > MAX_UNDECIDED:
            waiting.clear()  # nobody tells whether it was used
        slot_s = only_slot(interval.start_ns, interval.end_ns)
        if slot_s is not None:
            self._hold_in(slot_s, price_at(slot_s), interval, usage, shares, waiting)
            return
        for payee, weight in usage.weights:
            duration_ns = (interval.end_ns - interval.start_ns) * weight // usage.whole
            energy = dict(over_slots(interval.start_ns, interval.end_ns, shares.get(payee, 0)))
            for slot_s, part_ns in over_slots(interval.start_ns, interval.end_ns, duration_ns):
                key = EntryKey(slot_s, interval.device, payee, interval.quality, price_at(slot_s))
                self.held.setdefault(key, HeldTime()).held_ns += part_ns
                if interval.quality is not Quality.RECOVERED:
                    idle = waiting.setdefault(key, HeldTime())
                    idle.idle_ns += part_ns
                    idle.idle_uj += energy.get(slot_s, 0)

    def _hold_in(
        self,
        slot_s: int,
        price: Price,
        interval: EnergyInterval,
        usage: Usage,
        shares: Mapping[Payee, int],
        waiting: dict[EntryKey, HeldTime],
    ) -> None:
        """The same within one slot, which is nearly always."""
        device, quality, held = interval.device, interval.quality, self.held
        length_ns = interval.end_ns - interval.start_ns
        for payee, weight in usage.weights:
            duration_ns = length_ns * weight // usage.whole
            if not duration_ns:
                continue
            key = EntryKey(slot_s, device, payee, quality, price)
            one = held.get(key)
            if one is None:
                one = held[key] = HeldTime()
            one.held_ns += duration_ns
            if quality is not Quality.RECOVERED:
                idle = waiting.get(key)
                if idle is None:
                    idle = waiting[key] = HeldTime()
                idle.idle_ns += duration_ns
                idle.idle_uj += shares.get(payee, 0)

    def decide(self, device: str, *, used: bool) -> None:
        """Whether a held device was used at all since it was last told.

        All that was booked on its holders in between was idle, or none of it.
        """
        for key, waiting in self.undecided.pop(device, {}).items():
            if not used:
                self.held.setdefault(key, HeldTime()).add(waiting)

    def coarsen(self, newest_s: int, grain_s: int) -> None:
        """Merge the slots that are older than a grain into slots of that grain."""
        merged: dict[EntryKey, int] = {}
        for key, energy_uj in self.energy_uj.items():
            if key.slot_s < newest_s - grain_s:
                key = key._replace(slot_s=key.slot_s // grain_s * grain_s)
            merged[key] = merged.get(key, 0) + energy_uj
        self.energy_uj = merged
        self.held = _coarsened(self.held, newest_s, grain_s)
        self.undecided = {
            device: _coarsened(waiting, newest_s, grain_s)
            for device, waiting in self.undecided.items()
        }


def _coarsened(
    held: Mapping[EntryKey, HeldTime], newest_s: int, grain_s: int
) -> dict[EntryKey, HeldTime]:
    merged: dict[EntryKey, HeldTime] = {}
    for key, one in held.items():
        if key.slot_s < newest_s - grain_s:
            key = key._replace(slot_s=key.slot_s // grain_s * grain_s)
        merged.setdefault(key, HeldTime()).add(one)
    return merged
