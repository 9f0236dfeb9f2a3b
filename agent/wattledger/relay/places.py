"""The zones of a relay: for each the feed of its sources, their forecasts and their past."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from wattledger.config import Config
from wattledger.config.check import source_configs
from wattledger.errors import ConfigError
from wattledger.grid import SourceConfig, build_sources
from wattledger.grid.client import HttpClient
from wattledger.grid.feed import RELAY_SHARES, Feed
from wattledger.grid.relay_reply import Voice
from wattledger.grid.source import History as KnowsPast
from wattledger.grid.source import Outlook, Source
from wattledger.grid.table import WORLD, CountryTable
from wattledger.model import Basis, FallbackLevel, GridSignal
from wattledger.ports import Clock
from wattledger.relay.ahead import Ahead
from wattledger.relay.manners import Manners, Polite
from wattledger.relay.memory import Kept, Memory
from wattledger.relay.past import DAY_NS, History
from wattledger.services import PollingThread
from wattledger.units import NS_PER_S
from wattledger_exporters.http.worker import Worker

log = logging.getLogger(__name__)

MOST_SIGNALS = 2_500_000  # of the past, over all sources: 100 MB
MOST_TOLD = 100_000  # of them as JSON: some 25 MB
LONGEST_AGO_DAYS = 62  # what is older no node settles
_SETTLED_DAYS = 46  # by default
_OFTEN_NS = 300 * NS_PER_S  # some publish more often than they are asked
_LEAST_SIGNALS = 2_000
_IDLE_NS = 6 * 3_600 * NS_PER_S
_IDLE_LOOK_S = 60.0
_WAITING = 64


class Upstream(NamedTuple):
    """One source: who it is, and what is kept of it beside what is new."""

    voice: Voice
    ahead: Ahead | None
    history: History | None
    worker: Worker  # asks for both; what is new has a thread of its own
    manners: Manners
    polite: Polite  # for the feeds
    mark: str


class Line:
    """A feed and the thread that polls it.

    Attributes:
        feed: the feed.
        first: set once its sources were asked.
        wanted_ns: on CLOCK_BOOTTIME, when somebody asked for it last; None: it always polls.
    """

    def __init__(self, name: str, feed: Feed, clock: Clock, changed: Callable[[], None]) -> None:
        self.feed = feed
        self.first = threading.Event()
        self.wanted_ns: int | None = None
        self._clock = clock
        self._changed = changed
        self._poller = PollingThread(name, self._poll)

    def start(self) -> None:
        """Ask for what is new from now on, in a thread."""
        self._poller.start()

    def stop(self) -> None:
        """Ask nothing more; nothing is waited for."""
        self.feed.request_stop()
        self._poller.stop()

    def _poll(self) -> float:
        now_ns = self._clock.now().boottime_ns
        if self.wanted_ns is not None and now_ns - self.wanted_ns > _IDLE_NS:
            return _IDLE_LOOK_S
        try:
            return self.feed.poll_once()
        finally:
            self._changed()
            self.first.set()


class Place:
    """One zone.

    Args:
        zone: its name.
        sources: in order of preference.
        clock: time.
        max_age_ns: how long after its end a signal may still be the last good one.
        most_signals: of the past, to be kept of each source; None: what settling needs.
        most_told: of them as JSON, of each source.
        memory: what an earlier run knew; None: nothing is kept.
        marks: of each source, what differs once its settings do.
    """

    def __init__(
        self,
        zone: str,
        sources: Sequence[Source],
        clock: Clock,
        *,
        max_age_ns: int,
        most_signals: Sequence[int] | None = None,
        most_told: int = MOST_TOLD,
        memory: Memory | None = None,
        marks: Sequence[str] | None = None,
    ) -> None:
        self.zone = zone
        self._clock = clock
        self._max_age_ns = max_age_ns
        self.changed: Callable[[], None] = memory.save if memory is not None else _nothing
        before = memory.kept if memory is not None else {}
        self._kept = {s.name: before[zone, s.name] for s in sources if (zone, s.name) in before}
        if most_signals is None:
            most_signals = [_wanted(source.cadence_ns) for source in sources]
        self.upstreams = [
            _upstream(zone, source, clock, mark, self._kept.get(source.name), (most, most_told))
            for source, mark, most in zip(
                sources, marks or [""] * len(sources), most_signals, strict=True
            )
        ]
        self._main = self._line(f"grid {zone}", self.upstreams)
        self._others: dict[Basis, Line] = {}

    @property
    def feed(self) -> Feed:
        """What is new, of the source that is preferred."""
        return self._main.feed

    def start(self) -> None:
        """Ask for what is new from now on, in a thread."""
        self._main.start()

    def wait_for_first(self, timeout_s: float) -> bool:
        """Whether its sources were asked once, within this time."""
        return self._main.first.wait(timeout_s)

    def stop(self) -> None:
        """Ask nothing more; nothing is waited for."""
        for line in (self._main, *self._others.values()):
            line.stop()
        for upstream in self.upstreams:
            upstream.worker.stop()

    def feeds(self) -> list[Feed]:
        """The preferred sources' feed, then those that were begun for one basis."""
        return [self._main.feed, *(line.feed for line in list(self._others.values()))]

    def line(self, basis: Basis | None) -> Line | None:
        """Whose word on a basis is told, begun if it is wanted for the first time.

        For one thread.

        Returns:
            None: no source of this basis is asked for what is new.
        """
        asked = [one for one in self.upstreams if one.voice.basis is not Basis.MARGINAL]
        of_basis = [one for one in asked if basis in (None, one.voice.basis)]
        if not of_basis:
            return None
        if basis is None or len(of_basis) == len(asked):
            return self._main
        choice = self.feed.at(self._clock.now().wall_ns)
        if choice.level == FallbackLevel.LIVE and choice.signal.basis is basis:
            return self._main
        line = self._others.get(basis)
        if line is None:
            line = self._others[basis] = self._line(f"grid {self.zone} {basis}", of_basis)
            line.start()
        line.wanted_ns = self._clock.now().boottime_ns
        return line

    def chosen(self, basis: Basis | None, source: str = "") -> Iterator[Upstream]:
        """Its sources of a basis and a name, in order of preference."""
        for upstream in self.upstreams:
            voice = upstream.voice
            if basis in (None, voice.basis) and source in ("", voice.source):
                yield upstream

    def kept(self) -> Iterator[Kept]:
        """What is to be known of its sources over a restart."""
        feeds = self.feeds()
        due: dict[str, int] = {}
        signals: dict[str, dict[int, GridSignal]] = {}
        for feed in feeds:
            for name, due_ns in feed.due().items():
                due[name] = max(due.get(name, 0), due_ns)
            for signal in feed.signals():
                signals.setdefault(signal.source, {})[signal.valid_from_ns] = signal
        for one in self.upstreams:
            name = one.voice.source
            given = signals.get(name, {})
            last = tuple(given[start_ns] for start_ns in sorted(given))
            due_ns, holds = due.get(name, 0), one.manners.holds()
            yield Kept(self.zone, one.voice, one.mark, due_ns, holds, last)

    def _line(self, name: str, upstreams: Sequence[Upstream]) -> Line:
        feed = Feed(
            [one.polite for one in upstreams],
            # Its own last resort is the nodes' affair: they have the table, and say so.
            CountryTable.load().signal(WORLD),
            self._clock,
            max_age_ns=self._max_age_ns,
            remembered=[signal for kept in self._kept.values() for signal in kept.signals],
            node=f"relay of {platform.node()}",
            shares=RELAY_SHARES,
            passes_on=True,
        )
        feed.rest_until(
            {one.voice.source: _due_ns(self._kept.get(one.voice.source), one) for one in upstreams}
        )
        return Line(name, feed, self._clock, self.changed)


