"""From settings to parts: which meters, which grid, which files."""

from __future__ import annotations

import platform
import pwd
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from wattledger.config import Config
from wattledger.config.check import source_configs, table_zone
from wattledger.config.places import SYSTEM_SOCKET as SYSTEM_SOCKET
from wattledger.config.places import ledger_path as ledger_path
from wattledger.config.places import socket_path as socket_path
from wattledger.config.site_market import market
from wattledger.config.site_settings import DEFAULT_PUE, DEFAULT_WUE_L_PER_KWH
from wattledger.core.footprint import footprint
from wattledger.errors import ScenarioError
from wattledger.exporter_build import run_exporters
from wattledger.grid import build_sources
from wattledger.grid.client import HttpClient
from wattledger.grid.feed import Feed
from wattledger.grid.source import History, Relay
from wattledger.grid.table import CountryTable
from wattledger.jobs.bound import BoundJobs
from wattledger.jobs.claims import (
    Bindings,
    ClaimSource,
    DcgmJobMapping,
    GpuBy,
    JobNames,
    JobstatsFiles,
    KubeletPodResources,
    PodUids,
    SlurmHooks,
)
from wattledger.jobs.namespaces import own_root
from wattledger.jobs.paths import Paths
from wattledger.jobs.runs import RunRegistry, WithRuns, where_is
from wattledger.jobs.runs.registry import BURST, ClaimGpus
from wattledger.jobs.watch import Description, JobWatch
from wattledger.ledger import SqliteLedger, open_ledger
from wattledger.meters.constant import ConstantMeter
from wattledger.meters.estimate import EstimateMeter
from wattledger.meters.first_of import FirstOf
from wattledger.meters.hwmon import HwmonMeter
from wattledger.meters.nvml.binding import NvmlDriver, real_driver
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.meters.rapl import RaplMeter
from wattledger.model import Basis, GridSignal, SiteFactors
from wattledger.model.jobs import POD, RUN, SLURM, JobKey, JobRun
from wattledger.model.running import KnownRun
from wattledger.ports import Clock, Jobs, Meter
from wattledger.settler import SettleSources
from wattledger.units import micro


def nvml_driver(config: Config, clock: Clock) -> NvmlDriver:
    """pynvml, or the simulated GPUs of a scenario.

    Raises:
        ScenarioError: names the scenario's file and line.
    """
    if config.meters.nvml.backend == "driver":
        driver: NvmlDriver = real_driver()
        return driver
    from wattledger.meters.simulated import SimulatedNvml, load_scenario

    return SimulatedNvml(load_scenario(Path(config.meters.nvml.scenario)), clock)


def scenario_name(config: Config) -> str:
    """What the scenario calls itself; empty: the GPUs are real.

    Raises:
        ScenarioError: names the scenario's file and line.
    """
    if config.meters.nvml.backend == "driver":
        return ""
    from wattledger.meters.simulated import load_scenario

    return load_scenario(Path(config.meters.nvml.scenario)).name


def scenario_told(config: Config) -> str:
    """The same where only books are read: the scenario need not be there any more."""
    try:
        return scenario_name(config)
    except ScenarioError:
        return Path(config.meters.nvml.scenario).stem


def meters(
    config: Config, clock: Clock, hurried: Callable[[], bool] = lambda: False
) -> list[Meter]:
    """The meters that the settings allow, each to be run in a thread of its own.

    Args:
        config: the settings.
        clock: time.
        hurried: somebody waits to see processes on the GPUs; see `NvmlMeter`.

    Raises:
        ScenarioError: a simulated scenario that cannot be played.
    """
    sysfs, procfs = Path(config.path.sysfs), Path(config.path.procfs)
    interval_ns = int(config.sampling.interval)
    wanted = config.meters
    found: list[Meter] = []
    nvml: NvmlMeter | None = None
    if wanted.nvml.enabled != "false":
        nvml = NvmlMeter(
            nvml_driver(config, clock),
            clock,
            sysfs=sysfs,
            # The processes of simulated GPUs are nowhere to be found.
            procfs=procfs if wanted.nvml.backend == "driver" else None,
            interval_ns=interval_ns,
            hurried=hurried,
        )
        found.append(nvml)
    module_scope = nvml.module_scope if nvml is not None else lambda: False
    cpu: list[Meter] = []
    if wanted.rapl.enabled != "false":
        cpu.append(RaplMeter(clock, sysfs=sysfs, interval_ns=interval_ns, procfs=procfs))
    if wanted.hwmon.enabled != "false":
        cpu.append(HwmonMeter(clock, sysfs=sysfs, module_scope=module_scope))
    if wanted.estimate.enabled != "false":
        cpu.append(
            EstimateMeter(
                clock,
                procfs=procfs,
                interval_ns=interval_ns,
                idle_w=wanted.estimate.idle_watts,
                max_w=wanted.estimate.max_watts,
                module_scope=module_scope,
            )
        )
    if cpu:
        found.append(FirstOf("cpu", cpu, clock))
    if wanted.other.watts is not None:
        found.append(ConstantMeter(clock, wanted.other.watts, interval_ns))
    return found


