"""What jobs' cgroups have used since the last look; what stands still is not read every time."""

from __future__ import annotations

from collections.abc import Mapping

from wattledger.jobs import hierarchy
from wattledger.jobs.hierarchy import Layout
from wattledger.jobs.paths import Place
from wattledger.model import Instant
from wattledger.model.jobs import SLURM
from wattledger.units import NS_PER_S, PPM

MEMORY_NS = 5 * NS_PER_S
CPUSET_NS = 30 * NS_PER_S
EMPTY_NS = 10 * NS_PER_S
MANY = 128  # jobs; from here on those that stand still are read less often
STILL_NS = 5 * NS_PER_S


class Cgroup:
    """A job's cgroup and what was last read of it.

    Attributes:
        place: what its path says.
        changed_ns: ctime of its directory.
        inodes: number of the hierarchy → inode.
        raw_ns: its CPU counter; None: not read yet.
        memory_bytes: anonymous and shared memory, that of jobs inside it left out.
        cpuset_ppm: its own CPUs over the node's.
        empty: no process has been in it for a while.
    """

    __slots__ = (
        "changed_ns",
        "cpu_due_ns",
        "cpuset_due_ns",
        "cpuset_ppm",
        "empty",
        "empty_due_ns",
        "inodes",
        "memory_bytes",
        "memory_due_ns",
        "memory_raw",
        "moved_ns",
        "place",
        "raw_ns",
    )

    def __init__(self, place: Place, changed_ns: int) -> None:
        self.place = place
        self.changed_ns = changed_ns
        self.inodes: dict[int, int] = {}
        self.raw_ns: int | None = None
        self.memory_raw: int | None = None
        self.memory_bytes: int | None = None
        self.cpuset_ppm = 0
        self.empty = False
        self.moved_ns = 0
        self.cpu_due_ns = self.memory_due_ns = self.cpuset_due_ns = self.empty_due_ns = 0

    def is_same(self, other: Cgroup) -> bool:
        """Whether it is the same directory, in any hierarchy."""
        return any(other.inodes.get(number) == inode for number, inode in self.inodes.items())


def read_counters(
    layout: Layout, cgroups: Mapping[str, Cgroup], now: Instant, cpus: int
) -> dict[str, int]:
    """Read what is due.

    Args:
        layout: where the hierarchies are.
        cgroups: path → cgroup, all that there are.
        now: this moment.
        cpus: of the node.

    Returns:
        Path → CPU time in ns used since the last look, that of jobs inside it left out.
    """
    now_ns = now.monotonic_ns
    grown: dict[str, int] = {}
    for path, cgroup in cgroups.items():
        if now_ns >= cgroup.cpu_due_ns:
            grown[path] = _cpu(layout, path, cgroup, now_ns, many=len(cgroups) > MANY)
        if now_ns >= cgroup.memory_due_ns:
            cgroup.memory_due_ns = now_ns + MEMORY_NS
            cgroup.memory_raw = hierarchy.memory_bytes(layout, path)
        if now_ns >= cgroup.cpuset_due_ns:
            cgroup.cpuset_due_ns = now_ns + CPUSET_NS
            cgroup.cpuset_ppm = _cpuset_ppm(layout, path, cgroup.place, cpus)
    inside = {path: parent for path in cgroups if (parent := _parent(path, cgroups))}
    for cgroup in cgroups.values():
        cgroup.memory_bytes = cgroup.memory_raw
    own = dict(grown)
    for path, parent in inside.items():
        if parent in own:
            own[parent] -= grown.get(path, 0)
        memory, around = cgroups[path].memory_raw, cgroups[parent].memory_bytes
        if memory is not None and around is not None:
            cgroups[parent].memory_bytes = max(0, around - memory)
    return {path: max(0, used) for path, used in own.items()}


def _cpu(layout: Layout, path: str, cgroup: Cgroup, now_ns: int, *, many: bool) -> int:
    raw_ns = hierarchy.cpu_ns(layout, path)
    before = cgroup.raw_ns
    if raw_ns is None:
        return 0
    cgroup.raw_ns = raw_ns
    if before is None or raw_ns > before:
        cgroup.moved_ns = now_ns
        cgroup.empty = False
    elif many:
        cgroup.cpu_due_ns = now_ns + STILL_NS
    # A directory that outlived its job stands still for ever, and nobody may hold anything by it.
    if now_ns - cgroup.moved_ns >= EMPTY_NS and now_ns >= cgroup.empty_due_ns:
        cgroup.empty_due_ns = now_ns + EMPTY_NS
        cgroup.empty = not hierarchy.is_populated(layout, path)
    return max(0, raw_ns - before) if before is not None else 0


def _cpuset_ppm(layout: Layout, path: str, place: Place, cpus: int) -> int:
    own = hierarchy.cpuset(layout, path)
    if own is None or not cpus:
        return 0
    if layout.hybrid and place.manager != SLURM and len(own) >= cpus:
        return 0  # v1 lists all CPUs also where none were given
    return min(PPM, len(own) * PPM // cpus)


def _parent(path: str, cgroups: Mapping[str, Cgroup]) -> str:
    """The nearest job's cgroup around this one; empty: there is none."""
    while path := path.rpartition("/")[0]:
        if path in cgroups:
            return path
    return ""
