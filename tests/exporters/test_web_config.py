"""The exporters' web configuration file: faults, TLS, client certificates, passwords, reload."""

from __future__ import annotations

import base64
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from serving import Client, serving
from wattledger.errors import ConfigError
from wattledger_exporters.http.auth import BasicAuth, TokenBucket, Verdict, nobody_hash
from wattledger_exporters.web_config import LiveWebConfig, load_web_config

PASSWORD = "correct horse"
# A fixed salt: test names hold the hash, and parallel runs must agree on the names.
HASH = bcrypt.hashpw(PASSWORD.encode(), b"$2b$04$abcdefghijklmnopqrstuu").decode()
TLS = "cert_file: cert.pem, key_file: key.pem"
AUTH = "client_auth_type"
CURVES = ("X25519", "CurveP256", "CurveP384", "CurveP521")
SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write_certificate(authority: trustme.CA, folder: Path, name: str = "localhost") -> None:
    certificate = authority.issue_cert(name)
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")


@pytest.fixture
def write(authority: trustme.CA, tmp_path: Path) -> Callable[[str], Path]:
    write_certificate(authority, tmp_path)

    def write_file(text: str) -> Path:
        path = tmp_path / "web.yml"
        path.write_text(text)
        return path

    return write_file


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def faults_of(path: Path) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_web_config(path)
    assert caught.value.source == str(path)
    return dict(caught.value.faults)


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


# ── faults ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("tls_server_confg: {}", "tls_server_confg", "known here: tls_server_config"),
        ("[]", "(file)", "mapping"),
        ("tls_server_config: 5", "tls_server_config", "mapping"),
        ("tls_server_config: {key_file: key.pem}", "tls_server_config.cert_file", "PEM"),
        ("tls_server_config: {cert_file: cert.pem}", "tls_server_config.key_file", "PEM"),
        ("tls_server_config: {cert_file: no.pem, key_file: key.pem}",
         "tls_server_config.cert_file", "No such file"),
        ("tls_server_config: {cert_file: cert.pem, key_file: cert.pem}",
         "tls_server_config.cert_file", "not a certificate and its"),
        (f"tls_server_config: {{{TLS}, tls: 1}}", "tls_server_config.tls", "is not known"),
        (f"tls_server_config: {{{TLS}, cert: x}}", "tls_server_config.cert", "cert_file"),
        (f"tls_server_config: {{{TLS}, min_version: TLS09}}",
         "tls_server_config.min_version", "TLS12"),
        (f"tls_server_config: {{{TLS}, min_version: [1]}}",
         "tls_server_config.min_version", "TLS12"),
        (f"tls_server_config: {{{TLS}, min_version: TLS13, max_version: TLS12}}",
         "tls_server_config.min_version", "above max_version"),
        (f"tls_server_config: {{{TLS}, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}}",
         "tls_server_config.cipher_suites", "is not among"),
        (f"tls_server_config: {{{TLS}, curve_preferences: [P256]}}",
         "tls_server_config.curve_preferences", "CurveP256"),
        (f"tls_server_config: {{{TLS}, curve_preferences: [X25519, CurveP256]}}",
         "tls_server_config.curve_preferences", "only one of"),
        (f"tls_server_config: {{{TLS}, client_auth_type: Sometimes}}",
         "tls_server_config.client_auth_type", "RequireAndVerifyClientCert"),
        (f"tls_server_config: {{{TLS}, client_auth_type: RequireAnyClientCert}}",
         "tls_server_config.client_auth_type", "RequireAndVerifyClientCert"),
        (f"tls_server_config: {{{TLS}, client_auth_type: RequireAndVerifyClientCert}}",
         "tls_server_config.client_ca_file", "is needed"),
        (f"tls_server_config: {{{TLS}, client_ca_file: ca.pem}}",
         "tls_server_config.client_auth_type", "is missing"),
        (f"tls_server_config: {{{TLS}, client_allowed_sans: [a]}}",
         "tls_server_config.client_allowed_sans", "RequireAndVerifyClientCert"),
        (f"tls_server_config: {{{TLS}, {AUTH}: VerifyClientCertIfGiven, client_ca_file: key.pem}}",
         "tls_server_config.client_ca_file", "no PEM certificate"),
        ("http_server_config: {http2: maybe}", "http_server_config.http2", "true or false"),
        ("http_server_config: {headers: {X-Own: a}}", "http_server_config.headers.X-Own",
         "is not known"),
        ("http_server_config: {headers: {X-Frame-Options: never}}",
         "http_server_config.headers.X-Frame-Options", "deny"),
        ('http_server_config: {headers: {X-XSS-Protection: "a\\r\\nSet-Cookie: b"}}',
         "http_server_config.headers.X-XSS-Protection", "one line"),
        ("basic_auth_users: {alice: secret}", "basic_auth_users.alice", "htpasswd"),
        ("basic_auth_users: {alice: $2y$03$" + "a" * 53 + "}", "basic_auth_users.alice", "bcrypt"),
        ('basic_auth_users: {"a:b": ' + HASH + "}", "basic_auth_users.a:b", "colon"),
        ("basic_auth_users: [alice]", "basic_auth_users", "mapping"),
        ("rate_limit: {interval: often, burst: 1}", "rate_limit.interval", "duration"),
        ("rate_limit: {interval: 1s}", "rate_limit.burst", "1 or more"),
        ("rate_limit: {interval: 1s, burst: -1}", "rate_limit.burst", "whole number"),
        ("a: [", "http.web_config", "not YAML"),
        ("a: b: c", "http.web_config", "line 1"),
        ("\x00", "http.web_config", "not YAML"),
    ],
)  # fmt: skip
def test_a_fault_names_its_key_and_the_remedy(
    write: Callable[[str], Path], text: str, key: str, remedy: str
) -> None:
    assert remedy in faults_of(write(text))[key]


