"""HTTP over real sockets: methods, paths, pipelining, and bytes that are no HTTP."""

from __future__ import annotations

import re
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import Served


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/api/v1/status", "/api/v1/totals"])
def test_head_is_get_without_the_body(served: Served, path: str) -> None:
    head, get = served.tcp.request(path, "HEAD"), served.tcp.request(path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"])
def test_other_methods_are_refused(served: Served, method: str) -> None:
    answer = served.tcp.request("/metrics", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    answer = served.tcp.request("/api/v1/release", "GET")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "path",
    ["/metrics/", "//metrics", "/../../etc/passwd", "/%2e%2e/etc/passwd", "/metrics%00", "/api",
     "/api/v1/job", "/debug/pprof", "/page/status.css", "/%ff", "/favicon.ico"],
)  # fmt: skip
def test_only_known_paths_are_there(served: Served, path: str) -> None:
    answer = served.tcp.request(path)
    assert answer.status == 404
    assert "/metrics" in answer.json["error"]


def test_http_1_0(served: Served) -> None:
    answer = served.tcp.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    with served.tcp.connect() as sock:
        sock.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert _statuses(sock) == [b"200", b"404", b"200"]


def test_a_body_that_nobody_asked_for_is_no_obstacle(served: Served) -> None:
    body = b"x" * 100_000
    raw = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with served.tcp.connect() as sock:
        sock.sendall(raw + body + b"GET /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert _statuses(sock) == [b"200", b"404"]


def _statuses(sock: socket.socket) -> list[bytes]:
    received = b""
    while part := sock.recv(65536):
        received += part
    return re.findall(rb"HTTP/1.1 (\d+)", received)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),  # TLS to a plain port
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000, 431),
        (b"GET /" + b"a" * 9000, 431),
    ],
)
def test_what_is_not_http_is_told_so(served: Served, raw: bytes, status: int) -> None:
    answer = served.tcp.send(raw)
    assert answer.status == status
    assert answer.json["error"]
    assert answer.headers["connection"] == "close"


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the log of all examples
)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from(
                [b"GET /metrics HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n", b"POST / HTTP/1.1\r\n",
                 b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", b"Upgrade: websocket\r\n",
                 b"Connection: upgrade\r\n", b"CONNECT a:1 HTTP/1.1\r\n",
                 b"Expect: 100-continue\r\n",
                 b"Content-Length: 9\r\n", b"0\r\n\r\n", b"GET /api/v1/totals HTTP/1.1\r\n"]
            ),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_no_bytes_bring_the_server_down(
    served: Served, caplog: pytest.LogCaptureFixture, parts: list[bytes]
) -> None:
    with served.tcp.connect() as sock:
        try:
            for part in parts:
                sock.sendall(part)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except OSError:
            pass
    assert served.tcp.request("/healthz").status == 200
    assert "Traceback" not in caplog.text
