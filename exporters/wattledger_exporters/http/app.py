"""The routes: what each path answers. An ASGI application without a framework.

No handler reaches a meter; what may block runs in a worker thread with a bounded queue. Errors are
JSON with a sentence; a traceback is for the log only.

Scrapers and probes ask the same few paths for years. What answers people and their commands is
imported when one of them asks: on most nodes it would be memory that nobody uses.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any

from wattledger.errors import WattledgerError
from wattledger.model import SiteFactors
from wattledger.model.jobs import JobKey
from wattledger.ports import Clock, Daemon
from wattledger.units import NS_PER_S
from wattledger_exporters.http import api, runs_api
from wattledger_exporters.http.auth import BasicAuth, TokenBucket, Verdict
from wattledger_exporters.http.connection import MAX_HEAD_BYTES, Peer
from wattledger_exporters.http.negotiate import choose
from wattledger_exporters.http.operators import SYSTEM, Directory, Operators
from wattledger_exporters.http.pages import PageStore
from wattledger_exporters.http.query import BadRequest, parameters, whole_number
from wattledger_exporters.http.response import RETRY, Response, answer, refusal
from wattledger_exporters.http.worker import Busy, Worker
from wattledger_exporters.report import PRIVATE_GROUPINGS
from wattledger_exporters.when import iso

if TYPE_CHECKING:
    from wattledger_exporters.web_config import LiveWebConfig, WebConfig

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

HTML = "text/html; charset=utf-8"
READ = ("GET", "HEAD")
_TIMEOUT_S = 25.0
_RELEASE_S = 900
_RELEASE_MOST_S = 86_400
JOB_PATH = "/api/v1/jobs/"
_JOBS_PRIVATE = (
    "Jobs and users are shown over the daemon's Unix socket (`wattledger jobs` on the node), each "
    "user their own; over TCP to clients only that a web configuration authenticates."
)
_UNIX_ONLY = (
    "The GPUs are released over the daemon's Unix socket only, by root, the daemon's own user or "
    "a member of http.operators_group; run `sudo wattledger release`."
)
_NOBODYS = "A run whose owner the node never learnt is shown to operators only."


class Refused(Exception):
    """This client may not see what it asks for; the text says who may, and how."""


class App:
    """The ASGI application over one daemon."""

    def __init__(
        self,
        daemon: Daemon,
        pages: PageStore,
        clock: Clock,
        web: LiveWebConfig | None,
        owner_uid: int | None = None,
        operators_group: str = "",
        directory: Directory = SYSTEM,
    ) -> None:
        self._daemon = daemon
        self._pages = pages
        self._clock = clock
        self._web = web
        owner_uid = os.geteuid() if owner_uid is None else owner_uid
        self._operators = Operators(operators_group, clock, owner_uid, directory)
        self._auth = BasicAuth()
        self._rate: tuple[int, int] = (0, 0)
        self._bucket: TokenBucket | None = None
        self._totals = Worker("wattledger-totals", waiting=4)
        self._release = Worker("wattledger-release", waiting=1)
        self._runs = runs_api.RunsApi(daemon)
        self.routes: dict[str, tuple[tuple[str, ...], Callable[[Scope], Awaitable[Response]]]] = {
            "/metrics": (READ, self._get_metrics),
            "/healthz": (READ, self._get_health),
            "/-/healthy": (READ, self._get_health),
            "/readyz": (READ, self._get_ready),
            "/-/ready": (READ, self._get_ready),
            "/": (READ, self._get_page),
            "/api/v1/status": (READ, self._get_status),
            "/api/v1/totals": (READ, self._get_totals),
            "/api/v1/jobs": (READ, self._get_jobs),
            JOB_PATH + "{manager}/{job_id}": (READ, self._get_job),
            "/api/v1/waste": (READ, self._get_waste),
            runs_api.PATH: (("POST",), self._post_run),
            runs_api.RUN_PATH: (READ, self._get_run),
            runs_api.FINISH_PATH: (("POST",), self._finish_run),
            "/api/v1/release": (("POST",), self._post_release),
            "/api/v1/openapi.json": (READ, self._get_openapi),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """ASGI: one request."""
        web = self._web.current if self._web is not None and _peer(scope) is None else None
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
        for part in (self._auth, self._totals, self._release, self._operators, self._runs):
            part.stop()

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
        route = self.routes.get(scope["path"])
        if route is None and scope["path"].startswith(JOB_PATH):
            route = self.routes[JOB_PATH + "{manager}/{job_id}"]
        if route is None and runs_api.id_of(scope["path"]) is not None:
            ends = scope["path"].endswith("/finish")
            route = self.routes[runs_api.FINISH_PATH if ends else runs_api.RUN_PATH]
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
        verdict = await self._auth.judge(_header(scope, b"authorization"), web.users, address)
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

    # ── the routes ──────────────────────────────────────────────────────────────────────────

    async def _get_metrics(self, scope: Scope) -> Response:
        page, why = self._pages.current()
        if page is None:
            return refusal(503, why, *RETRY)
        chosen = choose(
            _header(scope, b"accept").decode("latin-1"),
            _header(scope, b"accept-encoding").decode("latin-1"),
        )
        if chosen.openmetrics:
            body = page.openmetrics_gzip if chosen.gzip else page.openmetrics
        else:
            body = page.text_gzip if chosen.gzip else page.text
        headers: tuple[tuple[str, str], ...] = (("vary", "Accept, Accept-Encoding"),)
        if chosen.gzip:
            headers += (("content-encoding", "gzip"),)
        return Response(200, body, chosen.content_type, headers)

    async def _get_health(self, _scope: Scope) -> Response:
        return answer(200, {"status": "ok"})

    async def _get_ready(self, _scope: Scope) -> Response:
        snapshot = self._daemon.snapshot()
        if snapshot is None or not snapshot.ledger.last_commit_ns:
            why = snapshot.ledger.message if snapshot else ""
            hint = snapshot.ledger.hint if snapshot else ""
            return refusal(503, why or "No commit has been made yet.", *RETRY, hint=hint)
        page, why = self._pages.current()
        if page is None:
            return refusal(503, why, *RETRY)
        return answer(200, {"status": "ready", "books": iso(snapshot.books.books_ns)})

    async def _get_page(self, _scope: Scope) -> Response:
        from wattledger_exporters.status_page import html_page, security_headers

        now_ns = self._clock.now().wall_ns
        body = html_page(self._daemon.snapshot(), now_ns).encode("utf-8", "replace")
        return Response(200, body, HTML, security_headers())

    async def _get_status(self, scope: Scope) -> Response:
        parameters(scope["query_string"], ())
        snapshot = self._daemon.snapshot()
        if snapshot is None:
            return refusal(503, "The daemon is starting; there is no state yet.", *RETRY)
        return answer(200, api.status(snapshot, self._clock.now().wall_ns))

    async def _get_totals(self, scope: Scope) -> Response:
        given = parameters(scope["query_string"], ("since", "until", "by"))
        snapshot = self._daemon.snapshot()
        epoch_ns = snapshot.books.epoch_start_ns if snapshot else 0
        asked = api.totals_query(given, epoch_ns, self._clock.now().wall_ns)
        uid = await self._visible(scope) if asked.by in PRIVATE_GROUPINGS else None
        question = partial(self._daemon.totals, *asked, uid)
        rows = await self._totals.run(question, _TIMEOUT_S)
        return answer(200, api.totals(asked, rows, snapshot))

    # ── jobs: who may see whose ─────────────────────────────────────────────────────────────

    async def _visible(self, scope: Scope) -> int | None:
        """Whose jobs this client may see; None: everybody's.

        Raises:
            Refused: nobody's.
        """
        peer = _peer(scope)
        if peer is not None:
            return None if await self._operators.includes(peer) else peer.uid
        if scope["authenticated"]:
            return None
        raise Refused(_JOBS_PRIVATE)

    async def _get_jobs(self, scope: Scope) -> Response:
        from wattledger_exporters.http import jobs_api

        uid = await self._visible(scope)
        given = parameters(scope["query_string"], jobs_api.PARAMETERS)
        asked = jobs_api.jobs_query(given, self._clock.now().wall_ns, uid)
        question = partial(self._daemon.jobs, jobs_api.with_one_more(asked))
        rows = await self._totals.run(question, _TIMEOUT_S)
        return answer(200, jobs_api.jobs(asked, rows, self._powers()))

    async def _get_job(self, scope: Scope) -> Response:
        from wattledger_exporters.http import jobs_api

        uid = await self._visible(scope)
        parameters(scope["query_string"], ())
        manager, _, job_id = scope["path"].removeprefix(JOB_PATH).partition("/")
        which = jobs_api.job_of_path(manager, job_id)
        detail = await self._totals.run(partial(self._daemon.job, *which, uid), _TIMEOUT_S)
        # Somebody else's job and no job are one answer: who may not see it need not know of it.
        if detail is None:
            hint = "" if uid is None else _NOBODYS
            sentence = f"There is no job {manager}/{job_id[:64]} that you may see."
            return refusal(404, sentence, hint=hint)
        return answer(200, jobs_api.job(manager, job_id, detail, uid, self._site(), self._powers()))

    async def _get_waste(self, scope: Scope) -> Response:
        from wattledger_exporters.http import waste_api

        uid = await self._visible(scope)
        given = parameters(scope["query_string"], waste_api.PARAMETERS)
        asked = waste_api.waste_query(given, self._clock.now().wall_ns)
        found = await self._totals.run(partial(self._daemon.waste, *asked, uid), _TIMEOUT_S)
        return answer(200, waste_api.waste(asked, found, uid, self._site()))

    def _site(self) -> SiteFactors | None:
        snapshot = self._daemon.snapshot()
        return snapshot.site if snapshot is not None else None

    def _powers(self) -> Mapping[JobKey, int]:
        snapshot = self._daemon.snapshot()
        return snapshot.job_power_uw if snapshot is not None else {}

    async def _post_run(self, scope: Scope) -> Response:
        return await self._runs.begin(_peer(scope), scope["query_string"])

    async def _get_run(self, scope: Scope) -> Response:
        peer = _peer(scope)
        uid = await self._visible(scope) if peer is not None else None
        run_id = runs_api.id_of(scope["path"]) or ""
        return await self._runs.show(peer, run_id, uid, scope["query_string"])

    async def _finish_run(self, scope: Scope) -> Response:
        peer = _peer(scope)
        uid = await self._visible(scope) if peer is not None else None
        run_id = runs_api.id_of(scope["path"]) or ""
        return await self._runs.finish(peer, run_id, uid, scope["query_string"])

    async def _post_release(self, scope: Scope) -> Response:
        peer = _peer(scope)
        if peer is None:
            return refusal(403, _UNIX_ONLY)
        if not await self._operators.includes(peer):
            return refusal(403, f"You are uid {peer.uid}. {_UNIX_ONLY}")
        given = parameters(scope["query_string"], ("seconds",))
        seconds = whole_number("seconds", given.get("seconds", str(_RELEASE_S)), _RELEASE_MOST_S)
        release = partial(self._daemon.release, seconds * NS_PER_S)
        return answer(200, {"message": await self._release.run(release, _TIMEOUT_S)})

    async def _get_openapi(self, _scope: Scope) -> Response:
        from wattledger_exporters.http import openapi

        snapshot = self._daemon.snapshot()
        return answer(200, openapi.document(snapshot.version if snapshot else ""))


def _peer(scope: Scope) -> Peer | None:
    peer: Peer | None = scope["state"]["peer"]
    return peer


def _header(scope: Scope, name: bytes) -> bytes:
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return b",".join(value for key, value in headers if key == name)
