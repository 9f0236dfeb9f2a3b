"""The client over real sockets: every hostile reply ends in time, in bounds, and by its name."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

import grid_server as play
from grid_asking import CANARY, LOOPBACK, ask, outcome
from grid_server import GridServer, Script
from wattledger.errors import GridError
from wattledger.grid.client import HttpClient, retry_after_s


def test_a_good_reply_is_parsed_and_asked_for_as_it_should_be() -> None:
    with GridServer(play.reply(body={"a": [1, 2.5, None]})) as server:
        assert ask(server, user_agent="wattledger/9") == {"a": [1, 2.5, None]}
    [request] = server.requests
    assert request.method == "GET"
    assert request.target == "/x?zone=GB"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["auth-token"] == CANARY
    assert request.headers["user-agent"] == "wattledger/9"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


# ── time ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(play.drip_header(), id="header"),
        pytest.param(play.drip_body(), id="body"),
        pytest.param(play.drip(b"HTTP/1.1 100 Continue\r\n\r\n", every_s=0.01), id="continue"),
        pytest.param(play.silent(), id="silent"),
    ],
)
def test_slow_drip_ends_at_the_total_deadline(script: Script) -> None:
    # Each byte comes well within any timeout of a single read; without a total deadline this
    # would go on until the test's own limit.
    began = time.monotonic()
    assert outcome(script, deadline_s=0.4).outcome == "timeout"
    assert time.monotonic() - began >= 0.4


def test_a_silent_tls_peer_ends_at_the_total_deadline() -> None:
    with GridServer(play.silent()) as server, pytest.raises(GridError) as caught:
        HttpClient(deadline_s=0.3).get_json(
            f"https://127.0.0.1:{server.port}/", allow_hosts=LOOPBACK
        )
    assert caught.value.outcome == "timeout"


def test_a_name_server_that_hangs_ends_at_the_total_deadline() -> None:
    release = threading.Event()

    def hang(host: str, port: int) -> list[str]:
        release.wait()
        return []

    with pytest.raises(GridError) as caught:
        HttpClient(deadline_s=0.2, resolve=hang).get_json(
            "https://api.example/", allow_hosts={"api.example"}
        )
    release.set()
    assert caught.value.outcome == "timeout"


# ── size ────────────────────────────────────────────────────────────────────────────────────────


GREEDY = """
import resource, sys
from wattledger.errors import GridError
from wattledger.grid.client import HttpClient
peaks, outcomes = [], set()
for path in ("first", "big", "big", "big"):
    try:
        HttpClient().get_json(f"{sys.argv[1]}/{path}", allow_hosts={"127.0.0.1"})
    except GridError as error:
        outcomes.add(error.outcome)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(sorted(outcomes), peaks[-1] - peaks[0])