def _due_ns(kept: Kept | None, upstream: Upstream) -> int:
    """When an earlier run would have asked this source next."""
    if kept is not None and kept.mark == upstream.mark:
        return kept.due_ns
    return max((hold.due_ns for hold in upstream.manners.holds()), default=0)


def _upstream(
    zone: str,
    source: Source,
    clock: Clock,
    mark: str,
    kept: Kept | None,
    bounds: tuple[int, int],
) -> Upstream:
    books = source.basis is not Basis.MARGINAL
    knows_past, forecasts = isinstance(source, KnowsPast) and books, isinstance(source, Outlook)
    voice = Voice(source.name, source.basis, source.cadence_ns, knows_past, forecasts)
    # Settings are changed because something was mended: a token that was refused is tried again.
    holds = () if kept is None else (h for h in kept.holds if h.everywhere or kept.mark == mark)
    manners = Manners(clock, holds)
    most, most_told = bounds
    return Upstream(
        voice,
        Ahead(source, source.name, source.cadence_ns, clock, manners)
        if isinstance(source, Outlook)
        else None,
        History(source, clock, most, most_told=most_told, manners=manners)
        if isinstance(source, KnowsPast) and books
        else None,
        Worker(f"grid-{zone}-{source.name}", _WAITING),
        manners,
        Polite(source, manners, clock),
        mark,
    )


