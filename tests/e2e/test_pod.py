"""The DaemonSet's container as a real OCI runtime runs it: without a capability it does its work.

It has the security context, the mounts and the settings of deploy/kubernetes; the node around it
(RAPL, cgroups, kubelet, GPUs) is made of files, with the owners and modes of a real one.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cgroups import POD_UID, FakeNode
from deploy.kustomized import kustomized
from e2e.booted import PROGRAM, copied
from e2e.conftest import lacking
from e2e.oci import SECCOMP, running, specification
from e2e.page import Page
from kubelet_server import KubeletServer, answer
from sysfs import RaplTree
from waiting import wait_until

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
GPU = "GPU-11111111-aaaa-4bbb-8ccc-000000000001"
POD = f"/kubepods.slice/kubepods-pod{POD_UID.replace('-', '_')}.slice"
NOBODY = 65532
SETTINGS = """
[sampling]
interval = "0.2s"
commit_interval = "0.4s"
allow_fine_grained = true
[meters.nvml]
backend = "simulated"
scenario = "/etc/wattledger/scenario.toml"
[grid]
settle_window = "0s"
"""
SCENARIO = f"""
[[gpu]]
model = "H100 SXM"
uuid = "{GPU}"
waveform = {{ kind = "constant", watts = 400 }}
"""


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field of protocol buffers."""
    return bytes([number << 3 | 2, len(value)]) + value


HOLDS = field(
    1,
    field(1, b"train-0")
    + field(2, b"ml")
    + field(3, field(1, b"main") + field(2, field(1, b"nvidia.com/gpu") + field(2, GPU.encode()))),
)
"""PodResources' answer (podresources/v1/api.proto): ml/train-0 was given the GPU."""


class NodeOfFiles:
    """What the pod mounts of its node."""

    def __init__(self, home: Path, pod: dict[str, Any], config: str) -> None:
        self.home = home
        self.rapl = RaplTree(home / "host" / "sys")
        node = FakeNode(home / "host2")
        node.make(POD, cpu_s=1)
        (home / "kubelet").mkdir(mode=0o755)
        (home / "pods" / f"ml_train-0_{POD_UID}").mkdir(parents=True)
        for name in ("config", "state", "run"):
            (home / name).mkdir(mode=0o755)
        (home / "config" / "wattledger.toml").write_text(config + SETTINGS)
        (home / "config" / "scenario.toml").write_text(SCENARIO)
        for zone in self.rapl.directories:  # as since Linux 5.10
            self.rapl.set_mode(zone, 0o400)
        (container,) = pod["containers"]
        user = container["securityContext"]["runAsUser"]
        for name in ("state", "run"):
            os.chown(home / name, user, user)
        self.volumes = {
            "sys-class": home / "host/sys/class",
            "sys-devices": home / "host/sys/devices",
            "cgroup": node.cgroup,
            "pod-resources": home / "kubelet",
            "pod-logs": home / "pods",
            "config": home / "config",
            "state": home / "state",
            "run": home / "run",
        }

    def get(self, path: str) -> tuple[int, bytes]:
        """What the daemon answers to root over its socket; 0 while it does not."""
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.home / "run" / "wattledger.sock"))
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def page(self) -> Page:
        status, body = self.get("/metrics")
        return Page(body.decode() if status == 200 else "")

    def log(self) -> str:
        return (self.home / "bundle" / "log").read_text(errors="replace")


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, since a Unix socket's path has 107 bytes, and open to every user."""
    folder = Path(tempfile.mkdtemp(prefix="wl-pod-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def objects(folder: str) -> tuple[dict[str, Any], str]:
    found = {one["kind"]: one for one in kustomized(KUBERNETES / folder)}
    return found["DaemonSet"]["spec"]["template"]["spec"], found["ConfigMap"]["data"][
        "wattledger.toml"
    ]


@pytest.fixture(scope="module")
def image(debian_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of its own: the runtime makes the places in it where it mounts something."""
    return copied(debian_root, tmp_path_factory.mktemp("image") / "root")


@pytest.mark.parametrize("folder", ["base", "overlays/non-root"])
def test_the_pod_measures_without_a_capability(
    image: Path, home: Path, need: Callable[..., None], folder: str
) -> None:
    need("crun", "unshare")
    if not SECCOMP.exists():
        lacking(f"{SECCOMP}, the runtimes' default profile, is not there")
    pod, config = objects(folder)
    is_root = folder == "base"
    node = NodeOfFiles(home, pod, config)
    bundle = specification(pod, image, node.volumes, [PROGRAM])
    assert bundle["process"]["user"]["uid"] == (0 if is_root else NOBODY)
    with (
        KubeletServer(home / "kubelet" / "kubelet.sock", answer(HOLDS)) as kubelet,
        node.rapl.follow(),
        running(home / "bundle", bundle) as process,
    ):

        def ready() -> bool:
            assert process.poll() is None, node.log()
            return node.get("/readyz")[0] == 200

        wait_until(ready, 40, "the pod is ready")
        assert node.get("/livez")[0] == 200
        status = Path(f"/proc/{_serving(process.pid)}/status").read_text()
        assert "CapEff:\t0000000000000000" in status and "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status

        # The pod's cgroup is seen. Its GPU by the kubelet, which answers to root alone.
        def settled() -> bool:
            page = node.page()
            held = page.all("job_device_info", manager="pod", job_id=POD_UID)
            return bool(page.all("job_info", job_id=POD_UID)) and bool(held) is is_root

        wait_until(settled, 20, f"the pod is a job: {node.log()}")
        page = wait_until(
            lambda: (p := node.page()).sum("energy_joules_total", kind="cpu") > 0 and p, 20, "CPU"
        )
        assert page.one("meter_up", meter="nvml") == 1
        cpu_j = {
            quality: page.sum("energy_quality_joules_total", kind="cpu", quality=quality)
            for quality in ("metered", "estimated")
        }
        assert [how for how, joules in cpu_j.items() if joules] == [
            "metered" if is_root else "estimated"
        ]
        if is_root:
            assert kubelet.calls
            (info,) = page.all("job_info", job_id=POD_UID)
            assert dict(info[1])["pod"] == "train-0"
            wait_until(
                lambda: node.page().sum("job_energy_kwh_total", job_id=POD_UID, kind="gpu") > 0,
                20,
                "it pays for its GPU",
            )
        assert json.loads(node.get("/api/v1/status")[1])
    assert process.returncode == 0, node.log()
    assert "Traceback" not in node.log()
    assert (home / "state" / "ledger.sqlite").stat().st_uid == (0 if is_root else NOBODY)


def _serving(crun: int) -> int:
    """The container's process, which the runtime waits for."""
    children = Path(f"/proc/{crun}/task/{crun}/children").read_text().split()
    return int(children[0]) if children else crun
