"""The jobs' directories of one hierarchy of cgroups, found at little cost.

A directory is listed again only when that can show something new. In cgroupfs a directory's link
count is the number of its children plus 2, so a child that came or went shows in one stat; one
that came while another went shows in the stat of the one that went, if it was a job's. What is
left (two strangers that changed places) is found by listing every directory on the way to jobs
once in a while. The times of these directories tell nothing: the kernel keeps them only where
somebody has set them.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from wattledger.jobs.paths import Paths, Place
from wattledger.units import NS_PER_S

RELIST_NS = 5 * NS_PER_S
MAX_DIRECTORIES = 50_000


class Found(NamedTuple):
    """A job's directory.

    Attributes:
        place: what its path says.
        inode: of the directory.
        changed_ns: its ctime: about when it was made, if it was not made anew in the cache since.
    """

    place: Place
    inode: int
    changed_ns: int


class _Directory:
    __slots__ = ("children", "found", "inode", "interior", "links", "listed_ns")

    def __init__(self, interior: bool) -> None:
        self.interior = interior
        self.inode = 0
        self.links = -1
        self.listed_ns = 0
        self.found: Found | None = None
        self.children: dict[str, _Directory] = {}


class Tree:
    """One hierarchy, walked again and again."""

    def __init__(self, base: str, paths: Paths) -> None:
        """Args: base: where it is mounted. paths: which paths are jobs'."""
        self._base = base
        self._paths = paths
        self._root = _Directory(interior=True)
        self._listings = 0
        self._directories = 0

    @property
    def listings(self) -> int:
        """How many directories were listed so far."""
        return self._listings

    def walk(self, now_ns: int) -> list[Found]:
        """All jobs' directories.

        Args:
            now_ns: CLOCK_MONOTONIC.
        """
        found: list[Found] = []
        self._directories = 0
        self._visit("", self._root, now_ns, found)
        return found

    def _visit(self, path: str, directory: _Directory, now_ns: int, found: list[Found]) -> bool:
        """One directory and those below; False: it is gone."""
        self._directories += 1
        try:
            status = os.lstat(self._base + path)
        except OSError:
            return False
        if not stat.S_ISDIR(status.st_mode):
            return False
        if status.st_ino != directory.inode:  # made anew under the same name
            directory.inode, directory.links = status.st_ino, -1
            directory.children.clear()
            place = self._paths.at(path) if path else None
            directory.found = (
                Found(place, status.st_ino, status.st_ctime_ns) if place is not None else None
            )
        if directory.found is not None:
            found.append(directory.found)
        if not directory.interior:
            return True
        complete = True
        for name, child in list(directory.children.items()):
            if not self._visit(f"{path}/{name}", child, now_ns, found):
                del directory.children[name]
                complete = False
        # A file system that does not count links shows 1: there every look is a listing.
        if (
            not complete
            or status.st_nlink != directory.links
            or status.st_nlink < 2
            or now_ns - directory.listed_ns >= RELIST_NS
        ):
            directory.links, directory.listed_ns = status.st_nlink, now_ns
            self._list(path, directory, now_ns, found)
        return True

    def _list(self, path: str, directory: _Directory, now_ns: int, found: list[Found]) -> None:
        self._listings += 1
        try:
            with os.scandir(self._base + (path or "/")) as entries:
                names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            return
        for name in names:
            if name in directory.children or self._directories >= MAX_DIRECTORIES:
                continue
            below = f"{path}/{name}"
            interior = self._paths.leads_to_jobs(below)
            if interior or self._paths.at(below) is not None:
                child = _Directory(interior)
                if self._visit(below, child, now_ns, found):
                    directory.children[name] = child
