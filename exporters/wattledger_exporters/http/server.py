"""The server: its own thread, its own loop, sockets bound before `start` returns."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from wattledger.errors import ListenError
from wattledger.model.web import WebConcern, WebStatus
from wattledger.ports import Clock, Daemon
from wattledger_exporters.http.app import App
from wattledger_exporters.http.application import Application
from wattledger_exporters.http.connection import MAX_HEAD_BYTES, Connection, Gate, Limits, Phase
from wattledger_exporters.http.listeners import bind_tcp, bind_unix, unlink_unix
from wattledger_exporters.http.pages import PageStore
from wattledger_exporters.web_concerns import OF_A_NODE, beyond_loopback, open_port

if TYPE_CHECKING:
    from wattledger_exporters.web_config import LiveWebConfig

_Socket = socket.socket  # parameters are called `socket`, too
log = logging.getLogger(__name__)

DEFAULT_LISTEN = "127.0.0.1:19400"
_ACCEPTS_AT_ONCE = 8  # few, so that who has asked is read before the cap turns on them
_FIRST_REQUEST_S = 0.2  # at the end: who has just come in may still ask, and is answered
_PAUSE_S = 0.2  # no file descriptor left: let others finish
_TLS_SHUTDOWN_S = 1.0
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(slots=True, eq=False)
class _Listener:
    sock: socket.socket
    secure: bool
    gate: Gate
    inherited: bool = False
    state: ServerState = field(default_factory=ServerState)


class Server:
    """Serves an application over TCP and on a Unix socket.

    `start` may be called once; `stop` any number of times, from any thread.
    """

    def __init__(
        self,
        make_app: Callable[[LiveWebConfig | None], Application],
        *,
        listen: str = DEFAULT_LISTEN,
        web_config: Path | None = None,
        socket: Path | None = None,
        limits: Limits | None = None,
        shows: str = "",
        inherited: Sequence[_Socket] = (),
    ) -> None:
        """Nothing is opened yet.

        Args:
            make_app: makes what answers, of the web configuration.
            listen: `host:port`; port 0 takes a free one; empty: no TCP at all.
            web_config: TLS, passwords and headers over TCP, as for Prometheus exporters.
            socket: path of the Unix socket; None: there is none.
            limits: how long and how much a client may take. Deadlines are by the loop's own clock.
            shows: what a stranger reads where the network reaches it; empty: nobody's business.
            inherited: sockets that listen already (`inherited_sockets`). A TCP one takes the place
                of `listen`, a Unix one that of `socket`; nobody is let in before `welcome`.
        """
        self._make_app = make_app
        self._listen = listen
        self._web_path = web_config
        self._socket_path = socket
        self._limits = limits or Limits()
        self._shows = shows
        self._inherited = inherited
        self._reached: list[tuple[str, int]] = []  # by others than this machine
        self._listeners: list[_Listener] = []
        self._inode = 0
        self._web: LiveWebConfig | None = None
        self._scheme = "http"
        self._app: Application | None = None
        self._config: Config | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._serving = threading.Event()
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """`host:port` as bound, of the first where there are several, empty without TCP."""
        return next((f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in self._bound()), "")

    @property
    def url(self) -> str:
        """Where a person looks, empty without TCP."""
        return f"{self._scheme}://{self.address}" if self.address else ""

    @property
    def web_status(self) -> WebStatus | None:
        """How the web configuration stands, and open ports; for any thread.

        None: there is no configuration, and nothing to tell of the ports either.
        """
        status = self._web.status if self._web is not None else None
        if concerns := self._open_ports(status):
            status = status or WebStatus(is_configured=False)
            return status._replace(concerns=(*status.concerns, *concerns))
        return status

    @property
    def socket_path(self) -> Path | None:
        """The Unix socket's, None without one."""
        for sock in self._inherited:
            if sock.family == socket.AF_UNIX:
                return Path(os.fsdecode(sock.getsockname()))
        return self._socket_path

    def start(self) -> None:
        """Read the web configuration, bind, and serve from now on.

        Raises:
            ConfigError: the web configuration has faults.
            ListenError: a socket cannot be bound.
        """
        if self._web_path is not None:
            # TLS and passwords are no part of a daemon that answers on loopback only.
            from wattledger_exporters.web_config import LiveWebConfig

            self._web = LiveWebConfig(self._web_path)
            self._scheme = "https" if self._web.current.context is not None else "http"
        self._app = self._make_app(self._web)
        self._config = Config(
            cast(Any, self._app),
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # a client's nonsense is not worth a line each
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=3600,  # `Connection` has its own
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        self._config.load()
        try:
            given = {sock.family == socket.AF_UNIX for sock in self._inherited}
            for sock in self._inherited:
                self._add(sock, secure=sock.family != socket.AF_UNIX, inherited=True)
            if self._listen and False not in given:
                self._add(bind_tcp(self._listen), secure=True)
            if self._socket_path is not None and True not in given:
                self._add(bind_unix(self._socket_path), secure=False)
                self._inode = self._socket_path.lstat().st_ino
        except ListenError:
            self._close_listeners()
            raise
        if False in given:
            log.info("systemd listens on %s for this daemon, whatever http.listen says", self.url)
        self._reached = [(host, port) for host, port in self._bound() if beyond_loopback(host)]
        for concern in self._open_ports(self._web.status if self._web is not None else None):
            log.warning("%s; %s", *concern)
        self._thread = threading.Thread(target=self._run, name="wattledger-http", daemon=True)
        self._thread.start()
        self._serving.wait(10)

    def welcome(self) -> None:
        """Let in who waits at the inherited sockets: there is something to answer now."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._listen_on, True)

    def answers(self, timeout_s: float) -> bool:
        """Whether the loop that answers takes a turn within this time."""
        loop = self._loop
        if loop is None:
            return False
        turned = threading.Event()
        try:
            loop.call_soon_threadsafe(turned.set)
        except RuntimeError:  # it has closed
            return False
        return turned.wait(timeout_s)

    def stop(self, deadline_s: float = 1.0) -> None:
        """Accept nothing more, let answers finish for at most `deadline_s`, close."""
        loop, ending, thread = self._loop, self._ending, self._thread
        if thread is None or loop is None or ending is None:
            return
        with suppress(RuntimeError):  # the loop has closed
            loop.call_soon_threadsafe(self._end, deadline_s)
        thread.join(deadline_s + 0.5)

    # ── before the thread ───────────────────────────────────────────────────────────────────

    def _add(self, sock: socket.socket, *, secure: bool, inherited: bool = False) -> None:
        sock.setblocking(False)
        gate = Gate(self._limits.connections)
        self._listeners.append(_Listener(sock, secure, gate, inherited))

    def _bound(self) -> list[tuple[str, int]]:
        tcp = (each.sock for each in self._listeners if each.sock.family != socket.AF_UNIX)
        return [sock.getsockname()[:2] for sock in tcp]

    def _open_ports(self, status: WebStatus | None) -> list[WebConcern]:
        if not self._shows or (status is not None and status.asks_who):
            return []
        return [open_port(*reached, self._shows, self._web_path) for reached in self._reached]

    # ── in the thread ───────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            log.critical("The HTTP server has died", exc_info=True)
        finally:
            self._serving.set()
            self._close_listeners()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self._deadline_s = 0.0
        self._listen_on(False)
        self._serving.set()
        await self._ending.wait()
        await self._drain()

    def _listen_on(self, inherited: bool) -> None:
        for listener in self._listeners:
            if listener.inherited is inherited:
                self._resume(listener)

    def _end(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        if self._ending is not None:
            self._ending.set()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline_s
        patient_until = min(until, loop.time() + _FIRST_REQUEST_S)
        for listener in self._listeners:
            loop.remove_reader(listener.sock.fileno())
        self._close_listeners()
        gates = [listener.gate for listener in self._listeners]
        while any(gate.open() for gate in gates) and loop.time() < until:
            for gate in gates:
                for connection in gate.open():
                    connection.finish(patient=loop.time() < patient_until)
            await asyncio.sleep(0.01)
        if self._app is not None:
            self._app.stop()
        for task in self._opening:
            task.cancel()
        for gate in gates:
            for connection in gate.open():
                connection.drop()
        await asyncio.sleep(0)  # their ends are told in the loop's next round

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            unix = listener.sock.family == socket.AF_UNIX
            if unix and not listener.inherited and self._socket_path is not None:
                unlink_unix(listener.sock, self._socket_path, self._inode)
            else:
                listener.sock.close()

    def _accept(self, listener: _Listener) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                sock, _address = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_DESCRIPTOR:
                    raise
                loop.remove_reader(listener.sock.fileno())
                loop.call_later(_PAUSE_S, self._resume, listener)
                return
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                # Else an answer that follows another (pipelining, a scraper that keeps its
                # connection) may wait 40 ms for the first one's ACK. asyncio sets it only where
                # the socket names its protocol, and an accepted one does not.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open(listener, sock, loop)

    def _resume(self, listener: _Listener) -> None:
        if listener.sock.fileno() >= 0 and self._ending is not None and not self._ending.is_set():
            asyncio.get_running_loop().add_reader(listener.sock.fileno(), self._accept, listener)

    def _open(
        self, listener: _Listener, sock: socket.socket, loop: asyncio.AbstractEventLoop
    ) -> None:
        assert self._config is not None  # noqa: S101 - for the type checker: `start` made it
        web = self._web.current if self._web is not None and listener.secure else None
        connection = Connection(
            self._config,
            listener.state,
            listener.gate,
            self._limits,
            loop,
            web,
        )
        if not listener.gate.admit(connection):
            sock.close()
            return
        context = web.context if web is not None else None

        async def connect() -> None:
            try:
                await loop.connect_accepted_socket(
                    lambda: connection,
                    sock,
                    ssl=context,
                    ssl_handshake_timeout=self._limits.handshake_s if context else None,
                    ssl_shutdown_timeout=_TLS_SHUTDOWN_S if context else None,
                )
            except OSError:  # a handshake that failed or took too long
                log.debug("A TLS handshake failed", exc_info=True)

        def opened(task: asyncio.Task[None]) -> None:
            self._opening.discard(task)
            if connection.phase is Phase.HANDSHAKE:  # it came to nothing
                sock.close()
                listener.gate.leave(connection)

        connection.opening = loop.create_task(connect())
        self._opening.add(connection.opening)
        connection.opening.add_done_callback(opened)


class HttpServer(Server):
    """Serves one daemon; see `Server`."""

    def __init__(
        self,
        daemon: Daemon,
        pages: PageStore,
        clock: Clock,
        *,
        listen: str = DEFAULT_LISTEN,
        web_config: Path | None = None,
        socket: Path | None = None,
        limits: Limits | None = None,
        operators_group: str = "",
        inherited: Sequence[_Socket] = (),
    ) -> None:
        """Nothing is opened yet.

        Args:
            daemon: what is asked for snapshots, totals and a release.
            pages: where the rendered pages are.
            clock: ages and "now".
            listen: as of `Server`.
            web_config: likewise.
            socket: likewise.
            limits: likewise.
            operators_group: its members see everybody's jobs over the Unix socket, as root does.
            inherited: as of `Server`.
        """
        super().__init__(
            lambda web: App(daemon, pages, clock, web, operators_group=operators_group),
            listen=listen,
            web_config=web_config,
            socket=socket,
            limits=limits,
            shows=OF_A_NODE,
            inherited=inherited,
        )
