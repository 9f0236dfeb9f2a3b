"""What jobs' cgroups have used since the last look; what stands still is not read every time."""

from __future__ import annotations

from wattledger.jobs import hierarchy
from wattledger.jobs.hierarchy import Layout
from wattledger.jobs.paths import Place
from wattledger.model.jobs import SLURM
from wattledger.units import NS_PER_S, PPM

MEMORY_NS = 5 * NS_PER_S
CPUSET_NS = 30 * NS_PER_S
EMPTY_NS = 10 * NS_PER_S
MANY = 128  # cgroups; from here on those that stand still are read less often
STILL_NS = 5 * NS_PER_S
READS_PER_S = 256  # with many, the files of one kind that are read of those that stand still


class Tally:
    """What a run has used.

    Attributes:
        used_ns: CPU time since this process began to count it; never falls.
        alive_ns: CLOCK_MONOTONIC of the last sign of life.
    """

    __slots__ = ("alive_ns", "used_ns")

    def __init__(self) -> None:
        self.used_ns = 0
        self.alive_ns = 0


class Cgroup:
    """A job's cgroup and what was last read of it.

    Attributes:
        place: what its path says.
        tally: the run's of which it is.
        inodes: number of the hierarchy → inode.
        parent: the nearest job's cgroup around it.
        gone: it is no longer there.
        raw_ns: its CPU counter; None: not read yet.
        owed_ns: CPU time of jobs inside it that its own counter is still to show.
        memory_raw: anonymous and shared memory; None: not told.
        inside_bytes: what of that is of jobs inside it.
        cpuset_ppm: its own CPUs over the node's.
        empty: no process has been in it for a while.
        doubted: its counter could be read, and now cannot be.
    """

    __slots__ = (
        "cpu_due_ns",
        "cpuset_due_ns",
        "cpuset_ppm",
        "doubted",
        "due_ns",
        "empty",
        "empty_due_ns",
        "gone",
        "inodes",
        "inside_bytes",
        "memory_due_ns",
        "memory_raw",
        "moved_ns",
        "owed_ns",
        "parent",
        "place",
        "raw_ns",
        "tally",
    )

    def __init__(self, place: Place, tally: Tally) -> None:
        self.place = place
        self.tally = tally
        self.inodes: dict[int, int] = {}
        self.parent: Cgroup | None = None
        self.gone = False
        self.raw_ns: int | None = None
        self.owed_ns = 0
        self.memory_raw: int | None = None
        self.inside_bytes = 0
        self.cpuset_ppm = 0
        self.empty = False
        self.doubted = False
        self.moved_ns = 0
        self.due_ns = 0
        self.cpu_due_ns = self.memory_due_ns = self.cpuset_due_ns = self.empty_due_ns = 0

    @property
    def memory_bytes(self) -> int:
        """Anonymous and shared memory, that of jobs inside it left out."""
        return max(0, (self.memory_raw or 0) - self.inside_bytes)

    def around(self) -> Cgroup | None:
        """The nearest job's cgroup around it that is still there."""
        while self.parent is not None and self.parent.gone:
            self.parent = self.parent.parent
        return self.parent

    def count(self, raw_ns: int) -> bool:
        """Its CPU counter shows this; False: it has fallen, so it is another's.

        What it used is the run's, but for what jobs inside it did. Theirs is known from their own
        counters, which are not read at the same instant: what a counter does not show yet is owed
        until it does, so that over time each ns is counted once.
        """
        before, self.raw_ns = self.raw_ns, raw_ns
        if before is None:
            self.owed_ns = 0
            return True
        grown = max(0, raw_ns - before)
        around = self.around()
        if around is not None:
            around.owed_ns += grown
        paid = min(grown, self.owed_ns)
        self.owed_ns -= paid
        self.tally.used_ns += grown - paid
        return raw_ns >= before

    def remember(self, memory_raw: int | None) -> None:
        """It holds so much memory."""
        around = self.around()
        if around is not None:
            around.inside_bytes += (memory_raw or 0) - (self.memory_raw or 0)
        self.memory_raw = memory_raw


class Counters:
    """Reads what is due."""

    def __init__(self, layout: Layout, cpus: int) -> None:
        """Args: layout: where the hierarchies are. cpus: of the node."""
        self._layout = layout
        self._cpus = cpus

    def read(self, cgroups: dict[str, Cgroup], now_ns: int) -> list[str]:
        """Take in what jobs have used since the last look.

        Args:
            cgroups: path → cgroup, all that there are, each after those around it.
            now_ns: CLOCK_MONOTONIC.

        Returns:
            The paths whose counters say that they are no longer the cgroups that they were.
        """
        odd: list[str] = []
        many = len(cgroups) > MANY
        stretch_ns = len(cgroups) * NS_PER_S // READS_PER_S if many else 0
        slow_left = 2 * READS_PER_S
        for path in reversed(cgroups):  # those inside first: what they used is not the outer's
            cgroup = cgroups[path]
            if now_ns < cgroup.due_ns:
                continue
            if now_ns >= cgroup.cpu_due_ns:
                still_ns = max(STILL_NS, stretch_ns) if many else 0
                if not self._cpu(path, cgroup, now_ns, still_ns):
                    odd.append(path)
            if slow_left and now_ns >= cgroup.memory_due_ns:
                slow_left -= 1
                cgroup.memory_due_ns = now_ns + max(MEMORY_NS, stretch_ns)
                cgroup.remember(hierarchy.memory_bytes(self._layout, path))
            if slow_left and now_ns >= cgroup.cpuset_due_ns:
                slow_left -= 1
                cgroup.cpuset_due_ns = now_ns + max(CPUSET_NS, stretch_ns)
                cgroup.cpuset_ppm = self._cpuset_ppm(path, cgroup.place)
            cgroup.due_ns = min(cgroup.cpu_due_ns, cgroup.memory_due_ns, cgroup.cpuset_due_ns)
        return odd

    def _cpu(self, path: str, cgroup: Cgroup, now_ns: int, still_ns: int) -> bool:
        before = cgroup.raw_ns
        raw_ns = hierarchy.cpu_ns(self._layout, path)
        if raw_ns is None:
            if before is None:  # no such controller: that the directory is there must do
                cgroup.tally.alive_ns = now_ns
                return True
            first, cgroup.doubted = not cgroup.doubted, True
            return not first
        cgroup.doubted = False
        cgroup.tally.alive_ns = now_ns
        same = cgroup.count(raw_ns)
        first = not cgroup.moved_ns
        if first or before is None or raw_ns > before:
            cgroup.moved_ns = now_ns
            cgroup.empty = False
        elif still_ns:
            phase = next(iter(cgroup.inodes.values()), 0) % 512  # not all of them at once
            cgroup.cpu_due_ns = now_ns + still_ns * (512 + phase) // 1024
        # A directory that outlived its job stands still for ever, and nobody may hold by it. One
        # that was not made before our eyes may have done so before we looked.
        stands = now_ns - cgroup.moved_ns >= EMPTY_NS and now_ns >= cgroup.empty_due_ns
        if stands or (first and before != 0):
            cgroup.empty_due_ns = now_ns + max(EMPTY_NS, still_ns)
            cgroup.empty = not hierarchy.is_populated(self._layout, path)
        return same

    def _cpuset_ppm(self, path: str, place: Place) -> int:
        own = hierarchy.cpuset(self._layout, path)
        if own is None or not self._cpus:
            return 0
        if self._layout.hybrid and place.manager != SLURM and len(own) >= self._cpus:
            return 0  # v1 lists all CPUs also where none were given
        return min(PPM, len(own) * PPM // self._cpus)
