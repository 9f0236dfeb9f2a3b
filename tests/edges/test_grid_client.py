"""The client over real sockets: every hostile reply ends in time, in bounds, and by its name."""

from __future__ import annotations

import logging
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

import grid_server as play
from grid_server import GridServer, Script
from wattledger.errors import GridError
from wattledger.grid.address import check_url
from wattledger.grid.client import HttpClient, check_proxy, retry_after_s
from wattledger.grid.outcome import Outcome
from wattledger.grid.secret import Secret

CANARY = "canary-7f3a9c"
LOOPBACK = {"127.0.0.1", "localhost"}


def ask(server: GridServer, deadline_s: float = 5.0, **options: object) -> object:
    client = HttpClient(deadline_s=deadline_s, **options)  # type: ignore[arg-type]
    return client.get_json(
        f"{server.url}/x?zone=GB",
        allow_hosts=LOOPBACK,
        secret_headers={"auth-token": Secret(CANARY)},
    )


def outcome(script: Script, deadline_s: float = 5.0) -> GridError:
    """What a script ends in; the token is in none of it."""
    with GridServer(script) as server, pytest.raises(GridError) as caught:
        ask(server, deadline_s)
    error = caught.value
    assert error.outcome in list(Outcome)
    assert error.hint
    assert CANARY not in f"{error!s} {error!r} {error.args} {error.__cause__!r}"
    return error


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


# ── where it may go ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://api.example/x",
        "gopher://api.example/",
        "http://api.example/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1.example/x",
        "http://0x7f000001/",
        "http://2130706433/",
        "https://user:secret@api.example/",
        "https://api.example@evil.example/",
        "https://",
        "https:///path",
        "//api.example/x",
        "api.example",
        "https://api.example:99999/",
        "https://api.example:x/",
        "https://[::1/",
        "https://api.example/\r\nX: y",
        "https://api.example/ x",
        "https://äpi.example/",
        "",
    ],
)
def test_a_url_that_must_not_be_asked(url: str) -> None:
    with pytest.raises(GridError) as caught:
        HttpClient().get_json(url, allow_hosts={"api.example", "169.254.169.254"})
    assert caught.value.outcome == "blocked"
    assert "secret" not in str(caught.value)


@given(st.from_regex(r"[!-.0-~]{1,30}", fullmatch=True), st.from_regex(r"[!-~]{0,30}"))
@example("1.2.3.999", "")
@example("xn--zz--zz", "/")
@example("a..b", "/%zz/../x?a=%")
@example("[fe80::1%25eth0]", "/")
@example("x", "/" + "x" * 70_000)
def test_no_url_that_passes_the_check_ends_in_anything_but_ours(host: str, rest: str) -> None:
    url = f"https://{host}/{rest}"
    try:
        allowed = {check_url(url).host}
    except ValueError:
        return
    client = HttpClient(resolve=lambda host, port: [])
    with pytest.raises(GridError) as caught:
        client.get_json(url, allow_hosts=allowed)
    assert caught.value.outcome in ("blocked", "connect_error")


@pytest.mark.parametrize("target", ["/", "/a%20b", "/x?a=1&b=%2C,:;[]'|", "//x", "/v3/a?z=US-X"])
def test_a_target_is_asked_for_as_it_was_written(target: str) -> None:
    with GridServer(play.reply(body={})) as server:
        HttpClient().get_json(server.url + target, allow_hosts=LOOPBACK)
    assert server.requests[0].target == target


def test_a_host_that_is_not_the_sources_own() -> None:
    with pytest.raises(GridError) as caught:
        HttpClient().get_json("https://evil.example/", allow_hosts={"api.example"})
    assert caught.value.outcome == "blocked"


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "224.0.0.1",
        "ff02::1",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_a_name_that_leads_inside_is_refused(address: str, private: bool) -> None:
    client = HttpClient(resolve=lambda host, port: ["93.184.216.34", address])
    with pytest.raises(GridError) as caught:
        client.get_json("https://api.example/", allow_hosts={"api.example"}, private=private)
    assert caught.value.outcome == "blocked"


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1", "fc00::1"]
)
def test_a_private_address_is_for_urls_of_the_operators_choice(address: str) -> None:
    from wattledger.grid.address import check_address

    url = check_url("https://carbon.corp.example/")
    check_address(address, url, private=True)
    with pytest.raises(GridError):
        check_address(address, url, private=False)


def test_localhost_that_leads_outside_is_refused() -> None:
    client = HttpClient(resolve=lambda host, port: ["93.184.216.34"])
    with pytest.raises(GridError) as caught:
        client.get_json("http://localhost:1/", allow_hosts={"localhost"})
    assert caught.value.outcome == "blocked"


def test_a_name_without_an_address() -> None:
    client = HttpClient(resolve=lambda host, port: [])
    with pytest.raises(GridError) as caught:
        client.get_json("https://api.example/", allow_hosts={"api.example"})
    assert caught.value.outcome == "connect_error"


