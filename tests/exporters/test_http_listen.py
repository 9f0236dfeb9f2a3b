"""The Unix socket, who may release, what can be bound, and how the server stops."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import snapshots
from fakes import FakeClock
from serving import FakeDaemon, Served, read_answer, serving
from wattledger.errors import ListenError, MeterUnavailable
from wattledger.units import NS_PER_S
from wattledger_exporters.http import HttpServer, PageStore
from wattledger_exporters.http.app import App
from wattledger_exporters.http.listeners import parse_listen

# ── the Unix socket ───────────────────────────────────────────────────────────────────────────────


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
        "state": {"peer": Peer(1, uid, uid), "has_left": lambda: False},
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
            capture_output=True,
            timeout=20,
        )
        assert asked.stdout.startswith(b"HTTP/1.1 403"), asked.stderr
        assert b"You are uid 65534." in asked.stdout
        assert not it.daemon.released


# It becomes nobody only after its start: the interpreter may lie where nobody may look.
_ASK_FOR_RELEASE = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
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


# ── binding ───────────────────────────────────────────────────────────────────────────────────────


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
    started, go_on = threading.Event(), threading.Event()
    with serving() as it:

        def hangs() -> None:
            started.set()
            go_on.wait(60)

        it.daemon.on_totals = hangs
        with it.tcp.connect() as asking:
            asking.sendall(b"GET /api/v1/totals HTTP/1.1\r\nHost: x\r\n\r\n")
            assert started.wait(10)
            it.server.stop(0.1)
            thread = it.server._thread
            assert thread is not None
            thread.join(10)
            assert not thread.is_alive()
            go_on.set()


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
