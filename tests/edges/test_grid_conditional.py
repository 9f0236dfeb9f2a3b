"""Conditional requests and Retry-After: what a provider offers is used, and nothing beyond it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

import grid_server as play
from grid_asking import LOOPBACK
from grid_server import GridServer
from wattledger.errors import GridError
from wattledger.grid.client import HttpClient, retry_after_s
from wattledger.grid.validators import MOST_BYTES, MOST_REPLIES, Validators

DATE = "Sat, 20 Jan 2018 12:00:00 GMT"


def ask(client: HttpClient, server: GridServer, path: str = "/x?zone=GB") -> Any:
    return client.get_json(server.url + path, allow_hosts=LOOPBACK)


@pytest.mark.parametrize(
    ("marks", "sent"),
    [
        ({"ETag": '"v1"'}, {"if-none-match": '"v1"'}),
        ({"ETag": 'W/"v1"'}, {"if-none-match": 'W/"v1"'}),
        ({"Last-Modified": DATE}, {"if-modified-since": DATE}),
        (
            {"ETag": '"v1"', "Last-Modified": DATE},
            {"if-none-match": '"v1"', "if-modified-since": DATE},
        ),
        ({}, {}),
        ({"ETag": "unquoted"}, {}),
        ({"ETag": '"' + "x" * 300 + '"'}, {}),
        ({"ETag": '"a b"'}, {}),
        ({"Last-Modified": "<script>"}, {}),
    ],
)
def test_what_was_marked_is_asked_for_with_its_mark(
    marks: dict[str, str], sent: dict[str, str]
) -> None:
    client = HttpClient()
    with GridServer(play.reply(body={"n": 1}, headers=marks)) as server:
        ask(client, server)
        ask(client, server)
        first, second = (request.headers for request in server.requests)
    conditions = {"if-none-match", "if-modified-since"}
    assert not conditions & first.keys()
    assert {name: second[name] for name in conditions & second.keys()} == sent


def test_what_did_not_change_is_not_sent_again() -> None:
    client = HttpClient()
    marked = play.reply(body={"n": 1}, headers={"ETag": '"v1"'})
    with GridServer(play.in_turn(marked, play.reply(304))) as server:
        assert [ask(client, server) for _ in range(3)] == [{"n": 1}] * 3
        server.script = play.reply(body={"n": 2}, headers={"ETag": '"v2"'})
        assert ask(client, server) == {"n": 2}
        server.script = play.reply(304)
        assert ask(client, server) == {"n": 2}
        assert server.requests[-1].headers["if-none-match"] == '"v2"'
        with pytest.raises(GridError) as caught:
            ask(client, server, "/another")
        assert caught.value.outcome == "redirect", "304 to an unconditional request means nothing"


def test_a_body_that_is_no_json_is_fetched_whole_the_next_time() -> None:
    client = HttpClient()
    with GridServer(play.reply(body=b"{", headers={"ETag": '"v1"'})) as server:
        for _ in range(2):
            with pytest.raises(GridError) as caught:
                ask(client, server)
            assert caught.value.outcome == "bad_json"
        assert "if-none-match" not in server.requests[1].headers


def test_what_is_kept_is_bounded() -> None:
    kept = Validators()
    kept.keep("long", '"v"', "", b"x" * (MOST_BYTES + 1))
    assert kept.condition("long") == ({}, None)
    for number in range(MOST_REPLIES + 1):
        kept.keep(f"u{number}", '"v"', "", b"x")
        kept.condition("u1")
    assert kept.condition("u0") == ({}, None)
    assert kept.condition("u2") == ({}, None) or kept.condition("u1")[1] == b"x"
    assert kept.condition(f"u{MOST_REPLIES}")[1] == b"x"
    kept.keep("u1", "", "", b"y")
    assert kept.condition("u1") == ({}, None)


def test_retry_after_is_seconds_or_a_date_within_a_day() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    found = retry_after_s(soon)
    assert found is not None and 100 < found <= 120
    assert retry_after_s("120") == 120.0
    assert retry_after_s("999999999") == retry_after_s("Fri, 31 Dec 9999 23:59:59 GMT") == 86_400
    assert retry_after_s(DATE) == 0.0
    for nonsense in ("", "-5", "1.5", "soon", "٣", "9" * 65, "Fri, 99 Foo 2020 00:00:00 GMT"):
        assert retry_after_s(nonsense) is None


@pytest.mark.parametrize(("status", "kept"), [(429, 90.0), (503, 90.0), (401, None), (500, None)])
def test_retry_after_counts_where_it_is_defined(status: int, kept: float | None) -> None:
    with (
        GridServer(play.reply(status, headers={"Retry-After": "90"})) as server,
        pytest.raises(GridError) as caught,
    ):
        ask(HttpClient(), server)
    assert caught.value.retry_after_s == kept
