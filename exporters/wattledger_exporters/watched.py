"""Files that are read, and whether they have changed since."""

from __future__ import annotations

import os
from pathlib import Path

from wattledger.units import NS_PER_S

_MOST_BYTES = 4 << 20
_SETTLED_NS = NS_PER_S

Look = tuple[int, ...]
"""What tells one state of a file from the next: of stat(2), or the error where there is none."""


class Watched:
    """The files that one reading of a configuration opened.

    Attributes:
        seen: each of them with its state when it was opened, those that could not be opened too:
            what was missing may come.
    """

    def __init__(self) -> None:
        self.seen: dict[Path, Look] = {}

    def read(self, path: Path) -> bytes:
        """All of a file.

        Raises:
            OSError: it cannot be read; `strerror` says why.
        """
        try:
            with path.open("rb") as file:
                self.seen[path] = _look_of(os.fstat(file.fileno()))
                raw = file.read(_MOST_BYTES + 1)
        except OSError as error:
            self.seen.setdefault(path, (error.errno or 0,))
            raise
        if len(raw) > _MOST_BYTES:
            raise OSError(0, f"it is larger than {_MOST_BYTES >> 20} MiB")
        return raw

    def look(self) -> dict[Path, Look]:
        """The state of each of them now; equal to `seen`: nothing has changed."""
        return {path: _look(path) for path in self.seen}

    def settled(self, now: dict[Path, Look], wall_ns: int) -> bool:
        """Whether what has changed was left alone for a second.

        Who writes a file in place empties it first, and an empty web configuration is a good one
        that asks for no password.

        Args:
            now: from `look`.
            wall_ns: wall clock; of files, the change time is compared, which nobody can set back.
        """
        changed = [look for path, look in now.items() if look != self.seen[path]]
        return not any(len(look) > 1 and 0 <= wall_ns - look[0] < _SETTLED_NS for look in changed)


def _look(path: Path) -> Look:
    try:
        return _look_of(path.stat())
    except OSError as error:
        return (error.errno or 0,)


def _look_of(stat: os.stat_result) -> Look:
    return (stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev)
