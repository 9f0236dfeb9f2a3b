"""Which exporters are installed: ours, and those that entry points name.

Ours are found without entry points: a zipapp has none, and the machinery that reads them costs a
megabyte that a daemon without foreign exporters need not pay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType

from wattledger.errors import WattledgerError
from wattledger.ports import ExporterPlugin

GROUP = "wattledger.exporters"
SHIPPED: Mapping[str, str] = MappingProxyType(
    {
        "prometheus": "wattledger_exporters.page:PLUGIN",
        "textfile": "wattledger_exporters.textfile:PLUGIN",
        "otlp": "wattledger_exporters.otlp:PLUGIN",
    }
)
"""As in pyproject.toml; a test holds both equal."""
ALWAYS_ON = "prometheus"
NAME_PATTERN = r"[a-z][a-z0-9_]{0,39}"


class NoSuchExporter(WattledgerError):
    """An exporter that is not installed, or cannot be loaded."""


def _entry_points() -> Mapping[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)}


def find_plugin(
    name: str, others: Callable[[], Mapping[str, str]] = _entry_points
) -> ExporterPlugin:
    """The plugin of that name.

    Args:
        name: as in `[exporters.NAME]`.
        others: finds those that are not ours: name → `module:attribute`.

    Raises:
        NoSuchExporter: with what is installed, or why it cannot be loaded.
    """
    where = SHIPPED.get(name) or others().get(name)
    if where is None:
        raise NoSuchExporter(
            f"no exporter of this name is installed; installed are {', '.join(installed(others))}"
        )
    module, _, attribute = where.partition(":")
    try:
        found: ExporterPlugin = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        lacking = _lacking(found)
    except Exception as error:
        raise NoSuchExporter(f"{where} cannot be loaded: {error!r}") from error
    if lacking:
        raise NoSuchExporter(f"{where} is no exporter: it has no {' and no '.join(lacking)}")
    return found


def installed(others: Callable[[], Mapping[str, str]] = _entry_points) -> list[str]:
    """The names of all exporters that are installed, in order."""
    return sorted({*SHIPPED, *others()})


def _lacking(plugin: object) -> Sequence[str]:
    return [
        name
        for name in ("settings", "delivers_runs", "faults", "make")
        if not hasattr(plugin, name)
    ]
