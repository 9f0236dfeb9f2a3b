"""The feed: which intensity to price an instant with. Never waits, always answers.

For an instant, in this order:

    0 live        the first source, in the order configured, whose signal for it is valid or ended
                  less than two of its cadences before (then estimated)
    1 last good   the signal that ended last, within the age limit
    2 table       the country's yearly mean

`at`, `signals` and `statuses` are for any thread and take no lock that a request is made under.
`poll_once` is for one thread of its own: it asks what is due and says when it wants to be called
again. A source farther down the list is asked only while none above it is live.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Sequence

from wattledger.errors import GridError
from wattledger.grid.checks import check_signal, is_step, is_usable
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.source import Source
from wattledger.model import FallbackLevel, GridChoice, GridSignal, SourceStatus
from wattledger.ports import Clock
from wattledger.units import NS_PER_S, grams

log = logging.getLogger(__name__)

HISTORY = 64  # signals kept for each source: past slots are priced with what was valid for them
REMEMBERED = 8  # of them, over a restart
LIVE_CADENCES = 2
_LOOK_NS = 60 * NS_PER_S  # the longest rest between two looks at the clock
_AHEAD_NS = 90 * NS_PER_S  # a backup is asked this long before the signal above it lapses
_FIRST_RETRY_NS = 60 * NS_PER_S
_SLOW_RETRY_NS = 900 * NS_PER_S
_MAX_RETRY_NS = 86_400 * NS_PER_S
# Asking again soon cannot help, and may be what the provider objects to.
_SLOW = frozenset({Outcome.HTTP_401, Outcome.HTTP_403, Outcome.HTTP_404})
_LEVEL_NAMES = {FallbackLevel.LAST_GOOD: "the last good signal", FallbackLevel.TABLE: "the table"}


class _Asked:
    """A source and what came of asking it. Written by the polling thread only."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.signals: tuple[GridSignal, ...] = ()  # by valid_from, at most HISTORY
        self.due_ns = 0  # on CLOCK_BOOTTIME, which runs on while the machine sleeps
        self.polled_ns: int | None = None
        self.polls = 0
        self.failures = 0  # in a row
        self.outcomes: dict[str, int] = {}
        self.last_success_ns = 0
        self.message = ""
        self.hint = ""
        self.alarm = ("", "")  # message and hint about the newest signal
        self.patient = False  # it refused us: nothing makes us ask sooner
        self.throttled = False  # it asked us to wait

    def keep(self, fresh: Sequence[GridSignal]) -> None:
        """Take signals up; a newer word on the same time replaces the older one."""
        by_start = {signal.valid_from_ns: signal for signal in (*self.signals, *fresh)}
        self.signals = tuple(by_start[start] for start in sorted(by_start))[-HISTORY:]

    def inherit(self, other: _Asked) -> None:
        """Go on where another left off that asked the same of the same provider.

        Its pause is kept where it answers or asked for one. Settings are read anew because
        something was mended: what failed otherwise is tried again at once.
        """
        if other.failures and not other.throttled:
            self.signals, self.outcomes = other.signals, other.outcomes
            self.last_success_ns = other.last_success_ns
        else:
            vars(self).update(vars(other) | {"source": self.source})

    def status(self) -> SourceStatus:
        return SourceStatus(
            source=self.source.name,
            outcomes=dict(self.outcomes),
            last_success_ns=self.last_success_ns,
            last_signal=self.signals[-1] if self.signals else None,
            message=self.message,
            hint=self.hint,
        )


