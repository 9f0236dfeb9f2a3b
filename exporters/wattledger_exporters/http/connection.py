"""One client's connection: uvicorn's HTTP/1.1 protocol with deadlines and a cap.

A client owes us a complete request head within a few seconds and takes its answer within the
request's deadline; each phase has one timer that further bytes do not prolong. `Gate` bounds the
number of open connections: those that owe us a request go first, then those that rest between
two, then those that do not take their answers.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import json
import socket
import ssl
import struct
import sys
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket

    from wattledger_exporters.tls import TlsSettings
    from wattledger_exporters.web_config import WebConfig

MAX_HEAD_BYTES = 8192
_UNSENT_BYTES = 64 * 1024
"""Of request line and headers."""


class Peer(NamedTuple):
    """Who is at the other end of a Unix socket, as the kernel says (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much a client may take.

    Attributes:
        head_s: from the first byte of a request, or the connection's begin, to its complete head.
        request_s: from the head until the answer has been taken.
        idle_s: how long a connection is kept between requests; a scraper's interval and some.
        handshake_s: TLS handshake.
        connections: open at the same time, for each listener.
    """

    head_s: float = 5.0
    request_s: float = 30.0
    idle_s: float = 90.0
    handshake_s: float = 5.0
    connections: int = 64


class Phase(enum.Enum):
    """What a connection is doing; decides its deadline."""

    HANDSHAKE = enum.auto()
    HEAD = enum.auto()
    REQUEST = enum.auto()
    IDLE = enum.auto()


class Claim(enum.IntEnum):
    """How good a claim a connection has to its place; the lowest goes first."""

    OWES_REQUEST = 0
    RESTS = 1
    TAKES_NO_ANSWER = 2  # or slowly: it may be a scraper on a thin line
    SERVED = 3  # we owe the answer: it stays


class Gate:
    """Keeps the number of open connections of one listener under a cap."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._connections: dict[Connection, None] = {}  # in order of arrival

    def admit(self, connection: Connection) -> bool:
        """Take it in; another one may have to go. False: everybody is being served just now."""
        if len(self._connections) >= self._limit:
            claims = {other: other.claim() for other in self._connections}
            victim = min(claims, key=claims.__getitem__)  # the oldest of the lowest
            if claims[victim] is Claim.SERVED:
                return False
            victim.drop()
            self._connections.pop(victim, None)
        self._connections[connection] = None
        return True

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self._connections.pop(connection, None)

    def open(self) -> list[Connection]:
        """All that are open."""
        return list(self._connections)


class Connection(H11Protocol):
    """See the module. What an application finds in `scope["state"]`.

    `peer` is the `Peer` on a Unix socket, None over TCP; `has_left()`, whether it hung up
    meanwhile; `certified`, whether a client certificate says who asks; `web`, the web configuration
    by which it was let in.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        gate: Gate,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        web: WebConfig | None = None,
    ) -> None:
        super().__init__(config, server_state, {}, loop)
        self.phase = Phase.HANDSHAKE
        self.opening: asyncio.Task[None] | None = None
        self._gate = gate
        self._limits = limits
        self._web = web
        self._timer: asyncio.TimerHandle | None = None
        self._watched: object = None
        self._finishing = False

    # ── what the loop calls ─────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Connected, and the TLS handshake is done."""
        super().connection_made(transport)
        # Over TLS asyncio would keep 512 KiB for each client that reads nothing.
        transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        self.transport = cast(asyncio.Transport, _WholeAnswers(self, transport))
        tls = self._web.tls if self._web is not None else None
        self.app_state = {
            "peer": _peer(transport),
            "has_left": partial(_has_left, transport),
            "certified": tls is not None and tls.knows_clients,
            "web": self._web,
        }
        if tls is not None and not _allowed(tls, transport):
            self.phase = Phase.HEAD
            transport.abort()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        super().data_received(data)
        if self._finishing and self._serving():
            self.cycle.keep_alive = False
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is written; the next request may already be here."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed by either side."""
        self._disarm()
        self._unset_keepalive_if_required()
        self._gate.leave(self)
        super().connection_lost(exc)

    # ── deadlines ───────────────────────────────────────────────────────────────────────────

    def _cycle(self) -> RequestResponseCycle | None:
        # uvicorn leaves it None until the first request, and does not say so in its types.
        return cast("RequestResponseCycle | None", self.cycle)

    def _serving(self) -> bool:
        cycle = self._cycle()
        return cycle is not None and not cycle.response_complete

    def begins_answer(self) -> bool:
        """What is written now is the head of an answer, or a part of a body that is not its end."""
        cycle = self._cycle()
        return cycle is not None and cycle.response_started and not cycle.response_complete

    def claim(self) -> Claim:
        """What it is to the `Gate` just now; `phase` may be that of its last event."""
        if self.phase is Phase.HANDSHAKE:
            return Claim.OWES_REQUEST
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            return Claim.TAKES_NO_ANSWER  # nor does it while we owe it the next one: pipelining
        if self._serving():
            return Claim.SERVED
        return Claim.RESTS if self._find_phase() is Phase.IDLE else Claim.OWES_REQUEST

    def _find_phase(self) -> Phase:
        if self._serving() or self.transport.get_write_buffer_size():
            return Phase.REQUEST
        if self._cycle() is None or self.conn.their_state is not h11.IDLE:
            return Phase.HEAD
        return Phase.HEAD if self.conn.trailing_data[0] else Phase.IDLE

    def _watch(self) -> None:
        """Arm the timer of the phase; bytes within the same phase do not buy time."""
        if self.transport.is_closing():
            # What is left is to flush the answer; a client that does not read it is cut off.
            self._arm(Phase.REQUEST, "closing")
            return
        phase = self._find_phase()
        self._arm(phase, (phase, id(self.cycle)))

    def _arm(self, phase: Phase, watched: object) -> None:
        self.phase = phase
        if watched == self._watched:
            return
        self._watched = watched
        self._disarm()
        limits = self._limits
        delay = {
            Phase.HEAD: limits.head_s,
            Phase.REQUEST: limits.request_s,
            Phase.IDLE: limits.idle_s,
        }[phase]
        self._timer = self.loop.call_later(delay, self._expired)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        if not self.transport.is_closing() and self._find_phase() is not self.phase:
            self._watch()  # the last bytes of an answer were taken meanwhile
            return
        self.drop()

    def finish(self, *, patient: bool = False) -> None:
        """Close it now, or as soon as the answer in hand is written.

        Args:
            patient: one that has just come, or is in the middle of a request, is still listened
                to, and closed after its answer.
        """
        self._finishing = True
        owes = self.phase is Phase.HANDSHAKE or self._find_phase() is Phase.HEAD
        if patient and owes:
            return
        if self.phase is Phase.HANDSHAKE:
            self.drop()
        elif self._serving():
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def drop(self) -> None:
        """Cut the connection now, whatever is on its way."""
        if self.phase is not Phase.HANDSHAKE:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    # ── bad requests ────────────────────────────────────────────────────────────────────────

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the same JSON as everything else, and close."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": f"{msg} {STATUS_PHRASES[status].decode()}."}).encode()
            head = h11.Response(
                status_code=status,
                reason=STATUS_PHRASES[status],
                headers=[
                    ("content-type", "application/json"),
                    ("content-length", str(len(body))),
                    ("connection", "close"),
                ],
            )
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _WholeAnswers:
    """A transport that keeps the head of an answer until its body comes.

    uvicorn writes them one after the other, each a packet and a wake-up of the client: together
    they take a scrape three quarters of the time.
    """

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        # Weakly: it is the connection's transport, and all that belongs to a connection that has
        # closed would wait for the collector, which looks seldom (`cli`).
        self._connection = weakref.ref(connection)
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """As of a transport. The body's first part follows the head at once: `App` sees to it."""
        connection = self._connection()
        if self._head:
            data, self._head = self._head + data, b""
        elif connection is not None and connection.begins_answer():
            self._head = data
            return
        self._transport.write(data)


