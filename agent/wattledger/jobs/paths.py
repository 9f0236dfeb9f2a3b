"""What a cgroup's path says: whose job it is. Anchored at the root, since users name cgroups too.

Manager precedence first (Slurm > pod > container > unit > login). A pattern matches only where
root's own managers make cgroups; below `user@UID.service`, or inside of a container, users make
them, and whatever they are called there they stay that user's, or that container's. So a rootless
container is paid for by its user: were each a job, a loop of mkdir could make millions of them.

Shapes: SchedMD's cgroup pages (https://slurm.schedmd.com/cgroup_v2.html, cgroups.html) with the
SLUID names of 26.05 (src/common/sluid.c: "s" and 13 characters of Crockford's base32); Kubernetes'
cgroup drivers (pkg/kubelet/cm); Docker and Podman under both of systemd's and cgroupfs' drivers;
systemd's own tree (https://systemd.io/CGROUP_DELEGATION).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from wattledger.model.jobs import DOCKER, MANAGERS, POD, PODMAN, SLURM, UNIT, USER

SHORT_ID = 12  # what `docker ps` and `podman ps` show
MAX_DEPTH = 16

_SLURM = re.compile(
    r"(?:"
    r"/system\.slice/(?:[\w.-]+_)?slurmstepd\.scope"  # v2
    r"|/slurm(?:_[\w.-]+)?/uid_(?P<uid>\d{1,10})"  # v1
    r")/(?:job_(?P<job>\d{1,10})|(?P<sluid>s[0-9A-HJKMNP-TV-Z]{13}))(?=/|$)",
    re.ASCII,
)
_UID = r"[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD = re.compile(
    r"(?:"
    r"(?:/kubelet)?/kubepods(?:/burstable|/besteffort)?/pod"  # cgroupfs driver
    r"|(?:/kubelet\.slice)?(?:/[a-z-]*kubepods\.slice)(?:/[a-z-]*kubepods-(?:burstable|besteffort)"
    r"\.slice)?/[a-z-]*kubepods(?:-burstable|-besteffort)?-pod"  # systemd driver
    rf")(?P<pod>{_UID})(?:\.slice)?(?=/|$)",
    re.ASCII,
)
_HEX = r"[0-9a-f]{64}"
_CONTAINER = re.compile(
    r"(?:"
    rf"/docker/(?P<docker>{_HEX})"  # cgroupfs
    rf"|/(?:system|machine)\.slice/docker-(?P<docker_scope>{_HEX})\.scope"
    rf"|/libpod_parent/libpod-(?P<libpod>{_HEX})"
    rf"|/machine\.slice/(?:[\w.-]+\.slice/)*libpod-(?P<libpod_scope>{_HEX})\.scope"
    r")(?=/|$)",
    re.ASCII,
)
_UNIT = re.compile(r"((?:/[^/]+\.slice)*)/([^/]+\.(?:service|scope))(?=/|$)", re.ASCII)
# What makes jobs' cgroups is no job itself.
_MANAGER = re.compile(r"init\.scope|(?:[\w.-]+_)?slurmstepd\.scope", re.ASCII)
_USER = re.compile(r"/user\.slice/user-(\d{1,10})\.slice(?=/|$)", re.ASCII)

# Directories below which root's managers make the cgroups of jobs; each one level.
_INSIDE = re.compile(
    r"/system\.slice/(?:[\w.-]+_)?slurmstepd\.scope"
    r"|/slurm(?:_[\w.-]+)?(?:/uid_\d{1,10})?"
    r"|/kubelet(?:/kubepods(?:/(?:burstable|besteffort))?)?"
    r"|/kubepods(?:/(?:burstable|besteffort))?"
    r"|/docker|/libpod_parent"
    r"|(?:/[^/]+\.slice)+",
    re.ASCII,
)


class Place(NamedTuple):
    """A job's cgroup.

    Attributes:
        cgroup: its path; everything below belongs to it, but for jobs of a higher precedence.
        manager: one of `MANAGERS`.
        job_id: with the manager, what the job is called.
        uid: whose it is, where the path tells.
        labels: what else the path tells: (name, value).
    """

    cgroup: str
    manager: str
    job_id: str
    uid: int | None = None
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def rank(self) -> int:
        """Its manager's precedence; 0 is the highest."""
        return MANAGERS.index(self.manager)


