"""Settling and auditing over the API: what was published since, and whether the books balance.

For operators only: it reads all of the books, whoever they are of, or has others asked.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from wattledger import units
from wattledger.model.settle_report import SettleReport, SettleResult, Verified
from wattledger.ports import Daemon
from wattledger_exporters import report
from wattledger_exporters.http.query import BadRequest, instant_ns, one_of, parameters, whole_number
from wattledger_exporters.http.response import Response, answer
from wattledger_exporters.http.worker import Worker
from wattledger_exporters.when import iso

SETTLE_PATH = "/api/v1/settle"
VERIFY_PATH = "/api/v1/verify"
AUDIT_PATH = "/api/v1/audit"
MAX_DAYS = 366
WAIT_S = 20.0
MAX_RECORDS = 2000
VIEWS = ("records", "slots")
"""The records that anybody can recompute; or each entry whole, with its prices and its payee."""
_TIMEOUT_S = 60.0
_CURSOR_CHARS = 512
_NO_CURSOR = "The cursor is not one that this server gave."


class SettleApi:
    """The handlers; who may ask is for the caller to see to."""

    def __init__(self, daemon: Daemon, wait_s: float = WAIT_S) -> None:
        """Args: daemon: whose books. wait_s: how long an answer may wait for the settling."""
        self._daemon = daemon
        self._wait_s = wait_s
        self._settling = Worker("wattledger-settle", waiting=4)
        self._auditing = Worker("wattledger-audit", waiting=4)

    def stop(self) -> None:
        """End the threads, without waiting for them."""
        self._settling.stop()
        self._auditing.stop()

    async def settle(self, query: bytes) -> Response:
        """`POST /api/v1/settle`."""
        given = parameters(query, ("days",))
        days = whole_number("days", given["days"], MAX_DAYS) if "days" in given else None
        settle = partial(self._daemon.settle, days, self._wait_s)
        return answer(200, settle_json(await self._settling.run(settle, _TIMEOUT_S)))

    async def verify(self, query: bytes) -> Response:
        """`GET /api/v1/verify`."""
        parameters(query, ())
        return answer(200, verify_json(await self._auditing.run(self._daemon.verify, _TIMEOUT_S)))

    async def audit(self, query: bytes, now_ns: int) -> Response:
        """`GET /api/v1/audit`."""
        asked = audit_query(parameters(query, ("since", "until", "view", "cursor")), now_ns)
        page = partial(self._daemon.audit, *asked, MAX_RECORDS)
        try:
            records, after = await self._auditing.run(page, _TIMEOUT_S)
        except ValueError:
            raise BadRequest(_NO_CURSOR) from None
        return answer(200, audit_json(records, asked, after))


class AuditQuery(NamedTuple):
    """What `/api/v1/audit` was asked for."""

    since_ns: int
    until_ns: int
    after: tuple[int | str, ...] | None


def audit_query(given: Mapping[str, str], now_ns: int) -> AuditQuery:
    """Check the parameters; with a cursor, span and view are those of the first page.

    Raises:
        BadRequest: with a sentence.
    """
    if "cursor" in given:
        try:
            plain = base64.urlsafe_b64decode(given["cursor"][:_CURSOR_CHARS].encode("ascii"))
            since_ns, until_ns, *after = json.loads(plain)
        except (ValueError, TypeError, binascii.Error, RecursionError):
            raise BadRequest(_NO_CURSOR) from None
        whole = all(isinstance(part, int) for part in (since_ns, until_ns))
        if not whole or not after or not all(_is_key(part) for part in after):
            raise BadRequest(_NO_CURSOR)
        return AuditQuery(since_ns, until_ns, tuple(after))
    since_ns = instant_ns("since", given["since"], now_ns) if "since" in given else 0
    until_ns = instant_ns("until", given["until"], now_ns) if "until" in given else 2**62
    view = one_of("view", given.get("view", VIEWS[0]), VIEWS)
    return AuditQuery(since_ns, until_ns, None if view == VIEWS[0] else (view,))


def _is_key(value: object) -> bool:
    """What SQLite can be asked with."""
    if isinstance(value, str):
        return value.isascii() and "\0" not in value
    return isinstance(value, int) and not isinstance(value, bool) and -1 <= value < 2**63


def audit_json(
    records: list[dict[str, Any]], asked: AuditQuery, after: tuple[int | str, ...] | None
) -> dict[str, Any]:
    """The answer of `/api/v1/audit`."""
    cursor = None
    if after is not None:
        text = json.dumps([asked.since_ns, asked.until_ns, *after])
        cursor = base64.urlsafe_b64encode(text.encode()).decode()
    return {"records": records, "next_cursor": cursor}


def verify_json(verified: Verified) -> dict[str, Any]:
    """The answer of `/api/v1/verify`."""
    return {
        "balanced": not verified.found,
        "count": verified.found,
        "differences": list(verified.differences),
    }


def settle_json(result: SettleResult) -> dict[str, Any]:
    """The answer of `/api/v1/settle`."""
    found = result.report
    return {
        "finished": result.finished,
        "message": result.message or None,
        "report": None if found is None else _report(found),
    }


def _report(found: SettleReport) -> dict[str, Any]:
    return {
        "since": iso(found.since_ns),
        "until": iso(found.until_ns),
        "changed_slots": found.changed_slots,
        "unpublished_kwh": units.kwh(found.unpublished_uj),
        "other_basis_kwh": units.kwh(found.other_basis_uj),
        "total": report.row_dict(found.total),
        "sources": list(found.sources),
        "problems": [{"source": name, "message": text} for name, text in found.problems],
    }
