"""One source of the feed: what it gave, how it fared, and when to ask it again."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterable, Sequence

from wattledger.errors import GridError
from wattledger.grid.checks import check_signal, is_step, is_usable
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.source import Relay, Source
from wattledger.model import Basis, GridSignal, SourceStatus
from wattledger.ports import Clock
from wattledger.units import NS_PER_S, grams

log = logging.getLogger(__name__)

HISTORY = 64  # signals kept for each source: past slots are priced with what was valid for them
REMEMBERED = 8  # of them, over a restart
LIVE_CADENCES = 2
AHEAD_NS = 90 * NS_PER_S  # a backup is asked this long before the signal above it lapses
FIRST_RETRY_NS = 60 * NS_PER_S
# Of a cadence in thousandths: how long after a period has begun a source is asked for it. Nodes
# ask a relay once it has asked itself.
SHARES = (50, 250)
RELAY_SHARES = (50, 150)
_RELAYED_SHARES = (150, 250)
_SLOW_RETRY_NS = 900 * NS_PER_S
_MAX_RETRY_NS = 86_400 * NS_PER_S
# Asking again soon cannot help, and may be what the provider objects to.
_SLOW = frozenset({Outcome.HTTP_401, Outcome.HTTP_403, Outcome.HTTP_404})


class Asked:
    """A source and what came of asking it. Written by the polling thread only.

    Args:
        source: whom to ask.
        clock: the time.
        max_age_ns: how long after its end a signal may still be the last good one.
        node: any text that differs between nodes.
        shares: when within a period it is asked, the first and the last, in thousandths of it.
    """

    def __init__(
        self,
        source: Source,
        clock: Clock,
        max_age_ns: int,
        node: str,
        shares: tuple[int, int] = SHARES,
    ) -> None:
        self.source = source
        self._clock = clock
        self._max_age_ns = max_age_ns
        self._node = node
        self._relay: Relay | None = source if isinstance(source, Relay) else None
        self._shares = _RELAYED_SHARES if self._relay is not None else shares
        self.signals: tuple[GridSignal, ...] = ()  # by valid_from, at most HISTORY
        self.due_ns = 0  # on CLOCK_BOOTTIME, which runs on while the machine sleeps
        self.polled_ns: int | None = None
        self.polls = 0
        self.failures = 0  # in a row
        self.outcomes: dict[str, int] = {}
        self.basis_fallbacks = 0
        self.last_success_ns = 0
        self.message = ""
        self.hint = ""
        self.alarm = ("", "")  # message and hint about the newest signal
        self.patient = False  # it refused us: nothing makes us ask sooner
        self.throttled = False  # it asked us to wait

    def keep(self, fresh: Sequence[GridSignal]) -> None:
        """Take up signals of one source; a newer word on the same time replaces the older one.

        Behind a relay that may be another source than before. Then its word alone holds from its
        first signal on: a shorter period of a backup, begun later, would hide the longer one of the
        preferred source, whose period is not over.
        """
        first_ns = min((signal.valid_from_ns for signal in fresh), default=0)
        by_start = {
            signal.valid_from_ns: signal
            for signal in self.signals
            if signal.valid_from_ns < first_ns or _voice(signal) == _voice(fresh[0])
        }
        by_start.update((signal.valid_from_ns, signal) for signal in fresh)
        self.signals = tuple(by_start[start] for start in sorted(by_start))[-HISTORY:]

    def inherit(self, other: Asked) -> None:
        """Go on where another left off that asked the same of the same provider.

        Its pause is kept where it answers or asked for one. Settings are read anew because
        something was mended: what failed otherwise is tried again at once.
        """
        self.signals = tuple(signal for signal in other.signals if self._gives(signal))
        self.outcomes = other.outcomes
        self.last_success_ns = other.last_success_ns
        self.basis_fallbacks = other.basis_fallbacks
        if other.failures and not other.throttled:
            return
        self.due_ns, self.polled_ns, self.polls = other.due_ns, other.polled_ns, other.polls
        self.failures, self.patient, self.throttled = (
            other.failures,
            other.patient,
            other.throttled,
        )
        self.message, self.hint, self.alarm = other.message, other.hint, other.alarm

    def recall(self, remembered: Iterable[GridSignal], boottime_ns: int, wall_ns: int) -> None:
        """Take up the signals that this source gave to an earlier run."""
        self.learn(remembered)
        if self.signals:
            # A daemon that is restarted over and over asks no more often than one that runs.
            fetched_ns = max(signal.fetched_at_ns for signal in self.signals)
            if fetched_ns <= wall_ns:
                due_wall_ns = fetched_ns + self._until_new_ns(fetched_ns)
                self.due_ns = boottime_ns + max(due_wall_ns - wall_ns, 0)

    def learn(self, told: Iterable[GridSignal]) -> None:
        """Take up signals that somebody else was given; those that it would not give are ignored.

        Of several sources behind a relay, who answered last has the last word.
        """
        by_voice: dict[tuple[str, Basis], list[GridSignal]] = {}
        for signal in told:
            if self._gives(signal) and is_usable(signal):
                by_voice.setdefault(_voice(signal), []).append(signal)
        for words in sorted(by_voice.values(), key=lambda words: max(map(_fetched_ns, words))):
            self.keep(words)

    def prefers(self) -> Basis | None:
        """The basis that it is asked for; None: a relay has not said yet which it has."""
        unheard = self._relay is not None and not self._relay.heard
        return None if unheard else self.source.basis

    def _gives(self, signal: GridSignal) -> bool:
        """Whether a signal is labelled as one of this source's."""
        labels = signal.source, signal.zone, signal.basis
        if self._relay is not None:
            return self._relay.may_give(*labels)
        return labels == (self.source.name, self.source.zone, self.source.basis)

    def is_live(self, wall_ns: int) -> bool:
        """Whether it has a signal that counts as live at an instant."""
        signal = for_instant(self.signals, wall_ns)
        return signal is not None and wall_ns - signal.valid_to_ns < self.live_ns(signal)

    def live_ns(self, signal: GridSignal) -> int:
        """How long after its end a signal counts as live; never beyond the age limit."""
        return min(LIVE_CADENCES * signal.cadence_ns, self._max_age_ns)

    def ask(self) -> None:
        """One request, and when the next is due."""
        self.polls += 1
        retry_after_s: float | None = None
        try:
            fresh = self._checked()
        except GridError as error:
            outcome = error.outcome
            retry_after_s = error.retry_after_s
            self._failed(error)
        else:
            outcome = str(Outcome.OK)
            self._succeeded(fresh)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.throttled = outcome == Outcome.HTTP_429
        self.patient = outcome in _SLOW or self.throttled
        self.polled_ns = self._clock.now().boottime_ns
        self.due_ns = self.polled_ns + self._rest_ns(outcome, retry_after_s)

    def status(self) -> SourceStatus:
        """Its health."""
        return SourceStatus(
            source=self.source.name,
            outcomes=dict(self.outcomes),
            last_success_ns=self.last_success_ns,
            last_signal=self.signals[-1] if self.signals else None,
            message=self.message,
            hint=self.hint,
            basis_fallbacks=self.basis_fallbacks,
        )

    def _checked(self) -> list[GridSignal]:
        """One request's signals that pass the checks; what the newest fails at, if none does."""
        now_wall_ns = self._clock.now().wall_ns
        good, problem = [], None
        for signal in self.source.latest(now_wall_ns):
            try:
                check_signal(
                    signal,
                    zone=self.source.zone,
                    basis=signal.basis if self._gives(signal) else self.source.basis,
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

    def _succeeded(self, fresh: list[GridSignal]) -> None:
        before = self.signals[-1] if self.signals else None
        if self.failures:
            log.info("grid source %s answers again", self.source.name)
        self.failures = 0
        self.last_success_ns = self._clock.now().wall_ns
        self.keep(fresh)
        after = self.signals[-1]
        if before is not None and _voice(before) != _voice(after):
            self.alarm = ("", "")  # what another source says is no jump
        elif before is not None and before.valid_from_ns != after.valid_from_ns:
            self._watch_step(before, after)
        self.message, self.hint = self.alarm

    def _watch_step(self, before: GridSignal, after: GridSignal) -> None:
        """A jump is plausible enough to book and strange enough to say."""
        if not is_step(before, after):
            self.alarm = ("", "")
            return
        low, high = grams(before.intensity_ug_per_kwh), grams(after.intensity_ug_per_kwh)
        self.alarm = (
            f"the intensity of {after.zone} jumped from {low:g} to {high:g} g/kWh",
            "compare it with the provider's own page; it is booked as it came",
        )
        log.warning("grid source %s: %s (%s)", self.source.name, *self.alarm)

    def _failed(self, error: GridError) -> None:
        self.failures += 1
        self.message, self.hint = error.message, error.hint
        if self.failures == 1:
            log.warning("grid source %s: %s [%s]", self.source.name, error, error.outcome)

    def _rest_ns(self, outcome: str, retry_after_s: float | None) -> int:
        """How long to leave the source alone now."""
        cadence_ns = self.source.cadence_ns
        if outcome == Outcome.OK:
            wall_ns = self._clock.now().wall_ns
            rest_ns = self._until_new_ns(wall_ns)
            newest = self.signals[-1]
            # A provider that publishes late is asked once more, before its last signal lapses; a
            # relay soon after it, whose word stands from then on.
            lapse_ns = newest.valid_to_ns + self.live_ns(newest) - wall_ns
            if self._relay is not None:
                lapse_ns += FIRST_RETRY_NS * self._hash("lapse") // 1000
            else:
                lapse_ns -= 2 * AHEAD_NS
            return lapse_ns if FIRST_RETRY_NS <= lapse_ns < rest_ns else rest_ns
        doublings = min(self.failures - 1, 16)
        rest_ns = min(FIRST_RETRY_NS << doublings, max(cadence_ns, FIRST_RETRY_NS))
        if outcome in _SLOW:
            rest_ns = max(rest_ns, _SLOW_RETRY_NS)
        # Up to 10 % more or less, so that nodes that lost a provider together part ways.
        rest_ns += rest_ns * (self._hash(f"{self.source.name}/{self.polls}") - 500) // 5000
        if retry_after_s is not None:  # never sooner than the provider asks for
            rest_ns = max(rest_ns, min(round(retry_after_s * NS_PER_S), _MAX_RETRY_NS))
        return rest_ns

    def _until_new_ns(self, wall_ns: int) -> int:
        """From an instant until the source should have something newer: one request per cadence.

        A new period begins a whole number of cadences from the end of the newest signal; it is
        asked for 5 to 25 % of a cadence later, each node at its own time, the same each time.
        """
        cadence_ns = self.source.cadence_ns
        until_period_ns = (self.signals[-1].valid_to_ns - wall_ns) % cadence_ns
        first, last = self._shares
        share = first + self._hash(self.source.name) * (last - first) // 1000
        return until_period_ns + cadence_ns * share // 1000

    def _hash(self, text: str) -> int:
        """0 to 1000, the same for the same node and text."""
        return zlib.crc32(f"{self._node}/{text}".encode()) % 1001


def _voice(signal: GridSignal) -> tuple[str, Basis]:
    """Whose word a signal is."""
    return signal.source, signal.basis


def _fetched_ns(signal: GridSignal) -> int:
    return signal.fetched_at_ns


def for_instant(signals: tuple[GridSignal, ...], wall_ns: int) -> GridSignal | None:
    """The signal that began last at or before an instant."""
    for signal in reversed(signals):
        if signal.valid_from_ns <= wall_ns:
            return signal
    return None
