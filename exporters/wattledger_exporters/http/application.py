"""What answers requests, whatever the paths: guards, errors, headers. ASGI without a framework.

What may block runs in a worker thread with a bounded queue. Errors are JSON with a sentence; a
traceback is for the log only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from wattledger.errors import WattledgerError
from wattledger.ports import Clock
from wattledger.units import NS_PER_S
from wattledger_exporters.http.auth import BasicAuth, TokenBucket, Verdict
from wattledger_exporters.http.connection import MAX_HEAD_BYTES, Peer
from wattledger_exporters.http.query import BadRequest
from wattledger_exporters.http.response import RETRY, Response, refusal
from wattledger_exporters.http.worker import Busy

if TYPE_CHECKING:
    from wattledger_exporters.web_config import LiveWebConfig, WebConfig

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Route = tuple[tuple[str, ...], Callable[[Scope], Awaitable[Response]]]

READ = ("GET", "HEAD")
_NOT_MODIFIED = 304


class Refused(Exception):
    """This client may not see what it asks for; the text says who may, and how."""


class Application:
    """An ASGI application with a table of routes; see `HttpServer`.

    Attributes:
        routes: path → the methods that it answers, and what answers them. For the subclass to fill.
    """

    def __init__(self, clock: Clock, web: LiveWebConfig | None) -> None:
        self._clock = clock
        self._web = web
        self._auth = BasicAuth(self._now_s)
        self._rate: tuple[int, int] = (0, 0)
        self._bucket: TokenBucket | None = None
        self.routes: dict[str, Route] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """ASGI: one request."""
        web = self._web.current if self._web is not None and peer_of(scope) is None else None
        try:
            response = await self._respond_to(scope, web)
        except asyncio.CancelledError:  # the server stops; the connection is cut already
            return
        headers = {
            "date": formatdate(usegmt=True),
            "content-type": response.content_type,
            "content-length": str(len(response.body)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            **dict(response.headers),
            **dict(web.headers if web else ()),
        }
        if web is not None and scope["state"]["web"] is not web:
            # Who holds the connection may no longer get another one: certificates have changed.
            headers["connection"] = "close"
        if response.status == _NOT_MODIFIED:  # the length would be that of the body it stands for
            del headers["content-length"]
        raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": raw})
        await send({"type": "http.response.body", "body": response.body})

    async def _respond_to(self, scope: Scope, web: WebConfig | None) -> Response:
        """The answer, an error's included."""
        try:
            return await self._respond(scope, web)
        except Refused as error:
            return refusal(403, str(error))
        except BadRequest as error:
            return refusal(400, str(error))
        except (Busy, TimeoutError):
            return refusal(503, "The daemon is busy with earlier requests; ask again.", *RETRY)
        except WattledgerError as error:
            return refusal(503, error.message, *RETRY, hint=error.hint)
        except Exception:
            log.exception("A request for %.100r failed", scope["path"])
            return refusal(500, "This is a fault of the daemon; its log tells more.")

    def stop(self) -> None:
        """End the workers, without waiting for them."""
        self._auth.stop()

    def route(self, path: str) -> Route | None:
        """What answers a path; None: nothing does."""
        return self.routes.get(path)

    async def _respond(self, scope: Scope, web: WebConfig | None) -> Response:
        # h11 bounds a head that comes in pieces; one that comes whole is bounded here.
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEAD_BYTES:
            sentence = f"The headers are longer than {MAX_HEAD_BYTES} bytes."
            return refusal(431, sentence, ("connection", "close"))
        if web is not None:
            refused = await self._guard(scope, web)
            if refused is not None:
                return refused
        certified = bool(scope["state"].get("certified"))
        scope["authenticated"] = certified or (web is not None and bool(web.users))
        route = self.route(scope["path"])
        if route is None:
            return refusal(404, f"There is nothing here; known paths: {', '.join(self.routes)}.")
        methods, handler = route
        if scope["method"] not in methods:
            allowed = ", ".join(methods)
            return refusal(405, f"This path answers {allowed} only.", ("allow", allowed))
        return await handler(scope)

    async def _guard(self, scope: Scope, web: WebConfig) -> Response | None:
        """Rate limit and password, as the web configuration asks; None: come in."""
        rate = (web.rate_interval_ns, web.rate_burst)
        if rate != self._rate:
            self._rate = rate
            per_s = NS_PER_S / rate[0] if rate[0] else 0.0
            self._bucket = TokenBucket(per_s, rate[1], self._now_s) if rate[0] else None
        if self._bucket is not None and not self._bucket.take():
            return refusal(429, "Too many requests (rate_limit).", ("retry-after", "1"))
        if not web.users:
            return None
        address = (scope.get("client") or ("", 0))[0]
        verdict = await self._auth.judge(header(scope, b"authorization"), web.users, address)
        if verdict is Verdict.LATER:
            return refusal(429, "Too many failed logins from here.", ("retry-after", "1"))
        if verdict is Verdict.DENY:
            return refusal(
                401,
                "A name and a password are needed (basic_auth_users).",
                ("www-authenticate", 'Basic realm="wattledger", charset="UTF-8"'),
            )
        return None

    def _now_s(self) -> float:
        return self._clock.now().monotonic_ns / NS_PER_S


def peer_of(scope: Scope) -> Peer | None:
    """Who asks over the Unix socket; None: it came over TCP."""
    peer: Peer | None = scope["state"]["peer"]
    return peer


def has_left(scope: Scope) -> bool:
    """Whoever asks over the Unix socket has hung up meanwhile, and is told nothing any more."""
    left: Callable[[], bool] = scope["state"]["has_left"]
    return left()


def header(scope: Scope, name: bytes) -> bytes:
    """A request's header, its lines joined; empty where there is none."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return b",".join(value for key, value in headers if key == name)