class Paths:
    """Reads paths as the settings say."""

    def __init__(
        self,
        managers: Sequence[str] = MANAGERS,
        units: Sequence[str] = (),
        slurm_roots: Sequence[str] = (),
    ) -> None:
        """Patterns for one node.

        Args:
            managers: those whose jobs count.
            units: shell patterns of the names of systemd units that are jobs.
            slurm_roots: cgroups below which a slurmd of its own makes its tree, as in a pod;
                `*` stands for one part of the path.
        """
        self._managers = frozenset(managers)
        self._units = tuple(units)
        self._roots = tuple(_root_pattern(root) for root in slurm_roots if SLURM in managers)
        self._root_parts = tuple(root.strip("/").split("/") for root in slurm_roots)

    def places(self, path: str, *, any_unit: bool = False) -> list[Place]:
        """The jobs' cgroups at or above a path, the one of highest precedence first.

        Args:
            path: of a cgroup, from the root of the tree.
            any_unit: a systemd unit counts whatever its name: one of its processes is on a GPU.
        """
        found = [
            place
            for read in (self._slurm, _pod, _container, _user)
            if (place := read(path)) is not None and place.manager in self._managers
        ]
        unit = _unit(path) if UNIT in self._managers else None
        if unit is not None and (any_unit or self._is_named(unit.job_id)):
            found.append(unit)
        return sorted(found, key=lambda place: place.rank)

    def at(self, path: str) -> Place | None:
        """The job whose cgroup is exactly this one."""
        return next((place for place in self.places(path) if place.cgroup == path), None)

    def leads_to_jobs(self, path: str) -> bool:
        """Whether jobs' cgroups may lie directly or further below this one."""
        if path == "" or _INSIDE.fullmatch(path):
            return path.count("/") < MAX_DEPTH
        return bool(self._root_parts) and self._leads_to_a_root(path)

    def _is_named(self, unit: str) -> bool:
        return any(fnmatchcase(unit, pattern) for pattern in self._units)

    def _slurm(self, path: str) -> Place | None:
        starts = (0, *(head.end() for root in self._roots if (head := root.match(path))))
        match = next((m for at in starts if (m := _SLURM.match(path, at))), None)
        if match is None:
            return None
        uid = match["uid"]
        job = match["job"] or match["sluid"]
        return Place(path[: match.end()], SLURM, job, int(uid) if uid else None)

    def _leads_to_a_root(self, path: str) -> bool:
        parts = path.strip("/").split("/")
        for root in self._root_parts:
            shared = min(len(root), len(parts))
            if all(r in ("*", p) for r, p in zip(root[:shared], parts[:shared], strict=True)):
                rest = "/" + "/".join(parts[shared:])
                if len(parts) <= len(root) or rest == "/system.slice" or _INSIDE.fullmatch(rest):
                    return True
        return False


def _root_pattern(root: str) -> re.Pattern[str]:
    parts = root.strip("/").split("/")
    return re.compile("".join("/[^/]+" if p == "*" else "/" + re.escape(p) for p in parts))


def _pod(path: str) -> Place | None:
    match = _POD.match(path)
    if match is None:
        return None
    uid = match["pod"].replace("_", "-")  # the systemd driver writes "_": "-" nests slices there
    return Place(path[: match.end()], POD, uid)


def _container(path: str) -> Place | None:
    match = _CONTAINER.match(path)
    if match is None:
        return None
    cgroup = path[: match.end()]
    docker = match["docker"] or match["docker_scope"]
    cid = docker or match["libpod"] or match["libpod_scope"]
    return Place(cgroup, DOCKER if docker else PODMAN, cid[:SHORT_ID], None, (("container", cid),))


def _unit(path: str) -> Place | None:
    match = _UNIT.match(path)
    if match is None or path.startswith("/user.slice/") or _MANAGER.fullmatch(match[2]):
        return None
    # A name is bytes to the kernel; in the books and on the page it is text.
    unit = match[2].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Place(path[: match.end()], UNIT, unit, None, (("unit", unit),))


def _user(path: str) -> Place | None:
    match = _USER.match(path)
    return match and Place(path[: match.end()], USER, str(int(match[1])), int(match[1]))
