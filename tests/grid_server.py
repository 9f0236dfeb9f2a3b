"""A provider on loopback that plays recorded shapes and every hostile reply.

    with GridServer(reply(body={"data": []})) as server:
        client.get_json(server.url + "/intensity", allow_hosts={"127.0.0.1"})
    assert server.requests[0].target == "/intensity"

A script is a function that gets the connection and the request and sends what it likes. It is
played for each connection; `server.script` may be exchanged at any time.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Request:
    """What a client sent; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]


Script = Callable[[socket.socket, Request, threading.Event], None]


class GridServer:
    """Serves on loopback, one thread for each connection, until the `with` block ends."""

    def __init__(
        self,
        script: Script,
        *,
        tls: ssl.SSLContext | None = None,
        greeting: bytes = b"",
        host: str = "127.0.0.1",
    ) -> None:
        self.script = script
        self._greeting = greeting  # sent before anything is read, as SSH and SMTP do
        self.requests: list[Request] = []
        self._tls = tls
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._host = host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        if self._tls:
            return f"https://localhost:{self.port}"
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self.port}"

    def __enter__(self) -> GridServer:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(5)

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        # A client that hangs up is what many tests are about.
        with contextlib.suppress(OSError), connection:
            if self._tls is not None:
                with self._tls.wrap_socket(connection, server_side=True) as secured:
                    self._play(secured)
            else:
                self._play(connection)

    def _play(self, connection: socket.socket) -> None:
        connection.sendall(self._greeting)
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return
            head += data
        lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        request = Request(method, target, headers)
        self.requests.append(request)
        self.script(connection, request, self._stop)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)


def message(status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """A whole HTTP/1.1 reply."""
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def reply(status: int = 200, body: Any = b"", headers: dict[str, str] | None = None) -> Script:
    """Answers each request so; anything but bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def play(connection: socket.socket, request: Request, stop: threading.Event) -> None:
        connection.sendall(message(status, raw, headers))

    return play


def in_turn(*scripts: Script) -> Script:
    """One script for each request; the last one again and again."""
    waiting = list(scripts)

    def play(connection: socket.socket, request: Request, stop: threading.Event) -> None:
        script = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        script(connection, request, stop)

    return play


def drip(raw: bytes, *, first: bytes = b"", every_s: float = 0.05) -> Script:
    """Sends `first` at once, then one byte at a time, for ever."""

    def play(connection: socket.socket, request: Request, stop: threading.Event) -> None:
        connection.sendall(first)
        while not stop.is_set():
            for byte in raw:
                connection.sendall(bytes([byte]))
                if stop.wait(every_s):
                    return

    return play


def drip_header() -> Script:
    """A header that never ends, a byte at a time."""
    return drip(b"x", first=b"HTTP/1.1 200 OK\r\nX-Slow: ")


def drip_body() -> Script:
    """A body that never ends, a byte at a time."""
    return drip(b" ", first=b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")


def silent() -> Script:
    """Reads the request and says nothing."""

    def play(connection: socket.socket, request: Request, stop: threading.Event) -> None:
        stop.wait()

    return play


def endless(first: bytes, more: bytes) -> Script:
    """Sends without end, as fast as it is taken."""

    def play(connection: socket.socket, request: Request, stop: threading.Event) -> None:
        connection.sendall(first)
        while not stop.is_set():
            connection.sendall(more)

    return play


def big_body(size: int, *, declared: bool = True) -> Script:
    """A body of `size` bytes, with its length declared or chunked."""
    if declared:
        return reply(body=b" " * size)

    def play(connection: socket.socket, request: Request, stop: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        block = 65536
        for _ in range(size // block):
            connection.sendall(b"%x\r\n" % block + b" " * block + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

    return play


def gzip_bomb(unpacked: int = 400_000_000) -> Script:
    """A small body that becomes a large one when unpacked."""
    block = gzip.compress(bytes(1_000_000), 9)
    return reply(body=block * (unpacked // 1_000_000), headers={"Content-Encoding": "gzip"})


def reset() -> Script:
    """Resets the connection instead of answering."""

    def play(connection: socket.socket, request: Request, stop: threading.Event) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return play


def tunnel(port: int) -> Script:
    """A proxy: whatever CONNECT asks for is led to this port on loopback."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def play(connection: socket.socket, request: Request, stop: threading.Event) -> None:
        with socket.create_connection(("127.0.0.1", port)) as onward:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(onward, connection), daemon=True)
            back.start()
            pump(connection, onward)
            back.join(5)

    return play


def raw(data: bytes) -> Script:
    """Sends these bytes and hangs up."""

    def play(connection: socket.socket, request: Request, stop: threading.Event) -> None:
        connection.sendall(data)

    return play


# ── recorded shapes ─────────────────────────────────────────────────────────────────────────────


def neso_body(
    start: str = "2018-01-20T12:00Z",
    end: str = "2018-01-20T12:30Z",
    *,
    forecast: Any = 266,
    actual: Any = 263,
) -> dict[str, Any]:
    """`/intensity` as the API's documentation shows it."""
    intensity = {"forecast": forecast, "actual": actual, "index": "moderate"}
    return {"data": [{"from": start, "to": end, "intensity": intensity}]}


def electricity_maps_body(**changes: Any) -> dict[str, Any]:
    """`/carbon-intensity/latest` as recorded by its clients."""
    return {
        "zone": "US-CAR-DUK",
        "carbonIntensity": 216,
        "datetime": "2024-03-06T19:00:00.000Z",
        "updatedAt": "2024-03-06T18:48:27.926Z",
        "createdAt": "2024-03-03T19:47:16.265Z",
        "emissionFactorType": "lifecycle",
        "isEstimated": True,
        "estimationMethod": "TIME_SLICER_AVERAGE",
        **changes,
    }
