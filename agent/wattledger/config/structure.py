"""What every strict TOML of ours is read with: texts, arrays, and cattrs' errors as key paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, get_args, get_origin, get_type_hints

import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from wattledger.units import NS_PER_S, NS_PER_US

Fault = tuple[str, str]


def text(value: Any, _: Any = None) -> str:
    """A text of a TOML file. Raises: ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text; put it in quotes")
    if "\0" in value:
        raise ValueError("a text cannot hold a NUL character")
    return value


def instant_ns(value: Any, _: Any = None) -> int:
    """An instant of a TOML file, with its offset, in ns since 1970. Raises: ValueError."""
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError(f"{value!r} is no instant; write one such as 2026-01-01T00:00:00Z")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * NS_PER_US


def is_array(target: Any) -> bool:
    """Whether a type is `tuple[T, ...]`, or that or None."""
    return any(get_origin(t) is tuple for t in (target, *get_args(target)))


def array(converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """The hook for arrays; every element is looked at, so that every fault is found."""

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


def walk(error: BaseException, path: str, target: Any) -> Iterator[Fault]:
    """The leaves of cattrs' error tree as (key path, sentence); `path` is empty at the top."""
    if isinstance(error, IterableValidationError):
        for child in error.exceptions:
            number = getattr(child, "__notes__", ["?"])[-1]
            yield from walk(child, f"{path}[{number}]", _element(target))
    elif isinstance(error, ClassValidationError):
        hints = get_type_hints(target) if is_dataclass(target) else {}
        with_notes, without_notes = error.group_exceptions()
        for child, note in with_notes:
            yield from walk(child, _below(path, note.name), hints.get(note.name))
        for child in without_notes:
            yield from walk(child, path, target)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [f.name for f in fields(error.cl)] if is_dataclass(error.cl) else []
        for key in sorted(error.extra_fields):
            yield _below(path, key), unknown(key, known)
    elif isinstance(error, KeyError):
        yield path, "is missing"
    elif isinstance(error, ValueError):
        yield path, str(error)
    else:
        yield path, f"is not a table; write [{path}] and its keys below"


def unknown(key: str, known: Sequence[str]) -> str:
    """What to say about a key that is none of these."""
    import difflib  # a daemon whose settings are right keeps no memory for it

    near = difflib.get_close_matches(key, known, n=1)
    those = f"the keys here are {', '.join(known)}" if known else "there are no keys here"
    remedy = f"did you mean {near[0]}?" if near else those
    return f"unknown key; {remedy}"


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _element(target: Any) -> Any:
    """`T` of `tuple[T, ...]` or `tuple[T, ...] | None`."""
    kind = target if get_origin(target) is tuple else get_args(target)[0]
    return get_args(kind)[0]
