"""The exporter `otlp`: metrics and ended runs, pushed by OpenTelemetry's own SDK.

points ── Snapshot ─► metrics      settings ── what may be said
records ── EndedRun ─► attributes  headers ── tokens from a file
exporter ── what is pushed when    answers ── deadlines, and what receivers say

The SDK is an optional extra, loaded in the exporter's own thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from wattledger.ports import Exporter, ExporterTools
from wattledger_exporters.otlp.settings import OtlpSettings, settings_faults


class OtlpPlugin:
    """Implements `ports.ExporterPlugin`."""

    settings = OtlpSettings
    delivers_runs = True

    def __init__(self, find: Callable[[str], Any] = find_spec) -> None:
        """Args: find: tells whether a module is installed."""
        self._find = find

    def faults(self, settings: OtlpSettings) -> Sequence[tuple[str, str]]:
        """What the settings may not say, and whether the SDK is there."""
        return settings_faults(settings, self._find)

    def make(self, settings: OtlpSettings, tools: ExporterTools) -> Exporter:
        """The exporter; loads the SDK."""
        from wattledger_exporters.otlp.exporter import OtlpExporter

        return OtlpExporter(settings, tools)


PLUGIN = OtlpPlugin()
