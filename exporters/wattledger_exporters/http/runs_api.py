"""`/api/v1/runs`: a process asks to be measured, and for its receipt. On the Unix socket only.

Who asks is what the kernel says (SO_PEERCRED): the process at the other end is the root of what is
measured, and nobody can name another one.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any

from wattledger.errors import RunRefused
from wattledger.model import SiteFactors
from wattledger.model.running import RunRequest, RunResult, RunTicket
from wattledger.ports import Daemon
from wattledger_exporters.http.connection import Peer
from wattledger_exporters.http.query import BadRequest, parameters, whole_number
from wattledger_exporters.http.response import RETRY, Response, answer, refusal
from wattledger_exporters.http.worker import Worker
from wattledger_exporters.when import iso

PATH = "/api/v1/runs"
RUN_PATH = PATH + "/{id}"
FINISH_PATH = PATH + "/{id}/finish"
FINISH_S = 2.5
MAX_GPUS = 64
_BEGIN_S = 5.0
_PAUSE_S = 0.02
MAX_EXIT_CODE = 255
_ID = re.compile(r"[0-9a-f]{1,32}", re.ASCII)
_UNIX_ONLY = (
    "Commands are measured over the daemon's Unix socket only, which tells whose they are; "
    "run `wattledger run -- COMMAND`."
)
_STATUS = {
    "off": 403,
    "namespace": 403,
    "gone": 403,
    "gpu": 409,
    "too_many": 429,
    "starting": 503,
    "unknown": 404,
}


class RunsApi:
    """The handlers; `uid` is whose commands the client may end and see, None: everybody's."""

    def __init__(self, daemon: Daemon, finish_s: float = FINISH_S) -> None:
        """Args: daemon: which measures. finish_s: how long a receipt may wait for the meters."""
        self._daemon = daemon
        self._finish_s = finish_s
        self._worker = Worker("wattledger-runs", waiting=32)

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._worker.stop()

    async def begin(self, peer: Peer | None, query: bytes) -> Response:
        """`POST /api/v1/runs`."""
        if peer is None:
            return refusal(403, _UNIX_ONLY)
        given = parameters(query, ("name", "gpus"))
        gpus = tuple(part.strip() for part in given.get("gpus", "").split(",") if part.strip())
        if len(gpus) > MAX_GPUS:
            raise BadRequest(f"gpus names more than {MAX_GPUS} GPUs.")
        request = RunRequest(peer.pid, peer.uid, given.get("name", ""), gpus)
        try:
            ticket = await self._worker.run(partial(self._daemon.begin_run, request), _BEGIN_S)
        except RunRefused as error:
            return _refused(error)
        return answer(201, begun(ticket))

    async def finish(
        self, peer: Peer | None, run_id: str, uid: int | None, query: bytes
    ) -> Response:
        """`POST /api/v1/runs/{id}/finish`."""
        if peer is None:
            return refusal(403, _UNIX_ONLY)
        given = parameters(query, ("exit_code",))
        code = given.get("exit_code")
        exit_code = whole_number("exit_code", code, MAX_EXIT_CODE) if code is not None else None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._finish_s
        try:
            while True:
                late = loop.time() >= deadline
                result = self._daemon.finish_run(_id(run_id), uid, exit_code, at_once=late)
                if result is not None:
                    return answer(200, self._receipt(result))
                await asyncio.sleep(_PAUSE_S)
        except RunRefused as error:
            return _refused(error)

    async def show(self, peer: Peer | None, run_id: str, uid: int | None, query: bytes) -> Response:
        """`GET /api/v1/runs/{id}`."""
        if peer is None:
            return refusal(403, _UNIX_ONLY)
        parameters(query, ())
        try:
            return answer(200, self._receipt(self._daemon.run_result(_id(run_id), uid)))
        except RunRefused as error:
            return _refused(error)

    def _receipt(self, result: RunResult) -> dict[str, Any]:
        from wattledger_exporters.receipts import receipt_json  # see `app`

        snapshot = self._daemon.snapshot()
        site: SiteFactors | None = snapshot.site if snapshot is not None else None
        return receipt_json(
            result.receipt,
            exit_code=result.exit_code,
            complete=None if result.complete else False,
            water_stress_factor=site.water_stress_factor if site is not None else None,
            simulated=snapshot.simulated if snapshot is not None else "",
        )


def begun(ticket: RunTicket) -> dict[str, Any]:
    """The answer to `POST /api/v1/runs`."""
    return {
        "id": ticket.payee.job_id,
        "start": iso(ticket.payee.start_ns),
        "start_ns": str(ticket.payee.start_ns),
        "step_of": ticket.step_of._asdict() if ticket.step_of is not None else None,
        "gpus": list(ticket.gpus),
    }


def id_of(path: str) -> str | None:
    """The run's id in a path below `PATH`; None: it is no such path."""
    if not path.startswith(PATH + "/"):
        return None
    return path.removeprefix(PATH + "/").removesuffix("/finish")


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise RunRefused("unknown", f"there is no run {text[:64]!r}")
    return text


def _refused(error: RunRefused) -> Response:
    status = _STATUS[error.reason]
    retry = RETRY if status in (429, 503) else ()
    sentence = f"{error.message[:1].upper()}{error.message[1:]}."
    return refusal(status, sentence, *retry, hint=error.hint)
