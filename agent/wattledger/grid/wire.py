"""The door to httpcore: one GET under one deadline. Imported by the first request only.

Client libraries bound each operation, not the whole: a server that sends one byte each half
second holds a request with `timeout=2` for as long as it likes, in the headers as in the body.
So the deadline is enforced one floor down, at the socket: every connect, handshake, read and
write gets what is left of it as its own timeout. The address that was checked is the address
that is connected to, so a name that resolves differently a moment later changes nothing.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpcore

from wattledger.errors import GridError
from wattledger.grid.address import Url, check_address
from wattledger.grid.client import Resolver
from wattledger.grid.outcome import Outcome, failure

_HEADER_ROOM = 64 * 1024

# Its debug lines hold whole replies' headers; what is worth saying, we say ourselves.
logging.getLogger("httpcore").setLevel(logging.WARNING)


class Reply(NamedTuple):
    """What came back: the body is empty unless the status is 200."""

    status: int
    retry_after: str
    body: bytes


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
) -> Reply:
    """One GET. See `HttpClient` for the arguments.

    Raises:
        GridError: no complete reply came within the deadline and the bounds.
    """
    budget = _Budget(time.monotonic() + deadline_s, 4 * max_bytes + _HEADER_ROOM)
    # Through a proxy it is the proxy that resolves the host, and its own address is the
    # operator's explicit choice; only literal addresses can be checked here.
    backend = _Backend(budget, url, private=private, resolve=resolve, through_proxy=bool(proxy))
    context = _tls(ca_file) if url.scheme == "https" else None
    pool: httpcore.ConnectionPool
    if proxy:
        _check_literal(url, private=private)
        pool = httpcore.HTTPProxy(proxy, ssl_context=context, network_backend=backend)
    else:
        pool = httpcore.ConnectionPool(ssl_context=context, network_backend=backend)
    target = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
    try:
        with pool, pool.stream("GET", target, headers=list(headers.items())) as response:
            return _read(url, response, max_bytes)
    except httpcore.TimeoutException:
        raise failure(
            Outcome.TIMEOUT, f"{url.origin} did not answer in full within {deadline_s:g} s"
        ) from None
    except (httpcore.NetworkError, httpcore.ProxyError):
        raise failure(Outcome.CONNECT_ERROR, f"no connection to {url.origin}") from None
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol):
        # The library's message may quote the reply, so it is not passed on.
        raise failure(Outcome.CONNECT_ERROR, f"{url.origin} does not speak HTTP properly") from None


def _read(url: Url, response: httpcore.Response, max_bytes: int) -> Reply:
    """The body of a 200, bounded; any other status needs none."""
    found = {name.lower(): value for name, value in response.headers}
    retry_after = found.get(b"retry-after", b"").decode("latin-1").strip()
    if response.status != 200:
        return Reply(response.status, retry_after, b"")
    if found.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
        raise failure(
            Outcome.BAD_ENCODING, f"{url.origin} sent a compressed reply though asked not to"
        )
    body = bytearray()
    for chunk in response.iter_stream():
        body += chunk
        if len(body) > max_bytes:
            raise failure(Outcome.TOO_LARGE, f"{url.origin} sent more than {max_bytes} bytes")
    return Reply(200, retry_after, bytes(body))


def _network_failure(url: Url, error: httpcore.NetworkError) -> GridError:
    """The socket's own words; further up, the library drops them."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        text = f"the certificate of {url.origin} is not accepted: {cause.verify_message}"
        return failure(Outcome.TLS_ERROR, text)
    if isinstance(cause, ssl.SSLError):
        return failure(Outcome.TLS_ERROR, f"no TLS connection to {url.origin}")
    reason = ""
    if isinstance(cause, OSError) and cause.strerror:
        reason = f": {cause.strerror}"
    return failure(Outcome.CONNECT_ERROR, f"no connection to {url.origin}{reason}")


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    """The system's trust store, where a site may have added its own authority; else certifi's.

    Made anew for each request, which are many minutes apart: its 2 MB are not kept meanwhile, and
    a certificate that was added is seen.
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


class _Budget:
    """What is left of a request's time and of the bytes it may bring."""

    def __init__(self, end_s: float, wire_bytes: int) -> None:
        self._end_s = end_s
        self._bytes = wire_bytes

    def seconds(self) -> float:
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout
        return left_s

    def spend(self, count: int) -> None:
        self._bytes -= count
        if self._bytes < 0:
            raise failure(Outcome.TOO_LARGE, "the reply does not end")


class _Backend(httpcore.NetworkBackend):
    """Connects to checked addresses, and puts the budget around each connection."""

    def __init__(
        self,
        budget: _Budget,
        url: Url,
        *,
        private: bool,
        resolve: Resolver | None,
        through_proxy: bool,
    ) -> None:
        self._budget = budget
        self._url = url
        self._private = private
        self._resolve = resolve or _system_resolve
        self._through_proxy = through_proxy
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        del timeout, local_address
        addresses = self._addresses(host, port)
        if not self._through_proxy:
            for address in addresses:
                check_address(address, self._url, private=self._private)
        problem: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for index, address in enumerate(addresses):
            share_s = self._budget.seconds() / (len(addresses) - index)
            try:
                stream = self._inner.connect_tcp(address, port, share_s, None, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
            else:
                return _Stream(stream, self._budget, self._url)
        if isinstance(problem, httpcore.ConnectError):
            raise _network_failure(self._url, problem)
        if problem is not None:
            raise problem
        raise failure(Outcome.CONNECT_ERROR, f"{host} has no address")

    def _addresses(self, host: str, port: int) -> list[str]:
        """Name resolution knows no timeout, so it is left behind in a thread when it hangs."""
        found: list[str] = []
        problem = ""

        def work() -> None:
            nonlocal problem
            try:
                found.extend(self._resolve(host, port))
            except (OSError, UnicodeError) as error:
                problem = getattr(error, "strerror", None) or "not a host name"

        thread = threading.Thread(target=work, name="grid-resolve", daemon=True)
        thread.start()
        thread.join(self._budget.seconds())
        if thread.is_alive():
            raise httpcore.ConnectTimeout
        if problem:
            raise failure(Outcome.CONNECT_ERROR, f"{host} cannot be resolved: {problem}")
        return list(dict.fromkeys(found))[:8]


def _system_resolve(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class _Stream(httpcore.NetworkStream):
    """A connection whose every operation ends by the deadline."""

    def __init__(self, inner: httpcore.NetworkStream, budget: _Budget, url: Url) -> None:
        self._inner = inner
        self._budget = budget
        self._url = url

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        try:
            data = self._inner.read(max_bytes, self._budget.seconds())
        except httpcore.ReadError as error:
            raise _network_failure(self._url, error) from None
        self._budget.spend(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        self._inner.write(buffer, self._budget.seconds())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        del timeout
        # CPython treats a socket's timeout as the deadline of the whole handshake.
        try:
            inner = self._inner.start_tls(ssl_context, server_hostname, self._budget.seconds())
        except httpcore.ConnectError as error:
            raise _network_failure(self._url, error) from None
        return _Stream(inner, self._budget, self._url)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