def bindings(config: Config, clock: Clock, meter: NvmlMeter | None) -> Bindings:
    """What the schedulers of the settings say of who holds which GPU."""
    found = Bindings(meter.gpu_names if meter is not None else tuple)
    slurm, kubelet = config.jobs.slurm, config.jobs.kubelet
    sources: list[ClaimSource] = []
    if POD in config.jobs.managers:
        sources.append(
            KubeletPodResources(
                clock,
                Path(kubelet.socket),
                pod_uids=PodUids(Path(kubelet.pod_logs)),
                alive=found.alive,
            )
        )
    if SLURM in config.jobs.managers:
        names = JobNames(clock, Path(slurm.names_dir), trusted_uids=(0, *_uid_of(slurm.user)))
        sources.append(
            SlurmHooks(
                clock,
                Path(slurm.hooks_dir),
                numbering=GpuBy(slurm.gpu_numbering),
                order=slurm.gpu_order,
                names=names,
                alive=found.alive,
            )
        )
        for directory, kind in (
            (slurm.dcgm_dir, DcgmJobMapping),
            (slurm.jobstats_dir, JobstatsFiles),
        ):
            if directory:
                sources.append(kind(clock, Path(directory), alive=found.alive))
    found.ask(*sources)
    return found


def _uid_of(user: str) -> tuple[int, ...]:
    """A user's id, if there is such a user here."""
    try:
        return (pwd.getpwnam(user).pw_uid,)
    except (KeyError, ValueError):
        return ()


def run_registry(
    config: Config, clock: Clock, known: Iterable[KnownRun], claim_gpus: ClaimGpus
) -> RunRegistry | None:
    """The commands that are measured, going on with those that the ledger knows; None: none are."""
    if RUN not in config.jobs.managers:
        return None
    procfs, paths = Path(config.path.procfs), job_paths(config)
    return RunRegistry(
        clock,
        procfs=procfs,
        where=lambda pid: where_is(procfs, paths, pid),
        claim_gpus=claim_gpus,
        known=known,
        burst=BURST,
    )


def job_paths(config: Config) -> Paths:
    """Which cgroups are jobs', as the settings say."""
    wanted = config.jobs
    own = own_root(Path(config.path.sysfs))
    return Paths(wanted.managers, wanted.units, wanted.slurm.roots, own)


def job_watch(
    config: Config, clock: Clock, remembered: Iterable[JobRun], bound: Bindings
) -> JobWatch:
    """The watch over the cgroups of jobs.

    Args:
        config: the settings.
        clock: time.
        remembered: the runs that the ledger knows as running; commands have none.
        bound: what the schedulers say.
    """
    commands = RUN in config.jobs.managers

    def describe(key: JobKey) -> Description | None:
        facts = bound.job(key)
        return Description(facts.uid, facts.labels) if facts is not None else None

    return JobWatch(
        job_paths(config),
        sysfs=Path(config.path.sysfs),
        procfs=Path(config.path.procfs),
        boot_id=clock.boot_id,
        remembered=[r for r in remembered if not commands or r.payee.manager != RUN],
        claims=bound.claims,
        gpus=bound.gpus,
        describe=describe,
        sluid=bound.sluid,
        past=bound.ended,
    )


