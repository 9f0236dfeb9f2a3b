"""Basic authentication: who comes in, and what guessing costs."""

from __future__ import annotations

import asyncio
import base64
import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import bcrypt
from hypothesis import given
from hypothesis import strategies as st

from asking import ALICE, DAEMON, Asker
from serving import serving
from wattledger_exporters.http.auth import BasicAuth, TokenBucket, Verdict, nobody_hash
from wattledger_exporters.web_config import LiveWebConfig

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


def test_no_user_of_the_machine_gets_around_the_password(write: Callable[[str], Path]) -> None:
    """The page may name everybody's jobs. Where strangers read it, so may they."""
    asker = Asker(web=LiveWebConfig(write(f"basic_auth_users: {{alice: {HASH}}}")))
    asker.publish()
    for page in ("/metrics", "/"):
        status, body = asker.ask(page, ALICE)
        assert status == 403 and "wattledger jobs" in body["error"]
        assert asker.status(page, DAEMON) == asker.status(page, 0) == 200
    assert asker.status("/api/v1/jobs", ALICE) == asker.status("/api/v1/status", ALICE) == 200
    asker = Asker(web=LiveWebConfig(write("http_server_config: {http2: false}")))
    asker.publish()
    assert asker.status("/metrics", ALICE) == asker.status("/", ALICE) == 200


def test_200_bad_logins_starve_no_scrape(write: Callable[[str], Path]) -> None:
    slow = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    path = write(f"basic_auth_users: {{alice: {slow}}}")
    with serving(web_config=path) as it:
        right = basic("alice", PASSWORD)
        assert it.tcp.request("/metrics", Authorization=right).status == 200
        seen = [
            it.tcp.request("/metrics", Authorization=basic(name, f"guess {i}")).status
            for i in range(100)
            for name in ("alice", "mallory")
        ]
        # By the daemon's clock, which stands still here, no time passes: a burst is looked at, the
        # first login of the test among it, and the rest is not.
        assert seen == [401] * 7 + [429] * 193
        assert it.tcp.request("/metrics", Authorization=right).status == 200


def test_an_unknown_user_costs_the_same_and_never_comes_in() -> None:
    users = {"alice": HASH, "bob": "$2y$12$" + "a" * 53}
    fakes = [nobody_hash(users, bytes([number])) for number in range(4)]
    assert [fake[:7] for fake in fakes] == ["$2b$04$", "$2b$12$"] * 2
    assert fakes == [nobody_hash(users, bytes([number])) for number in range(4)]
    cheap = nobody_hash({"alice": HASH}, b"mallory")
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


def test_a_hash_that_takes_too_long_is_computed_once_and_lets_in_then() -> None:
    go_on = threading.Event()
    hashed: list[bytes] = []

    def slow(password: bytes, _hash: str) -> bool:
        hashed.append(password)
        go_on.wait(30)
        return password == PASSWORD.encode()

    async def check() -> None:
        auth = BasicAuth(lambda: 0.0, timeout_s=0.01, matches=slow)
        good, bad = basic("alice", PASSWORD).encode(), basic("alice", "guess").encode()
        gone = asyncio.create_task(_judge(auth, good))  # a scraper's own timeout is shorter
        while not hashed:
            await asyncio.sleep(0.001)
        gone.cancel()
        assert await _judge(auth, good) is Verdict.LATER
        assert await _judge(auth, bad) is Verdict.LATER
        go_on.set()
        while await _judge(auth, good, "b") is not Verdict.PASS:
            await asyncio.sleep(0.001)
        assert hashed.count(PASSWORD.encode()) == 1
        attempt = itertools.count()
        while await _judge(auth, bad, f"c{next(attempt)}") is not Verdict.DENY:
            await asyncio.sleep(0.001)
        assert await auth.judge(good, {"bob": HASH}, "d") is not Verdict.PASS
        auth.stop()

    asyncio.run(asyncio.wait_for(check(), 30))


def test_failures_of_one_network_are_counted_together() -> None:
    async def check() -> None:
        auth = BasicAuth(lambda: 0.0)

        async def guess(*addresses: str) -> list[Verdict]:
            wrong = basic("alice", "guess").encode()
            return [await _judge(auth, wrong, address) for address in addresses]

        burst = [Verdict.DENY] * 8
        # Whoever has one address of IPv6 has 2^64.
        there = [f"2001:db8::{number:x}:1" for number in range(9)]
        assert await guess(*there) == [*burst, Verdict.LATER]
        assert await guess("2001:db8:0:1::1") == [Verdict.DENY]
        # A socket for both families calls an address of IPv4 so: it is one of IPv4.
        mapped = [f"::ffff:192.0.2.{number}" for number in range(9)]
        assert await guess(*mapped) == [*burst, Verdict.DENY]
        assert await guess(*["192.0.2.1"] * 8) == [*burst[1:], Verdict.LATER]
        assert await guess(*["fe80::1%eth0"] * 9) == [*burst, Verdict.LATER]
        assert await guess(*["no address"] * 9) == [*burst, Verdict.LATER]
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
