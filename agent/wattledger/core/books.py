"""What has been measured and priced, but not yet committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from wattledger.core.entries import Entries
from wattledger.model import (
    AttributedInterval,
    Batch,
    CounterReading,
    DeviceInfo,
    GridSignal,
    Price,
    Usage,
)
from wattledger.model.jobs import JobRun
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
        self._entries = Entries()
        self._unobserved_ns: dict[str, int] = {}
        self._resets: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries.energy_uj)

    def book(
        self,
        attributed: AttributedInterval,
        price_at: Callable[[int], Price],
        usage: Usage | None = None,
    ) -> None:
        """Add an interval's shares; see `Entries.book`."""
        self._entries.book(attributed, price_at, usage)
        if len(self) > self._limit:
            self._coarsen()

    def decide(self, device: str, *, used: bool) -> None:
        """Whether a held device was used at all; see `Entries.decide`."""
        self._entries.decide(device, used=used)

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
            energy_uj=dict(self._entries.energy_uj),
            unobserved_ms={d: ns // NS_PER_MS for d, ns in self._unobserved_ns.items()},
            resets=dict(self._resets),
            devices=devices,
            checkpoints=checkpoints,
            signals=signals,
            notes=notes,
            books_ns=books_ns,
            runs=runs,
            held={k: one for k, held in self._entries.held.items() if any(one := held.whole())},
        )

    def committed(self) -> None:
        """The last batch is written: forget it (time below a millisecond stays pending)."""
        entries = self._entries
        entries.energy_uj.clear()
        self._limit = self._max_entries
        self._resets.clear()
        newest_s = max((key.slot_s for key in entries.held), default=0)
        entries.held = {
            key: left
            for key, held in entries.held.items()
            if key.slot_s == newest_s and (left := held.rest()) is not None
        }
        self._unobserved_ns = {
            d: ns % NS_PER_MS for d, ns in self._unobserved_ns.items() if ns % NS_PER_MS
        }

    def _coarsen(self) -> None:
        newest_s = max(key.slot_s for key in self._entries.energy_uj)
        for grain_s in (HOUR_S, DAY_S):
            self._entries.coarsen(newest_s, grain_s)
            if len(self) <= self._max_entries // 2:
                break
        # Prices that change without end keep their entries apart even so; look again when the
        # number has doubled, not at every booking.
        self._limit = max(self._max_entries, 2 * len(self))
