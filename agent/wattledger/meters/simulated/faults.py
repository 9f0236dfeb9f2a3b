"""Which fault is in force when.

A fault without `since = "boot"` counts from the start of the process, so a daemon that starts
again meets it again; with it, a restarted daemon finds the world as its predecessor left it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wattledger.meters.simulated.scenario import FaultSpec, Span

NEVER_NS = 1 << 80


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault on the clock: in force while start ≤ t < end, in ns since boot."""

    spec: FaultSpec
    start_ns: int
    end_ns: int

    def holds(self, t_ns: int) -> bool:
        """It is in force."""
        return self.start_ns <= t_ns < self.end_ns


def window_ns(span: Span, started_ns: int) -> tuple[int, int]:
    """A span's start and end in ns since boot, for a process started at `started_ns`."""
    start = span.at_ns + (0 if span.since_boot else started_ns)
    return start, NEVER_NS if span.for_ns is None else start + span.for_ns


class FaultPlan:
    """The faults of one scenario, sorted by whom they meet.

    Args:
        specs: the scenario's.
        gpu_count: cards there are.
        started_ns: boot time of the process's start.
    """

    def __init__(self, specs: Iterable[FaultSpec], gpu_count: int, started_ns: int) -> None:
        faults = [Fault(spec, *window_ns(spec.span, started_ns)) for spec in specs]
        self._of_driver = tuple(f for f in faults if f.spec.gpu is None)
        self._of_gpu = tuple(
            tuple(f for f in faults if f.spec.gpu in (None, number)) for number in range(gpu_count)
        )
        self.any_of_gpu = tuple(bool(found) for found in self._of_gpu)
        self._reloads = tuple(f for f in faults if f.spec.kind == "driver_reload")

    def of_driver(self, kind: str, t_ns: int) -> Fault | None:
        """The fault of this kind that holds for the driver as a whole."""
        return _first(self._of_driver, kind, t_ns)

    def of_gpu(self, number: int, kind: str, t_ns: int) -> Fault | None:
        """The fault of this kind that holds for this card."""
        return _first(self._of_gpu[number], kind, t_ns)

    def order(self, t_ns: int) -> list[int]:
        """The numbers of the cards the driver lists, by index."""
        reorder = self.of_driver("reorder", t_ns)
        numbers = reorder.spec.indices if reorder else range(len(self._of_gpu))
        return [n for n in numbers if self.of_gpu(n, "removed", t_ns) is None]

    def rediscovered(self, number: int, since_ns: int, t_ns: int) -> bool:
        """The card left the bus and came back in between: handles from before are invalid."""
        return any(
            f.spec.kind in ("lost", "removed") and since_ns < f.end_ns <= t_ns
            for f in self._of_gpu[number]
        )

    def reloaded(self, since_ns: int, t_ns: int) -> bool:
        """The driver was loaded anew in between, or is being so."""
        return any(f.start_ns <= t_ns and since_ns < f.end_ns for f in self._reloads)

    def driver_version(self, first: str, t_ns: int) -> str:
        """The driver's version, `first` until a reload brought another."""
        loads = [f for f in self._reloads if f.spec.driver_version and f.end_ns <= t_ns]
        return max(loads, key=lambda f: f.end_ns).spec.driver_version if loads else first

    def last_reset_ns(self, number: int, t_ns: int) -> int | None:
        """When the card's counter was last set to 0, or None since boot."""
        resets = [
            at
            for f in self._of_gpu[number]
            if f.spec.kind in ("reset_counter", "driver_reload")
            and (at := f.end_ns if f.spec.kind == "driver_reload" else f.start_ns) <= t_ns
        ]
        return max(resets, default=None)

    def frozen_at_ns(self, number: int, t_ns: int) -> int:
        """The instant whose counter value shows: now, or when it froze."""
        frozen = self.of_gpu(number, "frozen_counter", t_ns)
        return frozen.start_ns if frozen else t_ns

    def skipped(self, number: int, since_ns: int, t_ns: int) -> list[tuple[int, int]]:
        """Spans since the last reset whose energy a thawed counter never caught up with."""
        return [
            (max(f.start_ns, since_ns), f.end_ns)
            for f in self._of_gpu[number]
            if f.spec.kind == "frozen_counter"
            and not f.spec.catch_up
            and since_ns < f.end_ns <= t_ns
        ]


def _first(faults: tuple[Fault, ...], kind: str, t_ns: int) -> Fault | None:
    for fault in faults:
        if fault.spec.kind == kind and fault.start_ns <= t_ns < fault.end_ns:
            return fault
    return None
