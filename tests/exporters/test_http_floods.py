"""Floods, slow clients and silent peers: a scrape is answered all the same."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

import snapshots
from serving import Answer, Client, Served, page_of, read_answer, serving
from wattledger_exporters.http.connection import Limits

HALF = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: "
ASK = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
GREEDY = ASK * 200
# Milliseconds, on a machine that does nothing else. Whoever waits for a slow client to be cut off
# waits for longer than this.
PROMPT_S = 0.8 * min(Limits().head_s, Limits().handshake_s)
QUICK = Limits(head_s=0.4, request_s=0.6, idle_s=0.8, handshake_s=0.4, connections=8)


@pytest.fixture
def web_config(write: Callable[[str], Path]) -> Path:
    return write("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n")


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextlib.contextmanager
def flood(
    client: Client, count: int, say: bytes, receive: int = 0
) -> Iterator[list[socket.socket]]:
    """So many connections that say something and then nothing more, and read nothing."""
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket(client.family))
            sock.settimeout(10)
            if receive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
            sock.connect(client.address)
            with contextlib.suppress(OSError):  # cut off already
                sock.sendall(say)
            socks.append(sock)
        yield socks


def scrape(client: Client) -> tuple[Answer, float]:
    begun = time.monotonic()
    answer = client.request("/metrics")
    return answer, time.monotonic() - begun


def publish_large(it: Served) -> None:
    """A page of which the kernel holds but a few for a client that does not read."""
    page = page_of(snapshots.snapshot(), it.clock)
    it.pages.publish(page._replace(text=page.text + b"#" * 250_000))


def scrape_amid(client: Client, another: Callable[[], object]) -> None:
    """For a second, in which the buffers fill, and `another` takes the place of who had to go."""
    end = time.monotonic() + 1
    while time.monotonic() < end:
        answer, took_s = scrape(client)
        assert answer.status == 200
        assert took_s < PROMPT_S
        another()


def cut_off(sock: socket.socket, within_s: float) -> bool:
    sock.settimeout(within_s)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def test_300_half_requests_and_a_silent_tls_peer_hold_up_no_scrape(
    web_config: Path, tls: ssl.SSLContext
) -> None:
    threads = threading.active_count()
    with serving(web_config=web_config, tls=tls) as it:
        plain = Client(it.tcp.family, it.tcp.address)
        with flood(plain, 1, b""), flood(plain, 300, HALF):
            answer, took_s = scrape(it.tcp)
            assert answer.status == 200
            assert took_s < PROMPT_S
            assert threading.active_count() <= threads + 1


def test_300_half_requests_inside_tls(web_config: Path, tls: ssl.SSLContext) -> None:
    with serving(web_config=web_config, tls=tls) as it, contextlib.ExitStack() as stack:
        for _ in range(100):
            sock = stack.enter_context(it.tcp.connect())
            with contextlib.suppress(OSError):
                sock.sendall(HALF)
        answer, took_s = scrape(it.tcp)
        assert answer.status == 200
        assert took_s < PROMPT_S


def test_300_half_requests_over_plain_http() -> None:
    threads = threading.active_count()
    with serving() as it, flood(it.tcp, 300, HALF) as socks:
        answer, took_s = scrape(it.tcp)
        assert answer.status == 200
        assert took_s < PROMPT_S
        assert threading.active_count() <= threads + 1
        # Those that waited longest had to go; the cap held.
        assert all(cut_off(sock, 2) for sock in socks[:200])


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_70_clients_that_read_no_answer_lock_nobody_out(tmp_path: Path, over: str) -> None:
    with serving(tmp_path / "s") as it, contextlib.ExitStack() as stack:
        publish_large(it)
        client: Client = getattr(it, over)

        def greedy(count: int = 1) -> None:
            stack.enter_context(flood(client, count, GREEDY, receive=2048))

        greedy(70)
        scrape_amid(client, greedy)


def test_70_clients_that_read_no_answer_inside_tls(web_config: Path, tls: ssl.SSLContext) -> None:
    with serving(web_config=web_config, tls=tls) as it, contextlib.ExitStack() as stack:
        publish_large(it)
        plain = Client(it.tcp.family, it.tcp.address)

        def greedy() -> None:
            (sock,) = stack.enter_context(flood(plain, 1, b"", receive=2048))
            secure = stack.enter_context(tls.wrap_socket(sock, server_hostname="localhost"))
            secure.sendall(GREEDY)

        for _ in range(70):
            greedy()
        scrape_amid(it.tcp, greedy)


def test_a_flood_of_the_unix_socket_is_not_one_of_tcp(tmp_path: Path) -> None:
    with serving(tmp_path / "s") as it:
        assert it.unix is not None
        with flood(it.unix, 100, HALF):
            assert scrape(it.tcp)[0].status == 200
            assert scrape(it.unix)[0].status == 200


def test_a_kept_connection_outlives_a_flood_of_half_requests() -> None:
    with serving() as it, it.tcp.connect() as kept:
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(kept).status == 200
        with flood(it.tcp, 200, HALF):
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(kept).status == 200


def test_a_request_that_drips_is_cut_off_at_its_deadline() -> None:
    with serving(limits=QUICK) as it, it.tcp.connect() as sock:
        sock.settimeout(0.05)
        sock.sendall(HALF)
        for _ in range(100):  # 5 s of a byte now and then; the deadline is 0.4 s
            try:
                sock.sendall(b"a")
                if sock.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("a dripping head is kept for ever")


def test_a_second_request_that_drips_is_cut_off_too() -> None:
    with serving(limits=QUICK) as it, it.tcp.connect() as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /met")
        assert cut_off(sock, 5)


def test_a_body_that_drips_is_cut_off() -> None:
    with serving(limits=QUICK) as it, it.tcp.connect() as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\na")
        assert cut_off(sock, 5)


@pytest.mark.parametrize("say", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_silence_is_not_kept_for_ever(say: bytes) -> None:
    with serving(limits=QUICK) as it, it.tcp.connect() as sock:
        sock.sendall(say)
        assert cut_off(sock, 5)


def test_a_client_that_takes_no_answers_is_cut_off() -> None:
    many = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 2000
    with serving(limits=QUICK) as it, it.tcp.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(5)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            _send_for_ever(sock, many)
        assert it.tcp.request("/healthz").status == 200


def _send_for_ever(sock: socket.socket, say: bytes) -> None:
    while True:
        sock.sendall(say)


def test_a_silent_tls_handshake_is_cut_off(web_config: Path, tls: ssl.SSLContext) -> None:
    with serving(limits=QUICK, web_config=web_config, tls=tls) as it:
        plain = Client(it.tcp.family, it.tcp.address)
        with plain.connect() as silent, plain.connect() as half:
            half.sendall(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a ClientHello
            assert cut_off(silent, 5)
            assert cut_off(half, 5)
        assert scrape(it.tcp)[0].status == 200


def test_when_everybody_is_being_served_the_next_one_waits_outside() -> None:
    go_on = threading.Event()
    with serving(limits=Limits(connections=3)) as it:
        it.daemon.on_totals = lambda: go_on.wait(10) and None
        asking = [it.tcp.connect() for _ in range(3)]
        try:
            for sock in asking:
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_answer(sock).status == 200
            for sock in asking:
                sock.sendall(b"GET /api/v1/totals HTTP/1.1\r\nHost: x\r\n\r\n")
            with it.tcp.connect() as fourth:
                assert cut_off(fourth, 5)
            go_on.set()
            assert [sock.recv(15) for sock in asking] == [b"HTTP/1.1 200 OK"] * 3
        finally:
            go_on.set()
            for sock in asking:
                sock.close()


def test_a_stop_amid_a_flood_is_quick() -> None:
    with serving() as it, flood(it.tcp, 100, HALF):
        begun = time.monotonic()
        it.server.stop(30.0)
        assert time.monotonic() - begun < PROMPT_S


def test_a_connection_that_has_closed_does_not_wait_for_the_collector() -> None:
    gc.disable()
    try:
        with serving() as it:
            with it.tcp.connect() as sock:
                sock.sendall(ASK)
                assert read_answer(sock).status == 200
                (listener,) = it.server._listeners
                opened = [weakref.ref(connection) for connection in listener.gate.open()]
            assert len(opened) == 1
            deadline = time.monotonic() + 5
            while opened[0]() is not None and time.monotonic() < deadline:
                time.sleep(0.01)
            assert opened[0]() is None
    finally:
        gc.enable()
