"""A port that strangers reach and nobody is asked at: the log and `doctor` say so."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes import FakeClock
from serving import FakeDaemon
from snapshots import NOW_NS, snapshot
from wattledger.config import parse_config
from wattledger.doctor import web
from wattledger.model.web import WebStatus
from wattledger.units import NS_PER_S
from wattledger_exporters.http import HttpServer, PageStore
from wattledger_exporters.http.api import status
from wattledger_exporters.prometheus import Renderer

TLS = "cert_file: cert.pem, key_file: key.pem"
REQUIRED = "client_auth_type: RequireAndVerifyClientCert"
CA = "client_ca_file: ca.pem"
USER = f"basic_auth_users: {{alice: $2y$10${'.' * 53}}}"
OPEN = (
    None,
    "{}",
    "basic_auth_users:",  # what a pipe from an htpasswd that is not there leaves
    f"tls_server_config: {{{TLS}}}\nbasic_auth_users:",
    f"tls_server_config: {{{TLS}, client_auth_type: RequestClientCert}}",
    f"tls_server_config: {{{TLS}, client_auth_type: VerifyClientCertIfGiven, {CA}}}",
)
CLOSED = (
    USER,
    f"tls_server_config: {{{TLS}}}\n{USER}",
    f"tls_server_config: {{{TLS}, {REQUIRED}, {CA}}}",
)


@contextlib.contextmanager
def started(listen: str, path: Path | None) -> Iterator[HttpServer]:
    clock = FakeClock()
    pages = PageStore(clock, NS_PER_S)
    server = HttpServer(FakeDaemon(), pages, clock, listen=listen, web_config=path)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def problems(state: WebStatus | None) -> list[str]:
    found = web.of_status(status(replace(snapshot(), web=state), NOW_NS))
    return [one.message for one in found if not one.ok]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def config(listen: str, path: Path | None) -> list[str]:
    named = f'web_config = "{path}"\n' if path else ""
    found = web.of_config(parse_config(f'[http]\nlisten = "{listen}"\n{named}'))
    return [one.message for one in found if not one.ok]


@pytest.mark.parametrize("text", OPEN)
def test_an_open_port_is_told(
    text: str | None, write: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = None if text is None else write(text)
    with started("0.0.0.0:0", path) as server:
        port = server.address.rpartition(":")[2]
        [told] = problems(server.web_status)
    [warned] = warnings(caplog)
    for said in (told, warned):
        assert f"0.0.0.0 port {port} is open to the network" in said
        assert "reads this node's energy and devices" in said
    assert ("basic_auth_users" in warned) is (path is not None)
    for listen in ("0.0.0.0:19400", ":19400", "[::]:19400"):
        [offline] = config(listen, path)
        assert "port 19400 is open to the network" in offline


@pytest.mark.parametrize("text", CLOSED)
def test_one_that_asks_who_comes_is_not(
    text: str, write: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(text)
    with started("0.0.0.0:0", path) as server:
        assert problems(server.web_status) == []
    assert warnings(caplog) == []
    assert config("0.0.0.0:19400", path) == []


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0"])
def test_what_only_this_machine_reaches_is_not(
    listen: str, caplog: pytest.LogCaptureFixture
) -> None:
    with started(listen, None) as server:
        assert server.web_status is None
    assert warnings(caplog) == []
    assert config(listen, None) == []


@pytest.mark.parametrize("listen", ["[::1]:0", "a..b:1", f"{'a' * 70}:1", "ä..b:1", "[]:80"])
def test_nor_what_no_daemon_listens_at(listen: str) -> None:
    assert config(listen, None) == []


def test_the_page_tells_of_no_configuration_where_there_is_none() -> None:
    with started("0.0.0.0:0", None) as server:
        state = server.web_status
    assert state is not None
    page = Renderer().render(replace(snapshot(), web=state), 1, process=False).text.decode()
    assert "wattledger_web_" not in page
