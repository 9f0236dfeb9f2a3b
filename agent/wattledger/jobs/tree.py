"""The jobs' directories of one hierarchy of cgroups, found at little cost.

A directory is listed again only when that can show something new. In cgroupfs a directory's link
count is the number of its children plus 2, so a child that came or went shows in one stat. One
that came while another went shows when the one that went is looked at: each by itself while there
are few, else when its counter cannot be read (`doubt`), or when every directory on the way to
jobs is listed, once in a while. The times of these directories tell little: the kernel keeps them
only as long as it keeps the directory in its cache. What tells that a job is new is that it was
not there when its directory was listed before.

Below `user@UID.service` users make the directories, as many as they like: there only some are
looked at, and only once in a while.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from wattledger.jobs.paths import Paths, Place
from wattledger.units import NS_PER_S

RELIST_NS = 5 * NS_PER_S
MAX_DIRECTORIES = 50_000
FEW = 128  # jobs; up to here each one's directory is looked at by itself
MAX_OF_A_USER = 64  # rootless containers, and directories on the way to them
MAX_ENTRIES_OF_A_USER = 1024

SELDOM = "/user.slice"  # where nothing lives for less than systemd's UserStopDelaySec


class Found(NamedTuple):
    """A job's directory.

    Attributes:
        place: what its path says.
        inode: of the directory.
        changed_ns: its ctime: about when it was made, if it was not made anew in the cache since.
        fresh: it was made since the first look, so that all it ever used is news.
    """

    place: Place
    inode: int
    changed_ns: int
    fresh: bool


class Change(NamedTuple):
    """A job's directory came or, where `came` is False, went."""

    came: bool
    found: Found


