"""`tls_server_config` of the web configuration, in terms of OpenSSL.

Go's names of cipher suites, curves and client authentication are mapped where OpenSSL through
Python offers the same; where it does not, a fault says so.
"""

from __future__ import annotations

import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Faults = list[tuple[str, str]]

_AT = "tls_server_config"
_KEYS = (
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "curve_preferences",
    "prefer_server_cipher_suites",
)
_INLINE = {"cert": "cert_file", "key": "key_file", "client_ca": "client_ca_file"}
_VERSIONS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    # Go asks for a certificate here and then uses it for nothing: the same as not asking.
    "RequestClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
# Go's crypto/tls CipherSuites() to OpenSSL's names; the three of TLS 1.3 are always on in both.
_TLS13_SUITES = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
)
_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1"}


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """`tls_server_config`, checked; paths are absolute or relative to the working directory."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None
    client_auth: ssl.VerifyMode
    allowed_sans: frozenset[str]
    min_version: ssl.TLSVersion
    max_version: ssl.TLSVersion
    ciphers: tuple[str, ...]
    curve: str
    prefer_server_ciphers: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """What to watch for changes."""
        ca = (self.client_ca_file,) if self.client_ca_file else ()
        return (self.cert_file, self.key_file, *ca)


def read_tls(value: object, base: Path, faults: Faults) -> TlsSettings | None:
    """Check the section; None where it is empty or a fault keeps it from being used.

    Args:
        value: as the YAML parser gave it.
        base: relative paths are relative to this directory, that of the file.
        faults: grows by (key path, fault and remedy).
    """
    if not isinstance(value, dict):
        faults.append((_AT, "must be a mapping of keys to values"))
        return None
    before = len(faults)
    for key in value:
        if key in _INLINE:
            faults.append(
                (
                    f"{_AT}.{key}",
                    f"inline PEM is not read; put it in a file, name it {_INLINE[key]}",
                )
            )
        elif key not in _KEYS:
            faults.append((f"{_AT}.{key}", f"is not known; known here: {', '.join(_KEYS)}"))
    cert_file = _path(value, "cert_file", base, faults, required=True)
    key_file = _path(value, "key_file", base, faults, required=True)
    client_ca_file = _path(value, "client_ca_file", base, faults, required=False)
    client_auth = _client_auth(value, client_ca_file, faults)
    sans = _strings(value, "client_allowed_sans", faults)
    if sans and client_auth is not ssl.CERT_REQUIRED:
        faults.append(
            (
                f"{_AT}.client_allowed_sans",
                'needs client_auth_type: "RequireAndVerifyClientCert": others let anybody in',
            )
        )
    min_version = _choice(value, "min_version", _VERSIONS, "TLS12", faults)
    max_version = _choice(value, "max_version", _VERSIONS, "TLS13", faults)
    if min_version > max_version:
        faults.append((f"{_AT}.min_version", "is above max_version: no client could connect"))
    ciphers = _ciphers(value, faults)
    curve = _curve(value, faults)
    prefer = value.get("prefer_server_cipher_suites", True)
    if not isinstance(prefer, bool):
        faults.append((f"{_AT}.prefer_server_cipher_suites", "must be true or false"))
    if len(faults) > before or cert_file is None or key_file is None:
        return None
    return TlsSettings(
        cert_file,
        key_file,
        client_ca_file,
        client_auth,
        frozenset(sans),
        min_version,
        max_version,
        ciphers,
        curve,
        bool(prefer),
    )


def make_context(tls: TlsSettings, faults: Faults) -> ssl.SSLContext | None:
    """The server's side of TLS with certificates loaded; None, and a fault, where that fails."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():  # versions before 1.2 are deprecated; the file asks for them
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = tls.min_version
        context.maximum_version = tls.max_version
    if not tls.prefer_server_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    for path in tls.files:
        key = (
            "client_ca_file"
            if path == tls.client_ca_file
            else ("cert_file" if path == tls.cert_file else "key_file")
        )
        try:
            path.read_bytes()
        except OSError as error:
            faults.append((f"{_AT}.{key}", f"{path} cannot be read: {error.strerror}"))
            return None
    try:
        # A password is never asked for: the daemon has no terminal.
        context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_password)
    except (OSError, ValueError):
        faults.append(
            (
                f"{_AT}.cert_file",
                f"{tls.cert_file} and {tls.key_file}: not a certificate and its unencrypted key",
            )
        )
        return None
    if tls.client_ca_file is not None:
        try:
            context.load_verify_locations(tls.client_ca_file)
        except OSError:
            faults.append(
                (f"{_AT}.client_ca_file", f"{tls.client_ca_file} holds no PEM certificate")
            )
            return None
    context.verify_mode = tls.client_auth
    try:
        if tls.ciphers:
            context.set_ciphers(":".join(tls.ciphers))
        if tls.curve:
            context.set_ecdh_curve(tls.curve)
    except (ssl.SSLError, ValueError) as error:
        faults.append((f"{_AT}.cipher_suites", f"this machine's OpenSSL refuses them: {error}"))
        return None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _path(
    section: dict[str, Any], key: str, base: Path, faults: Faults, *, required: bool
) -> Path | None:
    value = section.get(key)
    if not value and not required:
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        faults.append((f"{_AT}.{key}", "must name a PEM file"))
        return None
    return base / value


