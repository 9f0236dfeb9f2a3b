"""The forecast of one source, asked for once in each of its cadences for all nodes."""

from __future__ import annotations

import logging
from collections import Counter

from wattledger.errors import GridError
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.source import Outlook
from wattledger.model import GridSignal
from wattledger.ports import Clock
from wattledger.relay.manners import FORECAST, Manners
from wattledger.relay.patience import Patience, WallClock, fetched_by, was_set_between
from wattledger.units import NS_PER_S

log = logging.getLogger(__name__)

SHORTEST_NS = 900 * NS_PER_S
LONGEST_NS = 3_600 * NS_PER_S
_MOST_SIGNALS = 2_000


class Ahead:
    """A forecast. `fetch` is for one thread; the rest for any.

    Args:
        source: whom to ask.
        name: how its failures are told.
        cadence_ns: how often it publishes.
        clock: time.
        manners: the pauses that the source asked for.

    Attributes:
        outcomes: how the requests ended, by outcome.
    """

    def __init__(
        self, source: Outlook, name: str, cadence_ns: int, clock: Clock, manners: Manners
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self._source = source
        self._name = name
        self._rest_ns = min(max(cadence_ns, SHORTEST_NS), LONGEST_NS)
        self._clock = clock
        self._signals: tuple[GridSignal, ...] = ()
        self._patience = Patience()
        self._manners = manners
        self._wall = WallClock(clock)

    def _due_ns(self) -> int:
        if self._wall.was_set():
            self._signals, self._patience = (), Patience()
        return max(self._patience.due_ns, self._manners.due_ns(FORECAST))

    @property
    def due(self) -> bool:
        """Whether it is to be asked for now."""
        return self._clock.now().boottime_ns >= self._due_ns()

    @property
    def problem(self) -> GridError | None:
        """What the last request failed at, or why there is none."""
        return self._patience.problem or self._manners.problem(FORECAST)

    @property
    def rest_s(self) -> int:
        """In how many seconds it may be asked for again, at least one."""
        left_ns = self._due_ns() - self._clock.now().boottime_ns
        return max(1, -(-left_ns // NS_PER_S))

    def fetch(self) -> None:
        """Ask for it, if that is still due."""
        if not self.due:
            return
        now = self._clock.now()
        try:
            signals = self._source.forecast(now.wall_ns)
        except GridError as error:
            self._failed(error)
            return
        except Exception:
            # Whatever a provider sent must not be asked for again by each client.
            log.exception("grid source %s, asked for its forecast", self._name)
            self._failed(failure(Outcome.BAD_VALUE, "an unexpected error"))
            return
        self.outcomes[Outcome.OK] += 1
        self._manners.told(FORECAST, None)
        done = self._clock.now()
        if was_set_between(now, done):
            return  # asked by a wrong clock
        if self._patience.problem is not None:
            log.info("grid source %s forecasts again", self._name)
        self._signals = tuple(signals)[:_MOST_SIGNALS]
        self._patience.succeeded(done.boottime_ns, self._rest_ns)

    def _failed(self, error: GridError) -> None:
        self.outcomes[error.outcome] += 1
        if self._patience.problem is None:
            log.warning("grid source %s, asked for its forecast: %s", self._name, error)
        self._manners.told(FORECAST, error)
        self._patience.failed(error, self._clock.now().boottime_ns)

    def read(self) -> tuple[GridSignal, ...]:
        """What is not over yet of the last forecast; empty: nothing is known."""
        now_ns = self._clock.now().wall_ns
        return tuple(s for s in fetched_by(self._signals, now_ns) if s.valid_to_ns > now_ns)
