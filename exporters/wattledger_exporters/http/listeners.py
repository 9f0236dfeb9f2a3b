"""Sockets to listen on, bound before the daemon says that it is ready; faults in plain words."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import MutableMapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from wattledger.errors import ListenError

_HINT = "choose another with --listen or http.listen"
_BACKLOG = 1024  # a full queue costs the next scrape a second: the kernel drops its SYN
_FIRST_INHERITED_FD = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_LISTEN = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


def parse_listen(listen: str) -> tuple[str, int]:
    """Host and port of `"127.0.0.1:19400"`, `"[::1]:0"` or `":19400"` (every address).

    Raises:
        ListenError: it is not written so.
    """
    match = _LISTEN.fullmatch(listen)
    if match is None or int(match["port"]) > 65535:
        raise ListenError(
            f"{listen!r} is not an address to listen on",
            'write host:port, such as "127.0.0.1:19400" or "[::1]:19400"',
        )
    return match["v6"] or match["host"], int(match["port"])


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """The family of a host, and its address as sockets of that take it: address, port, ….

    Raises:
        ListenError: it is not known.
    """
    try:
        # As bytes: for a text Python loads the tables of internationalized names, 0.2 MiB.
        name = host.encode("ascii") if host.isascii() else host
        family, _, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ListenError(f"http.listen: the host {host!r} is not known", _HINT) from error
    return family, address


def bind_tcp(listen: str) -> socket.socket:
    """A listening TCP socket.

    Raises:
        ListenError: the port is taken, not allowed, or the address is not this machine's.
    """
    host, port = parse_listen(listen)
    try:
        if not host:
            with suppress(OSError):  # both families at once, where there is IPv6
                return socket.create_server(
                    ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
                )
            return socket.create_server(("", port), backlog=_BACKLOG)
        family, address = resolve(host, port)
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ListenError(
                f"http.listen: port {port} of {host or 'this machine'} is in use",
                f"is a wattledger running already? `ss -ltnp 'sport = :{port}'` shows who; {_HINT}",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ListenError(
                f"http.listen: this user may not listen on port {port}",
                "ports below 1024 are root's; " + _HINT,
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            message = f"http.listen: {host} is not an address of this machine"
            raise ListenError(message, _HINT) from error
        raise ListenError(f"http.listen: {listen}: {error.strerror}", _HINT) from error


def bind_unix(path: Path) -> socket.socket:
    """A listening Unix socket that everybody may connect to: the kernel tells who asks.

    A socket file that a killed daemon left is replaced; one that answers is not.

    Raises:
        ListenError: it cannot be made there.
    """
    if not path.parent.is_dir():
        raise ListenError(
            f"http.socket: the directory {path.parent} does not exist",
            "create it, or choose another path in http.socket",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        listener.bind(str(path))
        # Nobody can connect before `listen`, so the mode is right before anybody could.
        path.chmod(0o666)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(
            f"http.socket: {path} cannot be made: {error.strerror or error}",
            "choose another path in http.socket",
        ) from error
    except ListenError:
        listener.close()
        raise
    return listener


def inherited_sockets(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """Listening sockets that systemd opened for this process (sd_listen_fds(3)); mostly none.

    TCP or Unix, of one `.socket` unit or of several. They stay open while the service restarts:
    who connects meanwhile waits in their queue. The variables are taken out of the environment,
    and the sockets are not passed on, so that no child believes them to be its own.

    Args:
        environ: `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`; names serve the messages only.

    Raises:
        ListenError: one of them is nothing to accept clients on.
    """
    pid, count, names = (environ.pop(f"LISTEN_{key}", "") for key in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return []  # meant for another process, which started this one
    fds = range(_FIRST_INHERITED_FD, _FIRST_INHERITED_FD + int(count))
    found: list[socket.socket] = []
    try:
        for fd, name in zip_longest(fds, names.split(":")[: len(fds)], fillvalue="unknown"):
            found.append(_take_over(int(fd), str(name)))
    except ListenError:
        for taken in found:
            taken.close()
        raise
    return found


def _take_over(fd: int, name: str) -> socket.socket:
    hint = "its unit needs ListenStream= for TCP or a Unix socket, and no Accept=yes"
    try:
        os.set_inheritable(fd, False)
        taken = socket.socket(fileno=fd)
    except OSError as error:
        text = f"file descriptor {fd} ({name}) of systemd is no socket: {error.strerror}"
        raise ListenError(text, hint) from error
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    listens = taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if taken.family not in families or taken.type != socket.SOCK_STREAM or not listens:
        taken.close()
        raise ListenError(f"file descriptor {fd} ({name}) of systemd is not listened on", hint)
    return taken


def unlink_unix(listener: socket.socket, path: Path, inode: int) -> None:
    """Take the socket's file away, if it is still ours."""
    listener.close()
    with suppress(OSError):
        if path.lstat().st_ino == inode:
            path.unlink()


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(
            f"http.socket: {path} is there already and is not a socket",
            "remove it, or choose another path in http.socket",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise ListenError(
                f"http.socket: another daemon answers on {path}",
                "stop it, or choose another path in http.socket",
            )
