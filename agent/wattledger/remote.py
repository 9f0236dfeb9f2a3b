"""The command line's way to a running daemon: its HTTP API over the Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from wattledger.config import Config
from wattledger.errors import DaemonUnreachable, WattledgerError


class Refused(WattledgerError):
    """The daemon's own words where it refuses.

    Attributes:
        status: of HTTP: 403 not yours, 404 not there, …
    """

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(str(self._path))


class Remote:
    """A running daemon, asked over its socket."""

    def __init__(self, candidates: list[Path], timeout_s: float = 30.0) -> None:
        """Args: candidates: sockets to try, in order."""
        self._candidates = candidates
        self._timeout_s = timeout_s

    def request(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        method: str = "GET",
        timeout_s: float | None = None,
    ) -> Any:
        """The JSON that the daemon answers.

        Args:
            path: of the API.
            query: its parameters.
            method: of HTTP.
            timeout_s: how long to wait for each step; None: as this was made.

        Raises:
            DaemonUnreachable: no daemon listens on any of the sockets.
            Refused: the daemon's own words where it refuses.
        """
        target = path + (f"?{urlencode(query, errors='replace')}" if query else "")
        failures: list[str] = []
        for candidate in self._candidates:
            connection = _UnixConnection(candidate, timeout_s or self._timeout_s)
            try:
                connection.request(method, target, headers={"Accept": "application/json"})
                reply = connection.getresponse()
                body = reply.read()
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"{candidate}: {getattr(error, 'strerror', None) or error}")
                continue
            finally:
                connection.close()
            return _answer(reply.status, body)
        raise DaemonUnreachable(
            f"no running daemon found ({'; '.join(failures)})",
            "start it with `wattledger serve` or `systemctl start wattledger`, "
            "or name its socket with --socket",
        )


def remote_of(config: Config, socket: Path | None = None, *, named: bool = False) -> Remote:
    """The daemon of some settings, else that of the system.

    Args:
        config: the settings.
        socket: this one, and no other.
        named: whoever asks has named a ledger or a scenario, and means no other daemon's.
    """
    if socket is not None:
        return Remote([socket])
    from wattledger import build

    own = build.socket_path(config)
    named = named or bool(config.ledger.path or config.http.socket)
    candidates = [own] if named else [own, build.SYSTEM_SOCKET]
    return Remote(list(dict.fromkeys(path for path in candidates if path is not None)))


def _answer(status: int, body: bytes) -> Any:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = {"error": body.decode(errors="replace").strip()}
    if status >= 400:
        told = answer if isinstance(answer, dict) else {}
        raise Refused(status, str(told.get("error", answer)), str(told.get("hint") or ""))
    return answer
