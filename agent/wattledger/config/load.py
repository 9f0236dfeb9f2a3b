"""From TOML to `Config`, collecting every fault with the key's path and the remedy."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import cattrs

from wattledger import setting
from wattledger.config import structure
from wattledger.config.check import semantic_faults
from wattledger.config.exporter_tables import EXPORTERS, exporter_faults, read_exporters
from wattledger.config.settings import Config
from wattledger.config.structure import Fault
from wattledger.errors import ConfigError
from wattledger.units import parse_duration_ns


def load_config(path: Path | None) -> Config:
    """The settings of a file, or the defaults without one.

    Raises:
        ConfigError: all faults, each with the key's path and the remedy.
    """
    if path is None:
        return Config()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([(str(path), f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([(str(path), f"is not UTF-8 text: {error}")]) from error
    return parse_config(text, str(path))


def parse_config(text: str, source: str = "configuration") -> Config:
    """The settings of a TOML text.

    Raises:
        ConfigError: all faults, each with the key's path and the remedy.
    """
    try:
        tree = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # the second where tables nest too deeply
        raise ConfigError([(source, f"not valid TOML: {error}")], source) from error
    faults: list[Fault] = []
    _structure(tree, faults)
    # What is left without the faulty keys can still be looked at as a whole.
    config = _structure(_without(tree, [path for path, _ in faults]), [])
    known = {path for path, _ in faults}
    renumbered = any(path.startswith("grid.source[") for path in known)
    faults += [
        (path, text)
        for path, text in semantic_faults(config)
        if path not in known and not (renumbered and path.startswith("grid.source["))
    ]
    if not faults:
        faults += exporter_faults(config.exporters)
    if faults:
        raise ConfigError(sorted(faults), source)
    return config


def _structure(tree: dict[str, Any], faults: list[Fault]) -> Config:
    """The settings of the sections that can be read; faults of the others are appended."""
    sections: dict[str, Any] = {}
    hints = get_type_hints(Config)
    for key, value in tree.items():
        if key not in hints:
            faults.append((key, structure.unknown(key, list(hints))))
            continue
        if key == EXPORTERS:
            sections[key] = read_exporters(value, _CONVERTER, faults)
            continue
        try:
            sections[key] = _CONVERTER.structure(value, hints[key])
        except Exception as error:  # noqa: BLE001  (cattrs raises groups of anything)
            faults.extend(structure.walk(error, key, hints[key]))
    return Config(**sections)


def _without(tree: Any, paths: list[str]) -> Any:
    """A tree without the keys at these paths; an element of a list goes as a whole."""
    if not isinstance(tree, dict):
        return tree
    kept = {}
    for key, value in tree.items():
        if key in paths:
            continue
        below = [path[len(key) + 1 :] for path in paths if path.startswith(f"{key}.")]
        kept[key] = _without(value, below)
        if isinstance(value, list):
            faulty = {path[len(key) + 1 :].split("]")[0] for path in paths if f"{key}[" in path}
            kept[key] = [item for n, item in enumerate(value) if str(n) not in faulty]
    return kept


# ── values ──────────────────────────────────────────────────────────────────────────────────────


def _boolean(value: Any, _: Any = None) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false (without quotes)")
    return value


def _number(low: float, high: float, example: str) -> Callable[[Any, Any], float]:
    def convert(value: Any, _: Any = None) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{value!r} is not a number; write one such as {example}")
        if not low <= value <= high:  # neither nan nor an infinity lies between
            raise ValueError(f"{str(value)[:40]} is out of range; it lies from {low:g} to {high:g}")
        return float(value)

    return convert


def _count(value: Any, _: Any = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100_000:
        raise ValueError(f"{value!r} is not a whole number from 0 to 100000")
    return value


def _kg_by_model(value: Any, _: Any = None) -> tuple[tuple[str, float], ...]:
    kg = _number(0, 100_000, "164")
    if not isinstance(value, dict):
        return (("*", kg(value, None)),)
    return tuple((structure.text(pattern), kg(one, None)) for pattern, one in value.items())


def _duration(value: Any, _: Any = None) -> int:
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is not a duration; write one such as "1s", "5m" or "1h30m"')
    return parse_duration_ns(value)


def _enabled(value: Any, _: Any = None) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    if value == "auto":
        return "auto"
    raise ValueError(f'{value!r} is not possible here; write "auto", true or false')


def parse_listen(value: Any, _: Any = None) -> str:
    """An address and port as `http.listen` takes them. Raises: ValueError."""
    text = structure.text(value)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'{text!r} is no address; write one such as "127.0.0.1:19400"')
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f'{text!r}: put an IPv6 address in brackets, as in "[::1]:19400"')
    return text


def _url(value: Any, _: Any = None) -> str:
    text = structure.text(value)
    if not text:
        return text
    match = re.match(r"(https?)://(\[[0-9a-fA-F:.]+\]|[^/:@?#\s]+)(:\d+)?(/[^\s?#]*)?$", text)
    if match is None:
        raise ValueError(f'{text!r} is no address; write one such as "https://host/path"')
    return text


def _source_url(value: Any, _: Any = None) -> str:
    base, mark, query = structure.text(value).partition("?")
    if "#" in query or any(character.isspace() for character in query):
        raise ValueError(f'{value!r} is no address; write one such as "https://host/path?a=b"')
    return _url(base) + mark + query


def _zone(value: Any, _: Any = None) -> str:
    text = structure.text(value)
    if not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", text):
        raise ValueError(f'{text!r} is no grid zone; write one such as "DE", "GB" or "WORLD"')
    return text


def _choice(options: tuple[Any, ...]) -> Callable[[Any, Any], Any]:
    def convert(value: Any, _: Any = None) -> Any:
        if value not in options:
            known = ", ".join(f'"{option}"' for option in options)
            raise ValueError(f"{value!r} is not possible here; write one of {known}")
        return value

    return convert


def _build_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    hooks: dict[Any, Callable[[Any, Any], Any]] = {
        str: structure.text,
        bool: _boolean,
        setting.DurationNs: _duration,
        setting.Enabled: _enabled,
        setting.Listen: parse_listen,
        setting.FilePath: structure.text,
        setting.Url: _url,
        setting.SourceUrl: _source_url,
        setting.Zone: _zone,
        setting.Pue: _number(1, 10, "1.2"),
        setting.LitersPerKwh: _number(0, 1000, "0.36"),
        setting.Latitude: _number(-90, 90, "52.52"),
        setting.Longitude: _number(-180, 180, "13.41"),
        setting.Cycles: _number(1.5, 20, "6.0"),
        setting.StressFactor: _number(0.1, 100, "1.8"),
        setting.Watts: _number(0, 1_000_000, "350"),
        setting.Price: _number(0, 1_000_000, "0.25"),
        setting.Count: _count,
        setting.GramsPerKwh: _number(0, 10_000, "410"),
        setting.Share: _number(0, 1, "0.6"),
        setting.Kilograms: _number(0, 1_000_000, "1500"),
        setting.InstantNs: structure.instant_ns,
        setting.KgByModel: _kg_by_model,
    }
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
        if kind not in (str, bool):  # the setting may also be left out
            converter.register_structure_hook(kind | None, hook)
    converter.register_structure_hook_factory(_is_literal, lambda t: _choice(get_args(t)))
    converter.register_structure_hook_func(structure.is_array, structure.array(converter))
    return converter


def _is_literal(target: Any) -> bool:
    return get_origin(target) is Literal


_CONVERTER = _build_converter()
