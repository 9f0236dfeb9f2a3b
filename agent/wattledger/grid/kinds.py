"""The kinds of sources that a configuration may name, and the keyless one of a zone.

A new provider is one file with one class and one row in `KINDS`. Those without a key are imported
at once, to know their zones; the others by the configuration that names them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from wattledger.errors import ConfigError
from wattledger.grid import energinet, energy_charts, neso, rte
from wattledger.grid.client import HttpClient
from wattledger.grid.provider import is_name
from wattledger.grid.source import Source
from wattledger.model import Basis
from wattledger.units import NS_PER_S

INTERVAL_NS = 900 * NS_PER_S


class SourceConfig(NamedTuple):
    """One `[[grid.source]]`.

    Attributes:
        kind: a key of `KINDS`.
        zone: as the provider writes it.
        url: the API's base; empty: the provider's own.
        token_file: where the token or password lies; None: none.
        basis: which emission factors to ask for, where the provider offers a choice; None: its
            default.
        user: the account's name, where the provider wants one.
        pointer: JSON pointer to an intensity.
        time_pointer: JSON pointer to the start of its period; empty: none.
        unit: what an intensity is written in, a key of `quantity.UNITS`.
        interval_ns: how long an intensity is valid for, where the source does not say.
        file: the path of a file to read.
        query: what to ask a Prometheus.
    """

    kind: str
    zone: str
    url: str = ""
    token_file: Path | None = None
    basis: Basis | None = None
    user: str = ""
    pointer: str = ""
    time_pointer: str = ""
    unit: str = "g/kWh"
    interval_ns: int = INTERVAL_NS
    file: str = ""
    query: str = ""


class SourceKind(NamedTuple):
    """What the configuration must know of a provider.

    Attributes:
        serves: whether it can know a zone of this name.
        zones: what it serves, in words.
        build: makes the source; raises ValueError with a sentence.
        needs_token: it answers no request without one.
        books: its intensities may price the books; False: they are always marginal.
        own_zones: its zones are names that a site gave, each known to one source alone.
    """

    serves: Callable[[str], bool]
    zones: str
    build: Callable[[HttpClient, SourceConfig, str], Source]
    needs_token: bool = False
    books: bool = True
    own_zones: bool = False


def _token_file(config: SourceConfig) -> Path:
    if config.token_file is None:
        raise ValueError(f"{config.kind} needs a token_file")
    return config.token_file


def _no_choice(config: SourceConfig, only: Basis) -> None:
    """Refuse another basis than the one that a provider has."""
    if config.basis not in (None, only):
        raise ValueError(f"{config.kind} has no choice of emission factors; leave it out")


def _stated(config: SourceConfig) -> Basis:
    """What the numbers of a source count that cannot say it itself."""
    if config.basis is None:
        raise ValueError(
            f"{config.kind} cannot know what its numbers count: set emission_factor_type"
        )
    return config.basis


def _neso(client: HttpClient, config: SourceConfig, name: str) -> Source:
    _no_choice(config, Basis.GENERATION)
    return neso.Neso(client, url=config.url, zone=config.zone, name=name)


def _electricity_maps(client: HttpClient, config: SourceConfig, name: str) -> Source:
    from wattledger.grid import electricity_maps

    return electricity_maps.ElectricityMaps(
        client,
        zone=config.zone,
        token_file=_token_file(config),
        url=config.url,
        basis=config.basis or Basis.LIFECYCLE,
        name=name,
    )


def _watttime(client: HttpClient, config: SourceConfig, name: str) -> Source:
    from wattledger.grid import watttime

    _no_choice(config, Basis.MARGINAL)
    return watttime.WattTime(
        client,
        zone=config.zone,
        user=config.user,
        token_file=_token_file(config),
        url=config.url,
        name=name,
    )


def _energy_charts(client: HttpClient, config: SourceConfig, name: str) -> Source:
    _no_choice(config, Basis.LIFECYCLE)
    return energy_charts.EnergyCharts(client, zone=config.zone, url=config.url, name=name)


def _energinet(client: HttpClient, config: SourceConfig, name: str) -> Source:
    _no_choice(config, Basis.GENERATION)
    return energinet.Energinet(client, zone=config.zone, url=config.url, name=name)


def _rte(client: HttpClient, config: SourceConfig, name: str) -> Source:
    _no_choice(config, Basis.DIRECT)
    return rte.Rte(client, zone=config.zone, url=config.url, name=name)


def _entsoe(client: HttpClient, config: SourceConfig, name: str) -> Source:
    from wattledger.grid import entsoe

    _no_choice(config, Basis.LIFECYCLE)
    return entsoe.Entsoe(
        client, zone=config.zone, token_file=_token_file(config), url=config.url, name=name
    )


def _eia(client: HttpClient, config: SourceConfig, name: str) -> Source:
    from wattledger.grid import eia

    _no_choice(config, Basis.LIFECYCLE)
    return eia.Eia(
        client, zone=config.zone, token_file=_token_file(config), url=config.url, name=name
    )


def _carbon_aware(client: HttpClient, config: SourceConfig, name: str) -> Source:
    from wattledger.grid import carbon_aware

    return carbon_aware.CarbonAware(
        client, zone=config.zone, url=config.url, basis=_stated(config), name=name
    )


def _json(client: HttpClient, config: SourceConfig, name: str) -> Source:
    from wattledger.grid import json_source

    return json_source.JsonSource(
        client,
        zone=config.zone,
        url=config.url,
        pointer=config.pointer,
        time_pointer=config.time_pointer,
        basis=_stated(config),
        unit=config.unit,
        interval_ns=config.interval_ns,
        token_file=config.token_file,
        name=name,
    )


def _csv(_client: HttpClient, config: SourceConfig, name: str) -> Source:
    from wattledger.grid import csv_source

    return csv_source.CsvSource(
        zone=config.zone,
        file=config.file,
        basis=_stated(config),
        unit=config.unit,
        interval_ns=config.interval_ns,
        name=name,
    )


def _prometheus(client: HttpClient, config: SourceConfig, name: str) -> Source:
    from wattledger.grid import prometheus_source

    return prometheus_source.PrometheusSource(
        client,
        zone=config.zone,
        url=config.url,
        query=config.query,
        basis=_stated(config),
        unit=config.unit,
        interval_ns=config.interval_ns,
        token_file=config.token_file,
        name=name,
    )


def _wattledger(client: HttpClient, config: SourceConfig, name: str) -> Source:
    from wattledger.grid import wattledger_source

    return wattledger_source.Wattledger(
        client,
        zone=config.zone,
        url=config.url,
        basis=config.basis,
        user=config.user,
        token_file=config.token_file,
        name=name,
    )


def _is_electricity_maps(zone: str) -> bool:
    from wattledger.grid import electricity_maps

    return electricity_maps.is_zone(zone)


def _is_watttime(zone: str) -> bool:
    from wattledger.grid import watttime

    return watttime.is_zone(zone)


def _is_entsoe(zone: str) -> bool:
    from wattledger.grid import entsoe

    return entsoe.eic_of(zone) is not None


def _is_eia(zone: str) -> bool:
    from wattledger.grid import eia

    return eia.is_zone(zone)


def _is_of_a_relay(zone: str) -> bool:
    from wattledger.grid import relay_reply

    return relay_reply.is_zone(zone)


_ANY = "any name of letters, digits, dots, dashes and underscores"

KINDS: Mapping[str, SourceKind] = MappingProxyType(
    {
        "neso": SourceKind(
            neso.is_zone,
            "Great Britain (GB), its regions 1 to 17 (GB-13) and outward postcodes (GB-RG10)",
            _neso,
        ),
        "electricity_maps": SourceKind(
            _is_electricity_maps,
            "the zones of app.electricitymaps.com, such as DE, DK-DK1 or US-CAR-DUK",
            _electricity_maps,
            needs_token=True,
        ),
        "watttime": SourceKind(
            _is_watttime,
            "the regions of docs.watttime.org, such as CAISO_NORTH",
            _watttime,
            needs_token=True,
            books=False,
        ),
        "energy_charts": SourceKind(
            lambda zone: zone in energy_charts.ZONES,
            "countries of Europe by their ISO 3166 code, such as DE, AT or PL",
            _energy_charts,
        ),
        "energinet": SourceKind(
            energinet.is_zone, "the Danish price areas DK1 and DK2", _energinet
        ),
        "rte": SourceKind(rte.is_zone, "France (FR)", _rte),
        "entsoe": SourceKind(
            _is_entsoe,
            "countries and bidding zones of Europe, such as DE, SE3 or an EIC",
            _entsoe,
            needs_token=True,
        ),
        "eia": SourceKind(
            _is_eia,
            "the balancing authorities of the United States, such as US-CISO or US-CAL-CISO",
            _eia,
            needs_token=True,
        ),
        "carbon_aware": SourceKind(
            is_name, f"the locations of the SDK: {_ANY}", _carbon_aware, own_zones=True
        ),
        "json": SourceKind(is_name, _ANY, _json, own_zones=True),
        "csv": SourceKind(is_name, _ANY, _csv, own_zones=True),
        "prometheus": SourceKind(is_name, _ANY, _prometheus, own_zones=True),
        "wattledger": SourceKind(
            _is_of_a_relay, f"the zones of the relay: {_ANY}", _wattledger, own_zones=True
        ),
    }
)


# By kind, the zones that it is used for unasked: of several the one nearest to the grid.
_KEYLESS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        "neso": neso.is_zone,
        "energinet": energinet.is_zone,
        "rte": rte.is_zone,
        "energy_charts": lambda zone: zone in energy_charts.KEYLESS,
    }
)


def keyless(zone: str) -> SourceConfig | None:
    """The source that serves a zone without a key, for when none is configured; None: none does."""
    found = next((kind for kind, serves in _KEYLESS.items() if serves(zone)), None)
    return SourceConfig(found, zone) if found else None


def build_sources(
    configs: Sequence[SourceConfig], client: HttpClient, paths: Sequence[str] = ()
) -> list[Source]:
    """The sources of a configuration, in its order.

    The first of a kind is named after it, the second `<kind>_2`, and so on.

    Args:
        configs: what to build.
        client: the way out.
        paths: what a fault of each is said to be of; empty: `grid.source[n]` in this order.

    Raises:
        ConfigError: all faults at once, each with its key's path.
    """
    sources: list[Source] = []
    faults: list[tuple[str, str]] = []
    seen: Counter[str] = Counter()
    for index, config in enumerate(configs):
        path = paths[index] if paths else f"grid.source[{index}]"
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
