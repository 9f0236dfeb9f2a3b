"""Sockets that systemd listens on: taken over, held until there is an answer, left open."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import snapshots
from fakes import FakeClock
from serving import Answer, FakeDaemon, Served, page_of, read_answer, serving
from wattledger.errors import ListenError
from wattledger.units import NS_PER_S
from wattledger_exporters.http import HttpServer, PageStore, inherited_sockets

# A child of which the sockets are file descriptors 3, 4, …, as of a service.
_TAKE = """
import os, sys
from wattledger.errors import ListenError
from wattledger_exporters.http import inherited_sockets
if os.environ["LISTEN_PID"] == "me":
    os.environ["LISTEN_PID"] = str(os.getpid())
try:
    for sock in inherited_sockets():
        print(sock.fileno(), sock.family.name, sock.get_inheritable())
except ListenError as error:
    print(error)
print(sorted(name for name in os.environ if name.startswith("LISTEN_")))
"""


def _child(*sockets: socket.socket, pid: str = "me", names: str = "a:b", count: str = "") -> str:
    # The shell moves them to where systemd puts them; first out of each other's way.
    fds = [sock.fileno() for sock in sockets]
    moves = "".join(f"exec {50 + n}<&{fd};" for n, fd in enumerate(fds))
    moves += "".join(f"exec {3 + n}<&{50 + n} {50 + n}<&-;" for n in range(len(fds)))
    done = subprocess.run(
        ["bash", "-c", f'{moves} exec "$0" -c "$1"', sys.executable, _TAKE],
        capture_output=True,
        text=True,
        pass_fds=fds,
        env={
            **os.environ,
            "LISTEN_PID": pid,
            "LISTEN_FDS": count or str(len(fds)),
            "LISTEN_FDNAMES": names,
        },
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_sockets_of_both_kinds_are_taken_over_and_no_child_will_see_them(
    tcp: socket.socket, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        told = _child(tcp, unix)
    assert told.splitlines() == ["3 AF_INET False", "4 AF_UNIX False", "[]"]


def test_those_of_another_process_are_left_alone(tcp: socket.socket) -> None:
    assert _child(tcp, pid="1") == "[]\n"
    assert _child(tcp, count="many") == "[]\n"


def test_what_cannot_be_listened_on_is_named(tcp: socket.socket, tmp_path: Path) -> None:
    one, other = socket.socketpair()
    with one, other, (tmp_path / "file").open("w") as file:
        assert "file descriptor 4 (b) of systemd is not listened on" in _child(tcp, one)
        assert "file descriptor 3 (a) of systemd is not listened on" in _child(one)
        assert "file descriptor 3 (a) of systemd is no socket" in _child(file)  # type: ignore[arg-type]
    assert "file descriptor 4 (unknown) of systemd is no socket" in _child(
        tcp, names="a", count="2"
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        with pytest.raises(ListenError, match="not listened on"):
            _in_this_process(datagrams)


def _in_this_process(sock: socket.socket) -> list[socket.socket]:
    """As above where descriptor 3 is free, so that the errors are seen as they are raised."""
    from wattledger_exporters.http.listeners import _take_over

    return [_take_over(os.dup(sock.fileno()), "x")]


def test_nothing_is_inherited_by_default() -> None:
    assert inherited_sockets({}) == []


def _server(*inherited: socket.socket, path: Path | None = None) -> tuple[HttpServer, PageStore]:
    clock = FakeClock()
    pages = PageStore(clock, NS_PER_S)
    daemon = FakeDaemon(snapshots.snapshot())
    server = HttpServer(
        daemon, pages, clock, listen="127.0.0.1:1", socket=path, inherited=inherited
    )
    return server, pages


def _ask(listener: socket.socket) -> socket.socket:
    asking = socket.create_connection(listener.getsockname(), 10)
    asking.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return asking


def _read(asking: socket.socket) -> Answer:
    with asking:
        return read_answer(asking)


def test_who_asks_during_a_restart_waits_and_is_answered(tcp: socket.socket) -> None:
    """systemd's copy of the socket is `tcp`; each life of the daemon has one of its own."""
    first, pages = _server(tcp.dup())
    first.start()
    assert first.address == "{}:{}".format(*tcp.getsockname())  # and not of http.listen
    early = _ask(tcp)  # before there is a page: it is not refused with a 503
    pages.publish(page_of(snapshots.snapshot(), FakeClock()))
    first.welcome()
    assert _read(early).status == 200
    first.stop(0.3)
    between = _ask(tcp)  # nobody is there
    second, pages = _server(tcp.dup())
    second.start()
    assert second.answers(5)
    pages.publish(page_of(snapshots.snapshot(), FakeClock()))
    second.welcome()
    assert _read(between).status == 200
    second.stop(0.3)


