"""The routes of the daemon: what each path answers.

No handler reaches a meter; what may block runs in a worker thread with a bounded queue.

Scrapers and probes ask the same few paths for years. What answers people and their commands is
imported when one of them asks: on most nodes it would be memory that nobody uses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from wattledger.model import SiteFactors
from wattledger.model.jobs import JobKey
from wattledger.ports import Clock, Daemon
from wattledger.units import NS_PER_S
from wattledger_exporters.http import api, restate_api, runs_api, settle_api
from wattledger_exporters.http.application import (
    READ,
    Application,
    Refused,
    Route,
    Scope,
    has_left,
    header,
    peer_of,
)
from wattledger_exporters.http.negotiate import choose
from wattledger_exporters.http.operators import SYSTEM, Directory, Operators
from wattledger_exporters.http.pages import PageStore
from wattledger_exporters.http.query import parameters, whole_number
from wattledger_exporters.http.response import RETRY, Response, answer, refusal
from wattledger_exporters.http.worker import Worker
from wattledger_exporters.report import PRIVATE_GROUPINGS
from wattledger_exporters.when import iso

if TYPE_CHECKING:
    from wattledger_exporters.web_config import LiveWebConfig

HTML = "text/html; charset=utf-8"
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
_PAGE_PRIVATE = (
    "The web configuration asks who reads this page, which may name everybody's jobs; over the "
    "daemon's Unix socket it is for root, the daemon's own user and members of "
    "http.operators_group. `wattledger jobs` shows you yours."
)
_OPERATORS = (
    "All of the books are for root, the daemon's own user and members of http.operators_group, "
    "over the daemon's Unix socket; run it with sudo."
)
_NOBODYS = "A run whose owner the node never learnt is shown to operators only."


class App(Application):
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
        super().__init__(clock, web)
        self._daemon = daemon
        self._pages = pages
        owner_uid = os.geteuid() if owner_uid is None else owner_uid
        self._operators = Operators(operators_group, clock, owner_uid, directory)
        self._totals = Worker("wattledger-totals", waiting=4)
        self._release = Worker("wattledger-release", waiting=1)
        self._runs = runs_api.RunsApi(daemon)
        self._settle = settle_api.SettleApi(daemon)
        self._restate = restate_api.RestateApi(daemon)
        self.routes = {
            "/metrics": (READ, self._get_metrics),
            "/healthz": (READ, self._get_health),
            "/-/healthy": (READ, self._get_health),
            "/livez": (READ, self._get_live),
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
            settle_api.SETTLE_PATH: (("POST",), self._post_settle),
            restate_api.RESTATE_PATH: (("GET", "HEAD", "POST"), self._restate_or_list),
            settle_api.VERIFY_PATH: (READ, self._get_verify),
            settle_api.AUDIT_PATH: (READ, self._get_audit),
            "/api/v1/release": (("POST",), self._post_release),
            "/api/v1/openapi.json": (READ, self._get_openapi),
        }

    def stop(self) -> None:
        """End the workers, without waiting for them."""
        super().stop()
        workers = (self._totals, self._release, self._operators, self._runs, self._settle)
        for part in (*workers, self._restate):
            part.stop()

    def route(self, path: str) -> Route | None:
        """What answers a path, those with a name in them too."""
        route = super().route(path)
        if route is None and path.startswith(JOB_PATH):
            route = self.routes[JOB_PATH + "{manager}/{job_id}"]
        if route is None and runs_api.id_of(path) is not None:
            ends = path.endswith("/finish")
            route = self.routes[runs_api.FINISH_PATH if ends else runs_api.RUN_PATH]
        return route

    # ── the routes ──────────────────────────────────────────────────────────────────────────

    async def _may_read_pages(self, scope: Scope) -> None:
        """Raises: Refused: a user of the machine gets around what strangers are asked for."""
        peer = peer_of(scope)
        if peer is None or self._web is None or not self._web.current.asks_who:
            return
        if not await self._operators.includes(peer):
            raise Refused(_PAGE_PRIVATE)

    async def _get_metrics(self, scope: Scope) -> Response:
        await self._may_read_pages(scope)
        page, why = self._pages.current()
        if page is None:
            return refusal(503, why, *RETRY)
        chosen = choose(
            header(scope, b"accept").decode("latin-1"),
            header(scope, b"accept-encoding").decode("latin-1"),
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

    async def _get_live(self, _scope: Scope) -> Response:
        # What a supervisor without sd_notify's watchdog should look at: only this is mended by a
        # restart. Books that are not written (a full disk) would lose by it what memory keeps.
        hang = self._pages.hang()
        return refusal(503, hang, *RETRY) if hang else answer(200, {"status": "ok"})

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

    async def _get_page(self, scope: Scope) -> Response:
        from wattledger_exporters.status_page import html_page, security_headers

        await self._may_read_pages(scope)
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
        peer = peer_of(scope)
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
        return answer(200, jobs_api.jobs(asked, rows, self._powers(), self._simulated()))

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
        told = jobs_api.job(
            manager, job_id, detail, uid, self._site(), self._powers(), self._simulated()
        )
        return answer(200, told)

    async def _get_waste(self, scope: Scope) -> Response:
        from wattledger_exporters.http import waste_api

        uid = await self._visible(scope)
        given = parameters(scope["query_string"], waste_api.PARAMETERS)
        asked = waste_api.waste_query(given, self._clock.now().wall_ns)
        found = await self._totals.run(partial(self._daemon.waste, *asked, uid), _TIMEOUT_S)
        return answer(200, waste_api.waste(asked, found, uid, self._simulated()))

    def _site(self) -> SiteFactors | None:
        snapshot = self._daemon.snapshot()
        return snapshot.site if snapshot is not None else None

    def _simulated(self) -> str:
        snapshot = self._daemon.snapshot()
        return snapshot.simulated if snapshot is not None else ""

    def _powers(self) -> Mapping[JobKey, int]:
        snapshot = self._daemon.snapshot()
        return snapshot.job_power_uw if snapshot is not None else {}

    async def _post_run(self, scope: Scope) -> Response:
        return await self._runs.begin(peer_of(scope), scope["query_string"])

    async def _get_run(self, scope: Scope) -> Response:
        peer = peer_of(scope)
        uid = await self._visible(scope) if peer is not None else None
        run_id = runs_api.id_of(scope["path"]) or ""
        return await self._runs.show(peer, run_id, uid, scope["query_string"])

    async def _finish_run(self, scope: Scope) -> Response:
        peer = peer_of(scope)
        uid = await self._visible(scope) if peer is not None else None
        run_id = runs_api.id_of(scope["path"]) or ""
        return await self._runs.finish(peer, run_id, uid, scope["query_string"])

    # ── all of the books: for operators ─────────────────────────────────────────────────────

    async def _operator(self, scope: Scope) -> None:
        """Raises: Refused: it is none, or does not ask over the Unix socket."""
        peer = peer_of(scope)
        if peer is None or not await self._operators.includes(peer):
            raise Refused(_OPERATORS)

    async def _post_settle(self, scope: Scope) -> Response:
        await self._operator(scope)
        return await self._settle.settle(scope["query_string"])

    async def _restate_or_list(self, scope: Scope) -> Response:
        await self._operator(scope)
        if scope["method"] == "POST":
            return await self._restate.restate(scope["query_string"], self._clock.now().wall_ns)
        return await self._restate.listed(scope["query_string"])

    async def _get_verify(self, scope: Scope) -> Response:
        await self._operator(scope)
        return await self._settle.verify(scope["query_string"])

    async def _get_audit(self, scope: Scope) -> Response:
        await self._operator(scope)
        return await self._settle.audit(scope["query_string"], self._clock.now().wall_ns)

    async def _post_release(self, scope: Scope) -> Response:
        peer = peer_of(scope)
        if peer is None:
            return refusal(403, _UNIX_ONLY)
        if not await self._operators.includes(peer):
            return refusal(403, f"You are uid {peer.uid}. {_UNIX_ONLY}")
        given = parameters(scope["query_string"], ("seconds",))
        seconds = whole_number("seconds", given.get("seconds", str(_RELEASE_S)), _RELEASE_MOST_S)
        if has_left(scope):
            # It asked while nobody was there, and gave up: what it stood around is over.
            return refusal(503, "Whoever asked for it has gone.")
        release = partial(self._daemon.release, seconds * NS_PER_S)
        return answer(200, {"message": await self._release.run(release, _TIMEOUT_S)})

    async def _get_openapi(self, _scope: Scope) -> Response:
        from wattledger_exporters.http import openapi

        snapshot = self._daemon.snapshot()
        return answer(200, openapi.document(snapshot.version if snapshot else ""))
