"""How dirty: carbon intensity from providers, the country table, and the feed that chooses.

    provider ── client ── source ── GridSignal ─► feed.at(instant) ─► GridChoice
                                    table ───────►

A new provider is one file with one class and one row in `KINDS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from wattledger.errors import ConfigError
from wattledger.grid.client import HttpClient
from wattledger.grid.electricity_maps import ElectricityMaps, is_zone
from wattledger.grid.neso import ZONE as NESO_ZONE
from wattledger.grid.neso import Neso
from wattledger.grid.source import Source
from wattledger.model import Basis


class SourceConfig(NamedTuple):
    """One `[[grid.source]]`.

    Attributes:
        kind: a key of `KINDS`.
        zone: as the provider writes it.
        url: the API's base; empty: the provider's own.
        token_file: where the token lies; None: none.
        basis: which emission factors to ask for, where the provider offers a choice; None: its
            default.
    """

    kind: str
    zone: str
    url: str = ""
    token_file: Path | None = None
    basis: Basis | None = None


class SourceKind(NamedTuple):
    """What the configuration must know of a provider.

    Attributes:
        serves: whether it can know a zone of this name.
        zones: what it serves, in words.
        needs_token: it answers no request without one.
        build: makes the source; raises ValueError with a sentence.
    """

    serves: Callable[[str], bool]
    zones: str
    needs_token: bool
    build: Callable[[HttpClient, SourceConfig, str], Source]


def _neso(client: HttpClient, config: SourceConfig, name: str) -> Source:
    if config.basis not in (None, Basis.GENERATION):
        raise ValueError("neso has no choice of emission factors; leave it out")
    return Neso(client, url=config.url, zone=config.zone, name=name)


def _electricity_maps(client: HttpClient, config: SourceConfig, name: str) -> Source:
    if config.token_file is None:
        raise ValueError("electricity_maps needs a token_file")
    return ElectricityMaps(
        client,
        zone=config.zone,
        token_file=config.token_file,
        url=config.url,
        basis=config.basis or Basis.LIFECYCLE,
        name=name,
    )


KINDS: Mapping[str, SourceKind] = MappingProxyType(
    {
        "neso": SourceKind(
            lambda zone: zone == NESO_ZONE, "Great Britain (GB)", needs_token=False, build=_neso
        ),
        "electricity_maps": SourceKind(
            is_zone,
            "the zones of app.electricitymaps.com, such as DE, DK-DK1 or US-CAR-DUK",
            needs_token=True,
            build=_electricity_maps,
        ),
    }
)


def build_sources(configs: Sequence[SourceConfig], client: HttpClient) -> list[Source]:
    """The sources of a configuration, in its order.

    The first of a kind is named after it, the second `<kind>_2`, and so on.

    Raises:
        ConfigError: all faults at once, each with its key's path.
    """
    sources: list[Source] = []
    faults: list[tuple[str, str]] = []
    seen: Counter[str] = Counter()
    for index, config in enumerate(configs):
        path = f"grid.source[{index}]"
        kind = KINDS.get(config.kind)
        if kind is None:
            known = ", ".join(KINDS)
            faults.append((f"{path}.kind", f"{config.kind!r} is not known; known are {known}"))
            continue
        seen[config.kind] += 1
        count = seen[config.kind]
        if not kind.serves(config.zone):
            faults.append(
                (
                    f"{path}.zone",
                    f"{config.kind} does not serve {config.zone!r}: it knows {kind.zones}",
                )
            )
            continue
        try:
            name = config.kind if count == 1 else f"{config.kind}_{count}"
            sources.append(kind.build(client, config, name))
        except ValueError as error:
            faults.append((path, str(error)))
    if faults:
        raise ConfigError(faults)
    return sources
