"""Measuring one command or one step: by the daemon where it takes it, directly where none does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wattledger.config import Config
from wattledger.errors import DaemonUnreachable, RunRefused, WattledgerError
from wattledger.model.jobs import RUN, JobKey, JobRun, job_payee
from wattledger.model.receipts import Receipt
from wattledger.remote import Refused, Remote
from wattledger.units import NS_PER_S
from wattledger_exporters.receipts import unknown_receipt
from wattledger_exporters.when import iso

if TYPE_CHECKING:
    from wattledger.direct import Begun

log = logging.getLogger(__name__)

REGISTER_S = 3.0  # how long the daemon may take to answer
FINISH_S = 5.0
PATIENCE_S = 3.0  # with a daemon that is being started again
PAUSE_S = 0.1
WATCH_S = 30.0  # how old what is known may be when the daemon dies
_CONFLICT, _STARTING = 409, 503


class Wanted(NamedTuple):
    """What is to be measured.

    Attributes:
        name: what its user calls it.
        gpus: numbers or UUIDs of GPUs that are claimed for it.
    """

    name: str = ""
    gpus: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, gpus: Sequence[str] = ()) -> Wanted:
        """What somebody typed: bytes that are no UTF-8 (PEP 383) become question marks."""
        return cls(_readable(name), tuple(map(_readable, gpus)))


class Finished(NamedTuple):
    """What came of it.

    Attributes:
        receipt: as `wattledger_exporters.receipts.receipt_json` makes it.
        notes: sentences about how it was measured.
    """

    receipt: Mapping[str, Any]
    notes: tuple[str, ...] = ()


class Metering(Protocol):
    """A command that is being measured."""

    def finish(self, exit_code: int) -> Finished:
        """Its end: measure up to now and give the receipt. Called once; takes seconds at most."""
        ...


def begin(
    wanted: Wanted, config: Config, remote: Remote | None, *, watch: bool = False
) -> Metering:
    """Begin to measure this process and its descendants.

    Args:
        wanted: what, and with which GPUs.
        config: for measuring directly.
        remote: the daemon to ask first; None: measure directly.
        watch: ask the daemon now and then, so that something is known if it dies.

    Raises:
        RunRefused: a GPU is not the caller's to claim.
        WattledgerError: it cannot be measured directly either.
    """
    why = ""
    if remote is not None:
        try:
            return _begin_by_daemon(wanted, remote, watch)
        except DaemonUnreachable as error:
            log.debug("measured directly: %s", error.message)
        except Refused as error:
            if error.status == _CONFLICT:
                raise RunRefused("gpu", error.message, error.hint) from error
            why = f"The daemon did not take it: {_sentence(error)}"
        except (KeyError, TypeError, ValueError) as error:
            why = f"The daemon answered what this version does not understand: {error!r}."
    from wattledger.direct import begin_directly

    return _Direct(begin_directly(wanted.name, wanted.gpus, config), why)


class _Direct:
    """A command that this process measures."""

    def __init__(self, begun: Begun, note: str) -> None:
        self._begun = begun
        self._note = note

    def finish(self, exit_code: int) -> Finished:
        """See `Metering`."""
        receipt, troubles = self._begun.finish(exit_code)
        return Finished(receipt, (*troubles, self._note) if self._note else troubles)


class Unmeasured:
    """A command that could not be measured, and is run all the same."""

    def __init__(self, name: str, why: str) -> None:
        self._run = _record(name, "", time.time_ns())
        self._why = why

    def finish(self, exit_code: int) -> Finished:
        """See `Metering`."""
        return Finished(_unknown(self._run, None, exit_code, "direct"), (self._why,))


# ── by the daemon ───────────────────────────────────────────────────────────────────────────────


def _begin_by_daemon(wanted: Wanted, remote: Remote, watch: bool) -> Metering:
    query = {"name": wanted.name}
    if wanted.gpus:
        query["gpus"] = ",".join(wanted.gpus)
    answer = _patiently(
        lambda: remote.request("/api/v1/runs", query, "POST", REGISTER_S),
        lambda error: isinstance(error, Refused) and error.status == _STARTING,
    )
    return _ByDaemon(wanted.name, answer, remote, watch)


def _patiently(ask: Callable[[], Any], again: Callable[[WattledgerError], bool]) -> Any:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except WattledgerError as error:
            if time.monotonic() >= deadline_s or not again(error):
                raise
        time.sleep(PAUSE_S)


class _ByDaemon:
    """A command that the daemon measures."""

    def __init__(self, name: str, answer: Mapping[str, Any], remote: Remote, watch: bool) -> None:
        self._remote = remote
        self._run = _record(name, str(answer["id"]), int(answer["start_ns"]))
        step_of = answer.get("step_of")
        self._step_of = JobKey(**step_of) if step_of else None
        self._path = f"/api/v1/runs/{self._run.payee.job_id}"
        self._last: Mapping[str, Any] | None = None
        self._last_s = 0.0
        self._over = threading.Event()
        if watch:
            threading.Thread(target=self._watch, name="receipt", daemon=True).start()

    def _watch(self) -> None:
        while not self._over.wait(WATCH_S):
            try:
                last = self._remote.request(self._path, timeout_s=FINISH_S)
            except WattledgerError as error:
                log.debug("the daemon does not say what it has measured: %s", error.message)
            else:
                self._last, self._last_s = last, time.monotonic()

    def finish(self, exit_code: int) -> Finished:
        """See `Metering`."""
        self._over.set()
        query = {"exit_code": str(exit_code)}
        try:
            receipt = _patiently(
                lambda: self._remote.request(f"{self._path}/finish", query, "POST", FINISH_S),
                lambda error: (
                    isinstance(error, DaemonUnreachable)
                    or (isinstance(error, Refused) and error.status == _STARTING)
                ),
            )
        except WattledgerError as error:
            return self._without_daemon(exit_code, error)
        return Finished({**receipt, "exit_code": exit_code})

    def _without_daemon(self, exit_code: int, error: WattledgerError) -> Finished:
        """What can be given all the same."""
        later = f"`wattledger job run/{self._run.payee.job_id}` tells it once the daemon runs."
        if self._step_of is not None:
            later = "What it used is in its job's books."
        gone = f"The daemon that measured it gives no receipt: {_sentence(error)}"
        if self._last is None:
            unknown = _unknown(self._run, self._step_of, exit_code, "daemon")
            return Finished(unknown, (gone, later))
        now_ns = time.time_ns()
        ended = {
            "exit_code": exit_code,
            "end": iso(now_ns),
            "duration_s": (now_ns - self._run.payee.start_ns) / NS_PER_S,
            "complete": False,
        }
        age_s = time.monotonic() - self._last_s
        known = f"This is what it had measured {age_s:.0f} s before the end. {later}"
        return Finished({**self._last, **ended}, (gone, known))


def _readable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _sentence(error: WattledgerError) -> str:
    return error.message.rstrip(".") + "."


def _record(name: str, run_id: str, start_ns: int) -> JobRun:
    return JobRun(job_payee(RUN, run_id, start_ns), labels={"name": name} if name else {})


def _unknown(
    run: JobRun, step_of: JobKey | None, exit_code: int, measured_by: str
) -> dict[str, Any]:
    ended = Receipt(replace(run, end_ns=time.time_ns()), step_of)
    return unknown_receipt(ended, measured_by=measured_by, exit_code=exit_code)
