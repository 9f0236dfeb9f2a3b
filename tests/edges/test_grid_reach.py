"""Where the client goes and whom it believes: addresses, proxies, TLS, and the token's secrecy."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

import grid_server as play
from grid_asking import CANARY, LOOPBACK, ask
from grid_server import GridServer
from wattledger.errors import GridError
from wattledger.grid.address import check_url
from wattledger.grid.client import HttpClient, check_proxy
from wattledger.grid.secret import Secret

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
