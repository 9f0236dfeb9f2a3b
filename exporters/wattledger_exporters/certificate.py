"""When a certificate ends. Python's `ssl` tells it of a peer's certificate only, not of one's own.

The few fields up to it are walked in DER (X.690), along RFC 5280, section 4.1.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

from wattledger.units import NS_PER_S

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION = 0xA0  # [0] EXPLICIT
_UTC_TIME = 0x17
_LONG = 0x80


def not_after_ns(pem: bytes) -> int:
    """The end of the first certificate of a PEM file (the server's own), Unix time; 0: unknown."""
    found = _PEM.search(pem)
    if found is None:
        return 0
    try:
        der = ssl.PEM_cert_to_DER_cert(found[0].decode("ascii"))
        return _end_ns(der)
    except (ValueError, IndexError):
        return 0


def _end_ns(der: bytes) -> int:
    _, at, _ = _field(der, 0)  # Certificate
    _, at, _ = _field(der, at)  # TBSCertificate
    tag, _, after = _field(der, at)
    if tag == _VERSION:
        at = after
    for _ in range(3):  # serialNumber, signature, issuer
        _, _, at = _field(der, at)
    _, at, _ = _field(der, at)  # Validity
    _, _, at = _field(der, at)  # notBefore
    tag, begin, end = _field(der, at)
    text = der[begin:end].decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: RFC 5280, section 4.1.2.5.1
        text = ("20" if int(text[:2]) < 50 else "19") + text
    moment = datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp()) * NS_PER_S


def _field(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, begin and end of the contents of the field that begins at `at`."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & _LONG:
        size = length & ~_LONG
        length, at = int.from_bytes(der[at : at + size], "big"), at + size
    return tag, at, at + length
