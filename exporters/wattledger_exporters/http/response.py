"""What goes back to a client: data as JSON, errors as a sentence that helps."""

from __future__ import annotations

import json
from typing import NamedTuple

JSON = "application/json"
RETRY = (("retry-after", "5"),)


class Response(NamedTuple):
    """What goes back."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


def answer(status: int, body: object, *headers: tuple[str, str]) -> Response:
    """A JSON answer, indented for people with curl."""
    return Response(status, (json.dumps(body, indent=2) + "\n").encode(), JSON, headers)


def refusal(status: int, sentence: str, *headers: tuple[str, str], hint: str = "") -> Response:
    """An error: a sentence, and what to do about it."""
    return answer(status, {"error": sentence, **({"hint": hint} if hint else {})}, *headers)
