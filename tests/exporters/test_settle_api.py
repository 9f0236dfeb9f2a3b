"""`/api/v1/settle`, `verify` and `audit`: for operators, page after page, as documented."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from asking import ALICE, DAEMON, Asker
from schema_check import faults, resolved
from wattledger.job_reports.receipt import receipt
from wattledger.model import Amounts, Basis, Kind
from wattledger.model.jobbooks import Cell
from wattledger.model.jobs import KindBasis
from wattledger.model.settle_report import SettleResult
from wattledger.model.settling import Settled
from wattledger_exporters.amounts import settled_amounts
from wattledger_exporters.http import openapi
from wattledger_exporters.http.settle_api import settle_json
from wattledger_exporters.wording import CO2E, co2e, signed

DOCUMENT = json.loads(json.dumps(openapi.document("0.1.0")))
ALL = (("/api/v1/settle", "POST"), ("/api/v1/verify", "GET"), ("/api/v1/audit", "GET"))


@pytest.fixture
def asker() -> Asker:
    return Asker()


def check(body: Any, path: str, method: str) -> None:
    answers = DOCUMENT["paths"][path][method.lower()]["responses"]["200"]
    schema = answers["content"]["application/json"]["schema"]
    assert list(faults(body, schema, DOCUMENT)) == []


@pytest.mark.parametrize(("path", "method"), ALL)
@pytest.mark.parametrize("uid", [ALICE, None])
def test_only_operators_may(asker: Asker, path: str, method: str, uid: int | None) -> None:
    status, body = asker.ask(path, uid, method=method)
    assert status == 403 and "sudo" in body["error"]
    assert not asker.daemon.settled and not asker.daemon.asked


def test_settling_is_asked_for_and_told(asker: Asker) -> None:
    status, body = asker.ask("/api/v1/settle?days=7", DAEMON, method="POST")
    assert status == 200 and asker.daemon.settled == [7]
    check(body, "/api/v1/settle", "POST")
    assert body["report"]["changed_slots"] == 3
    assert body["report"]["problems"] == [{"source": "rte", "message": "it is out"}]
    asker.ask("/api/v1/settle", DAEMON, method="POST")
    assert asker.daemon.settled[1:] == [None]
    assert asker.ask("/api/v1/settle?days=-1", DAEMON, method="POST")[0] == 400
    assert asker.ask("/api/v1/settle", DAEMON)[0] == 405
    check(settle_json(SettleResult(False)), "/api/v1/settle", "POST")


def test_differences_are_listed(asker: Asker) -> None:
    status, body = asker.ask("/api/v1/verify", DAEMON)
    told = {"balanced": False, "count": 517_483, "differences": ["1 is not 2"]}
    assert (status, body) == (200, told)
    check(body, "/api/v1/verify", "GET")


def test_the_audit_goes_page_after_page(asker: Asker) -> None:
    status, body = asker.ask("/api/v1/audit?since=100&until=200", DAEMON)
    assert status == 200 and body["records"] == [{"record": "price", "id": 1}]
    check(body, "/api/v1/audit", "GET")
    _, last = asker.ask(f"/api/v1/audit?cursor={body['next_cursor']}", DAEMON)
    assert last["next_cursor"] is None
    assert asker.daemon.asked == [
        (100 * 10**9, 200 * 10**9, "None"),
        (100 * 10**9, 200 * 10**9, "(1, 'metered')"),
    ]


def test_the_audit_has_a_view_of_slots(asker: Asker) -> None:
    status, body = asker.ask("/api/v1/audit?view=slots", DAEMON)
    assert status == 400, "the fake knows none"
    assert asker.daemon.asked == [(0, 2**62, "('slots',)")]
    status, body = asker.ask("/api/v1/audit?view=rows", DAEMON)
    assert status == 400 and "records, slots" in body["error"]
    status, _ = asker.ask("/api/v1/audit?view=slots", ALICE)
    assert status == 403, "for operators only"


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "%",
        "bnVsbA==",
        *(
            base64.urlsafe_b64encode(json.dumps(told).encode()).decode()
            for told in ([], [1, 2], [1, "2", 3], [1, 2, [3]], [1, 2, 2**64], [1, 2, 9], {"a": 1})
        ),
    ],
)
def test_a_cursor_of_others_is_refused(asker: Asker, cursor: str) -> None:
    status, body = asker.ask(f"/api/v1/audit?cursor={cursor}", DAEMON)
    assert status == 400 and "cursor" in body["error"].lower()


def test_a_job_shows_what_is_settled(asker: Asker) -> None:
    book = asker.daemon.books[0]
    manager, job_id = book.run.key
    path = f"/api/v1/jobs/{manager}/{job_id}"
    _, plain = asker.ask(path, DAEMON)
    assert plain["settled"] is None
    assert not [line for line in receipt(plain) if "settled" in line]

    energy_uj = int(plain["totals"]["exact"]["energy_uj"])
    asker.daemon.settled_of_jobs = {Basis.LIFECYCLE: Settled(energy_uj // 2, -1_500_000, 0)}
    _, body = asker.ask(path, DAEMON)
    schema = resolved("#/components/schemas/Job", DOCUMENT)
    assert list(faults(body, schema, DOCUMENT)) == []
    settled_g = body["totals"]["co2e_g"] - 1.5
    assert body["settled"]["co2e_g"] == pytest.approx(settled_g)
    (line,) = [line for line in receipt(body) if "settled" in line]
    assert co2e(settled_g) in line and "50% of it by published prices: -1.500 g" in line


def test_settled_amounts_are_those_booked_and_the_difference() -> None:
    booked = {KindBasis(Kind.GPU, Basis.LIFECYCLE): Cell(Amounts(10, 5_000_000, 3, 2_000_000))}
    assert settled_amounts(booked, {}) is None
    assert settled_amounts(booked, {Basis.LIFECYCLE: Settled()}) is None
    changed = {Basis.LIFECYCLE: Settled(4, -1_000_000, 500_000, 7, 6)}
    told = settled_amounts(booked, changed)
    assert told is not None
    assert (told["co2e_g"], told["co2e_difference_g"], told["water_grid_l"]) == (4.0, -1.0, 2.5)
    assert told["co2e_g_by_basis"] == {"lifecycle": 4.0}
    assert told["exact"] == {
        "energy_uj": "4",
        "restated_uj": "6",
        "co2e_ug": "4000000",
        "water_grid_ul": "2500000",
        "water_onsite_ul": "10",
    }
    # All of it came to count something else: the figure names that, and that only.
    moved = {
        Basis.LIFECYCLE: Settled(co2e_ug=-5_000_000, moved_uj=-10),
        Basis.DIRECT: Settled(10, 3_000_000, moved_uj=10),
    }
    told = settled_amounts(booked, moved)
    assert told is not None and told["co2e_g_by_basis"] == {"direct": 3.0}
    assert (signed(-1.5, CO2E), signed(0.25, CO2E), signed(0.0, CO2E)) == (
        "-1.500 g",
        "+0.2500 g",
        "+0 g",
    )
