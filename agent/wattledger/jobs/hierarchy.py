"""Where the cgroups are mounted, and what a cgroup's files say: v2, v1 and both at once.

v2: CPU time is `usage_usec` of cpu.stat, which every cgroup but the root has, whether or not the
cpu controller is on (kernel: Documentation/admin-guide/cgroup-v2.rst). v1: `cpuacct.usage` in ns
(Documentation/admin-guide/cgroup-v1/cpuacct.rst). Both count what has ended below them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_READ_BYTES = 16_384
_CPUACCT = ("cpuacct", "cpu,cpuacct", "cpuacct,cpu")


class Layout(NamedTuple):
    """The hierarchies of cgroups, each None where it is not mounted.

    Attributes:
        v2: the unified one; in hybrid mode it has no controllers, but cpu.stat.
        cpuacct: of v1, likewise the others.
    """

    v2: str | None = None
    cpuacct: str | None = None
    memory: str | None = None
    cpuset: str | None = None
    freezer: str | None = None
    systemd: str | None = None

    @property
    def hybrid(self) -> bool:
        """The controllers are v1's."""
        return any((self.cpuacct, self.memory, self.cpuset, self.freezer))

    def walked(self) -> tuple[str, ...]:
        """The hierarchies in which jobs are looked for: a manager need not use all of them."""
        if not self.hybrid:
            return (self.v2,) if self.v2 else ()
        named = (self.cpuacct, self.freezer, self.memory, self.v2 or self.systemd)
        return tuple(dict.fromkeys(base for base in named if base))


def find_layout(sysfs: Path) -> Layout:
    """What is mounted below `<sysfs>/fs/cgroup`; nothing at all where there are no cgroups."""
    root = sysfs / "fs" / "cgroup"
    if (root / "cgroup.controllers").is_file():
        return Layout(v2=os.path.realpath(root))

    def mounted(*names: str) -> str | None:
        found = (root / name for name in names if (root / name).is_dir())
        base = next(found, None)
        return None if base is None else os.path.realpath(base)

    unified = root / "unified"
    return Layout(
        v2=str(unified) if (unified / "cgroup.controllers").is_file() else None,
        cpuacct=mounted(*_CPUACCT),
        memory=mounted("memory"),
        cpuset=mounted("cpuset"),
        freezer=mounted("freezer"),
        systemd=mounted("systemd"),
    )


def cpu_ns(layout: Layout, cgroup: str) -> int | None:
    """CPU time that a cgroup and all below it have used since it was made; None: not told."""
    if layout.cpuacct is not None:
        text = _read(f"{layout.cpuacct}{cgroup}/cpuacct.usage")
        if text is not None and text.strip().isdigit():
            return int(text)
    if layout.v2 is not None:
        usec = _field(_read(f"{layout.v2}{cgroup}/cpu.stat"), "usage_usec")
        return None if usec is None else usec * 1000
    return None


def memory_bytes(layout: Layout, cgroup: str) -> int | None:
    """Anonymous and shared memory of a cgroup and all below it; None: not told.

    Not `memory.current`: the page cache in it belongs to whoever comes next as much.
    """
    if layout.hybrid:
        if layout.memory is None:
            return None
        text = _read(f"{layout.memory}{cgroup}/memory.stat")
        anonymous, shared = _field(text, "total_rss"), _field(text, "total_shmem")
    else:
        text = _read(f"{layout.v2}{cgroup}/memory.stat")
        anonymous, shared = _field(text, "anon"), _field(text, "shmem")
    return None if anonymous is None else anonymous + (shared or 0)


def cpuset(layout: Layout, cgroup: str) -> frozenset[int] | None:
    """The CPUs that a cgroup was given; None: none of its own."""
    if layout.hybrid:
        text = layout.cpuset and _read(f"{layout.cpuset}{cgroup}/cpuset.cpus")
    else:
        text = _read(f"{layout.v2}{cgroup}/cpuset.cpus")
    return _cpu_list(text.strip()) if text and text.strip() else None


def is_populated(layout: Layout, cgroup: str) -> bool:
    """Whether a process lives in a cgroup or below it; where that is not told, it is assumed."""
    if layout.v2 is None:
        return True
    return _field(_read(f"{layout.v2}{cgroup}/cgroup.events"), "populated") != 0


def some_pids(layout: Layout, cgroup: str, most: int = 16) -> list[int]:
    """A few processes of a cgroup or below it; of many cgroups below only some are looked at."""
    found: list[int] = []
    for base in layout.walked():
        pending, looked = [f"{base}{cgroup}"], 0
        while pending and looked < 64 and len(found) < most:
            directory, looked = pending.pop(), looked + 1
            listed = (_read(f"{directory}/cgroup.procs") or "").split()[:most]
            found += [int(pid) for pid in listed if pid.isdigit()]
            try:
                with os.scandir(directory) as entries:
                    pending += [e.path for e in entries if e.is_dir(follow_symlinks=False)][:32]
            except OSError:
                continue
        if found:
            break
    return found[:most]


def owner_uid(layout: Layout, procfs: Path, cgroup: str) -> int | None:
    """The user whose processes are in a cgroup; root's own (slurmstepd) do not count."""
    for pid in some_pids(layout, cgroup):
        try:
            uid = (procfs / str(pid)).stat().st_uid
        except OSError:
            continue
        if uid:
            return uid
    return None


def process_cgroups(procfs: Path, pid: int, locate: Callable[[str], str | None]) -> tuple[str, ...]:
    """The cgroups that a process is in, v1's first; none where it is gone or may not be seen.

    Args:
        procfs: where it is mounted.
        pid: of the process.
        locate: of `Paths`: where in the whole tree a path of v2 is.
    """
    text = _read(f"{procfs}/{pid}/cgroup")
    if text is None:
        return ()
    found: dict[str, None] = {}
    # A cgroup's name may hold anything but a newline, other ends of a line included. What follows
    # the last newline is a line cut short.
    for line in text.split("\n")[:-1]:
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and path.startswith("/"):
            unified = number == "0" and not controllers
            # A path that leads out of the reader's own namespace ("/../..") tells nothing.
            place = locate(path) if unified else path if "/.." not in path else None
            if place is not None:
                found[place] = None
    return tuple(found)


def _read(path: str) -> str | None:
    """A kernel file's text, at most 16 KiB; None where it is gone or may not be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (OSError, ValueError):
        return None
    try:
        return os.read(handle, _READ_BYTES).decode("utf-8", "surrogateescape")
    except OSError:  # ENODEV: the cgroup vanished while it was being read
        return None
    finally:
        os.close(handle)


def _field(text: str | None, name: str) -> int | None:
    """The value of a `name value` line."""
    if text is None:
        return None
    at = 0 if text.startswith(name + " ") else text.find(f"\n{name} ") + 1
    if not at and not text.startswith(name + " "):
        return None
    value = text[at + len(name) : at + len(name) + 32].split(maxsplit=1)
    return int(value[0]) if value and value[0].isdigit() else None


def _cpu_list(text: str) -> frozenset[int] | None:
    """`0-3,8` as CPU numbers; None: it is none."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            return None
        begin, end = int(first), int(last or first)
        if end < begin or end > 1 << 16:
            return None
        cpus.update(range(begin, end + 1))
    return frozenset(cpus)
