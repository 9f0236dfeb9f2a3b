"""The feed: which intensity to price an instant with. Never waits, always answers.

For an instant, in this order:

    0 live        the first source, in the order configured, whose signal for it is valid or ended
                  less than two of its cadences before (then estimated)
    1 last good   the signal that ended last, within the age limit
    2 table       the country's yearly mean

`at`, `signals` and `statuses` are for any thread and take no lock that a request is made under.
`poll_once` is for one thread of its own: it asks what is due and says when it wants to be called
again. A source farther down the list is asked only while none above it is live. A source of
marginal intensities is never asked: what one kWh more would cause is no basis of books.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from wattledger.grid.feed.asked import (
    AHEAD_NS,
    FIRST_RETRY_NS,
    REMEMBERED,
    SHARES,
    Asked,
    for_instant,
)
from wattledger.grid.source import Relay, Source
from wattledger.model import Basis, FallbackLevel, GridChoice, GridSignal, SourceStatus
from wattledger.ports import Clock
from wattledger.units import NS_PER_S, grams

log = logging.getLogger(__name__)

_LOOK_NS = 60 * NS_PER_S  # the longest rest between two looks at the clock
_LEVEL_NAMES = {FallbackLevel.LAST_GOOD: "the last good signal", FallbackLevel.TABLE: "the table"}
MARGINAL = (
    "its intensities are marginal: they price nothing in the books",
    "name a source of average intensities too; this one serves the choice of times",
)


class Behind(NamedTuple):
    """Whose word stands.

    Attributes:
        source: who gave it.
        signals: all that is remembered of it, oldest first.
        failing: it did not answer when it was asked last.
    """

    source: Source
    signals: tuple[GridSignal, ...]
    failing: bool


class Feed:
    """A `ports.Grid` over an ordered list of sources and the table.

    Args:
        sources: in order of preference; empty means the table alone, and no polling. Those of
            marginal intensities are shown by `statuses` with the reason why they are not used.
        table_signal: what the country table says for the zone.
        clock: the time.
        max_age_ns: how long after its end a signal may still be the last good one.
        remembered: signals of an earlier run; those that no present source would give are ignored.
        node: any text that differs between nodes, so that a cluster does not ask in step.
        shares: see `Asked`.
        passes_on: it is a relay's, which has nothing to say where no source has: not of the table.

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
        shares: tuple[int, int] = SHARES,
        passes_on: bool = False,
    ) -> None:
        if len({source.name for source in sources}) != len(sources):
            raise ValueError("grid sources must have different names")
        self._asked: list[Asked] = []
        self._refused: list[SourceStatus] = []
        for source in sources:
            if source.basis is Basis.MARGINAL:
                self._refused.append(SourceStatus(source.name, {}, 0, None, *MARGINAL))
                log.warning("grid source %s: %s (%s)", source.name, *MARGINAL)
            else:
                self._asked.append(Asked(source, clock, max_age_ns, node, shares))
        self._table = GridChoice(table_signal, FallbackLevel.TABLE, estimated=True)
        self._clock = clock
        self._max_age_ns = max_age_ns
        self._stop = threading.Event()
        self._said: tuple[int, str] | None = None
        self._other_basis = False
        self._passes_on = passes_on
        now = clock.now()
        self._wall_offset_ns = now.wall_ns - now.boottime_ns
        for asked in self._asked:
            asked.recall(self._for(asked, remembered), now.boottime_ns, now.wall_ns)
        # Replaced whole, never changed: readers in other threads see one state or the next.
        self._signals: tuple[tuple[GridSignal, ...], ...] = ()
        self._statuses: tuple[SourceStatus, ...] = ()
        self._publish()

    # ── any thread ──────────────────────────────────────────────────────────────────────────────

    def at(self, wall_ns: int) -> GridChoice:
        """The best signal known for this instant, past or present."""
        best: GridSignal | None = None
        for asked, signals in zip(self._asked, self._signals, strict=True):
            signal = for_instant(signals, wall_ns)
            if signal is None:
                continue
            over_ns = wall_ns - signal.valid_to_ns
            if over_ns < asked.live_ns(signal):
                return GridChoice(signal, FallbackLevel.LIVE, signal.estimated or over_ns >= 0)
            if over_ns < self._max_age_ns and (
                best is None or signal.valid_to_ns > best.valid_to_ns
            ):
                best = signal
        return self._table if best is None else GridChoice(best, FallbackLevel.LAST_GOOD, True)

    def behind(self, wall_ns: int) -> Behind | None:
        """The source that `at` answers with, and all that it has given; None: it is the table."""
        signal = self.at(wall_ns).signal
        for asked, signals in zip(self._asked, self._signals, strict=True):
            if signal in signals:
                return Behind(asked.source, signals, asked.failures > 0)
        return None

    def signals(self) -> tuple[GridSignal, ...]:
        """The last good signals of each source, oldest first, to be kept over a restart."""
        return tuple(signal for signals in self._signals for signal in signals[-REMEMBERED:])

    def statuses(self) -> tuple[SourceStatus, ...]:
        """The health of each source, in order of preference, then those that are never asked."""
        return self._statuses

    def inherit(self, old: Feed) -> None:
        """Take over what a feed of earlier settings knows: signals, counts, pauses asked for.

        To be called before this feed polls. A source that the other one had, too, goes on; one
        that is asked in another way, as by a relay, is asked at once, and takes up what is known of
        it until it answers.
        """
        before = {_same(asked.source): asked for asked in old._asked}
        known = [signal for asked in old._asked for signal in asked.signals]
        for asked in self._asked:
            if other := before.get(_same(asked.source)):
                asked.inherit(other)
            else:
                asked.learn(self._for(asked, known))
        self._publish()

    def _for(self, asked: Asked, signals: Sequence[GridSignal]) -> Sequence[GridSignal]:
        """Those of these signals that may be of a source.

        What a source is listed for by its own name is not taken for a relay's.
        """
        if not isinstance(asked.source, Relay):
            return signals
        own = {(other.source.name, other.source.zone) for other in self._asked}
        return [signal for signal in signals if (signal.source, signal.zone) not in own]

    def due(self) -> dict[str, int]:
        """When each source is asked next at the soonest, by its name, on CLOCK_BOOTTIME."""
        return {asked.source.name: asked.due_ns for asked in self._asked}

    def rest_until(self, due: Mapping[str, int]) -> None:
        """Ask no source sooner than an earlier run would have, as `due` said.

        To be called before this feed polls.
        """
        for asked in self._asked:
            asked.due_ns = max(asked.due_ns, due.get(asked.source.name, 0))

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
            if self._stop.is_set() or self._is_live(index, now.wall_ns + AHEAD_NS):
                break
            if now.boottime_ns >= asked.due_ns:
                asked.ask()
                self._publish()
        self._say_level()
        now = self._clock.now()
        rest_ns = _LOOK_NS
        for index, asked in enumerate(self._asked):
            if self._is_live(index, now.wall_ns + AHEAD_NS):
                break
            rest_ns = min(rest_ns, asked.due_ns - now.boottime_ns)
        return max(rest_ns, NS_PER_S) / NS_PER_S

    def _is_live(self, count: int, wall_ns: int) -> bool:
        """Whether one of the first `count` sources is live at an instant."""
        return any(asked.is_live(wall_ns) for asked in self._asked[:count])

    def _notice_clock_step(self) -> None:
        """After the wall clock was set, what was refused as future or stale may be good."""
        now = self._clock.now()
        offset_ns = now.wall_ns - now.boottime_ns
        if abs(offset_ns - self._wall_offset_ns) > _LOOK_NS:
            log.info("the wall clock was set: grid sources are asked anew")
            for asked in self._asked:
                if asked.polled_ns is not None and not asked.patient:
                    asked.due_ns = min(asked.due_ns, asked.polled_ns + FIRST_RETRY_NS)
        self._wall_offset_ns = offset_ns

    def _publish(self) -> None:
        self._signals = tuple(asked.signals for asked in self._asked)
        self._statuses = (*(asked.status() for asked in self._asked), *self._refused)

    def _say_level(self) -> None:
        """Log when the answer for now comes from elsewhere than before; count other bases."""
        if not self._asked:
            return
        choice = self.at(self._clock.now().wall_ns)
        signal = choice.signal
        now_said = (choice.level, signal.source)
        if now_said == self._said:
            return
        self._said = now_said
        self._count_basis(signal)
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
        if self._passes_on and choice.level == FallbackLevel.TABLE:
            zones = ", ".join(sorted({asked.source.zone for asked in self._asked}))
            said = why or "no source has answered yet"
            log.warning("carbon intensity: nothing to pass on of zone %s; %s", zones, said)
            return
        log.warning(
            "carbon intensity: no live signal, %s of %s stands in, %g g/kWh (%s); %s",
            _LEVEL_NAMES[choice.level],
            signal.source if choice.level == FallbackLevel.LAST_GOOD else signal.zone,
            value,
            signal.basis,
            why or "no source has answered yet",
        )

    def _count_basis(self, signal: GridSignal) -> None:
        """Count each time that the preferred source's basis gives way to another."""
        preferred = self._asked[0]
        other = preferred.prefers() not in (None, signal.basis)
        if other and not self._other_basis:
            preferred.basis_fallbacks += 1
            self._publish()
        self._other_basis = other


def _same(source: Source) -> tuple[str, str, Basis | None]:
    """What two sources share that ask the same; a relay's signals have a basis each."""
    return source.name, source.zone, None if isinstance(source, Relay) else source.basis
