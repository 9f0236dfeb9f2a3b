"""Basic authentication that a flood of bad passwords does not turn into a denial of service.

A bcrypt hash takes some 70 ms of a core by design. So: what was verified once is remembered (as an
HMAC, never as the password), failures are limited for each address before anything is hashed, one
hash is computed at a time in a worker thread, and an unknown user costs the same as a known one.
A hash that takes longer than anybody waits is computed to its end, and lets in whoever comes next.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum, auto
from ipaddress import IPv6Address, ip_address

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


class Verified:
    """The marks of the logins that were verified last; for any thread."""

    def __init__(self) -> None:
        self._marks: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, mark: bytes) -> bool:
        with self._lock:
            known = mark in self._marks
            if known:
                self._marks.move_to_end(mark)
            return known

    def add(self, mark: bytes) -> None:
        """From now on it is one; the one that was not asked for for longest goes."""
        with self._lock:
            self._marks[mark] = None
            if len(self._marks) > _REMEMBERED:
                self._marks.popitem(last=False)


class BasicAuth:
    """Judges `Authorization` headers; used from the server's loop only."""

    def __init__(
        self,
        now_s: Callable[[], float] = time.monotonic,
        *,
        timeout_s: float = _TIMEOUT_S,
        matches: Callable[[bytes, str], bool] | None = None,
    ) -> None:
        """Args are for tests.

        Args:
            now_s: the clock by which failures are limited.
            timeout_s: so long a request waits for its hash.
            matches: whether a password fits a hash; bcrypt by default.
        """
        self._now_s = now_s
        self._timeout_s = timeout_s
        self._matches = matches or _matches
        self._key = secrets.token_bytes(32)
        self._verified = Verified()
        self._attempts: OrderedDict[str, TokenBucket] = OrderedDict()
        self._worker = Worker("wattledger-bcrypt", _WAITING)

    async def judge(self, header: bytes, users: Mapping[str, str], address: str) -> Verdict:
        """The verdict on one request.

        Args:
            header: the `Authorization` header, empty where there is none.
            users: name → bcrypt hash, from the web configuration as it is now.
            address: where it comes from; attempts of one network are counted together.
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
            return Verdict.PASS
        if not self._bucket(address).take():
            return Verdict.LATER

        def verify() -> bool:
            if mark in self._verified:  # since this one waits
                return True
            fits = self._matches(password, hashed) and known is not None
            if fits:  # told here, as whoever asked may have gone
                self._verified.add(mark)
            return fits

        try:
            verified = await self._worker.run(verify, self._timeout_s)
        except (Busy, TimeoutError):
            return Verdict.LATER
        return Verdict.PASS if verified else Verdict.DENY

    def stop(self) -> None:
        """End the worker."""
        self._worker.stop()

    def _bucket(self, address: str) -> TokenBucket:
        whose = _network(address)
        bucket = self._attempts.get(whose)
        if bucket is None:
            bucket = TokenBucket(_FAILURES_PER_S, _BURST, self._now_s)
            self._attempts[whose] = bucket
            if len(self._attempts) > _ADDRESSES:
                self._attempts.popitem(last=False)
        self._attempts.move_to_end(whose)
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


def _network(address: str) -> str:
    """Who is counted as one: an address of IPv4, and of IPv6 a /64, which a single host has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or f"{int(parsed) >> 64:x}/64")


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