def _choice(
    section: dict[str, Any], key: str, known: dict[str, Any], default: str, faults: Faults
) -> Any:
    value = section.get(key) or default
    if not isinstance(value, str) or value not in known:
        faults.append((f"{_AT}.{key}", f"must be one of: {', '.join(known)}"))
        return known[default]
    return known[value]


def _client_auth(
    section: dict[str, Any], client_ca_file: Path | None, faults: Faults
) -> ssl.VerifyMode:
    at = f"{_AT}.client_auth_type"
    if section.get("client_auth_type") in ("RequireAnyClientCert", "RequireClientCert"):
        faults.append(
            (at, 'a certificate that nobody verifies is refused; use "RequireAndVerifyClientCert"')
        )
        return ssl.CERT_REQUIRED
    mode: ssl.VerifyMode = _choice(
        section, "client_auth_type", _CLIENT_AUTH, "NoClientCert", faults
    )
    if mode is not ssl.CERT_NONE and client_ca_file is None:
        faults.append((f"{_AT}.client_ca_file", "is needed to verify the clients' certificates"))
    if client_ca_file is not None and not section.get("client_auth_type"):
        faults.append((at, 'is missing: client_ca_file needs "RequireAndVerifyClientCert"'))
    return mode


def _strings(section: dict[str, Any], key: str, faults: Faults) -> list[str]:
    value = section.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        faults.append((f"{_AT}.{key}", "must be a list of text"))
        return []
    return value


def _ciphers(section: dict[str, Any], faults: Faults) -> tuple[str, ...]:
    names = _strings(section, "cipher_suites", faults)
    for name in names:
        if name not in _SUITES and name not in _TLS13_SUITES:
            faults.append((f"{_AT}.cipher_suites", f"{name} is not among: {', '.join(_SUITES)}"))
    return tuple(_SUITES[name] for name in names if name in _SUITES)


def _curve(section: dict[str, Any], faults: Faults) -> str:
    names = _strings(section, "curve_preferences", faults)
    at = f"{_AT}.curve_preferences"
    for name in names:
        if name not in (*_CURVES, "X25519"):
            faults.append((at, f"{name} is not among: X25519, {', '.join(_CURVES)}"))
    if set(names) >= {"X25519", *_CURVES} or not names:
        return ""  # all of them: OpenSSL's own order
    if len(names) > 1 or names == ["X25519"]:
        faults.append(
            (
                at,
                f"only one of {', '.join(_CURVES)} can be set; without this key X25519 comes first",
            )
        )
        return ""
    return _CURVES.get(names[0], "")
