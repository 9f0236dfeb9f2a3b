"""The kubelet's word: which pod holds which GPU (PodResources v1)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from wattledger.jobs.claims import grpc_call
from wattledger.jobs.claims.faults import FaultLog
from wattledger.jobs.claims.liveness import GRACE_NS, Liveness
from wattledger.jobs.claims.pod_uids import PodUids
from wattledger.jobs.claims.protobuf import fields, submessage, text
from wattledger.jobs.claims.records import Alive, GpuBy, JobFacts, SourceClaim
from wattledger.jobs.claims.slurm_text import Gpu, gpu_of_uuid
from wattledger.model import Fault
from wattledger.ports import Clock
from wattledger.units import NS_PER_S

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
LIST = "/v1.PodResourcesLister/List"
TIMEOUT_S = 2.0
INTERVAL_NS = 5 * NS_PER_S
KEEP_NS = 300 * NS_PER_S

_MAX_DEVICES = 65_536
_RESOURCE = re.compile(r"nvidia\.com/(?:gpu|mig-[0-9A-Za-z.+_-]{1,60})(?:\.shared)?", re.ASCII)
# On GKE: nvidia0, nvidia0/gi1 for a MIG instance, nvidia0/vgpu2 for a time-sliced replica.
_GKE = re.compile(r"nvidia([0-9]{1,3})(?:/gi([0-9]{1,3}))?(?:/vgpu[0-9]{1,4})?", re.ASCII)
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_CONTAINER_CHARS = 63

Call = Callable[[], bytes]


class Held(NamedTuple):
    """What one container of a pod holds, as the kubelet says it."""

    namespace: str
    pod: str
    container: str
    resource: str
    device: str


class KubeletPodResources:
    """Asks the kubelet which pod holds which GPU.

    The kubelet names pods, but not their UIDs; `PodUids` finds those. While it does not answer
    (it restarts, or hangs) its last word stands for `keep_ns`: GPUs do not change hands without
    it.

    Sources: pkg/apis/podresources/v1/api.proto of kubernetes/kubelet; the replicas' `::N` by
    `NewAnnotatedID` in internal/rm/devices.go of NVIDIA/k8s-device-plugin; `.shared` by its
    `renameByDefault`; GKE's names by internal/pkg/transformation/kubernetes.go of
    NVIDIA/dcgm-exporter.

    Args:
        clock: for the interval.
        socket: the kubelet's; mount its directory, since a restart makes a new socket.
        pod_uids: finds the pods' UIDs.
        trusted_uids: who may serve it.
        alive: see `Liveness`; the kubelet may list pods that have ended.
        grace_ns: see `Liveness`.
        interval_ns: it is asked no more often than this.
        keep_ns: how long its last word stands.
        timeout_s: for one call, in all.
        call: asks it; tests pass another.
    """

    name = "kubelet"

    def __init__(
        self,
        clock: Clock,
        socket: Path = SOCKET,
        *,
        pod_uids: PodUids,
        trusted_uids: Collection[int] = (0,),
        alive: Alive | None = None,
        grace_ns: int = GRACE_NS,
        interval_ns: int = INTERVAL_NS,
        keep_ns: int = KEEP_NS,
        timeout_s: float = TIMEOUT_S,
        call: Call | None = None,
    ) -> None:
        self._clock = clock
        self._socket = socket
        self._pod_uids = pod_uids
        self._alive = alive
        self._liveness = Liveness(self.name, clock, alive, grace_ns)
        self._interval_ns = interval_ns
        self._keep_ns = keep_ns
        self._call = call or (
            lambda: grpc_call.call(socket, LIST, b"", timeout_s, frozenset(trusted_uids))
        )
        self._faults = FaultLog(self.name)
        self._trouble: tuple[Fault, ...] = ()
        self._notes: tuple[Fault, ...] = ()
        self._asked_ns: int | None = None
        self._answered_ns: int | None = None
        self._met = False
        self._answer = b""
        self._held: tuple[Held, ...] = ()
        self._since_ns: dict[tuple[str, str, str], int] = {}
        self._claims: tuple[SourceClaim, ...] = ()
        self._pods: tuple[JobFacts, ...] = ()

    def claims(self) -> tuple[SourceClaim, ...]:
        """Who holds which GPU now, or did when the kubelet last answered."""
        now = self._clock.now()
        if self._asked_ns is None or now.boottime_ns - self._asked_ns >= self._interval_ns:
            self._asked_ns = now.boottime_ns
            self._ask(now.boottime_ns)
            self._claims = self._bind(now.wall_ns)
        kept, stale = self._liveness.sift(self._claims)
        self._faults.replace((*self._trouble, *self._notes, *stale))
        return kept

    def refresh(self) -> None:
        """Ask again at the next `claims()`, because a pod came or went."""
        self._asked_ns = None

    def jobs(self) -> tuple[JobFacts, ...]:
        """The pods on this node whose UID is known; what they hold, by those that hold a GPU."""
        return self._pods

    def faults(self) -> tuple[Fault, ...]:
        """What was wrong at the last `claims()`."""
        return self._faults.now

    def _ask(self, now_ns: int) -> None:
        try:
            answer = self._call()
            if answer != self._answer or self._answered_ns is None:
                self._held = tuple(held_devices(answer))
        except grpc_call.CallFailed as error:
            self._lost(error.reason, error.message, error.hint, now_ns)
        except ValueError as error:
            self._lost(
                "protocol_error", f"the kubelet's answer cannot be read: {error}", "", now_ns
            )
        else:
            self._answer, self._answered_ns, self._trouble = answer, now_ns, ()
            self._met = True

    def _lost(self, reason: str, message: str, hint: str, now_ns: int) -> None:
        if self._answered_ns is not None and now_ns - self._answered_ns > self._keep_ns:
            self._held, self._answer, self._answered_ns = (), b"", None
        if reason == "no_kubelet" and not self._met:
            return  # most machines have none
        self._trouble = (Fault(self.name, reason, message, hint, permanent=True),)

    def _bind(self, wall_ns: int) -> tuple[SourceClaim, ...]:
        """The claims of what is held, one for each pod and GPU."""
        notes: dict[str, Fault] = {}
        holders: dict[tuple[str, str, Gpu], list[str]] = {}
        replicas: Counter[Gpu] = Counter()
        for one in self._held:
            if not one.resource:
                message = "pods hold GPUs by resource claims (DRA), which name no GPU"
                hint = "their processes tell, where NVML lists them"
                notes["dra"] = Fault(self.name, "resource_claim", message, hint)
                continue
            gpu = device_gpu(one.device)
            if gpu is None:
                message = f"{one.device[:60]!r} of {one.resource} is not the id of a GPU"
                notes["id"] = Fault(self.name, "unknown_device", message)
                continue
            holders.setdefault((one.namespace, one.pod, gpu), []).append(one.container)
            replicas[gpu] += 1
        uids, faults = self._pod_uids.find({key[:2] for key in holders}, self._alive)
        since: dict[tuple[str, str, str], int] = {}
        claims = []
        for (namespace, pod, gpu), containers in holders.items():
            uid = uids.get((namespace, pod), "")
            if not uid:
                message = f"the UID of pod {namespace}/{pod} is not known"
                hint = "mount /var/log/pods, or set where the kubelet keeps it (podLogsDir)"
                notes["uid"] = Fault(self.name, "unknown_pod", message, hint)
            key = (namespace, pod, uid)
            since[key] = self._since_ns.get(key, wall_ns)
            job = JobFacts(
                "pod", uid, namespace=namespace, pod=pod, name=pod, since_ns=since[key],
                containers=tuple(dict.fromkeys(containers)),
            )  # fmt: skip
            claims.append(
                SourceClaim(self.name, "pod", uid, *gpu, len(containers), replicas[gpu], job=job)
            )
        self._since_ns = since
        pods = {
            uid: JobFacts("pod", uid, namespace=namespace, pod=pod, name=pod)
            for uid, (namespace, pod) in self._pod_uids.all().items()
        }
        pods |= {claim.job_id: claim.job for claim in claims if claim.job_id}
        self._pods = tuple(pods.values())
        self._notes = (*notes.values(), *faults)
        return tuple(claims)


def held_devices(answer: bytes) -> Iterator[Held]:
    """What a `ListPodResourcesResponse` says of NVIDIA's devices; `resource` is empty for DRA's.

    Raises:
        ValueError: it is none.
    """
    count = 0
    for _, pod in _parts(memoryview(answer), 1):
        name, namespace = _string(pod, 1), _string(pod, 2)
        if not _NAME.fullmatch(name) or not _NAME.fullmatch(namespace):
            raise ValueError(f"a pod is called {namespace[:40]!r}/{name[:40]!r}")
        for _, container in _parts(pod, 3):
            label = _string(container, 1)[:_CONTAINER_CHARS]
            for number, part in _parts(container, 2, 5):
                for resource, device in _devices(part) if number == 2 else _claimed(part):
                    count += 1
                    if count > _MAX_DEVICES:
                        raise ValueError(f"more than {_MAX_DEVICES} devices")
                    yield Held(namespace, name, label, resource, device)


def device_gpu(device_id: str) -> Gpu | None:
    """The GPU of a device plugin's id, which replicas of a time-sliced one share."""
    device, colons, replica = device_id.partition("::")
    if colons and not (replica.isascii() and replica.isdigit()):
        return None
    if (gke := _GKE.fullmatch(device)) is not None:
        return Gpu(gke[1], GpuBy.MINOR, "", int(gke[2]) if gke[2] else None)
    return gpu_of_uuid(device)


def _devices(part: memoryview) -> Iterator[tuple[str, str]]:
    """Resource and id of each of NVIDIA's devices in a `ContainerDevices`."""
    resource = _string(part, 1)
    if _RESOURCE.fullmatch(resource):
        for _, device in _parts(part, 2):
            yield resource, text(device)


def _claimed(part: memoryview) -> Iterator[tuple[str, str]]:
    """Each device of NVIDIA's driver in a `DynamicResource`; its name is not a GPU's."""
    for _, claim in _parts(part, 4):
        if _string(claim, 2) == "gpu.nvidia.com":
            yield "", _string(claim, 4)


def _parts(message: memoryview, *numbers: int) -> Iterator[tuple[int, memoryview]]:
    for field in fields(message):
        if field.number in numbers:
            yield field.number, submessage(field.value)


def _string(message: memoryview, number: int) -> str:
    """A string field: the last one counts, as protocol buffers have it."""
    found = ""
    for _, value in _parts(message, number):
        found = text(value)
    return found