class _User:
    """What a user has made."""

    __slots__ = ("containers", "directories", "due_ns", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.containers = self.directories = self.due_ns = 0


class _Directory:
    """One below which jobs may be.

    Attributes:
        fresh: whoever appears in it from now on is new.
        inode: of it; 0: never looked at.
        links: its link count when it was listed.
        listed_ns: when that was.
        below: its children of the same kind.
        jobs: name of a child that is a job's, and nothing else → inode as it was listed.
        strangers: names of children that are neither.
        user: who makes the directories here; None: root's managers.
        doubted: something in it is not as it was.
    """

    __slots__ = (
        "below",
        "doubted",
        "fresh",
        "inode",
        "jobs",
        "links",
        "listed_ns",
        "strangers",
        "user",
    )

    def __init__(self, fresh: bool, user: _User | None) -> None:
        self.fresh = fresh
        self.user = user
        self.inode = 0
        self.links = -1
        self.listed_ns = 0
        self.below: dict[str, _Directory] = {}
        self.jobs: dict[str, int] = {}
        self.strangers: set[str] = set()
        self.doubted = False


class Tree:
    """One hierarchy, looked at again and again.

    Attributes:
        found: path → job's directory, as of the last look.
        listings: how many directories were listed so far.
    """

    def __init__(self, base: str, paths: Paths, most: int = MAX_DIRECTORIES) -> None:
        """Args: base: where it is mounted. paths: which are jobs'. most: directories to know."""
        self._base = base
        self._most = most
        self._paths = paths
        self._root = _Directory(fresh=False, user=None)
        self._directories = 0
        self._changes: list[Change] = []
        self._watched: list[tuple[str, _Directory]] | None = None
        self.found: dict[str, Found] = {}
        self.listings = 0

    def look(self, now_ns: int, *, briefly: bool = False) -> list[Change]:
        """What is other than at the look before, in order.

        Args:
            now_ns: CLOCK_MONOTONIC.
            briefly: only at the link counts of directories where short-lived jobs may be.
        """
        changes: list[Change] = []
        if briefly and self._is_quiet():
            return changes
        self._changes = changes
        if not self._visit("", self._root, now_ns, briefly=briefly):
            self._forget_below("", self._root)
            self._root = _Directory(fresh=False, user=None)
            self._watched = None
        return changes

    def doubt(self, path: str) -> None:
        """A job's directory is not as it was: the next look sees what has become of it."""
        directory = self._root
        for name in path.split("/")[1:-1]:
            below = directory.below.get(name)
            if below is None:
                return
            directory = below
        directory.doubted = True
        if directory.user is not None:
            directory.user.due_ns = 0

    def watched(self) -> Sequence[tuple[str, _Directory]]:
        """The directories that are looked at briefly; the same object as long as it is true."""
        if self._watched is None:
            self._watched = []
            self._watch("", self._root)
        return self._watched

    def _is_quiet(self) -> bool:
        """Whether no link count is other than it was, of the directories to be looked at briefly.

        Where nobody tells of changes this is ten times a second, and almost always the whole of it.
        """
        for path, directory in self.watched():
            try:
                status = os.lstat(self._base + path)
            except OSError:
                return False
            if (
                status.st_nlink != directory.links
                or status.st_ino != directory.inode
                or directory.doubted
                or status.st_nlink < 2
            ):
                return False
        return True

    def _watch(self, path: str, directory: _Directory) -> None:
        if self._watched is not None and path != SELDOM:
            self._watched.append((path, directory))
            for name, below in directory.below.items():
                self._watch(f"{path}/{name}", below)

    # ── one directory ───────────────────────────────────────────────────────────────────────────

    def _visit(self, path: str, directory: _Directory, now_ns: int, *, briefly: bool) -> bool:
        """One directory and those below; False: it is gone."""
        user = directory.user
        if user is not None and user.path == path:
            if now_ns < user.due_ns:
                return True
            user.due_ns = now_ns + RELIST_NS
        try:
            status = os.lstat(self._base + path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # it cannot be told now
        if not stat.S_ISDIR(status.st_mode):
            return False
        must_list = directory.doubted
        if status.st_ino != directory.inode:
            self._is_another(path, directory, status)
            must_list = True
        for name, below in list(directory.below.items()):
            child = f"{path}/{name}"
            if briefly and child == SELDOM:
                continue
            if not self._visit(child, below, now_ns, briefly=briefly):
                self._forget(child, directory.below.pop(name))
                must_list = True
        if not briefly and len(self.found) <= FEW and directory.jobs:
            must_list = must_list or not self._all_there(path, directory)
        # A file system that does not count links shows 1: there every look is a listing.
        if (
            must_list
            or status.st_nlink != directory.links
            or status.st_nlink < 2
            or (not briefly and now_ns - directory.listed_ns >= RELIST_NS)
        ):
            directory.doubted = False
            directory.links, directory.listed_ns = status.st_nlink, now_ns
            self._list(path, directory, now_ns, briefly=briefly)
        return True

    def _is_another(self, path: str, directory: _Directory, status: os.stat_result) -> None:
        """It was made since, or is seen for the first time."""
        if directory.inode:
            self._forget_below(path, directory)
            self._leave(path)
            directory.fresh = True
        self._watched = None
        directory.inode, directory.links = status.st_ino, -1
        place = self._paths.at(path) if path else None
        if place is not None:
            self._enter(path, Found(place, status.st_ino, status.st_ctime_ns, directory.fresh))

    def _all_there(self, path: str, directory: _Directory) -> bool:
        """Whether each job's directory is the one that was found."""
        for name in directory.jobs:
            child = f"{path}/{name}"
            try:
                if os.lstat(self._base + child).st_ino != self.found[child].inode:
                    return False
            except OSError:
                return False
        return True

    def _list(self, path: str, directory: _Directory, now_ns: int, *, briefly: bool) -> None:
        self.listings += 1
        user = directory.user
        most = MAX_DIRECTORIES if user is None else MAX_ENTRIES_OF_A_USER
        inodes: dict[str, int] = {}
        try:
            with os.scandir(self._base + (path or "/")) as entries:
                for entry in islice(entries, most):
                    if entry.is_dir(follow_symlinks=False):
                        inodes[entry.name] = entry.inode()
        except OSError:
            directory.links, directory.fresh = -1, False
            return
        for name in [n for n, inode in directory.jobs.items() if inodes.get(n) != inode]:
            del directory.jobs[name]
            self._directories -= 1
            self._leave(f"{path}/{name}", user)
        for name in [n for n in directory.below if n not in inodes]:
            self._forget(f"{path}/{name}", directory.below.pop(name))
        directory.strangers &= inodes.keys()
        complete = True
        for name, inode in inodes.items():
            known = name in directory.jobs or name in directory.below
            if not known and name not in directory.strangers:
                taken = self._take(f"{path}/{name}", name, inode, directory, now_ns, briefly)
                complete = complete and taken
        directory.fresh = complete

    def _take(
        self, path: str, name: str, inode: int, around: _Directory, now_ns: int, briefly: bool
    ) -> bool:
        """A child that is not known; False: there are too many."""
        interior, place = self._paths.leads_to_jobs(path), self._paths.at(path)
        if not interior and place is None:
            around.strangers.add(name)
            return True
        user = around.user
        if self._directories >= self._most:
            return False
        if interior:
            if user is not None and user.directories >= MAX_OF_A_USER:
                return True
            if user is None and self._paths.is_delegated(path):
                user = _User(path)
            below = _Directory(around.fresh, user)
            self._directories += 1
            if user is not None:
                user.directories += 1
            self._watched = None
            if self._visit(path, below, now_ns, briefly=briefly):
                around.below[name] = below
            else:
                self._forget(path, below)
            return True
        if place is None or (user is not None and user.containers >= MAX_OF_A_USER):
            return True
        try:
            status = os.lstat(self._base + path)
        except OSError:
            return True
        around.jobs[name] = inode
        self._directories += 1
        if user is not None:
            user.containers += 1
        # What a user's container has used so far was taken for the user's own already.
        fresh = around.fresh and user is None
        self._enter(path, Found(place, status.st_ino, status.st_ctime_ns, fresh))
        return True

    # ── what is known ───────────────────────────────────────────────────────────────────────────

    def _enter(self, path: str, found: Found) -> None:
        self.found[path] = found
        self._changes.append(Change(True, found))

    def _leave(self, path: str, user: _User | None = None) -> None:
        found = self.found.pop(path, None)
        if found is not None:
            self._changes.append(Change(False, found))
            if user is not None:
                user.containers -= 1

    def _forget(self, path: str, directory: _Directory) -> None:
        self._watched = None
        self._forget_below(path, directory)
        self._leave(path)
        self._directories -= 1
        if directory.user is not None:
            directory.user.directories -= 1

    def _forget_below(self, path: str, directory: _Directory) -> None:
        for name, below in directory.below.items():
            self._forget(f"{path}/{name}", below)
        for name in directory.jobs:
            self._directories -= 1
            self._leave(f"{path}/{name}", directory.user)
        directory.below.clear()
        directory.jobs.clear()
        directory.strangers.clear()
