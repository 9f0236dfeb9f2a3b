"""From the settings of a site to those who tell its weather and its PUE."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from wattledger.config.credentials import expand_credential
from wattledger.config.settings import Config
from wattledger.grid.client import HttpClient
from wattledger.grid.kinds import SourceConfig
from wattledger.grid.live_pue import LivePue
from wattledger.grid.open_meteo import OpenMeteo
from wattledger.units import NS_PER_S

Fault = tuple[str, str]
SITE_TOKENS: Mapping[str, Callable[[Config], str]] = MappingProxyType(
    {
        "site.weather.token_file": lambda config: str(config.site.weather.token_file),
        "site.live_pue.token_file": lambda config: str(config.site.live_pue.token_file),
    }
)
"""Key of a token's file → that file in a configuration, or nothing."""


def weather(config: Config, client: HttpClient) -> OpenMeteo | None:
    """Who tells the weather; None: no place is given.

    Raises:
        ValueError: its url must not be asked.
    """
    wanted = config.site.weather
    if wanted.latitude is None or wanted.longitude is None:
        return None
    return OpenMeteo(
        client,
        latitude=wanted.latitude,
        longitude=wanted.longitude,
        url=wanted.url,
        token_file=expand_credential(wanted.token_file),
    )


def live_pue(config: Config, client: HttpClient) -> LivePue | None:
    """Who tells the PUE; None: nobody does.

    Raises:
        ValueError: it cannot be asked; a sentence.
    """
    wanted = config.site.live_pue
    if not wanted.kind:
        return None
    return LivePue(
        client,
        SourceConfig(
            kind=wanted.kind,
            zone="",
            url=wanted.url,
            token_file=expand_credential(wanted.token_file),
            pointer=wanted.pointer,
            time_pointer=wanted.time_pointer,
            interval_ns=int(wanted.interval),
            file=wanted.file,
            query=wanted.query,
        ),
    )


def site_faults(config: Config) -> list[Fault]:
    """What of a site's settings does not go together."""
    site, faults = config.site, list[Fault]()
    if (site.weather.latitude is None) != (site.weather.longitude is None):
        lacking = "latitude" if site.weather.latitude is None else "longitude"
        faults.append((f"site.weather.{lacking}", "is missing: a place has both"))
    interval_s = site.live_pue.interval / NS_PER_S
    if not 60 <= interval_s <= 86_400 or interval_s % 1:
        faults.append(("site.live_pue.interval", 'is not from "1m" to "1d" in whole seconds'))
        return faults
    client = HttpClient()
    for key, build in (("site.weather.url", weather), ("site.live_pue", live_pue)):
        try:
            build(config, client)
        except ValueError as error:
            faults.append((key, str(error)))
    return faults
