"""How a request to a grid source can end: the `outcome` label of `grid_requests_total`."""

from __future__ import annotations

from enum import StrEnum

from wattledger.errors import GridError


class Outcome(StrEnum):
    """Every value that `GridError.outcome` takes in this room, and `ok`."""

    OK = "ok"
    TIMEOUT = "timeout"  # the total deadline passed, whatever was dripping in
    CONNECT_ERROR = "connect_error"  # no name, no route, refused, reset, not HTTP
    TLS_ERROR = "tls_error"
    BLOCKED = "blocked"  # the address or URL is one that must not be asked
    NO_TOKEN = "no_token"  # noqa: S105 - the token's file is missing or unsafe, nothing was asked
    HTTP_401 = "http_401"
    HTTP_403 = "http_403"
    HTTP_404 = "http_404"
    HTTP_429 = "http_429"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    REDIRECT = "redirect"
    TOO_LARGE = "too_large"
    BAD_ENCODING = "bad_encoding"
    BAD_JSON = "bad_json"
    BAD_VALUE = "bad_value"
    WRONG_ZONE = "wrong_zone"
    FUTURE = "future"
    STALE = "stale"
    NO_DATA = "no_data"


_HINTS = {
    Outcome.TIMEOUT: "check the network, a proxy (grid.proxy) and the provider's status page",
    Outcome.CONNECT_ERROR: "check the network, name resolution and a proxy (grid.proxy)",
    Outcome.TLS_ERROR: "check this machine's clock and its CA certificates (ca-certificates)",
    Outcome.BLOCKED: "check the source's url and what its name resolves to",
    Outcome.NO_TOKEN: "check token_file",
    Outcome.HTTP_401: "check the token in token_file; some providers also answer so when asked "
    "too often; it is tried again slowly",
    Outcome.HTTP_403: "the token's plan does not cover this zone",
    Outcome.HTTP_404: "check the source's zone and url; the provider may have retired the zone",
    Outcome.HTTP_429: "the provider is asked too often with this token or from this address",
    Outcome.HTTP_4XX: "check the source's url",
    Outcome.HTTP_5XX: "nothing to do here: the provider is in trouble",
    Outcome.REDIRECT: "redirects are never followed; set the source's url to the final address",
    Outcome.TOO_LARGE: "check the source's url",
    Outcome.BAD_ENCODING: "check the source's url and any proxy on the way",
    Outcome.BAD_JSON: "check the source's url and any proxy on the way",
    Outcome.BAD_VALUE: "nothing to do here if it passes; else report it to the provider",
    Outcome.WRONG_ZONE: "check the source's zone: the provider answered for another one",
    Outcome.FUTURE: "check that this machine's clock is synchronised",
    Outcome.STALE: "check that this machine's clock is synchronised; else the provider is behind",
    Outcome.NO_DATA: "nothing to do here if it passes; else check the source's zone",
}


def failure(
    outcome: Outcome, message: str, *, hint: str = "", retry_after_s: float | None = None
) -> GridError:
    """The error for an outcome, with the remedy that usually helps unless a better is given."""
    return GridError(str(outcome), message, hint or _HINTS[outcome], retry_after_s)
