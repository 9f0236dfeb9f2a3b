"""One web configuration file, two readers: Debian's node_exporter and wattledger say the same.

The files are those that exporter-toolkit's documentation and its tests describe, and what people
write besides. Where we are stricter or read keys that node_exporter 1.5 does not know yet, the
table says why; a reason that no longer holds fails.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import socket
import ssl
import string
import subprocess
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from e2e.daemon import free_port
from serving import Client, serving
from wattledger.errors import ConfigError

PROGRAM = "prometheus-node-exporter"
PATIENCE_S = 20.0
PAIR = "cert_file: cert.pem, key_file: key.pem"
CA = "client_ca_file: ca.pem"
REQUIRED = "client_auth_type: RequireAndVerifyClientCert"
GIVEN = "client_auth_type: VerifyClientCertIfGiven"
# Two clients are enough to show it, and more would meet our limit of failed logins.
GUESSING = ("plain HTTP", "a certificate")
HASH = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
GOOD_SUITE = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
OTHER_SUITE = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
RSA_SUITES = "TLS_RSA_WITH_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_256_CBC_SHA"
RSA_PAIR = "cert_file: rsa.pem, key_file: rsa-key.pem"
# 128 bits of salt are 21 letters and two bits of the next: the others are nothing, but there.
LETTERS = "./" + string.ascii_uppercase + string.ascii_lowercase + string.digits
LOOSE = HASH[:28] + LETTERS[LETTERS.index(HASH[28]) + 1] + HASH[29:]
SUITES = ", ".join(
    [
        *(
            f"TLS_ECDHE_{key}_WITH_{rest}"
            for key in ("ECDSA", "RSA")
            for rest in (
                "AES_128_GCM_SHA256",
                "AES_256_GCM_SHA384",
                "CHACHA20_POLY1305_SHA256",
                "AES_128_CBC_SHA",
                "AES_256_CBC_SHA",
            )
        ),
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    ]
)


def tls(*settings: str, http: str = "") -> str:
    section = f"tls_server_config: {{{', '.join((PAIR, *settings))}}}\n"
    return section + (f"http_server_config: {{{http}}}\n" if http else "")


def users(name: str, hashed: str) -> str:
    return f"basic_auth_users: {{{name}: {hashed}}}\n"


SAME: dict[str, str | bytes] = {
    # accepted
    "an empty file": "",
    "an empty mapping": "{}",
    "an empty section": "tls_server_config: {}",
    "sections of nothing": "tls_server_config:\nbasic_auth_users:\nhttp_server_config:\n",
    "TLS": tls(),
    "NoClientCert": tls("client_auth_type: NoClientCert"),
    "no policy, as empty text": tls("client_auth_type: ''"),
    "RequestClientCert": tls("client_auth_type: RequestClientCert", CA),
    "VerifyClientCertIfGiven": tls(GIVEN, CA),
    "VerifyClientCertIfGiven by the system's authorities": tls(GIVEN),
    "RequireAndVerifyClientCert": tls(REQUIRED, CA),
    "RequireAndVerifyClientCert by the system's authorities": tls(REQUIRED),
    "an authority below another one": tls(REQUIRED, "client_ca_file: below.pem"),
    "all suites": tls(f"cipher_suites: [{SUITES}]"),
    "some suites": tls(f"cipher_suites: [{GOOD_SUITE}, {OTHER_SUITE}]", "max_version: TLS12"),
    "suites in the client's order": tls(
        f"cipher_suites: [{GOOD_SUITE}, {OTHER_SUITE}]", "prefer_server_cipher_suites: false"
    ),
    "no HTTP/2, so any suite": tls(
        f"cipher_suites: [{OTHER_SUITE}]", "max_version: TLS12", http="http2: false"
    ),
    "suites of TLS 1.3 only, no HTTP/2": tls(
        "cipher_suites: [TLS_AES_128_GCM_SHA256]", http="http2: false"
    ),
    "suites of RSA's key exchange": (
        f"tls_server_config: {{{RSA_PAIR}, cipher_suites: [{RSA_SUITES}]}}\n"
        "http_server_config: {http2: n}"
    ),
    "such suites beside others": tls(f"cipher_suites: [{RSA_SUITES}, {GOOD_SUITE}]"),
    "a list of no suites": tls("cipher_suites: []"),
    "all curves": tls("curve_preferences: [CurveP256, CurveP384, CurveP521, X25519]"),
    "a curve": tls("curve_preferences: [CurveP521]", "min_version: TLS13"),
    "a curve twice": tls("curve_preferences: [CurveP384, CurveP384]"),
    "TLS 1.3": tls("min_version: TLS13"),
    "TLS 1.2": tls("max_version: TLS12"),
    "no least version": tls("min_version: null"),
    "all headers": (
        "http_server_config: {headers: {X-Frame-Options: deny, X-XSS-Protection: 1, "
        "Strict-Transport-Security: max-age=31536000, X-Content-Type-Options: nosniff, "
        "Content-Security-Policy: \"default-src 'self'\"}}"
    ),
    "a header that is blank": "http_server_config: {headers: {X-XSS-Protection: ''}}",
    "truth in other words": "http_server_config: {http2: off}",
    "truth in a letter": "http_server_config: {http2: y}",
    "truth in a capital letter": tls("prefer_server_cipher_suites: N"),
    "truth that says so": "http_server_config: {http2: !!bool 'true'}",
    "users": users("alice", HASH),
    "users over TLS": tls() + users("alice", HASH),
    "users over mutual TLS": tls(REQUIRED, CA) + users("alice", HASH),
    "a user whose name is a number": users("7", HASH),
    "a user without a name": users("''", HASH),
    "a user whose name is nothing": users("~", HASH),
    "users of a tag of their own": f"basic_auth_users: !!foo {{alice: {HASH}}}",
    "a file of a tag of its own": "!foo {basic_auth_users: !!set {}}",
    "sections of the wrong tag": "http_server_config: !!seq {http2: false}",
    "a hash of a bcrypt of 1999": users("alice", f"$2{HASH[3:]}"),
    "a hash that PHP was wrong about": users("alice", f"$2x{HASH[3:]}"),
    "a hash with bits to spare": users("alice", LOOSE),
    "a hash with more behind it": users("alice", f"{HASH}a"),
    "a hash with its line's end": f"basic_auth_users:\n  alice: |\n    {HASH}\n",
    "a hash as bytes": users("alice", f"!!binary {base64.b64encode(HASH.encode()).decode()}"),
    "nobody, and one who is called a tilde": (
        f"basic_auth_users: {{~: {HASH}, '~': {HASH}, alice: {HASH}}}"
    ),
    "no users": "basic_auth_users: {}",
    "a file of UTF-16": "http_server_config: {http2: no}".encode("utf-16"),
    # refused
    "junk": "hWkNKCp3fvIx3jKnsaBI\nTuEjdwNS8A2vYdFbiKqr\n",
    "a list": "[]",
    "a number": "5",
    "an unknown section": "tls: {}",
    "an unknown key": "tls_server_config: {cert_filse: cert.pem}",
    "a key twice": "basic_auth_users: {}\nbasic_auth_users: {}\n",
    "a user twice": f"basic_auth_users:\n  alice: {HASH}\n  alice: {HASH}\n",
    "a certificate without a key": "tls_server_config: {cert_file: cert.pem}",
    "a key without a certificate": "tls_server_config: {key_file: key.pem}",
    "a certificate that is empty text": "tls_server_config: {cert_file: '', key_file: key.pem}",
    "a key that is empty text": "tls_server_config: {cert_file: cert.pem, key_file: ''}",
    "neither, and a policy": "tls_server_config: {cert_file: '', client_auth_type: x}",
    "a certificate that is not there": "tls_server_config: {cert_file: no, key_file: key.pem}",
    "a key that is not there": "tls_server_config: {cert_file: cert.pem, key_file: no}",
    "neither is there": "tls_server_config: {cert_file: no, key_file: no}",
    "the key of another one": "tls_server_config: {cert_file: cert.pem, key_file: other.pem}",
    "two certificates": "tls_server_config: {cert_file: cert.pem, key_file: cert.pem}",
    "an authority without a policy": tls(CA),
    "an authority and NoClientCert": tls(CA, "client_auth_type: NoClientCert"),
    "an empty authority without a policy": tls("client_ca_file: /dev/null"),
    "an authority that is not there": tls(REQUIRED, "client_ca_file: no"),
    "a policy that there is not": tls("client_auth_type: Sometimes"),
    "an invented suite": tls("cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA2048]"),
    "a broken suite": tls("cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]"),
    "a suite that is no list": tls(f"cipher_suites: {GOOD_SUITE}"),
    "suites without those of HTTP/2": tls(f"cipher_suites: [{OTHER_SUITE}]"),
    "an invented curve": tls("curve_preferences: [CurveP257]"),
    "an invented version": tls("min_version: TLS111"),
    "an empty version": tls("max_version: ''"),
    "an order that is no truth": tls("prefer_server_cipher_suites: maybe"),
    "HTTP/2 as text": "http_server_config: {http2: 'true'}",
    "HTTP/2 as a number": "http_server_config: {http2: 1}",
    "truth in mixed letters": "http_server_config: {http2: tRUE}",
    "truth that is none": "http_server_config: {http2: !!bool maybe}",
    "a number that is none": f"basic_auth_users: {{!!int alice: {HASH}}}",
    "truth of another tag": "http_server_config: {http2: !foo true}",
    "truth of no tag in particular": "http_server_config: {http2: ! true}",
    "nobody in two words": f"basic_auth_users: {{~: {HASH}, null: {HASH}}}",
    "nobody twice": f"basic_auth_users: {{~: {HASH}, '': {HASH}}}",
    "a file within itself": "&a {http_server_config: *a}",
    "bytes that are none": "basic_auth_users: {alice: !!binary '?'}",
    "another header": "http_server_config: {headers: {Content-Type: foo}}",
    "a header in small letters": "http_server_config: {headers: {x-frame-options: deny}}",
    "a frame option that there is not": "http_server_config: {headers: {X-Frame-Options: foo}}",
    "a frame option that is blank": "http_server_config: {headers: {X-Frame-Options: ''}}",
    "a type option that there is not": (
        "http_server_config: {headers: {X-Content-Type-Options: sniff}}"
    ),
    "a password that is no hash": users("john", "doe"),
    "a password that is nothing": users("john", "null"),
    "a hash of a cost that is too low": users("john", "$2y$03$" + "a" * 53),
}

STRICTER = {
    "two documents": ("{}\n---\nbasic_auth_users: {}\n", "the second, ignored, may hold the users"),
    "versions without a certificate": (
        "tls_server_config: {min_version: TLS12}",
        "it would be served in the clear, against the file's intent",
    ),
    "empty names": (
        "tls_server_config: {cert_file: '', key_file: ''}",
        "likewise: a template's variable that was empty",
    ),
    "RequireAnyClientCert": (
        tls("client_auth_type: RequireAnyClientCert"),
        "Python cannot ask for a certificate without verifying it; and it keeps nobody out",
    ),
    "an authority that is none": (
        tls(REQUIRED, "client_ca_file: key.pem"),
        "no client could ever come in",
    ),
    "versions that exclude each other": (
        tls("min_version: TLS13", "max_version: TLS12"),
        "no client could ever connect",
    ),
    "X25519 alone": (
        tls("curve_preferences: [X25519]"),
        "Python 3.11 cannot set it; ignoring the key would offer other curves",
    ),
    "two curves": (tls("curve_preferences: [X25519, CurveP256]"), "likewise"),
    "two curves without X25519": (tls("curve_preferences: [CurveP256, CurveP384]"), "likewise"),
    "a key that is too short": (
        "tls_server_config: {cert_file: short.pem, key_file: short-key.pem}",
        "Debian's OpenSSL serves with no RSA key below 2048 bits",
    ),
    "a hash of other letters": (
        users("alice", "$2b$10$" + "!" * 53),
        "no password would ever fit",
    ),
    "a hash of another major version": (users("alice", f"$1b{HASH[3:]}"), "there was none"),
    "a name with a colon": (users("'a:b'", HASH), "no client can send it"),
    "a header of what is not to be printed": (
        'http_server_config: {headers: {X-XSS-Protection: "a\\x01b"}}',
        "RFC 9110, section 5.5: it is invalid, and dangerous",
    ),
}

HEADERS = {
    "a header of two lines": '{X-XSS-Protection: "a\\r\\nSet-Cookie: b"}',
    "a header with its line's end": "\n    Content-Security-Policy: |\n      default-src 'self'\n",
    "a header with blanks around it": "{Strict-Transport-Security: ' max-age=1\t'}",
    "a header of other letters": "{X-XSS-Protection: é—字}",
    "a header with a tab in it": '{X-XSS-Protection: "a\\tb"}',
    "a header that is a sign": "{X-XSS-Protection: =, Content-Security-Policy: <<}",
    "a header that is true": "{X-XSS-Protection: yes}",
}

NEWER = {
    "client_allowed_sans": tls(REQUIRED, CA, "client_allowed_sans: [known]"),
    "a rate": "rate_limit: {interval: 1s, burst: 20}",
    "no rate": "rate_limit: {interval: 0, burst: 0}",
    "inline": "",  # filled in by the test: it needs the certificate
}


@dataclass(frozen=True)
class Folder:
    """Where the files lie, and who connects."""

    path: Path
    authority: trustme.CA
    clients: dict[str, ssl.SSLContext | None]

    def write(self, text: str | bytes) -> Path:
        path = self.path / "web.yml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path


def write_short_pair(path: Path) -> None:
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin.replace(2090))
    pem = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    (path / "short.pem").write_bytes(pem)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (path / "short-key.pem").write_bytes(secret)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("web")
    authority, stranger = trustme.CA(), trustme.CA()
    below = authority.create_child_ca()
    server = authority.issue_cert("localhost")
    server.private_key_pem.write_to_path(path / "key.pem")
    server.cert_chain_pems[0].write_to_path(path / "cert.pem")
    older = authority.issue_cert("localhost", key_type=trustme.KeyType.RSA)
    older.private_key_pem.write_to_path(path / "rsa-key.pem")
    older.cert_chain_pems[0].write_to_path(path / "rsa.pem")
    write_short_pair(path)
    authority.issue_cert("other").private_key_pem.write_to_path(path / "other.pem")
    authority.cert_pem.write_to_path(path / "ca.pem")
    below.cert_pem.write_to_path(path / "below.pem")
    shown = {
        "no certificate": None,
        "a certificate": authority.issue_cert("known"),
        "a certificate of the authority below": below.issue_cert("known"),
        "a stranger's certificate": stranger.issue_cert("known"),
    }
    clients: dict[str, ssl.SSLContext | None] = {"plain HTTP": None}
    for name, certificate in shown.items():
        context = ssl.create_default_context()
        authority.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        clients[name] = context
    old = ssl.create_default_context()
    authority.configure_trust(old)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    suite = ssl.create_default_context()
    authority.configure_trust(suite)
    suite.maximum_version = ssl.TLSVersion.TLSv1_2
    suite.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    curve = ssl.create_default_context()
    authority.configure_trust(curve)
    curve.set_ecdh_curve("secp384r1")
    exchange = ssl.create_default_context()
    authority.configure_trust(exchange)
    exchange.maximum_version = ssl.TLSVersion.TLSv1_2
    exchange.set_ciphers("AES128-GCM-SHA256")
    clients |= {"TLS 1.2": old, "another suite": suite, "another curve": curve}
    clients |= {"RSA's key exchange": exchange}
    return Folder(path, authority, clients)


Outcomes = dict[str, int]


def outcomes(port: int, folder: Folder) -> Outcomes:
    """What each client gets with each password: the status, 0 where there is no answer."""
    found = {}
    for name, context in folder.clients.items():
        client = Client(socket.AF_INET, ("127.0.0.1", port), context)
        wrong = ("alice:wrong", "mallory:right", ":right") if name in GUESSING else ()
        for login in ("", "alice:right", *wrong):
            headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
            try:
                status = client.request("/metrics", **(headers if login else {})).status
            except OSError:
                status = 0
            # To plain HTTP where TLS is served, Go says 400; we close, as OpenSSL has it.
            found[f"{name}, {login or 'no password'}"] = 0 if status == 400 else status
    return found


@contextlib.contextmanager
def node_exporter(path: Path) -> Iterator[int]:
    """Its port; 0: it refuses the file."""
    port = free_port()
    with (path.parent / "node_exporter.log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROGRAM,
                "--collector.disable-defaults",
                "--collector.loadavg",
                f"--web.listen-address=127.0.0.1:{port}",
                f"--web.config.file={path}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield port if _answers(process, port) else 0
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it comes to answer anything at all; it may listen before it finds a fault."""
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None:
        assert time.monotonic() < end
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), PATIENCE_S) as sock,
        ):
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")  # where TLS is served too: "400 Bad Request"
            if sock.recv(1):
                return True
        time.sleep(0.01)
    return False


