"""For whom, in detail: runs of jobs, who claims a GPU, and one survey of all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from wattledger.model.measuring import Instant, Kind
from wattledger.model.paying import Payee, PayeeKind
from wattledger.model.pricing import Basis

SLURM = "slurm"
POD = "pod"
DOCKER = "docker"
PODMAN = "podman"
UNIT = "unit"
RUN = "run"  # commands under `wattledger run`; the job id is ours, the name is a label
USER = "user"  # login sessions; the job id is the uid
MANAGERS = (SLURM, POD, DOCKER, PODMAN, UNIT, RUN, USER)
"""In order of precedence: a process in a container inside a Slurm job is that job's."""

LABELS = (
    "name",
    "user",
    "account",
    "partition",
    "namespace",
    "pod",
    "container",
    "unit",
    "array_job_id",
    "array_task_id",
)
"""What may be known of a run besides its id; any of them can be put on `job_info`."""

TRUST = ("kubelet", "slurm", "dcgm", "jobstats", "run", "processes")
"""Who says that a job holds a GPU, the most trusted first. Where one of them names a holder that
is alive, those after it are not asked for that device."""

WHOLE_SHARE_PPM = 1_000_000


class Claim(NamedTuple):
    """A source's word that a job holds a GPU, or a part of it.

    Attributes:
        manager: as in `Payee`.
        job_id: as in `Payee`; the claim is its newest running run's.
        device: the GPU's UUID, never a MIG instance's.
        share_ppm: of the device, in millionths. Claims on one device that sum to more than the
            whole are shares of their sum (time slicing).
        source: one of `TRUST`.
        exact: False: the holders share the device in a way that cannot be told, so equally.
    """

    manager: str
    job_id: str
    device: str
    share_ppm: int = WHOLE_SHARE_PPM
    source: str = "processes"
    exact: bool = True


class Holding(NamedTuple):
    """A device that a run holds now: the value of `job_device_info`."""

    device: str
    share_ppm: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job and what is known of it; a row of table `run`.

    Attributes:
        payee: (manager, id, start).
        uid: whose it is; None: unknown, or nobody's in particular.
        labels: some of `LABELS`.
        cgroup: its directory, from the root of the cgroup tree.
        inode: of that directory: with the boot id, it tells a run from the next of the same id.
        boot_id: the boot in which it runs.
        cpu_ns: its CPU counter as last read: the checkpoint from which a restarted daemon goes on.
        holdings: devices that it holds.
        last_seen_ns: wall clock of its last sign of life.
        end_ns: wall clock; 0: it runs.
    """

    payee: Payee
    uid: int | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    cgroup: str = ""
    inode: int = 0
    boot_id: str = ""
    cpu_ns: int | None = None
    holdings: tuple[Holding, ...] = ()
    last_seen_ns: int = 0
    end_ns: int = 0

    @property
    def key(self) -> JobKey:
        """The job of which this is a run."""
        return JobKey(self.payee.manager, self.payee.job_id)


class JobKey(NamedTuple):
    """A job: all runs of one id."""

    manager: str
    job_id: str


OTHER_JOBS = JobKey("none", "(other)")
"""The series of the jobs that `jobs.max_series` left without one of their own."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Which jobs run, and what they use, at one moment.

    Attributes:
        at: when.
        runs: those that run.
        ended: those that have ended since the last survey, with their last sign of life, also such
            as began since then; `holdings` where somebody told what these held. One that no survey
            saw running may come again when more becomes known of it.
        cpu_ns: run → CPU time since this process began to count it; never falls. Once also of runs
            that ended: the last that was seen of it.
        busy_ns: CPU time that the whole node was busy, likewise; None: cannot be told.
        memory_bytes: run → anonymous and shared memory.
        memory_total_bytes: of the node.
        cpuset_ppm: run → its share of the node's CPUs, where it has CPUs of its own.
        processes: GPU → the runs whose processes are on it; a GPU without an entry: not known.
        sm: GPU → run → its processes' part in the GPU's multiprocessors since the list before, in
            any unit; a GPU without an entry: not told.
        instances: GPU with MIG → instance → the runs whose processes are on it.
        strangers: GPUs that processes outside any job use.
        claims: all that other sources say.
        steps: run of a command inside a job → the job's run. Such a run is in `runs`, `cpu_ns`
            and so on like any other, and what it used is not in the job's; its job pays for both.
        ending: run of a command → wall clock of its end, while it is in `runs` until its devices
            have been read a last time.
    """

    at: Instant
    runs: Mapping[Payee, JobRun] = field(default_factory=lambda: MappingProxyType({}))
    ended: tuple[JobRun, ...] = ()
    cpu_ns: Mapping[Payee, int] = field(default_factory=lambda: MappingProxyType({}))
    busy_ns: int | None = None
    memory_bytes: Mapping[Payee, int] = field(default_factory=lambda: MappingProxyType({}))
    memory_total_bytes: int = 0
    cpuset_ppm: Mapping[Payee, int] = field(default_factory=lambda: MappingProxyType({}))
    processes: Mapping[str, tuple[Payee, ...]] = field(default_factory=lambda: MappingProxyType({}))
    sm: Mapping[str, Mapping[Payee, int]] = field(default_factory=lambda: MappingProxyType({}))
    instances: Mapping[str, Mapping[str, tuple[Payee, ...]]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    strangers: frozenset[str] = frozenset()
    claims: tuple[Claim, ...] = ()
    steps: Mapping[Payee, Payee] = field(default_factory=lambda: MappingProxyType({}))
    ending: Mapping[Payee, int] = field(default_factory=lambda: MappingProxyType({}))


class Held(NamedTuple):
    """How long a device was held, and how much of that for nothing.

    `held_ms` and `idle_ms` count device time times the share held.
    """

    held_ms: int = 0
    idle_ms: int = 0
    idle_uj: int = 0

    def plus(self, other: Held) -> Held:
        """The sum."""
        return Held(
            self.held_ms + other.held_ms,
            self.idle_ms + other.idle_ms,
            self.idle_uj + other.idle_uj,
        )


class KindBasis(NamedTuple):
    """The cells of a job's totals."""

    kind: Kind
    basis: Basis


def job_payee(manager: str, job_id: str, start_ns: int) -> Payee:
    """A run as a payee."""
    return Payee(PayeeKind.JOBS, manager, job_id, start_ns)
