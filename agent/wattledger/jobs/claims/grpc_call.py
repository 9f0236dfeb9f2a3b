"""One gRPC call over a Unix socket, with a deadline for all of it.

The only caller is the kubelet source: once in some seconds, a request without a field. h2 (the
HTTP/2 state machine alone, pure Python) adds 1.5 MB to the daemon at the first call, and a call
takes 1 ms of CPU; grpcio adds 25 MB, and threads of its own. Neither is loaded without a kubelet.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from wattledger.errors import WattledgerError

if TYPE_CHECKING:
    import h2.connection

MAX_REPLY_BYTES = 4 * 1024 * 1024  # gRPC's own default
_RECEIVE_BYTES = 64 * 1024
_PREFIX_BYTES = 5  # is it compressed, and a length of 4 bytes
_OK = "0"
_UNIMPLEMENTED = "12"


class CallFailed(WattledgerError):
    """The call brought no answer.

    Attributes:
        reason: lower-case words with underscores.
    """

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


def call(
    path: Path, method: str, request: bytes, timeout_s: float, trusted_uids: Collection[int] = (0,)
) -> bytes:
    """The answer, still encoded.

    Args:
        path: the Unix socket.
        method: `/package.Service/Method`.
        request: the encoded request.
        timeout_s: for all of it, however slowly the answer drips.
        trusted_uids: who may be at the other end (SO_PEERCRED).

    Raises:
        CallFailed: with the reason.
    """
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(_left(deadline))
            connection.connect(str(path))
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            uid = struct.unpack("3i", credentials)[1] & 0xFFFFFFFF
            if uid not in trusted_uids:
                raise CallFailed("not_trusted", f"{path} is served by user {uid}, not by root")
            return _exchange(connection, method, request, timeout_s, deadline)
        except TimeoutError:
            message = f"{path} did not answer within {timeout_s:g} s"
            raise CallFailed("timeout", message) from None
        except OSError as error:
            raise _refused(path, error) from error


def _exchange(
    connection: socket.socket, method: str, request: bytes, timeout_s: float, deadline: float
) -> bytes:
    """Send the request and read until the stream's end."""
    import h2.config
    import h2.connection
    import h2.exceptions

    state = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
    )
    try:
        state.initiate_connection()
        stream = state.get_next_available_stream_id()
        state.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", method),
                (":authority", "localhost"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("grpc-timeout", f"{max(1, round(timeout_s * 1000))}m"),
                ("user-agent", "wattledger"),
            ],
        )
        state.send_data(stream, struct.pack(">BI", 0, len(request)) + request, end_stream=True)
        reply = _Reply(stream)
        while not reply.over:
            if outgoing := state.data_to_send():
                connection.settimeout(_left(deadline))
                connection.sendall(outgoing)
            connection.settimeout(_left(deadline))
            received = connection.recv(_RECEIVE_BYTES)
            if not received:
                raise CallFailed("broken_off", "the kubelet closed the connection")
            reply.take(state, received)
        return reply.message()
    except (h2.exceptions.H2Error, ValueError, KeyError, IndexError) as error:
        # h2 raises its own errors; the others are how its header decoder may stumble.
        message = f"the kubelet's answer is not HTTP/2: {error}"[:200]
        raise CallFailed("protocol_error", message) from error


class _Reply:
    """What arrives on one stream."""

    def __init__(self, stream: int) -> None:
        self._stream = stream
        self._body = bytearray()
        self._received = 0
        self._headers: dict[str, str] = {}
        self.over = False

    def take(self, state: h2.connection.H2Connection, received: bytes) -> None:
        """Bytes from the socket.

        Raises:
            CallFailed: too many of them, or the other side gave up.
        """
        import h2.events

        # Counted over all, so that frames that carry nothing come to an end, too.
        self._received += len(received)
        if self._received > 2 * MAX_REPLY_BYTES:
            raise CallFailed("too_large", "the kubelet sends without end")
        for event in state.receive_data(received):
            if isinstance(event, h2.events.DataReceived):
                self._body += event.data or b""
                if len(self._body) > MAX_REPLY_BYTES + _PREFIX_BYTES:
                    message = f"the kubelet's answer is larger than {MAX_REPLY_BYTES} bytes"
                    raise CallFailed("too_large", message)
                if event.flow_controlled_length and event.stream_id:
                    state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                self._headers.update((str(k), str(v)) for k, v in event.headers or ())
            elif isinstance(event, h2.events.StreamEnded):
                self.over = self.over or event.stream_id == self._stream
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                raise CallFailed("broken_off", f"the kubelet gave up (code {event.error_code})")

    def message(self) -> bytes:
        """The one message of the answer.

        Raises:
            CallFailed: the call failed, or there is not exactly one message.
        """
        http, status = self._headers.get(":status"), self._headers.get("grpc-status")
        if http != "200" or status is None:
            raise CallFailed("protocol_error", f"the kubelet answered with HTTP status {http}")
        if status != _OK:
            text = self._headers.get("grpc-message", "")[:120]
            text = "".join(char for char in text if char.isprintable())
            hint = "Kubernetes 1.20 or newer serves v1" if status == _UNIMPLEMENTED else ""
            message = f"the kubelet answered with gRPC status {status[:4]} {text}".strip()
            raise CallFailed("grpc_error", message, hint)
        if len(self._body) < _PREFIX_BYTES:
            raise CallFailed("protocol_error", "the kubelet's answer is empty")
        compressed, length = struct.unpack_from(">BI", self._body)
        if compressed or length != len(self._body) - _PREFIX_BYTES:
            raise CallFailed("protocol_error", "the kubelet's answer is not one plain message")
        return bytes(memoryview(self._body)[_PREFIX_BYTES:])


def _left(deadline: float) -> float:
    """Seconds until the deadline.

    Raises:
        TimeoutError: it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _refused(path: Path, error: OSError) -> CallFailed:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return CallFailed("no_kubelet", f"no kubelet listens on {path}")
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "whoever asks the kubelet has to be root; in Kubernetes, mount its directory"
        return CallFailed("no_permission", f"no permission to ask the kubelet at {path}", hint)
    code = errno.errorcode.get(error.errno or 0, "error")
    return CallFailed("broken_off", f"asking the kubelet at {path} failed with {code}")
