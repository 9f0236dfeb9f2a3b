"""From checked TLS settings to what OpenSSL serves with."""

from __future__ import annotations

import os
import ssl
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from wattledger_exporters.certificate import not_after_ns
from wattledger_exporters.tls import Pem, TlsSettings
from wattledger_exporters.watched import Watched
from wattledger_exporters.web_yaml import Faults

# What OpenSSL says where a certificate cannot be served with, and what that means.
_REASONS = {
    "KEY_VALUES_MISMATCH": "are a certificate and the key of another one",
    "KEY_TYPE_MISMATCH": "are a certificate and the key of another one",
    "EE_KEY_TOO_SMALL": "hold a key that is too short for this machine's OpenSSL",
    "CA_KEY_TOO_SMALL": "hold a key that is too short for this machine's OpenSSL",
    "EE_MD_TOO_WEAK": "hold a certificate whose signature is too weak for this machine's OpenSSL",
    "CA_MD_TOO_WEAK": "hold a certificate whose signature is too weak for this machine's OpenSSL",
}


def make_context(
    tls: TlsSettings, files: Watched, faults: Faults
) -> tuple[ssl.SSLContext, int] | None:
    """The server's side of TLS, and when its certificate ends (Unix time in ns; 0: unknown).

    Args:
        tls: checked already.
        files: reads what it names.
        faults: grows where that fails; then there is None.
    """
    pems = [_read(pem, files, faults) for pem in (tls.cert, tls.key, tls.client_ca)]
    cert, key, client_ca = pems
    if cert is None or key is None or (tls.client_ca is not None and client_ca is None):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():  # versions before 1.2 are deprecated; the file asks for them
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = tls.min_version
        context.maximum_version = tls.max_version
    if not tls.prefer_server_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    known = len(faults)
    _load_pair(context, tls, cert, key, faults)
    _load_authorities(context, tls, client_ca, faults)
    _set_ciphers(context, tls, faults)
    return None if len(faults) > known else (context, not_after_ns(cert))


def _read(pem: Pem | None, files: Watched, faults: Faults) -> bytes | None:
    if pem is None:
        return None
    if pem.path is None:
        return pem.inline.encode()
    try:
        return files.read(pem.path)
    except OSError as error:
        faults.append((pem.at, f"{pem.path} cannot be read: {error.strerror}"))
    except ValueError:
        faults.append((pem.at, "is no file's name"))
    return None


@contextmanager
def _as_file(raw: bytes) -> Iterator[str]:
    """A name for bytes, for Python's `ssl` takes names only; they never touch a disk."""
    descriptor = os.memfd_create("wattledger-pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(raw)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _load_pair(
    context: ssl.SSLContext, tls: TlsSettings, cert: bytes, key: bytes, faults: Faults
) -> None:
    named = f"{tls.cert.path or 'this'} and {tls.key.path or tls.key.at}"
    try:
        with _as_file(cert) as cert_name, _as_file(key) as key_name:
            # A password is never asked for: the daemon has no terminal.
            context.load_cert_chain(cert_name, key_name, password=_no_password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or ""
        why = _REASONS.get(reason, "are not a certificate and its unencrypted key")
        faults.append((tls.cert.at, f"{named} {why}"))


def _load_authorities(
    context: ssl.SSLContext, tls: TlsSettings, client_ca: bytes | None, faults: Faults
) -> None:
    context.verify_mode = tls.client_auth
    if tls.client_ca is None:
        if tls.client_auth is not ssl.CERT_NONE:  # as Go: whom the system trusts
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    # As in Go, whoever stands in the file is trusted, be it an authority below another one.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        with _as_file(client_ca or b"") as name:
            context.load_verify_locations(name)
    except OSError:
        named = tls.client_ca.path or "this"
        faults.append((tls.client_ca.at, f"{named} holds no PEM certificate"))


def _set_ciphers(context: ssl.SSLContext, tls: TlsSettings, faults: Faults) -> None:
    ciphers = ":".join(tls.ciphers)
    if tls.min_version < ssl.TLSVersion.TLSv1_2:
        # OpenSSL 3 offers TLS 1.0 and 1.1, which sign with SHA-1, at no higher level.
        ciphers = (ciphers or "DEFAULT") + ":@SECLEVEL=0"
    try:
        if ciphers:
            context.set_ciphers(ciphers)
        if tls.curve:
            context.set_ecdh_curve(tls.curve)
    except (ssl.SSLError, ValueError) as error:
        faults.append(
            (f"{tls.cert.at.partition('.')[0]}.cipher_suites", f"OpenSSL refuses them: {error}")
        )


def _no_password() -> str:
    raise ValueError("the key is encrypted")
