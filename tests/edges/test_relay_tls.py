"""A relay's door: TLS, client certificates, silent peers, as on a node."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
import trustme

from relays import relayed
from serving import Client
from wattledger.errors import ConfigError
from wattledger_exporters.certificate import not_after_ns
from wattledger_exporters.metrics import PREFIX

MUTUAL = """
tls_server_config:
  cert_file: cert.pem
  key_file: key.pem
  client_ca_file: ca.pem
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [node7]
"""


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    server = made.issue_cert("localhost")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    server.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


def node(authority: trustme.CA, name: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if name:
        authority.issue_cert(name).configure_cert(context)
    return context


def test_a_relay_asks_for_client_certificates(tmp_path: Path, authority: trustme.CA) -> None:
    web = tmp_path / "web.yml"
    web.write_text(MUTUAL)
    with relayed(web_config=web) as served:
        assert served.relay.url.startswith("https://")
        family, address, _ = served.client
        good = Client(family, address, node(authority, "node7"))
        with socket.create_connection(address), served.client.connect() as half:
            half.sendall(b"\x16\x03\x01")  # the begin of a TLS record, and no more
            answer = good.request("/metrics")
            assert answer.status == 200
            for context in (None, node(authority), node(authority, "node8")):
                with pytest.raises(OSError):
                    Client(family, address, context).request("/metrics")
        page = answer.body.decode()
        assert f"{PREFIX}web_config_current 1.0\n" in page
        _, _, shown = page.partition(f"\n{PREFIX}web_certificate_expiry_timestamp_seconds ")
        until_ns = not_after_ns((tmp_path / "cert.pem").read_bytes())
        assert float(shown.split("\n")[0]) == until_ns / 1e9


@pytest.mark.usefixtures("authority")
def test_a_relay_does_not_start_with_a_bad_file(tmp_path: Path) -> None:
    web = tmp_path / "web.yml"
    web.write_text(MUTUAL.replace("key.pem", "lost.pem"))
    with pytest.raises(ConfigError, match=r"lost\.pem cannot be read"), relayed(web_config=web):
        pass


def test_without_a_web_configuration_the_page_tells_nothing_of_it() -> None:
    with relayed() as served:
        assert "web_" not in served.client.request("/metrics").body.decode()
