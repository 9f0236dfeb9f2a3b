"""Every setting with its default and what it means.

This is the one place: `configs/default.toml` and the reference in `configs/README.md` are
generated from it. Times are ns inside, written as "5s" or "1h30m" in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from wattledger.config.embodied_settings import EmbodiedSettings
from wattledger.config.grid_settings import GridSettings
from wattledger.config.site_settings import Site
from wattledger.model.jobs import MANAGERS
from wattledger.setting import (
    Count,
    DurationNs,
    Enabled,
    FilePath,
    Listen,
    Watts,
    s_ns,
    setting,
)

Manager = Literal["slurm", "pod", "docker", "podman", "unit", "run", "user"]
Label = Literal[
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
]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often the meters are read, and how often the books are written."""

    interval: DurationNs = setting(
        s_ns(1),
        "How often each meter is read. Energy counters lose nothing in between; a shorter "
        "interval only sharpens the edges.",
    )
    commit_interval: DurationNs = setting(
        s_ns(5),
        "How often the books are written and the page is rendered. Power-only meters lose at "
        "most this much when the daemon is killed.",
    )
    allow_fine_grained: bool = setting(
        False,
        "Allow intervals under 1 s. Fine-grained power readings leak secrets of other users' "
        "programs (PLATYPUS, CVE-2020-8694): for tests and for single-user machines.",
    )


@dataclass(frozen=True, slots=True)
class Nvml:
    """NVIDIA GPUs, through the driver's management library."""

    enabled: Enabled = setting(
        Enabled("auto"),
        '"auto": where the library answers, now or later; true: its absence is a fault; '
        "false: never touched.",
    )
    backend: Literal["driver", "simulated"] = setting(
        "driver", '"driver", or "simulated": GPUs that only exist in a scenario.'
    )
    scenario: FilePath = setting(
        FilePath(""),
        "The scenario file of the simulated backend.",
        '"configs/scenarios/eight-h100.toml"',
    )


@dataclass(frozen=True, slots=True)
class Rapl:
    """Intel and AMD CPUs and DRAM, through powercap."""

    enabled: Enabled = setting(Enabled("auto"), '"auto", true or false, as for nvml.')


@dataclass(frozen=True, slots=True)
class Hwmon:
    """Power sensors of the board: ACPI power meters of NVIDIA Grace."""

    enabled: Enabled = setting(Enabled("auto"), '"auto", true or false, as for nvml.')


@dataclass(frozen=True, slots=True)
class Estimate:
    """The last resort for the CPU: a model of power by utilisation, flagged `estimated`."""

    enabled: Enabled = setting(
        Enabled("auto"), '"auto": where no CPU meter answers; true: likewise; false: never.'
    )
    idle_watts: Watts | None = setting(
        None, "What the CPUs draw when idle, all together. Not set: from their number.", "60"
    )
    max_watts: Watts | None = setting(
        None, "What the CPUs draw when busy, all together. Not set: from their number.", "400"
    )


@dataclass(frozen=True, slots=True)
class Other:
    """The rest of the node: fans, disks, boards, losses of the power supply."""

    watts: Watts | None = setting(
        None,
        "A constant that is booked as device `other`, flagged `estimated`. Not set: nothing is.",
        "350",
    )


@dataclass(frozen=True, slots=True)
class Meters:
    """How much: one table per meter."""

    nvml: Nvml = setting(Nvml, "")
    rapl: Rapl = setting(Rapl, "")
    hwmon: Hwmon = setting(Hwmon, "")
    estimate: Estimate = setting(Estimate, "")
    other: Other = setting(Other, "")


@dataclass(frozen=True, slots=True)
class Paths:
    """Other roots of the kernel's file systems: in containers, and for tests."""

    sysfs: FilePath = setting(FilePath("/sys"), "Where sysfs is mounted.")
    procfs: FilePath = setting(FilePath("/proc"), "Where procfs is mounted.")


@dataclass(frozen=True, slots=True)
class SlurmJobs:
    """Slurm's jobs."""

    roots: tuple[str, ...] = setting(
        (),
        "Cgroups below which a slurmd of its own makes its tree, as a slurmd in a pod does; `*` "
        'stands for one part of the path: ["/kubepods.slice/*/*"].',
    )
    hooks_dir: FilePath = setting(
        FilePath("/run/wattledger-jobs"),
        "Where the prolog and epilog of deploy/slurm write who holds which GPU; root's, and "
        "nobody else may write there.",
    )
    names_dir: FilePath = setting(
        FilePath("/run/wattledger-names"),
        "Where PrologSlurmctld writes jobs' names and array ids, on a shared file system where "
        "the controller is another machine.",
    )
    user: str = setting(
        "slurm", "SlurmUser, which PrologSlurmctld runs as: whose files in names_dir are believed."
    )
    gpu_numbering: Literal["minor", "index"] = setting(
        "minor",
        'What SLURM_JOB_GPUS counts: the N of /dev/nvidiaN ("minor", with `File=` in gres.conf), '
        'or NVML\'s order ("index", with AutoDetect=nvml where these differ).',
    )
    gpu_order: tuple[str, ...] = setting(
        (),
        "UUIDs of GPUs or MIG instances in the order of Slurm's own list (`slurmd -G`), where it "
        "is neither.",
    )
    dcgm_dir: FilePath = setting(
        FilePath(""),
        "The job-mapping directory of dcgm-exporter (--hpc-job-mapping-dir), if the site's hooks "
        "write one.",
        '"/var/run/dcgm_job_maps"',
    )
    jobstats_dir: FilePath = setting(
        FilePath(""), "The directory of jobstats' prolog, if the site has it.", '"/run/gpustat"'
    )


