"""From TOML to `Config`, collecting every fault with the key's path and the remedy."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from wattledger.config import settings
from wattledger.config.check import semantic_faults
from wattledger.config.settings import Config
from wattledger.errors import ConfigError
from wattledger.units import parse_duration_ns

Fault = tuple[str, str]


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
    if faults:
        raise ConfigError(sorted(faults), source)
    return config


def _structure(tree: dict[str, Any], faults: list[Fault]) -> Config:
    """The settings of the sections that can be read; faults of the others are appended."""
    sections: dict[str, Any] = {}
    hints = get_type_hints(Config)
    for key, value in tree.items():
        if key not in hints:
            faults.append((key, _unknown(key, list(hints))))
            continue
        try:
            sections[key] = _CONVERTER.structure(value, hints[key])
        except Exception as error:  # noqa: BLE001  (cattrs raises groups of anything)
            faults.extend(_walk(error, key, hints[key]))
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


def _text(value: Any, _: Any = None) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text; put it in quotes")
    if "\0" in value:
        raise ValueError("a text cannot hold a NUL character")
    return value


def _boolean(value: Any, _: Any = None) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false (without quotes)")
    return value


def _number(low: float, high: float, example: str) -> Callable[[Any, Any], float]:
    def structure(value: Any, _: Any = None) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{value!r} is not a number; write one such as {example}")
        if not low <= value <= high:  # neither nan nor an infinity lies between
            raise ValueError(f"{str(value)[:40]} is out of range; it lies from {low:g} to {high:g}")
        return float(value)

    return structure


def _count(value: Any, _: Any = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100_000:
        raise ValueError(f"{value!r} is not a whole number from 0 to 100000")
    return value


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
    text = _text(value)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'{text!r} is no address; write one such as "127.0.0.1:19400"')
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f'{text!r}: put an IPv6 address in brackets, as in "[::1]:19400"')
    return text


def _url(value: Any, _: Any = None) -> str:
    text = _text(value)
    if not text:
        return text
    match = re.match(r"(https?)://(\[[0-9a-fA-F:.]+\]|[^/:@?#\s]+)(:\d+)?(/[^\s?#]*)?$", text)
    if match is None:
        raise ValueError(f'{text!r} is no address; write one such as "https://host/path"')
    return text


def _zone(value: Any, _: Any = None) -> str:
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", text):
        raise ValueError(f'{text!r} is no grid zone; write one such as "DE", "GB" or "WORLD"')
    return text


def _choice(options: tuple[Any, ...]) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any = None) -> Any:
        if value not in options:
            known = ", ".join(f'"{option}"' for option in options)
            raise ValueError(f"{value!r} is not possible here; write one of {known}")
        return value

    return structure


def _build_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    hooks: dict[Any, Callable[[Any, Any], Any]] = {
        str: _text,
        bool: _boolean,
        settings.DurationNs: _duration,
        settings.Enabled: _enabled,
        settings.Listen: parse_listen,
        settings.FilePath: _text,
        settings.Url: _url,
        settings.Zone: _zone,
        settings.Pue: _number(1, 10, "1.2"),
        settings.LitersPerKwh: _number(0, 1000, "0.36"),
        settings.Watts: _number(0, 1_000_000, "350"),
        settings.Price: _number(0, 1_000_000, "0.25"),
        settings.Count: _count,
    }
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
        if kind not in (str, bool):  # the setting may also be left out
            converter.register_structure_hook(kind | None, hook)
    converter.register_structure_hook_factory(_is_literal, lambda t: _choice(get_args(t)))
    converter.register_structure_hook_func(_is_tuple, _array(converter))
    return converter


def _array(converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Arrays of tables; every element is looked at, so that every fault is found."""

    def structure(value: Any, target: Any) -> Any:
        element = _element(target)
        if not isinstance(value, list):
            example = "[[…]] tables" if is_dataclass(element) else '["…", "…"]'
            raise ValueError(f"{value!r} is not a list; write {example} or []")
        items: list[Any] = []
        errors: list[Exception] = []
        for number, item in enumerate(value):
            try:
                items.append(converter.structure(item, element))
            except Exception as error:  # noqa: BLE001  (collected)
                error.add_note(str(number))
                errors.append(error)
        if errors:
            raise IterableValidationError("", errors, target)
        return tuple(items)

    return structure


def _is_literal(target: Any) -> bool:
    return get_origin(target) is Literal


def _is_tuple(target: Any) -> bool:
    return any(get_origin(t) is tuple for t in (target, *get_args(target)))


def _element(target: Any) -> Any:
    """`T` of `tuple[T, ...]` or `tuple[T, ...] | None`."""
    array = target if get_origin(target) is tuple else get_args(target)[0]
    return get_args(array)[0]


_CONVERTER = _build_converter()

# ── faults ──────────────────────────────────────────────────────────────────────────────────────


def _walk(error: BaseException, path: str, target: Any) -> Iterator[Fault]:
    """The leaves of cattrs' error tree as (key path, sentence)."""
    if isinstance(error, IterableValidationError):
        for child in error.exceptions:
            number = getattr(child, "__notes__", ["?"])[-1]
            yield from _walk(child, f"{path}[{number}]", _element(target))
    elif isinstance(error, ClassValidationError):
        hints = get_type_hints(target) if is_dataclass(target) else {}
        with_notes, without_notes = error.group_exceptions()
        for child, note in with_notes:
            yield from _walk(child, f"{path}.{note.name}", hints.get(note.name))
        for child in without_notes:
            yield from _walk(child, path, target)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [f.name for f in fields(error.cl)] if is_dataclass(error.cl) else []
        for key in sorted(error.extra_fields):
            yield f"{path}.{key}", _unknown(key, known)
    elif isinstance(error, ValueError):
        yield path, str(error)
    else:
        yield path, "is not a table; write [" + path + "] and its keys below"


def _unknown(key: str, known: list[str]) -> str:
    import difflib  # a daemon whose settings are right keeps no memory for it

    near = difflib.get_close_matches(key, known, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(known)}"
    return f"unknown key; {remedy}"
