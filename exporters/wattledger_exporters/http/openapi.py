"""The OpenAPI document of what the server answers; a test holds its paths equal to the routes."""

from __future__ import annotations

from typing import Any

from wattledger_exporters import report

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
    return {"TotalsRow": row, "Totals": totals, "Error": error}


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
                errors=("400", "503"),
                parameters=[
                    _query("since", "first instant; without it the ledger's epoch", instant),
                    _query("until", "last instant, exclusive; without it now", instant),
                    _query("by", "group", {"type": "string", "enum": list(report.GROUPINGS)}),
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
