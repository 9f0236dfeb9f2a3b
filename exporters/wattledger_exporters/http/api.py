"""The bodies of `/api/v1`: status and totals as plain data. Pure: no clock, no socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from wattledger import units
from wattledger.model import (
    Basis,
    FallbackLevel,
    GridSignal,
    Quality,
    Snapshot,
    SourceStatus,
    TotalsRow,
)
from wattledger.model.embodied import Rates, grams_per_hour
from wattledger.model.exporting import ExporterStatus
from wattledger.model.settling import final_bases, sum_of_settled
from wattledger.model.sums import read_node
from wattledger.model.sums import total as total_sums
from wattledger.model.web import WebStatus
from wattledger.units import NS_PER_S
from wattledger_exporters import report
from wattledger_exporters.amounts import stress_weighted_l
from wattledger_exporters.bands import uncertainty
from wattledger_exporters.http.query import BadRequest, instant_ns
from wattledger_exporters.when import iso

LEVELS = {
    FallbackLevel.LIVE: "live",
    FallbackLevel.LAST_GOOD: "last good signal",
    FallbackLevel.TABLE: "country table",
}
MAX_HOURS_DAYS = 400
DEFAULT_HOURS_DAYS = 7
_HOUR_NS = 3_600 * NS_PER_S
_DAY_NS = 24 * _HOUR_NS


class TotalsQuery(NamedTuple):
    """What `/api/v1/totals` was asked for."""

    since_ns: int
    until_ns: int
    by: str


def totals_query(given: Mapping[str, str], epoch_start_ns: int, now_ns: int) -> TotalsQuery:
    """Check the parameters; without `since` the whole epoch is meant (by hour: 7 days).

    The epoch begins within a slot, and what is old is kept by the hour: the default reaches back
    to the start of that hour, or the first amounts would be missing.

    Raises:
        BadRequest: with a sentence.
    """
    by = given.get("by", "all")
    if by not in report.GROUPINGS:
        raise BadRequest(f"by={by[:64]!r} is not one of: {', '.join(report.GROUPINGS)}.")
    until_ns = instant_ns("until", given["until"], now_ns) if "until" in given else now_ns
    if "since" in given:
        since_ns = instant_ns("since", given["since"], now_ns)
    else:
        since_ns = min(epoch_start_ns // _HOUR_NS * _HOUR_NS, until_ns)
        if by == "hour":
            since_ns = max(since_ns, until_ns - DEFAULT_HOURS_DAYS * _DAY_NS)
    if since_ns > until_ns:
        raise BadRequest(f"since ({iso(since_ns)}) lies after until ({iso(until_ns)}).")
    if by == "hour" and until_ns - since_ns > MAX_HOURS_DAYS * _DAY_NS:
        raise BadRequest(f"by=hour covers at most {MAX_HOURS_DAYS} days; ask for by=day.")
    return TotalsQuery(since_ns, until_ns, by)


def totals(
    asked: TotalsQuery,
    rows: list[TotalsRow],
    snapshot: Snapshot | None,
    water_stress_factor: float | None = None,
    simulated: str = "",
) -> dict[str, Any]:
    """The answer of `/api/v1/totals`.

    Args:
        asked: the question.
        rows: of the books.
        snapshot: of the daemon; None: none runs.
        water_stress_factor: of `SiteFactors`, where there is no snapshot.
        simulated: as of `Snapshot`, where there is none.
    """
    if snapshot is not None:
        simulated = snapshot.simulated
        water_stress_factor = snapshot.site.water_stress_factor
    total = report.total_of(rows)
    return {
        "since": iso(asked.since_ns),
        "until": iso(asked.until_ns),
        "by": asked.by,
        "books_complete_until": iso(snapshot.books.books_ns) if snapshot else None,
        "epoch": snapshot.books.epoch if snapshot else None,
        "rows": report.table(rows),
        "total": report.row_dict(total),
        "water_stress_weighted_l": stress_weighted_l(
            total.amounts.water_onsite_ul, water_stress_factor
        ),
        "uncertainty": uncertainty(
            total.amounts, total.sure, total.settled, total.sums.embodied_ug
        ),
        "simulated": simulated or None,
    }


def _exporter(exporter: ExporterStatus) -> dict[str, Any]:
    backlog = exporter.backlog
    return {
        "exporter": exporter.exporter,
        "up": exporter.up,
        "last_success": iso(exporter.last_success_ns),
        "errors": dict(sorted(exporter.errors.items())),
        "message": exporter.message or None,
        "hint": exporter.hint or None,
        "runs_delivered": exporter.delivered_runs,
        "runs_waiting": None if backlog is None else backlog.waiting,
        "runs_refused": None if backlog is None else backlog.refused,
    }


def _web(web: WebStatus | None) -> dict[str, Any] | None:
    if web is None:
        return None
    return {
        "certificate_until": iso(web.certificate_until_ns),
        "message": web.fault or None,
        "concerns": [concern._asdict() for concern in web.concerns],
    }


def status(snapshot: Snapshot, now_ns: int) -> dict[str, Any]:
    """The answer of `/api/v1/status`."""
    books, ledger, site = snapshot.books, snapshot.ledger, snapshot.site
    market_ug = site.market_beside(snapshot.grid.signal)
    return {
        "version": snapshot.version,
        "simulated": snapshot.simulated or None,
        "now": iso(now_ns),
        "started": iso(snapshot.started_ns),
        "snapshot_taken": iso(snapshot.at_ns),
        "books_complete_until": iso(books.books_ns),
        "released_until": iso(snapshot.released_until_ns)
        if snapshot.released_until_ns > now_ns
        else None,
        "totals": report.row_dict(node_total(snapshot)),
        "devices": _devices(snapshot),
        "meters": [
            {
                "meter": meter.meter,
                "up": meter.up,
                "last_success": iso(meter.last_success_ns),
                "errors": dict(sorted(meter.errors.items())),
                "missed_ticks": meter.missed_ticks,
                "message": meter.message or None,
                "hint": meter.hint or None,
            }
            for meter in snapshot.meters
        ],
        "exporters": [_exporter(exporter) for exporter in snapshot.exporters],
        "web": _web(snapshot.web),
        "grid": {
            **_signal(snapshot.grid.signal, now_ns),
            "estimated": snapshot.grid.estimated,
            "level": snapshot.grid.level,
            "level_name": LEVELS.get(snapshot.grid.level, "unknown"),
        },
        "grid_sources": [_source(source, now_ns) for source in snapshot.sources],
        "site_sources": [_site_source(source) for source in snapshot.site_sources],
        "site": {
            "pue": {"value": site.pue_ppm / units.PPM, "source": site.pue_source},
            "wue_l_per_kwh": {
                "value": units.liters(site.wue_ul_per_kwh),
                "source": site.wue_source,
            },
            "ewif_l_per_kwh": {
                "value": units.liters(site.ewif_ul_per_kwh),
                "source": site.ewif_source,
            },
            "water_stress_factor": site.water_stress_factor,
            "price_per_kwh": None
            if site.price_per_kwh is None
            else {"value": site.price_per_kwh, "currency": site.currency},
            "market_g_per_kwh": None if market_ug is None else units.grams(market_ug),
        },
        "embodied": embodied_rates(snapshot.embodied),
        "claim_faults": [
            {"source": fault.meter, "message": fault.message, "hint": fault.hint or None}
            for fault in snapshot.claim_faults
        ],
        "ledger": {
            "path": ledger.path,
            "storage": ledger.storage,
            "epoch": books.epoch,
            "epoch_start": iso(books.epoch_start_ns),
            "commits": books.commits,
            "commit_errors": ledger.errors,
            "last_commit": iso(ledger.last_commit_ns),
            "last_commit_seconds": units.seconds(ledger.last_commit_duration_ns)
            if ledger.last_commit_ns
            else None,
            "pending_entries": ledger.pending_entries,
            "size_bytes": ledger.size_bytes,
            "quarantined": ledger.quarantined or None,
            "message": ledger.message or None,
            "hint": ledger.hint or None,
        },
    }


def node_total(snapshot: Snapshot) -> TotalsRow:
    """All cells of the books in one row."""
    total = report.total_of(
        TotalsRow(
            "all",
            total.amounts,
            total.amounts.energy_uj if key.quality == Quality.ESTIMATED else 0,
            (key.basis,),
        )
        for key, total in snapshot.books.totals.items()
    )
    booked_uj: dict[Basis, int] = {}
    for key, cell in snapshot.books.totals.items():
        booked_uj[key.basis] = booked_uj.get(key.basis, 0) + cell.amounts.energy_uj
    known_since = snapshot.books.settled
    return total._replace(
        settled=sum_of_settled(known_since),
        settled_bases=final_bases(booked_uj, known_since),
        sums=total_sums(read_node(snapshot.books.notes).values()),
    )


def embodied_rates(rates: Rates) -> dict[str, Any]:
    """What the time of the hardware weighs; None where nobody says so."""
    gpus = sum(rates.gpus.values())
    return {
        "gpus_g_per_h": grams_per_hour(gpus) if rates.gpus else None,
        "gpus_source": rates.sources.get("gpu"),
        "host_g_per_h": None if rates.host is None else grams_per_hour(rates.host),
        "host_source": rates.sources.get("host"),
        "unknown_models": list(rates.unknown),
    }


def _devices(snapshot: Snapshot) -> list[dict[str, Any]]:
    energy_uj = dict.fromkeys(snapshot.books.devices, 0)
    for key, total in snapshot.books.totals.items():
        energy_uj[key.device] = energy_uj.get(key.device, 0) + total.amounts.energy_uj
    return [
        {
            "device": name,
            "kind": record.info.kind,
            "model": record.info.model or None,
            "meter": record.info.meter,
            "index": record.info.index or None,
            "pci": record.info.pci or None,
            "present": record.info.present,
            "quality": snapshot.quality.get(name),
            "power_w": units.watts(snapshot.power_uw[name]) if name in snapshot.power_uw else None,
            "energy_kwh": units.kwh(energy_uj[name]),
            "energy_uj": str(energy_uj[name]),
            "unobserved_s": record.unobserved_ms / 1000,
            "counter_resets": record.resets,
            "counter_power_ratio": snapshot.counter_power_ratio.get(name),
        }
        for name, record in sorted(snapshot.books.devices.items())
    ]


def _signal(signal: GridSignal, now_ns: int) -> dict[str, Any]:
    return {
        "intensity_g_per_kwh": units.grams(signal.intensity_ug_per_kwh),
        "zone": signal.zone,
        "source": signal.source,
        "basis": signal.basis,
        "valid_from": iso(signal.valid_from_ns),
        "valid_to": iso(signal.valid_to_ns),
        "age_s": max(0, (now_ns - signal.valid_from_ns) // NS_PER_S),
        "fetched": iso(signal.fetched_at_ns),
        "estimated": signal.estimated,
    }


def _site_source(source: SourceStatus) -> dict[str, Any]:
    return {
        "source": source.source,
        "requests": dict(sorted(source.outcomes.items())),
        "last_success": iso(source.last_success_ns),
        "message": source.message or None,
        "hint": source.hint or None,
    }


def _source(source: SourceStatus, now_ns: int) -> dict[str, Any]:
    return {
        "source": source.source,
        "requests": dict(sorted(source.outcomes.items())),
        "basis_fallbacks": source.basis_fallbacks,
        "last_success": iso(source.last_success_ns),
        "last_signal": _signal(source.last_signal, now_ns) if source.last_signal else None,
        "message": source.message or None,
        "hint": source.hint or None,
    }
