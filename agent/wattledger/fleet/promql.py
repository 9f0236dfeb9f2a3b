"""PromQL as text: selectors that quote what comes from outside. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote, urlencode

PREFIX = "wattledger_"
_URL_CHARS = 7000  # what servers and proxies take for certain is 8 KiB
_NAMES_CHARS = 5000  # of them those that names may take
_MOST_NAMES = 100  # of one question about a course of time: so that its reply stays small
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quoted(text: str) -> str:
    r"""A string literal; PromQL takes Go's escapes (prometheus.io/docs, "String literals")."""
    shown = (
        _ESCAPES.get(c) or (c if c.isprintable() else "".join(f"\\x{b:02x}" for b in c.encode()))
        for c in text
    )
    return f'"{"".join(shown)}"'


def is_label(text: str) -> bool:
    """Whether a text may name a label."""
    return _LABEL.fullmatch(text) is not None


def equal(label: str, value: str) -> str:
    """A matcher."""
    return f"{label}={quoted(value)}"


def one_of(label: str, values: Iterable[str], *, negative: bool = False) -> str:
    """A matcher for any of these values, or for none of them; RE2 is anchored by PromQL."""
    pattern = "|".join(_literal(value) for value in values)
    return f"{label}{'!~' if negative else '=~'}{quoted(pattern)}"


def _literal(text: str) -> str:
    """A text as a pattern of RE2; letters and digits must not be escaped there."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)


def all_equal(labels: Mapping[str, str]) -> list[str]:
    """Matchers for all of these labels."""
    return [equal(name, value) for name, value in sorted(labels.items())]


def selector(metric: str, matchers: Iterable[str], window_ms: int = 0) -> str:
    """A metric of ours with its matchers, and the window behind the instant in ms; 0: none.

    Args:
        metric: without the prefix.
        matchers: each of `equal`, `one_of` and their like.
        window_ms: how far back.
    """
    window = f"[{duration(window_ms)}]" if window_ms else ""
    return f"{PREFIX}{metric}{{{','.join(matchers)}}}{window}"


def duration(ms: int) -> str:
    """A duration, in seconds where it is of whole ones."""
    return f"{ms}ms" if ms % 1000 else f"{ms // 1000}s"


def fits(texts: Sequence[str]) -> bool:
    """Whether a question of these parts is short enough for a URL."""
    return len(urlencode({"query": " or ".join(texts)})) <= _URL_CHARS


def few(values: Iterable[str]) -> bool:
    """Whether so many names are short enough to stand in a question."""
    return sum(map(_name_chars, values)) <= _NAMES_CHARS


def chunks(values: Sequence[str], most: int = _MOST_NAMES) -> Iterator[list[str]]:
    """As many names at a time as a question may hold.

    Args:
        values: the names.
        most: of them, however short they are.
    """
    chunk: list[str] = []
    left = _NAMES_CHARS
    for value in values:
        chars = _name_chars(value)
        if chunk and (chars > left or len(chunk) == most):
            yield chunk
            chunk, left = [], _NAMES_CHARS
        chunk.append(value)
        left -= chars
    if chunk:
        yield chunk


def _name_chars(value: str) -> int:
    """What a name takes in a URL, as `one_of` writes it."""
    return len(quote(quoted(_literal(value)))) + len("%7C")
