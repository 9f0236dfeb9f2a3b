"""JSON Schema as far as our OpenAPI document uses it; a keyword it does not know is a fault."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
_KNOWN = {
    "$ref",
    "additionalProperties",
    "anyOf",
    "default",
    "description",
    "enum",
    "examples",
    "format",
    "items",
    "maxLength",
    "maximum",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
}


def faults(
    value: Any, schema: Mapping[str, Any], document: Mapping[str, Any], at: str = "$"
) -> Iterator[str]:
    """Sentences on what in the value is not as the schema says."""
    assert schema.keys() <= _KNOWN, (at, schema.keys() - _KNOWN)
    if "$ref" in schema:
        yield from faults(value, resolved(schema["$ref"], document), document, at)
        return
    if "anyOf" in schema:
        tried = [list(faults(value, one, document, at)) for one in schema["anyOf"]]
        if all(tried):
            yield from min(tried, key=len)
        return
    named = schema.get("type", list(_TYPES))
    kinds = [named] if isinstance(named, str) else named
    if not any(_is(value, kind) for kind in kinds):
        yield f"{at}: {value!r} is no {' or '.join(kinds)}"
        return
    if value is None:
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{at}: {value!r} is not {schema['pattern']}"
    if "format" in schema and not _FORMATS[schema["format"]](value):
        yield f"{at}: {value!r} is no {schema['format']}"
    if isinstance(value, str) and not (
        schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
    ):
        yield f"{at}: {value!r} is too short or too long"
    if isinstance(value, int | float) and not (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
    ):
        yield f"{at}: {value!r} is out of range"
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from faults(item, schema.get("items", {}), document, f"{at}[{number}]")
    if isinstance(value, dict):
        yield from _object(value, schema, document, at)


def _is_instant(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


_FORMATS: dict[str, Callable[[str], bool]] = {"date-time": _is_instant, "date": _is_date}


def _object(
    value: dict[str, Any], schema: Mapping[str, Any], document: Mapping[str, Any], at: str
) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at}: {name} is missing"
    more = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            yield from faults(item, properties[name], document, f"{at}.{name}")
        elif more is False:
            yield f"{at}: {name} is not documented"
        elif more is not True:
            yield from faults(item, more, document, f"{at}.{name}")


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def resolved(reference: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a `$ref` within the document points to."""
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found  # type: ignore[no-any-return]
