"""The door to httpx: one GET under one deadline. Imported by the first request only.

httpx makes the request; the sockets under it are ours (`backend`), by way of the two seams that
are made for it: `httpx.BaseTransport`, and the `network_backend` of httpcore, httpx's own engine,
which httpx's stock transport does not pass on.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpcore

from wattledger.grid.address import Url, check_address
from wattledger.grid.backend import Backend, Budget
from wattledger.grid.client import Resolver
from wattledger.grid.outcome import Outcome, failure

# Where click, rich and Pygments are installed, httpx imports its command line along with itself:
# 6 MB that no request uses. It goes without when that import fails, as where they are not.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import httpx  # noqa: E402 - see above

_HEADER_ROOM = 64 * 1024
_READ = (b"retry-after", b"etag", b"last-modified")

# httpcore's debug lines hold whole replies' headers, httpx says each request at INFO; what is
# worth saying, we say ourselves.
for _name in ("httpcore", "httpx"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def fetch(
    url: Url,
    headers: Mapping[str, str],
    *,
    deadline_s: float,
    max_bytes: int,
    private: bool,
    resolve: Resolver | None,
    ca_file: Path | None,
    proxy: str,
) -> httpx.Response:
    """One GET over a connection of its own. See `HttpClient` for the arguments.

    Args:
        url: what to ask; whoever calls has checked it.
        headers: as they are sent.
        deadline_s: for the whole request.
        max_bytes: the largest body taken.
        private: addresses inside the site are allowed.
        resolve: host and port to addresses; None: the system's resolver.
        ca_file: trust these certificates instead of the system's.
        proxy: to go through; empty: none.

    Returns:
        As of `Line.get`; without a body unless the status is 200.

    Raises:
        GridError: no complete reply came within the deadline and the bounds.
    """
    line = Line(
        url, max_bytes=max_bytes, private=private, resolve=resolve, ca_file=ca_file, proxy=proxy
    )
    try:
        return line.get(url, headers, deadline_s)
    finally:
        line.close()


class Line:
    """GETs to one origin, one after the other, over a connection that is kept where it can be.

    Args:
        url: of the origin.
        max_bytes: as of `fetch`, like all others.
        private: addresses inside the site are allowed.
        resolve: host and port to addresses.
        ca_file: trust these certificates; read once.
        proxy: to go through.
        refusal_bytes: how much is read of the body of another status than 200; what is longer
            is cut off. 0: none of it.

    Raises:
        GridError: outcome `blocked`: the proxy would be led to an address that must not be asked.
    """

    def __init__(
        self,
        url: Url,
        *,
        max_bytes: int,
        private: bool,
        resolve: Resolver | None,
        ca_file: Path | None,
        proxy: str,
        refusal_bytes: int = 0,
    ) -> None:
        self._wire_bytes = 4 * max_bytes + _HEADER_ROOM
        self._budget = Budget(0.0, 0)  # renewed by each request
        # Through a proxy it is the proxy that resolves the host, and its own address is the
        # operator's explicit choice; only literal addresses can be checked here.
        backend = Backend(
            self._budget, url, private=private, resolve=resolve, through_proxy=bool(proxy)
        )
        context = _tls(ca_file) if url.scheme == "https" else None
        pool: httpcore.ConnectionPool
        if proxy:
            _check_literal(url, private=private)
            pool = httpcore.HTTPProxy(proxy, ssl_context=context, network_backend=backend)
        else:
            pool = httpcore.ConnectionPool(ssl_context=context, network_backend=backend)
        self._client = httpx.Client(
            transport=_Transport(pool, url, max_bytes, refusal_bytes),
            follow_redirects=False,
            trust_env=False,
            timeout=None,  # noqa: S113 - the budget is under every operation
        )

    def get(self, url: Url, headers: Mapping[str, str], deadline_s: float) -> httpx.Response:
        """One GET, read to its end.

        Args:
            url: what to ask, of this origin.
            headers: as they are sent.
            deadline_s: for the whole request.

        Returns:
            The status, of the headers those in `_READ`, and the body: empty unless the status is
            200 or `refusal_bytes` says otherwise.

        Raises:
            GridError: no complete reply came within the deadline and the bounds.
        """
        where = _httpx_url(url)
        self._budget.renew(time.monotonic() + deadline_s, self._wire_bytes)
        try:
            return self._client.get(where, headers=dict(headers))
        except httpcore.TimeoutException:
            raise failure(
                Outcome.TIMEOUT, f"{url.origin} did not answer in full within {deadline_s:g} s"
            ) from None
        except (httpcore.NetworkError, httpcore.ProxyError):
            raise failure(Outcome.CONNECT_ERROR, f"no connection to {url.origin}") from None
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol):
            # The library's message may quote the reply, so it is not passed on.
            text = f"{url.origin} does not speak HTTP properly"
            raise failure(Outcome.CONNECT_ERROR, text) from None

    def close(self) -> None:
        """Hang up."""
        self._client.close()


def _httpx_url(url: Url) -> httpx.URL:
    """The URL as httpx takes it: its host is the one that was checked, letter by letter."""
    try:
        where = httpx.URL(url.origin + url.target)
        # `host` decodes an xn-- name, or cannot; httpx does so on its way.
        same = bool(where.host) and where.raw_host.decode("ascii") == url.host
    except (httpx.InvalidURL, UnicodeError):
        same = False
    if not same:
        raise failure(Outcome.BLOCKED, f"{url.origin} is not a url that can be asked")
    return where


class _Transport(httpx.BaseTransport):
    """Carries a request over the pool, and hands httpx a reply that is whole and bounded.

    Of the headers httpx sees only those that are read here: a cookie, a Location or a compressed
    body is nothing that it should act on. What the pool raises passes through httpx to `fetch`.
    """

    def __init__(
        self, pool: httpcore.ConnectionPool, url: Url, max_bytes: int, refusal_bytes: int
    ) -> None:
        self._pool = pool
        self._url = url
        self._max_bytes = max_bytes
        self._refusal_bytes = refusal_bytes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange.

        Raises:
            GridError: outcome `bad_encoding` or `too_large`, or one of the backend's.
            httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError: as they say.
        """
        url = request.url
        where = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        with self._pool.stream(
            request.method, where, headers=request.headers.raw, extensions=request.extensions
        ) as response:
            found = {name.lower(): value for name, value in response.headers}
            kept = [(name, found[name]) for name in _READ if name in found]
            body = b""
            if response.status == 200:
                body = self._body(response, found)
            elif self._refusal_bytes and b"content-encoding" not in found:
                body = self._refusal(response)
            return httpx.Response(response.status, headers=kept, content=body)

    def _body(self, response: httpcore.Response, headers: Mapping[bytes, bytes]) -> bytes:
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
            raise failure(
                Outcome.BAD_ENCODING,
                f"{self._url.origin} sent a compressed reply though asked not to",
            )
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > self._max_bytes:
                raise failure(
                    Outcome.TOO_LARGE, f"{self._url.origin} sent more than {self._max_bytes} bytes"
                )
        return bytes(body)

    def _refusal(self, response: httpcore.Response) -> bytes:
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) >= self._refusal_bytes:
                break
        return bytes(body[: self._refusal_bytes])

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """The system's trust store, where a site may have added its own authority; else certifi's.

    A source's requests are many minutes apart and each makes it anew: its 2 MB are not kept
    meanwhile, and a certificate that was added is seen.
    """
    if ca_file is not None:
        return ssl.create_default_context(cafile=str(ca_file))
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and any(Path(paths.capath).glob("*.0"))):
        return ssl.create_default_context()
    import certifi

    return ssl.create_default_context(cafile=certifi.where())


def _check_literal(url: Url, *, private: bool) -> None:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in url.host else socket.AF_INET, url.host)
    except OSError:
        return
    check_address(url.host, url, private=private)