def test_an_inherited_unix_socket_takes_the_place_of_ones_own_and_its_file_stays(
    tcp: socket.socket, tmp_path: Path
) -> None:
    path, own = tmp_path / "s", tmp_path / "own"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        server, pages = _server(tcp.dup(), unix.dup(), path=own)
        pages.publish(page_of(snapshots.snapshot(), FakeClock()))
        server.start()
        server.welcome()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(path))
            asking.sendall(b"GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_answer(asking).status == 200  # of a Unix peer: over TCP it is a 403
        assert server.socket_path == path
        server.stop(0.3)
        assert path.is_socket()
        assert not own.exists()


def test_a_release_is_not_for_who_has_given_up_meanwhile(tmp_path: Path) -> None:
    """A hook that waited for a daemon that starts, was killed, and whose cause is long over."""
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        asked = b"POST /api/v1/release?seconds=%d HTTP/1.1\r\nHost: x\r\n\r\n"
        with socket.socket(socket.AF_UNIX) as gone:
            gone.connect(str(tmp_path / "s"))
            gone.sendall(asked % 60)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.settimeout(10)
            waiting.connect(str(tmp_path / "s"))
            waiting.sendall(asked % 70)
            with serving(inherited=[unix.dup()]) as it:
                it.server.welcome()
                assert read_answer(waiting).status == 200
                assert it.daemon.released == [70 * NS_PER_S]


def test_a_unix_socket_alone_leaves_tcp_to_the_settings(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        clock = FakeClock()
        server = HttpServer(
            FakeDaemon(), PageStore(clock, NS_PER_S), clock, listen="127.0.0.1:0",
            inherited=[unix.dup()],
        )  # fmt: skip
        server.start()
        assert server.address.startswith("127.0.0.1:")
        server.stop(0.3)


def test_each_open_address_is_warned_of_not_only_the_first(
    tcp: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as everywhere:  # nobody listens on it before the welcome
        everywhere.bind(("0.0.0.0", 0))
        server, _ = _server(tcp.dup(), everywhere.dup())
        server.start()
        server.stop(0.3)
        port = everywhere.getsockname()[1]
    warned = [record.getMessage() for record in caplog.records if "password" in record.getMessage()]
    assert [text.partition(" is open")[0] for text in warned] == [f"0.0.0.0 port {port}"]


# ── the end: who has just come in is still answered ───────────────────────────────────────────────


def _connected(served: Served) -> socket.socket:
    """A client that the server has let in and that has not asked yet."""
    before = len(served.server._listeners[0].gate.open())
    sock = served.tcp.connect()
    while len(served.server._listeners[0].gate.open()) == before:
        assert served.server.answers(5)
    return sock


def test_a_request_that_comes_while_the_server_ends_is_answered() -> None:
    with serving() as it, _connected(it) as sock:
        stopper = threading.Thread(target=it.server.stop, args=(5.0,))
        stopper.start()
        while it.server._listeners[0].sock.fileno() >= 0:
            assert it.server.answers(5)
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(sock).status == 200
        assert sock.recv(1) == b""  # and no more than that one
        stopper.join(10)
        assert not stopper.is_alive()


def test_who_never_asks_does_not_hold_the_end() -> None:
    with serving() as it, _connected(it) as sock:
        it.server.stop(30.0)
        assert sock.recv(1) == b""