def test_all_faults_come_at_once(write: Callable[[str], Path]) -> None:
    found = faults_of(
        write("tls_server_config: {min_version: 1}\nbasic_auth_users: {a: b}\nrate_limits: 1\n")
    )
    assert set(found) == {
        "rate_limits",
        "tls_server_config.cert_file",
        "tls_server_config.key_file",
        "tls_server_config.min_version",
        "basic_auth_users.a",
    }


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in faults_of(tmp_path / "none.yml")["http.web_config"]
    with pytest.raises(ConfigError), serving(web_config=tmp_path / "none.yml"):
        pass


def test_no_fault_quotes_a_secret(write: Callable[[str], Path]) -> None:
    text = str(faults_of(write("basic_auth_users: {alice: hunter2, bob: 'hunter2}")))
    text += str(faults_of(write("basic_auth_users: {alice: hunter2}")))
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "http_server_config: {http2: false, headers: {X-Frame-Options: sameorigin}}",
        f"tls_server_config: {{{TLS}}}",
        f"tls_server_config: {{{TLS}, client_auth_type: NoClientCert}}",
        f"tls_server_config: {{{TLS}, {AUTH}: RequestClientCert, client_ca_file: ca.pem}}",
        f"tls_server_config: {{{TLS}, curve_preferences: [CurveP384]}}",
        f"tls_server_config: {{{TLS}, curve_preferences: [{', '.join(CURVES)}]}}",
        f"tls_server_config: {{{TLS}, cipher_suites: [{', '.join(SUITES)}]}}",
        f"tls_server_config: {{{TLS}, prefer_server_cipher_suites: false}}",
        f"basic_auth_users: {{alice: {HASH}}}",
        "rate_limit: {interval: 500ms, burst: 20}",
        "rate_limit: {interval: 0}",
    ],
)
def test_good_files(write: Callable[[str], Path], text: str) -> None:
    assert load_web_config(write(text)).users in ({}, {"alice": HASH})


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["tls_server_config", "cert_file", "client_auth_type", "cipher_suites",
                         "curve_preferences", "min_version", "http_server_config", "headers",
                         "X-Frame-Options", "basic_auth_users", "rate_limit", "interval", "burst"]),
        inner, max_size=4),
    max_leaves=10,
))  # fmt: skip
def test_any_document_is_read_or_refused(document: object) -> None:
    import tempfile

    import yaml

    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump(document, file)
        file.flush()
        try:
            load_web_config(Path(file.name))
        except ConfigError as error:
            assert error.faults  # noqa: PT017 - either outcome is right, anything else is not


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────


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
        "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]}"
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


def test_a_renewed_certificate_needs_no_restart(
    write: Callable[[str], Path], authority: trustme.CA, tmp_path: Path
) -> None:
    live = LiveWebConfig(write(f"tls_server_config: {{{TLS}}}"), now_s=iter(range(99)).__next__)
    before = live.current.context
    assert live.current.context is before
    write_certificate(authority, tmp_path, "renewed")
    assert live.current.context is not before


# ── reload ──────────────────────────────────────────────────────────────────────────────────────


