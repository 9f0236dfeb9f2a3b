"""Tokens: read from files, never shown.

The file is read anew for each request (one in many minutes), so that a rotated token is taken
up without a restart.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NoReturn

from wattledger.errors import ConfigError

_MAX_BYTES = 4096


class Secret:
    """A string that does not show itself: not in repr, str, format strings or pickles."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; for the request's header only."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('**********')"

    def __str__(self) -> str:
        return "**********"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")


def read_token(
    path: Path, *, key: str = "token_file", credentials_directory: Path | None = None
) -> Secret:
    """The token in a file: one line of printable ASCII, readable by its owner only.

    A file under systemd's credentials directory may show group read permission: there the mode
    shows the mask of an ACL for the service's user (systemd.exec(5), LoadCredential=).

    Args:
        path: the file.
        key: the configuration key to name in an error.
        credentials_directory: default `$CREDENTIALS_DIRECTORY`, where systemd sets it.

    Raises:
        ConfigError: it is missing, unreadable, unsafe, empty or not a token; with the remedy.
    """

    def refuse(text: str) -> NoReturn:
        raise ConfigError([(key, text)])

    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        refuse(f"{path} does not exist; write the token into it, then: chmod 600 {path}")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        refuse(f"{path} cannot be read ({reason}); it must be readable by the daemon's user")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            refuse(f"{path} is not a regular file")
        raw = os.read(descriptor, _MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if credentials_directory is None and (from_systemd := os.environ.get("CREDENTIALS_DIRECTORY")):
        credentials_directory = Path(from_systemd)
    credential = credentials_directory is not None and path.is_relative_to(credentials_directory)
    if status.st_mode & (0o007 if credential else 0o077):
        mode = stat.S_IMODE(status.st_mode)
        refuse(f"others can read {path} (mode {mode:04o}); remedy: chmod 600 {path}")
    token = raw.strip()
    if not token:
        refuse(f"{path} is empty; write the token into it")
    if len(raw) > _MAX_BYTES or not all(0x21 <= byte <= 0x7E for byte in token):
        # Nothing of the content is repeated here: it may be another secret put in by mistake.
        refuse(f"{path} does not hold a token: one line of printable ASCII without spaces")
    return Secret(token.decode("ascii"))
