"""The server over real sockets of loopback: endpoints, formats, errors, who may release."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import snapshots
from fakes import FakeClock
from serving import FakeDaemon, Served, page_of, read_answer, serving
from wattledger.errors import LedgerError, ListenError, MeterUnavailable
from wattledger.units import NS_PER_S
from wattledger_exporters.http import HttpServer, PageStore, openapi
from wattledger_exporters.http.app import App
from wattledger_exporters.http.listeners import parse_listen


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with serving(tmp_path_factory.mktemp("s") / "api.sock") as it:
        yield it


# ── /metrics ────────────────────────────────────────────────────────────────────────────────────


def test_metrics_are_the_rendered_bytes(served: Served) -> None:
    page = page_of(snapshots.snapshot(), served.clock)
    answer = served.tcp.request("/metrics")
    assert (answer.status, answer.body) == (200, page.text)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert "server" not in answer.headers


def test_openmetrics_and_gzip_where_asked_for(served: Served) -> None:
    page = page_of(snapshots.snapshot(), served.clock)
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    answer = served.tcp.request("/metrics", Accept=accept, Accept_Encoding="gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert gzip.decompress(answer.body) == page.openmetrics
    assert served.tcp.request("/metrics", Accept=accept).body == page.openmetrics
    assert gzip.decompress(served.tcp.request("/metrics", Accept_Encoding="gzip").body) == page.text


def test_an_odd_version_is_no_error(served: Served) -> None:
    answer = served.tcp.request("/metrics", Accept="application/openmetrics-text;version=abc")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_thousand_scrapes_see_the_page_of_the_last_commit_only(served: Served) -> None:
    bodies = set()
    with served.tcp.connect() as sock:
        for _ in range(1000):
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            bodies.add(read_answer(sock).body)
    assert len(bodies) == 1


def test_the_page_goes_stale() -> None:
    with serving() as it:
        it.clock.advance(59)
        assert it.tcp.request("/metrics").status == 200
        it.clock.advance(2)
        answer = it.tcp.request("/metrics")
        assert answer.status == 503
        assert "1m1s old" in answer.json["error"]
        assert it.tcp.request("/readyz").status == 503
        assert it.tcp.request("/healthz").status == 200
        it.pages.publish(page_of(snapshots.snapshot(), it.clock))
        assert it.tcp.request("/metrics").status == 200


def test_staleness_follows_the_commit_interval() -> None:
    assert PageStore(FakeClock(), 5 * NS_PER_S).stale_after_ns == 60 * NS_PER_S
    assert PageStore(FakeClock(), 60 * NS_PER_S).stale_after_ns == 180 * NS_PER_S


# ── health ──────────────────────────────────────────────────────────────────────────────────────


def test_before_the_first_commit() -> None:
    with serving(ready=False) as it:
        assert it.tcp.request("/healthz").status == 200
        assert it.tcp.request("/-/healthy").status == 200
        for path in ("/readyz", "/-/ready", "/metrics", "/api/v1/status"):
            answer = it.tcp.request(path)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5"), path
            assert answer.json["error"]
        assert "starting" in it.tcp.request("/").body.decode()
        assert it.tcp.request("/api/v1/openapi.json").status == 200


def test_ready_says_why_not() -> None:
    with serving() as it:
        assert it.tcp.request("/readyz").status == 200
        snapshot = snapshots.snapshot()
        ledger = replace(
            snapshot.ledger, last_commit_ns=0, message="The disk is full.", hint="make room"
        )
        it.daemon.state = replace(snapshot, ledger=ledger)
        answer = it.tcp.request("/readyz")
        assert (answer.status, answer.json) == (
            503,
            {"error": "The disk is full.", "hint": "make room"},
        )


# ── the API ─────────────────────────────────────────────────────────────────────────────────────


def test_status_tells_meters_grid_and_provenance(served: Served) -> None:
    status = served.tcp.request("/api/v1/status").json
    down = next(meter for meter in status["meters"] if meter["meter"] == "hwmon")
    assert (down["up"], down["last_success"]) == (False, None)
    assert "CAP_DAC_READ_SEARCH" in down["hint"]
    assert status["grid"] == {
        "intensity_g_per_kwh": 400.5,
        "zone": "GB",
        "source": "neso",
        "basis": "lifecycle",
        "valid_from": "2027-01-15T06:00:00Z",
        "valid_to": "2027-01-15T06:30:00Z",
        "age_s": 7200,
        "fetched": "2027-01-15T06:03:20Z",
        "estimated": True,
        "level": 1,
        "level_name": "last good signal",
    }
    assert status["site"]["pue"] == {"value": 1.56, "source": "default"}
    gone = next(d for d in status["devices"] if d["device"] == snapshots.GPU.format(3))
    assert (gone["present"], gone["power_w"]) == (False, None)
    exact = sum(int(device["energy_uj"]) for device in status["devices"])
    assert status["totals"]["energy_uj"] == str(exact)


def test_totals(served: Served) -> None:
    answer = served.tcp.request("/api/v1/totals?since=24h&until=2027-01-15T07:00:00Z&by=kind").json
    now_ns = served.clock.now().wall_ns
    assert served.daemon.asked[-1] == (now_ns - 86_400 * NS_PER_S, now_ns - 3600 * NS_PER_S, "kind")
    assert answer["since"] == "2027-01-14T08:00:00Z"
    assert [row["group"] for row in answer["rows"]] == ["cpu", "gpu"]
    assert answer["rows"][0]["energy_uj"] == "9007199254740993"
    assert answer["total"]["energy_uj"] == str(9_007_199_254_740_993 + 3_600_000_000_000)
    assert answer["epoch"] == snapshots.snapshot().books.epoch


@pytest.mark.parametrize(
    "query",
    ["by=user", "since=yesterday", "since=1h&until=2h", "sinse=1", "by=all&by=all", "until=%ff",
     "since=2027-01-15T08:00:00", "by=hour&since=0"],
)  # fmt: skip
def test_a_bad_query_is_told_what_is_wrong(served: Served, query: str) -> None:
    asked = len(served.daemon.asked)
    answer = served.tcp.request(f"/api/v1/totals?{query}")
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.json["error"]) > 20
    assert len(served.daemon.asked) == asked


def test_a_slow_query_delays_no_scrape_and_too_many_are_turned_away() -> None:
    release = threading.Event()
    with serving() as it:
        it.daemon.on_totals = lambda: release.wait(20) and None
        socks = [it.tcp.connect() for _ in range(8)]
        try:
            for sock in socks:
                sock.sendall(b"GET /api/v1/totals HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            # One runs, four wait, three are told to come back; the scrape is not among them.
            refused = [read_answer(sock) for sock in socks[5:]]
            assert {answer.status for answer in refused} == {503}
            assert it.tcp.request("/metrics").status == 200
            release.set()
            assert [read_answer(sock).status for sock in socks[:5]] == [200] * 5
        finally:
            release.set()
            for sock in socks:
                sock.close()


def test_the_daemons_own_errors_are_told_and_its_faults_are_not() -> None:
    def locked() -> None:
        raise LedgerError("The ledger is damaged.", "see the log")

    def bug() -> None:
        raise ZeroDivisionError("secret detail")

    with serving() as it:
        it.daemon.on_totals = locked
        answer = it.tcp.request("/api/v1/totals")
        assert (answer.status, answer.json["hint"]) == (503, "see the log")
        it.daemon.on_totals = bug
        answer = it.tcp.request("/api/v1/totals")
        assert answer.status == 500
        assert b"secret" not in answer.body
        assert b"Traceback" not in answer.body
        assert it.tcp.request("/metrics").status == 200


def test_every_route_is_documented_and_nothing_else(served: Served) -> None:
    document = served.tcp.request("/api/v1/openapi.json").json
    app = App(FakeDaemon(), served.pages, served.clock, None)
    assert document == openapi.document("0.1.0")
    assert document["paths"].keys() == app.routes.keys()
    for path, operations in document["paths"].items():
        assert set(operations) == {"post"} if path.endswith("release") else {"get"}


def test_documented_schemas_fit_the_answers(served: Served) -> None:
    schema = openapi.document("")["components"]["schemas"]
    totals = served.tcp.request("/api/v1/totals").json
    assert totals.keys() == schema["Totals"]["properties"].keys()
    assert totals["rows"][0].keys() == schema["TotalsRow"]["properties"].keys()
    for name, column in schema["TotalsRow"]["properties"].items():
        kinds = {"string": str, "number": (int, float)}
        assert isinstance(totals["rows"][0][name], kinds[column["type"]])
        if "pattern" in column:
            assert re.fullmatch(column["pattern"], totals["rows"][0][name])


# ── the page for people ─────────────────────────────────────────────────────────────────────────


def test_status_page(served: Served) -> None:
    answer = served.tcp.request("/")
    html = answer.body.decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script" not in html
    for part in ("NVIDIA H100", "neso, zone GB, lifecycle, last good signal", "estimated", "down"):
        assert part in html
    assert not re.search(r"\$\w", html)


def test_nothing_from_outside_becomes_markup() -> None:
    evil = '"><script>alert(1)</script>\ud800'
    info = replace(snapshots.devices()[0], name=evil, model=evil)
    snapshot = snapshots.snapshot([info])
    meters = tuple(replace(m, message=evil, errors={evil: 1}) for m in snapshot.meters)
    signal = replace(snapshot.grid.signal, zone=evil, source=evil)
    sources = tuple(replace(s, source=evil, message=evil) for s in snapshot.sources)
    with serving() as it:
        it.daemon.state = replace(
            snapshot,
            meters=meters,
            grid=replace(snapshot.grid, signal=signal),
            sources=sources,
            simulated=evil,
            version=evil,
            ledger=replace(snapshot.ledger, message=evil, path=evil, quarantined=evil),
        )
        html = it.tcp.request("/").body.decode()
        assert "<script" not in html
        assert html.count("&lt;script&gt;") > 8
        assert it.tcp.request("/api/v1/status").status == 200


# ── methods, paths, protocol ────────────────────────────────────────────────────────────────────


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
     "/api/v1/jobs", "/debug/pprof", "/page/status.css", "/%ff", "/favicon.ico"],
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


# ── the Unix socket ─────────────────────────────────────────────────────────────────────────────


def test_the_same_api_stands_on_the_unix_socket(served: Served) -> None:
    assert served.unix is not None
    path = Path(served.unix.address)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    tcp, unix = (client.request("/api/v1/status") for client in (served.tcp, served.unix))
    assert tcp.json == unix.json


def test_release_is_for_the_daemons_user_on_the_socket(served: Served) -> None:
    assert served.unix is not None
    answer = served.unix.request("/api/v1/release?seconds=60", "POST")
    assert (answer.status, answer.json) == (200, {"message": "The GPUs are released."})
    assert served.unix.request("/api/v1/release", "POST").status == 200
    assert served.unix.request("/api/v1/release?seconds=0", "POST").status == 200
    assert served.daemon.released == [60 * NS_PER_S, 900 * NS_PER_S, 0]
    for query in ("seconds=-1", "seconds=86401", "seconds=x", "minutes=1"):
        assert served.unix.request(f"/api/v1/release?{query}", "POST").status == 400
    assert len(served.daemon.released) == 3


def test_release_over_tcp_is_refused_and_names_the_socket(served: Served) -> None:
    before = len(served.daemon.released)
    answer = served.tcp.request("/api/v1/release?seconds=60", "POST")
    assert answer.status == 403
    assert "Unix socket" in answer.json["error"]
    assert len(served.daemon.released) == before


async def _post_as(app: App, uid: int) -> int:
    from wattledger_exporters.http.connection import Peer

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        raise AssertionError("no body is read")

    scope = {
        "path": "/api/v1/release",
        "method": "POST",
        "query_string": b"",
        "headers": [],
        "state": {"peer": Peer(1, uid, uid)},
    }
    await app(scope, receive, send)
    return sent[0]["status"]  # type: ignore[return-value]


@pytest.mark.parametrize(("uid", "status"), [(0, 200), (1234, 200), (1000, 403), (65534, 403)])
def test_release_is_for_root_and_the_owner_only(uid: int, status: int) -> None:
    import asyncio

    daemon, clock = FakeDaemon(snapshots.snapshot()), FakeClock()
    app = App(daemon, PageStore(clock, NS_PER_S), clock, None, owner_uid=1234)
    assert asyncio.run(_post_as(app, uid)) == status
    assert bool(daemon.released) is (status == 200)
    app.stop()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_the_kernel_tells_who_asks() -> None:
    with tempfile.TemporaryDirectory(prefix="wl") as folder, serving(Path(folder) / "s") as it:
        Path(folder).chmod(0o755)
        asked = subprocess.run(
            [sys.executable, "-c", _ASK_FOR_RELEASE, str(Path(folder) / "s")],
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            timeout=20,
        )
        assert asked.stdout.startswith(b"HTTP/1.1 403"), asked.stderr
        assert b"You are uid 65534." in asked.stdout
        assert not it.daemon.released


_ASK_FOR_RELEASE = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.sendall(b"POST /api/v1/release HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    while part := sock.recv(65536):
        sys.stdout.buffer.write(part)
"""


