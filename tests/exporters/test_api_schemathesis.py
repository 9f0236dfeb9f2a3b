"""The API held to its own OpenAPI document by Schemathesis: the real server over a real ledger.

Every operation is asked by an operator over the Unix socket and by a stranger over TCP, with what
the document allows (which must be answered as documented) and with what it does not (which must be
refused with a documented error). Nothing may be a fault of the server.
"""

from __future__ import annotations

import base64
import copy
import json
import os
from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import example, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS
from schemathesis.core.failures import FailureGroup

from served_books import books_daemon
from serving import serving
from unix_requests import UnixAdapter
from wattledger_exporters.http import openapi

CASES = 25
DOCUMENT = json.loads(json.dumps(openapi.document("0.1.0")))
CONFIG = schemathesis.Config.from_dict(
    {
        "generation": {
            "max-examples": CASES,
            "deterministic": os.environ.get("CI") == "true",
            "database": "none",
        },
    }
)
API = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
ACCEPTANCE = CHECKS.get_one("positive_data_acceptance")
BEYOND_A_SCHEMA = (
    "lies after until",
    "does not lie after since",
    "on a full hour of UTC",
    "is no instant of the last day",
    "Say what is restated",
    "cursor is not one that this server gave",
    "by=hour covers at most",
)
"""Why what the schema of each single parameter allows may be refused all the same."""
QUICK = settings(max_examples=CASES, deadline=None)


class Door:
    """Where to ask, and as whom."""

    def __init__(self, url: str, session: requests.Session) -> None:
        self.url, self.session = url, session

    def check(self, case: schemathesis.Case) -> None:
        """Ask it; every check of Schemathesis judges the answer."""
        response = case.call(base_url=self.url, session=self.session)
        beyond = response.status_code == 400 and any(
            told in response.json()["error"] for told in BEYOND_A_SCHEMA
        )
        case.validate_response(response, excluded_checks=[ACCEPTANCE] if beyond else None)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Door]]:
    home = tmp_path_factory.mktemp("s")
    with (
        books_daemon(home / "ledger.sqlite") as daemon,
        serving(home / "api.sock", daemon=daemon) as served,
        requests.Session() as stranger,
        requests.Session() as operator,
    ):
        operator.mount("http://", UnixAdapter(home / "api.sock"))
        yield {
            "operator": Door("http://localhost", operator),
            "stranger": Door(served.server.url, stranger),
        }


@API.parametrize()
@QUICK
def test_an_operator_is_answered_as_documented(
    doors: dict[str, Door], case: schemathesis.Case
) -> None:
    doors["operator"].check(case)


@API.parametrize()
@QUICK
def test_a_stranger_is_answered_as_documented(
    doors: dict[str, Door], case: schemathesis.Case
) -> None:
    doors["stranger"].check(case)


@given(
    st.sampled_from(["jobs", "audit"]),
    st.lists(st.integers(-(2**120), 2**120) | st.text(max_size=3), min_size=2, max_size=8),
)
@QUICK
@example("audit", [0, 2**100, 0, 0])
@example("audit", [-(2**100), 5, 2**63 - 1, 0, 0, 0, "metered", 1])
def test_no_cursor_of_others_is_a_fault_of_the_server(
    doors: dict[str, Door], path: str, told: list[int | str]
) -> None:
    """Cursors are opaque, so that none of those above gets past their first check."""
    text = ".".join(map(str, told)) if path == "jobs" else json.dumps(told)
    cursor = base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode()
    answer = doors["operator"].session.get(
        f"{doors['operator'].url}/api/v1/{path}", params={"cursor": cursor}
    )
    assert answer.status_code in (200, 400), answer.text


def test_a_document_that_says_something_else_is_found_out(doors: dict[str, Door]) -> None:
    told = copy.deepcopy(DOCUMENT)
    told["paths"]["/api/v1/waste"]["get"]["responses"].pop("400")
    told["components"]["schemas"]["Health"]["required"].append("mood")
    lying = schemathesis.openapi.from_dict(told, config=CONFIG)
    with pytest.raises(FailureGroup, match="mood"):
        doors["operator"].check(lying["/healthz"]["GET"].Case())
    wrong = lying["/api/v1/waste"]["GET"].Case(query={"by": "moon"})
    with pytest.raises(FailureGroup, match="400"):
        doors["operator"].check(wrong)


def test_the_document_is_the_one_that_is_served(doors: dict[str, Door]) -> None:
    for door in doors.values():
        served = door.session.get(f"{door.url}/api/v1/openapi.json").json()
        version = {"info": {**DOCUMENT["info"], "version": served["info"]["version"]}}
        assert served == {**DOCUMENT, **version}
