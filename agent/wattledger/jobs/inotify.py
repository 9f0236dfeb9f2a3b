"""Being told that directories come and go, instead of looking for them all the time.

inotify(7) over the C library. cgroupfs tells of directories that are made and removed by whoever
does it, like any file system that the kernel itself keeps; a file system behind which another
machine or process makes the changes (FUSE, NFS) tells nothing of those.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
from collections.abc import Iterable
from typing import NamedTuple

# <sys/inotify.h>
_IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x40, 0x80, 0x100, 0x200
_IN_Q_OVERFLOW, _IN_ISDIR = 0x4000, 0x40000000
_IN_ONLYDIR, _IN_DONT_FOLLOW = 0x01000000, 0x02000000
_MASK = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_ONLYDIR | _IN_DONT_FOLLOW
_EVENT = struct.Struct("iIII")  # struct inotify_event up to the name
_READ_BYTES = 65_536

MAX_DIRECTORIES = 1024  # a user's processes share fs.inotify.max_user_watches


class Directory(NamedTuple):
    """One that is watched.

    Attributes:
        path: below the hierarchy's mount point.
        inode: of it, since another of the same path is not watched with it.
    """

    path: str
    inode: int


class Inotify:
    """Watches directories, not what is below them. `wait` may be called without a lock."""

    def __init__(self, base: str) -> None:
        """Nothing is watched yet.

        Args:
            base: where the hierarchy is mounted.

        Raises:
            OSError: this system has no inotify, or none is left for this user.
        """
        self._base = base
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            init, self._add, self._remove = (
                libc.inotify_init1,
                libc.inotify_add_watch,
                libc.inotify_rm_watch,
            )
        except AttributeError as error:
            raise OSError(f"the C library has no inotify: {error}") from error
        self._handle: int = init(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._handle < 0:
            raise _error()
        self._ready = select.poll()
        self._ready.register(self._handle, select.POLLIN)
        self._numbers: dict[Directory, int] = {}
        self._watched: dict[int, Directory] = {}

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", -1), -1
        if handle >= 0:
            with contextlib.suppress(OSError):
                os.close(handle)

    def follow(self, directories: Iterable[Directory]) -> set[Directory]:
        """Watch these and no others.

        Returns:
            Those that were not watched before: what changed in them until now was not told.

        Raises:
            OSError: one cannot be watched. One that is gone is not watched, and no error.
        """
        wanted = set(directories)
        if len(wanted) > MAX_DIRECTORIES:
            raise OSError(f"too many directories: {len(wanted)}")
        # A cgroup's watch outlives the cgroup: it must be removed by hand, and before another of
        # its name is watched.
        for gone in self._numbers.keys() - wanted:
            number = self._numbers.pop(gone)
            self._watched.pop(number, None)
            self._remove(self._handle, number)
        new = wanted - self._numbers.keys()
        for directory in new:
            path = os.fsencode(self._base + (directory.path or "/"))
            number = self._add(self._handle, path, _MASK)
            if number >= 0:
                self._numbers[directory] = number
                self._watched[number] = directory
                continue
            error = _error()
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise error
        return new

    def take(self) -> set[str]:
        """The paths of those in which directories came or went since this was last called."""
        told: set[str] = set()
        while True:
            try:
                events = os.read(self._handle, _READ_BYTES)
            except BlockingIOError:
                return told
            at = 0
            while at < len(events):
                number, mask, _, name_bytes = _EVENT.unpack_from(events, at)
                at += _EVENT.size + name_bytes
                if mask & _IN_Q_OVERFLOW:
                    told.update(directory.path for directory in self._watched.values())
                elif mask & _IN_ISDIR and number in self._watched:
                    told.add(self._watched[number].path)

    def wait(self, most_s: float) -> bool:
        """Wait until there is something to be taken; False: so long there was nothing."""
        return bool(self._ready.poll(most_s * 1000))


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
