"""What receivers answer: a session that holds a deadline and remembers the last answer.

The exporters of OpenTelemetry tell success or failure only. Which records a receiver will never
take, when it wants to be asked again, and what it rejected of an accepted request is in its answer
(https://opentelemetry.io/docs/specs/otlp/#otlphttp-response).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from socket import SHUT_RDWR
from typing import Any
from weakref import WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

MAX_BODY_BYTES = 65_536
LONGEST_WAIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A receiver's answer, or why there is none.

    Attributes:
        status: of HTTP; 0: there was no answer.
        body: its first bytes.
        media_type: what it says that is.
        retry_after_s: when it wants to be asked again; None: it did not say.
        problem: why there was no answer; empty: there was.
        timed_out: it was not complete in time.
    """

    status: int = 0
    body: bytes = b""
    media_type: str = ""
    retry_after_s: float | None = None
    problem: str = ""
    timed_out: bool = False


class Late(Exception):
    """The time of a push is over. Not of `requests`: the SDK would try those again."""


class _Open:
    """The connections that are open, so that a deadline can end what waits for them."""

    def __init__(self) -> None:
        self._connections: WeakSet[HTTPConnection] = WeakSet()
        self.was_cut = False

    def add(self, connection: HTTPConnection) -> None:
        self._connections.add(connection)

    def cut(self) -> None:
        """End all of them, whatever is being waited for: no drop of a byte now and then helps."""
        self.was_cut = True
        for connection in list(self._connections):
            sock = connection.sock
            if sock is not None:
                try:
                    sock.shutdown(SHUT_RDWR)
                except OSError:
                    continue


def _adapter(opened: _Open) -> HTTPAdapter:
    class Plain(HTTPConnection):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            opened.add(self)

    class Secure(HTTPSConnection):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            opened.add(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    pools = {"http": PlainPool, "https": SecurePool}

    class Adapter(HTTPAdapter):
        def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **more)
            manager.pool_classes_by_scheme = pools
            return manager

    adapter = Adapter(pool_connections=2, pool_maxsize=1)
    adapter.poolmanager.pool_classes_by_scheme = pools
    return adapter


class Session(requests.Session):
    """A session whose pushes end in time, the last byte of the answer included.

    A push is what the SDK makes of one call: a request, and some more where it tries again. It
    works out their timeouts by the wall clock, which may be set; here the monotonic one counts.

    Attributes:
        answer: to the last request.
    """

    def __init__(self, proxy: str = "") -> None:
        """Args: proxy: to ask through; empty: none, whatever the environment says."""
        super().__init__()
        self.trust_env = False
        self.answer = Answer()
        self._deadline_s = 0.0
        self._opened = _Open()
        adapter = _adapter(self._opened)
        self.mount("http://", adapter)
        self.mount("https://", adapter)
        if proxy:
            self.proxies = {"http": proxy, "https": proxy}

    def begin(self, timeout_s: float) -> None:
        """A push begins: what it asks for is answered within so long, or never.

        The answer is forgotten: a request that is never sent must not be taken for answered.
        """
        self.answer = Answer()
        self._deadline_s = time.monotonic() + timeout_s

    def request(self, *args: Any, **more: Any) -> requests.Response:
        """One request; its answer is read here, as far as it is of use.

        Raises:
            Late: the time is over; the answer is that to the try before, where there was one.
            requests.RequestException: it could not be sent.
        """
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise Late
        more |= {"stream": True, "allow_redirects": False, "timeout": left_s}
        before, self.answer = self.answer, Answer()
        self._opened.was_cut = False
        deadline = threading.Timer(left_s, self._opened.cut)
        deadline.daemon = True
        deadline.start()
        try:
            response = super().request(*args, **more)
            with response:
                body = response.raw.read(MAX_BODY_BYTES, decode_content=True)
                if self._opened.was_cut:
                    raise requests.Timeout("the answer was not complete in time")
        except Exception as error:
            late = self._opened.was_cut or isinstance(error, requests.Timeout)
            self.answer = Answer(problem=str(error) or repr(error), timed_out=late)
            if late:
                if before.status or before.problem:  # what a try before was told says more
                    self.answer = before
                raise Late from error
            raise
        finally:
            deadline.cancel()
        headers = response.headers
        self.answer = Answer(
            response.status_code,
            bytes(body),
            headers.get("content-type", "").partition(";")[0].strip().lower(),
            _seconds(headers.get("retry-after", "")),
        )
        return response


def _seconds(text: str) -> float | None:
    """`Retry-After`: seconds or a date (RFC 9110, 10.2.3); None: it says nothing of use."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_WAIT_S)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return min(max(0.0, moment.timestamp() - time.time()), LONGEST_WAIT_S)
