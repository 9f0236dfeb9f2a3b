"""Where the daemon stands in the tree of cgroups, when a container runtime gave it one of its own.

In a cgroup namespace /proc/PID/cgroup is written from the reader's own cgroup on: `/../../pod7/x`
is another pod's (cgroup_namespaces(7)). Container runtimes make one with cgroup v2 unless the
container is privileged, which a meter need not be. Its own place is known by the inode: where the
namespace's tree is mounted, its root is a directory of the whole tree.
"""

from __future__ import annotations

import os
from pathlib import Path

from wattledger.jobs.hierarchy import find_layout

MOUNTED = Path("/sys/fs/cgroup")  # where a runtime mounts the container's own
_MOST = 50_000


def own_root(sysfs: Path, mounted: Path = MOUNTED) -> str:
    """The cgroup that paths in /proc start from; empty where it is the root of the tree.

    Args:
        sysfs: through which the whole tree is seen, such as /host/sys.
        mounted: through which the namespace's own is.

    Returns:
        A path from the root of the whole tree; empty, too, where it cannot be told.
    """
    layout = find_layout(sysfs)
    if layout.v2 is None or layout.hybrid:
        return ""  # with v1 runtimes make no cgroup namespace
    try:
        own, whole = mounted.stat(), Path(layout.v2).stat()
    except OSError:
        return ""
    if own.st_dev != whole.st_dev or own.st_ino == whole.st_ino:
        return ""
    pending, looked = [""], 0
    while pending and looked < _MOST:
        path, looked = pending.pop(), looked + 1
        try:
            with os.scandir(layout.v2 + path) as entries:
                below = [e for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        for entry in below:
            if entry.inode() == own.st_ino:
                return f"{path}/{entry.name}"
            pending.append(f"{path}/{entry.name}")
    return ""


def from_top(path: str, root: str) -> str | None:
    """A path of /proc/PID/cgroup from the root of the whole tree on.

    Args:
        path: as the kernel wrote it: beginning with a slash.
        root: of `own_root`.

    Returns:
        None: it leads out of a namespace of which nothing is known.
    """
    above = root.split("/")[1:]
    names = path.split("/")[1:]
    while names and names[0] == "..":
        if not above:
            return None
        above.pop()
        names.pop(0)
    below = [name for name in names if name]
    # The kernel writes ".." at the beginning only, and no cgroup is called so.
    return None if ".." in below else "/" + "/".join([*above, *below])