def test_a_driver_that_hangs_is_told() -> None:
    def hangs() -> None:
        raise MeterUnavailable("hung", "The driver does not return.", "wait, then try again")

    with tempfile.TemporaryDirectory(prefix="wl") as folder, serving(Path(folder) / "s") as it:
        assert it.unix is not None
        it.daemon.on_release = hangs
        answer = it.unix.request("/api/v1/release", "POST")
        assert answer.status == 503
        assert answer.json["hint"] == "wait, then try again"


# ── binding ─────────────────────────────────────────────────────────────────────────────────────


def _server(listen: str, path: Path | None = None) -> HttpServer:
    clock = FakeClock()
    return HttpServer(FakeDaemon(), PageStore(clock, NS_PER_S), clock, listen=listen, socket=path)


@pytest.mark.parametrize(
    ("listen", "host_port"),
    [
        ("127.0.0.1:19400", ("127.0.0.1", 19400)),
        ("[::1]:0", ("::1", 0)),
        (":9", ("", 9)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_addresses(listen: str, host_port: tuple[str, int]) -> None:
    assert parse_listen(listen) == host_port


@pytest.mark.parametrize(
    "listen", ["19400", "::1:80", "127.0.0.1", "a:99999", "a:b", "[::1]", "x:-1"]
)
def test_what_is_no_address_is_told(listen: str) -> None:
    with pytest.raises(ListenError, match="write host:port"):
        _server(listen).start()


def test_a_port_in_use_is_one_clear_line(served: Served) -> None:
    with pytest.raises(ListenError, match=r"port \d+ of 127.0.0.1 is in use .*--listen"):
        _server(served.server.address).start()


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1 is not an address of this machine"):
        _server("192.0.2.1:0").start()


def test_the_socket_of_a_killed_daemon_is_replaced_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    living = _server("", path)
    living.start()
    try:
        assert living.address == ""
        with pytest.raises(ListenError, match="another daemon answers"):
            _server("", path).start()
        assert path.is_socket()
    finally:
        living.stop()
    assert not path.exists()


def test_a_socket_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(ListenError, match="is not a socket"):
        _server("", path).start()
    assert path.read_text() == "mine"
    with pytest.raises(ListenError, match="does not exist"):
        _server("", tmp_path / "no" / "s").start()
    with pytest.raises(ListenError, match="cannot be made"):
        _server("", tmp_path / ("x" * 120)).start()


def test_a_failed_start_leaves_nothing_bound(tmp_path: Path) -> None:
    with pytest.raises(ListenError):
        _server("127.0.0.1:0", tmp_path / "no" / "s").start()


def test_stop_lets_the_answer_in_hand_finish_and_is_quick() -> None:
    started, go_on = threading.Event(), threading.Event()
    with serving() as it:

        def slow() -> None:
            started.set()
            go_on.wait(10)

        it.daemon.on_totals = slow
        idle = it.tcp.connect()
        asking = it.tcp.connect()
        asking.sendall(b"GET /api/v1/totals HTTP/1.1\r\nHost: x\r\n\r\n")
        assert started.wait(10)
        stopper = threading.Thread(target=it.server.stop, args=(5.0,))
        stopper.start()
        assert idle.recv(1) == b""
        go_on.set()
        assert read_answer(asking).status == 200
        stopper.join(10)
        assert not stopper.is_alive()
        it.server.stop()  # a second time does no harm
        idle.close()
        asking.close()
        with pytest.raises(OSError):
            it.tcp.connect()


def test_stop_does_not_wait_for_what_hangs() -> None:
    go_on = threading.Event()
    before = _http_threads()
    with serving() as it:
        it.daemon.on_totals = lambda: go_on.wait(30) and None
        with it.tcp.connect() as asking:
            asking.sendall(b"GET /api/v1/totals HTTP/1.1\r\nHost: x\r\n\r\n")
            it.server.stop(0.1)
            assert _http_threads() == before
            go_on.set()


def _http_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "wattledger-http"}


def test_json_is_readable_by_people(served: Served) -> None:
    body = served.tcp.request("/healthz").body
    assert body == (json.dumps({"status": "ok"}, indent=2) + "\n").encode()


def test_an_address_open_to_the_network_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for listen, warnings in (("127.0.0.1:0", 0), ("[::1]:0", 0), (":0", 1)):
        caplog.clear()
        try:
            server = _server(listen)
            server.start()
        except ListenError:
            assert listen == "[::1]:0"  # a machine without IPv6
            continue
        server.stop()
        assert [record.levelname for record in caplog.records] == ["WARNING"] * warnings


def test_the_page_for_people_is_well_formed(served: Served) -> None:
    from html.parser import HTMLParser

    opened: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Balance().feed(served.tcp.request("/").body.decode())
    assert opened == []
