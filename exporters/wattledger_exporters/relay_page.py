"""The metrics of a relay: what it was asked, what it asked for that, what it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client.core import Metric

from wattledger.model import GridSignal
from wattledger.model.web import WebStatus
from wattledger.units import grams, seconds
from wattledger_exporters.lines import label_value, text_of
from wattledger_exporters.metrics import CATALOGUE, PREFIX


class Asked(NamedTuple):
    """Requests to one source that ended in one way; `what` is `latest`, `forecast` or `history`."""

    zone: str
    source: str
    what: str
    outcome: str
    times: int


class Held(NamedTuple):
    """What there is of a zone: the newest signal, its `FallbackLevel`, signals of the past."""

    zone: str
    signal: GridSignal | None
    level: int
    history: int


def relay_page(
    version: str,
    answers: Mapping[tuple[str, int], int],
    asked: Iterable[Asked],
    held: Iterable[Held],
    web: WebStatus | None = None,
) -> bytes:
    """The page in Prometheus' text format 0.0.4.

    Args:
        version: of this program.
        answers: path and status → how many.
        asked: of the sources.
        held: of the zones.
        web: how the web configuration stands; None: there is none.
    """
    info = Metric(f"{PREFIX}build", "Version of wattledger.", "info")
    info.add_sample(f"{PREFIX}build_info", {"version": label_value(version)}, 1)
    requests = Metric(f"{PREFIX}relay_requests", "Requests answered.", "counter")
    for (path, status), count in sorted(answers.items()):
        labels = {"path": path, "status": str(status)}
        requests.add_sample(f"{PREFIX}relay_requests_total", labels, count)
    upstream = Metric(
        f"{PREFIX}relay_upstream_requests",
        "Requests to a source, or turns at it, by how they ended; for any number of clients.",
        "counter",
    )
    for one in asked:
        labels = {
            "grid_zone": label_value(one.zone),
            "source": label_value(one.source),
            "what": one.what,
            "outcome": one.outcome,
        }
        upstream.add_sample(f"{PREFIX}relay_upstream_requests_total", labels, one.times)
    intensity = Metric(
        f"{PREFIX}grid_carbon_intensity_grams_per_kwh",
        "Carbon intensity that is passed on, gCO2e per kWh.",
        "gauge",
    )
    stamp = Metric(
        f"{PREFIX}grid_signal_timestamp_seconds", "When a source gave that intensity.", "gauge"
    )
    level = Metric(
        f"{PREFIX}relay_fallback_level",
        "0: a source is live, 1: its last good signal is passed on, 2: there is none.",
        "gauge",
    )
    kept = Metric(f"{PREFIX}relay_history_signals", "Signals of the past in memory.", "gauge")
    for zone in held:
        where = {"grid_zone": label_value(zone.zone)}
        level.add_sample(level.name, where, zone.level)
        kept.add_sample(kept.name, where, zone.history)
        signal = zone.signal
        if signal is None:
            continue
        labels = {**where, "source": label_value(signal.source), "basis": str(signal.basis)}
        intensity.add_sample(intensity.name, labels, grams(signal.intensity_ug_per_kwh))
        stamp.add_sample(stamp.name, labels, seconds(signal.fetched_at_ns))
    page = [info, requests, upstream, intensity, stamp, level, kept, *_of_web(web)]
    return text_of(*page).encode()


def _of_web(web: WebStatus | None) -> Iterable[Metric]:
    """As on a node's page, so that one alert holds for both."""
    if web is None or not web.is_configured:
        return
    values = {"web_config_current": float(not web.fault)}
    if web.certificate_until_ns:
        values["web_certificate_expiry_timestamp_seconds"] = seconds(web.certificate_until_ns)
    for name, value in values.items():
        metric = Metric(PREFIX + name, CATALOGUE[name].help, "gauge")
        metric.add_sample(metric.name, {}, value)
        yield metric
