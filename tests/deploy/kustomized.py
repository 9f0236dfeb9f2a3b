"""What kustomize makes of a folder, as far as ours use it, without kustomize.

`resources`, `components`, `patches` (files), `configMapGenerator` and `images`. A test holds this
equal to `kubectl kustomize` where there is one. Patches are Kubernetes' strategic merge
(sig-api-machinery, strategic-merge-patch.md): maps by key, `null` takes away, lists of containers,
volumes and mounts by their merge key, with `$patch: delete`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}


def kustomized(folder: Path) -> list[Manifest]:
    """The objects, without the hashes in the names of those that are generated."""
    wanted = yaml.safe_load((folder / "kustomization.yaml").read_text())
    known = {
        "apiVersion", "kind", "namespace", "resources", "components", "patches",
        "configMapGenerator", "images",
    }  # fmt: skip
    assert wanted.keys() <= known, f"{folder}: not understood: {wanted.keys() - known}"
    found: list[Manifest] = []
    for name in (*wanted.get("resources", ()), *wanted.get("components", ())):
        there = (folder / name).resolve()
        found += kustomized(there) if there.is_dir() else _documents(there)
    for map_ in wanted.get("configMapGenerator", ()):
        data = {file: (folder / file).read_text() for file in map_["files"]}
        meta = {"name": map_["name"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
    for patch in wanted.get("patches", ()):
        for change in _documents(folder / patch["path"]):
            (at,) = [n for n, one in enumerate(found) if _named(one) == _named(change)]
            found[at] = _merged(found[at], change)
    for one in found:
        if one["kind"] not in ("Namespace", "PriorityClass") and "namespace" in wanted:
            one["metadata"]["namespace"] = wanted["namespace"]
        for image in wanted.get("images", ()):
            for container in _containers(one):
                if re.sub(r":[^/:]+$", "", container["image"]) == image["name"]:  # less its tag
                    container["image"] = f"{image['newName']}:{image['newTag']}"
    return found


def _documents(file: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def _named(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _containers(manifest: Manifest) -> list[Manifest]:
    if manifest["kind"] != "DaemonSet":
        return []
    return list(manifest["spec"]["template"]["spec"]["containers"])


def _merged(old: Manifest, change: Manifest) -> Manifest:
    new = dict(old)
    for key, value in change.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, dict) and isinstance(old.get(key), dict):
            new[key] = _merged(old[key], value)
        elif key in MERGE_KEYS and isinstance(old.get(key), list):
            new[key] = _merged_list(old[key], value, MERGE_KEYS[key])
        else:
            new[key] = value
    return new


def _merged_list(old: list[Manifest], changes: list[Manifest], by: str) -> list[Manifest]:
    new = {item[by]: item for item in old}
    for change in changes:
        if change.get("$patch") == "delete":
            assert change[by] in new, f"there is no {change[by]} to delete"
            del new[change[by]]
        else:
            new[change[by]] = _merged(new.get(change[by], {}), change)
    return list(new.values())
