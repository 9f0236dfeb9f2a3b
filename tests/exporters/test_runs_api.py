"""`/api/v1/runs`: who registers what, and what is answered."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from typing import Any

import pytest

import snapshots
from asking import ALICE, BOB, DAEMON, Asker
from schema_check import faults, resolved
from serving import Served
from wattledger.errors import RunRefused
from wattledger.model.running import RunRequest
from wattledger_exporters.http import openapi
from wattledger_exporters.http.connection import Peer
from wattledger_exporters.http.runs_api import FINISH_PATH, PATH, RUN_PATH, RunsApi

DOCUMENT = json.loads(json.dumps(openapi.document("0.1.0")))


@pytest.fixture
def asker() -> Asker:
    return Asker()


def post(asker: Asker, path: str, uid: int | None = ALICE) -> tuple[int, Any]:
    return asker.ask(path, uid, method="POST")


def check(body: Any, path: str, method: str, status: int) -> None:
    documented = DOCUMENT["paths"][path][method]["responses"][str(status)]
    if "$ref" in documented:
        documented = resolved(documented["$ref"], DOCUMENT)
    schema = documented["content"]["application/json"]["schema"]
    assert list(faults(body, schema, DOCUMENT)) == []


def test_the_process_that_asks_is_what_is_measured(served: Served) -> None:
    """Over the real socket: the kernel says who it is, and the request cannot."""
    assert served.unix is not None
    reply = served.unix.request("/api/v1/runs?name=a%20b&gpus=0,%201,GPU-x", "POST")
    assert reply.status == 201
    request = RunRequest(os.getpid(), os.geteuid(), "a b", ("0", "1", "GPU-x"))
    assert served.daemon.begun == [request]
    refused = served.unix.request("/api/v1/runs?pid=1", "POST")
    assert refused.status == 400 and len(served.daemon.begun) == 1
    assert served.tcp.request("/api/v1/runs", "POST").status == 403


def test_a_command_begins_is_looked_at_and_ends(asker: Asker) -> None:
    site = replace(snapshots.with_jobs().site, price_per_kwh=0.25, currency="EUR")
    asker.daemon.state = snapshots.with_jobs(site=site)
    status, begun = post(asker, "/api/v1/runs?name=train")
    assert status == 201
    check(begun, PATH, "post", 201)
    assert begun["id"] == "1" and begun["start_ns"].isdigit() and begun["step_of"] is None

    status, so_far = asker.ask("/api/v1/runs/1", ALICE)
    assert status == 200 and so_far["exit_code"] is None and so_far["end"] is None
    check(so_far, RUN_PATH, "get", 200)

    status, receipt = post(asker, "/api/v1/runs/1/finish?exit_code=3")
    assert status == 200 and asker.daemon.finish_asked == 3  # asked until it was booked
    check(receipt, FINISH_PATH, "post", 200)
    assert (receipt["exit_code"], receipt["complete"], receipt["name"]) == (3, True, "train")
    assert (receipt["cost"], receipt["costs"]) == (None, [])  # nothing was booked for it


def test_an_answer_comes_even_if_a_meter_does_not(asker: Asker) -> None:
    asker.daemon.finish_after = 10**9
    post(asker, "/api/v1/runs")
    hasty = RunsApi(asker.daemon, finish_s=0.05)
    response = asyncio.run(hasty.finish(Peer(1, ALICE, ALICE), "1", ALICE, b""))
    assert response.status == 200 and json.loads(response.body)["complete"] is False


def test_somebody_elses_command_is_as_good_as_none(asker: Asker) -> None:
    post(asker, "/api/v1/runs")
    for path, method in (("/api/v1/runs/1", "GET"), ("/api/v1/runs/1/finish", "POST")):
        status, body = asker.ask(path, BOB, method=method)
        assert status == 404
        other = asker.ask(path.replace("1", "2", 2).replace("v2", "v1"), BOB, method=method)
        assert other[0] == 404 and other[1]["error"].replace("2", "1") == body["error"]
    for operator in (0, DAEMON):
        assert asker.ask("/api/v1/runs/1", operator)[0] == 200


@pytest.mark.parametrize("path", ["/api/v1/runs", "/api/v1/runs/1/finish"])
def test_over_tcp_nobody_registers(asker: Asker, path: str) -> None:
    status, body = asker.ask(path, None, method="POST")
    assert status == 403 and "Unix socket" in body["error"]
    assert asker.ask("/api/v1/runs/1", None)[0] == 403
    assert asker.daemon.begun == []


REASONS = {
    "off": 403,
    "namespace": 403,
    "gone": 403,
    "gpu": 409,
    "too_many": 429,
    "starting": 503,
}


@pytest.mark.parametrize(("reason", "code"), REASONS.items())
def test_a_refusal_says_why(asker: Asker, reason: str, code: int) -> None:
    def refuse() -> None:
        raise RunRefused(reason, "the GPU is gone", "look for it")

    asker.daemon.on_begin = refuse
    status, body = post(asker, "/api/v1/runs")
    assert (status, body) == (code, {"error": "The GPU is gone.", "hint": "look for it"})
    check(body, PATH, "post", code)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", "/api/v1/runs?gpus=" + ",".join(map(str, range(65))), 400),
        ("POST", "/api/v1/runs?name=%ff", 400),
        ("POST", "/api/v1/runs?name=a&name=b", 400),
        ("POST", "/api/v1/runs/1/finish?exit_code=256", 400),
        ("POST", "/api/v1/runs/1/finish?exit_code=-1", 400),
        ("POST", "/api/v1/runs/../finish", 404),
        ("POST", "/api/v1/runs/" + "f" * 40 + "/finish", 404),
        ("GET", "/api/v1/runs/", 404),
        ("GET", "/api/v1/runs/x\ny", 404),
        ("GET", "/api/v1/runs/1?x=1", 400),
        ("GET", "/api/v1/runs", 405),
        ("POST", "/api/v1/runs/1", 405),
        ("GET", "/api/v1/runs/1/finish", 405),
    ],
)
def test_what_makes_no_sense_is_refused(asker: Asker, method: str, path: str, code: int) -> None:
    post(asker, "/api/v1/runs")
    status, body = asker.ask(path, ALICE, method=method)
    assert status == code and body["error"]


def test_an_empty_list_of_gpus_claims_none(asker: Asker) -> None:
    assert post(asker, "/api/v1/runs?gpus=")[0] == 201
    assert asker.daemon.begun[0].gpus == ()
