"""How long a scrape takes, asked as Prometheus asks, at a pace that does not wait for answers."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import http.client
import math
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

HEADERS = {  # of Prometheus 3
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/3.5.0",
}


class Job(NamedTuple):
    """What one client does.

    Attributes:
        port: of the server.
        pid: of the server.
        per_second: how many scrapes.
        keep: over one kept connection, else over a new one each time.
        begin: by which part of its period it begins later, so that clients alternate.
    """

    port: int
    pid: int
    per_second: float
    keep: bool
    begin: float


class Scrapes(NamedTuple):
    """What the scrapes of one or more clients took.

    Attributes:
        latencies_ms: each from the instant at which it was due.
        queued_ms: of each, how long client and server stood in line for a CPU that others used.
        bodies: digests of the bodies.
        seconds: from the first to the last.
    """

    latencies_ms: list[float]
    queued_ms: list[float]
    bodies: set[bytes]
    seconds: float

    def quantile_ms(self, q: float) -> float:
        """The smallest latency that at least this part of the scrapes did not exceed."""
        return _quantile(self.latencies_ms, q)

    def undisturbed_ms(self, q: float) -> float:
        """The same without the time in line for a CPU: as it would be with no other program."""
        pairs = zip(self.latencies_ms, self.queued_ms, strict=True)
        return _quantile([max(0.0, latency - queued) for latency, queued in pairs], q)

    @property
    def per_second(self) -> float:
        return len(self.latencies_ms) / self.seconds


def _quantile(values: list[float], q: float) -> float:
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


def _queued_ms(pid: int) -> float:
    """How long the threads of the server and this one have stood in line for a CPU so far."""
    tasks = [*Path(f"/proc/{pid}/task").iterdir(), Path("/proc/thread-self")]
    waited_ns = 0
    for task in tasks:
        with contextlib.suppress(OSError):  # a thread that has just ended
            waited_ns += int((task / "schedstat").read_text().split()[1])
    return waited_ns / 1e6


def paced(job: Job, seconds: float) -> Scrapes:
    """Scrapes at a steady pace.

    A scrape that comes late because the one before it was slow counts from when it was due: a
    server that stalls is not asked less (no coordinated omission).
    """
    connection = http.client.HTTPConnection("127.0.0.1", job.port, timeout=30)
    connection.request("GET", "/metrics", headers=HEADERS)  # the client's own first time
    connection.getresponse().read()
    if not job.keep:
        connection.close()
    looks = job.per_second <= 100  # it costs the client a few hundred µs
    latencies_ms: list[float] = []
    queued_ms: list[float] = []
    bodies: set[bytes] = set()
    gc.disable()  # the client's own pauses are not the server's
    begin_s = time.perf_counter() + job.begin / job.per_second
    for number in range(round(job.per_second * seconds)):
        due_s = begin_s + number / job.per_second
        late = time.perf_counter() > due_s
        time.sleep(max(0.0, due_s - time.perf_counter()))
        before_ms = _queued_ms(job.pid) if looks else 0.0
        # What the client oversleeps is not the server's; being late by the last answer is.
        start_s = due_s if late else time.perf_counter()
        connection.request("GET", "/metrics", headers=HEADERS)
        response = connection.getresponse()
        body = response.read()
        latencies_ms.append((time.perf_counter() - start_s) * 1000)
        queued_ms.append(_queued_ms(job.pid) - before_ms if looks else 0.0)
        if response.status != 200:
            raise RuntimeError(f"/metrics answered {response.status}")
        bodies.add(hashlib.md5(body).digest())
        if not job.keep:
            connection.close()
    ran_s = time.perf_counter() - begin_s
    connection.close()
    return Scrapes(latencies_ms, queued_ms, bodies, ran_s)


def together(jobs: list[Job], seconds: float) -> list[Scrapes]:
    """Several paced clients at once, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    clients = []
    for job in jobs:
        here, there = context.Pipe()
        client = context.Process(target=_client, args=(there, job, seconds), daemon=True)
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


def _client(pipe: Connection, job: Job, seconds: float) -> None:
    pipe.send(None)
    pipe.recv()
    pipe.send(tuple(paced(job, seconds)))


def merged(parts: list[Scrapes]) -> Scrapes:
    """The scrapes of several clients as one."""
    return Scrapes(
        [latency for part in parts for latency in part.latencies_ms],
        [queued for part in parts for queued in part.queued_ms],
        set[bytes]().union(*(part.bodies for part in parts)),
        max(part.seconds for part in parts),
    )