def test_the_next_address_is_tried() -> None:
    with GridServer(play.reply(body={})) as server:
        # Nothing listens on ::1 at this port.
        client = HttpClient(resolve=lambda host, port: ["::1", "127.0.0.1"])
        assert client.get_json(f"http://localhost:{server.port}/", allow_hosts=LOOPBACK) == {}


def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with GridServer(play.reply(body={})) as proxy, GridServer(play.reply(body={})) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        ask(server)
        assert proxy.requests == []
        assert len(server.requests) == 1


def test_the_configured_proxy_is_asked_to_connect_and_sees_no_token() -> None:
    with GridServer(play.reply(403)) as proxy, pytest.raises(GridError) as caught:
        HttpClient(proxy=proxy.url).get_json(
            "https://api.example/x?zone=GB",
            allow_hosts={"api.example"},
            secret_headers={"auth-token": Secret(CANARY)},
        )
    assert caught.value.outcome == "connect_error"
    [request] = proxy.requests
    assert (request.method, request.target) == ("CONNECT", "api.example:443")
    assert CANARY not in str(request)


def test_a_proxy_is_no_way_around_the_address_check() -> None:
    with GridServer(play.reply(403)) as proxy, pytest.raises(GridError) as caught:
        HttpClient(proxy=proxy.url).get_json(
            "https://169.254.169.254/", allow_hosts={"169.254.169.254"}
        )
    assert caught.value.outcome == "blocked"
    assert proxy.requests == []


def test_loopback_never_goes_through_the_proxy() -> None:
    with GridServer(play.reply(body={})) as proxy, GridServer(play.reply(body={})) as server:
        ask(server, proxy=proxy.url)
        assert proxy.requests == []


@pytest.mark.parametrize(
    "proxy",
    [
        "proxy:3128",
        "https://proxy:3128",
        "socks5://p:1",
        "http://u:p@p:1",
        "http://p",
        "http://p:1/x",
    ],
)
def test_a_proxy_that_cannot_be_used(proxy: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        check_proxy(proxy)


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return authority, path


def _server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def test_https_with_a_trusted_certificate(authority: tuple[trustme.CA, Path]) -> None:
    tls = _server_context(authority[0], "localhost")
    with GridServer(play.reply(body={"ok": 1}), tls=tls) as server:
        assert ask(server, ca_file=authority[1]) == {"ok": 1}


def test_the_deadline_holds_under_tls(authority: tuple[trustme.CA, Path]) -> None:
    tls = _server_context(authority[0], "localhost")
    with GridServer(play.drip_body(), tls=tls) as server, pytest.raises(GridError) as caught:
        ask(server, 0.5, ca_file=authority[1])
    assert caught.value.outcome == "timeout"


def test_an_unknown_authority_is_a_tls_error(authority: tuple[trustme.CA, Path]) -> None:
    tls = _server_context(authority[0], "localhost")
    with GridServer(play.reply(body={}), tls=tls) as server, pytest.raises(GridError) as caught:
        ask(server)
    assert caught.value.outcome == "tls_error"
    assert server.requests == []


def test_another_hosts_certificate_is_a_tls_error(authority: tuple[trustme.CA, Path]) -> None:
    tls = _server_context(authority[0], "other.example")
    with GridServer(play.reply(body={}), tls=tls) as server, pytest.raises(GridError) as caught:
        ask(server, ca_file=authority[1])
    assert caught.value.outcome == "tls_error"
    assert server.requests == []


def test_a_peer_that_speaks_no_tls_is_a_tls_error() -> None:
    server = GridServer(play.silent(), greeting=b"220 mail.example ESMTP\r\n")
    with server, pytest.raises(GridError) as caught:
        HttpClient(deadline_s=5).get_json(f"https://localhost:{server.port}/", allow_hosts=LOOPBACK)
    assert caught.value.outcome == "tls_error"


def test_a_proxy_carries_tls_from_end_to_end(authority: tuple[trustme.CA, Path]) -> None:
    tls = _server_context(authority[0], "api.example")
    with (
        GridServer(play.reply(body={"ok": 1}), tls=tls) as server,
        GridServer(play.tunnel(server.port)) as proxy,
    ):
        reply = HttpClient(proxy=proxy.url, ca_file=authority[1]).get_json(
            "https://api.example/x",
            allow_hosts={"api.example"},
            secret_headers={"auth-token": Secret(CANARY)},
        )
    assert reply == {"ok": 1}
    assert server.requests[0].headers["auth-token"] == CANARY
    assert CANARY not in str(proxy.requests)


# ── secrecy and footprint ───────────────────────────────────────────────────────────────────────


def test_the_token_is_in_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for level in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(logging.DEBUG, logger=level)
    echo = {"X-Echo": CANARY, "Content-Length": "2"}
    with GridServer(play.in_turn(play.reply(body={}), play.reply(401, {"e": CANARY}))) as server:
        ask(server)
        with pytest.raises(GridError):
            ask(server)
        server.script = play.reply(200, b"", echo)
        with pytest.raises(GridError):
            ask(server)
    assert server.requests[0].headers["auth-token"] == CANARY
    assert CANARY not in caplog.text


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
