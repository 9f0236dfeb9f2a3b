"""`/api/v1/restate`: for operators; what is said is checked, kept and listed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

import pytest

from asking import ALICE, DAEMON, Asker
from schema_check import faults
from snapshots import rows
from wattledger.audit.restate_command import lines, listed, restate_command
from wattledger.config import Config
from wattledger.model.restating import END_S, Restatement
from wattledger.model.settle_report import RestateResult
from wattledger.remote import Remote
from wattledger_exporters.http import openapi
from wattledger_exporters.http.query import BadRequest
from wattledger_exporters.http.restate_api import list_json, restate_json, restatement_of

DOCUMENT = json.loads(json.dumps(openapi.document("0.1.0")))
PATH = "/api/v1/restate"
SAID = "since=2027-01-01&author=Ada&reason=bill"
GIVEN = {"pue": "1.21", "since": "2027-01-01", "author": "Ada", "reason": "bill"}
JANUARY_S = 1_798_761_600


@pytest.fixture
def asker() -> Asker:
    return Asker()


def check(body: Any, method: str) -> None:
    answers = DOCUMENT["paths"][PATH][method]["responses"]["200"]
    schema = answers["content"]["application/json"]["schema"]
    assert list(faults(body, schema, DOCUMENT)) == []


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("uid", [ALICE, None])
def test_only_operators_may(asker: Asker, method: str, uid: int | None) -> None:
    status, body = asker.ask(f"{PATH}?pue=1.2&{SAID}", uid, method=method)
    assert status == 403 and "sudo" in body["error"] and not asker.daemon.restated


def test_it_is_said_once_and_listed(asker: Asker) -> None:
    path = f"{PATH}?pue=1.21&wue_l_per_kwh=0.4&until=2027-02-01&{SAID}"
    status, body = asker.ask(path, DAEMON, method="POST")
    assert status == 200 and body["recorded"] and body["finished"]
    check(body, "post")
    (made,) = asker.daemon.restated
    assert made == Restatement(
        "Ada",
        "bill",
        made.made_at_ns,
        JANUARY_S,
        JANUARY_S + 31 * 86_400,
        pue_ppm=1_210_000,
        wue_ul_per_kwh=400_000,
    )
    status, body = asker.ask(PATH, DAEMON)
    check(body, "get")
    assert body["restatements"] == [
        {
            "author": "Ada",
            "reason": "bill",
            "made": body["restatements"][0]["made"],
            "since": "2027-01-01T00:00:00Z",
            "until": "2027-02-01T00:00:00Z",
            "pue": 1.21,
            "wue_l_per_kwh": 0.4,
            "ewif_l_per_kwh": None,
        }
    ]
    assert listed(body)[0].endswith(
        "PUE 1.21, WUE 0.4 L/kWh from 2027-01-01T00:00:00Z to 2027-02-01T00:00:00Z, by Ada: bill"
    )
    assert listed(list_json([])) == ["Nothing was ever restated."]
    assert asker.ask(PATH, DAEMON, method="PUT")[0] == 405
    check(restate_json(RestateResult(False, made, is_new=True)), "post")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pue": "0.9"}, "from 1 to 10"),
        ({"pue": "10.00000001"}, "from 1 to 10"),
        ({"pue": "NaN"}, "from 1 to 10"),
        ({"pue": "1_1"}, "from 1 to 10"),
        ({"wue_l_per_kwh": "-0.1"}, "from 0 to 1000"),
        ({"pue": None}, "Say what is restated"),
        ({"since": None}, "Say from when on"),
        ({"since": "2027-01-01T00:30:00Z"}, "full hour"),
        ({"since": "2027-01-01T00:00:00.5Z"}, "full hour"),
        ({"until": "2027-01-01"}, "does not lie after since"),
        ({"author": " "}, "who says so"),
        ({"reason": None}, "why"),
        ({"reason": "x" * 501}, "longer"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, str | None], told: str) -> None:
    given = {name: text for name, text in {**GIVEN, **change}.items() if text is not None}
    with pytest.raises(BadRequest, match=told):
        restatement_of(given, 1)


@pytest.mark.parametrize("made_at_ns", ["-1", "1e9", "x", "0", "99999999999999999999"])
def test_when_it_was_said_first_lies_within_the_last_day(made_at_ns: str) -> None:
    now_ns = JANUARY_S * 10**9
    with pytest.raises(BadRequest, match="last day"):
        restatement_of({**GIVEN, "made_at_ns": made_at_ns}, now_ns)
    for ago_s in (86_400, 0, -60):
        first_ns = now_ns - ago_s * 10**9
        given = {**GIVEN, "made_at_ns": str(first_ns)}
        assert restatement_of(given, now_ns).made_at_ns == first_ns
        with pytest.raises(BadRequest):
            restatement_of({**GIVEN, "made_at_ns": str(now_ns - 86_401 * 10**9)}, now_ns)


class Waiting(Remote):
    """A daemon that answers unfinished, twice."""

    def __init__(self) -> None:
        super().__init__([])
        self.asked: list[dict[str, str]] = []

    def request(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        method: str = "GET",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        assert query is not None and method == "POST"
        self.asked.append(dict(query))
        made = restatement_of(query, int(query["made_at_ns"]))
        finished = len(self.asked) == 3
        return restate_json(RestateResult(finished, made, len(self.asked) == 1, rows()[0]))


def test_a_command_goes_on_waiting_for_what_it_said(capsys: pytest.CaptureFixture[str]) -> None:
    remote = Waiting()
    options = argparse.Namespace(
        list=False, json=True, wue_l_per_kwh=None, ewif_l_per_kwh=None, until=None, **GIVEN
    )
    assert restate_command(options, Config, remote) == 0
    first, *more = remote.asked
    assert more == [first, first] and int(first["made_at_ns"]) > JANUARY_S
    assert json.loads(capsys.readouterr().out)["recorded"] is True


def test_what_is_said_becomes_one_clean_line() -> None:
    made = restatement_of({**GIVEN, "author": " A\n B\0", "reason": "é\t1"}, 7)
    assert (made.author, made.reason) == ("A B\ufffd", "é 1")
    assert (made.made_at_ns, made.from_s, made.to_s) == (7, JANUARY_S, END_S)


def test_what_came_of_it_is_told(asker: Asker) -> None:
    _, first = asker.ask(f"{PATH}?pue=1.21&{SAID}", DAEMON, method="POST")
    _, again = asker.ask(f"{PATH}?pue=1.21&{SAID}", DAEMON, method="POST")
    assert "PUE 1.21 from 2027-01-01T00:00:00Z to now on: recorded." in lines(first)
    assert "nothing new" in lines(again)[0] and any("booked" in line for line in lines(again))
    failed = restate_json(RestateResult(True, message="the disk is gone"))
    assert lines(failed) == ["Not restated: the disk is gone."]
