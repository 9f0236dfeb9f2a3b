"""The exporters' web configuration file: faults, good files, reload, headers and rate."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import serving
from wattledger.errors import ConfigError
from wattledger_exporters.web_config import LiveWebConfig, load_web_config

HASH = "$2b$04$" + "a" * 21 + "O" + "a" * 31
TLS = "cert_file: cert.pem, key_file: key.pem"
AUTH = "client_auth_type"
ONLY_13 = "max_version: TLS12, cipher_suites: [TLS_AES_128_GCM_SHA256]"
CURVES = ("X25519", "CurveP256", "CurveP384", "CurveP521")
SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")


def faults_of(path: Path) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_web_config(path)
    assert caught.value.source == str(path)
    named = [(key.removeprefix(f"{path}: "), text) for key, text in caught.value.faults]
    assert all(str(path) in f"{key}: {text}" for key, text in caught.value.faults)
    return dict(named)


# ── faults ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("tls_server_confg: {}", "tls_server_confg", "known here: tls_server_config"),
        ("tls_server_config: 5", "tls_server_config", "mapping"),
        ("tls_server_config: {key_file: key.pem}", "tls_server_config.cert_file", "PEM"),
        ("tls_server_config: {cert_file: cert.pem}", "tls_server_config.key_file", "PEM"),
        ("tls_server_config: {cert_file: no.pem, key_file: key.pem}",
         "tls_server_config.cert_file", "No such file"),
        ("tls_server_config: {cert_file: cert.pem, key_file: cert.pem}",
         "tls_server_config.cert_file", "not a certificate and its"),
        (f"tls_server_config: {{{TLS}, tls: 1}}", "tls_server_config.tls", "is not known"),
        ("tls_server_config: {cert_file: '', key_file: ''}",
         "tls_server_config.cert_file", "PEM"),
        ("tls_server_config: {min_version: TLS12}", "tls_server_config.cert_file", "PEM"),
        ("tls_server_config: {cert: nonsense, key_file: key.pem}",
         "tls_server_config.cert", "not a certificate and its"),
        ("tls_server_config: {cert_file: cert.pem, key_file: ca.pem}",
         "tls_server_config.cert_file", "not a certificate and its"),
        ('tls_server_config: {cert_file: "a\\0b", key_file: key.pem}',
         "tls_server_config.cert_file", "text"),
        (f"tls_server_config: {{{TLS}, min_version: ''}}",
         "tls_server_config.min_version", "TLS12"),
        (f"tls_server_config: {{{TLS}, cipher_suites: [TLS_AES_128_GCM_SHA256]}}",
         "tls_server_config.cipher_suites", "http2: false"),
        (f"http_server_config: {{http2: off}}\ntls_server_config: {{{TLS}, {ONLY_13}}}",
         "tls_server_config.cipher_suites", "no client could connect"),
        (f"tls_server_config: {{{TLS}, {AUTH}: NoClientCert, client_ca_file: ca.pem}}",
         "tls_server_config.client_auth_type", "RequireAndVerifyClientCert"),
        (f"tls_server_config: {{{TLS}, {AUTH}: RequestClientCert, client_allowed_sans: []}}",
         "tls_server_config.client_allowed_sans", "RequireAndVerifyClientCert"),
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
        (f"tls_server_config: {{{TLS}, client_ca_file: ca.pem}}",
         "tls_server_config.client_auth_type", "must be"),
        (f"tls_server_config: {{{TLS}, client_allowed_sans: [a]}}",
         "tls_server_config.client_allowed_sans", "RequireAndVerifyClientCert"),
        (f"tls_server_config: {{{TLS}, {AUTH}: VerifyClientCertIfGiven, client_ca_file: key.pem}}",
         "tls_server_config.client_ca_file", "no PEM certificate"),
        ("http_server_config: {http2: maybe}", "http_server_config.http2", "true or false"),
        ("http_server_config: {http2: 'true'}", "http_server_config.http2", "true or false"),
        ("http_server_config: {http2: 1}", "http_server_config.http2", "true or false"),
        ("http_server_config: {headers: {X-Frame-Options: ''}}",
         "http_server_config.headers.X-Frame-Options", "deny"),
        ("http_server_config: {headers: {X-Own: a}}", "http_server_config.headers.X-Own",
         "is not known"),
        ("http_server_config: {headers: {X-Frame-Options: never}}",
         "http_server_config.headers.X-Frame-Options", "deny"),
        ('http_server_config: {headers: {X-XSS-Protection: "a\\x7fb"}}',
         "http_server_config.headers.X-XSS-Protection", "control"),
        ('http_server_config: {headers: {X-XSS-Protection: "\\ud800"}}', "http.web_config",
         "half a character"),
        ('basic_auth_users: {"\\udfff": ' + HASH + "}", "http.web_config", "half a character"),
        ("http_server_config: {http2: !!bool maybe}", "http.web_config", "its tag"),
        ("basic_auth_users: {alice: !!binary '?'}", "http.web_config", "its tag"),
        (f"basic_auth_users: {{~: {HASH}, '': {HASH}}}", "basic_auth_users.", "twice"),
        ("basic_auth_users: {[a]: b}", "http.web_config", "not YAML"),
        ("&a {http_server_config: *a}", "http.web_config", "not YAML"),
        ("basic_auth_users: {alice: secret}", "basic_auth_users.alice", "htpasswd"),
        ("basic_auth_users: {alice: $2y$03$" + "a" * 53 + "}", "basic_auth_users.alice", "bcrypt"),
        ('basic_auth_users: {"a:b": ' + HASH + "}", "basic_auth_users.a:b", "colon"),
        ("basic_auth_users: [alice]", "basic_auth_users", "mapping"),
        ("rate_limit: {interval: often, burst: 1}", "rate_limit.interval", "duration"),
        ("rate_limit: {interval: 1s}", "rate_limit.burst", "1 or more"),
        ("rate_limit: {interval: 1s, burst: -1}", "rate_limit.burst", "whole number"),
        ("rate_limit: {interval: 1s, burst: '5'}", "rate_limit.burst", "whole number"),
        ("rate_limit: {interval: 1s, burst: 010}", "rate_limit.burst", "decimal"),
        ("rate_limit: {interval: 1s, burst: 1.5}", "rate_limit.burst", "decimal"),
        ("rate_limit: {interval: 5, burst: 1}", "rate_limit.interval", "unit"),
        ("rate_limit: {interval: -1s, burst: 1}", "rate_limit.interval", "duration"),
        ("rate_limit: {interval: 1d, burst: 1}", "rate_limit.interval", "duration"),
        ("rate_limit: {interval: '', burst: 1}", "rate_limit.interval", "duration"),
        ("basic_auth_users: {}\nbasic_auth_users: {}", "http.web_config", "twice"),
        ("{}\n---\n{}", "http.web_config", "not YAML"),
        ('a: "\\UFFFFFFFF"', "http.web_config", "not YAML"),
        ("a: [", "http.web_config", "not YAML"),
        ("a: b: c", "http.web_config", "line 1"),
        ("\x00", "http.web_config", "not YAML"),
    ],
)  # fmt: skip
def test_a_fault_names_its_key_and_the_remedy(
    write: Callable[[str], Path], text: str, key: str, remedy: str
) -> None:
    assert remedy in faults_of(write(text))[key]


def test_the_printed_line_names_the_file(write: Callable[[str], Path]) -> None:
    path = write("tls_server_config: {cert_file: no.pem, key_file: key.pem}")
    lost = path.parent / "no.pem"
    with pytest.raises(ConfigError) as caught:
        load_web_config(path)
    assert caught.value.message == (
        f"{path}: tls_server_config.cert_file: {lost} cannot be read: No such file or directory"
    )
    with pytest.raises(ConfigError) as caught:
        load_web_config(write("[]"))
    assert caught.value.message == f"{path}: must be a mapping of keys to values"


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


def test_a_file_that_only_root_may_read_is_told(write: Callable[[str], Path]) -> None:
    path = write("{}")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    assert "Permission denied" in faults_of(path)["http.web_config"]


# ── good files, and any ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "http_server_config: {http2: false, headers: {X-Frame-Options: sameorigin}}",
        "tls_server_config: {}",
        "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n",
        "http_server_config: {http2: no, headers: {X-XSS-Protection: 1}}",
        f"tls_server_config: {{{TLS}}}",
        f"tls_server_config: {{{TLS}, {AUTH}: RequireAndVerifyClientCert}}",
        f"tls_server_config: {{{TLS}, {AUTH}: VerifyClientCertIfGiven}}",
        f"tls_server_config: {{{TLS}, min_version: TLS10}}",
        f"tls_server_config: {{{TLS}, min_version: TLS13, cipher_suites: [{SUITES[0]}]}}",
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


@pytest.mark.parametrize(
    ("said", "interval_ns"),
    [("0", 0), ("0s", 0), ("1s", 10**9), ("500us", 500_000), ("1.5ms", 1_500_000), ("7ns", 7),
     ("1h30m", 5_400 * 10**9), (".5m", 30 * 10**9), ("3µs", 3_000), ("~", 0)],
)  # fmt: skip
def test_an_interval_is_a_duration_of_go(
    write: Callable[[str], Path], said: str, interval_ns: int
) -> None:
    config = load_web_config(write(f"rate_limit: {{interval: {said}, burst: 20}}"))
    assert (config.rate_interval_ns, config.rate_burst) == (interval_ns, 20)


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


# ── reload ──────────────────────────────────────────────────────────────────────────────────────


def test_a_changed_file_is_followed_and_a_bad_one_is_not(
    write: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 0.0
    live = LiveWebConfig(write("{}"), now_s=lambda: now_s, wall_ns=lambda: 1 << 62)
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
    assert caplog.text.count(str(path)) == 1
    assert "nonsense" not in caplog.text
    path.unlink()
    now_s = 8.0
    assert live.current.users == {"alice": HASH}
    write("{}")
    now_s = 10.0
    assert live.current.users == {}


def test_a_renewed_certificate_needs_no_restart(
    write: Callable[[str], Path], certify: Callable[[str], None]
) -> None:
    path = write(f"tls_server_config: {{{TLS}}}")
    live = LiveWebConfig(path, now_s=iter(range(99)).__next__, wall_ns=lambda: 1 << 62)
    before = live.current.context
    assert live.current.context is before
    certify("renewed")
    assert live.current.context is not before


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
