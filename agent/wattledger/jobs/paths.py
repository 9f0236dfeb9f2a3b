"""What a cgroup's path says: whose job it is. Anchored at the root, since users name cgroups too.

Manager precedence first (Slurm > pod > container > unit > login). A pattern matches only where
root's own managers make cgroups; below `user@UID.service`, or inside of a container, users make
them, and whatever they are called there they stay that user's, or that container's. What a user
can make there is a rootless container, a job of theirs alone: its id ends in `@UID`, so that no
mkdir makes or joins a series of somebody else's, and of a flood only some count (`tree.py`).

Shapes: SchedMD's cgroup pages (https://slurm.schedmd.com/cgroup_v2.html, cgroups.html) with the
SLUID names of 26.05 (src/common/sluid.c: "s" and 13 characters of Crockford's base32); Kubernetes'
cgroup drivers (pkg/kubelet/cm); Docker and Podman under both of systemd's and cgroupfs' drivers,
rootful and rootless (https://docs.podman.io/en/latest/markdown/podman-run.1.html, `--cgroups`:
`split` makes `libpod-payload-ID` inside of the service's own cgroup;
https://docs.docker.com/engine/security/rootless/); systemd's own tree
(https://systemd.io/CGROUP_DELEGATION).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from wattledger.jobs.namespaces import from_top
from wattledger.model.jobs import DOCKER, MANAGERS, POD, PODMAN, SLURM, UNIT, USER

CONTAINERS = (DOCKER, PODMAN)
SHORT_ID = 12  # what `docker ps` and `podman ps` show
MAX_DEPTH = 16

_SLURM = re.compile(
    r"(?:"
    r"/system\.slice/(?:[\w.-]+_)?slurmstepd\.scope"  # v2
    r"|/slurm(?:_[\w.-]+)?/uid_(?P<uid>\d{1,10})"  # v1
    r")/(?:job_(?P<job>\d{1,10})|(?P<sluid>s[0-9A-HJKMNP-TV-Z]{13}))(?=/|\Z)",
    re.ASCII,
)
_UID = r"[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD = re.compile(
    r"(?:"
    r"(?:/kubelet)?/kubepods(?:/burstable|/besteffort)?/pod"  # cgroupfs driver
    r"|(?:/kubelet\.slice)?(?:/[a-z-]*kubepods\.slice)(?:/[a-z-]*kubepods-(?:burstable|besteffort)"
    r"\.slice)?/[a-z-]*kubepods(?:-burstable|-besteffort)?-pod"  # systemd driver
    rf")(?P<pod>{_UID})(?:\.slice)?(?=/|\Z)",
    re.ASCII,
)
_HEX = r"[0-9a-f]{64}"
_CONTAINER = re.compile(
    r"(?:"
    rf"/docker/(?P<docker>{_HEX})"  # cgroupfs
    rf"|/(?:system|machine)\.slice/docker-(?P<docker_scope>{_HEX})\.scope"
    rf"|/libpod_parent/(?:{_HEX}/)?libpod-(?P<libpod>{_HEX})"  # in a pod, or alone
    rf"|/machine\.slice/(?:[\w.-]+\.slice/)*libpod-(?P<libpod_scope>{_HEX})\.scope"
    r")(?=/|\Z)",
    re.ASCII,
)
_OWN = r"/user\.slice/user-(?P<uid>\d{1,10})\.slice/user@(?P=uid)\.service"
_OWN_SLICES = r"(?:/[^/]+\.slice){0,4}"
_OWN_SERVICE = r"(?:/(?:[^/]+\.service|podman-[^/]+\.scope))?"  # what a container may lie inside
_ROOTLESS = re.compile(
    rf"{_OWN}{_OWN_SLICES}(?:"
    rf"/libpod-(?P<scope>{_HEX})\.scope"
    rf"|/docker-(?P<docker_scope>{_HEX})\.scope"
    rf"|{_OWN_SERVICE}(?:/libpod_parent(?:/{_HEX})?)?/libpod-(?:payload-)?(?P<libpod>{_HEX})"
    rf"|{_OWN_SERVICE}/docker/(?P<docker>{_HEX})"
    r")(?=/|\Z)",
    re.ASCII,
)
_ROOTLESS_INSIDE = re.compile(
    r"/user\.slice/user-\d{1,10}\.slice"
    rf"|{_OWN}{_OWN_SLICES}{_OWN_SERVICE}(?:/docker|/libpod_parent(?:/{_HEX})?)?",
    re.ASCII,
)
_DELEGATED = re.compile(_OWN, re.ASCII)
_UNIT = re.compile(r"((?:/[^/]+\.slice)*)/([^/]+\.(?:service|scope))(?=/|\Z)", re.ASCII)
# What makes jobs' cgroups is no job itself.
_MANAGER = re.compile(r"init\.scope|(?:[\w.-]+_)?slurmstepd\.scope", re.ASCII)
_USER = re.compile(r"/user\.slice/user-(\d{1,10})\.slice(?=/|\Z)", re.ASCII)

# Directories below which root's managers make the cgroups of jobs; each one level.
_SLURM_INSIDE = re.compile(
    r"/system\.slice(?:/(?:[\w.-]+_)?slurmstepd\.scope)?|/slurm(?:_[\w.-]+)?(?:/uid_\d{1,10})?",
    re.ASCII,
)
_INSIDE = re.compile(
    rf"{_SLURM_INSIDE.pattern}"
    r"|/kubelet(?:/kubepods(?:/(?:burstable|besteffort))?)?"
    r"|/kubepods(?:/(?:burstable|besteffort))?"
    r"|/kubelet\.slice"
    r"|(?:/kubelet\.slice)?/[a-z-]*kubepods\.slice"
    r"(?:/[a-z-]*kubepods-(?:burstable|besteffort)\.slice)?"
    rf"|/docker|/libpod_parent(?:/{_HEX})?"
    r"|/machine\.slice(?:/[\w.-]+\.slice)*"
    r"|/user\.slice",
    re.ASCII,
)
_SLICES = re.compile(r"(?:/[^/]+\.slice)+")  # in which units are


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

    @property
    def rootless(self) -> bool:
        """A user made it, and may make as many as they like."""
        return "@" in self.job_id and self.manager in CONTAINERS


class Paths:
    """Reads paths as the settings say."""

    def __init__(
        self,
        managers: Sequence[str] = MANAGERS,
        units: Sequence[str] = (),
        slurm_roots: Sequence[str] = (),
        own_root: str = "",
    ) -> None:
        """Patterns for one node.

        Args:
            managers: those whose jobs count.
            units: shell patterns of the names of systemd units that are jobs.
            slurm_roots: cgroups below which a slurmd of its own makes its tree, as in a pod;
                `*` stands for one part of the path.
            own_root: of `namespaces.own_root`.
        """
        self._own_root = own_root
        self._managers = frozenset(managers)
        self._rootless = not self._managers.isdisjoint(CONTAINERS)
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
            for read in (self._slurm, _pod, _container, _rootless, _user)
            if (place := read(path)) is not None and place.manager in self._managers
        ]
        unit = _unit(path) if UNIT in self._managers else None
        if unit is not None and (any_unit or self._is_named(unit.job_id)):
            found.append(unit)
        return sorted(found, key=lambda place: place.rank)

    def locate(self, path: str) -> str | None:
        """Where in the whole tree a path of /proc/PID/cgroup is; None: that cannot be told."""
        return from_top(path, self._own_root)

    def at(self, path: str) -> Place | None:
        """The job whose cgroup is exactly this one."""
        return next((place for place in self.places(path) if place.cgroup == path), None)

    def leads_to_jobs(self, path: str) -> bool:
        """Whether jobs' cgroups may lie directly or further below this one."""
        if path == "" or _INSIDE.fullmatch(path):
            return path.count("/") < MAX_DEPTH
        if self._rootless and _ROOTLESS_INSIDE.fullmatch(path):
            return True
        if self._units and UNIT in self._managers and _SLICES.fullmatch(path):
            return path.count("/") < MAX_DEPTH
        return bool(self._root_parts) and self._leads_to_a_root(path)

    @staticmethod
    def is_delegated(path: str) -> bool:
        """Whether below this cgroup it is a user who makes the cgroups."""
        return _DELEGATED.fullmatch(path) is not None

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
                if len(parts) <= len(root) or _SLURM_INSIDE.fullmatch(rest):
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


def _rootless(path: str) -> Place | None:
    match = _ROOTLESS.match(path)
    if match is None:
        return None
    docker = match["docker"] or match["docker_scope"]
    cid = docker or match["libpod"] or match["scope"]
    uid = int(match["uid"])
    manager = DOCKER if docker else PODMAN
    job_id = f"{cid[:SHORT_ID]}@{uid}"
    return Place(path[: match.end()], manager, job_id, uid, (("container", cid),))


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
