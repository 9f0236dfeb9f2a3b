"""deploy/kubernetes: what an API server takes, and a pod that may do no more than it must."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.crds import SCHEMAS
from deploy.kustomized import Manifest, kustomized
from deploy.pod_security import baseline, containers, restricted
from wattledger import node_name
from wattledger.config import load_config

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
BASE = FOLDER / "base"
OVERLAYS = sorted((FOLDER / "overlays").iterdir())
BUILDS = [BASE, *OVERLAYS]
COMPONENT = FOLDER / "components" / "prometheus-operator"
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()

HOST_PATHS = {
    "hostPath /sys/class",
    "hostPath /sys/devices",
    "hostPath /sys/fs/cgroup",
    "hostPath /var/log/pods",
    "hostPath /var/lib/wattledger",
}
KUBELET = "hostPath /var/lib/kubelet/pod-resources"


def pod_of(folder: Path) -> dict[str, Any]:
    (daemon_set,) = [one for one in kustomized(folder) if one["kind"] == "DaemonSet"]
    spec: dict[str, Any] = daemon_set["spec"]["template"]["spec"]
    return spec


def container_of(folder: Path) -> dict[str, Any]:
    (container,) = containers(pod_of(folder))
    return container


# ── what an API server says ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("folder", BUILDS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_objects_are_what_kubernetes_takes(folder: Path, version: str) -> None:
    objects = kustomized(folder)
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)
    assert sorted(one["kind"] for one in objects) == [
        "ConfigMap", "DaemonSet", "Namespace", "NetworkPolicy", "PriorityClass", "Service",
        "ServiceAccount",
    ]  # fmt: skip


def test_a_mistake_in_an_object_is_found() -> None:
    (daemon_set,) = [one for one in kustomized(BASE) if one["kind"] == "DaemonSet"]
    daemon_set["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="hostPid"):
        kubernetes_validate.validate(daemon_set, NEWEST, strict=True)


def test_what_the_prometheus_operator_is_given_is_what_it_takes() -> None:
    objects = kustomized(COMPONENT)
    assert {one["kind"] for one in objects} == SCHEMAS.keys()
    for one in objects:
        jsonschema.validate(one, SCHEMAS[one["kind"]])


@pytest.mark.parametrize(
    "wrong", [{"honourLabels": True}, {"interval": "30 s"}, {"relabelings": [{"action": "rm"}]}]
)
def test_a_mistake_in_a_service_monitor_is_found(wrong: dict[str, Any]) -> None:
    (monitor,) = [one for one in kustomized(COMPONENT) if one["kind"] == "ServiceMonitor"]
    monitor["spec"]["endpoints"][0] |= wrong
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, SCHEMAS["ServiceMonitor"])


@pytest.mark.parametrize("folder", BUILDS, ids=lambda folder: folder.name)
def test_kustomize_makes_of_them_what_these_tests_look_at(folder: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl; the objects are merged by tests/deploy/kustomized.py alone")
    told = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60
    )
    if "unknown field" in told.stderr:  # before 1.21
        pytest.skip("this kubectl is too old")
    assert told.returncode == 0, told.stderr
    text = re.sub(r"(name: wattledger)-[0-9a-z]{10}$", r"\1", told.stdout, flags=re.MULTILINE)
    theirs = [one for one in yaml.safe_load_all(text) if one]

    def ordered(objects: list[Manifest]) -> list[Manifest]:
        for one in objects:
            if one["kind"] == "DaemonSet":
                one["spec"]["template"]["spec"]["volumes"].sort(key=lambda each: each["name"])
                for each in containers(one["spec"]["template"]["spec"]):
                    each["volumeMounts"].sort(key=lambda mount: mount["mountPath"])
        return sorted(objects, key=lambda one: str(one["kind"]))

    assert ordered(kustomized(folder)) == ordered(theirs)


# ── least privilege ─────────────────────────────────────────────────────────────────────────────


def test_the_pod_goes_beyond_baseline_in_what_it_must_and_in_nothing_else() -> None:
    assert baseline(pod_of(BASE)) == {"hostPID", KUBELET, *HOST_PATHS}
    assert restricted(pod_of(BASE)) == {"hostPID", KUBELET, *HOST_PATHS, "root"}
    assert restricted(pod_of(FOLDER / "overlays" / "non-root")) == {"hostPID", *HOST_PATHS}


@pytest.mark.parametrize("folder", BUILDS, ids=lambda folder: folder.name)
def test_nothing_of_the_node_is_written_to_but_the_ledger(folder: Path) -> None:
    pod, container = pod_of(folder), container_of(folder)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = container["volumeMounts"]
    assert {mount["name"] for mount in mounts} == volumes.keys()
    written = {mount["name"]: mount["mountPath"] for mount in mounts if not mount.get("readOnly")}
    assert written == {"state": "/var/lib/wattledger", "run": "/run/wattledger"}
    assert "emptyDir" in volumes["run"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    # Nothing is mounted over, or into, what it may write to; and no socket of a runtime is there.
    paths = [volume["hostPath"]["path"] for volume in volumes.values() if "hostPath" in volume]
    assert not [path for path in paths if path in ("/", "/proc", "/dev", "/run", "/etc", "/var")]
    assert not [path for path in paths if path.endswith(".sock")]


@pytest.mark.parametrize("folder", BUILDS, ids=lambda folder: folder.name)
def test_no_secret_and_no_token_of_the_cluster_is_in_it(folder: Path) -> None:
    objects = kustomized(folder)
    (account,) = [one for one in objects if one["kind"] == "ServiceAccount"]
    assert account["automountServiceAccountToken"] is False
    assert pod_of(folder)["automountServiceAccountToken"] is False
    assert not {"Secret", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"} & {
        one["kind"] for one in objects
    }


def test_it_takes_no_gpu_from_anybody() -> None:
    container = container_of(BASE)
    resources = container["resources"]
    assert not any("nvidia" in name for part in resources.values() for name in part)
    assert {one["name"]: one["value"] for one in container["env"] if "value" in one} == {
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "utility",
    }


@pytest.mark.parametrize("folder", BUILDS, ids=lambda folder: folder.name)
def test_what_leaves_names_the_node_and_not_the_pod(folder: Path) -> None:
    asked = {one["name"]: one.get("valueFrom") for one in container_of(folder)["env"]}
    assert asked[node_name.VARIABLE] == {"fieldRef": {"fieldPath": "spec.nodeName"}}


# ── that the parts fit each other ───────────────────────────────────────────────────────────────


def test_the_settings_are_taken_and_name_what_is_mounted(tmp_path: Path) -> None:
    (config_map,) = [one for one in kustomized(BASE) if one["kind"] == "ConfigMap"]
    (tmp_path / "wattledger.toml").write_text(config_map["data"]["wattledger.toml"])
    config = load_config(tmp_path / "wattledger.toml")
    container = container_of(BASE)
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {f"{config.path.sysfs}/{part}" for part in ("class", "devices", "fs/cgroup")} <= mounts
    assert str(config.path.procfs) == "/proc"
    assert pod_of(BASE)["hostPID"]
    assert str(Path(config.ledger.path).parent) in mounts
    assert str(Path(str(config.http.socket)).parent) in mounts
    assert str(Path(config.jobs.kubelet.socket).parent) in mounts
    assert str(config.jobs.kubelet.pod_logs) in mounts
    assert container["args"][-1] == "/etc/wattledger/wattledger.toml"


def test_probes_service_monitor_and_policy_mean_the_same_port() -> None:
    container = container_of(BASE)
    (port,) = container["ports"]
    by_kind = {one["kind"]: one for one in (*kustomized(BASE), *kustomized(COMPONENT))}
    (config_port,) = re.findall(
        r'listen = ":(\d+)"', by_kind["ConfigMap"]["data"]["wattledger.toml"]
    )
    assert (port["name"], port["containerPort"]) == ("http", int(config_port))
    (service_port,) = by_kind["Service"]["spec"]["ports"]
    assert (service_port["name"], service_port["targetPort"]) == ("http", "http")
    assert by_kind["Service"]["spec"]["clusterIP"] == "None"
    (endpoint,) = by_kind["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] == "http"
    (rule,) = by_kind["NetworkPolicy"]["spec"]["ingress"]
    assert [one["port"] for one in rule["ports"]] == ["http"]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert [probe["port"] for probe in probes] == ["http"] * 3
    assert [probe["path"] for probe in probes] == ["/readyz", "/livez", "/readyz"]
    labels = by_kind["DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        by_kind["DaemonSet"]["spec"]["selector"]["matchLabels"],
        by_kind["Service"]["spec"]["selector"],
        by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    monitored = by_kind["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= by_kind["Service"]["metadata"]["labels"].items()


def chosen(pod: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a node is: by its selector and its affinity, whose terms are alternatives."""

    def holds(wanted: dict[str, Any]) -> bool:
        value = labels.get(wanted["key"])
        if wanted["operator"] == "DoesNotExist":
            return value is None
        assert wanted["operator"] == "In"
        return value in wanted["values"]

    selected: bool = pod.get("nodeSelector", {}).items() <= labels.items()
    if "affinity" not in pod:
        return selected
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    terms = required["nodeSelectorTerms"]
    return selected and any(all(map(holds, term["matchExpressions"])) for term in terms)


