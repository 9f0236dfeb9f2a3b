"""TLS as the web configuration asks for it: versions, suites, client certificates."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from serving import Client, serving

TLS = "cert_file: cert.pem, key_file: key.pem"


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_tls(write: Callable[[str], Path], authority: trustme.CA) -> None:
    path = write(f"tls_server_config: {{{TLS}}}")
    with serving(web_config=path, tls=trusting(authority)) as it:
        assert it.server.url.startswith("https://127.0.0.1:")
        assert it.tcp.request("/metrics").status == 200
        with it.tcp.connect() as sock:
            assert isinstance(sock, ssl.SSLSocket)
            assert sock.version() == "TLSv1.3"


def test_versions_and_suites(write: Callable[[str], Path], authority: trustme.CA) -> None:
    path = write(
        f"tls_server_config: {{{TLS}, max_version: TLS12, "
        "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]}\n"
        "http_server_config: {http2: false}"
    )
    with serving(web_config=path, tls=trusting(authority)) as it, it.tcp.connect() as sock:
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.version() == "TLSv1.2"
        assert sock.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"  # type: ignore[index]


def test_a_client_certificate_is_demanded(
    write: Callable[[str], Path], authority: trustme.CA
) -> None:
    path = write(
        f"tls_server_config: {{{TLS}, client_ca_file: ca.pem, "
        "client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [prometheus]}"
    )
    known, other, stranger = (trusting(authority) for _ in range(3))
    authority.issue_cert("prometheus").configure_cert(known)
    authority.issue_cert("grafana").configure_cert(other)
    trustme.CA().issue_cert("prometheus").configure_cert(stranger)
    with serving(web_config=path, tls=known) as it:
        assert it.tcp.request("/metrics").status == 200
        for context in (trusting(authority), other, stranger):
            with pytest.raises(OSError):
                _ = Client(it.tcp.family, it.tcp.address, context).request("/metrics").status
        assert it.tcp.request("/metrics").status == 200