def theirs(path: Path, folder: Folder) -> Outcomes | None:
    """What node_exporter's clients get; None: it does not start."""
    with node_exporter(path) as port:
        return outcomes(port, folder) if port else None


def ours(path: Path, folder: Folder) -> Outcomes | None:
    """What wattledger's clients get; None: it does not start."""
    try:
        with serving(web_config=path) as it:
            return outcomes(int(it.server.address.rpartition(":")[2]), folder)
    except ConfigError:
        return None


@pytest.mark.parametrize("name", SAME)
def test_the_same(name: str, folder: Folder) -> None:
    path = folder.write(SAME[name])
    assert ours(path, folder) == theirs(path, folder)


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_the_same(name: str, folder: Folder) -> None:
    path = folder.write(f"http_server_config:\n  headers: {HEADERS[name]}")

    def headers(port: int) -> dict[str, str]:
        answer = Client(socket.AF_INET, ("127.0.0.1", port)).request("/metrics")
        kept = ("x-xss-protection", "content-security-policy", "strict-transport-security")
        return {key: value for key, value in answer.headers.items() if key in (*kept, "set-cookie")}

    with node_exporter(path) as port:
        theirs = headers(port)
    with serving(web_config=path) as it:
        assert headers(int(it.server.address.rpartition(":")[2])) == theirs != {}


