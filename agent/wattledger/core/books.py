"""What has been measured and priced, but not yet committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from wattledger.core.intervals import over_slots
from wattledger.model import (
    AttributedInterval,
    Batch,
    CounterReading,
    DeviceInfo,
    EntryKey,
    GridSignal,
    Price,
)
from wattledger.units import NS_PER_MS

HOUR_S = 3600
DAY_S = 86400
MAX_ENTRIES = 20_000  # about 3 MB; a node of 12 devices fills this in 5 days without a commit


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

    def __len__(self) -> int:
        return len(self._energy_uj)

    def book(self, attributed: AttributedInterval, price_at: Callable[[int], Price]) -> None:
        """Add an interval's shares.

        Args:
            attributed: the interval and who pays.
            price_at: the price of a slot, by its start in Unix seconds.
        """
        interval = attributed.interval
        for payee, share_uj in attributed.shares:
            for slot_s, part_uj in over_slots(interval.start_ns, interval.end_ns, share_uj):
                key = EntryKey(slot_s, interval.device, payee, interval.quality, price_at(slot_s))
                self._energy_uj[key] = self._energy_uj.get(key, 0) + part_uj
        if len(self._energy_uj) > self._limit:
            self._coarsen()

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
        )

    def committed(self) -> None:
        """The last batch is written: forget it (time below a millisecond stays pending)."""
        self._energy_uj.clear()
        self._limit = self._max_entries
        self._resets.clear()
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
            if len(merged) <= self._max_entries // 2:
                break
        # Prices that change without end keep their entries apart even so; look again when the
        # number has doubled, not at every booking.
        self._limit = max(self._max_entries, 2 * len(self._energy_uj))
