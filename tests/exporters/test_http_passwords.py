"""Basic authentication: who comes in, and what guessing costs."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
from hypothesis import given
from hypothesis import strategies as st

from serving import serving
from wattledger_exporters.http.auth import BasicAuth, TokenBucket, Verdict, nobody_hash

PASSWORD = "correct horse"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


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
    # So cheap that the slowest machine computes more than the 4 a second that are let through.
    cheap = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(6)).decode()
    path = write(f"basic_auth_users: {{alice: {cheap}}}")
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
        # Unlimited, all 200 are computed; limited, a few are.
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
