"""Jobs as they come and go between two surveys, so that one that lives 300 ms is in the books.

A thread sleeps until the kernel tells that a directory came or went where jobs appear, looks at the
link counts of these directories, and reads the CPU counters of jobs that are younger than two
seconds ten times a second; the rest is left to the survey, which takes all that was seen. Where
the kernel does not tell, the thread looks ten times a second. A look is far cheaper than a survey,
but a node where thousands of jobs come and go would make it look all the time: what looks took
beyond a small share of the time is made up for by a longer pause.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from wattledger.jobs import hierarchy
from wattledger.jobs.hierarchy import Layout
from wattledger.jobs.inotify import Directory, Inotify
from wattledger.jobs.paths import Paths
from wattledger.jobs.tree import Change, Found, Tree
from wattledger.model import Instant
from wattledger.model.jobs import SLURM
from wattledger.units import NS_PER_S, seconds

log = logging.getLogger(__name__)

STEP_NS = NS_PER_S // 10
YOUNG_NS = 2 * NS_PER_S
SHARE = 50  # one part in so many of one core is for looking
CREDIT_NS = NS_PER_S // 20  # what was not used of it so far, at most
READ_MOST = 128  # counters in one step
KEEP_MOST = 20_000  # sightings, while no survey takes them
UID_TRIES = 3
UNTOLD_MOST = 3  # surveys in a row that found what nobody told of
FIRST = 0  # the hierarchy that is looked at between surveys: the one that counts CPU time


class Sighting(NamedTuple):
    """A job's directory came or went.

    Attributes:
        number: of the hierarchy in which it was seen.
        found: the directory.
        came: else it went.
        at_ns: wall clock: when it was first seen, or its last sign of life.
        raw_ns: of one that went, its CPU counter as last read; None: it was not.
        uid: whose processes were in it, where that was asked.
    """

    number: int
    found: Found
    came: bool
    at_ns: int
    raw_ns: int | None = None
    uid: int | None = None


class _Young:
    """A job that came a moment ago."""

    __slots__ = ("found", "raw_ns", "seen_ns", "since_ns", "tries", "uid")

    def __init__(self, found: Found, now: Instant) -> None:
        self.found = found
        self.since_ns = now.monotonic_ns
        self.seen_ns = now.wall_ns
        self.raw_ns: int | None = None
        self.uid: int | None = None
        self.tries = 0 if found.place.manager == SLURM and found.place.uid is None else UID_TRIES


class Newcomers:
    """What came and went. `step` and `take` may be called from two threads."""

    def __init__(
        self,
        layout: Layout,
        paths: Paths,
        procfs: Path,
        keep_most: int = KEEP_MOST,
        notices: Callable[[str], Inotify] = Inotify,
    ) -> None:
        """Nothing is known yet.

        Args:
            layout: where the hierarchies are.
            paths: whose a cgroup is.
            procfs: where it is mounted.
            keep_most: sightings, while no survey takes them.
            notices: where a hierarchy is mounted → who tells of changes in it.
        """
        self._layout = layout
        self._paths = paths
        self._procfs = procfs
        self._keep_most = keep_most
        self._lock = threading.Lock()
        self._trees = [Tree(base, paths) for base in layout.walked()]
        self._young: dict[str, _Young] = {}
        self._seen: list[Sighting] = []
        self._looked_ns = 0
        self._stepped_ns = 0
        self._credit_ns = CREDIT_NS
        self._make_notices: Callable[[str], Inotify] | None = notices
        self._notices: Inotify | None = None
        self._followed: object = None  # what the tree watched when all of it was followed
        self._resting = False  # there is nothing to do until something is told
        self._waiting = False  # … and it would be told at once
        self._untold = 0

    @property
    def listings(self) -> int:
        """How many directories were listed so far, for tests of what a look costs."""
        return sum(tree.listings for tree in self._trees)

    def rest(self, most_s: float) -> bool:
        """Wait while there is nothing to look at; for the thread that calls `step`.

        Args:
            most_s: so long, but not longer.

        Returns:
            There may be something now.
        """
        notices = self._notices
        if notices is None or not self._resting or self._young:
            return True
        if not self._waiting and notices.wait(0):
            return True  # it happened some time since the last look
        self._waiting = True
        return notices.wait(most_s)

    def step(self, now: Instant) -> float:
        """Look briefly.

        Returns:
            In how many seconds to do so again.
        """
        begun_ns = time.thread_time_ns()
        passed_ns = max(0, now.monotonic_ns - self._stepped_ns)
        self._stepped_ns = now.monotonic_ns
        with self._lock:
            if self._waiting:  # until now nobody came or went
                self._looked_ns = now.wall_ns
            self._resting = self._waiting = False
            if self._looked_ns and self._trees and len(self._seen) < self._keep_most:
                self._listen()
                self._look_at(self._trees[FIRST], FIRST, now, briefly=True)
                self._read_young(now)
                self._looked_ns = now.wall_ns
                self._resting = self._follow() and not self._young
        credit_ns = min(CREDIT_NS, self._credit_ns + passed_ns // SHARE)
        self._credit_ns = credit_ns - (time.thread_time_ns() - begun_ns)
        return seconds(max(STEP_NS, -self._credit_ns * SHARE))

    def take(self, now: Instant) -> list[Sighting]:
        """Look at everything, and take all that came and went since this was last called.

        Returns:
            In the order of time, as far as it is known: a job that is in several hierarchies
            leaves all of them before the next of its name comes.
        """
        with self._lock:
            seen, self._seen = self._seen, []
            others_went: list[Sighting] = []
            others_came: list[Sighting] = []
            if self._waiting:
                self._looked_ns = now.wall_ns
            for number, tree in enumerate(self._trees):
                changes = self._look_at(tree, number, now, briefly=False)
                if number == FIRST:
                    self._judge(changes)
                    seen += self._seen
                else:
                    others_went += [one for one in self._seen if not one.came]
                    others_came += [one for one in self._seen if one.came]
                self._seen = []
            self._looked_ns = now.wall_ns
        return [*others_went, *seen, *others_came]

    def doubt(self, path: str) -> None:
        """What was known of a cgroup is not true any more: look again at who it is."""
        with self._lock:
            for tree in self._trees:
                tree.doubt(path)

    # ── under the lock ──────────────────────────────────────────────────────────────────────────

    def _listen(self) -> None:
        """Look again at what it is told of, also where as many came as went."""
        told = self._notices.take() if self._notices is not None else ()
        for path in told:
            self._untold = 0
            self._trees[FIRST].doubt(f"{path}/")

    def _follow(self) -> bool:
        """Be told of what comes next; False: there may be something that was not told."""
        if self._make_notices is None:
            return False
        watched = self._trees[FIRST].watched()
        if watched is self._followed:
            return True
        try:
            if self._notices is None:
                self._notices = self._make_notices(self._layout.walked()[FIRST])
            directories = [Directory(path, one.inode) for path, one in watched]
            new = self._notices.follow(directories)
            if not new:
                self._followed = watched
                return True
            for directory in new:  # as many may have come there as went since it was listed
                self._trees[FIRST].doubt(f"{directory.path}/")
        except OSError as error:
            log.info("new jobs are looked for ten times a second, for want of inotify: %s", error)
            self._be_deaf()
        return False

    def _judge(self, changes: list[Change]) -> None:
        """A file system whose changes are told of by nobody is to be looked at all the time."""
        if not self._resting:
            return
        untold = any(self._is_followed(change.found.place.cgroup) for change in changes)
        self._untold += untold
        if self._untold >= UNTOLD_MOST:
            log.info("new jobs are looked for ten times a second: nobody tells of them")
            self._be_deaf()

    def _is_followed(self, cgroup: str) -> bool:
        around = cgroup.rpartition("/")[0]
        return any(path == around for path, _ in self._trees[FIRST].watched())

    def _be_deaf(self) -> None:
        self._make_notices = self._notices = None
        self._resting = self._waiting = False

    def _look_at(self, tree: Tree, number: int, now: Instant, *, briefly: bool) -> list[Change]:
        changes = tree.look(now.monotonic_ns, briefly=briefly)
        for came, found in changes:
            path = found.place.cgroup
            if came:
                if number == FIRST and self._looked_ns and found.fresh:
                    self._young[path] = _Young(found, now)
                self._seen.append(Sighting(number, found, True, now.wall_ns))
                continue
            young = self._young.pop(path, None) if number == FIRST else None
            if young is None:
                self._seen.append(Sighting(number, found, False, self._looked_ns))
                continue
            self._seen.append(
                Sighting(number, found, False, young.seen_ns, young.raw_ns, young.uid)
            )
        return changes

    def _read_young(self, now: Instant) -> None:
        """Read those that may end at any moment; with many, each in its turn."""
        for path in list(islice(self._young, READ_MOST)):
            young = self._young.pop(path)
            if now.monotonic_ns - young.since_ns > YOUNG_NS:
                continue
            self._young[path] = young
            raw_ns = hierarchy.cpu_ns(self._layout, path)
            if raw_ns is None and young.raw_ns is not None:
                self._trees[FIRST].doubt(path)  # it has just gone
                continue
            young.raw_ns = raw_ns
            young.seen_ns = now.wall_ns
            if young.tries < UID_TRIES and young.uid is None:
                young.tries += 1
                young.uid = hierarchy.owner_uid(self._layout, self._procfs, path)
