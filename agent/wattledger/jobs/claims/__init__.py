"""Who says which job holds which GPU: the schedulers' own words, read with distrust.

    kubelet    KubeletPodResources   PodResources v1, over its Unix socket
    slurm      SlurmHooks            files of the prolog and epilog in deploy/slurm
    dcgm       DcgmJobMapping        files for dcgm-exporter's hpc-job-mapping
    jobstats   JobstatsFiles         files of jobstats' prolog

In this order of trust; below them stand the processes that NVML lists. Never
`CUDA_VISIBLE_DEVICES`: it is the user's to set, and Slurm renumbers it inside a job. `Bindings`
asks them all, in a thread of its own, and translates what they say into GPUs' UUIDs.
"""

from wattledger.jobs.claims.bindings import Bindings
from wattledger.jobs.claims.job_names import JobNames
from wattledger.jobs.claims.kubelet import KubeletPodResources
from wattledger.jobs.claims.mapping_files import JOBSTATS_DIRECTORY, DcgmJobMapping, JobstatsFiles
from wattledger.jobs.claims.pod_uids import PodUids
from wattledger.jobs.claims.records import Alive, ClaimSource, GpuBy, JobFacts, SourceClaim
from wattledger.jobs.claims.slurm_hooks import SlurmHooks
from wattledger.model.measuring import GpuNames, MigInstance

__all__ = [
    "JOBSTATS_DIRECTORY",
    "Alive",
    "Bindings",
    "ClaimSource",
    "DcgmJobMapping",
    "GpuBy",
    "GpuNames",
    "JobFacts",
    "JobNames",
    "JobstatsFiles",
    "KubeletPodResources",
    "MigInstance",
    "PodUids",
    "SlurmHooks",
    "SourceClaim",
]
