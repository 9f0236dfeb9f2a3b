"""Who has to go when the connections are at their cap; the sockets are fakes, the rest is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from wattledger_exporters.http.connection import Connection, Gate, Limits

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "


class FakeTransport(asyncio.Transport):
    """A client that takes everything, or nothing where `stuck`."""

    def __init__(self, *, stuck: bool) -> None:
        super().__init__()
        self.stuck = stuck
        self.aborted = False
        self._written = 0
        self._closing = False

    def write(self, data: Any) -> None:
        self._written += len(data)

    def get_write_buffer_size(self) -> int:
        return self._written if self.stuck else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None and high <= 64 * 1024

    def is_closing(self) -> bool:
        return self._closing or self.aborted

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/slow":
        await receive()  # its body, of which there is none
        await asyncio.Event().wait()
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


class Room:
    """A gate with its connections."""

    def __init__(self, limit: int) -> None:
        self.gate = Gate(limit)
        self._config = Config(application, http=Connection, ws="none", log_config=None)

    async def enter(self, say: bytes = b"", *, stuck: bool = False) -> FakeTransport | None:
        """A client that says this; None: it is not let in."""
        loop, transport = asyncio.get_running_loop(), FakeTransport(stuck=stuck)
        connection = Connection(self._config, ServerState(), self.gate, Limits(), loop)
        if not self.gate.admit(connection):
            return None
        connection.connection_made(transport)
        if say:
            connection.data_received(say)
        for _ in range(5):  # the answers are tasks of the loop
            await asyncio.sleep(0)
        return transport


def in_a_loop(check: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await check()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(run())


def test_the_order_of_those_who_go() -> None:
    async def check() -> None:
        room = Room(6)
        last = [await room.enter(ASK, stuck=True), await room.enter(ASK + SLOW, stuck=True)]
        then = [await room.enter(ASK), await room.enter(ASK)]
        first = [await room.enter(HALF), await room.enter()]
        order = [*first, *then, *last]
        for gone in range(1, 7):
            assert await room.enter(SLOW) is not None
            assert [client.aborted for client in order if client] == [
                number < gone for number in range(6)
            ]
        assert await room.enter(SLOW) is None  # everybody is being served
        assert len(room.gate.open()) == 6

    in_a_loop(check)


def test_who_takes_an_answer_late_rests_from_then_on() -> None:
    async def check() -> None:
        room = Room(2)
        late, stuck = await room.enter(ASK, stuck=True), await room.enter(ASK, stuck=True)
        assert late is not None
        assert stuck is not None
        late.stuck = False  # the loop writes on without telling anybody
        assert await room.enter(SLOW) is not None
        assert (late.aborted, stuck.aborted) == (True, False)

    in_a_loop(check)


def test_what_is_closed_but_not_taken_keeps_nobody_out() -> None:
    async def check() -> None:
        room = Room(1)
        closing = await room.enter(ASK.replace(b"Host", b"Connection: close\r\nHost"), stuck=True)
        assert closing is not None
        assert closing.is_closing()
        assert await room.enter(ASK) is not None
        assert closing.aborted

    in_a_loop(check)