@dataclass(frozen=True, slots=True)
class KubeletJobs:
    """Pods' GPUs."""

    socket: FilePath = setting(
        FilePath("/var/lib/kubelet/pod-resources/kubelet.sock"),
        "The kubelet's PodResources socket, which root may open only.",
    )
    pod_logs: FilePath = setting(
        FilePath("/var/log/pods"),
        "Where the kubelet keeps pods' logs; the names of its directories tell pods' UIDs.",
    )


@dataclass(frozen=True, slots=True)
class Jobs:
    """For whom: whose cgroups count as jobs, and what is shown of them."""

    managers: tuple[Manager, ...] = setting(
        MANAGERS,
        "Whose jobs are looked for; `run` is commands under `wattledger run`, `user` is login "
        "sessions, paid per user. []: none.",
    )
    units: tuple[str, ...] = setting(
        (),
        'Names of systemd units that are jobs, as shell patterns: ["train@*.service"]. A unit '
        "with a process on a GPU is one in any case.",
    )
    labels: tuple[Label, ...] = setting(
        (),
        "What `job_info` shows besides the id. Names of people and jobs are on the page only if "
        "they are asked for; `user` adds the totals per user.",
    )
    idle_policy: Literal["allocated", "equal", "proportional", "none"] = setting(
        "allocated",
        "Who bears what the CPUs draw when idle: jobs by the CPUs that they were given "
        '("allocated"), all alike ("equal"), by CPU time ("proportional"), or nobody ("none").',
    )
    cpu_idle_watts: Watts | None = setting(
        None, "What a CPU package draws when idle. Not set: learnt from quiet minutes.", "45"
    )
    linger: DurationNs = setting(
        s_ns(900),
        "How long a job stays on the page after its end; in the ledger it stays for good.",
    )
    max_series: Count = setting(
        Count(1000),
        "How many jobs have series of their own at a time; what the others use is summed up under "
        'job_id="(other)". A job has about 20 samples: raise the scrape\'s sample_limit with it.',
    )
    slurm: SlurmJobs = setting(SlurmJobs, "")
    kubelet: KubeletJobs = setting(KubeletJobs, "")


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """Where the books are kept."""

    path: FilePath = setting(
        FilePath(""),
        "The SQLite file. Not set: $STATE_DIRECTORY/ledger.sqlite under systemd, else "
        "~/.local/state/wattledger/ledger.sqlite. Network file systems are refused.",
        '"/var/lib/wattledger/ledger.sqlite"',
    )
    volatile: bool = setting(
        False,
        "Say that the books may be lost at a reboot: needed on tmpfs, for diskless nodes.",
    )


@dataclass(frozen=True, slots=True)
class Http:
    """What others see."""

    listen: Listen = setting(
        Listen("127.0.0.1:19400"),
        'Address and port. ":19400" is every address: then set `web_config` too, since fine power '
        "readings are sensitive.",
    )
    web_config: FilePath = setting(
        FilePath(""),
        "TLS, client certificates and basic authentication: the web configuration file of the "
        "Prometheus exporters (exporter-toolkit).",
        '"/etc/wattledger/web.yml"',
    )
    socket: FilePath = setting(
        FilePath(""),
        "The Unix socket of the command line. Not set: $RUNTIME_DIRECTORY/wattledger.sock under "
        'systemd, else beside the ledger. "none": no socket.',
        '"/run/wattledger/wattledger.sock"',
    )
    operators_group: str = setting(
        "wattledger", "The group whose members see everybody's jobs over the socket, as root does."
    )
    created_timestamps: bool = setting(
        False, "Export `_created` samples in OpenMetrics: when a series was first booked."
    )


@dataclass(frozen=True, slots=True)
class Log:
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "debug, info, warning or error."
    )


class ExporterTable(NamedTuple):
    """A table `[exporters.NAME]`.

    Attributes:
        name: of the exporter.
        settings: of the class that its plugin names.
    """

    name: str
    settings: Any


@dataclass(frozen=True, slots=True)
class Config:
    """All settings."""

    site: Site = setting(Site, "")
    embodied: EmbodiedSettings = setting(EmbodiedSettings, "")
    sampling: Sampling = setting(Sampling, "")
    meters: Meters = setting(Meters, "")
    jobs: Jobs = setting(Jobs, "")
    path: Paths = setting(Paths, "")
    grid: GridSettings = setting(GridSettings, "")
    ledger: LedgerSettings = setting(LedgerSettings, "")
    http: Http = setting(Http, "")
    log: Log = setting(Log, "")
    exporters: tuple[ExporterTable, ...] = setting((), "")
