"""Jobs over HTTP: who may see whose, and what is answered."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import snapshots
from fakes import FakeClock
from serving import FakeDaemon, Served
from wattledger_exporters.http import PageStore, jobs_api
from wattledger_exporters.http.app import App
from wattledger_exporters.http.connection import Peer
from wattledger_exporters.http.query import BadRequest
from wattledger_exporters.web_config import WebConfig

ALICE, BOB, DAEMON = 1001, 1002, 900


class Asker:
    """Requests by a user over the Unix socket, or over TCP."""

    def __init__(self) -> None:
        clock = FakeClock(snapshots.NOW_NS)
        self.daemon = FakeDaemon(snapshots.with_jobs())
        self.app = App(self.daemon, PageStore(clock, 5), clock, None, owner_uid=DAEMON)

    def ask(
        self,
        path: str,
        uid: int | None,
        *,
        web: WebConfig | None = None,
        certified: bool = False,
        login: str = "",
    ) -> tuple[int, Any]:
        path, _, query = path.partition("?")
        scope = {
            "path": path,
            "query_string": query.encode(),
            "method": "GET",
            "headers": [(b"authorization", b"Basic " + base64.b64encode(login.encode()))],
            "state": {"peer": None if uid is None else Peer(1, uid, uid), "certified": certified},
        }
        response = asyncio.run(self.app._respond_to(scope, web))
        return response.status, json.loads(response.body)


@pytest.fixture
def asker() -> Asker:
    return Asker()


def seen(body: Any) -> list[str]:
    return [run["job_id"] for run in body["jobs"]]


def test_root_and_the_daemons_user_see_all_a_user_their_own(asker: Asker) -> None:
    for uid in (0, DAEMON):
        status, body = asker.ask("/api/v1/jobs", uid)
        assert (status, seen(body)) == (200, ["4711", "4712", "4713"])
        assert body["restricted_to_uid"] is None
    status, body = asker.ask("/api/v1/jobs", BOB)
    assert (status, seen(body), body["restricted_to_uid"]) == (200, ["4712"], BOB)
    status, body = asker.ask("/api/v1/jobs?user=user1001", BOB)
    assert asker.daemon.queries[-1].uid == BOB  # whatever else is asked
    assert asker.ask("/api/v1/jobs", 4242) == (
        200,
        {"jobs": [], "next_cursor": None, "restricted_to_uid": 4242},
    )


def test_somebody_elses_job_is_as_good_as_none(asker: Asker) -> None:
    assert asker.ask("/api/v1/jobs/slurm/4711", ALICE)[0] == 200
    assert asker.ask("/api/v1/jobs/slurm/4711", 0)[0] == 200
    other, none = (asker.ask(f"/api/v1/jobs/slurm/{job}", ALICE) for job in ("4712", "9999"))
    assert other[0] == none[0] == 404
    assert other[1]["error"].replace("4712", "9999") == none[1]["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/jobs",
        "/api/v1/jobs/slurm/4711",
        "/api/v1/totals?by=job",
        "/api/v1/totals?by=user",
    ],
)
def test_over_tcp_only_who_is_authenticated(asker: Asker, path: str) -> None:
    status, body = asker.ask(path, None)
    assert status == 403 and "Unix socket" in body["error"]
    assert asker.ask(path, None, web=WebConfig())[0] == 403  # TLS alone tells nobody
    assert asker.ask(path, None, certified=True)[0] == 200
    web = WebConfig(users={"ops": bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()})
    assert asker.ask(path, None, web=web, login="ops:secret")[0] == 200
    assert asker.ask(path, None, web=web, login="ops:guess")[0] == 401


def test_totals_by_job_are_the_users_own(asker: Asker) -> None:
    asker.ask("/api/v1/totals?by=job", ALICE)
    asker.ask("/api/v1/totals?by=user", 0)
    asker.ask("/api/v1/totals?by=device", ALICE)
    assert asker.daemon.uids == [ALICE, None, None]


def test_over_real_sockets(served: Served) -> None:
    assert served.tcp.request("/api/v1/jobs").status == 403
    assert served.unix.request("/api/v1/jobs").status == 200  # the tests' own uid is the daemon's
    assert served.unix.request("/api/v1/jobs/slurm/4711").json["state"] == "running"
    assert served.unix.request("/api/v1/jobs/slurm/%2e%2e%2f%2e%2e").status == 404
    assert served.unix.request("/api/v1/jobs/moon/1").status == 400


@pytest.mark.parametrize(
    "query",
    ["manager=moon", "state=dead", "sort=name", "limit=0", "limit=100000", "cursor=xx", "who=me",
     "since=never", "cursor=LTEuLTE="],
)  # fmt: skip
def test_bad_questions(asker: Asker, query: str) -> None:
    status, body = asker.ask(f"/api/v1/jobs?{query}", 0)
    assert status == 400 and body["error"].endswith(".")


def test_pages_follow_each_other(asker: Asker) -> None:
    _, body = asker.ask("/api/v1/jobs?limit=2", 0)
    cursor = body["next_cursor"]
    asker.ask(f"/api/v1/jobs?limit=2&cursor={cursor}", 0)
    last = asker.daemon.queries[-1]
    assert last.after == (int(body["jobs"][-1]["start_ns"]), 1)
    _, body = asker.ask("/api/v1/jobs", 0)
    assert body["next_cursor"] is None


@given(st.text(max_size=200))
def test_no_cursor_or_id_can_hurt(text: str) -> None:
    for question in (
        lambda: jobs_api.jobs_query({"cursor": text}, 0, None),
        lambda: jobs_api.job_of_path("slurm", text),
        lambda: jobs_api.job_of_path(text, "1"),
    ):
        try:
            question()
        except BadRequest as error:
            assert str(error)  # noqa: PT017


def test_a_jobs_answer(asker: Asker) -> None:
    _, body = asker.ask("/api/v1/jobs/slurm/4711", 0)
    totals = body["totals"]
    assert totals["energy_kwh"]["gpu"] == 1.0
    assert totals["exact"]["energy_uj"] == str(3_600_000_000_000 + 360_000_000_001)
    assert totals["held_device_hours"] == 2.0 and totals["held_idle_device_hours"] == 0.5
    assert set(totals["co2e_g_by_basis"]) == {"direct", "lifecycle"}
    assert body["runs"][0]["devices"] == [
        {"device": snapshots.GPU.format(0), "share": 0.5, "exact": False}
    ]
    assert body["timeline"][0]["energy_uj"] == "5"
    assert any(sentence.startswith("25% of the time") for sentence in body["advice"])
    assert any("equal parts" in sentence for sentence in body["advice"])
