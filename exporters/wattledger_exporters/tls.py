"""`tls_server_config` of the web configuration, in terms of OpenSSL.

Go's names of cipher suites, curves and client authentication are mapped where OpenSSL through
Python offers the same; where it does not, a fault says so. `exporters/TLS.md` lists each key.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wattledger_exporters.web_yaml import Faults, flag, mapping, text, texts

AT = "tls_server_config"
_KEYS = (
    "cert",
    "cert_file",
    "key",
    "key_file",
    "client_auth_type",
    "client_ca",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "curve_preferences",
    "prefer_server_cipher_suites",
)
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
# Go's crypto/tls CipherSuites() to OpenSSL's names; the three of TLS 1.3 are always on in both. The
# last four are there up to Go 1.21: files for exporters of that time may name them.
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
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
}
# Go's server with HTTP/2, which is on by default there, does not start without one of them
# (RFC 7540, section 9.2.2).
_HTTP2_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
}
_NO_HTTP2 = (
    f"HTTP/2 needs one of {', '.join(sorted(_HTTP2_SUITES))}, and other exporters do not start "
    "without; add one, or set http_server_config.http2: false"
)
_CURVES = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
}
_ALL_CURVES = {"X25519", *_CURVES}
_WHICH_CURVE = f"only one of {', '.join(_CURVES)} can be set, or all four with X25519"


class Pem(NamedTuple):
    """Where a certificate or a key stands.

    Attributes:
        at: its key's path in the configuration.
        path: the file, absolute or relative to the working directory; None: `inline` is it.
        inline: as it stands in the configuration itself.
    """

    at: str
    path: Path | None
    inline: str = ""

    def __repr__(self) -> str:
        """Without what may be a private key."""
        return f"Pem({self.at!r}, {self.path!r})"


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """`tls_server_config`, checked.

    Attributes:
        cert: the server's certificate, and those between it and its root.
        key: its private key.
        client_ca: who signs the clients' certificates; None: whom the system trusts.
        client_auth: whether a client must show a certificate.
        allowed_sans: a certificate that a client shows must be for one of them; None: for anybody.
        min_version: of TLS.
        max_version: likewise.
        ciphers: of TLS 1.2 and before, as OpenSSL calls them; empty: its default.
        curve: as OpenSSL calls it; empty: its default.
        prefer_server_ciphers: the order of `ciphers` is above the client's.
    """

    cert: Pem
    key: Pem
    client_ca: Pem | None
    client_auth: ssl.VerifyMode
    allowed_sans: frozenset[str] | None
    min_version: ssl.TLSVersion
    max_version: ssl.TLSVersion
    ciphers: tuple[str, ...]
    curve: str
    prefer_server_ciphers: bool

    @property
    def knows_clients(self) -> bool:
        """Whether who comes in is somebody that this file named.

        Not so where certificates of every authority that the system trusts are good: strangers
        have those.
        """
        named = self.client_ca is not None or self.allowed_sans is not None
        return named and self.client_auth is ssl.CERT_REQUIRED


def read_tls(value: object, base: Path, *, http2: bool, faults: Faults) -> TlsSettings | None:
    """Check the section; None where it is empty or a fault keeps it from being used.

    Args:
        value: as the YAML parser gave it.
        base: relative paths are relative to this directory, that of the file.
        http2: `http_server_config.http2`, which has a say in what suites are good.
        faults: grows by (key path, fault and remedy).
    """
    section = mapping(value, AT, _KEYS, faults)
    if not section:
        return None
    before = len(faults)
    cert = _needed(section, "cert", base, faults)
    key = _needed(section, "key", base, faults)
    client_ca = _pem(section, "client_ca", base, faults)
    sans = texts(section, "client_allowed_sans", AT, faults)
    client_auth = _client_auth(section, client_ca, sans, faults)
    min_version = _version(section, "min_version", "TLS12", faults)
    max_version = _version(section, "max_version", "TLS13", faults)
    if min_version > max_version:
        faults.append((f"{AT}.min_version", "is above max_version: no client could connect"))
    ciphers, least = _ciphers(section, min_version, max_version, http2=http2, faults=faults)
    curve = _curve(section, faults)
    prefer = flag(section, "prefer_server_cipher_suites", AT, faults, default=True)
    if len(faults) > before or cert is None or key is None:
        return None
    return TlsSettings(
        cert,
        key,
        client_ca,
        client_auth,
        None if sans is None else frozenset(sans),
        least,
        max_version,
        ciphers,
        curve,
        prefer,
    )


def _pem(section: dict[str, Any], key: str, base: Path, faults: Faults) -> Pem | None:
    """A file if one is named, else what stands inline, as exporter-toolkit takes them."""
    file = text(section, f"{key}_file", AT, faults)
    inline = text(section, key, AT, faults)
    if file:
        return Pem(f"{AT}.{key}_file", base / file)
    return Pem(f"{AT}.{key}", None, inline) if inline else None


def _needed(section: dict[str, Any], key: str, base: Path, faults: Faults) -> Pem | None:
    found = _pem(section, key, base, faults)
    if found is None:
        faults.append((f"{AT}.{key}_file", f"must name a PEM file (or {key} hold its text)"))
    return found


def _version(section: dict[str, Any], key: str, default: str, faults: Faults) -> ssl.TLSVersion:
    value = section.get(key)
    if value is None:
        return _VERSIONS[default]
    if not isinstance(value, str) or value not in _VERSIONS:
        faults.append((f"{AT}.{key}", f"must be one of: {', '.join(_VERSIONS)}"))
        return _VERSIONS[default]
    return _VERSIONS[value]


def _client_auth(
    section: dict[str, Any], client_ca: Pem | None, sans: list[str] | None, faults: Faults
) -> ssl.VerifyMode:
    at = f"{AT}.client_auth_type"
    name = text(section, "client_auth_type", AT, faults) or "NoClientCert"
    if name in ("RequireAnyClientCert", "RequireClientCert"):
        faults.append(
            (at, 'a certificate that nobody verifies is refused; use "RequireAndVerifyClientCert"')
        )
        return ssl.CERT_REQUIRED
    if name not in _CLIENT_AUTH:
        faults.append((at, f"must be one of: {', '.join(_CLIENT_AUTH)}"))
        return ssl.CERT_REQUIRED
    mode = _CLIENT_AUTH[name]
    if client_ca is not None and name == "NoClientCert":
        faults.append(
            (at, f'{client_ca.at} is there, so this must be "RequireAndVerifyClientCert"')
        )
    if sans is not None and mode is ssl.CERT_NONE:
        faults.append(
            (
                f"{AT}.client_allowed_sans",
                'needs client_auth_type: "RequireAndVerifyClientCert": this one lets anybody in',
            )
        )
    return mode


def _ciphers(
    section: dict[str, Any],
    least: ssl.TLSVersion,
    most: ssl.TLSVersion,
    *,
    http2: bool,
    faults: Faults,
) -> tuple[tuple[str, ...], ssl.TLSVersion]:
    """OpenSSL's names of the suites, and the lowest version of TLS for which there are any."""
    at = f"{AT}.cipher_suites"
    names = texts(section, "cipher_suites", AT, faults) or []
    known = (*_SUITES, *_TLS13_SUITES)
    unknown = [name for name in names if name not in known]
    for name in unknown:
        faults.append((at, f"{name} is not among: {', '.join(known)}"))
    chosen = tuple(_SUITES[name] for name in names if name in _SUITES)
    if unknown or not names or least >= ssl.TLSVersion.TLSv1_3:
        return chosen, least
    if http2 and _HTTP2_SUITES.isdisjoint(names):
        faults.append((at, _NO_HTTP2))
    elif not chosen and most < ssl.TLSVersion.TLSv1_3:
        faults.append((at, "all are of TLS 1.3, above max_version: no client could connect"))
    return chosen, least if chosen else ssl.TLSVersion.TLSv1_3


def _curve(section: dict[str, Any], faults: Faults) -> str:
    names = list(dict.fromkeys(texts(section, "curve_preferences", AT, faults) or []))
    at = f"{AT}.curve_preferences"
    for name in names:
        if name not in _ALL_CURVES:
            faults.append((at, f"{name} is not among: {', '.join(sorted(_ALL_CURVES))}"))
    if {*names} >= _ALL_CURVES or not names:
        return ""  # all of them: OpenSSL's own order
    if len(names) > 1 or names == ["X25519"]:
        faults.append((at, _WHICH_CURVE))
    return _CURVES.get(names[0], "")
