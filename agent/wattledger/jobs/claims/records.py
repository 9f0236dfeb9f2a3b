"""What a source says of who holds a GPU, and what such a source can do."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

from wattledger.model import Fault

Alive = Callable[[str, str], bool | None]
"""`alive(manager, job_id)`: the job has a cgroup on this node now; None: cannot be told."""


class GpuBy(StrEnum):
    """By which of its names a claim calls a GPU."""

    UUID = "uuid"  # NVML's: GPU-0123abcd-…
    MINOR = "minor"  # the N of /dev/nvidiaN
    INDEX = "index"  # NVML's index, in order of PCI address


class JobFacts(NamedTuple):
    """What a source knows of a job; what it does not know is empty, None or 0.

    Attributes:
        manager: `slurm` or `pod`.
        job_id: Slurm's job number, or the pod's UID; empty: a pod whose UID is not known yet.
        uid: the owner's user id.
        user: the owner's name; printable ASCII.
        account: as the scheduler has it; users may choose it freely on some clusters.
        partition: Slurm's partition.
        cluster: the scheduler's name of the cluster.
        name: the job's name: chosen by its user, at most 128 characters, no control characters.
        array_job_id: Slurm's number of the whole array.
        array_task_id: the task's index in it.
        restarts: how often the job was requeued; tells runs of one id apart.
        start_ns: wall clock of the job's start, by the scheduler; 0 where only `since_ns` is known.
        since_ns: wall clock when it was handed its devices on this node.
        end_ns: wall clock when it gave them back; 0: it has not.
        sluid: Slurm's unique id, `s` and 13 characters; its cgroups bear it since Slurm 26.05.
        namespace: the pod's.
        pod: the pod's name.
        containers: names of the pod's containers that hold the device.
    """

    manager: str
    job_id: str
    uid: int | None = None
    user: str = ""
    account: str = ""
    partition: str = ""
    cluster: str = ""
    name: str = ""
    array_job_id: str = ""
    array_task_id: str = ""
    restarts: int = 0
    start_ns: int = 0
    since_ns: int = 0
    end_ns: int = 0
    sluid: str = ""
    namespace: str = ""
    pod: str = ""
    containers: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """What is known, by the names of `wattledger.model.jobs.LABELS`."""
        labels = {
            "name": self.name,
            "user": self.user,
            "account": self.account,
            "partition": self.partition,
            "namespace": self.namespace,
            "pod": self.pod,
            "container": ",".join(self.containers),
            "array_job_id": self.array_job_id,
            "array_task_id": self.array_task_id,
        }
        return {label: value for label, value in labels.items() if value}


class SourceClaim(NamedTuple):
    """A source's word that a job holds a GPU or a part of it, in the source's own terms.

    Attributes:
        source: one of `wattledger.model.jobs.TRUST`.
        manager: as in `job`.
        job_id: as in `job`; empty: a pod holds the GPU, but it is not known which.
        gpu: the GPU's name, of the sort `gpu_by` says; empty: `mig_uuid` alone tells.
        gpu_by: how to read `gpu`.
        mig_uuid: the MIG instance's UUID; empty: the whole GPU, or `gpu_instance` tells.
        gpu_instance: the MIG GPU instance's id on that GPU; None: the whole GPU, or not known.
        share_num: with `share_den`, the part of the GPU (or MIG instance) that is this job's.
        share_den: for a time-sliced GPU the replicas that are held, so that the parts of its
            holders sum to 1; under MPS the percentage is out of 100, and they may not.
        job: what is known of the job.
    """

    source: str
    manager: str
    job_id: str
    gpu: str
    gpu_by: GpuBy
    mig_uuid: str
    gpu_instance: int | None
    share_num: int
    share_den: int
    job: JobFacts

    @property
    def target(self) -> tuple[str, str, str, int | None]:
        """What is held: equal for claims that name the same thing in the same way."""
        return (self.gpu_by, self.gpu, self.mig_uuid, self.gpu_instance)


class ClaimSource(Protocol):
    """Something outside that knows which job holds which GPU. Used from one thread only.

    Nothing outside can make a method raise or block for longer than the source's bound (2 s for
    the kubelet, local files for all others); what is wrong is told by `faults`.
    """

    @property
    def name(self) -> str:
        """Its name, in `SourceClaim.source` and `Fault.meter`."""
        ...

    def claims(self) -> tuple[SourceClaim, ...]:
        """Who holds what now. Cheap where nothing changed; logs faults as they come and go."""
        ...

    def jobs(self) -> tuple[JobFacts, ...]:
        """The jobs that the source knew at the last `claims()`, those without a GPU included."""
        ...

    def faults(self) -> tuple[Fault, ...]:
        """What was wrong at the last `claims()`."""
        ...
