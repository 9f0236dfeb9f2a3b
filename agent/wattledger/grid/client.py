"""The room's only way out: GET a small document, in bounded time, memory and trust.

    total deadline · bounded body · no redirects · no compression · https, or loopback ·
    addresses checked after resolution · no proxy but the configured one · strict JSON

httpx and `ssl` are imported by the first request: a daemon that lives on the country table alone
never pays for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from wattledger.errors import GridError
from wattledger.grid.address import Url, check_url
from wattledger.grid.checks import strict_json
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.secret import Secret
from wattledger.grid.validators import Validators

DEADLINE_S = 10.0
MAX_BYTES = 256 * 1024
MAX_RETRY_AFTER_S = 86_400.0

Resolver = Callable[[str, int], list[str]]
_NO_SECRETS: Mapping[str, Secret] = MappingProxyType({})


class HttpClient:
    """Asks providers. Holds no connection between requests: they come many minutes apart.

    What a provider marks with an ETag or a Last-Modified is asked for conditionally the next time.

    Args:
        proxy: `http://host:port` of the proxy to go through, or empty; the environment's proxy
            variables are not read. Requests to loopback never go through it.
        user_agent: how to introduce ourselves.
        ca_file: trust these certificates instead of the system's.
        resolve: host and port to addresses; default: the system's resolver.
        deadline_s: for the whole request, from name resolution to the last byte.
        max_bytes: the largest body taken.

    Raises:
        ValueError: the proxy is not usable; a sentence.
    """

    def __init__(
        self,
        *,
        proxy: str = "",
        user_agent: str = "wattledger",
        ca_file: Path | None = None,
        resolve: Resolver | None = None,
        deadline_s: float = DEADLINE_S,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        check_proxy(proxy)
        self._proxy = proxy
        self._user_agent = user_agent
        self._ca_file = ca_file
        self._resolve = resolve
        self._deadline_s = deadline_s
        self._max_bytes = max_bytes
        self._validators = Validators()

    def get_json(
        self,
        url: str,
        *,
        allow_hosts: Collection[str],
        private: bool = False,
        secret_headers: Mapping[str, Secret] = _NO_SECRETS,
        secret_query: Mapping[str, Secret] = _NO_SECRETS,
    ) -> Any:
        """The parsed body of a 200. See `get` for the arguments and for what it raises."""
        url = _with_secrets(url, secret_query)
        body = self.get(
            url,
            allow_hosts=allow_hosts,
            accept="application/json",
            private=private,
            secret_headers=secret_headers,
        )
        try:
            return strict_json(body)
        except GridError:
            self._validators.forget(url)
            raise

    def get(
        self,
        url: str,
        *,
        allow_hosts: Collection[str],
        accept: str,
        private: bool = False,
        secret_headers: Mapping[str, Secret] = _NO_SECRETS,
        secret_query: Mapping[str, Secret] = _NO_SECRETS,
    ) -> bytes:
        """The body of a 200, or of an earlier one that the server says is unchanged (304).

        Args:
            url: what to ask.
            allow_hosts: the hosts that may be asked (lower case).
            accept: the media type that is wanted.
            private: addresses inside the site are allowed: for a URL that the operator chose.
            secret_headers: names and values that no error, log line or URL may show.
            secret_query: the same, for an API that takes its key in the URL.

        Raises:
            GridError: anything else; its `outcome` is one of `Outcome`.
        """
        url = _with_secrets(url, secret_query)
        try:
            where = check_url(url)
        except ValueError as error:
            raise failure(Outcome.BLOCKED, str(error)) from None
        if where.host not in allow_hosts:
            raise failure(Outcome.BLOCKED, f"{where.host} is not a host of this source")
        from wattledger.grid import wire  # imports httpx and ssl

        condition, unchanged = self._validators.condition(url)
        reply = wire.fetch(
            where,
            {
                "Accept": accept,
                "Accept-Encoding": "identity",
                "Connection": "close",
                "User-Agent": self._user_agent,
                **condition,
                **{name: secret.reveal() for name, secret in secret_headers.items()},
            },
            deadline_s=self._deadline_s,
            max_bytes=self._max_bytes,
            private=private,
            resolve=self._resolve,
            ca_file=self._ca_file,
            proxy="" if where.loopback else self._proxy,
        )
        headers = reply.headers
        if reply.status_code == 304 and unchanged is not None:
            return unchanged
        if reply.status_code != 200:
            raise _refusal(where, reply.status_code, headers.get("retry-after", ""))
        self._validators.keep(
            url, headers.get("etag", ""), headers.get("last-modified", ""), reply.content
        )
        return reply.content


def _with_secrets(url: str, secrets: Mapping[str, Secret]) -> str:
    if not secrets:
        return url
    query = urlencode({name: secret.reveal() for name, secret in secrets.items()})
    return f"{url}{'&' if '?' in url else '?'}{query}"


def check_proxy(text: str) -> None:
    """Refuse a proxy URL that cannot be used; empty means none.

    Raises:
        ValueError: a sentence.
    """
    if not text:
        return
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        usable = parts.scheme == "http" and parts.hostname and parts.port
    except ValueError:
        usable = False
    if not usable or not text.isascii() or "@" in text or parts.path not in ("", "/"):
        raise ValueError('write the proxy as "http://host:port", without a user name')


def _refusal(where: Url, status: int, retry_after: str) -> GridError:
    """The error for a status that is not 200. Nothing of the body goes into it."""
    if 300 <= status < 400:
        outcome = Outcome.REDIRECT
    elif status in (401, 403, 404, 429):
        outcome = Outcome(f"http_{status}")
    elif 400 <= status < 500:
        outcome = Outcome.HTTP_4XX
    elif status >= 500:
        outcome = Outcome.HTTP_5XX
    else:
        outcome = Outcome.NO_DATA  # 204 and its like
    return failure(
        outcome,
        f"{where.origin} answered with status {status}",
        retry_after_s=retry_after_s(retry_after) if status in (429, 503) else None,
    )


def retry_after_s(text: str) -> float | None:
    """A Retry-After header (RFC 9110, section 10.2.3: seconds or a date), at most a day."""
    if not text or len(text) > 64:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(text)
        wait_s = (when - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)
