"""From a pod's name to its UID, which is what its cgroups are called by."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path

from wattledger.jobs.claims.records import Alive
from wattledger.model import Fault

DIRECTORY = Path("/var/log/pods")

_MAX_PODS = 20_000
# A static pod's UID is a hash without dashes.
_POD = re.compile(
    r"([a-z0-9][a-z0-9.-]*)_([a-z0-9][a-z0-9.-]*)_"
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})",
    re.ASCII,
)


class PodUids:
    """Reads UIDs off the kubelet's log directories, `NAMESPACE_NAME_UID`.

    The kubelet makes one for each pod before its first container starts, on every container
    runtime, and asking the API server would need its address, a token and the right to list pods.

    Source: `BuildPodLogsDirectory` in pkg/kubelet/kuberuntime/helpers.go of
    kubernetes/kubernetes; names hold no underscore.

    Args:
        directory: the kubelet's podLogsDir.
        trusted_uids: who may own it.
    """

    def __init__(
        self, directory: Path = DIRECTORY, *, trusted_uids: Collection[int] = (0,)
    ) -> None:
        self._directory = directory
        self._trusted = frozenset(trusted_uids)
        self._seen: tuple[int, int] | None = None
        self._settled = False
        self._known: dict[tuple[str, str], list[tuple[int, str]]] = {}

    def find(
        self, pods: Collection[tuple[str, str]], alive: Alive | None = None
    ) -> tuple[dict[tuple[str, str], str], tuple[Fault, ...]]:
        """The UIDs of these pods (namespace and name), where known, and what went wrong.

        A pod that was made again under its name has two directories for a while: the one whose
        pod has a cgroup counts, else the newer.
        """
        try:
            self._look()
        except OSError as error:
            self._known, self._seen = {}, None
            why = error.strerror or "error"
            message = f"pods' UIDs cannot be read from {self._directory}: {why}"
            faults = (Fault("kubelet", "no_pod_uids", message),) if pods else ()
            return {}, faults
        found = {}
        for pod in pods:
            uids = self._known.get(pod)
            if uids:
                found[pod] = max(
                    uids, key=lambda one: (alive is not None and bool(alive("pod", one[1])), *one)
                )[1]
        return found, ()

    def all(self) -> dict[str, tuple[str, str]]:
        """UID → namespace and name, of every pod with a directory at the last `find`."""
        return {uid: pod for pod, uids in self._known.items() for _, uid in uids}

    def _look(self) -> None:
        status = self._directory.stat()
        if status.st_uid not in self._trusted or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(0, "others than root own it or can write to it")
        seen = (status.st_ino, status.st_mtime_ns)
        same, self._seen = seen == self._seen, seen
        if same and self._settled:
            return
        self._settled = same  # a change within the kernel's tick shows at the second look
        self._known = {}
        with os.scandir(self._directory) as entries:
            for count, entry in enumerate(entries):
                if count >= _MAX_PODS:
                    break
                if (name := _POD.fullmatch(entry.name)) is None:
                    continue
                try:
                    made_ns = entry.stat(follow_symlinks=False).st_mtime_ns
                except OSError:
                    continue  # gone since the listing
                self._known.setdefault((name[1], name[2]), []).append((made_ns, name[3]))
