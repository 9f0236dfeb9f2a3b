"""Which grid sources a question about a zone goes to."""

from __future__ import annotations

from wattledger.config import Config
from wattledger.config.check import source_configs
from wattledger.errors import ConfigError
from wattledger.grid import KINDS, SourceConfig, build_sources, keyless
from wattledger.grid.client import HttpClient
from wattledger.grid.source import Source


def sources_of(config: Config, zone: str, kind: str, option: str) -> list[Source]:
    """The sources to ask, in order of preference; none where there are none.

    Those of the settings; for a zone of one's own choice those listed for it, then those listed
    for another zone that serve it too, then the one without a key. Unlike the books' sources they
    may be marginal.

    Args:
        config: the settings.
        zone: empty: the site's, which each listed source may know by a name of its own.
        kind: this kind only, listed or without a key; empty: all.
        option: how the command line calls the kind.

    Raises:
        ConfigError: no such kind, or one that cannot be asked for this zone.
    """
    found = source_configs(config)
    if zone:
        there = [source for source in found if source.zone == zone]
        elsewhere = [source for source in found if source.zone != zone]
        found = there + [s._replace(zone=zone) for s in elsewhere if _reaches(s.kind, zone)]
        without_key = keyless(zone)
        if without_key is not None and without_key.kind not in {source.kind for source in found}:
            found.append(without_key)
    if kind:
        found = [source for source in found if source.kind == kind]
        if not found:
            found = [_unlisted(kind, zone or str(config.site.zone), option)]
    return build_sources(found, HttpClient(proxy=config.grid.proxy))


def _reaches(kind: str, zone: str) -> bool:
    """Whether a kind serves a zone by the same API; a site's own sources are of one place each."""
    return not KINDS[kind].own_zones and KINDS[kind].serves(zone)


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
