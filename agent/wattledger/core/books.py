"""What has been measured and priced, but not yet committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wattledger.core.intervals import over_slots
from wattledger.model import (
    AttributedInterval,
    Batch,
    CounterReading,
    DeviceInfo,
    EntryKey,
    GridSignal,
    Price,
    Quality,
    Usage,
)
from wattledger.model.jobs import Held, JobRun
from wattledger.units import NS_PER_MS

HOUR_S = 3600
DAY_S = 86400
MAX_ENTRIES = 20_000  # about 3 MB; a node of 12 devices fills this in 5 days without a commit


MAX_UNDECIDED = 256  # holders and slots of one device


@dataclass(slots=True)
class _Held:
    """How long a device was held, how much of that for nothing."""

    held_ns: int = 0
    idle_ns: int = 0
    idle_uj: int = 0

    def whole(self) -> Held:
        """In whole milliseconds."""
        return Held(self.held_ns // NS_PER_MS, self.idle_ns // NS_PER_MS, self.idle_uj)

    def rest(self) -> _Held | None:
        """What is left below a millisecond."""
        held_ns, idle_ns = self.held_ns % NS_PER_MS, self.idle_ns % NS_PER_MS
        return _Held(held_ns, idle_ns) if held_ns or idle_ns else None


def _coarsened(
    held: Mapping[EntryKey, _Held], newest_s: int, grain_s: int
) -> dict[EntryKey, _Held]:
    merged: dict[EntryKey, _Held] = {}
    for key, one in held.items():
        if key.slot_s < newest_s - grain_s:
            key = key._replace(slot_s=key.slot_s // grain_s * grain_s)
        whole = merged.setdefault(key, _Held())
        whole.held_ns += one.held_ns
        whole.idle_ns += one.idle_ns
        whole.idle_uj += one.idle_uj
    return merged


class PendingBooks:
    """Bookings on their way to the ledger.

    A commit that fails loses nothing: the bookings stay here until one succeeds. An outage of the
    disk may last for weeks, so that beyond `MAX_ENTRIES` the grain becomes an hour, then a day:
    energy and prices stay exact, only the time within them blurs.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._limit = self._max_entries = max_entries
        self._energy_uj: dict[EntryKey, int] = {}
        self._unobserved_ns: dict[str, int] = {}
        self._resets: dict[str, int] = {}
        self._held: dict[EntryKey, _Held] = {}
        self._undecided: dict[str, dict[EntryKey, _Held]] = {}

    def __len__(self) -> int:
        return len(self._energy_uj)

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
        for payee, share_uj in attributed.shares:
            for slot_s, part_uj in over_slots(interval.start_ns, interval.end_ns, share_uj):
                key = EntryKey(slot_s, interval.device, payee, interval.quality, price_at(slot_s))
                self._energy_uj[key] = self._energy_uj.get(key, 0) + part_uj
        if len(self._energy_uj) > self._limit:
            self._coarsen()

    def _hold(
        self, attributed: AttributedInterval, usage: Usage, price_at: Callable[[int], Price]
    ) -> None:
        interval = attributed.interval
        shares = dict(attributed.shares)
        waiting = self._undecided.setdefault(interval.device, {})
        if len(waiting) > MAX_UNDECIDED:
            waiting.clear()  # nobody tells whether it was used
        for payee, weight in usage.weights:
            duration_ns = (interval.end_ns - interval.start_ns) * weight // usage.whole
            energy = dict(over_slots(interval.start_ns, interval.end_ns, shares.get(payee, 0)))
            for slot_s, part_ns in over_slots(interval.start_ns, interval.end_ns, duration_ns):
                key = EntryKey(slot_s, interval.device, payee, interval.quality, price_at(slot_s))
                self._held.setdefault(key, _Held()).held_ns += part_ns
                if interval.quality is not Quality.RECOVERED:
                    idle = waiting.setdefault(key, _Held())
                    idle.idle_ns += part_ns
                    idle.idle_uj += energy.get(slot_s, 0)

    def decide(self, device: str, *, used: bool) -> None:
        """Whether a held device was used at all since it was last told.

        All that was booked on its holders in between was idle, or none of it.
        """
        for key, waiting in self._undecided.pop(device, {}).items():
            if not used:
                held = self._held.setdefault(key, _Held())
                held.idle_ns += waiting.idle_ns
                held.idle_uj += waiting.idle_uj

    def unobserved(self, device: str, duration_ns: int) -> None:
        """Add time in which nothing measured a device."""
        self._unobserved_ns[device] = self._unobserved_ns.get(device, 0) + duration_ns

    def reset(self, device: str) -> None:
        """Count a reset of a device's counter."""
        self._resets[device] = self._resets.get(device, 0) + 1

    def batch(
        self,
        *,
        devices: tuple[DeviceInfo, ...],
        checkpoints: Mapping[str, CounterReading | None],
        signals: tuple[GridSignal, ...],
        notes: Mapping[str, str],
        books_ns: int,
        runs: tuple[JobRun, ...] = (),
    ) -> Batch:
        """Everything pending with the state that belongs to it, for one commit."""
        return Batch(
            energy_uj=dict(self._energy_uj),
            unobserved_ms={d: ns // NS_PER_MS for d, ns in self._unobserved_ns.items()},
            resets=dict(self._resets),
            devices=devices,
            checkpoints=checkpoints,
            signals=signals,
            notes=notes,
            books_ns=books_ns,
            runs=runs,
            held={key: one for key, held in self._held.items() if any(one := held.whole())},
        )

    def committed(self) -> None:
        """The last batch is written: forget it (time below a millisecond stays pending)."""
        self._energy_uj.clear()
        self._limit = self._max_entries
        self._resets.clear()
        newest_s = max((key.slot_s for key in self._held), default=0)
        self._held = {
            key: left
            for key, held in self._held.items()
            if key.slot_s == newest_s and (left := held.rest()) is not None
        }
        self._unobserved_ns = {
            d: ns % NS_PER_MS for d, ns in self._unobserved_ns.items() if ns % NS_PER_MS
        }

    def _coarsen(self) -> None:
        newest_s = max(key.slot_s for key in self._energy_uj)
        for grain_s in (HOUR_S, DAY_S):
            merged: dict[EntryKey, int] = {}
            for key, energy_uj in self._energy_uj.items():
                if key.slot_s < newest_s - grain_s:
                    key = key._replace(slot_s=key.slot_s // grain_s * grain_s)
                merged[key] = merged.get(key, 0) + energy_uj
            self._energy_uj = merged
            self._held = _coarsened(self._held, newest_s, grain_s)
            self._undecided = {
                device: _coarsened(waiting, newest_s, grain_s)
                for device, waiting in self._undecided.items()
            }
            if len(merged) <= self._max_entries // 2:
                break
        # Prices that change without end keep their entries apart even so; look again when the
        # number has doubled, not at every booking.
        self._limit = max(self._max_entries, 2 * len(self._energy_uj))