class Feed:
    """A `ports.Grid` over an ordered list of sources and the table.

    Args:
        sources: in order of preference; empty means the table alone, and no polling.
        table_signal: what the country table says for the zone.
        clock: the time.
        max_age_ns: how long after its end a signal may still be the last good one.
        remembered: signals of an earlier run; those that no present source would give are ignored.
        node: any text that differs between nodes, so that a cluster does not ask in step.

    Raises:
        ValueError: two sources have the same name.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        table_signal: GridSignal,
        clock: Clock,
        *,
        max_age_ns: int,
        remembered: Sequence[GridSignal] = (),
        node: str = "",
    ) -> None:
        if len({source.name for source in sources}) != len(sources):
            raise ValueError("grid sources must have different names")
        self._asked = [_Asked(source) for source in sources]
        self._table = GridChoice(table_signal, FallbackLevel.TABLE, estimated=True)
        self._clock = clock
        self._max_age_ns = max_age_ns
        self._node = node
        self._stop = threading.Event()
        self._said: tuple[int, str] | None = None
        now = clock.now()
        self._wall_offset_ns = now.wall_ns - now.boottime_ns
        for asked in self._asked:
            self._recall(asked, remembered, now.boottime_ns, now.wall_ns)
        # Replaced whole, never changed: readers in other threads see one state or the next.
        self._signals: tuple[tuple[GridSignal, ...], ...] = ()
        self._statuses: tuple[SourceStatus, ...] = ()
        self._publish()

    # ── any thread ──────────────────────────────────────────────────────────────────────────────

    def at(self, wall_ns: int) -> GridChoice:
        """The best signal known for this instant, past or present."""
        best: GridSignal | None = None
        for signals in self._signals:
            signal = _for_instant(signals, wall_ns)
            if signal is None:
                continue
            over_ns = wall_ns - signal.valid_to_ns
            if over_ns < self._live_ns(signal):
                return GridChoice(signal, FallbackLevel.LIVE, signal.estimated or over_ns >= 0)
            if over_ns < self._max_age_ns and (
                best is None or signal.valid_to_ns > best.valid_to_ns
            ):
                best = signal
        return self._table if best is None else GridChoice(best, FallbackLevel.LAST_GOOD, True)

    def signals(self) -> tuple[GridSignal, ...]:
        """The last good signals of each source, oldest first, to be kept over a restart."""
        return tuple(signal for signals in self._signals for signal in signals[-REMEMBERED:])

    def statuses(self) -> tuple[SourceStatus, ...]:
        """The health of each source, in order of preference."""
        return self._statuses

    def inherit(self, old: Feed) -> None:
        """Take over what a feed of earlier settings knows: signals, counts, pauses asked for.

        To be called before this feed polls, for the sources that both have.
        """
        before = {(a.source.name, a.source.zone, a.source.basis): a for a in old._asked}
        for asked in self._asked:
            source = asked.source
            if other := before.get((source.name, source.zone, source.basis)):
                asked.inherit(other)
        self._publish()

    def request_stop(self) -> None:
        """Ask nothing more; a request in flight ends by its own deadline."""
        self._stop.set()

    # ── the polling thread ──────────────────────────────────────────────────────────────────────

    def poll_once(self) -> float:
        """Ask the sources that are due and needed.

        Returns:
            Seconds until the next call is wanted, at most a minute: so that a wall clock that is
            set and a machine that slept are noticed soon.
        """
        self._notice_clock_step()
        for index, asked in enumerate(self._asked):
            now = self._clock.now()
            if self._stop.is_set() or self._is_live(index, now.wall_ns + _AHEAD_NS):
                break
            if now.boottime_ns >= asked.due_ns:
                self._ask(asked)
                self._publish()
        self._say_level()
        now = self._clock.now()
        rest_ns = _LOOK_NS
        for index, asked in enumerate(self._asked):
            if self._is_live(index, now.wall_ns + _AHEAD_NS):
                break
            rest_ns = min(rest_ns, asked.due_ns - now.boottime_ns)
        return max(rest_ns, NS_PER_S) / NS_PER_S

    def _is_live(self, count: int, wall_ns: int) -> bool:
        """Whether one of the first `count` sources is live at an instant."""
        for asked in self._asked[:count]:
            signal = _for_instant(asked.signals, wall_ns)
            if signal is not None and wall_ns - signal.valid_to_ns < self._live_ns(signal):
                return True
        return False

    def _live_ns(self, signal: GridSignal) -> int:
        """How long after its end a signal counts as live; never beyond the age limit."""
        return min(LIVE_CADENCES * signal.cadence_ns, self._max_age_ns)

    def _ask(self, asked: _Asked) -> None:
        source = asked.source
        asked.polls += 1
        retry_after_s: float | None = None
        try:
            fresh = self._checked(source)
        except GridError as error:
            outcome = error.outcome
            retry_after_s = error.retry_after_s
            self._failed(asked, error)
        else:
            outcome = str(Outcome.OK)
            self._succeeded(asked, fresh)
        asked.outcomes[outcome] = asked.outcomes.get(outcome, 0) + 1
        asked.throttled = outcome == Outcome.HTTP_429
        asked.patient = outcome in _SLOW or asked.throttled
        asked.polled_ns = self._clock.now().boottime_ns
        asked.due_ns = asked.polled_ns + self._rest_ns(asked, outcome, retry_after_s)

    def _checked(self, source: Source) -> list[GridSignal]:
        """One request's signals that pass the checks; what the newest fails at, if none does."""
        now_wall_ns = self._clock.now().wall_ns
        good, problem = [], None
        for signal in source.latest(now_wall_ns):
            try:
                check_signal(
                    signal,
                    zone=source.zone,
                    basis=source.basis,
                    now_wall_ns=now_wall_ns,
                    max_age_ns=self._max_age_ns,
                )
            except GridError as error:
                problem = error
            else:
                good.append(signal)
        if not good:
            raise problem or failure(Outcome.NO_DATA, "the source gave no signal")
        return good

    def _succeeded(self, asked: _Asked, fresh: list[GridSignal]) -> None:
        before = asked.signals[-1] if asked.signals else None
        if asked.failures:
            log.info("grid source %s answers again", asked.source.name)
        asked.failures = 0
        asked.last_success_ns = self._clock.now().wall_ns
        asked.keep(fresh)
        after = asked.signals[-1]
        if before is not None and before.valid_from_ns != after.valid_from_ns:
            self._watch_step(asked, before, after)
        asked.message, asked.hint = asked.alarm

    def _watch_step(self, asked: _Asked, before: GridSignal, after: GridSignal) -> None:
        """A jump is plausible enough to book and strange enough to say."""
        if not is_step(before, after):
            asked.alarm = ("", "")
            return
        low, high = grams(before.intensity_ug_per_kwh), grams(after.intensity_ug_per_kwh)
        asked.alarm = (
            f"the intensity of {after.zone} jumped from {low:g} to {high:g} g/kWh",
            "compare it with the provider's own page; it is booked as it came",
        )
        log.warning("grid source %s: %s (%s)", asked.source.name, *asked.alarm)

    def _failed(self, asked: _Asked, error: GridError) -> None:
        asked.failures += 1
        asked.message, asked.hint = error.message, error.hint
        if asked.failures == 1:
            log.warning("grid source %s: %s [%s]", asked.source.name, error, error.outcome)

    def _rest_ns(self, asked: _Asked, outcome: str, retry_after_s: float | None) -> int:
        """How long to leave a source alone now."""
        cadence_ns = asked.source.cadence_ns
        if outcome == Outcome.OK:
            wall_ns = self._clock.now().wall_ns
            rest_ns = self._until_new_ns(asked, wall_ns)
            newest = asked.signals[-1]
            # A provider that publishes late is asked once more, before its last signal lapses.
            lapse_ns = newest.valid_to_ns + self._live_ns(newest) - 2 * _AHEAD_NS - wall_ns
            return lapse_ns if _FIRST_RETRY_NS <= lapse_ns < rest_ns else rest_ns
        doublings = min(asked.failures - 1, 16)
        rest_ns = min(_FIRST_RETRY_NS << doublings, max(cadence_ns, _FIRST_RETRY_NS))
        if outcome in _SLOW:
            rest_ns = max(rest_ns, _SLOW_RETRY_NS)
        # Up to 10 % more or less, so that nodes that lost a provider together part ways.
        rest_ns += rest_ns * (self._hash(f"{asked.source.name}/{asked.polls}") - 500) // 5000
        if retry_after_s is not None:  # never sooner than the provider asks for
            rest_ns = max(rest_ns, min(round(retry_after_s * NS_PER_S), _MAX_RETRY_NS))
        return rest_ns

    def _until_new_ns(self, asked: _Asked, wall_ns: int) -> int:
        """From an instant until the source should have something newer: one request per cadence.

        A new period begins a whole number of cadences from the end of the newest signal; it is
        asked for 5 to 25 % of a cadence later, each node at its own time, the same each time.
        """
        cadence_ns = asked.source.cadence_ns
        until_period_ns = (asked.signals[-1].valid_to_ns - wall_ns) % cadence_ns
        share = 50 + self._hash(asked.source.name) // 5
        return until_period_ns + cadence_ns * share // 1000

    def _hash(self, text: str) -> int:
        """0 to 1000, the same for the same node and text."""
        return zlib.crc32(f"{self._node}/{text}".encode()) % 1001

    def _notice_clock_step(self) -> None:
        """After the wall clock was set, what was refused as future or stale may be good."""
        now = self._clock.now()
        offset_ns = now.wall_ns - now.boottime_ns
        if abs(offset_ns - self._wall_offset_ns) > _LOOK_NS:
            log.info("the wall clock was set: grid sources are asked anew")
            for asked in self._asked:
                if asked.polled_ns is not None and not asked.patient:
                    asked.due_ns = min(asked.due_ns, asked.polled_ns + _FIRST_RETRY_NS)
        self._wall_offset_ns = offset_ns

    def _recall(
        self, asked: _Asked, remembered: Sequence[GridSignal], boottime_ns: int, wall_ns: int
    ) -> None:
        """Take up the signals that this source gave to an earlier run."""
        source = asked.source
        asked.keep(
            [
                signal
                for signal in remembered
                if (signal.source, signal.zone, signal.basis)
                == (source.name, source.zone, source.basis)
                and is_usable(signal)
            ]
        )
        if asked.signals:
            # A daemon that is restarted over and over asks no more often than one that runs.
            fetched_ns = max(signal.fetched_at_ns for signal in asked.signals)
            if fetched_ns <= wall_ns:
                due_wall_ns = fetched_ns + self._until_new_ns(asked, fetched_ns)
                asked.due_ns = boottime_ns + max(due_wall_ns - wall_ns, 0)

    def _publish(self) -> None:
        self._signals = tuple(asked.signals for asked in self._asked)
        self._statuses = tuple(asked.status() for asked in self._asked)

    def _say_level(self) -> None:
        """Log when the answer for now comes from elsewhere than before."""
        if not self._asked:
            return
        choice = self.at(self._clock.now().wall_ns)
        signal = choice.signal
        now_said = (choice.level, signal.source)
        if now_said == self._said:
            return
        self._said = now_said
        value = grams(signal.intensity_ug_per_kwh)
        if choice.level == FallbackLevel.LIVE:
            log.info(
                "carbon intensity: live from %s, zone %s, %g g/kWh (%s)",
                signal.source,
                signal.zone,
                value,
                signal.basis,
            )
            return
        why = "; ".join(
            f"{asked.source.name}: {asked.message}{f' ({asked.hint})' if asked.hint else ''}"
            for asked in self._asked
            if asked.message
        )
        log.warning(
            "carbon intensity: no live signal, %s of %s stands in, %g g/kWh (%s); %s",
            _LEVEL_NAMES[choice.level],
            signal.source if choice.level == FallbackLevel.LAST_GOOD else signal.zone,
            value,
            signal.basis,
            why or "no source has answered yet",
        )


def _for_instant(signals: tuple[GridSignal, ...], wall_ns: int) -> GridSignal | None:
    """The signal that began last at or before an instant."""
    for signal in reversed(signals):
        if signal.valid_from_ns <= wall_ns:
            return signal
    return None
