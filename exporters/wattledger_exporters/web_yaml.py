"""YAML as the Prometheus exporters' own reader takes it, which is Go's yaml.v2 in strict mode.

There a scalar is what its key wants: `X-XSS-Protection: 1` is text, and so is a user called `on`.
Tags of mappings and lists mean nothing; of scalars, YAML's own must be true, others make text.
A key that is given twice is a fault: the second of two lists of users must not hide the first.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from pathlib import Path
from typing import Any

import yaml

from wattledger.errors import ConfigError

Faults = list[tuple[str, str]]
_TAG = "tag:yaml.org,2002:"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TRUE = {"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}


class Scalar(str):
    """A scalar as it is written, and what YAML takes it for ("bool", "int", "str", …)."""

    kind: str

    def __new__(cls, text: str, kind: str) -> Scalar:
        """Of the text as it stands in the file."""
        made = super().__new__(cls, text)
        made.kind = kind
        return made


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        known = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name = None if key.tag == f"{_TAG}null" else key.value
            if name in known:
                raise yaml.constructor.ConstructorError(
                    None, None, "a key stands there twice", key.start_mark
                )
            known.add(name)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        own = self.peek_event().tag == "!"  # type: ignore[no-untyped-call]
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if own:
            node.tag = "!"
        return node


def _value(loader: _Loader, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    kind = node.tag.removeprefix(_TAG)
    written = str(node.value)
    if not written.isascii() and any("\ud800" <= char <= "\udfff" for char in written):
        raise _false(node, "an escape is half a character")  # which nothing can send
    if kind == "binary":
        try:
            written = written.replace("\n", "")
            return Scalar(base64.b64decode(written, validate=True).decode(), kind)
        except (binascii.Error, UnicodeDecodeError):
            raise _false(node) from None
    if kind in ("null", "bool", "int", "float", "timestamp"):
        plain = loader.resolve(yaml.ScalarNode, written, (True, False))  # type: ignore[no-untyped-call]
        if plain != node.tag and (kind, plain) != ("float", f"{_TAG}int"):
            raise _false(node)
    return None if kind == "null" else Scalar(written, kind)


def _false(node: yaml.Node, told: str = "a value is not what its tag says") -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, told, node.start_mark)


_Loader.yaml_constructors = {None: _value}
_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile("[yYnN]"), list("yYnN"))


def parse(raw: bytes, path: Path) -> object:
    """The document: mappings, lists, `Scalar`s and None.

    Raises:
        ConfigError: it is not one document of YAML. No fault quotes a line: it may hold a secret.
    """
    try:
        loader = _Loader(raw.decode("utf-16" if raw[:2] in _UTF_16 else "utf-8"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError:
        fault = f"{path} is not text (UTF-8, or UTF-16 that says so)"
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        fault = f"{path} is not YAML: {getattr(error, 'problem', None) or 'a fault'}{where}"
    except RecursionError:
        fault = f"{path} is nested too deeply"
    except (ValueError, OverflowError):  # PyYAML's own, for an escape that stands for no character
        fault = f"{path} is not YAML: an escape stands for no character"
    raise ConfigError([("http.web_config", fault)], str(path))


def mapping(value: object, at: str, known: tuple[str, ...], faults: Faults) -> dict[str, Any]:
    """The mapping at a key's path ("": the file); what is not one, and unknown keys, are faults."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.append((at, "must be a mapping of keys to values"))
        return {}
    prefix = f"{at}." if at else ""
    for key in value:
        if key not in known:
            faults.append((f"{prefix}{key}", f"is not known; known here: {', '.join(known)}"))
    return value


def text(section: dict[str, Any], key: str, at: str, faults: Faults) -> str:
    """The text of a key; empty where there is none or it is empty."""
    value = section.get(key)
    if value is None:
        return ""
    if not isinstance(value, Scalar) or "\0" in value:
        faults.append((f"{at}.{key}", "must be text"))
        return ""
    return str(value)


def flag(section: dict[str, Any], key: str, at: str, faults: Faults, *, default: bool) -> bool:
    """The truth of a key."""
    value = section.get(key)
    if value is None:
        return default
    if not isinstance(value, Scalar) or value.kind != "bool":
        faults.append((f"{at}.{key}", "must be true or false"))
        return default
    return value in _TRUE


def texts(section: dict[str, Any], key: str, at: str, faults: Faults) -> list[str] | None:
    """The list of texts of a key; None where there is none."""
    value = section.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, Scalar) for item in value):
        faults.append((f"{at}.{key}", "must be a list of text"))
        return None
    return [str(item) for item in value]