def test_a_changed_file_is_followed_and_a_bad_one_is_not(
    write: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 0.0
    live = LiveWebConfig(write("{}"), now_s=lambda: now_s)
    path = write(f"basic_auth_users: {{alice: {HASH}}}")
    assert live.current.users == {}  # looked at less than a second ago
    now_s = 1.5
    assert live.current.users == {"alice": HASH}
    write("basic_auth_users: {alice: nonsense}")
    now_s = 3.0
    assert live.current.users == {"alice": HASH}
    now_s = 4.5
    assert live.current.users == {"alice": HASH}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "nonsense" not in caplog.text
    path.unlink()
    now_s = 8.0
    assert live.current.users == {"alice": HASH}
    write("{}")
    now_s = 10.0
    assert live.current.users == {}


# ── passwords ───────────────────────────────────────────────────────────────────────────────────


def test_basic_auth(write: Callable[[str], Path], tmp_path: Path) -> None:
    path = write(f"basic_auth_users: {{alice: {HASH}}}")
    with serving(tmp_path / "s", web_config=path) as it:
        for wrong in ({}, {"Authorization": basic("alice", "no")}, {"Authorization": "Basic ?"}):
            answer = it.tcp.request("/metrics", **wrong)
            assert answer.status == 401
            assert answer.headers["www-authenticate"].startswith("Basic realm=")
        right = basic("alice", PASSWORD)
        for target in ("/metrics", "/", "/healthz", "/api/v1/status"):
            assert it.tcp.request(target, Authorization=right).status == 200
            assert it.tcp.request(target).status == 401
        assert it.tcp.request("/nope").status == 401  # nothing is told to strangers
        assert it.unix is not None
        assert it.unix.request("/metrics").status == 200  # the kernel tells who asks there


def test_200_bad_logins_starve_no_scrape(write: Callable[[str], Path]) -> None:
    slow = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    path = write(f"basic_auth_users: {{alice: {slow}}}")
    with serving(web_config=path) as it:
        right = basic("alice", PASSWORD)
        assert it.tcp.request("/metrics", Authorization=right).status == 200
        begun = time.monotonic()
        seen = [
            it.tcp.request("/metrics", Authorization=basic(name, f"guess {i}")).status
            for i in range(100)
            for name in ("alice", "mallory")
        ]
        flood_s = time.monotonic() - begun
        assert set(seen) == {401, 429}
        # Unlimited, 200 hashes of cost 10 take over 8 s; limited, a few are computed at all.
        assert seen.count(401) <= 8 + 4 * flood_s + 1
        assert it.tcp.request("/metrics", Authorization=right).status == 200


def test_an_unknown_user_costs_the_same_and_never_comes_in() -> None:
    fake = nobody_hash({"alice": HASH, "bob": "$2y$12$" + "a" * 53})
    assert fake.startswith("$2b$12$")
    cheap = nobody_hash({"alice": HASH})
    assert not bcrypt.checkpw(b"fakepassword", cheap.encode())


async def _judge(auth: BasicAuth, header: bytes, address: str = "a") -> Verdict:
    return await auth.judge(header, {"alice": HASH}, address)


def test_verdicts() -> None:
    import asyncio

    async def check() -> None:
        auth = BasicAuth(now_s=lambda: 0.0)
        good = basic("alice", PASSWORD).encode()
        assert await _judge(auth, good) is Verdict.PASS
        for header in (b"", b"Bearer x", b"Basic", b"Basic !!", b"Basic " + b"A" * 4000,
                       basic("alice", "a\0b").encode(), basic("alice", "x" * 500).encode(),
                       basic("", "").encode(), basic("bob", PASSWORD).encode()):  # fmt: skip
            assert await _judge(auth, header, "b") is Verdict.DENY, header
        for _ in range(20):
            verdict = await _judge(auth, basic("alice", "guess").encode(), "c")
        assert verdict is Verdict.LATER
        assert await _judge(auth, good, "c") is Verdict.PASS  # verified before, not hashed again
        assert await _judge(auth, basic("alice", "x").encode(), "d") is Verdict.DENY
        auth.stop()

    asyncio.run(check())


def test_a_changed_password_is_not_remembered() -> None:
    import asyncio

    async def check() -> None:
        auth = BasicAuth(now_s=lambda: 0.0)
        good = basic("alice", PASSWORD).encode()
        assert await _judge(auth, good) is Verdict.PASS
        other = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
        assert await auth.judge(good, {"alice": other}, "a") is Verdict.DENY
        assert await auth.judge(good, {}, "a") is Verdict.DENY
        auth.stop()

    asyncio.run(check())


@given(st.lists(st.floats(0, 10), max_size=50))
def test_a_bucket_never_gives_more_than_burst_and_rate(gaps_s: list[float]) -> None:
    now_s = 0.0
    bucket = TokenBucket(2.0, 5.0, lambda: now_s)
    taken = 0
    for gap_s in gaps_s:
        now_s += gap_s
        taken += bucket.take()
        assert taken <= 5 + 2 * now_s + 1e-6


# ── headers and rate ────────────────────────────────────────────────────────────────────────────


def test_headers_of_the_file_are_added(write: Callable[[str], Path]) -> None:
    path = write(
        "http_server_config: {headers: {X-Frame-Options: sameorigin, "
        "Strict-Transport-Security: max-age=60}}"
    )
    with serving(web_config=path) as it:
        headers = it.tcp.request("/").headers
        assert headers["x-frame-options"] == "sameorigin"
        assert headers["strict-transport-security"] == "max-age=60"
        assert it.tcp.request("/nope").headers["x-frame-options"] == "sameorigin"


def test_rate_limit(write: Callable[[str], Path]) -> None:
    path = write("rate_limit: {interval: 1s, burst: 3}")
    with serving(web_config=path) as it:
        seen = [it.tcp.request("/healthz").status for _ in range(5)]
        assert seen == [200] * 3 + [429] * 2
        it.clock.advance(1)
        assert it.tcp.request("/healthz").status == 200
        assert it.tcp.request("/healthz").status == 429


def test_a_file_that_only_root_may_read_is_told(write: Callable[[str], Path]) -> None:
    path = write("{}")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    assert "Permission denied" in faults_of(path)["http.web_config"]
