"""Who tells the price of energy, the grid and the site, each asked by a thread of its own."""

from __future__ import annotations

from wattledger import build
from wattledger.config import Config
from wattledger.model import GridSignal
from wattledger.ports import Clock
from wattledger.services import PollingThread
from wattledger.site_build import site_feed


class Feeds:
    """The feeds of one set of settings; a reload replaces all of it by its heir."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        signals: tuple[GridSignal, ...] = (),
        site_note: str = "",
    ) -> None:
        """Feeds that nobody asks yet.

        Args:
            config: the settings.
            clock: time.
            signals: the last good grid signals of an earlier run.
            site_note: what an earlier run kept of the site; see `SiteFeed.note`.

        Raises:
            ConfigError: a zone that nothing knows, a source that cannot be.
        """
        self._clock = clock
        self.grid = build.grid_feed(config, clock, signals)
        self.site = site_feed(config, build.site_factors(config), clock, site_note)
        self._threads = [PollingThread("grid", self.grid.poll_once)]
        if self.site.asks:
            self._threads.append(PollingThread("site", self.site.poll_once))

    def heir(self, config: Config) -> Feeds:
        """Those of new settings, which know what these have learnt; not started.

        Raises:
            ConfigError: as at the start; these stay as they are.
        """
        heir = Feeds(config, self._clock)
        heir.grid.inherit(self.grid)
        heir.site.inherit(self.site)
        return heir

    def start(self) -> None:
        """Ask at once, and then as each source wants to be asked."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more; a request in flight is not waited for."""
        self.grid.request_stop()
        self.site.request_stop()
        for thread in self._threads:
            thread.stop()
