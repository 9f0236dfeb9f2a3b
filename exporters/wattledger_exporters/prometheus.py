"""The metrics page: a snapshot as Prometheus text and as OpenMetrics, plain and gzipped.

It is rendered once for each commit attempt and then served as bytes. How a line is written is
prometheus_client's (see `lines`); its server and its default registry are not used. Counters are
summed as exact integers and become floats in `wattledger.units` only.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from prometheus_client import ProcessCollector

from wattledger import units
from wattledger.model import Amounts, Books, DeviceInfo, Kind, PayeeKind, Quality, Snapshot
from wattledger.model.settling import NOT_SETTLED
from wattledger.model.sums import NO_SUMS, Weighed, read_node
from wattledger.model.sums import total as total_of
from wattledger_exporters.bands import bands_now
from wattledger_exporters.job_metrics import add_jobs
from wattledger_exporters.lines import Families, Lines, Samples

_GZIP = 16 + zlib.MAX_WBITS  # zlib's way to ask for a gzip header
_PROCESS = ProcessCollector(registry=None)


class Page(NamedTuple):
    """One rendering, ready to be sent.

    Attributes:
        text: Prometheus text format 0.0.4.
        text_gzip: the same, gzipped.
        openmetrics: OpenMetrics 1.0.0.
        openmetrics_gzip: the same, gzipped.
        rendered_ns: monotonic clock at the rendering, so that an old page is not served as new.
    """

    text: bytes
    text_gzip: bytes
    openmetrics: bytes
    openmetrics_gzip: bytes
    rendered_ns: int


class _Cell:
    """A sum of ledger cells and when the first of them was booked."""

    __slots__ = ("amounts", "first_ns")

    def __init__(self) -> None:
        self.amounts = Amounts()
        self.first_ns = 0

    def add(self, amounts: Amounts, first_ns: int) -> None:
        self.amounts = self.amounts.plus(amounts)
        if first_ns and (not self.first_ns or first_ns < self.first_ns):
            self.first_ns = first_ns


class _Sums:
    """The ledger's cells, summed along each of the page's dimensions."""

    def __init__(self, books: Books) -> None:
        self.devices: dict[str, DeviceInfo] = {n: r.info for n, r in books.devices.items()}
        self.by_device: defaultdict[str, _Cell] = defaultdict(_Cell)
        self.by_basis: defaultdict[tuple[str, str], _Cell] = defaultdict(_Cell)
        self.by_payee: defaultdict[tuple[Kind, PayeeKind], _Cell] = defaultdict(_Cell)
        self.by_quality: defaultdict[tuple[Kind, Quality], _Cell] = defaultdict(_Cell)
        for key, total in books.totals.items():
            device = self.devices.get(key.device)
            if device is None:  # energy must stay on the page, whatever became of its record
                device = DeviceInfo(key.device, Kind.OTHER, "", present=False)
                self.devices[key.device] = device
            for cell in (
                self.by_device[key.device],
                self.by_basis[key.device, key.basis],
                self.by_payee[device.kind, key.payee],
                self.by_quality[device.kind, key.quality],
            ):
                cell.add(total.amounts, total.first_booked_ns)
        self.kinds = sorted({device.kind for device in self.devices.values()})


def _books(page: Samples, snapshot: Snapshot) -> None:
    sums = _Sums(snapshot.books)
    bases = defaultdict(set)
    for name, basis in sums.by_basis:
        bases[name].add(basis)
    for name in sorted(sums.devices):
        kind = sums.devices[name].kind
        cell = sums.by_device[name]
        amounts, first_ns = cell.amounts, cell.first_ns
        page.add("energy_kwh_total", units.kwh(amounts.energy_uj), name, kind, created_ns=first_ns)
        page.add(
            "energy_joules_total", units.joules(amounts.energy_uj), name, kind, created_ns=first_ns
        )
        # The basis now in force is there from the first page, so that its counter has a 0.
        for basis in sorted(bases[name] | {str(snapshot.grid.signal.basis)}):
            part = sums.by_basis[name, basis]
            page.add(
                "co2e_grams_total",
                units.grams(part.amounts.co2e_ug),
                name,
                kind,
                basis,
                created_ns=part.first_ns,
            )
        for origin, water_ul in (
            ("onsite", amounts.water_onsite_ul),
            ("grid", amounts.water_grid_ul),
        ):
            page.add(
                "water_liters_total",
                units.liters(water_ul),
                name,
                kind,
                origin,
                created_ns=first_ns,
            )
        if name in snapshot.power_uw:
            page.add("power_watts", units.watts(snapshot.power_uw[name]), name, kind)
    for kind in sums.kinds:
        for payee in PayeeKind:
            part = sums.by_payee[kind, payee]
            page.add(
                "payee_energy_joules_total",
                units.joules(part.amounts.energy_uj),
                kind,
                payee,
                created_ns=part.first_ns,
            )
        for quality in Quality:
            part = sums.by_quality[kind, quality]
            page.add(
                "energy_quality_joules_total",
                units.joules(part.amounts.energy_uj),
                kind,
                quality,
                created_ns=part.first_ns,
            )
    if snapshot.books.books_ns:
        page.add("books_timestamp_seconds", units.seconds(snapshot.books.books_ns))
    _devices(page, snapshot, sums.devices)


def _devices(page: Samples, snapshot: Snapshot, devices: dict[str, DeviceInfo]) -> None:
    epoch_ns = snapshot.books.epoch_start_ns
    for name in sorted(devices):
        info = devices[name]
        page.add("device_info", 1, name, info.kind, info.index, info.model, info.pci, info.meter)
        page.add("device_present", int(info.present), name)
        if name in snapshot.counter_power_ratio:
            page.add("gpu_counter_power_ratio", snapshot.counter_power_ratio[name], name)
        record = snapshot.books.devices.get(name)
        if record is not None:
            page.add(
                "unobserved_seconds_total",
                units.seconds(record.unobserved_ms * units.NS_PER_MS),
                name,
                created_ns=epoch_ns,
            )
            page.add("counter_resets_total", record.resets, name, created_ns=epoch_ns)


def _grid(page: Samples, snapshot: Snapshot) -> None:
    grid, site = snapshot.grid, snapshot.site
    signal = grid.signal
    labels = (signal.zone, signal.source, signal.basis, "true" if grid.estimated else "false")
    page.add(
        "grid_carbon_intensity_grams_per_kwh", units.grams(signal.intensity_ug_per_kwh), *labels
    )
    if signal.valid_from_ns > 0:
        page.add("grid_signal_timestamp_seconds", units.seconds(signal.valid_from_ns), *labels)
    page.add("grid_fallback_level", grid.level)
    settled_ug = sum(part.co2e_ug for part in snapshot.books.settled.values())
    page.add("co2e_settlement_grams", units.grams(settled_ug))
    settled = dict.fromkeys((key.basis for key in snapshot.books.totals), NOT_SETTLED)
    for basis, part in {**settled, **snapshot.books.settled}.items():
        page.add("co2e_settlement_by_basis_grams", units.grams(part.co2e_ug), basis)
    for source in (*snapshot.sources, *snapshot.site_sources):
        for outcome, count in sorted(source.outcomes.items()):
            page.add(
                "grid_requests_total",
                count,
                source.source,
                outcome,
                created_ns=snapshot.started_ns,
            )
    for source in snapshot.sources[:1]:  # the preferred one
        page.add(
            "grid_basis_fallbacks_total",
            source.basis_fallbacks,
            source.source,
            created_ns=snapshot.started_ns,
        )
    page.add("pue_ratio", site.pue_ppm / units.PPM, site.pue_source)
    page.add("wue_liters_per_kwh", units.liters(site.wue_ul_per_kwh), site.wue_source)
    page.add("ewif_liters_per_kwh", units.liters(site.ewif_ul_per_kwh), site.ewif_source)
    if site.water_stress_factor is not None:
        page.add("water_stress_factor", site.water_stress_factor)
    for quantity, band in bands_now(snapshot)._asdict().items():
        if band is not None:
            page.add("uncertainty_ratio", band.low, quantity, "low")
            page.add("uncertainty_ratio", band.high, quantity, "high")


def _beside(page: Samples, snapshot: Snapshot) -> None:
    books, site, rates = snapshot.books, snapshot.site, snapshot.embodied
    node = read_node(books.notes)
    # What is in force now is there from the first page, so that its counter has a 0.
    costs = {} if site.price_per_kwh is None else {site.currency: Weighed()}
    for currency, cost in sorted({**costs, **total_of(node.values()).costs}.items()):
        page.add("energy_cost_total", cost.amount, currency, created_ns=books.epoch_start_ns)
    market_ug = site.market_beside(snapshot.grid.signal)
    kinds = {record.info.kind for record in books.devices.values()} if market_ug is not None else ()
    for kind in sorted({*kinds, *(kind for kind, sums in node.items() if any(sums.market))}):
        market = node.get(kind, NO_SUMS).market
        page.add("market_co2e_grams_total", market.amount, kind, created_ns=books.epoch_start_ns)
    if market_ug is not None:
        page.add("market_carbon_intensity_grams_per_kwh", units.grams(market_ug))
    known = {Kind.GPU: bool(rates.gpus), Kind.OTHER: rates.host is not None}
    for kind in sorted({*known, *node}):
        embodied_g = node.get(kind, NO_SUMS).embodied_g
        if embodied_g is not None or known.get(kind):
            page.add(
                "embodied_co2e_grams_total",
                embodied_g or 0.0,
                kind,
                created_ns=books.epoch_start_ns,
            )


def _meters(page: Samples, snapshot: Snapshot) -> None:
    started_ns = snapshot.started_ns
    for meter in snapshot.meters:
        page.add("meter_up", int(meter.up), meter.meter)
        if meter.last_success_ns:
            page.add(
                "meter_last_success_timestamp_seconds",
                units.seconds(meter.last_success_ns),
                meter.meter,
            )
        for reason, count in sorted(meter.errors.items()):
            page.add("meter_errors_total", count, meter.meter, reason, created_ns=started_ns)
        page.add("meter_missed_ticks_total", meter.missed_ticks, meter.meter, created_ns=started_ns)


def _ledger(page: Samples, snapshot: Snapshot) -> None:
    books, ledger = snapshot.books, snapshot.ledger
    page.add("build_info", 1, snapshot.version, snapshot.simulated)
    page.add("ledger_info", 1, books.epoch, ledger.storage)
    page.add("ledger_epoch_start_timestamp_seconds", units.seconds(books.epoch_start_ns))
    page.add("ledger_commits_total", books.commits, created_ns=books.epoch_start_ns)
    page.add("ledger_commit_errors_total", ledger.errors, created_ns=snapshot.started_ns)
    if ledger.last_commit_ns:
        page.add("ledger_last_commit_timestamp_seconds", units.seconds(ledger.last_commit_ns))
        page.add("ledger_commit_duration_seconds", units.seconds(ledger.last_commit_duration_ns))
    page.add("ledger_pending_entries", ledger.pending_entries)
    page.add("ledger_size_bytes", ledger.size_bytes)


def _exporters(page: Samples, snapshot: Snapshot) -> None:
    started_ns = snapshot.started_ns
    for exporter in snapshot.exporters:
        name = exporter.exporter
        page.add("exporter_up", int(exporter.up), name)
        if exporter.last_success_ns:
            page.add(
                "exporter_last_success_timestamp_seconds",
                units.seconds(exporter.last_success_ns),
                name,
            )
        for reason, count in sorted(exporter.errors.items()):
            page.add("exporter_errors_total", count, name, reason, created_ns=started_ns)
        if exporter.delivered_runs is not None:
            page.add(
                "exporter_runs_delivered_total",
                exporter.delivered_runs,
                name,
                created_ns=started_ns,
            )
        if exporter.backlog is not None:
            page.add("exporter_runs_waiting", exporter.backlog.waiting, name)
            page.add("exporter_runs_refused", exporter.backlog.refused, name)


def _web(page: Samples, snapshot: Snapshot) -> None:
    web = snapshot.web
    if web is None or not web.is_configured:
        return
    if web.certificate_until_ns:
        page.add(
            "web_certificate_expiry_timestamp_seconds", units.seconds(web.certificate_until_ns)
        )
    page.add("web_config_current", int(not web.fault))


def fill(page: Samples, snapshot: Snapshot, labels: Sequence[str]) -> None:
    """Put all of a snapshot's samples into a page.

    Args:
        page: takes them.
        snapshot: what to show.
        labels: `jobs.labels`: what is shown of jobs besides their ids.
    """
    for part in (_books, _beside, _grid, _meters, _ledger, _exporters, _web):
        part(page, snapshot)
    add_jobs(page, snapshot, labels)


def _gzip(body: bytes) -> bytes:
    # Level 1: a thirtieth of the time of level 9, for a page that is a tenth larger.
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


class TextRenderer:
    """Renders page after page as text only, without the `process_*` metrics.

    For files that another exporter shows, which has `process_*` metrics of its own: the same name
    twice would spoil all of its page.
    """

    def __init__(self) -> None:
        self._lines = Lines()

    def render(self, snapshot: Snapshot, labels: Sequence[str] = ()) -> bytes:
        """The page of a snapshot as Prometheus text; see `Renderer.render`."""
        page = Families(self._lines)
        fill(page, snapshot, labels)
        return page.pages()[0]


class Renderer:
    """Renders page after page; what stays the same from one to the next costs little."""

    def __init__(self) -> None:
        self._lines = Lines()

    def render(
        self,
        snapshot: Snapshot,
        rendered_ns: int,
        *,
        created: bool = False,
        process: bool = True,
        labels: Sequence[str] = (),
    ) -> Page:
        """The page of a snapshot, in both formats, plain and gzipped.

        Args:
            snapshot: what to show; nothing else is read but /proc/self for `process_*`.
            rendered_ns: now, on the monotonic clock.
            created: add OpenMetrics' `_created`: when a series was first booked.
            process: add the `process_*` metrics.
            labels: `jobs.labels`: what is shown of jobs besides their ids.
        """
        page = Families(self._lines, created=created)
        fill(page, snapshot, labels)
        text, openmetrics = page.pages(_PROCESS.collect() if process else ())
        return Page(text, _gzip(text), openmetrics, _gzip(openmetrics), rendered_ns)