CLIENT, DCGM = "nvidia.com/gpu.deploy.client", "nvidia.com/gpu.deploy.dcgm-exporter"
OLDER = FOLDER / "overlays" / "gpu-operator-before-26.7"


@pytest.mark.parametrize(
    ("labels", "runs", "runs_before"),
    [
        ({}, False, False),  # no GPUs
        ({DCGM: "true"}, False, True),
        ({DCGM: "paused-for-driver-upgrade"}, False, False),
        ({DCGM: "paused-for-mig-change"}, False, False),
        # The operator is renewed, the overlay is still the old one: nothing is lost.
        ({CLIENT: "true", DCGM: "true"}, True, True),
        ({CLIENT: "true", DCGM: "false"}, True, True),  # the site runs no dcgm-exporter
        ({CLIENT: "paused-for-driver-upgrade", DCGM: "true"}, False, False),
        ({CLIENT: "paused-for-mig-change", DCGM: "true"}, False, False),
    ],
)
def test_it_leaves_a_node_as_the_gpu_operator_asks(
    labels: dict[str, str], runs: bool, runs_before: bool
) -> None:
    assert chosen(pod_of(BASE), labels) is runs
    assert chosen(pod_of(FOLDER / "overlays" / "non-root"), labels) is runs
    assert chosen(pod_of(OLDER), labels) is runs_before
    assert chosen(pod_of(FOLDER / "overlays" / "without-gpu-operator"), labels)


def test_the_operator_waits_for_the_pod_to_be_gone() -> None:
    """It does so for those of DaemonSets whose *nodeSelector* has its key.

    k8s-driver-manager, internal/kubernetes/client.go, and mig-parted,
    pkg/mig/reconfigure/reconfigure.go: an affinity is not looked at.
    """
    assert pod_of(BASE)["nodeSelector"] == {CLIENT: "true"}
    assert "affinity" not in pod_of(BASE)


def test_the_prometheus_rule_is_made_of_the_rules() -> None:
    spec = importlib.util.spec_from_file_location("rule", FOLDER / "prometheus_rule.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (COMPONENT / "prometheusrule.yaml").read_text()
    assert text == module.document(), f"run {FOLDER.name}/prometheus_rule.py again"
    groups = yaml.safe_load(text)["spec"]["groups"]
    names = [group["name"] for group in groups]
    assert names and len(set(names)) == len(names)
    for file in (FOLDER.parent / "prometheus" / "rules").glob("*.yml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            assert groups[names.index(group["name"])] == group
