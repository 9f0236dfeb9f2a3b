"""A scraped metrics page, and what may never happen between two of them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

PREFIX = "wattledger_"
# Counters of the process, not of the books: they begin at 0 with each start.
OF_PROCESS = (
    "grid_requests_total",
    "grid_basis_fallbacks_total",
    "meter_errors_total",
    "meter_missed_ticks_total",
    "ledger_commit_errors_total",
    "exporter_errors_total",
    "exporter_runs_delivered_total",
)

Series = tuple[str, tuple[tuple[str, str], ...]]


class Page:
    """A scraped metrics page. Names are written without the prefix."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: dict[Series, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                series = (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items())))
                assert series not in self.samples, f"{series} is there twice"
                self.samples[series] = sample.value

    def __str__(self) -> str:
        return "\n".join(line for line in self.text.splitlines() if not line.startswith("#"))

    def all(self, name: str, **labels: str) -> dict[Series, float]:
        """The samples of a metric that carry these labels."""
        wanted = set(labels.items())
        return {
            series: value
            for series, value in self.samples.items()
            if series[0] == name and wanted <= set(series[1])
        }

    def one(self, name: str, **labels: str) -> float:
        """The only sample of a metric that carries these labels."""
        found = self.all(name, **labels)
        assert len(found) == 1, f"{name} {labels}: {found or 'is not on the page'}"
        return next(iter(found.values()))

    def sum(self, name: str, **labels: str) -> float:
        return sum(self.all(name, **labels).values())

    def labels(self, name: str, label: str) -> set[str]:
        """All values of one label."""
        return {dict(series[1])[label] for series in self.all(name)}

    def counters(self) -> dict[Series, float]:
        """Every counter of the books: those that must never fall."""
        return {
            series: value
            for series, value in self.samples.items()
            if series[0].endswith("_total")
            and series[0] not in OF_PROCESS
            and not series[0].startswith("process_")
        }

    def assert_not_below(self, earlier: Page) -> None:
        """No counter has fallen or gone since an earlier page."""
        now = self.counters()
        fallen = {
            series: (before, now.get(series))
            for series, before in earlier.counters().items()
            if series not in now or now[series] < before
        }
        assert not fallen, f"counters fell: {fallen}"
