"""What others see: one immutable snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from wattledger.model.books import Books, LedgerStatus
from wattledger.model.embodied import NO_RATES, Rates
from wattledger.model.exporting import ExporterStatus
from wattledger.model.jobs import JobKey
from wattledger.model.measuring import Fault, MeterStatus, Quality
from wattledger.model.pricing import GridChoice, SiteFactors, SourceStatus
from wattledger.model.web import WebStatus


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The page's content: committed books and present health. Reading it changes nothing.

    Attributes:
        at_ns: wall clock when it was taken.
        books: the committed books.
        power_uw: device → mean power of the commit window; absent where unobserved.
        counter_power_ratio: device → cross-check of counter against power sensor.
        meters: health of each meter.
        grid: what energy is priced with now.
        sources: health of each grid source.
        site: PUE, WUE and EWIF in force, of the mix where the grid's source tells one.
        ledger: health of the ledger.
        released_until_ns: NVML is closed on request until then (wall clock); 0: it is not.
        version: of the program.
        started_ns: wall clock when the process became ready.
        simulated: the scenario's name when the GPUs are simulated, else empty.
        quality: device → how its energy is found at present.
        job_power_uw: job → mean power of the commit window.
        claim_faults: what is wrong with the word of those that say who holds which GPU.
        site_sources: health of whoever tells the site's factors (weather, PUE).
        embodied: what the time of the hardware weighs.
        exporters: health of each exporter that has had a turn.
        web: how the web configuration stands; None: there is none.
    """

    at_ns: int
    books: Books
    power_uw: Mapping[str, int]
    counter_power_ratio: Mapping[str, float]
    meters: tuple[MeterStatus, ...]
    grid: GridChoice
    sources: tuple[SourceStatus, ...]
    site: SiteFactors
    ledger: LedgerStatus
    released_until_ns: int = 0
    version: str = ""
    started_ns: int = 0
    simulated: str = ""
    quality: Mapping[str, Quality] = field(default_factory=lambda: MappingProxyType({}))
    job_power_uw: Mapping[JobKey, int] = field(default_factory=lambda: MappingProxyType({}))
    claim_faults: tuple[Fault, ...] = ()
    site_sources: tuple[SourceStatus, ...] = ()
    embodied: Rates = NO_RATES
    exporters: tuple[ExporterStatus, ...] = ()
    web: WebStatus | None = None
