"""Who comes in with which certificate; old versions of TLS; PEM that stands in the file itself."""

from __future__ import annotations

import ssl
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from serving import Client, Served, serving

TLS = "cert_file: cert.pem, key_file: key.pem"
REQUIRED = "client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert"
GIVEN = "client_ca_file: ca.pem, client_auth_type: VerifyClientCertIfGiven"
JOBS = "/api/v1/jobs"


def trusting(authority: trustme.CA, shown: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if shown is not None:
        shown.configure_cert(context)
    return context


def outcome(it: Served, context: ssl.SSLContext, path: str = "/metrics") -> int:
    """The status; 0: there is no answer."""
    try:
        return Client(it.tcp.family, it.tcp.address, context).request(path).status
    except OSError:
        return 0


@pytest.mark.parametrize(
    ("allowed", "names", "status"),
    [
        ("prometheus.example.org", ["prometheus.example.org"], 200),
        ("prometheus.example.org", ["a.example.org", "prometheus.example.org"], 200),
        ("prometheus.example.org", ["Prometheus.example.org.evil.example"], 0),
        ("prometheus.example.org", ["*.example.org"], 0),
        ("10.1.2.3", ["10.1.2.3"], 200),
        ("10.1.2.3", ["10.1.2.4"], 0),
        ('"2001:db8::1"', ["2001:db8::1"], 200),
        ('"2001:db8::1"', ["2001:db8::10"], 0),
        ("ops@example.org", ["ops@example.org"], 200),
        ("ops@example.org", ["example.org"], 0),
    ],
)
def test_names_of_every_kind(
    write: Callable[[str], Path],
    authority: trustme.CA,
    allowed: str,
    names: list[str],
    status: int,
) -> None:
    path = write(f"tls_server_config: {{{TLS}, {REQUIRED}, client_allowed_sans: [{allowed}]}}")
    with serving(web_config=path) as it:
        assert outcome(it, trusting(authority, authority.issue_cert(*names))) == status


@pytest.mark.parametrize(
    ("policy", "none", "right", "wrong", "strange"),
    [
        (f"{REQUIRED}, client_allowed_sans: [a]", 0, 200, 0, 0),
        (f"{REQUIRED}, client_allowed_sans: []", 0, 0, 0, 0),
        (REQUIRED, 0, 200, 200, 0),
        (f"{GIVEN}, client_allowed_sans: [a]", 200, 200, 0, 0),
        (GIVEN, 200, 200, 200, 0),
        ("client_ca_file: ca.pem, client_auth_type: RequestClientCert", 200, 200, 200, 200),
        ("client_auth_type: NoClientCert", 200, 200, 200, 200),
        ("client_auth_type: RequireAndVerifyClientCert", 0, 0, 0, 0),
        ("client_auth_type: VerifyClientCertIfGiven", 200, 0, 0, 0),
    ],
)
def test_policies(
    write: Callable[[str], Path],
    authority: trustme.CA,
    policy: str,
    none: int,
    right: int,
    wrong: int,
    strange: int,
) -> None:
    path = write(f"tls_server_config: {{{TLS}, {policy}}}")
    shown = (
        None,
        authority.issue_cert("a"),
        authority.issue_cert("b"),
        trustme.CA().issue_cert("a"),
    )
    with serving(web_config=path) as it:
        found = tuple(outcome(it, trusting(authority, cert)) for cert in shown)
    assert found == (none, right, wrong, strange)


def test_an_authority_below_another_one_is_trusted_alone(
    write: Callable[[str], Path], authority: trustme.CA
) -> None:
    path = write(f"tls_server_config: {{{TLS}, {REQUIRED}}}")
    below = authority.create_child_ca()
    path.with_name("ca.pem").write_bytes(below.cert_pem.bytes())
    with serving(web_config=path) as it:
        assert outcome(it, trusting(authority, below.issue_cert("a"))) == 200
        assert outcome(it, trusting(authority, authority.issue_cert("a"))) == 0


def test_jobs_are_for_those_that_the_file_names(
    write: Callable[[str], Path], authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates of the system's authorities are anybody's, so they open no names of jobs."""
    shown = trusting(authority, authority.issue_cert("a"))
    named = write(f"tls_server_config: {{{TLS}, {REQUIRED}}}")
    with serving(web_config=named) as it:
        assert outcome(it, shown, JOBS) == 200
    monkeypatch.setenv("SSL_CERT_FILE", str(named.with_name("ca.pem")))
    system = "client_auth_type: RequireAndVerifyClientCert"
    for policy, status in ((system, 403), (f"{system}, client_allowed_sans: [a]", 200)):
        with serving(web_config=write(f"tls_server_config: {{{TLS}, {policy}}}")) as it:
            assert outcome(it, shown) == 200
            assert outcome(it, shown, JOBS) == status


def test_pem_that_stands_in_the_file(write: Callable[[str], Path], authority: trustme.CA) -> None:
    beside = write("")
    lines = ["tls_server_config:", "  client_auth_type: RequireAndVerifyClientCert"]
    for key in ("cert", "key", "client_ca"):
        name = beside.with_name(f"{key.removeprefix('client_')}.pem")
        lines += [f"  {key}: |", textwrap.indent(name.read_text(), "    ")]
        name.unlink()
    with serving(web_config=write_over(beside, "\n".join(lines))) as it:
        assert outcome(it, trusting(authority, authority.issue_cert("a"))) == 200
        assert outcome(it, trusting(authority)) == 0


def write_over(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_goes_before_what_stands_inline(
    write: Callable[[str], Path], authority: trustme.CA
) -> None:
    path = write(f"tls_server_config: {{{TLS}, cert: x, key: y}}")
    with serving(web_config=path) as it:
        assert outcome(it, trusting(authority)) == 200


def speaking(authority: trustme.CA, least: ssl.TLSVersion, most: ssl.TLSVersion) -> ssl.SSLContext:
    context = trusting(authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = least, most
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


@pytest.mark.parametrize(
    ("settings", "served"),
    [
        ("", ["TLSv1_2", "TLSv1_3"]),
        ("min_version: TLS10", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"]),
        ("min_version: TLS11, max_version: TLS12", ["TLSv1_1", "TLSv1_2"]),
        ("min_version: TLS13", ["TLSv1_3"]),
        ("cipher_suites: [TLS_AES_128_GCM_SHA256]", ["TLSv1_3"]),
    ],
)
def test_versions(
    write: Callable[[str], Path], authority: trustme.CA, settings: str, served: list[str]
) -> None:
    path = write(
        f"tls_server_config: {{{TLS}, {settings}}}\nhttp_server_config: {{http2: false}}\n"
    )
    versions = (version for version in ssl.TLSVersion if version.name.startswith("TLSv"))
    with serving(web_config=path) as it:
        answered = [v.name for v in versions if outcome(it, speaking(authority, v, v)) == 200]
    assert answered == served
