"""Certificates, authorities and users change under a server that goes on."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from serving import Client, Served, read_answer, serving
from wattledger.errors import ConfigError
from wattledger_exporters.certificate import not_after_ns
from wattledger_exporters.web_config import LiveWebConfig

TLS = "cert_file: cert.pem, key_file: key.pem"
MUTUAL = f"{TLS}, client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert"
LONG_AGO_NS = 1 << 62  # by this clock every file was written long ago
PATIENCE_S = 20.0


def live(path: Path, wall_ns: Callable[[], int] = lambda: LONG_AGO_NS) -> LiveWebConfig:
    """Looks at its files each time that it is asked."""
    return LiveWebConfig(path, now_s=iter(range(1000)).__next__, wall_ns=wall_ns)


def trusting(*authorities: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for authority in authorities:
        authority.configure_trust(context)
    return context


def replace(path: Path, raw: bytes) -> None:
    """As who renews certificates well: all of it or nothing."""
    beside = path.with_suffix(".new")
    beside.write_bytes(raw)
    beside.rename(path)


class Pair:
    """A certificate for localhost and its key."""

    def __init__(self, authority: trustme.CA) -> None:
        made = authority.issue_cert("localhost")
        self.cert = made.cert_chain_pems[0].bytes()
        self.key = made.private_key_pem.bytes()
        self.der = ssl.PEM_cert_to_DER_cert(self.cert.decode())


# ── what is taken up, and when ──────────────────────────────────────────────────────────────────


def test_a_key_that_comes_after_its_certificate(
    write: Callable[[str], Path], authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(f"tls_server_config: {{{TLS}}}")
    config, pair = live(path), Pair(authority)
    before = config.current.context
    replace(path.with_name("cert.pem"), pair.cert)
    assert config.current.context is before
    assert config.current.context is before
    assert "the key of another one" in config.status.fault
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    replace(path.with_name("key.pem"), pair.key)
    assert config.current.context is not before
    assert config.status.fault == ""
    assert config.status.certificate_until_ns == not_after_ns(pair.cert)


def test_a_volume_of_kubernetes_is_swapped_at_once(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    def publish(number: int) -> None:
        pair, folder = Pair(authority), tmp_path / f"..{number}"
        folder.mkdir()
        (folder / "tls.crt").write_bytes(pair.cert)
        (folder / "tls.key").write_bytes(pair.key)
        (tmp_path / "..new").symlink_to(folder.name)
        (tmp_path / "..new").rename(tmp_path / "..data")

    publish(1)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    path = tmp_path / "web.yml"
    path.write_text("tls_server_config: {cert_file: tls.crt, key_file: tls.key}")
    config = live(path)
    seen = {config.current.context}
    for number in (2, 3):
        publish(number)
        seen.add(config.current.context)
    assert len(seen) == 3
    assert {record.levelname for record in caplog.records} <= {"INFO"}


def test_a_file_that_is_being_written_is_left_alone(write: Callable[[str], Path]) -> None:
    users = "basic_auth_users: {alice: $2b$04$" + "a" * 53 + "}"
    path = write(users)
    config = live(path, wall_ns=lambda: wall_ns)
    wall_ns = path.stat().st_ctime_ns
    path.write_text("")  # opened to be written: for a moment nobody needs a password
    wall_ns = path.stat().st_ctime_ns + 500_000_000
    assert config.current.users
    path.write_text(users.replace("alice", "bob"))
    wall_ns = path.stat().st_ctime_ns + 999_999_999
    assert set(config.current.users) == {"alice"}
    wall_ns += 1
    assert set(config.current.users) == {"bob"}


def test_a_clock_that_was_set_back_stops_no_renewal(write: Callable[[str], Path]) -> None:
    path = write("{}")
    config = live(path, wall_ns=lambda: 0)
    path.write_text("http_server_config: {headers: {X-XSS-Protection: 1}}")
    assert config.current.headers


def test_a_file_that_was_missing_is_waited_for(
    write: Callable[[str], Path], authority: trustme.CA
) -> None:
    path, pair = write("{}"), Pair(authority)
    config = live(path)
    replace(path, b"tls_server_config: {cert_file: late.pem, key_file: key.pem}")
    assert config.current.context is None
    assert "late.pem cannot be read" in config.status.fault
    path.with_name("key.pem").write_bytes(pair.key)
    path.with_name("late.pem").write_bytes(pair.cert)
    assert config.current.context is not None


def test_what_is_too_large_is_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 5 << 20)
    with pytest.raises(ConfigError, match="larger than 4 MiB"):
        live(path)


# ── under load ──────────────────────────────────────────────────────────────────────────────────


class Scrapers:
    """One that connects anew for each scrape and one that keeps its connection, until the end."""

    def __init__(self, it: Served, context: ssl.SSLContext) -> None:
        self.failed: list[BaseException] = []
        self.done = 0
        self._client = Client(it.tcp.family, it.tcp.address, context)
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, args=(work,)) for work in (self._anew, self._kept)
        ]

    def __enter__(self) -> Scrapers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _loop(self, work: Callable[[], None]) -> None:
        try:
            while not self._end.is_set():
                work()
                self.done += 1
        except BaseException as error:
            self.failed.append(error)

    def _anew(self) -> None:
        assert self._client.request("/metrics").status == 200

    def _kept(self) -> None:
        with self._client.connect() as sock:
            while not self._end.is_set():
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = read_answer(sock)
                assert answer.status == 200
                self.done += 1
                if answer.headers.get("connection") == "close":
                    return


def served_certificate(it: Served, context: ssl.SSLContext) -> bytes | None:
    with Client(it.tcp.family, it.tcp.address, context).connect() as sock:
        assert isinstance(sock, ssl.SSLSocket)
        return sock.getpeercert(binary_form=True)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_certificates_are_renewed_under_load_without_a_failed_scrape(
    write: Callable[[str], Path], authority: trustme.CA
) -> None:
    path = write(f"tls_server_config: {{{TLS}}}")
    context = trusting(authority)
    with serving(web_config=path, tls=context) as it, Scrapers(it, context) as scrapers:
        for _ in range(2):
            pair = Pair(authority)
            replace(path.with_name("key.pem"), pair.key)  # a moment without a pair that fits
            replace(path.with_name("cert.pem"), pair.cert)
            wait_until(lambda der=pair.der: served_certificate(it, context) == der)  # type: ignore[misc]
            done = scrapers.done
            wait_until(lambda done=done: scrapers.done > done + 2)  # type: ignore[misc]
        status = it.server.web_status
    assert scrapers.failed == []
    assert status is not None
    assert status.certificate_until_ns == not_after_ns(pair.cert)


def test_the_clients_authority_changes_and_those_of_the_old_one_go(
    write: Callable[[str], Path], authority: trustme.CA
) -> None:
    path = write(f"tls_server_config: {{{MUTUAL}}}")
    new = trustme.CA()
    old_client, new_client = trusting(authority), trusting(authority)
    authority.issue_cert("prometheus").configure_cert(old_client)
    new.issue_cert("prometheus").configure_cert(new_client)
    ca = path.with_name("ca.pem")
    with serving(web_config=path, tls=old_client) as it:
        fresh = Client(it.tcp.family, it.tcp.address, new_client)
        with Scrapers(it, old_client) as scrapers:
            with pytest.raises(OSError):
                fresh.request("/metrics")
            replace(ca, ca.read_bytes() + new.cert_pem.bytes())
            wait_until(lambda: answers(fresh))
        assert scrapers.failed == []
        with it.tcp.connect() as kept:
            ask(kept)
            replace(ca, new.cert_pem.bytes())
            wait_until(lambda: not answers(it.tcp))
            # Whoever is connected still gets one answer, and with it the connection's end.
            assert ask(kept) == "close"
        assert answers(fresh)


def ask(sock: object) -> str:
    assert isinstance(sock, ssl.SSLSocket)
    sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return read_answer(sock).headers.get("connection", "")


def answers(client: Client) -> bool:
    try:
        return client.request("/healthz").status == 200
    except OSError:
        return False


# ── how long a certificate lasts ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("year", [2031, 2049, 2050, 2077])
def test_when_a_certificate_ends(year: int) -> None:
    import datetime

    end = datetime.datetime(year, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    made = trustme.CA().issue_cert("localhost", not_after=end)
    assert not_after_ns(made.cert_chain_pems[0].bytes()) == int(end.timestamp()) * 10**9


@pytest.mark.parametrize("damage", [b"", b"MIIB", b"!!!!", b"MA=="])
def test_what_is_no_certificate_has_no_end(damage: bytes) -> None:
    pem = b"-----BEGIN CERTIFICATE-----\n" + damage + b"\n-----END CERTIFICATE-----\n"
    assert not_after_ns(pem) == 0