def _peer(transport: asyncio.Transport) -> Peer | None:
    connected: socket.socket | None = transport.get_extra_info("socket")
    if connected is None or connected.family != socket.AF_UNIX:
        return None
    layout = struct.Struct("3i")  # struct ucred of unix(7)
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size)
    return Peer(*layout.unpack(raw))


def _has_left(transport: asyncio.Transport) -> bool:
    """Whether a client on a plain socket has hung up, also where the loop has not read that yet."""
    connected: TransportSocket | None = transport.get_extra_info("socket")
    if connected is None or transport.is_closing():
        return True
    with connected.dup() as copy:
        try:
            return not copy.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:  # it is there, and waits
            return False
        except OSError:
            return True


def _allowed(tls: TlsSettings, transport: asyncio.Transport) -> bool:
    """Whether the certificate that the client showed is for one of `client_allowed_sans`."""
    if tls.allowed_sans is None:
        return True
    certificate: dict[str, Any] | None = transport.get_extra_info("peercert")
    if not certificate:  # it showed none
        return tls.client_auth is not ssl.CERT_REQUIRED
    return not tls.allowed_sans.isdisjoint(_sans(certificate))


def _sans(certificate: dict[str, Any]) -> list[str]:
    names = certificate.get("subjectAltName", ())
    found = [value for kind, value in names if kind in ("DNS", "email", "URI")]
    for kind, value in names:
        if kind == "IP Address":  # OpenSSL spells version 6 out, the list has it short
            with suppress(ValueError):
                found.append(str(ipaddress.ip_address(value.strip())))
    return found
