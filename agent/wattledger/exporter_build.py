"""From settings to exporters."""

from __future__ import annotations

from functools import partial

from wattledger.config import Config
from wattledger.exporter_plugins import ALWAYS_ON, find_plugin
from wattledger.exporting import Exporters, ExporterThread, Tools
from wattledger.ledger import LedgerReader
from wattledger.outbox import DeliveringLedger, Outbox
from wattledger.ports import Clock
from wattledger_exporters.page import PageExporter


def run_exporters(config: Config) -> tuple[str, ...]:
    """The exporters of the settings that deliver ended runs.

    Raises:
        NoSuchExporter: one of them is not installed (any more).
    """
    return tuple(
        name
        for name, settings in config.exporters
        if find_plugin(name).delivers_runs and getattr(settings, "runs", True)
    )


def build_exporters(
    config: Config, clock: Clock, ledger: DeliveringLedger, reader: LedgerReader
) -> tuple[Exporters, PageExporter]:
    """The exporters of the settings, not started, and among them the page's.

    Args:
        config: the settings.
        clock: time.
        ledger: takes what became of ended runs.
        reader: of the exporters' own; closed with them.

    Raises:
        NoSuchExporter: one of them is not installed (any more).
    """
    tools = Tools(
        clock,
        config.jobs.labels,
        int(config.sampling.commit_interval),
        config.http.created_timestamps,
    )
    page = PageExporter(tools)
    delivering = run_exporters(config)
    threads = []
    for name, settings in config.exporters:
        if name == ALWAYS_ON:
            continue
        outbox = Outbox(name, ledger, reader, clock) if name in delivering else None
        make = partial(find_plugin(name).make, settings, tools.with_outbox(outbox))
        threads.append(ExporterThread(name, make, clock, outbox))
    return Exporters(threads, page, clock, reader.close), page
