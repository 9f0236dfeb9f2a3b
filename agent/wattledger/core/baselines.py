"""The last reading of each device: where its next difference is taken from.

Over a restart the baselines come from the ledger's checkpoints. Three things may not happen: a
difference taken twice (so a baseline never moves back in time), a difference taken over time that
another meter has already booked (so a meter of the CPUs that is left for another one loses its
baselines), and time that nobody measured passing unsaid.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from wattledger.core.intervals import Step, advance
from wattledger.model import (
    Books,
    CounterReading,
    DeviceInfo,
    Instant,
    Kind,
    Quality,
    Reading,
)
from wattledger.units import NS_PER_S

ENDED_NOTE = "books_instant"  # when the books of a commit end, on the clock of its boot
SILENT_NS = 60 * NS_PER_S


class Baselines:
    """Last readings, from the ledger's checkpoints on. Pure: time comes with the readings."""

    def __init__(self, books: Books, started: Instant, boot_id: str) -> None:
        """Take up where the books end.

        Args:
            books: the ledger's committed state.
            started: this process's start.
            boot_id: of this boot.
        """
        self._boot_id = boot_id
        self._started = started
        self._last: dict[str, Reading] = {
            name: record.last_reading
            for name, record in books.devices.items()
            if record.last_reading is not None
        }
        # Devices that this process has not heard of yet, and those to begin anew if they return.
        self._unheard = {name: record.info for name, record in books.devices.items()}
        self._forgotten: set[str] = set()
        self._cpu_meter = ""
        self._ended_wall_ns = books.books_ns
        self._ended_boottime_ns = _boottime_of(books.notes.get(ENDED_NOTE, ""), boot_id)

    def take(self, reading: Reading) -> Step | None:
        """What a reading adds to the books; None: it is not newer than the last one."""
        name = reading.device
        last = self._last.get(name)
        same_boot = not isinstance(last, CounterReading) or last.boot_id == self._boot_id
        if last is not None and same_boot and reading.at.boottime_ns <= last.at.boottime_ns:
            return None
        self._last[name] = reading
        self._forgotten.discard(name)
        if self._unheard.pop(name, None) is None:
            return advance(last, reading)
        if isinstance(last, CounterReading):
            if isinstance(reading, CounterReading):
                return advance(last, reading, recovered=True)
            gap_ns = self._gap_ns(last.at, same_boot, reading)
        else:  # power is not kept over a restart: all since the last commit went unseen
            boottime_ns = self._ended_boottime_ns
            ended = Instant(0, boottime_ns or 0, self._ended_wall_ns)
            gap_ns = self._gap_ns(ended, boottime_ns is not None, reading)
        return Step(unobserved_ns=gap_ns, reason="restart")

    @staticmethod
    def _gap_ns(since: Instant, same_boot: bool, reading: Reading) -> int:
        """Time since an instant, on the wall clock only where it was of another boot."""
        if same_boot:
            return max(0, reading.at.boottime_ns - since.boottime_ns)
        return max(0, reading.at.wall_ns - since.wall_ns)

    def cpus_read_by(self, meter: str, devices: Iterable[DeviceInfo]) -> None:
        """One meter at a time counts the CPUs, under names of its own.

        When another one takes over, what the one before counted from then on is already booked:
        its devices begin anew should it return. DRAM is not covered by the others and goes on.

        Args:
            meter: the meter that reads the CPUs now.
            devices: all devices that this process has heard of.
        """
        if meter == self._cpu_meter:
            return
        self._cpu_meter = meter
        for info in [*self._unheard.values(), *devices]:
            if info.kind is Kind.CPU and info.meter != meter:
                last = self._last.get(info.name)
                # A device that both know by one name notices the change by itself.
                if isinstance(last, CounterReading) and not self._is_read(info.name, devices):
                    del self._last[info.name]
                    self._unheard.pop(info.name, None)
                    self._forgotten.add(info.name)

    def _is_read(self, name: str, devices: Iterable[DeviceInfo]) -> bool:
        return any(i.name == name and i.present and i.meter == self._cpu_meter for i in devices)

    def qualities(self) -> dict[str, Quality]:
        """How each device's energy is found at present, by its last reading."""
        return {
            name: Quality.METERED if isinstance(last, CounterReading) else last.quality
            for name, last in self._last.items()
            if name not in self._unheard
        }

    def read_at_ns(self, device: str) -> int | None:
        """CLOCK_MONOTONIC of a device's last reading of this boot; None: there was none."""
        last = self._last.get(device)
        return None if last is None or device in self._unheard else last.at.monotonic_ns

    def checkpoints(self) -> dict[str, CounterReading | None]:
        """What the ledger is to remember: last counter readings, None for other meters' devices."""
        kept: dict[str, CounterReading | None] = dict.fromkeys(self._forgotten)
        for name, last in self._last.items():
            if name not in self._unheard:
                kept[name] = last if isinstance(last, CounterReading) else None
        return kept

    def complete_up_to_ns(self, devices: Iterable[DeviceInfo], now: Instant) -> int:
        """The wall-clock instant up to which all devices that are here are in the books.

        A device that has been silent for over a minute (asleep, failing) does not hold it back:
        its silence is told by its meter, and what its counter counted is booked when it answers.
        Nor, for that long after a start, does a device that was here before and is yet unheard.
        """
        instants = []
        for info in devices:
            last = self._last.get(info.name) if info.name not in self._unheard else None
            if not info.present or last is None:
                continue
            if now.boottime_ns - last.at.boottime_ns <= SILENT_NS:
                instants.append(last.at.wall_ns)
        if now.boottime_ns - self._started.boottime_ns <= SILENT_NS and self._ended_wall_ns:
            instants += [self._ended_wall_ns for info in self._unheard.values() if info.present]
        return min(instants, default=now.wall_ns)

    @staticmethod
    def ended_note(books_ns: int, now: Instant, boot_id: str) -> str:
        """Where the books of a commit end, as text for the ledger."""
        boottime_ns = now.boottime_ns - (now.wall_ns - books_ns)
        return json.dumps({"boot_id": boot_id, "boottime_ns": boottime_ns})


def _boottime_of(note: str, boot_id: str) -> int | None:
    """The instant of a note on this boot's clock; None: it is of another boot, or unreadable."""
    try:
        read: Mapping[str, object] = json.loads(note) if note else {}
        boottime_ns = read.get("boottime_ns")
        if read.get("boot_id") == boot_id and isinstance(boottime_ns, int):
            return boottime_ns
    except (ValueError, AttributeError):
        pass
    return None
