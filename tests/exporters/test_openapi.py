"""The OpenAPI document, held to what the server really answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import snapshots
from asking import ALICE, BOB, Asker
from schema_check import faults, resolved
from wattledger.model import Fault, SourceStatus
from wattledger_exporters.http import openapi

DOCUMENT = json.loads(json.dumps(openapi.document("0.1.0")))
METHODS = {"get", "post"}
ANSWERS = (
    ("/healthz", "/healthz"),
    ("/-/healthy", "/-/healthy"),
    ("/livez", "/livez"),
    ("/readyz", "/readyz"),
    ("/-/ready", "/-/ready"),
    ("/api/v1/openapi.json", "/api/v1/openapi.json"),
    ("/api/v1/status", "/api/v1/status"),
    ("/api/v1/totals", "/api/v1/totals"),
    ("/api/v1/totals", "/api/v1/totals?by=user&since=2026-01-01&until=1800000000"),
    ("/api/v1/jobs", "/api/v1/jobs?limit=2&sort=energy&order=asc"),
    ("/api/v1/jobs/{manager}/{job_id}", "/api/v1/jobs/slurm/4711"),
    ("/api/v1/jobs/{manager}/{job_id}", "/api/v1/jobs/slurm/4712"),
    ("/api/v1/waste", "/api/v1/waste?by=account&since=30d"),
)
REFUSALS = (
    ("/api/v1/totals", "/api/v1/totals?by=moon", ALICE, 400),
    ("/api/v1/totals", "/api/v1/totals?by=job", None, 403),
    ("/api/v1/jobs", "/api/v1/jobs?sort=name", ALICE, 400),
    ("/api/v1/jobs", "/api/v1/jobs", None, 403),
    ("/api/v1/jobs/{manager}/{job_id}", "/api/v1/jobs/moon/1", ALICE, 400),
    ("/api/v1/jobs/{manager}/{job_id}", "/api/v1/jobs/slurm/4711", None, 403),
    ("/api/v1/jobs/{manager}/{job_id}", "/api/v1/jobs/slurm/4711", BOB, 404),
    ("/api/v1/waste", "/api/v1/waste?by=moon", ALICE, 400),
    ("/api/v1/waste", "/api/v1/waste", None, 403),
    ("/api/v1/status", "/api/v1/status?x=1", ALICE, 400),
)


def response(path: str, status: int, method: str = "get") -> Any:
    """The schema of what a path answers with a status, and no other status."""
    documented = DOCUMENT["paths"][path][method]["responses"][str(status)]
    if "$ref" in documented:
        documented = resolved(documented["$ref"], DOCUMENT)
    return documented["content"]["application/json"]["schema"]


def check(body: Any, path: str, status: int, method: str = "get") -> None:
    assert list(faults(body, response(path, status, method), DOCUMENT)) == []


@pytest.fixture
def asker() -> Asker:
    asker = Asker()
    priced = replace(snapshots.with_jobs().site, price_per_kwh=0.25, currency="EUR")
    site = replace(priced, water_stress_factor=2.5)
    told = (SourceStatus("open_meteo", {"ok": 3}, 5), SourceStatus("live_pue", {"timeout": 1}))
    fault = Fault("kubelet", "timeout", "the kubelet does not answer", "look at it")
    asker.daemon.cost_u_per_kwh, asker.daemon.currency = 250_000, "EUR"
    asker.daemon.state = snapshots.with_jobs(site=site, claim_faults=(fault,), site_sources=told)
    return asker


@pytest.mark.parametrize(("path", "asked"), ANSWERS)
@pytest.mark.parametrize("priced", [True, False])
def test_what_is_answered(asker: Asker, path: str, asked: str, priced: bool) -> None:
    if not priced:
        asker.daemon.cost_u_per_kwh = None
        asker.daemon.state = snapshots.with_jobs()
    if path.endswith(("ready", "readyz")):
        asker.publish()
    status, body = asker.ask(asked, 0)
    assert status == 200, body
    check(body, path, 200)


@pytest.mark.parametrize(("path", "asked", "uid", "expected"), REFUSALS)
def test_what_is_refused(
    asker: Asker, path: str, asked: str, uid: int | None, expected: int
) -> None:
    status, body = asker.ask(asked, uid)
    assert status == expected
    check(body, path, status)


def test_before_the_first_commit(asker: Asker) -> None:
    asker.daemon.state = None
    for path in ("/readyz", "/api/v1/status"):
        status, body = asker.ask(path, 0)
        assert status == 503
        check(body, path, 503)


def test_release_and_runs(asker: Asker) -> None:
    status, body = asker.ask("/api/v1/release?seconds=60", 0, method="POST")
    assert status == 200
    check(body, "/api/v1/release", 200, "post")
    status, body = asker.ask("/api/v1/release", ALICE, method="POST")
    assert status == 403
    check(body, "/api/v1/release", 403, "post")
    status, body = asker.ask("/api/v1/runs?name=train", ALICE, method="POST")
    assert status == 201
    check(body, "/api/v1/runs", 201, "post")
    status, body = asker.ask(f"/api/v1/runs/{body['id']}", ALICE)
    assert status == 200
    check(body, "/api/v1/runs/{id}", 200)


def nodes(value: Any) -> Iterator[Any]:
    yield value
    for inner in value.values() if isinstance(value, dict) else ():
        yield from nodes(inner)
    for inner in value if isinstance(value, list) else ():
        yield from nodes(inner)


def test_the_document_is_whole() -> None:
    """Every reference leads somewhere, every schema is used, every parameter of a path is there."""
    used = {node["$ref"] for node in nodes(DOCUMENT) if isinstance(node, dict) and "$ref" in node}
    assert all(resolved(reference, DOCUMENT) for reference in used)
    schemas = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert schemas <= used
    for path, operations in DOCUMENT["paths"].items():
        assert operations.keys() <= METHODS
        for operation in operations.values():
            assert operation["summary"].endswith(".")
            given = operation.get("parameters", [])
            names = [one["name"] for one in given if one["in"] == "path"]
            assert names == [part[1:-1] for part in path.split("/") if part[:1] == "{"]
            assert all(one["required"] for one in given if one["in"] == "path")
            for one in given:
                if "default" in one["schema"]:
                    fits = faults(one["schema"]["default"], one["schema"], DOCUMENT)
                    assert list(fits) == []


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/totals", "/api/v1/waste"])
def test_the_parameters_are_those_that_are_taken(asker: Asker, path: str) -> None:
    documented = [one["name"] for one in DOCUMENT["paths"][path]["get"]["parameters"]]
    status, body = asker.ask(f"{path}?nonsense=1", 0)
    assert status == 400
    assert sorted(body["error"].rpartition(": ")[2].rstrip(".").split(", ")) == sorted(documented)


def test_the_checker_finds_what_is_wrong() -> None:
    row = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    strict = {**row, "additionalProperties": False}
    assert list(faults({"a": 1}, strict, {})) == []
    for value in ({}, {"a": True}, {"a": 1.5}, {"a": 1, "b": 2}, [], None, {"a": "1"}):
        assert list(faults(value, strict, {})), value
    assert list(faults("x", {"type": "string", "pattern": "^[0-9]+$"}, {}))
    assert list(faults("xx", {"type": "string", "maxLength": 1}, {}))
    assert list(faults("2027-01-15T08:00:00", {"type": "string", "format": "date-time"}, {}))
    assert list(faults("2027-02-30", {"type": "string", "format": "date"}, {}))
    assert list(faults(2, {"type": "number", "maximum": 1}, {}))
    assert list(faults([1, "2"], {"type": "array", "items": {"type": "integer"}}, {}))
    assert list(faults(3, {"anyOf": [{"type": "string"}, {"type": "null"}]}, {}))
