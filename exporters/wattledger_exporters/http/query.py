"""Query parameters: read strictly, refused with a sentence that shows how to write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import parse_qsl

from wattledger.units import NS_PER_S, parse_duration_ns

MAX_PARAMETERS = 16
_UNIX_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_DURATION = re.compile(r"([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d)){1,5}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_NS = ((datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1) + 1) * NS_PER_S
_HOW = (
    'write an instant as RFC 3339 ("2027-01-15T08:00:00Z"), as a UTC date ("2027-01-15"), '
    'as Unix seconds ("1800000000"), or as how long ago ("24h")'
)


class BadRequest(Exception):
    """What the client asked cannot be answered; the text says why and how to ask."""


def parameters(query_string: bytes, allowed: Sequence[str]) -> Mapping[str, str]:
    """The parameters by name.

    Raises:
        BadRequest: one is unknown, given twice, or not UTF-8.
    """
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise BadRequest("The query is not UTF-8 text of at most 16 parameters.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            known = f"known here: {', '.join(allowed)}" if allowed else "none is known here"
            raise BadRequest(f"The parameter {name[:64]!r} is not known; {known}.")
        if name in found:
            raise BadRequest(f"The parameter {name!r} is given twice.")
        found[name] = value
    return found


def instant_ns(name: str, text: str, now_ns: int) -> int:
    """An instant in ns since 1970; before the year 10000, the first that has no date in Python.

    Raises:
        BadRequest: it is not one.
    """
    if _DURATION.fullmatch(text):
        return max(0, now_ns - parse_duration_ns(text))
    unix = _UNIX_SECONDS.fullmatch(text)
    ns = int(Decimal(text) * NS_PER_S) if unix else _date_ns(name, text)
    if ns < 0:
        raise BadRequest(f"{name}={text[:64]!r} lies before 1970.")
    if ns >= _END_NS:
        raise BadRequest(f"{name}={text[:64]!r} lies after the year 9999; {_HOW}.")
    return ns


def _date_ns(name: str, text: str) -> int:
    if _DATE.fullmatch(text):
        text += "T00:00:00Z"
    # A "+" that was not escaped arrives as a space.
    try:
        when = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise BadRequest(f"{name}={text[:64]!r} is not an instant; {_HOW}.") from None
    if when.tzinfo is None:
        raise BadRequest(f"{name}={text[:64]!r} names no time zone; add Z for UTC.")
    return (when - _EPOCH) // timedelta(microseconds=1) * 1000


def whole_number(name: str, text: str, at_most: int) -> int:
    """A whole number from 0.

    Raises:
        BadRequest: it is not one, or too large.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > at_most:
        raise BadRequest(f"{name}={text[:64]!r} is not a whole number from 0 to {at_most}.")
    return int(text)


def one_of(name: str, value: str, options: Sequence[str]) -> str:
    """A value that is one of those known.

    Raises:
        BadRequest: it is none of them.
    """
    if value not in options:
        known = ", ".join(option for option in options if option)
        raise BadRequest(f"{name}={value[:64]!r} is not one of: {known}.")
    return value
