"""Which processes use a GPU, and how much each: the questions behind whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from wattledger.meters.nvml.lists import COMPUTE, GRAPHICS, Failure, Lists
from wattledger.meters.nvml.multiprocessors import SmUse
from wattledger.model.measuring import Process
from wattledger.units import NS_PER_S

GRAPHICS_INTERVAL_NS = 60 * NS_PER_S  # desktops only, and there it is always somebody


class Looked(Enum):
    """What came of a look."""

    NOT_DUE = auto()
    LISTED = auto()
    MEASURED = auto()
    SKIPPED = auto()


class ProcessList:
    """The processes on one GPU without MIG, asked for every few seconds; what was last known.

    One question is asked at a time, since each costs two driver calls: who is there and, where
    several are, how much each of them uses the multiprocessors.

    Attributes:
        listed: compute and graphics processes, a new tuple each time; None: it cannot be told.
    """

    def __init__(self, lists: Lists, use: SmUse, interval_ns: int) -> None:
        """A list not read yet.

        Args:
            lists: the door to the driver's lists.
            use: the use of this GPU's multiprocessors.
            interval_ns: between two questions.
        """
        self._lists = lists
        self._use = use
        self._interval_ns = interval_ns
        self._due_ns = self._graphics_due_ns = self._listed_ns = 0
        self._supported = True
        self._still = False
        self._last = Looked.NOT_DUE
        self._compute: set[int] | None = None
        self._graphics: set[int] = set()
        self._sm: Mapping[int, int | None] = {}
        self.listed: tuple[Process, ...] | None = None

    def forget(self) -> None:
        """It cannot be told any more."""
        self.listed = None

    def renew(self) -> None:
        """A new handle: what was not supported before may be now."""
        self._due_ns = self._graphics_due_ns = 0
        self._supported = True
        self._still = False
        self._last = Looked.NOT_DUE
        self._sm = {}
        self._use.renew()

    def read(self, handle: Any, now_ns: int, delay_ns: int, *, may_skip: bool = False) -> Looked:
        """Ask the next question if it is time.

        Args:
            handle: the GPU's.
            now_ns: CLOCK_MONOTONIC.
            delay_ns: added after the first time, so that GPUs are not all asked in one turn.
            may_skip: while the list stands still, let a time pass for another question: a process
                that ends is seen in /proc.
        """
        if now_ns < self._due_ns or not self._supported:
            return Looked.NOT_DUE
        first = not self._due_ns
        slack_ns = self._interval_ns // 20  # turns are not held to the nanosecond
        self._due_ns = now_ns + self._interval_ns - slack_ns + (delay_ns if first else 0)
        shared = self.listed is not None and len(self.listed) > 1
        if shared and self._last is Looked.LISTED and self._use.answers and self._measure(handle):
            self._last = Looked.MEASURED
        elif may_skip and self._still and self._last is not Looked.SKIPPED:
            self._last = Looked.SKIPPED
        else:
            self._list(handle, now_ns, delay_ns if first else 0)
            self._last = Looked.LISTED
        return self._last

    def hurry(self, handle: Any, now_ns: int) -> None:
        """List them now, out of turn, unless that was done in this very turn."""
        if self._supported and now_ns != self._listed_ns:
            self._list(handle, now_ns, 0)

    def _list(self, handle: Any, now_ns: int, delay_ns: int) -> None:
        self._listed_ns = now_ns
        before = self._compute
        compute = self._lists.ask(COMPUTE, handle)
        self._supported = compute is not Failure.LASTING  # it is not asked again
        self._compute = None if isinstance(compute, Failure) else set(compute)
        if now_ns >= self._graphics_due_ns and self._supported:
            self._graphics_due_ns = now_ns + GRAPHICS_INTERVAL_NS + delay_ns
            graphics = self._lists.ask(GRAPHICS, handle)
            self._graphics = set() if isinstance(graphics, Failure) else set(graphics)
        self._still = bool(self._compute) and self._compute == before
        if self._compute is None:
            self.listed = None
        else:
            self._tell(self._lists.living(self._compute | self._graphics))

    def _measure(self, handle: Any) -> bool:
        """Whether it can be told at all."""
        listed = self.listed or ()
        used = self._use.read(handle)
        self._sm = {} if used is None else {p.pid: used.get(p.pid, 0) for p in listed}
        self._tell(listed)
        return self._use.answers

    def _tell(self, listed: tuple[Process, ...]) -> None:
        """With each one's use as last told; who is alone needs none."""
        sm = self._sm if len(listed) > 1 else {}
        self.listed = tuple(p._replace(sm=sm.get(p.pid)) for p in listed)
