"""What a configuration may not say although each value alone is fine."""

from __future__ import annotations

from wattledger.config.credentials import CREDENTIAL, expand_credential
from wattledger.config.settings import Config
from wattledger.config.site_market import market_faults
from wattledger.config.site_sources import SITE_TOKENS, site_faults
from wattledger.errors import ConfigError
from wattledger.grid import KINDS, SourceConfig, build_sources, keyless
from wattledger.grid.client import HttpClient
from wattledger.grid.secret import read_token
from wattledger.grid.table import CountryTable
from wattledger.model import Basis
from wattledger.units import NS_PER_MS, NS_PER_S, format_duration

Fault = tuple[str, str]
LONGEST_SETTLE_NS = 59 * 86_400 * NS_PER_S  # the ledger keeps slots of 5 minutes for 60 days


def semantic_faults(config: Config) -> list[Fault]:
    """The faults that only two or more settings together make."""
    return [
        *_sampling(config),
        *_meters(config),
        *_jobs(config),
        *_grid(config),
        *site_faults(config),
        *market_faults(config),
    ]


def _sampling(config: Config) -> list[Fault]:
    sampling = config.sampling
    faults: list[Fault] = []
    lowest_ns = 50 * NS_PER_MS if sampling.allow_fine_grained else NS_PER_S
    remedy = "" if sampling.allow_fine_grained else "; sampling.allow_fine_grained lifts this"
    for key, value in (
        ("interval", sampling.interval),
        ("commit_interval", sampling.commit_interval),
    ):
        if value < lowest_ns:
            low = format_duration(lowest_ns)
            faults.append((f"sampling.{key}", f"is shorter than {low}{remedy}"))
    if sampling.interval > 60 * NS_PER_S:
        faults.append(("sampling.interval", 'is longer than "1m": CPU counters would wrap unseen'))
    if sampling.commit_interval > 600 * NS_PER_S:
        faults.append(("sampling.commit_interval", 'is longer than "10m"'))
    if sampling.commit_interval < sampling.interval and sampling.interval >= lowest_ns:
        faults.append(
            ("sampling.commit_interval", "is shorter than sampling.interval; make it as long")
        )
    return faults


def _meters(config: Config) -> list[Fault]:
    meters = config.meters
    faults: list[Fault] = []
    if meters.nvml.backend == "simulated" and not meters.nvml.scenario:
        faults.append(
            ("meters.nvml.scenario", "is missing; the simulated backend plays a scenario file")
        )
    idle, most = meters.estimate.idle_watts, meters.estimate.max_watts
    if idle is not None and most is not None and idle > most:
        faults.append(("meters.estimate.idle_watts", "is above meters.estimate.max_watts"))
    return faults


def _jobs(config: Config) -> list[Fault]:
    faults = [
        (f"jobs.slurm.roots[{number}]", f'{root!r} is no cgroup; write one such as "/slurmd"')
        for number, root in enumerate(config.jobs.slurm.roots)
        if not root.startswith("/") or not root.strip("/") or ".." in root.split("/")
    ]
    faults += [
        (f"jobs.units[{number}]", 'is empty; write a name such as "train@*.service"')
        for number, unit in enumerate(config.jobs.units)
        if not unit
    ]
    if config.jobs.linger > 24 * 3600 * NS_PER_S:
        faults.append(("jobs.linger", 'is longer than "24h"; the ledger keeps ended jobs for good'))
    return faults


def _grid(config: Config) -> list[Fault]:
    """The sources, and whether anything can price the site's zone."""
    faults: list[Fault] = []
    if config.grid.settle_window > LONGEST_SETTLE_NS:
        longest = format_duration(LONGEST_SETTLE_NS)
        faults.append(
            ("grid.settle_window", f'is longer than "{longest}": older books are kept by the hour')
        )
    try:
        table_zone(config)
    except ConfigError as error:
        faults += error.faults
    try:
        client = HttpClient(proxy=config.grid.proxy)
    except ValueError as error:
        return [*faults, ("grid.proxy", str(error))]
    faults += [
        (f"grid.source[{index}].interval", 'is not from "1m" to "1d" in whole seconds')
        for index, source in enumerate(config.grid.source or ())
        if not 60 <= source.interval / NS_PER_S <= 86_400 or source.interval % NS_PER_S
    ]
    try:
        build_sources(source_configs(config), client)
    except ConfigError as error:
        faults += error.faults
    return faults


def table_zone(config: Config) -> str:
    """The row of the country table that is the site's last resort, and names its water factor.

    A zone that the table lacks needs a source that serves it; then the world's row stands in.

    Raises:
        ConfigError: a zone that nothing knows; names the ones that may be meant.
    """
    table, zone = CountryTable.load(), str(config.site.zone)
    served = any(
        source.zone == zone
        and source.kind in KINDS
        and KINDS[source.kind].books
        and source.basis is not Basis.MARGINAL
        and KINDS[source.kind].serves(zone)
        for source in source_configs(config)
    )
    return table.stand_in(zone) if served else table.row(zone).zone


def source_configs(config: Config) -> list[SourceConfig]:
    """The grid sources in force: those listed, else the keyless one of the zone."""
    listed = config.grid.source
    zone = str(config.site.zone)
    if listed is None:
        found = keyless(zone)
        return [] if found is None else [found]
    return [
        SourceConfig(
            kind=source.kind,
            zone=source.zone or zone,
            url=source.url,
            token_file=expand_credential(source.token_file),
            basis=Basis(source.emission_factor_type) if source.emission_factor_type else None,
            user=source.user,
            pointer=source.pointer,
            time_pointer=source.time_pointer,
            unit=source.unit,
            interval_ns=int(source.interval),
            file=source.file,
            query=source.query,
        )
        for source in listed
    ]


def check_tokens(config: Config) -> None:
    """Whether this user can read the sources' tokens, now.

    Apart from the other checks, since the daemon alone has to be able to, and not everybody who
    asks it by the command line. Credentials are left out where no systemd has made them.

    Raises:
        ConfigError: tokens that are missing, unsafe or none, each with its key's path.
    """
    faults: list[Fault] = []
    files = [
        (f"grid.source[{index}].token_file", source.token_file)
        for index, source in enumerate(config.grid.source or ())
    ]
    for key, file in [*files, *((key, find(config)) for key, find in SITE_TOKENS.items())]:
        path = expand_credential(file)
        if path is None or str(path).startswith(CREDENTIAL):
            continue
        try:
            read_token(path, key=key)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