"""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(play.big_body(10_485_760), "too_large", id="declared"),
        pytest.param(play.big_body(10_485_760, declared=False), "too_large", id="chunked"),
        pytest.param(play.gzip_bomb(), "bad_encoding", id="gzip-bomb"),
    ],
)
def test_a_big_body_costs_no_memory(script: Script, expected: str) -> None:
    # In a process of its own: here the server's copy would count too.
    with GridServer(play.in_turn(play.reply(body={}), script)) as server:
        done = subprocess.run(
            [sys.executable, "-c", GREEDY, server.url], capture_output=True, text=True, check=True
        )
    outcomes, _, grown_kib = done.stdout.rpartition(" ")
    assert outcomes == f"['{expected}']"
    assert int(grown_kib) < 5 * 1024


def test_gzip_bomb_is_refused_unread() -> None:
    assert outcome(play.gzip_bomb()).outcome == "bad_encoding"


def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    with GridServer(play.reply(body=b"[" + b" " * 98 + b"]")) as server:
        assert ask(server, max_bytes=100) == []
        with pytest.raises(GridError) as caught:
            ask(server, max_bytes=99)
    assert caught.value.outcome == "too_large"


@pytest.mark.parametrize(
    ("first", "more"),
    [
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, id="continue"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"X-More: yes\r\n" * 1000, id="headers"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            (b"1;" + b"x" * 1000 + b"\r\n \r\n") * 10,
            id="chunk-extensions",
        ),
    ],
)
def test_a_flood_around_the_body_is_bounded_too(first: bytes, more: bytes) -> None:
    error = outcome(play.endless(first, more), deadline_s=30)
    assert error.outcome in ("too_large", "connect_error")


# ── trust ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_the_token_stays(status: int) -> None:
    with GridServer(play.reply(body={})) as second:
        where = {"Location": f"{second.url}/elsewhere"}
        assert outcome(play.reply(status, headers=where)).outcome == "redirect"
        assert second.requests == []


@pytest.mark.parametrize("where", ["https://[::1", "https://x:y/", "\xff", "", "//\x7f"])
def test_a_redirect_to_nowhere_is_a_redirect_too(where: str) -> None:
    assert outcome(play.reply(302, headers={"Location": where})).outcome == "redirect"


def test_what_a_reply_wants_of_its_client_is_not_done() -> None:
    wishes = {
        "Set-Cookie": "a=b; Path=/",
        "Refresh": "0; url=/elsewhere",
        "Content-Type": "application/json; charset=utf-16",
        "Content-Encoding": "identity",
    }
    with GridServer(play.reply(body={"a": 1}, headers=wishes)) as server:
        assert ask(server) == {"a": 1}
        ask(server)
    assert [request.target for request in server.requests] == ["/x?zone=GB"] * 2
    assert all("cookie" not in request.headers for request in server.requests)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (204, "no_data"),
        (400, "http_4xx"),
        (401, "http_401"),
        (403, "http_403"),
        (404, "http_404"),
        (418, "http_4xx"),
        (429, "http_429"),
        (500, "http_5xx"),
        (503, "http_5xx"),
    ],
)
def test_each_status_has_its_outcome(status: int, expected: str) -> None:
    body = b"" if status == 204 else {"error": f"{CANARY} is not valid"}
    assert outcome(play.reply(status, body)).outcome == expected


def test_retry_after_is_passed_on() -> None:
    error = outcome(play.reply(429, headers={"Retry-After": "120"}))
    assert error.retry_after_s == 120
    assert outcome(play.reply(404, headers={"Retry-After": "120"})).retry_after_s is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        ("99999999999", 86_400.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 86_400.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00", None),
        ("soon", None),
        ("-5", None),
        ("٣", None),
        ("", None),
        ("9" * 1000, None),
    ],
)
def test_retry_after(text: str, expected: float | None) -> None:
    assert retry_after_s(text) == expected


def test_a_reset_connection() -> None:
    assert outcome(play.reset()).outcome == "connect_error"


def test_a_port_where_nobody_listens() -> None:
    with GridServer(play.silent()) as server:
        pass
    with pytest.raises(GridError) as caught:
        ask(server)
    assert caught.value.outcome == "connect_error"
    assert "refused" in caught.value.message


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\xff" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_not_http(raw: bytes) -> None:
    assert outcome(play.raw(raw)).outcome == "connect_error"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"x": NaN}', id="nan"),
        pytest.param(b'{"x": -Infinity}', id="infinity"),
        pytest.param(b'{"x": 1e999}', id="1e999"),
        pytest.param(b"[" * 200_000, id="deep-nesting"),
        pytest.param(b'{"a":' * 50_000, id="deep-objects"),
        pytest.param(b"[" + b"9" * 5000 + b"]", id="5000-digits"),
        pytest.param(b"<html>not found</html>", id="html"),
        pytest.param(b'"\xff"', id="not-utf-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte-order-mark"),
        pytest.param(b'{"x": 1', id="cut-off"),
        pytest.param(b"", id="empty"),
    ],
)
def test_bad_json(body: bytes) -> None:
    assert outcome(play.reply(body=body)).outcome == "bad_json"


# ── footprint ─────────────────────────────────────────────────────────────────────────────────────


def test_a_daemon_on_the_table_alone_imports_no_http_and_no_tls() -> None:
    code = """
import sys
import wattledger.grid
from wattledger.grid.client import HttpClient
from wattledger.grid.feed import Feed
from wattledger.grid.table import CountryTable
CountryTable.load().signal("GB")
HttpClient()
heavy = ("httpx", "httpcore", "h11", "ssl", "certifi", "anyio", "socket")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_request_brings_no_terminal_library() -> None:
    """httpx's command line would, and they cost more than httpx itself."""
    code = """
import sys
from wattledger.grid.client import HttpClient
print(HttpClient().get_json(sys.argv[1], allow_hosts={"127.0.0.1"}))
import httpx
print([name for name in ("rich", "pygments", "click") if name in sys.modules])
"""
    with GridServer(play.reply(body={})) as server:
        done = subprocess.run(
            [sys.executable, "-c", code, server.url], capture_output=True, text=True, check=True
        )
    assert done.stdout == "{}\n[]\n"
