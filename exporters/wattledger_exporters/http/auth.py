"""Basic authentication that a flood of bad passwords does not turn into a denial of service.

A bcrypt hash takes some 70 ms of a core by design. So: what was verified once is remembered (as an
HMAC, never as the password), failures are limited for each address before anything is hashed, one
hash is computed at a time in a worker thread, and an unknown user costs the same as a known one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum, auto

from wattledger_exporters.http.worker import Busy, Worker

_REMEMBERED = 100
_ADDRESSES = 1024
_FAILURES_PER_S = 4.0
_BURST = 8.0
_WAITING = 8
_TIMEOUT_S = 20.0
_BCRYPT_BYTES = 72  # bcrypt reads no more of a password
# 22 characters of salt and 31 of hash that no password is known to give; only the cost matters.
_NOBODY = "abcdefghijklmnopqrstuu" + "A" * 31


class Verdict(Enum):
    """What to answer."""

    PASS = auto()
    DENY = auto()  # 401
    LATER = auto()  # 429: not even looked at


class TokenBucket:
    """`burst` events at once, then `per_s` each second."""

    def __init__(self, per_s: float, burst: float, now_s: Callable[[], float]) -> None:
        self._per_s = per_s
        self._burst = burst
        self._now_s = now_s
        self._tokens = burst
        self._at_s = now_s()

    def take(self) -> bool:
        """Whether one more event is within the limit; if so it is counted."""
        now_s = self._now_s()
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class BasicAuth:
    """Judges `Authorization` headers; used from the server's loop only."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, None] = OrderedDict()
        self._attempts: OrderedDict[str, TokenBucket] = OrderedDict()
        self._worker = Worker("wattledger-bcrypt", _WAITING)

    async def judge(self, header: bytes, users: Mapping[str, str], address: str) -> Verdict:
        """The verdict on one request.

        Args:
            header: the `Authorization` header, empty where there is none.
            users: name → bcrypt hash, from the web configuration as it is now.
            address: whose attempts are counted together.
        """
        credentials = _parse(header)
        if credentials is None:
            return Verdict.DENY
        name, password = credentials
        known = users.get(name)
        hashed = known or nobody_hash(users, hmac.digest(self._key, name.encode(), hashlib.sha256))
        # The hash is part of the key: another password in the file, and nothing is remembered.
        text = b"\0".join((name.encode(), hashed.encode(), password))
        mark = hmac.digest(self._key, text, hashlib.sha256)
        if mark in self._verified:
            self._verified.move_to_end(mark)
            return Verdict.PASS
        if not self._bucket(address).take():
            return Verdict.LATER
        try:
            matches = await self._worker.run(lambda: _matches(password, hashed), _TIMEOUT_S)
        except (Busy, TimeoutError):
            return Verdict.LATER
        if not (matches and known):
            return Verdict.DENY
        self._verified[mark] = None
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return Verdict.PASS

    def stop(self) -> None:
        """End the worker."""
        self._worker.stop()

    def _bucket(self, address: str) -> TokenBucket:
        bucket = self._attempts.get(address)
        if bucket is None:
            bucket = TokenBucket(_FAILURES_PER_S, _BURST, self._now_s)
            self._attempts[address] = bucket
            if len(self._attempts) > _ADDRESSES:
                self._attempts.popitem(last=False)
        self._attempts.move_to_end(address)
        return bucket


def nobody_hash(users: Mapping[str, str], name: bytes) -> str:
    """A hash that fits nobody and takes as long as one of the users' own.

    Args:
        users: name → bcrypt hash.
        name: who is none of them, such that nobody else can tell which of several costs it gets:
            where they differ, an unknown name always of the highest would stand out.
    """
    costs = sorted(hashed.split("$")[2] for hashed in users.values())
    cost = costs[int.from_bytes(name, "big") % len(costs)] if costs else "10"
    return f"$2b${cost}${_NOBODY}"


def _parse(header: bytes) -> tuple[str, bytes] | None:
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _matches(password: bytes, hashed: str) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed.encode())
    except ValueError:  # a NUL in the password, or a damaged hash
        return False
