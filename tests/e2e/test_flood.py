"""A flood of half-sent requests and a peer that keeps silent: scrapes and turns go on."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
import trustme

from e2e.daemon import Daemon
from e2e.page import Page
from waiting import wait_until

HALF_SENT = 300
PASSWORD = "correct horse"
SCENARIO = """
[[gpu]]
model = "H100 SXM"
count = 4
waveform = { kind = "constant", watts = 300 }
"""


def secure(node: Daemon, authority: trustme.CA, *, users: bool = True) -> None:
    """A web configuration with TLS and one user."""
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(node.home / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(node.home / "cert.pem")
    (node.home / "key.pem").chmod(0o600)
    text = "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n"
    if users:
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        text += f"basic_auth_users: {{prometheus: '{hashed}'}}\n"
    (node.home / "web.yml").write_text(text)
    (node.home / "web.yml").chmod(0o600)


class Scraper:
    """Scrapes over TLS with a password."""

    def __init__(self, node: Daemon, authority: trustme.CA) -> None:
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)
        self._port = node.port

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self._port), timeout=5)
        return self.context.wrap_socket(plain, server_hostname="localhost")

    def get(self, password: str | None = PASSWORD) -> tuple[int, str]:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=5, context=self.context
        )
        headers = {}
        if password is not None:
            token = base64.b64encode(f"prometheus:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {token}"
        with contextlib.closing(connection):
            connection.request("GET", "/metrics", headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def page(self) -> Page:
        status, text = self.get()
        assert status == 200
        return Page(text)


def test_a_scrape_is_answered_within_a_second_under_a_flood(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    authority = trustme.CA()
    node = daemon(scenario=SCENARIO)
    secure(node, authority)
    node.configure(f"http.web_config = '{node.home / 'web.yml'}'")
    node.start()
    scraper = Scraper(node, authority)
    assert scraper.get(password=None)[0] == 401
    assert scraper.get(password="wrong")[0] == 401
    before = scraper.page()
    threads = _threads(node)

    with contextlib.ExitStack() as flood:
        silent = flood.enter_context(socket.create_connection(("127.0.0.1", node.port)))
        silent.setblocking(False)
        worst_s = 0.0
        for number in range(HALF_SENT):
            # Every second one gets as far as half a request; the others say half a hello.
            with contextlib.suppress(OSError):  # the server may drop whom it likes but scrapers
                if number % 2:
                    peer: socket.socket = flood.enter_context(scraper.connect())
                    peer.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                else:
                    peer = flood.enter_context(socket.create_connection(("127.0.0.1", node.port)))
                    peer.sendall(b"\x16\x03\x01")
            if number % 25 == 0:
                worst_s = max(worst_s, _timed(scraper))
        deadline = time.monotonic() + 6  # and on, through some turns of the meters
        while time.monotonic() < deadline:
            worst_s = max(worst_s, _timed(scraper))
            time.sleep(0.2)
        assert worst_s < 1.0
        assert _threads(node) <= threads + 2
        during = scraper.page()

    for meter in during.labels("meter_up", "meter"):
        assert during.one("meter_missed_ticks_total", meter=meter) == before.one(
            "meter_missed_ticks_total", meter=meter
        )
        assert during.one("meter_up", meter=meter) == 1
    assert during.sum("unobserved_seconds_total") == 0
    during.assert_not_below(before)
    # When the flood is over, nothing of it is left.
    wait_until(lambda: _descriptors(node) < 40, 20, "the sockets are closed")
    assert node.terminate() < 2
    node.assert_no_traceback()


def test_a_scrape_every_millisecond_reads_no_meter(daemon: Callable[..., Daemon]) -> None:
    """A thousand scrapes show no finer grain than the commit interval, and cost no turn."""
    node = daemon(scenario=SCENARIO).start()
    before = node.scrape()
    pages: set[bytes] = set()
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=5)
    with contextlib.closing(connection):
        for _ in range(1000):
            connection.request("GET", "/metrics")
            pages.add(connection.getresponse().read())
    after = node.scrape()
    commits = after.one("ledger_commits_total") - before.one("ledger_commits_total")
    assert len(pages) <= 1 + commits  # one page for each commit
    for meter in after.labels("meter_up", "meter"):
        assert after.one("meter_missed_ticks_total", meter=meter) == before.one(
            "meter_missed_ticks_total", meter=meter
        )


def _timed(scraper: Scraper) -> float:
    begun = time.monotonic()
    assert scraper.get()[0] == 200
    return time.monotonic() - begun


def _threads(node: Daemon) -> int:
    return len(list(Path(f"/proc/{node.pid}/task").iterdir()))


def _descriptors(node: Daemon) -> int:
    return len(list(Path(f"/proc/{node.pid}/fd").iterdir()))