def jobs(
    config: Config,
    clock: Clock,
    remembered: Iterable[JobRun],
    bound: Bindings | None = None,
    runs: RunRegistry | None = None,
    watch: JobWatch | None = None,
) -> Jobs:
    """Who is on the node, going on from the runs that the ledger knows.

    Args:
        config: the settings.
        clock: time.
        remembered: the runs that the ledger knows as running.
        bound: what the schedulers say.
        runs: the commands that are measured; None: none are.
        watch: over the cgroups, made with `bound`; None: one is made.
    """
    remembered = tuple(remembered)
    bound = bound or bindings(config, clock, None)
    found = BoundJobs(watch or job_watch(config, clock, remembered, bound), bound)
    if runs is None:
        return found
    commands = [run for run in remembered if run.payee.manager == RUN]
    return WithRuns(found, runs, boot_id=clock.boot_id, remembered=commands, gpus=bound.gpus)


def cpu_idle_uw(config: Config) -> int | None:
    """What a CPU package draws when idle, by the settings; None: it is learnt."""
    watts = config.jobs.cpu_idle_watts
    return None if watts is None else micro(watts)


def required_meters(config: Config) -> frozenset[str]:
    """Meters whose absence is a fault and not a fact: those set to true, not "auto"."""
    wanted = config.meters
    enabled = {
        "nvml": wanted.nvml.enabled,
        "rapl": wanted.rapl.enabled,
        "hwmon": wanted.hwmon.enabled,
    }
    return frozenset(name for name, switch in enabled.items() if switch == "true")


def grid_feed(config: Config, clock: Clock, remembered: tuple[GridSignal, ...]) -> Feed:
    """The feed of the settings' sources over the country table.

    Raises:
        ConfigError: a zone that nothing knows, a source that cannot be.
    """
    client = HttpClient(proxy=config.grid.proxy)
    return Feed(
        build_sources(source_configs(config), client),
        CountryTable.load().signal(table_zone(config)),
        clock,
        max_age_ns=int(config.grid.max_age),
        remembered=remembered,
        node=platform.node(),
    )


def settle_sources(config: Config) -> SettleSources:
    """The sources of the settings that know their past, apart from those that the feed asks.

    Raises:
        ConfigError: a zone that nothing knows, a source that cannot be.
    """
    sources = build_sources(source_configs(config), HttpClient(proxy=config.grid.proxy))
    zone = CountryTable.load().signal(table_zone(config)).zone
    known = (source for source in sources if source.basis is not Basis.MARGINAL)
    own = frozenset((s.name, s.zone) for s in sources if not isinstance(s, Relay))
    return SettleSources(tuple(s for s in known if isinstance(s, History)), zone, own)


def first_settling_s() -> float:
    """How long after its start a node settles; a cluster that started at once does not ask at once.

    A daemon that is restarted over and over does not settle at all.
    """
    return 900.0 + zlib.crc32(platform.node().encode()) % 3600


def site_factors(config: Config) -> SiteFactors:
    """PUE, WUE and EWIF in force, each with the name of its source.

    Raises:
        ConfigError: a zone that nothing knows.
    """
    site = config.site
    pue, wue, ewif = site.pue, site.wue_l_per_kwh, site.ewif_l_per_kwh
    if ewif is None:
        row = CountryTable.load().ewif(table_zone(config))
        ewif_ul, ewif_source = row.ul_per_kwh, "default" if row.zone == "WORLD" else "table"
    else:
        ewif_ul, ewif_source = micro(ewif), "config"
    return SiteFactors(
        pue_ppm=micro(DEFAULT_PUE if pue is None else pue),
        pue_source="default" if pue is None else "config",
        wue_ul_per_kwh=micro(DEFAULT_WUE_L_PER_KWH if wue is None else wue),
        wue_source="default" if wue is None else "config",
        ewif_ul_per_kwh=ewif_ul,
        ewif_source=ewif_source,
        price_per_kwh=site.price_per_kwh,
        currency=site.currency,
        market=market(config),
        water_stress_factor=site.water_stress_factor,
    )


def ledger(config: Config, clock: Clock) -> SqliteLedger:
    """The ledger of the settings, opened to write.

    Raises:
        LedgerLocked: another process keeps it.
        LedgerError: it cannot be kept there, or not by this user or version.
    """
    return open_ledger(
        ledger_path(config),
        clock=clock,
        footprint=footprint,
        volatile=config.ledger.volatile,
        procfs=Path(config.path.procfs),
        linger_ns=int(config.jobs.linger),
        max_series=config.jobs.max_series,
        exporters=run_exporters(config),
    )
