"""Kubernetes' Pod Security Standards, as far as they can be broken by a pod of ours.

https://kubernetes.io/docs/concepts/security/pod-security-standards/: what "baseline" forbids, and
what "restricted" demands besides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_HARMLESS_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip


def baseline(pod: dict[str, Any]) -> set[str]:
    """What of a pod's specification is beyond "baseline"."""
    found = {name for name in ("hostPID", "hostIPC", "hostNetwork") if pod.get(name)}
    found |= {f"hostPath {v['hostPath']['path']}" for v in pod["volumes"] if "hostPath" in v}
    for container in containers(pod):
        context = container.get("securityContext", {})
        if context.get("privileged"):
            found.add("privileged")
        found |= {f"capability {c}" for c in context.get("capabilities", {}).get("add", ())}
        found |= {"hostPort" for port in container.get("ports", ()) if port.get("hostPort")}
        if context.get("procMount", "Default") != "Default":
            found.add("procMount")
    for context in contexts(pod):
        if context.get("seccompProfile", {}).get("type") == "Unconfined":
            found.add("seccomp unconfined")
        if context.get("appArmorProfile", {}).get("type") == "Unconfined":
            found.add("AppArmor unconfined")
        if "seLinuxOptions" in context:
            found.add("SELinux options")
        if context.get("sysctls"):
            found.add("sysctls")
    return found


def restricted(pod: dict[str, Any]) -> set[str]:
    """What of a pod's specification is beyond "restricted"."""
    found = baseline(pod)
    for volume in pod["volumes"]:
        kinds = volume.keys() - {"name"}
        found |= {f"volume {kind}" for kind in kinds - _HARMLESS_VOLUMES - {"hostPath"}}
    whole = pod.get("securityContext", {})
    for container in containers(pod):
        context = {**whole, **container.get("securityContext", {})}
        if context.get("allowPrivilegeEscalation") is not False:
            found.add("privilege escalation")
        if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
            found.add("root")
        if context.get("capabilities", {}).get("drop") != ["ALL"]:
            found.add("capabilities")
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.add("no seccomp profile")
    return found


def containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All of a pod's containers."""
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def contexts(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All of its security contexts."""
    yield pod.get("securityContext", {})
    for container in containers(pod):
        yield container.get("securityContext", {})
