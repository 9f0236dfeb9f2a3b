"""When a source may be asked again for what is fetched on demand, and clocks that are set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from wattledger.errors import GridError
from wattledger.grid.outcome import Outcome
from wattledger.model import GridSignal, Instant
from wattledger.ports import Clock
from wattledger.units import NS_PER_S

_FIRST_NS = 60 * NS_PER_S
_LONGEST_NS = 3_600 * NS_PER_S
_SLOW_NS = 900 * NS_PER_S
_MOST_ASKED_S = 86_400.0
_STEP_NS = 60 * NS_PER_S
_SLOW = frozenset({Outcome.HTTP_401, Outcome.HTTP_403, Outcome.HTTP_404})


class Patience:
    """Failures in a row of one thing, and the pause that they ask for.

    Attributes:
        problem: what the last request failed at; None: it did not.
        due_ns: on CLOCK_BOOTTIME, when to ask again.
    """

    def __init__(self) -> None:
        self.problem: GridError | None = None
        self.due_ns = 0
        self._failures = 0

    def succeeded(self, boottime_ns: int, rest_ns: int) -> None:
        """It answered: it is left alone for this long."""
        self.problem, self._failures = None, 0
        self.due_ns = boottime_ns + rest_ns

    def failed(self, error: GridError, boottime_ns: int) -> None:
        """It did not: a minute, doubled each time up to an hour, and never sooner than it asks."""
        rest_ns = min(_FIRST_NS << min(self._failures, 16), _LONGEST_NS)
        self._failures += 1
        if error.outcome in _SLOW:
            rest_ns = max(rest_ns, _SLOW_NS)
        if error.retry_after_s is not None:
            asked_s = min(error.retry_after_s, _MOST_ASKED_S)
            rest_ns = max(rest_ns, round(asked_s * NS_PER_S))
        self.problem = error
        self.due_ns = boottime_ns + rest_ns


class WallClock:
    """Notices that the wall clock was set: what was fetched before that bears wrong times.

    Args:
        clock: time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._before = clock.now()

    def was_set(self) -> bool:
        """Whether it was, by more than a minute, since this was asked last."""
        before, self._before = self._before, self._clock.now()
        return was_set_between(before, self._before)


def was_set_between(before: Instant, after: Instant) -> bool:
    """Whether the wall clock was set by more than a minute between two instants."""
    passed_ns = after.boottime_ns - before.boottime_ns
    return abs(after.wall_ns - before.wall_ns - passed_ns) > _STEP_NS


def fetched_by(signals: Iterable[GridSignal], wall_ns: int) -> Iterator[GridSignal]:
    """The same signals, none fetched after now: the clock was ahead when they were."""
    for signal in signals:
        ahead = signal.fetched_at_ns > wall_ns
        yield replace(signal, fetched_at_ns=wall_ns) if ahead else signal
