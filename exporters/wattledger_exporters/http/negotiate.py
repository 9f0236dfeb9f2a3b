"""Which of the four rendered pages a client is given (RFC 9110, sections 12.4 and 12.5).

The answer's content type is one of three constants, never an echo of what the client sent.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPES = {
    "1.0.0": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    # An older name for the same format; Prometheus before 2.37 asks for this one.
    "0.0.1": "application/openmetrics-text; version=0.0.1; charset=utf-8",
}
_TEXT_VERSIONS = ("0.0.4", "1.0.0")
_QUALITY = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


class Format(NamedTuple):
    """What to send: the format, its content type, and whether gzipped."""

    openmetrics: bool
    content_type: str
    gzip: bool


class _Offer(NamedTuple):
    """One element of a header; sorts by preference."""

    quality: float
    exact: bool
    position: int  # negative: earlier is more


def _elements(header: str) -> list[tuple[str, dict[str, str]]]:
    elements = []
    for part in header.split(","):
        value, *parameters = (piece.strip() for piece in part.split(";"))
        pairs = (piece.partition("=") for piece in parameters if piece)
        elements.append(
            (value.lower(), {k.strip().lower(): v.strip().strip('"') for k, _, v in pairs})
        )
    return elements


def _quality(parameters: dict[str, str]) -> float:
    text = parameters.get("q", "1")
    return float(text) if _QUALITY.fullmatch(text) else 1.0


def _media(accept: str) -> tuple[bool, str]:
    """Whether OpenMetrics is wanted, and the content type."""
    nothing = _Offer(0, False, 0)
    text, openmetrics = nothing, nothing
    version = "1.0.0"
    refused: set[str] = set()
    for position, (media, parameters) in enumerate(_elements(accept)):
        quality = _quality(parameters)
        exact = _Offer(quality, True, -position)
        loose = _Offer(quality, False, -position)
        if media == "application/openmetrics-text":
            asked = parameters.get("version", "1.0.0")
            if asked in OPENMETRICS_TYPES:
                if quality == 0:
                    refused.add("openmetrics")
                elif not openmetrics.exact or exact > openmetrics:
                    openmetrics, version = exact, asked
        elif media == "text/plain":
            if parameters.get("version", "0.0.4") in _TEXT_VERSIONS:
                if quality == 0:
                    refused.add("text")
                elif not text.exact or exact > text:
                    text = exact
        elif media in ("*/*", "text/*", "application/*"):
            if media != "application/*" and not text.exact:
                text = max(text, loose)
            if media == "application/*" and not openmetrics.exact:
                openmetrics = max(openmetrics, loose)
    if "text" in refused and not text.exact:
        text = nothing
    if "openmetrics" in refused and not openmetrics.exact:
        openmetrics = nothing
    # Where nothing fits, text is the better answer than 406: a person is looking.
    if openmetrics.quality > 0 and openmetrics > text:
        return True, OPENMETRICS_TYPES[version]
    return False, TEXT_TYPE


def _gzip(accept_encoding: str) -> bool:
    qualities = {
        ("gzip" if value == "x-gzip" else value): _quality(parameters)
        for value, parameters in _elements(accept_encoding)
    }
    gzip = qualities.get("gzip", qualities.get("*", 0.0))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


@lru_cache(maxsize=64)
def choose(accept: str, accept_encoding: str) -> Format:
    """The format for these two request headers; empty strings where they are absent."""
    openmetrics, content_type = _media(accept)
    return Format(openmetrics, content_type, _gzip(accept_encoding))
