"""Which grid sources a question about a zone goes to."""

from __future__ import annotations

from typing import NamedTuple

from wattledger.config import Config
from wattledger.config.check import source_configs
from wattledger.errors import ConfigError
from wattledger.grid import KINDS, SourceConfig, build_sources, keyless
from wattledger.grid.client import HttpClient
from wattledger.grid.source import Outlook, Source

RELAY = "wattledger"
"""The kind that passes on what others say, of whichever zones it is set up for."""


class _Asked(NamedTuple):
    """A source to ask, and where it is from: `grid.source[3]`, as the settings count them."""

    path: str
    config: SourceConfig


def sources_of(
    config: Config, zone: str, kind: str, option: str, *, ahead: bool = False
) -> list[Source]:
    """The sources to ask, in order of preference; none where there are none.

    Those of the settings; for a zone of one's own choice those listed for it, then those listed
    for another zone that may serve it too, then the one without a key. Unlike the books' sources
    they may be marginal.

    Args:
        config: the settings.
        zone: empty: the site's, which each listed source may know by a name of its own.
        kind: this kind only, listed or without a key; empty: all.
        option: how the command line calls the kind.
        ahead: a forecast is wanted: also every other source without a key that serves the zone and
            has one, unless the settings say that there is to be no source.

    Raises:
        ConfigError: no such kind, or one that cannot be asked for this zone.
    """
    place = zone or str(config.site.zone)
    found = [
        _Asked(f"grid.source[{number}]", source)
        for number, source in enumerate(source_configs(config))
    ]
    if zone:
        there = [asked for asked in found if asked.config.zone == zone]
        elsewhere = [
            _Asked(path, source._replace(zone=zone))
            for path, source in found
            if source.zone != zone and _reaches(source.kind, zone)
        ]
        found = there + elsewhere
        if (without_key := keyless(zone)) is not None:
            found += _beside(found, [without_key], option)
    sure = len(found)
    if ahead and (zone or config.grid.source != ()):
        found += _beside(found, _unasked(place), option)
    if kind:
        found = [asked for asked in found if asked.config.kind == kind]
        if not found:
            found = [_Asked(option, _unlisted(kind, place, option))]
        sure = len(found)
    built = build_sources(
        [asked.config for asked in found],
        HttpClient(proxy=config.grid.proxy),
        paths=[asked.path for asked in found],
    )
    return built[:sure] + [source for source in built[sure:] if isinstance(source, Outlook)]


def _beside(found: list[_Asked], more: list[SourceConfig], option: str) -> list[_Asked]:
    """Those of further sources whose kind is not there yet."""
    kinds = {asked.config.kind for asked in found}
    return [_Asked(option, source) for source in more if source.kind not in kinds]


def _unasked(zone: str) -> list[SourceConfig]:
    """Every source that serves a zone without a key, whether or not the books would use it."""
    return [
        SourceConfig(name, zone)
        for name, kind in KINDS.items()
        if not kind.needs_token and not kind.own_zones and kind.serves(zone)
    ]


def _reaches(kind: str, zone: str) -> bool:
    """Whether a kind may serve a zone by the same API; a site's own sources are of one place each.

    What a relay serves only it can say: where it does not, it answers so.
    """
    known = KINDS.get(kind)
    if known is None:
        return False
    return known.serves(zone) and (kind == RELAY or not known.own_zones)


def _unlisted(kind: str, zone: str, option: str) -> SourceConfig:
    """A kind that the settings do not list, which only one without a key can do without."""
    known = KINDS.get(kind)
    if known is None:
        raise ConfigError([(option, f"{kind[:60]!r} is not known; known are {', '.join(KINDS)}")])
    if known.needs_token or known.own_zones:
        text = f"{kind} has to be listed under [[grid.source]], since it needs settings of its own"
        raise ConfigError([(option, text)])
    if not known.serves(zone):
        text = f"{kind} does not serve {zone[:60]!r}: it knows {known.zones}"
        raise ConfigError([(option, text)])
    return SourceConfig(kind, zone)
