"""The zones of a relay: for each the feed of its sources, their forecasts and their past."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator, Sequence
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
from wattledger.model import Basis
from wattledger.ports import Clock
from wattledger.relay.ahead import Ahead
from wattledger.relay.past import History
from wattledger.services import PollingThread
from wattledger_exporters.http.worker import Worker

MOST_SIGNALS = 120_000  # of the past, over all sources: some 40 MB
_LEAST_SIGNALS = 2_000
_WAITING = 64


class Upstream(NamedTuple):
    """One source: who it is, and what is kept of it beside what is new."""

    voice: Voice
    ahead: Ahead | None
    history: History | None
    worker: Worker  # asks for both; what is new has a thread of its own


class Place:
    """One zone.

    Args:
        zone: its name.
        sources: in order of preference.
        clock: time.
        max_age_ns: how long after its end a signal may still be the last good one.
        most_signals: of the past, to be kept of each source.
    """

    def __init__(
        self,
        zone: str,
        sources: Sequence[Source],
        clock: Clock,
        *,
        max_age_ns: int,
        most_signals: int = MOST_SIGNALS,
    ) -> None:
        self.zone = zone
        # Its own last resort is the nodes' affair: they have the table, and say so.
        table = CountryTable.load().signal(WORLD)
        self.feed = Feed(
            sources,
            table,
            clock,
            max_age_ns=max_age_ns,
            node=f"relay of {platform.node()}",
            shares=RELAY_SHARES,
        )
        self.upstreams = [_upstream(zone, source, clock, most_signals) for source in sources]
        self._asked = threading.Event()
        self._poller = PollingThread(f"grid {zone}", self._poll)

    def start(self) -> None:
        """Ask for what is new from now on, in a thread."""
        self._poller.start()

    def wait_for_first(self, timeout_s: float) -> bool:
        """Whether its sources were asked once, within this time."""
        return self._asked.wait(timeout_s)

    def stop(self) -> None:
        """Ask nothing more; nothing is waited for."""
        self.feed.request_stop()
        self._poller.stop()
        for upstream in self.upstreams:
            upstream.worker.stop()

    def chosen(self, basis: Basis | None, source: str = "") -> Iterator[Upstream]:
        """Its sources of a basis and a name, in order of preference."""
        for upstream in self.upstreams:
            voice = upstream.voice
            if basis in (None, voice.basis) and source in ("", voice.source):
                yield upstream

    def _poll(self) -> float:
        try:
            return self.feed.poll_once()
        finally:
            self._asked.set()


def _upstream(zone: str, source: Source, clock: Clock, most_signals: int) -> Upstream:
    books = source.basis is not Basis.MARGINAL
    knows_past, forecasts = isinstance(source, KnowsPast) and books, isinstance(source, Outlook)
    voice = Voice(source.name, source.basis, source.cadence_ns, knows_past, forecasts)
    return Upstream(
        voice,
        Ahead(source, source.name, source.cadence_ns, clock)
        if isinstance(source, Outlook)
        else None,
        History(source, clock, most_signals) if isinstance(source, KnowsPast) and books else None,
        Worker(f"grid-{zone}-{source.name}", _WAITING),
    )


def places_of(config: Config, clock: Clock) -> dict[str, Place]:
    """The zones of the settings' sources. A source of a zone is called as a node's own would be.

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
    most = max(MOST_SIGNALS // sum(map(len, by_zone.values())), _LEAST_SIGNALS)
    return {
        zone: Place(
            zone,
            build_sources(listed, HttpClient(proxy=config.grid.proxy)),
            clock,
            max_age_ns=int(config.grid.max_age),
            most_signals=most,
        )
        for zone, listed in by_zone.items()
    }
