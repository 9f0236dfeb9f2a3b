"""PromQL as text: selectors that quote what comes from outside. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

PREFIX = "wattledger_"
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
