"""The published past of one source, asked for once for all nodes.

Nodes settle at different minutes and ask for spans that no two of them share. So it is asked for
and kept by whole days of UTC, and what lies within the last 22 hours apart from them: many plans of
providers show the last day only, and a day of UTC may reach further back.

What may still be revised is asked for again: the last two days after an hour, older ones after a
day; only when somebody wants them.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from wattledger.errors import GridError
from wattledger.grid.history import published
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.source import HistorySource
from wattledger.model import GridSignal
from wattledger.ports import Clock
from wattledger.relay.manners import HISTORY, Manners
from wattledger.relay.patience import Patience, WallClock, was_set_between
from wattledger.relay.rows import Rows
from wattledger.units import NS_PER_S, SLOT_NS

log = logging.getLogger(__name__)

HOUR_NS = 3_600 * NS_PER_S
DAY_NS = 24 * HOUR_NS
RECENT_NS = 22 * HOUR_NS  # as the settling of the last day asks
RECENT = -1  # the key of that part; those of days are their starts
_MOST_DAYS = 5  # of one request
_REVISED_NS = 2 * DAY_NS
_LATE_NS = 300 * NS_PER_S  # what a node asked for may come so long after


class Past(NamedTuple):
    """What is known of a span.

    Attributes:
        found: signals, oldest first, each by its place in its rows.
        fetched_ns: wall clock, when the oldest part of it was.
        stale: a part could not be asked for anew.
    """

    found: tuple[tuple[Rows, int], ...]
    fetched_ns: int
    stale: bool

    @property
    def signals(self) -> tuple[GridSignal, ...]:
        """The signals."""
        return tuple(rows.signal(place) for rows, place in self.found)

    def told(self) -> list[bytes]:
        """Each as JSON. Takes a while: some milliseconds for a thousand."""
        return [rows.told()[place] for rows, place in self.found]


class NotYet(Exception):
    """A part is still being asked for."""


class _Part:
    """A day or the recent hours, as last published."""

    def __init__(self) -> None:
        self.rows: Rows | None = None  # None: never given
        self.patience = Patience()


class History:
    """The past of one source. `fetch` is for one thread; the rest for any.

    Args:
        source: whom to ask.
        clock: time.
        most_signals: how many to keep; the days that nobody asked for longest go first.
        most_told: how many of them to keep as JSON too.
        manners: the pauses that the source asked for; None: nobody else asks it.

    Attributes:
        outcomes: how the requests ended, by outcome.
    """

    def __init__(
        self,
        source: HistorySource,
        clock: Clock,
        most_signals: int,
        *,
        most_told: int = 10_000,
        manners: Manners | None = None,
    ) -> None:
        self.source = source
        self.outcomes: Counter[str] = Counter()
        self._clock = clock
        self._most = most_signals
        self._lock = threading.Lock()
        self._parts: OrderedDict[int, _Part] = OrderedDict()
        self._most_told = most_told
        self._manners = manners or Manners(clock)
        self._wall = WallClock(clock)
        self._failing = False

    def parts(self, start_ns: int, end_ns: int) -> tuple[int, ...]:
        """Which parts a span is made of; nothing of the future is."""
        now_ns = self._clock.now().wall_ns
        end_ns = min(end_ns, now_ns)
        if start_ns >= end_ns:
            return ()
        if start_ns >= _recent_from_ns(now_ns):
            return (RECENT,)
        return tuple(range(start_ns // DAY_NS * DAY_NS, end_ns, DAY_NS))

    def due(self, keys: Iterable[int]) -> tuple[int, ...]:
        """Those of these parts that are to be asked for now."""
        now_ns = self._clock.now().boottime_ns
        with self._lock:
            if self._wall.was_set():
                self._parts.clear()
        if now_ns < self._manners.due_ns(HISTORY):
            return ()
        with self._lock:
            found = ((key, self._parts.get(key)) for key in keys)
            return tuple(k for k, part in found if part is None or now_ns >= part.patience.due_ns)

    def fetch(self, keys: Sequence[int]) -> None:
        """Ask for those of these parts that are still due, days that follow each other together."""
        for run in _runs(self.due(keys)):
            self._ask(run)

    def read(self, keys: Sequence[int], start_ns: int, end_ns: int) -> Past:
        """What is known of a span.

        Raises:
            GridError: a part was never given.
            NotYet: a part is still being asked for.
        """
        now_ns = self._clock.now().wall_ns
        with self._lock:
            parts = [self._parts.get(key) for key in keys]
            for key, part in zip(keys, parts, strict=True):
                if part is not None:
                    self._parts.move_to_end(key)
        stale, held = False, []
        for part in parts:
            if part is not None and part.rows is not None:
                held.append(part.rows)
                stale = stale or part.patience.problem is not None
                continue
            problem = self._manners.problem(HISTORY)
            if part is not None and part.patience.problem is not None:
                problem = part.patience.problem
            # Raised for each client: it must not gather a traceback of all of them.
            raise NotYet if problem is None else problem.with_traceback(None)
        found: dict[int, tuple[Rows, int]] = {}
        for rows in sorted(held, key=lambda rows: rows.fetched_ns):  # the newest word holds
            if rows.fetched_ns > now_ns:  # the clock was a little ahead
                rows.fetched_ns = now_ns
                rows.hush()
            for from_ns, place in rows.within(start_ns, end_ns):
                found[from_ns] = rows, place
        fetched_ns = min((rows.fetched_ns for rows in held), default=0)
        return Past(tuple(found[key] for key in sorted(found)), fetched_ns, stale)

    def tidy(self) -> None:
        """Give back the memory of what was told beyond its bound, the oldest first."""
        with self._lock:
            told = [p.rows for p in self._parts.values() if p.rows is not None and p.rows.is_told]
        count = sum(map(len, told))
        for rows in told:
            if count <= self._most_told:
                break
            count -= len(rows)
            rows.hush()

    def rest_s(self, keys: Sequence[int]) -> int:
        """In how many seconds those of these parts may come that are not known, at least one."""
        with self._lock:
            parts = [self._parts[key] for key in keys if key in self._parts]
            due_ns = max((p.patience.due_ns for p in parts if p.rows is None), default=0)
        left_ns = max(due_ns, self._manners.due_ns(HISTORY)) - self._clock.now().boottime_ns
        return max(1, -(-left_ns // NS_PER_S))

    @property
    def held(self) -> int:
        """How many signals are kept."""
        with self._lock:
            return self._held()

    def _held(self) -> int:
        return sum(len(part.rows or ()) for part in self._parts.values())

    def _ask(self, run: Sequence[int]) -> None:
        now = self._clock.now()
        if now.boottime_ns < self._manners.due_ns(HISTORY):
            return
        if run[0] == RECENT:
            start_ns, end_ns = _recent_from_ns(now.wall_ns), now.wall_ns
        else:
            start_ns, end_ns = run[0], min(run[-1] + DAY_NS, now.wall_ns)
        try:
            signals = published(self.source, start_ns, end_ns, now.wall_ns).signals
        except GridError as error:
            self._failed(run, error)
            return
        except Exception:
            # Whatever a provider sent must not be asked for again by each client.
            log.exception("grid source %s, asked for its past", self.source.name)
            self._failed(run, failure(Outcome.BAD_VALUE, "an unexpected error"))
            return
        self._manners.told(HISTORY, None)
        done = self._clock.now()
        if was_set_between(now, done):
            return  # asked by a wrong clock
        self.outcomes[Outcome.OK] += 1
        if self._failing:
            log.info("grid source %s tells its past again", self.source.name)
            self._failing = False
        with self._lock:
            for key in run:
                part = self._part(key)
                of_part = signals if key == RECENT else _of_day(signals, key)
                part.rows = Rows(self.source, of_part, now.wall_ns)
                old = key != RECENT and key + DAY_NS < now.wall_ns - _REVISED_NS
                part.patience.succeeded(done.boottime_ns, DAY_NS if old else HOUR_NS)
            while self._held() > self._most and len(self._parts) > len(run):
                self._parts.popitem(last=False)

    def _failed(self, run: Sequence[int], error: GridError) -> None:
        self.outcomes[error.outcome] += 1
        if not self._failing:
            log.warning("grid source %s, asked for its past: %s", self.source.name, error)
            self._failing = True
        now_ns = self._clock.now().boottime_ns
        with self._lock:
            for key in run:
                self._part(key).patience.failed(error, now_ns)
        self._manners.told(HISTORY, error)

    def _part(self, key: int) -> _Part:
        part = self._parts.setdefault(key, _Part())
        self._parts.move_to_end(key)
        return part


def _recent_from_ns(now_ns: int) -> int:
    # Not of whole hours: it must lie within the 23 hours of plans that show the last day only.
    return (now_ns - _LATE_NS) // SLOT_NS * SLOT_NS - RECENT_NS


def _of_day(signals: Iterable[GridSignal], day_ns: int) -> Iterator[GridSignal]:
    """Those that are valid for a part of a day."""
    end_ns = day_ns + DAY_NS
    return (s for s in signals if s.valid_from_ns < end_ns and s.valid_to_ns > day_ns)


def _runs(keys: Sequence[int]) -> Iterator[list[int]]:
    """Parts that one request asks for."""
    run: list[int] = []
    for key in sorted(keys):
        if run and (key != run[-1] + DAY_NS or run[0] == RECENT or len(run) == _MOST_DAYS):
            yield run
            run = []
        run.append(key)
    if run:
        yield run
