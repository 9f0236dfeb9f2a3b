"""From settings to whoever tells the site's factors over time."""

from __future__ import annotations

import platform

from wattledger.config import Config
from wattledger.config.site_sources import live_pue, weather
from wattledger.errors import ConfigError
from wattledger.grid.client import HttpClient
from wattledger.model import SiteFactors
from wattledger.ports import Clock
from wattledger.site_feed import SiteFeed, WeatherWue


def site_feed(config: Config, base: SiteFactors, clock: Clock, note: str = "") -> SiteFeed:
    """The site's factors, over time where the settings name somebody who tells them.

    Args:
        config: the settings.
        base: the factors of the settings.
        clock: time.
        note: what an earlier run kept; see `SiteFeed.note`.

    Raises:
        ConfigError: a source that cannot be.
    """
    try:
        client = HttpClient(proxy=config.grid.proxy)
        air, pue = weather(config, client), live_pue(config, client)
    except ValueError as error:
        raise ConfigError([("site", str(error))]) from error
    wanted = config.site.weather
    wue = None
    if air is not None:
        wue = WeatherWue(air, wanted.cycles_of_concentration, wanted.least_wue_l_per_kwh)
    return SiteFeed(
        base,
        wue,
        pue,
        clock,
        max_age_ns=int(config.grid.max_age),
        note=note,
        node=platform.node(),
    )
