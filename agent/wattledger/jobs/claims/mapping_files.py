"""Files that other tools' hooks keep: DCGM's job-mapping directory and Princeton's jobstats."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from wattledger.jobs.claims.directory import DirectoryState, SmallFile, TrustedDirectory
from wattledger.jobs.claims.faults import FaultLog
from wattledger.jobs.claims.liveness import GRACE_NS, Liveness
from wattledger.jobs.claims.records import Alive, GpuBy, JobFacts, SourceClaim
from wattledger.jobs.claims.slurm_text import JOB_ID, Gpu, gpu_of_uuid
from wattledger.model import Fault
from wattledger.ports import Clock
from wattledger.units import NS_PER_S

JOBSTATS_DIRECTORY = Path("/run/gpustat")

_GPU = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,3}))?", re.ASCII)
_WANTED = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,3})?|(?:GPU|MIG)-[0-9A-Fa-f-]{36}", re.ASCII)
_JOB_AND_UID = re.compile(r"([0-9]{1,10}) ([0-9]{1,10})\s*\n", re.ASCII)
_MAX_JOBS = 256  # on one GPU
# A clock that was set right only after the boot makes the boot look later than it was.
_BOOT_MARGIN_NS = 60 * NS_PER_S


class _MappingFiles:
    """A directory with one file for each GPU that a Slurm job holds, named after the GPU."""

    name = ""

    def __init__(
        self,
        clock: Clock,
        directory: Path,
        *,
        trusted_uids: Collection[int] = (0,),
        numbering: GpuBy = GpuBy.INDEX,
        alive: Alive | None = None,
        grace_ns: int = GRACE_NS,
    ) -> None:
        self._clock = clock
        self._path = directory
        # These hooks write in place, so each file's time has to be asked for.
        self._directory = TrustedDirectory(self.name, directory, _WANTED, trusted_uids=trusted_uids)
        self._numbering = numbering
        self._liveness = Liveness(self.name, clock, alive, grace_ns)
        self._faults = FaultLog(self.name)
        self._state: DirectoryState | None = None
        self._claims: tuple[SourceClaim, ...] = ()
        self._jobs: tuple[JobFacts, ...] = ()
        self._bad: tuple[Fault, ...] = ()

    def claims(self) -> tuple[SourceClaim, ...]:
        """Who holds which GPU now."""
        state = self._directory.look()
        if state is not self._state:
            self._state = state
            self._read(state)
        kept, stale = self._liveness.sift(self._claims)
        self._faults.replace((*self._bad, *stale))
        return kept

    def jobs(self) -> tuple[JobFacts, ...]:
        """The jobs that hold a GPU; these files know of no other."""
        return self._jobs

    def faults(self) -> tuple[Fault, ...]:
        """What was wrong at the last `claims()`."""
        return self._faults.now

    def _read(self, state: DirectoryState) -> None:
        now = self._clock.now()
        boot_ns = now.wall_ns - now.boottime_ns - _BOOT_MARGIN_NS
        claims: list[SourceClaim] = []
        bad = list(state.faults)
        for name in sorted(state.files):
            file = state.files[name]
            gpu = self._gpu(name)
            if gpu is None or file.mtime_ns < boot_ns:
                continue
            try:
                jobs = list(self._jobs_in(file))
            except ValueError as error:
                bad.append(Fault(self.name, "bad_file", f"{self._path / name} is ignored: {error}"))
                continue
            claims += [
                SourceClaim(self.name, "slurm", j.job_id, *gpu, 1, len(jobs), job=j) for j in jobs
            ]
        self._claims, self._bad = _best_named(claims), tuple(bad)
        self._jobs = tuple({claim.job_id: claim.job for claim in self._claims}.values())

    def _gpu(self, name: str) -> Gpu | None:
        if (numbers := _GPU.fullmatch(name)) is None:
            return gpu_of_uuid(name)
        instance = int(numbers[2]) if numbers[2] else None
        return Gpu(str(int(numbers[1])), self._numbering, "", instance)

    def _jobs_in(self, file: SmallFile) -> Iterator[JobFacts]:
        raise NotImplementedError


class DcgmJobMapping(_MappingFiles):
    """The directory of dcgm-exporter's `--hpc-job-mapping-dir`.

    Each file is named after a GPU (`0`, or `0.2` for GPU instance 2 of it) and holds the ids of
    the jobs on it, one a line; an empty file is a GPU without a job.

    Source: internal/pkg/transformation/hpc.go and README.md of NVIDIA/dcgm-exporter; the form
    `GPU.INSTANCE` by its pull request 602.

    Args:
        clock: tells files of an earlier boot; such a directory may outlive it.
        directory: has no default, dcgm-exporter has none either.
        trusted_uids: who may own it and its files.
        numbering: DCGM's GPU ids follow NVML's index.
        alive: see `Liveness`.
        grace_ns: see `Liveness`.
    """

    name = "dcgm"

    def _jobs_in(self, file: SmallFile) -> Iterator[JobFacts]:
        ids = list(dict.fromkeys(line.strip() for line in file.text.splitlines() if line.strip()))
        if len(ids) > _MAX_JOBS:
            raise ValueError(f"more than {_MAX_JOBS} jobs on one GPU")
        for job_id in ids:
            if not JOB_ID.fullmatch(job_id):
                raise ValueError(f"{job_id[:40]!r} is not a Slurm job's number")
            yield JobFacts("slurm", job_id, since_ns=file.mtime_ns)


class JobstatsFiles(_MappingFiles):
    """The files of jobstats' Slurm hooks: `JOBID UID` in a file named by the GPU's number or UUID.

    A GPU has two files, one by number and one by UUID, where `nvidia-smi` could be asked; the
    UUID is then the one that counts.

    Source: slurm/prolog.d/gpustats_helper.sh and docs/setup/gpu_node_scripts.md of
    PrincetonUniversity/jobstats; its exporter compares the number with NVML's index.

    Args:
        clock: tells files of an earlier boot.
        directory: jobstats has `JOBSTATS_DIRECTORY`.
        trusted_uids: who may own it and its files.
        numbering: what the number means: its exporter takes it for NVML's index.
        alive: see `Liveness`.
        grace_ns: see `Liveness`.
    """

    name = "jobstats"

    def _jobs_in(self, file: SmallFile) -> Iterator[JobFacts]:
        if not file.text:
            return
        found = _JOB_AND_UID.fullmatch(file.text)
        if found is None or int(found[2]) > 2**32 - 2:
            raise ValueError("it does not hold a job's number and a user's")
        yield JobFacts("slurm", found[1], uid=int(found[2]), since_ns=file.mtime_ns)


def _best_named(claims: list[SourceClaim]) -> tuple[SourceClaim, ...]:
    """Drops a job's claims by number where it has claims by UUID: they are the same GPUs."""
    by_uuid = {claim.job_id for claim in claims if claim.gpu_by is GpuBy.UUID}
    return tuple(
        claim for claim in claims if claim.gpu_by is GpuBy.UUID or claim.job_id not in by_uuid
    )
