"""The tables `[exporters.NAME]`: each is read by the settings of the plugin that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

import cattrs

from wattledger.config import structure
from wattledger.config.settings import ExporterTable
from wattledger.config.structure import Fault
from wattledger.exporter_plugins import NoSuchExporter, find_plugin

EXPORTERS = "exporters"


def read_exporters(
    value: Any, converter: cattrs.Converter, faults: list[Fault]
) -> tuple[ExporterTable, ...]:
    """The tables that can be read; faults of the others are appended."""
    if not isinstance(value, dict):
        faults.append((EXPORTERS, "is not a table; write [exporters.NAME] and its keys below"))
        return ()
    found: list[ExporterTable] = []
    for name, table in value.items():
        path = f"{EXPORTERS}.{name}"
        try:
            kind = find_plugin(name).settings
        except NoSuchExporter as error:
            faults.append((path, str(error)))
            continue
        if not is_dataclass(kind):
            faults.append((path, f"its plugin is broken: {kind!r} is no dataclass"))
            continue
        try:
            found.append(ExporterTable(name, converter.structure(table, kind)))
        except Exception as error:  # noqa: BLE001  (cattrs raises groups of anything)
            faults.extend(structure.walk(error, path, kind))
    return tuple(found)


def exporter_faults(tables: Sequence[ExporterTable]) -> list[Fault]:
    """What each table may not say although each value alone is fine."""
    faults: list[Fault] = []
    for name, settings in tables:
        path = f"{EXPORTERS}.{name}"
        try:
            found = [(str(key), str(text)) for key, text in find_plugin(name).faults(settings)]
        except Exception as error:  # noqa: BLE001  (a plugin may raise anything)
            faults.append((path, f"its plugin cannot check it: {error!r}"))
            continue
        faults += [(f"{path}.{key}" if key else path, text) for key, text in found]
    return faults
