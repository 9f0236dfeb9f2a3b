"""Jobs over HTTP: who may see whose, and what is answered."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import snapshots
from asking import ALICE, BOB, DAEMON, Asker
from fakes import FakeClock
from serving import Served
from wattledger.units import NS_PER_S
from wattledger_exporters.http import jobs_api
from wattledger_exporters.http.connection import Peer
from wattledger_exporters.http.operators import SYSTEM, Directory, Operators
from wattledger_exporters.http.query import BadRequest
from wattledger_exporters.web_config import WebConfig


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
        {"jobs": [], "next_cursor": None, "restricted_to_uid": 4242, "simulated": None},
    )


def test_who_runs_has_the_power_that_the_page_shows(asker: Asker) -> None:
    _, body = asker.ask("/api/v1/jobs", 0)
    assert [run["power_w"] for run in body["jobs"]] == [350.0, None, None]
    _, body = asker.ask("/api/v1/jobs/slurm/4711", ALICE)
    assert [run["power_w"] for run in body["runs"]] == [350.0]
    asker.daemon.state = None
    assert asker.ask("/api/v1/jobs", 0)[1]["jobs"][0]["power_w"] is None


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
        "/api/v1/waste",
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
     "since=never", "cursor=LTEuLTE=", "order=up", "manager=",
     "account=" + "x" * 300, "name=" + "x" * 300],
)  # fmt: skip
def test_bad_questions(asker: Asker, query: str) -> None:
    status, body = asker.ask(f"/api/v1/jobs?{query}", 0)
    assert status == 400 and body["error"].endswith(".")


def test_pages_follow_each_other(asker: Asker) -> None:
    _, body = asker.ask("/api/v1/jobs?limit=2&since=24h", 0)
    assert seen(body) == ["4711", "4712"], "one more was asked for, and not shown"
    first, cursor = asker.daemon.queries[-1], body["next_cursor"]
    asker.clock.advance(60)
    asker.ask(f"/api/v1/jobs?limit=2&since=24h&cursor={cursor}", 0)
    last = asker.daemon.queries[-1]
    assert last.after == (int(body["jobs"][-1]["start_ns"]), 1)
    assert last.since_ns == first.since_ns, "the span of the first page, not another 24 hours"
    for query in ("", "?limit=3"):
        _, body = asker.ask(f"/api/v1/jobs{query}", 0)
        assert len(seen(body)) == 3 and body["next_cursor"] is None
    for other in ("sort=energy", "order=asc"):
        status, body = asker.ask(f"/api/v1/jobs?{other}&cursor={cursor}", 0)
        assert status == 400 and "sort" in body["error"]


def test_filters_and_orders_are_passed_on(asker: Asker) -> None:
    asker.ask("/api/v1/jobs?account=physics&name=train-*&sort=held_idle&order=asc", BOB)
    asked = asker.daemon.queries[-1]
    assert (asked.account, asked.name, asked.uid) == ("physics", "train-*", BOB)
    assert (asked.sort, asked.ascending) == ("held_idle", True)


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


def test_an_id_may_be_of_any_text() -> None:
    assert jobs_api.job_of_path("unit", "a\nb") == ("unit", "a\nb")
    for text in ("", "a\0", "\udcff", "x" * 257):
        with pytest.raises(BadRequest, match="no job id"):
            jobs_api.job_of_path("unit", text)


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
    assert body["cost"] is None and body["held_idle_cost"] is None
    assert body["mean_watts"] == pytest.approx(3_960_000 / 7200)
    assert body["quality"] == {"metered": 1.0}
    assert {(part["zone"], part["basis"]) for part in body["grid"]} == {
        ("GB", "direct"),
        ("GB", "lifecycle"),
    }


def test_money_where_there_is_a_price(asker: Asker) -> None:
    # What it was booked at, not what the site says by now.
    asker.daemon.cost_u_per_kwh, asker.daemon.currency = 500_000, "CHF"
    _, body = asker.ask("/api/v1/jobs/slurm/4711", 0)
    assert body["cost"]["currency"] == "CHF"
    assert body["costs"] == [{**body["cost"], "energy_share": 1.0}]
    assert body["cost"]["amount"] == pytest.approx(1.1 * 1.2 * 0.5)  # kWh × PUE of its time × price
    assert body["held_idle_cost"]["amount"] == pytest.approx(12_345_678 / 3.6e12 * 1.2 * 0.5)
    _, body = asker.ask("/api/v1/waste", 0)
    assert body["total"]["held_idle_cost"]["amount"] == pytest.approx(1800 / 3.6e12 * 0.5)
    assert body["idle"]["cost"]["amount"] == pytest.approx(4800 / 3.6e12 * 0.5)


# ── one job id of several users ─────────────────────────────────────────────────────────────────


def test_each_user_gets_the_receipt_of_their_own_runs(asker: Asker) -> None:
    book = asker.daemon.books[0]
    theirs = replace(book.run, uid=BOB, payee=book.run.payee._replace(start_ns=1))
    asker.daemon.books.append(replace(book, run=theirs))
    for uid, start in ((ALICE, "2027"), (BOB, "1970")):
        status, body = asker.ask("/api/v1/jobs/slurm/4711", uid)
        assert (status, body["run_count"], body["uid"]) == (200, 1, uid)
        assert body["start"].startswith(start) and body["restricted_to_uid"] == uid
    assert asker.ask("/api/v1/jobs/slurm/4711", 0)[1]["run_count"] == 2


def test_a_run_of_nobody_known_is_for_operators(asker: Asker) -> None:
    book = asker.daemon.books[0]
    asker.daemon.books[0] = replace(book, run=replace(book.run, uid=None))
    status, body = asker.ask("/api/v1/jobs/slurm/4711", ALICE)
    assert status == 404 and "operators" in body["hint"]
    assert asker.ask("/api/v1/jobs/slurm/4711", 0)[0] == 200


# ── waste ───────────────────────────────────────────────────────────────────────────────────────


def test_waste_and_what_nobody_held(asker: Asker) -> None:
    _, body = asker.ask("/api/v1/waste?since=7d", 0)
    assert [row["group"] for row in body["rows"]] == ["user1003", "user1002", "user1001"]
    assert body["total"]["held_gpu_hours"] == 6.0 and body["total"]["held_idle_gpu_hours"] == 1.5
    assert body["total"]["exact"]["held_idle_uj"] == "1500" and body["total"]["runs"] == 3
    assert body["rows"][0]["idle_energy_share"] == 0.25
    assert body["idle"]["exact"]["energy_uj"] == "4000", "a line of its own, and in no sum"
    week_ns = 7 * 86_400 * NS_PER_S
    assert asker.daemon.asked[-1] == (snapshots.NOW_NS - week_ns, snapshots.NOW_NS, "user")
    asker.ask("/api/v1/waste", 0)
    assert asker.daemon.asked[-1][0] == snapshots.NOW_NS - week_ns
    for query in ("by=job", "since=2028-01-01", "until=never", "limit=1"):
        assert asker.ask(f"/api/v1/waste?{query}", 0)[0] == 400


def test_a_user_sees_their_own_line_of_it(asker: Asker) -> None:
    for query in ("", "?by=account"):
        _, body = asker.ask(f"/api/v1/waste{query}", BOB)
        assert asker.daemon.uids[-1] == BOB and body["restricted_to_uid"] == BOB
        assert len(body["rows"]) == 1 and body["total"]["exact"] == body["rows"][0]["exact"]


# ── operators ───────────────────────────────────────────────────────────────────────────────────


class Names:
    """Users and groups, with a count of how often they were asked for."""

    def __init__(self) -> None:
        self.gid: int | None = 70
        self.groups: dict[int, Collection[int]] = {ALICE: (1001, 70), BOB: (1002,)}
        self.asked = 0
        self.answering = threading.Event()
        self.answering.set()

    def directory(self) -> Directory:
        return Directory(lambda name: self.gid if name == "ops" else None, self.groups_of)

    def groups_of(self, uid: int) -> Collection[int]:
        self.asked += 1
        self.answering.wait(20)
        return self.groups.get(uid, ())


def sees_all(asker: Asker, uid: int, gid: int | None = None) -> bool:
    status, body = asker.ask("/api/v1/jobs", uid, gid=gid)
    released, _ = asker.ask("/api/v1/release?seconds=0", uid, gid=gid, method="POST")
    assert status == 200
    assert released == (200 if body["restricted_to_uid"] is None else 403)
    return body["restricted_to_uid"] is None


def test_members_of_the_operators_group_see_all() -> None:
    names = Names()
    asker = Asker("ops", names.directory())
    assert sees_all(asker, ALICE) and not sees_all(asker, BOB) and not sees_all(asker, 4242)
    assert sees_all(asker, BOB, gid=70), "as `sg ops` and `newgrp ops` make it"
    assert names.asked == 3, "once a minute"
    names.groups = {BOB: (70,)}
    asker.clock.advance(59)
    assert sees_all(asker, ALICE) and not sees_all(asker, BOB)
    asker.clock.advance(2)
    assert not sees_all(asker, ALICE) and sees_all(asker, BOB)


@pytest.mark.parametrize("group", ["", "none"])
def test_without_such_a_group_nobody_is_one(group: str) -> None:
    names = Names()
    asker = Asker(group, names.directory())
    assert not sees_all(asker, ALICE) and sees_all(asker, 0) and sees_all(asker, DAEMON)
    assert names.asked == 0


def test_a_directory_that_fails_makes_nobody_one(caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: object) -> None:
        raise OSError(5, "the directory server is down")

    asker = Asker("ops", Directory(fails, fails))  # type: ignore[arg-type]
    assert not sees_all(asker, ALICE) and sees_all(asker, 0)
    assert caplog.text.count("who is in group ops") == 1


def test_a_directory_that_hangs_holds_nobody_up() -> None:
    names, clock = Names(), FakeClock()
    names.answering.clear()
    operators = Operators("ops", clock, DAEMON, names.directory(), answer_s=0.02)

    async def asked() -> tuple[bool, bool]:
        return await operators.includes(Peer(1, ALICE, ALICE)), await operators.includes(
            Peer(2, 0, 0)
        )

    assert asyncio.run(asked()) == (False, True)
    names.answering.set()
    while not asyncio.run(asked())[0]:  # what was not told is not kept for a minute
        pass
    operators.stop()


def test_the_systems_own_groups() -> None:
    uid, gid = os.geteuid(), os.getegid()
    assert SYSTEM.gid_of("no such group") is None
    assert SYSTEM.groups_of(2**31 - 7) == () and SYSTEM.groups_of(-2) == ()
    if uid == 0:
        assert gid in SYSTEM.groups_of(uid) and SYSTEM.gid_of("root") == 0
