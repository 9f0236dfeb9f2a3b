"""A kubelet on a Unix socket that serves PodResources over real HTTP/2, or misbehaves.

    with KubeletServer(path, answer(body)) as kubelet:
        grpc_call.call(path, LIST, b"", 2.0, {os.getuid()})

A script gets the connection and the server's stop event and sends what it likes.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import h2.config
import h2.connection
import h2.events

Script = Callable[[socket.socket, threading.Event], None]


class KubeletServer:
    """Serves one connection after the other until the `with` block ends."""

    def __init__(self, path: Path, script: Script) -> None:
        self.path = path
        self.script = script
        self.calls = 0
        self._stop = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> KubeletServer:
        self.path.unlink(missing_ok=True)
        self._listener.bind(str(self.path))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
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
        self._thread.join(5)

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.calls += 1
            with connection, contextlib.suppress(OSError):
                self.script(connection, self._stop)


def answer(
    body: bytes,
    *,
    status: str = "0",
    message: str = "",
    http: str = "200",
    prefix: bytes | None = None,
    requests: list[dict[str, str]] | None = None,
) -> Script:
    """A gRPC answer: one message and the trailers, by the rules of flow control."""

    def play(connection: socket.socket, stop: threading.Event) -> None:
        state = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        state.initiate_connection()
        connection.sendall(state.data_to_send())
        framed = (struct.pack(">BI", 0, len(body)) if prefix is None else prefix) + body
        stream = None
        while not stop.is_set():
            received = connection.recv(65536)
            if not received:
                return
            for event in state.receive_data(received):
                if isinstance(event, h2.events.RequestReceived) and requests is not None:
                    requests.append({str(k): str(v) for k, v in event.headers or ()})
                if isinstance(event, h2.events.StreamEnded):
                    stream = event.stream_id
                    headers = [(":status", http), ("content-type", "application/grpc")]
                    state.send_headers(stream, headers)
            if stream is not None:
                while framed and (room := state.local_flow_control_window(stream)):
                    part = framed[: min(room, state.max_outbound_frame_size)]
                    framed = framed[len(part) :]
                    state.send_data(stream, part)
                if not framed:
                    trailers = [("grpc-status", status), ("grpc-message", message)]
                    state.send_headers(stream, trailers, end_stream=True)
                    stream = None
            connection.sendall(state.data_to_send())

    return play


def silence(connection: socket.socket, stop: threading.Event) -> None:
    """Accepts and never says a word."""
    stop.wait(30)


def drip(connection: socket.socket, stop: threading.Event) -> None:
    """An empty settings frame, then one byte of a frame that never ends, again and again."""
    connection.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    connection.sendall(b"\x00\xff\xff\x00\x00\x00\x00\x00\x01")
    while not stop.wait(0.02):
        connection.sendall(b"x")


def raw(payload: bytes) -> Script:
    """These bytes, then the end."""

    def play(connection: socket.socket, stop: threading.Event) -> None:
        connection.sendall(payload)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):  # a close with bytes unread would reset the connection
            pass

    return play
