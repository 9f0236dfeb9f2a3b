"""The OpenAPI document of what the server answers; tests hold it equal to routes and answers."""

from __future__ import annotations

from typing import Any

from wattledger.model.jobbooks import JOB_SORTS
from wattledger.model.jobs import MANAGERS
from wattledger_exporters import report
from wattledger_exporters.http import restate_api, runs_api, settle_api, waste_api
from wattledger_exporters.http.jobs_api import (
    DEFAULT_LIMIT,
    MAX_ID_CHARS,
    MAX_LIMIT,
    MAX_TEXT_CHARS,
    ORDERS,
    STATES,
)
from wattledger_exporters.http.schemas import schemas
from wattledger_exporters.http.schemas.terms import TEXT, choice, ref

_JSON = "application/json"
_WHO = (
    "On the Unix socket each user sees their own; root, the daemon's user and members of "
    "http.operators_group see all; over TCP for authenticated clients."
)


def operation(summary: str, media: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What a path answers to one method.

    Args:
        summary: in a sentence or two.
        media: of the answer.
        schema: of the answer.
        more: `errors`: the codes of refusals; `code` of the answer; `parameters` and other fields.
    """
    code = more.pop("code", "200")
    responses: dict[str, Any] = {
        code: {"description": summary, "content": {media: {"schema": schema}}}
    }
    for error in more.pop("errors", ()):
        responses[error] = {"$ref": "#/components/responses/Error"}
    return {"summary": summary, "responses": responses, **more}


def query(
    name: str, text: str, schema: dict[str, Any], *, required: bool = False
) -> dict[str, Any]:
    """A parameter of the query."""
    parameter = {"name": name, "in": "query", "description": text, "schema": schema}
    return {**parameter, "required": True} if required else parameter


_SINCE_1970 = "^(19[7-9][0-9]|[2-9][0-9]{3})-"
_INSTANT = {
    "type": "string",
    "description": "RFC 3339, a UTC date, Unix seconds, or how long ago",
    "anyOf": [
        {"format": "date-time", "pattern": _SINCE_1970},
        {"format": "date", "pattern": _SINCE_1970},
        {"pattern": r"^[0-9]{1,11}(\.[0-9]{1,9})?$"},
        {"pattern": r"^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d)){1,5}$"},
    ],
    "examples": ["2027-01-15T08:00:00Z", "2027-01-15", "1800000000", "24h"],
}
_MADE_AT = {"type": "integer", "minimum": 0, "description": "within the last day"}
_HOUR = {**_INSTANT, "description": f"{_INSTANT['description']}; on a full hour of UTC"}
_SHORT = {**TEXT, "maxLength": MAX_TEXT_CHARS}
_JOB_ID = {**TEXT, "minLength": 1, "maxLength": MAX_ID_CHARS, "pattern": "^[^\\u0000]+$"}
_CURSOR = {**TEXT, "pattern": "^[A-Za-z0-9_=-]+$"}


def document(version: str) -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    error = {
        "description": "A sentence that helps.",
        "content": {_JSON: {"schema": ref("Error")}},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wattledger",
            "version": version,
            "description": "Energy, carbon and water books of this node. No endpoint waits for a "
            "meter.",
        },
        "paths": {**_pages(), **_node(), **_jobs(), **_actions()},
        "components": {"schemas": schemas(), "responses": {"Error": error}},
    }


def _pages() -> dict[str, Any]:
    healthy = operation("The process serves.", _JSON, ref("Health"))
    live = operation(
        "The sampling loop turns, or has not begun to: a check of the ledger may take minutes.",
        _JSON,
        ref("Health"),
        errors=("503",),
    )
    ready = operation(
        "The books are kept and the page is fresh.", _JSON, ref("Ready"), errors=("503",)
    )
    return {
        "/": {"get": operation("Status page for people.", "text/html", TEXT, errors=("403",))},
        "/metrics": {
            "get": operation(
                "Metrics for Prometheus; OpenMetrics where it is asked for.",
                "text/plain",
                TEXT,
                errors=("403", "503"),
            )
        },
        "/healthz": {"get": healthy},
        "/-/healthy": {"get": healthy},
        "/livez": {"get": live},
        "/readyz": {"get": ready},
        "/-/ready": {"get": ready},
        "/api/v1/openapi.json": {"get": operation("This document.", _JSON, {"type": "object"})},
    }


def _node() -> dict[str, Any]:
    return {
        "/api/v1/status": {
            "get": operation(
                "Meters, grid, site factors, ledger, devices.",
                _JSON,
                ref("Status"),
                errors=("400", "503"),
            )
        },
        "/api/v1/totals": {
            "get": operation(
                "Energy, CO2e and water of the 5-minute slots that begin in [since, until). By job "
                f"and by user: {_WHO[0].lower()}{_WHO[1:]}",
                _JSON,
                ref("Totals"),
                errors=("400", "403", "503"),
                parameters=[
                    query("since", "first instant; without it the ledger's epoch", _INSTANT),
                    query("until", "last instant, exclusive; without it now", _INSTANT),
                    query("by", "group", {**choice(*report.GROUPINGS), "default": "all"}),
                ],
            )
        },
    }


def _jobs() -> dict[str, Any]:
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
    return {
        "/api/v1/jobs": {
            "get": operation(
                f"Runs of jobs with their totals. {_WHO}",
                _JSON,
                ref("Jobs"),
                errors=("400", "403", "503"),
                parameters=[
                    query("manager", "only its jobs", choice(*MANAGERS)),
                    query("user", "only this user's: a name or a uid", _SHORT),
                    query("account", "only those of this account", _SHORT),
                    query("name", "only those with this name; *, ? and […] as in files", _SHORT),
                    query("state", "which", {**choice(*STATES), "default": "all"}),
                    query("since", "those that ran at or after this instant", _INSTANT),
                    query("until", "those that began before this instant", _INSTANT),
                    query("sort", "by what", {**choice(*JOB_SORTS), "default": "start"}),
                    query(
                        "order",
                        "latest and most first, or earliest and least",
                        {**choice(*ORDERS), "default": "desc"},
                    ),
                    query("limit", "at most so many", limit),
                    query(
                        "cursor",
                        "`next_cursor` of the page before; sort, order and filters as before. By "
                        "start no run is left out or shown twice; by an amount one that grows "
                        "meanwhile may change its place.",
                        _CURSOR,
                    ),
                ],
            )
        },
        "/api/v1/jobs/{manager}/{job_id}": {
            "get": operation(
                "One job: totals over its runs, the runs, a time line, what it cost, how well it "
                f"used its GPUs. {_WHO} An id that several used is shown to each with their own "
                "runs; a run whose owner the node never learnt, to operators only.",
                _JSON,
                ref("Job"),
                errors=("400", "403", "404", "503"),
                parameters=[
                    {
                        "name": "manager",
                        "in": "path",
                        "required": True,
                        "schema": choice(*MANAGERS),
                    },
                    {"name": "job_id", "in": "path", "required": True, "schema": _JOB_ID},
                ],
            )
        },
        "/api/v1/waste": {
            "get": operation(
                "GPU time, energy and money that was held without use in the 5-minute slots that "
                "begin in [since, until), the worst first. `idle` is what GPUs used that nobody "
                f"held: nobody's line, and in no sum. {_WHO}",
                _JSON,
                ref("Waste"),
                errors=("400", "403", "503"),
                parameters=[
                    query(
                        "since",
                        "first instant",
                        {**_INSTANT, "default": waste_api.DEFAULT_SINCE},
                    ),
                    query("until", "last instant, exclusive; without it now", _INSTANT),
                    query("by", "group", {**choice(*waste_api.BY), "default": "user"}),
                ],
            )
        },
    }


def _runs() -> dict[str, Any]:
    run_id = {"name": "id", "in": "path", "required": True, "schema": TEXT}
    exit_code = {"type": "integer", "minimum": 0, "maximum": runs_api.MAX_EXIT_CODE}
    return {
        runs_api.PATH: {
            "post": operation(
                "Measure the process at the other end of the Unix socket, with all its "
                "descendants, until it ends or says so.",
                _JSON,
                ref("Run"),
                code="201",
                errors=("400", "403", "409", "429", "503"),
                parameters=[
                    query("name", "what you call it", TEXT),
                    query("gpus", "numbers or UUIDs of GPUs to claim for it, with commas", TEXT),
                ],
            )
        },
        runs_api.RUN_PATH: {
            "get": operation(
                "What a command of yours has cost so far; on the Unix socket.",
                _JSON,
                ref("Receipt"),
                errors=("400", "403", "404"),
                parameters=[run_id],
            )
        },
        runs_api.FINISH_PATH: {
            "post": operation(
                "A command of yours has ended: its receipt, once all is booked up to now; on the "
                "Unix socket. Asked again within some minutes, the same receipt.",
                _JSON,
                ref("Receipt"),
                errors=("400", "403", "404"),
                parameters=[run_id, query("exit_code", "of the command", exit_code)],
            )
        },
    }


def _books() -> dict[str, Any]:
    days = {"type": "integer", "minimum": 0, "maximum": settle_api.MAX_DAYS}
    said = {"type": "string", "maxLength": restate_api.TEXT_CHARS, "pattern": r"\S"}
    who = "On the Unix socket, for root, the daemon's own user and members of http.operators_group."
    return {
        settle_api.SETTLE_PATH: {
            "post": operation(
                "Settle the past by what its sources have published since; what was booked stays. "
                f"Answers when it is done, or unfinished after a while: ask again. {who}",
                _JSON,
                ref("Settling"),
                errors=("400", "403", "503"),
                parameters=[query("days", "how far back; without it grid.settle_window", days)],
            )
        },
        restate_api.RESTATE_PATH: {
            "get": operation(
                f"Every restatement that was ever made, in that order. {who}",
                _JSON,
                ref("Restatements"),
                errors=("400", "403", "503"),
            ),
            "post": operation(
                "Say what PUE, WUE or EWIF a span of the past had; what was booked stays, and what "
                "is in force already is not recorded again. Answers when all entries have it, or "
                f"unfinished after a while: ask again, with the same made_at_ns. {who}",
                _JSON,
                ref("Restating"),
                errors=("400", "403", "503"),
                parameters=[
                    *(
                        query(
                            name,
                            "what it was; without it, it is left alone",
                            {"type": "number", "minimum": least, "maximum": most},
                        )
                        for name, (_, least, most) in restate_api.FACTORS.items()
                    ),
                    query("since", "the first hour", _HOUR, required=True),
                    query("until", "exclusive; without it from then on", _HOUR),
                    query("author", "who says so", said, required=True),
                    query("reason", "why", said, required=True),
                    query("made_at_ns", "when it was said first, ns since 1970", _MADE_AT),
                ],
            ),
        },
        settle_api.VERIFY_PATH: {
            "get": operation(
                "Recompute every gram and litre from entries and prices, booked and settled, and "
                f"list the first differences, of `count` in all. {who}",
                _JSON,
                ref("Verification"),
                errors=("400", "403", "503"),
            )
        },
        settle_api.AUDIT_PATH: {
            "get": operation(
                "Entries, settlements, histories and prices as records that can be recomputed; or, "
                "in the view `slots`, a record for the books and one for each entry, which holds "
                f"its prices, booked and final, and whose it is. {who}",
                _JSON,
                ref("Audit"),
                errors=("400", "403", "503"),
                parameters=[
                    query("since", "first instant", _INSTANT),
                    query("until", "last instant, exclusive", _INSTANT),
                    query("view", "what is told", {"enum": list(settle_api.VIEWS)}),
                    query("cursor", "`next_cursor` of the page before", _CURSOR),
                ],
            )
        },
    }


def _actions() -> dict[str, Any]:
    seconds = {"type": "integer", "minimum": 0, "maximum": 86400, "default": 900}
    return {
        **_runs(),
        **_books(),
        "/api/v1/release": {
            "post": operation(
                "Close the GPU driver for a while; on the Unix socket, for root, the daemon's own "
                "user and members of http.operators_group.",
                _JSON,
                ref("Message"),
                errors=("400", "403", "503"),
                parameters=[query("seconds", "for how long; 0 takes it up again now", seconds)],
            )
        },
    }
