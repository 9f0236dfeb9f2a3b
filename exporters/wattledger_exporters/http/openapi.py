"""The OpenAPI document of what the server answers; a test holds its paths equal to the routes."""

from __future__ import annotations

from typing import Any

from wattledger.model.jobs import MANAGERS
from wattledger_exporters import report
from wattledger_exporters.http.jobs_api import MAX_LIMIT, SORTS, STATES

_ERROR = {"$ref": "#/components/responses/Error"}
_EXACT = ("energy_uj", "co2e_ug", "water_onsite_ul", "water_grid_ul", "estimated_uj")


def _get(summary: str, media: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "200": {"description": summary, "content": {media: {"schema": schema}}}
    }
    codes = more.pop("errors", ())
    for code in codes:
        responses[code] = _ERROR
    return {"summary": summary, "responses": responses, **more}


def _query(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _schemas() -> dict[str, Any]:
    text = {"type": "string"}
    columns: dict[str, Any] = {name: {"type": "number"} for name in report.FIELDS}
    columns["group"] = columns["basis"] = text
    for name in _EXACT:
        columns[name] = {"type": "string", "pattern": "^[0-9]+$", "description": "exact integer"}
    row = {"type": "object", "required": list(report.FIELDS), "properties": columns}
    totals = {
        "type": "object",
        "properties": {
            "since": {"type": ["string", "null"], "format": "date-time"},
            "until": {"type": ["string", "null"], "format": "date-time"},
            "by": text,
            "books_complete_until": {"type": ["string", "null"], "format": "date-time"},
            "epoch": {"type": ["string", "null"]},
            "rows": {"type": "array", "items": {"$ref": "#/components/schemas/TotalsRow"}},
            "total": {"$ref": "#/components/schemas/TotalsRow"},
        },
    }
    error = {
        "type": "object",
        "required": ["error"],
        "properties": {"error": text, "hint": text},
    }
    return {"TotalsRow": row, "Totals": totals, **_job_schemas(), "Error": error}


def _job_schemas() -> dict[str, Any]:
    text, number = {"type": "string"}, {"type": "number"}
    instant = {"type": ["string", "null"], "format": "date-time"}
    numbers = {"type": "object", "additionalProperties": number}
    amounts = {
        "type": "object",
        "properties": {
            "energy_kwh": numbers,
            "co2e_g": number,
            "co2e_g_by_basis": numbers,
            "water_l": numbers,
            "held_device_hours": number,
            "held_idle_device_hours": number,
            "held_idle_kwh": number,
            "exact": {
                "type": "object",
                "additionalProperties": {"type": "string", "pattern": "^[0-9]+$"},
            },
        },
    }
    common = {
        "manager": text,
        "job_id": text,
        "state": {"type": "string", "enum": ["running", "ended"]},
        "start": instant,
        "end": instant,
        "uid": {"type": ["integer", "null"]},
        "labels": {"type": "object", "additionalProperties": text},
        "totals": {"$ref": "#/components/schemas/JobAmounts"},
    }
    run = {
        "type": "object",
        "properties": {
            **common,
            "start_ns": text,
            "duration_s": number,
            "devices": {"type": "array", "items": {"type": "object"}},
        },
    }
    runs = {"type": "array", "items": {"$ref": "#/components/schemas/JobRun"}}
    uid = {"type": ["integer", "null"]}
    return {
        "JobAmounts": amounts,
        "JobRun": run,
        "Jobs": {
            "type": "object",
            "properties": {
                "jobs": runs,
                "next_cursor": {"type": ["string", "null"]},
                "restricted_to_uid": uid,
            },
        },
        "Job": {
            "type": "object",
            "properties": {
                **common,
                "estimated_share": number,
                "advice": {"type": "array", "items": text},
                "runs": runs,
                "run_count": {"type": "integer"},
                "timeline_grain_s": {"type": "integer"},
                "timeline": {"type": "array", "items": {"type": "object"}},
                "restricted_to_uid": uid,
            },
        },
    }


def document(version: str) -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    instant = {"type": "string", "examples": ["2027-01-15T08:00:00Z", "1800000000", "24h"]}
    obj: dict[str, Any] = {"type": "object"}
    healthy = _get("The process serves.", "application/json", obj)
    ready = _get("The books are kept and the page is fresh.", "application/json", obj)
    ready["responses"]["503"] = _ERROR
    paths: dict[str, Any] = {
        "/": {"get": _get("Status page for people.", "text/html", {"type": "string"})},
        "/metrics": {
            "get": _get(
                "Metrics for Prometheus; OpenMetrics where it is asked for.",
                "text/plain",
                {"type": "string"},
                errors=("503",),
            )
        },
        "/healthz": {"get": healthy},
        "/-/healthy": {"get": healthy},
        "/readyz": {"get": ready},
        "/-/ready": {"get": ready},
        "/api/v1/status": {
            "get": _get(
                "Meters, grid, site factors, ledger, devices.",
                "application/json",
                obj,
                errors=("503",),
            )
        },
        "/api/v1/totals": {
            "get": _get(
                "Energy, CO2e and water of the 5-minute slots that begin in [since, until).",
                "application/json",
                {"$ref": "#/components/schemas/Totals"},
                errors=("400", "403", "503"),
                parameters=[
                    _query("since", "first instant; without it the ledger's epoch", instant),
                    _query("until", "last instant, exclusive; without it now", instant),
                    _query("by", "group", {"type": "string", "enum": list(report.GROUPINGS)}),
                ],
            )
        },
        "/api/v1/jobs": {
            "get": _get(
                "Runs of jobs with their totals, newest first. On the Unix socket each user sees "
                "their own, root and the daemon's user all; over TCP for authenticated clients.",
                "application/json",
                {"$ref": "#/components/schemas/Jobs"},
                errors=("400", "403", "503"),
                parameters=[
                    _query("manager", "only its jobs", {"type": "string", "enum": [*MANAGERS]}),
                    _query("user", "only this user's: a name or a uid", {"type": "string"}),
                    _query(
                        "state",
                        "all, running or ended",
                        {"type": "string", "enum": [*STATES], "default": "all"},
                    ),
                    _query("since", "those that ran at or after this instant", instant),
                    _query("until", "those that began before this instant", instant),
                    _query(
                        "sort",
                        "latest start or most energy first",
                        {"type": "string", "enum": [*SORTS], "default": "start"},
                    ),
                    _query(
                        "limit",
                        "at most so many",
                        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 100},
                    ),
                    _query("cursor", "`next_cursor` of the page before", {"type": "string"}),
                ],
            )
        },
        "/api/v1/jobs/{manager}/{job_id}": {
            "get": _get(
                "One job: totals over its runs, the runs, a time line, how well it used its GPUs. "
                "Who may see it: as for /api/v1/jobs.",
                "application/json",
                {"$ref": "#/components/schemas/Job"},
                errors=("400", "403", "404", "503"),
                parameters=[
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                    for name in ("manager", "job_id")
                ],
            )
        },
        "/api/v1/release": {
            "post": _get(
                "Close the GPU driver for a while; on the Unix socket, for root and the daemon's "
                "own user only.",
                "application/json",
                obj,
                errors=("400", "403", "503"),
                parameters=[
                    _query(
                        "seconds",
                        "for how long; 0 takes it up again now",
                        {"type": "integer", "minimum": 0, "maximum": 86400, "default": 900},
                    )
                ],
            )
        },
        "/api/v1/openapi.json": {"get": _get("This document.", "application/json", obj)},
    }
    error = {
        "description": "A sentence that helps.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wattledger",
            "version": version,
            "description": "Energy, carbon and water books of this node. All endpoints but release "
            "are read-only and never reach a meter.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(), "responses": {"Error": error}},
    }
