"""Small files that a privileged hook leaves for us: read with distrust, and only when they change.

Whoever can write such a file decides who pays. So a file counts only if it is a regular file of a
trusted owner, nobody else may write to it, and it lies in a directory of which the same holds;
links are not followed, and every file is opened relative to the directory that was checked.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from wattledger.model import Fault

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MAX_FILES = 20_000  # a directory that holds more is read no further


class SmallFile(NamedTuple):
    """A file that passed every check.

    Attributes:
        text: all of it, ASCII or bytes that stand for themselves (`surrogateescape`).
        mtime_ns: wall clock when it was written.
        ctime_ns: wall clock when it was last written or renamed.
    """

    text: str
    mtime_ns: int
    ctime_ns: int


_Entry = tuple[tuple[int, ...], SmallFile | Fault]  # a file's stamp, and what came of it


class DirectoryState(NamedTuple):
    """What one look at the directory brought; the same object as long as nothing changes."""

    files: dict[str, SmallFile]
    faults: tuple[Fault, ...]


class TrustedDirectory:
    """A directory of small files, read again only where something changed.

    Args:
        source: the source's name, for faults.
        path: the directory.
        wanted: names that match completely are read, all others ignored.
        trusted_uids: who may own the directory and its files.
        max_bytes: a larger file is refused.
        atomic: every writer renames complete files into place, so that the directory's own time
            tells of each change; else each file's time is asked for.
    """

    def __init__(
        self,
        source: str,
        path: Path,
        wanted: re.Pattern[str],
        *,
        trusted_uids: Collection[int] = (0,),
        max_bytes: int = 4096,
        atomic: bool = False,
    ) -> None:
        self._source = source
        self._path = path
        self._wanted = wanted
        self._trusted = frozenset(trusted_uids)
        self._max_bytes = max_bytes
        self._atomic = atomic
        self._seen: tuple[int, ...] | None = None
        self._settled = False
        self._cache: dict[str, _Entry] = {}
        self._state = DirectoryState({}, ())

    def look(self) -> DirectoryState:
        """Its files now, and what is wrong with it or them. Never raises for what it finds.

        A directory that does not exist holds no files, and that is no fault.
        """
        try:
            descriptor = os.open(
                self._path,
                os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            )
        except FileNotFoundError:
            return self._nothing()
        except OSError as error:
            return self._nothing(self._refusal(error))
        try:
            return self._look(descriptor)
        except OSError as error:
            return self._nothing(self._refusal(error))
        finally:
            os.close(descriptor)

    def _look(self, descriptor: int) -> DirectoryState:
        status = os.fstat(descriptor)
        if (problem := self._distrust(status)) is not None:
            return self._nothing(
                self._fault("not_trusted", f"{self._path} {problem}, so its files are not believed")
            )
        # Times have the grain of the kernel's tick: what happens within the same tick as a look
        # shows at the next one, so only a second equal look is the last.
        seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        same, self._seen = seen == self._seen, seen
        if self._atomic and same and self._settled:
            return self._state
        self._settled = same
        cache: dict[str, _Entry] = {}
        for name in os.listdir(descriptor):
            if len(cache) >= _MAX_FILES:
                break
            if self._wanted.fullmatch(name) and (entry := self._entry(descriptor, name)):
                cache[name] = entry
        if cache != self._cache or (self._state.faults and not cache):
            contents = {name: what for name, (_, what) in cache.items()}
            self._state = DirectoryState(
                {name: what for name, what in contents.items() if isinstance(what, SmallFile)},
                tuple(what for what in contents.values() if isinstance(what, Fault)),
            )
        self._cache = cache
        return self._state

    def _entry(self, descriptor: int, name: str) -> _Entry | None:
        """A file's stamp and contents, from the cache where its stamp is the same."""
        try:
            stamp = _stamp(os.stat(name, dir_fd=descriptor, follow_symlinks=False))
            known = self._cache.get(name)
            if known is not None and known[0] == stamp:
                return known
            return self._read(descriptor, name)
        except FileNotFoundError:
            return None  # gone since the listing
        except OSError as error:
            path = self._path / name
            code = errno.errorcode.get(error.errno or 0, "error")
            link = error.errno == errno.ELOOP
            reason, what = (
                ("not_trusted", f"{path} is a symbolic link") if link else
                ("unreadable", f"reading {path} failed with {code}")
            )  # fmt: skip
            return (0,), self._fault(reason, what)

    def _read(self, descriptor: int, name: str) -> _Entry:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(name, flags, dir_fd=descriptor)
        try:
            status = os.fstat(file)
            stamp = _stamp(status)
            problem = self._distrust(status)
            if problem is None and not stat.S_ISREG(status.st_mode):
                problem = "is not a regular file"
            if problem is not None:
                message = f"{self._path / name} {problem}, so it is not believed"
                return stamp, self._fault("not_trusted", message)
            raw = os.read(file, self._max_bytes + 1)
        finally:
            os.close(file)
        if len(raw) > self._max_bytes:
            message = f"{self._path / name} is larger than {self._max_bytes} bytes"
            return stamp, self._fault("too_large", message)
        text = raw.decode("utf-8", "surrogateescape")
        return stamp, SmallFile(text, status.st_mtime_ns, status.st_ctime_ns)

    def _distrust(self, status: os.stat_result) -> str | None:
        """Why a file or directory is not to be believed; None: it is."""
        if status.st_uid not in self._trusted:
            return f"belongs to user {status.st_uid}"
        if status.st_mode & _OTHERS_WRITE and not stat.S_ISLNK(status.st_mode):
            return f"can be written to by others (mode {stat.S_IMODE(status.st_mode):04o})"
        return None

    def _nothing(self, *faults: Fault) -> DirectoryState:
        self._cache, self._seen, self._settled = {}, None, False
        if self._state.files or self._state.faults != faults:
            self._state = DirectoryState({}, faults)
        return self._state

    def _refusal(self, error: OSError) -> Fault:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return self._fault("not_trusted", f"{self._path} is not a directory, or is a link")
        if error.errno in (errno.EACCES, errno.EPERM):
            return self._fault("no_permission", f"no permission to read {self._path}")
        code = errno.errorcode.get(error.errno or 0, "error")
        return self._fault("unreadable", f"reading {self._path} failed with {code}")

    def _fault(self, reason: str, message: str) -> Fault:
        hint = "only root may own and write it" if reason == "not_trusted" else ""
        return Fault(self._source, reason, message, hint)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """Changes whenever the file's contents, owner or mode do."""
    return (
        status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_size,
        status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip
