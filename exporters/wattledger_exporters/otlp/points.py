"""A snapshot as OpenTelemetry's metrics: the same samples as on the page, under mapped names.

`wattledger_NAME` is `wattledger.NAME` here, without `_total`; labels are attributes of the same
name. A quantity's unit stays in its name, and is also given as UCUM code where the translation back
to Prometheus, which appends units, then yields the name of the page again
(https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    NumberDataPoint,
    Sum,
)

from wattledger_exporters.lines import label_value
from wattledger_exporters.metrics import CATALOGUE, PREFIX, MetricSpec

UCUM = {
    "joules": "J",
    "watts": "W",
    "seconds": "s",
    "grams": "g",
    "bytes": "By",
    "ratio": "1",
    "kwh": "{kWh}",  # in braces: an annotation, which no translation appends to the name
    "liters": "{L}",
}


def otel_name(spec: MetricSpec) -> str:
    """A metric's name in OpenTelemetry."""
    return f"{PREFIX.rstrip('_')}.{spec.name.removesuffix('_total')}"


def otel_unit(spec: MetricSpec) -> str:
    """Its unit as UCUM code; empty: the name alone says it."""
    return (
        UCUM.get(spec.name.removesuffix("_total").rpartition("_")[2], "")
        if ("_per_" not in spec.name)
        else ""
    )


class Points:
    """Collects a snapshot's samples; implements `lines.Samples`."""

    def __init__(self, at_ns: int, epoch_start_ns: int) -> None:
        """Args: at_ns: of the snapshot, wall clock. epoch_start_ns: where nothing was booked."""
        self._at_ns = at_ns
        self._epoch_start_ns = epoch_start_ns
        self._points: dict[str, list[NumberDataPoint]] = {}

    def add(self, name: str, value: float, *labels: str, created_ns: int = 0) -> None:
        """One sample."""
        attributes = dict(zip(CATALOGUE[name].labels, labels, strict=True))
        self._add(name, value, attributes, created_ns)

    def add_info(self, name: str, labels: Mapping[str, str]) -> None:
        """One sample of an info family with more labels than the catalogue names."""
        self._add(name, 1.0, labels, 0)

    def group(self, key: Hashable, state: tuple[object, ...], fill: Callable[[], None]) -> None:
        """Nothing is kept from one push to the next."""
        del key, state
        fill()

    def _add(self, name: str, value: float, labels: Mapping[str, str], created_ns: int) -> None:
        is_sum = CATALOGUE[name].type == "counter"
        # Not after the point, even where the clock was set back since.
        start_ns = min(created_ns or self._epoch_start_ns, self._at_ns) if is_sum else 0
        self._points.setdefault(name, []).append(
            NumberDataPoint(
                attributes={key: label_value(text) for key, text in labels.items()},
                start_time_unix_nano=start_ns,
                time_unix_nano=self._at_ns,
                value=float(value),
            )
        )

    def metrics(self) -> list[Metric]:
        """All of them, in the catalogue's order."""
        found = []
        for name, spec in CATALOGUE.items():
            points = self._points.get(name)
            if points:
                data: Sum | Gauge = Gauge(points)
                if spec.type == "counter":
                    data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
                found.append(Metric(otel_name(spec), spec.help, otel_unit(spec), data))
        return found
