"""The container of a pod, run by a real OCI runtime (crun) as a kubelet would have it run.

What the kubelet and its runtime do is written down here: user, capabilities, no_new_privs and
seccomp of the security contexts, a read-only root, the pod's volumes, masked paths, namespaces.
Cgroups of its own it has none.

Sources: https://github.com/opencontainers/runtime-spec (config.md, config-linux.md); masked paths
and the default mounts by containerd (pkg/cri/opts, oci/mounts.go) and moby (oci/defaults.go); the
default seccomp profile is that of containers/common, which Debian ships.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECCOMP = Path("/usr/share/containers/seccomp.json")
ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
]  # fmt: skip
FIELDS = {"spec.nodeName": "node-of-files"}
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
# crun refuses a host on which v2 is mounted beside v1, even where it makes no cgroup.
_WITHOUT_HYBRID = (
    "unshare", "--mount", "sh", "-c",
    'if [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi; exec "$@"', "sh",
)  # fmt: skip
NO_CAPABILITY: dict[str, list[str]] = {
    kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
}


def specification(
    pod: Mapping[str, Any], rootfs: Path, volumes: Mapping[str, Path], command: Sequence[str]
) -> dict[str, Any]:
    """The runtime's configuration for the only container of a pod.

    Args:
        pod: its specification.
        rootfs: what is in its image.
        volumes: name of a volume → the directory that stands for it.
        command: of the image; the container's arguments follow.
    """
    (container,) = pod["containers"]
    context = {**pod["securityContext"], **container["securityContext"]}
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not context["privileged"]
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        _tmpfs("/dev", "nosuid", "strictatime", "mode=755"),
        _tmpfs("/dev/shm", "nosuid", "noexec", "nodev", "mode=1777"),
        {"destination": "/sys", "type": "bind", "source": "/sys",
         "options": ["rbind", "ro", "nosuid", "noexec", "nodev"]},
    ]  # fmt: skip
    for mount in container["volumeMounts"]:
        options = ["rbind", "ro" if mount.get("readOnly") else "rw", "nosuid", "nodev"]
        where = {"destination": mount["mountPath"], "type": "bind"}
        mounts.append({**where, "source": str(volumes[mount["name"]]), "options": options})
    namespaces = ["mount", "uts", "ipc", "network", *([] if pod["hostPID"] else ["pid"])]
    return {
        "ociVersion": "1.0.2",
        "hostname": "pod",
        "root": {"path": str(rootfs), "readonly": context["readOnlyRootFilesystem"]},
        "process": {
            "terminal": False,
            "cwd": "/",
            "user": {"uid": context["runAsUser"], "gid": context["runAsGroup"]},
            "args": [*command, *container["args"]],
            "env": [
                "PATH=/usr/bin:/bin",
                *(f"{each['name']}={_value(each)}" for each in container["env"]),
            ],
            "capabilities": NO_CAPABILITY,
            "noNewPrivileges": not context["allowPrivilegeEscalation"],
        },
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in namespaces],
            "maskedPaths": [path for path in MASKED if Path(path).exists()],
            "readonlyPaths": [path for path in READ_ONLY if Path(path).exists()],
            "seccomp": seccomp(),
        },
    }


def _value(variable: dict[str, Any]) -> str:
    """What the kubelet puts in: a value, or a field of the pod."""
    if "value" in variable:
        return str(variable["value"])
    return FIELDS[variable["valueFrom"]["fieldRef"]["fieldPath"]]


def _tmpfs(where: str, *options: str) -> dict[str, Any]:
    return {
        "destination": where, "type": "tmpfs", "source": "tmpfs", "options": list(options)
    }  # fmt: skip


def seccomp() -> dict[str, Any]:
    """The default profile of a container without capabilities, as a runtime takes it."""
    profile = json.loads(SECCOMP.read_text())
    arch = ARCHES[platform.machine()]

    def holds(rule: dict[str, Any]) -> bool:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        if wanted.get("caps") or arch in unwanted.get("arches", ()):
            return False
        if "minKernel" in wanted:
            return True
        return not wanted.get("arches") or arch in wanted["arches"]

    rules = []
    for rule in filter(holds, profile["syscalls"]):
        names = rule.get("names") or [rule["name"]]
        kept = {"names": names, "action": rule["action"], "args": rule.get("args") or []}
        if "errnoRet" in rule:
            kept["errnoRet"] = rule["errnoRet"]
        rules.append(kept)
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile.get("defaultErrnoRet", 1),
        "syscalls": rules,
    }


@contextmanager
def running(home: Path, config: Mapping[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """A container that runs within the `with` block; what it says is in `log` in its home."""
    home.mkdir()
    (home / "config.json").write_text(json.dumps(config))
    name = f"wattledger-{os.getpid()}-{home.name}"
    crun = ["crun", f"--root={home}/state", "--cgroup-manager=disabled"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*_WITHOUT_HYBRID, *crun, "run", f"--bundle={home}", name],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process
    finally:
        subprocess.run([*crun, "kill", name, "TERM"], capture_output=True)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            subprocess.run([*crun, "delete", "--force", name], capture_output=True)
            process.wait(10)
