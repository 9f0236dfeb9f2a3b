"""How long a scrape takes, asked as Prometheus asks, at a pace that does not wait for answers."""

from __future__ import annotations

import gc
import hashlib
import http.client
import math
import multiprocessing
import socket
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from typing import NamedTuple

HEADERS = {  # of Prometheus 3
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/3.5.0",
}


class Scrapes(NamedTuple):
    """Latencies in ms, from the instant at which each scrape was due; bodies by their digest."""

    latencies_ms: list[float]
    bodies: set[bytes]
    seconds: float

    def quantile_ms(self, q: float) -> float:
        """The smallest latency that at least this part of the scrapes did not exceed."""
        ordered = sorted(self.latencies_ms)
        return ordered[max(0, math.ceil(q * len(ordered)) - 1)]

    @property
    def per_second(self) -> float:
        return len(self.latencies_ms) / self.seconds


def paced(port: int, per_second: float, seconds: float, *, keep: bool, offset_s: float) -> Scrapes:
    """Scrapes at a steady pace over one kept connection, or over a new one each time.

    A scrape that comes late because the one before it was slow counts from when it was due: a
    server that stalls is not asked less (no coordinated omission).
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    latencies_ms: list[float] = []
    bodies: set[bytes] = set()
    collecting = gc.isenabled()
    gc.disable()  # the client's own pauses are not the server's
    begin_s = time.perf_counter() + offset_s
    for number in range(round(per_second * seconds)):
        due_s = begin_s + number / per_second
        time.sleep(max(0.0, due_s - time.perf_counter()))
        # The client's own oversleeping is not the server's; being late by its last answer is.
        woke_s = time.perf_counter()
        late_s = woke_s - due_s
        start_s = woke_s if late_s < 0.001 else due_s
        if connection.sock is None:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.request("GET", "/metrics", headers=HEADERS)
        response = connection.getresponse()
        body = response.read()
        latencies_ms.append((time.perf_counter() - start_s) * 1000)
        if response.status != 200:
            raise RuntimeError(f"/metrics answered {response.status}")
        bodies.add(hashlib.md5(body).digest())
        if not keep:
            connection.close()
    ran_s = time.perf_counter() - begin_s
    connection.close()
    if collecting:
        gc.enable()
    return Scrapes(latencies_ms, bodies, ran_s)


def together(port: int, jobs: Iterable[tuple[float, bool, float]], seconds: float) -> list[Scrapes]:
    """Several paced clients at once, each in a process of its own.

    Args:
        jobs: for each (scrapes per second, over a kept connection, its part of the period to
            begin later, so that the clients alternate).
        seconds: for how long.
    """
    context = multiprocessing.get_context("spawn")
    clients = []
    for per_second, keep, part in jobs:
        here, there = context.Pipe()
        arguments = (there, port, per_second, seconds, keep, part / per_second)
        client = context.Process(target=_client, args=arguments, daemon=True)
        client.start()
        clients.append((client, here))
    for _, pipe in clients:
        pipe.recv()  # it has been loaded
    for _, pipe in clients:
        pipe.send(None)
    results = [Scrapes(*pipe.recv()) for _, pipe in clients]
    for client, _ in clients:
        client.join(5)
    return results


def _client(
    pipe: Connection, port: int, per_second: float, seconds: float, keep: bool, offset_s: float
) -> None:
    pipe.send(None)
    pipe.recv()
    pipe.send(tuple(paced(port, per_second, seconds, keep=keep, offset_s=offset_s)))


def merged(parts: list[Scrapes]) -> Scrapes:
    """The scrapes of several clients as one."""
    return Scrapes(
        [latency for part in parts for latency in part.latencies_ms],
        set[bytes]().union(*(part.bodies for part in parts)),
        max(part.seconds for part in parts),
    )
