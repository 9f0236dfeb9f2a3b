"""The exporter `prometheus`: the page at `/metrics`. Always there, whatever else is configured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wattledger.model import Snapshot
from wattledger.ports import ExporterTools


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """The page has no settings of its own: see [http], and `jobs.labels`."""


class PageExporter:
    """Renders each snapshot once, to be served as bytes.

    Attributes:
        pages: where the HTTP server finds the page.
    """

    def __init__(self, tools: ExporterTools) -> None:
        """Args: tools: what the daemon gives it."""
        from wattledger_exporters.http.pages import PageStore
        from wattledger_exporters.prometheus import Renderer

        self._tools = tools
        self._renderer = Renderer()
        self.pages = PageStore(tools.clock, tools.commit_interval_ns)

    def export(self, snapshot: Snapshot) -> float:
        """Render the page; from now on this one is served."""
        tools = self._tools
        self.pages.publish(
            self._renderer.render(
                snapshot,
                tools.clock.now().monotonic_ns,
                created=tools.created_timestamps,
                labels=tools.job_labels,
            )
        )
        return 0.0

    def close(self, last: Snapshot | None) -> None:
        """Nothing is held."""
        del last


class PrometheusPlugin:
    """Implements `ports.ExporterPlugin`."""

    settings = PrometheusSettings
    delivers_runs = False

    def faults(self, settings: PrometheusSettings) -> Sequence[tuple[str, str]]:
        """Nothing can be wrong."""
        del settings
        return ()

    def make(self, settings: PrometheusSettings, tools: ExporterTools) -> PageExporter:
        """The exporter of the page."""
        del settings
        return PageExporter(tools)


PLUGIN = PrometheusPlugin()