def test_the_clients_tell_files_apart(folder: Folder) -> None:
    """Else the test above could not fail."""
    files = [
        *("", tls(), tls(REQUIRED, CA), tls(GIVEN, CA), users("alice", HASH), "[]"),
        tls("max_version: TLS12", f"cipher_suites: [{GOOD_SUITE}]"),
        *(tls("min_version: TLS13"), tls("curve_preferences: [CurveP521]")),
        tls(REQUIRED, "client_ca_file: below.pem"),
        SAME["suites of RSA's key exchange"],
        users("~", HASH),
    ]
    found = [ours(folder.write(text), folder) for text in files]
    assert all(found.count(one) == 1 for one in found)


@pytest.mark.parametrize("name", STRICTER)
def test_where_we_are_stricter(name: str, folder: Folder) -> None:
    text, reason = STRICTER[name]
    assert reason
    path = folder.write(text)
    with node_exporter(path) as port:
        assert port, "it refuses too: the same, then"
    assert ours(path, folder) is None


@pytest.mark.parametrize("name", NEWER)
def test_what_is_newer_than_node_exporter_1_5(name: str, folder: Folder) -> None:
    text = NEWER[name] or "\n".join(
        [
            "tls_server_config:",
            "  cert: |",
            textwrap.indent((folder.path / "cert.pem").read_text(), "    "),
            "  key: |",
            textwrap.indent((folder.path / "key.pem").read_text(), "    "),
        ]
    )
    path = folder.write(text)
    assert theirs(path, folder) is None
    found = ours(path, folder)
    assert found is not None
    assert 200 in found.values()
