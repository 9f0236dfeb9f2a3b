"""What a source asked for, whichever question got that answer: one patience for all who ask it.

429, or any Retry-After      holds for all questions to this source
401, 403 to what is new      the token is refused: it holds for forecasts and the past too
401, 403 to the others       holds for that kind alone: many plans give what is new only
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from wattledger.errors import GridError
from wattledger.grid.outcome import Outcome
from wattledger.grid.source import Source
from wattledger.model import Basis, GridSignal
from wattledger.ports import Clock
from wattledger.units import NS_PER_S

LATEST, FORECAST, HISTORY = "latest", "forecast", "history"
LONGEST_S = 86_400.0
_TOO_OFTEN_S = 60.0  # where it does not say for how long
_REFUSED_S = 900.0
_REFUSED = frozenset({Outcome.HTTP_401, Outcome.HTTP_403})
_SAME_NS = 45 * NS_PER_S  # less than the soonest that a feed asks again


class Hold(NamedTuple):
    """A pause that was asked for.

    Attributes:
        what: the kind of question that got it.
        outcome: an `Outcome`.
        message: what was said.
        due_ns: on CLOCK_BOOTTIME, its end.
        everywhere: it holds for every kind, and whatever token is used.
    """

    what: str
    outcome: str
    message: str
    due_ns: int
    everywhere: bool


class Manners:
    """The pauses that one source asked for. For any thread.

    Args:
        clock: time.
        holds: of an earlier run.
    """

    def __init__(self, clock: Clock, holds: Iterable[Hold] = ()) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._holds = {hold.what: hold for hold in holds}

    def told(self, what: str, error: GridError | None) -> None:
        """What came of a question of this kind; None: it was answered."""
        hold = None if error is None else self._hold_of(what, error)
        with self._lock:
            self._holds.pop(what, None)
            if hold is not None:
                self._holds[what] = hold

    def _hold_of(self, what: str, error: GridError) -> Hold | None:
        asked_s = error.retry_after_s
        everywhere = asked_s is not None or error.outcome == Outcome.HTTP_429
        if everywhere:
            rest_s = _TOO_OFTEN_S if asked_s is None else min(max(asked_s, 0.0), LONGEST_S)
        elif error.outcome in _REFUSED:
            rest_s = _REFUSED_S
        else:
            return None
        due_ns = self._clock.now().boottime_ns + round(rest_s * NS_PER_S)
        return Hold(what, error.outcome, error.message, due_ns, everywhere)

    def hold(self, what: str) -> Hold | None:
        """What keeps a question of this kind from being asked now, the longest of it."""
        now_ns = self._clock.now().boottime_ns
        found: Hold | None = None
        for hold in self.holds():
            if what == LATEST:
                # The feed itself keeps the pauses that its own questions got.
                holds = hold.everywhere and hold.what != LATEST
            else:
                holds = hold.everywhere or hold.what in (LATEST, what)
            if not holds:
                continue
            if hold.due_ns > now_ns and (found is None or hold.due_ns > found.due_ns):
                found = hold
        return found

    def problem(self, what: str) -> GridError | None:
        """The same as an error, with the seconds that are left."""
        hold = self.hold(what)
        if hold is None:
            return None
        left_ns = hold.due_ns - self._clock.now().boottime_ns
        return GridError(hold.outcome, hold.message, "", max(left_ns, 0) / NS_PER_S)

    def due_ns(self, what: str) -> int:
        """When a question of this kind may be asked, on CLOCK_BOOTTIME; 0: now."""
        hold = self.hold(what)
        return 0 if hold is None else hold.due_ns

    def holds(self) -> tuple[Hold, ...]:
        """All that were asked for last, over or not."""
        with self._lock:
            return tuple(self._holds.values())


class Polite:
    """A `Source` that asks nothing while its source wants to be left alone.

    Several feeds may ask it: what one is told within the same minute is told to the others.

    Args:
        source: whom to ask.
        manners: its pauses.
        clock: time.

    Attributes:
        spared: how often nobody was asked, by the outcome that stood in.
    """

    def __init__(self, source: Source, manners: Manners, clock: Clock) -> None:
        self.spared: Counter[str] = Counter()
        self._source = source
        self._manners = manners
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_ns: int | None = None
        self._told: list[GridSignal] | GridError = []

    @property
    def name(self) -> str:
        """See `Source`."""
        return self._source.name

    @property
    def zone(self) -> str:
        """See `Source`."""
        return self._source.zone

    @property
    def basis(self) -> Basis:
        """See `Source`."""
        return self._source.basis

    @property
    def cadence_ns(self) -> int:
        """See `Source`."""
        return self._source.cadence_ns

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """See `Source.latest`."""
        with self._lock:
            now_ns = self._clock.now().boottime_ns
            if self._asked_ns is not None and now_ns - self._asked_ns < _SAME_NS:
                self.spared[_outcome(self._told)] += 1
            elif (problem := self._manners.problem(LATEST)) is not None:
                self.spared[problem.outcome] += 1
                raise problem
            else:
                self._told = self._ask(now_wall_ns)
                self._asked_ns = self._clock.now().boottime_ns
            if isinstance(self._told, GridError):
                raise self._told.with_traceback(None)
            return list(self._told)

    def _ask(self, now_wall_ns: int) -> list[GridSignal] | GridError:
        try:
            told = self._source.latest(now_wall_ns)
        except GridError as error:
            self._manners.told(LATEST, error)
            return error
        self._manners.told(LATEST, None)
        return told


def _outcome(told: list[GridSignal] | GridError) -> str:
    return told.outcome if isinstance(told, GridError) else str(Outcome.OK)
