"""The floor under HTTP: sockets that go to checked addresses and end by one deadline.

Client libraries bound each operation, not the whole: a server that sends one byte each half
second holds a request with `timeout=2` for as long as it likes, in the headers as in the body.
So the deadline is enforced here: every connect, handshake, read and write gets what is left of it
as its own timeout. The address that was checked is the address that is connected to, so a name
that resolves differently a moment later changes nothing.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

import httpcore

from wattledger.errors import GridError
from wattledger.grid.address import Url, check_address
from wattledger.grid.client import Resolver
from wattledger.grid.outcome import Outcome, failure


class Budget:
    """What is left of a request's time and of the bytes it may bring."""

    def __init__(self, end_s: float, wire_bytes: int) -> None:
        self.renew(end_s, wire_bytes)

    def renew(self, end_s: float, wire_bytes: int) -> None:
        """Begin the budget of another request.

        Args:
            end_s: when it ends, on the monotonic clock.
            wire_bytes: how many bytes it may bring.
        """
        self._end_s = end_s
        self._bytes = wire_bytes

    def seconds(self) -> float:
        """What is left of the time, more than 0.

        Raises:
            httpcore.ReadTimeout: nothing is.
        """
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout
        return left_s

    def spend(self, count: int) -> None:
        """Count bytes that came in.

        Raises:
            GridError: outcome `too_large`.
        """
        self._bytes -= count
        if self._bytes < 0:
            raise failure(Outcome.TOO_LARGE, "the reply does not end")


class Backend(httpcore.NetworkBackend):
    """Connects to checked addresses, and puts the budget around each connection."""

    def __init__(
        self,
        budget: Budget,
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
        """Resolve, check every address, connect to the first that answers.

        Raises:
            GridError: outcome `blocked` or `connect_error`.
            httpcore.TimeoutException: not within the budget.
        """
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

    def __init__(self, inner: httpcore.NetworkStream, budget: Budget, url: Url) -> None:
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
