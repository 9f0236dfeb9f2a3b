"""The settings as TOML: the annotated default file, and what is in force."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

from wattledger import setting
from wattledger.config.grid_settings import GridSettings, GridSource
from wattledger.config.settings import Config
from wattledger.config.site_settings import ContractSettings, Site
from wattledger.exporter_plugins import SHIPPED, find_plugin
from wattledger.units import NS_PER_S, NS_PER_US, format_duration

_HEAD = """\
# wattledger's settings with their defaults. Generated: `wattledger config default`.
# Every line may be left out. Times are written "500ms", "5s", "1h30m", "45d".
# `wattledger config check FILE` names every mistake in a file; SIGHUP reads it again.
"""


_LISTS: tuple[tuple[str, Any, Any], ...] = (
    ("site.contract", ContractSettings, Site),
    ("grid.source", GridSource, GridSettings),
)
"""Lists of tables: name, what one is, and where their doc stands."""
_LIST_KEYS = {name.rpartition(".")[2] for name, _, _ in _LISTS}


def default_toml() -> str:
    """The annotated default file, `configs/default.toml`."""
    lines = [_HEAD.rstrip()]
    for table, instance in _tables(Config()):
        lines += ["", f"[{table}]"]
        for item in _leaves(instance):
            lines += _comment(item.metadata["doc"])
            value = getattr(instance, item.name)
            if value is None or value == "":
                lines.append(f"# {item.name} = {item.metadata['example']}")
            else:
                lines.append(f"{item.name} = {_toml(value, _kind(instance, item))}")
    for name, table, owner in _LISTS:
        lines += ["", *_comment(_list_doc(name, owner)), f"# [[{name}]]"]
        for item in fields(table):
            lines += _comment(item.metadata["doc"])
            value = item.metadata["example"] or _toml(item.default, str)
            lines.append(f"# {item.name} = {value}")
    for name, table in _shipped_exporters():
        lines += ["", *_comment(_exporter_doc(table)), f"# [exporters.{name}]"]
        for item in fields(table):
            lines += _comment(item.metadata["doc"])
            value = item.metadata["example"] or _toml(item.default, _kind(table(), item))
            lines.append(f"# {item.name} = {value}")
    return "\n".join(lines) + "\n"


def effective_toml(config: Config) -> str:
    """What is in force, defaults included, without comments. Tokens are in files, never here."""
    lines: list[str] = []
    for table, instance in _tables(config):
        lines += ["", f"[{table}]"]
        for item in _leaves(instance):
            value = getattr(instance, item.name)
            if value is None:
                lines.append(f"# {item.name} is not set")
            else:
                lines.append(f"{item.name} = {_toml(value, _kind(instance, item))}")
    for name, found in (
        ("grid.source", config.grid.source),
        ("site.contract", config.site.contract),
    ):
        table, _, key = name.rpartition(".")
        if found == ():
            lines.insert(lines.index(f"[{table}]") + 1, f"{key} = []")
        for one in found or ():
            lines += ["", f"[[{name}]]"]
            for item in fields(one):
                value = getattr(one, item.name)
                if value is not None:
                    lines.append(f"{item.name} = {_toml(value, _kind(one, item))}")
    for name, settings in config.exporters:
        lines += ["", f"[exporters.{name}]"]
        for item in fields(settings):
            value = getattr(settings, item.name)
            lines.append(
                f"# {item.name} is not set"
                if value is None
                else f"{item.name} = {_toml(value, _kind(settings, item))}"
            )
    return "\n".join(lines).lstrip() + "\n"


def reference_markdown() -> str:
    """All settings as Markdown tables, for `configs/README.md`."""
    parts: list[str] = []
    listed = [(f"[{name}]", table()) for name, table, _ in _LISTS]
    docs = {f"[{name}]": _list_doc(name, owner) for name, _, owner in _LISTS}
    exporters = [(f"exporters.{name}", table()) for name, table in _shipped_exporters()]
    docs |= {f"exporters.{name}": _exporter_doc(table) for name, table in _shipped_exporters()}
    for table, instance in [*_tables(Config()), *listed, *exporters]:
        parts += ["", f"### `[{table}]`", ""]
        parts += [docs[table], ""] if table in docs else []
        parts += ["| key | default | meaning |", "| --- | --- | --- |"]
        for item in _leaves(instance):
            value = getattr(instance, item.name)
            unset = value is None or value == ""
            default = "not set" if unset else f"`{_toml(value, _kind(instance, item))}`"
            doc = item.metadata["doc"].replace("|", "\\|")
            parts.append(f"| `{item.name}` | {default} | {doc} |")
    return "\n".join(parts).lstrip() + "\n"


def _tables(config: Config) -> Iterator[tuple[str, Any]]:
    """Every table with at least one value of its own, by its dotted name."""
    pending: list[tuple[str, Any]] = [
        (f.name, getattr(config, f.name))
        for f in fields(config)
        if is_dataclass(getattr(config, f.name))
    ]
    while pending:
        name, instance = pending.pop(0)
        nested = [
            (f"{name}.{f.name}", getattr(instance, f.name))
            for f in fields(instance)
            if is_dataclass(getattr(instance, f.name))
        ]
        if len(nested) < len(fields(instance)):
            yield name, instance
        pending = nested + pending


def _shipped_exporters() -> Iterator[tuple[str, Any]]:
    """Our exporters that have settings: name, and what those are."""
    for name in sorted(SHIPPED):
        table = find_plugin(name).settings
        if fields(table):
            yield name, table


def _exporter_doc(table: Any) -> str:
    return f"{inspect.cleandoc(table.__doc__ or '')} With the table the exporter is on."


def _list_doc(name: str, owner: Any) -> str:
    """What a list of tables is, and what holds without one."""
    found = {item.name: item for item in fields(owner)}[name.rpartition(".")[2]]
    return str(found.metadata["doc"])


def _leaves(instance: Any) -> Iterator[Field[Any]]:
    for item in fields(instance):
        value = getattr(instance, item.name)
        if not is_dataclass(value) and item.name not in _LIST_KEYS:
            yield item


def _kind(instance: Any, item: Field[Any]) -> Any:
    return get_type_hints(type(instance))[item.name]


def _toml(value: Any, kind: Any = None) -> str:
    if kind is setting.DurationNs:
        return json.dumps(format_duration(value))
    if kind in (setting.InstantNs, setting.InstantNs | None):
        moment = datetime.fromtimestamp(value // NS_PER_S, UTC)
        moment += timedelta(microseconds=value % NS_PER_S // NS_PER_US)
        return moment.isoformat().replace("+00:00", "Z")
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):  # kg by model
        return f"{{ {', '.join(f'{json.dumps(model)} = {kg!r}' for model, kg in value)} }}"
    if kind is setting.Enabled and value != "auto":
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | int):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def _comment(doc: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(doc, 92, break_on_hyphens=False)]
