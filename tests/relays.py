"""A relay in this process: its zones on a clock of the test's, really served on loopback."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fakes import FakeClock
from grid_feeds import HALF_HOUR, MAX_AGE, signal
from serving import Answer, Client
from settling import Provider
from wattledger.grid.client import HttpClient
from wattledger.grid.source import Source
from wattledger.grid.wattledger_source import Wattledger
from wattledger.model import GridSignal
from wattledger.relay.command import Relay
from wattledger.relay.memory import Memory
from wattledger.relay.places import Place


class Upstream(Provider):
    """A source with a past and a forecast, which may be held up until it is let go."""

    def __init__(self, name: str = "first") -> None:
        super().__init__(name)
        self.forecasts = 0
        self.ahead = True
        self.open = threading.Event()
        self.open.set()

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        assert self.open.wait(20)
        return super().latest(now_wall_ns)

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        assert self.open.wait(20)
        return super().between(start_ns, end_ns, now_wall_ns)

    def forecast(self, now_wall_ns: int) -> list[GridSignal]:
        assert self.open.wait(20)
        self.forecasts += 1
        if self.error is not None:
            super().latest(now_wall_ns)  # raises it
        first = now_wall_ns // HALF_HOUR * HALF_HOUR
        return [
            signal(
                first + n * HALF_HOUR,
                100 + n,
                source=self.name,
                basis=self.basis,
                estimated=True,
                fetched_at_ns=now_wall_ns,
            )
            for n in range(8)
        ]


class Served(NamedTuple):
    """A relay that runs."""

    relay: Relay
    place: Place
    clock: FakeClock
    client: Client

    def get(self, path: str, **headers: str) -> Answer:
        return self.client.request(path, **headers)

    def json(self, path: str, status: int = 200) -> Any:
        found = self.get(path)
        assert found.status == status, found
        return json.loads(found.body)

    def node(self, **more: Any) -> Wattledger:
        """The source of a node that names this relay."""
        options = {"zone": "GB", "url": self.relay.url, "sleep": lambda _s: None, **more}
        return Wattledger(HttpClient(), **options)


@contextlib.contextmanager
def relayed(
    *sources: Source,
    clock: FakeClock | None = None,
    web_config: Path | None = None,
    first_s: float = 10.0,
    connections: int = 1_000,
    wait_s: float = 6.0,
    memory: Memory | None = None,
    mark: str = "",
) -> Iterator[Served]:
    clock = clock or FakeClock()
    listed: Sequence[Source] = sources or [Upstream()]
    marks = [mark] * len(listed)
    place = Place("GB", listed, clock, max_age_ns=MAX_AGE, memory=memory, marks=marks)
    if memory is not None:
        memory.watch(place.kept)
    relay = Relay(
        {"GB": place},
        clock,
        listen="127.0.0.1:0",
        web_config=web_config,
        connections=connections,
        wait_s=wait_s,
    )
    relay.start(first_s)
    try:
        host, _, port = relay.url.rpartition("://")[2].rpartition(":")
        yield Served(relay, place, clock, Client(socket.AF_INET, (host, int(port))))
    finally:
        for source in listed:
            if isinstance(source, Upstream):
                source.open.set()
        relay.stop()


def at_once(count: int, work: Any) -> list[Any]:
    """The results of so many calls that begin together."""
    results: list[Any] = [None] * count
    gate = threading.Barrier(count)

    def run(number: int) -> None:
        gate.wait(30)
        results[number] = work()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results