def _wanted(cadence_ns: int) -> int:
    """How many signals of the past nodes may ask for, of one source."""
    return (LONGEST_AGO_DAYS + 3) * DAY_NS // min(cadence_ns, _OFTEN_NS)


def fitting(cadences_ns: Sequence[int]) -> list[int]:
    """How many signals of the past to keep of sources of these cadences.

    Says so where that is less than nodes need that settle.
    """
    wanted = [_wanted(cadence_ns) for cadence_ns in cadences_ns]
    total = sum(wanted)
    if total <= MOST_SIGNALS:
        return wanted
    most = [max(count * MOST_SIGNALS // total, _LEAST_SIGNALS) for count in wanted]
    days = min(count * cadence // DAY_NS for count, cadence in zip(most, cadences_ns, strict=True))
    if days < _SETTLED_DAYS:
        log.warning(
            "of so many sources only the last %d days are kept, of the %d days that nodes settle: "
            "their past is asked for again and again; let several relays share the zones",
            days,
            _SETTLED_DAYS,
        )
    return most


def _nothing() -> None:
    """Nothing is kept."""


def _mark(source: SourceConfig) -> str:
    """What differs once a source's settings, or what is in the file of its token, do."""
    digest = hashlib.sha256(repr(source).encode())
    token_file = getattr(source, "token_file", None)
    if token_file:
        with contextlib.suppress(OSError):
            digest.update(Path(token_file).read_bytes()[:4096])
    return digest.hexdigest()[:16]


def places_of(config: Config, clock: Clock, memory: Memory | None = None) -> dict[str, Place]:
    """The zones of the settings' sources. A source of a zone is called as a node's own would be.

    Args:
        config: the settings.
        clock: time.
        memory: what an earlier run knew; None: nothing is kept.

    Raises:
        ConfigError: there is no source, or one that a relay does not pass on.
    """
    by_zone: dict[str, list[SourceConfig]] = {}
    faults = []
    for index, source in enumerate(source_configs(config)):
        by_zone.setdefault(source.zone, []).append(source)
        if source.kind == "wattledger":
            text = "a relay asks the sources themselves, not another relay"
            faults.append((f"grid.source[{index}].kind", text))
    if not by_zone:
        text = "there is no source to pass on: list one as [[grid.source]], or set site.zone"
        faults.append(("grid.source", text))
    if faults:
        raise ConfigError(faults)
    built = {
        zone: build_sources(listed, HttpClient(proxy=config.grid.proxy))
        for zone, listed in by_zone.items()
    }
    past = [s for sources in built.values() for s in sources if isinstance(s, KnowsPast)]
    most = dict(zip(map(id, past), fitting([one.cadence_ns for one in past]), strict=True))
    places = {
        zone: Place(
            zone,
            sources,
            clock,
            max_age_ns=int(config.grid.max_age),
            most_signals=[most.get(id(source), 0) for source in sources],
            most_told=max(MOST_TOLD // len(past or [0]), _LEAST_SIGNALS),
            memory=memory,
            marks=[_mark(source) for source in by_zone[zone]],
        )
        for zone, sources in built.items()
    }
    if memory is not None:
        memory.watch(lambda: (kept for place in places.values() for kept in place.kept()))
    return places
