"""All sources together: who holds which GPU, by UUID, and what is known of the jobs.

One thread calls `look`, which may block for as long as a source may; any other may ask for the
result at any time. The result is replaced as a whole, never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from wattledger.jobs.claims.faults import FaultLog
from wattledger.jobs.claims.records import ClaimSource, GpuBy, JobFacts, SourceClaim
from wattledger.jobs.claims.slurm_hooks import SlurmHooks
from wattledger.model import Fault
from wattledger.model.jobs import WHOLE_SHARE_PPM, Claim, JobKey
from wattledger.model.measuring import GpuNames, MigInstance

Ended = tuple[tuple[JobFacts, tuple[SourceClaim, ...]], ...]
_Said = tuple[tuple[SourceClaim, ...], tuple[JobFacts, ...], Ended]


class _View(NamedTuple):
    claims: tuple[Claim, ...] = ()
    jobs: Mapping[JobKey, JobFacts] = {}
    sluids: Mapping[str, str] = {}
    ended: tuple[tuple[JobFacts, tuple[Claim, ...]], ...] = ()
    faults: tuple[Fault, ...] = ()


class Bindings:
    """Asks all sources and translates what they say.

    Args:
        gpus: this node's GPUs by all their names, as they are now.
    """

    def __init__(self, gpus: Callable[[], Sequence[GpuNames]]) -> None:
        self._gpus = gpus
        self._sources: tuple[ClaimSource, ...] = ()
        self._faults = FaultLog("bindings")
        self._running: frozenset[JobKey] = frozenset()
        self._with_cgroups: frozenset[str] = frozenset()
        self._view = _View()
        self._known: tuple[GpuNames, ...] = ()
        self._table = _Table(())
        self._said: list[_Said] = []

    def ask(self, *sources: ClaimSource) -> None:
        """Ask these from now on; apart from `__init__`, since they are given `alive`."""
        self._sources = sources

    def look(self) -> None:
        """Ask every source once. Never raises for what is outside; may block as a source may."""
        gpus = tuple(self._gpus())
        said = [(source.claims(), source.jobs(), _ended(source)) for source in self._sources]
        told = tuple(fault for source in self._sources for fault in source.faults())
        # Sources give the same tuples again where nothing changed.
        if gpus != self._known or not _same(said, self._said):
            if gpus != self._known:
                self._known, self._table = gpus, _Table(gpus)
            self._said = said
            self._translate(self._table)
        self._view = self._view._replace(faults=(*told, *self._faults.now))

    def _translate(self, table: _Table) -> None:
        claims: list[Claim] = []
        jobs: dict[JobKey, JobFacts] = {}
        over: list[tuple[JobFacts, tuple[Claim, ...]]] = []
        unknown: list[Fault] = []
        for claimed, known, ended in self._said:
            claims += table.bind(claimed, unknown)
            over += [(job, tuple(table.bind(held, []))) for job, held in ended]
            for job in known:
                if job.job_id:
                    jobs.setdefault(JobKey(job.manager, job.job_id), job)
        for job, _ in over:
            jobs.setdefault(JobKey(job.manager, job.job_id), job)
        self._faults.replace(unknown)
        sluids = {job.sluid: job.job_id for job in jobs.values() if job.sluid}
        self._view = _View(tuple(claims), jobs, sluids, tuple(over))

    def saw(self, running: Iterable[JobKey]) -> None:
        """The jobs that have a cgroup now; what `alive` answers by."""
        self._running = frozenset(running)
        self._with_cgroups |= {key.manager for key in self._running}

    def alive(self, manager: str, job_id: str) -> bool | None:
        """Whether a job has a cgroup; None: no job of this manager ever had one here."""
        if JobKey(manager, job_id) in self._running:
            return True
        return False if manager in self._with_cgroups else None

    def gpus(self) -> tuple[GpuNames, ...]:
        """This node's GPUs by all their names, as they are now."""
        return tuple(self._gpus())

    def claims(self) -> tuple[Claim, ...]:
        """Who holds what, as of the last look: the most trusted source's claims first."""
        return self._view.claims

    def job(self, key: JobKey) -> JobFacts | None:
        """What is known of a job, as of the last look."""
        return self._view.jobs.get(key)

    def jobs(self) -> Mapping[JobKey, JobFacts]:
        """All that is known, as of the last look."""
        return self._view.jobs

    def sluid(self, sluid: str) -> str | None:
        """The number of the Slurm job with this SLUID."""
        return self._view.sluids.get(sluid)

    def ended(self) -> tuple[tuple[JobFacts, tuple[Claim, ...]], ...]:
        """The last Slurm jobs that ended here, and what they had held; `end_ns` says when."""
        return self._view.ended

    def faults(self) -> tuple[Fault, ...]:
        """What was wrong at the last look."""
        return self._view.faults


class _Table:
    """This node's GPUs, to be found by any of their names."""

    def __init__(self, gpus: Sequence[GpuNames]) -> None:
        self._by = {
            GpuBy.UUID: {gpu.uuid: gpu for gpu in gpus},
            GpuBy.INDEX: {str(gpu.nvml_index): gpu for gpu in gpus},
            GpuBy.MINOR: {str(gpu.minor): gpu for gpu in gpus if gpu.minor is not None},
        }
        self._mig = {one.uuid: (gpu, one) for gpu in gpus for one in gpu.instances}

    def bind(self, said: Sequence[SourceClaim], unknown: list[Fault]) -> list[Claim]:
        """The claims by UUID, one for each job and GPU; what cannot be found is told of."""
        shares: dict[tuple[JobKey, str], tuple[int, bool, str]] = {}
        for one in said:
            found = self._find(one)
            if found is None:
                what = one.mig_uuid or f"{one.gpu} (by {one.gpu_by})"
                job = one.job_id or f"{one.job.namespace}/{one.job.pod}"
                message = (
                    f"{one.source} says that {one.manager} {job} holds GPU {what}: no such GPU"
                )
                unknown.append(Fault("bindings", "unknown_gpu", message))
                continue
            gpu, share_ppm = found
            exact = one.share_num >= one.share_den
            key = (JobKey(one.manager, one.job_id), gpu.uuid)
            before_ppm, before_exact, _ = shares.get(key, (0, True, ""))
            share_ppm = before_ppm + share_ppm * one.share_num // one.share_den
            share = (min(share_ppm, WHOLE_SHARE_PPM), exact and before_exact, one.source)
            shares[key] = share
        return [
            Claim(job.manager, job.job_id, device, share_ppm, source, exact)
            for (job, device), (share_ppm, exact, source) in shares.items()
        ]

    def _find(self, one: SourceClaim) -> tuple[GpuNames, int] | None:
        """The GPU, and the millionths of it that the claimed part is."""
        if one.mig_uuid in self._mig:
            gpu, instance = self._mig[one.mig_uuid]
            return gpu, _part(gpu, instance)
        known = self._by[one.gpu_by].get(one.gpu)
        if known is None or (one.mig_uuid and one.gpu_instance is None):
            return None
        if one.gpu_instance is None:
            return known, WHOLE_SHARE_PPM
        for instance in known.instances:
            if instance.gpu_instance == one.gpu_instance:
                return known, _part(known, instance)
        return None


def _part(gpu: GpuNames, instance: MigInstance) -> int:
    return min(WHOLE_SHARE_PPM * instance.slices // max(gpu.slices, 1), WHOLE_SHARE_PPM)


def _ended(source: ClaimSource) -> Ended:
    return source.ended() if isinstance(source, SlurmHooks) else ()


def _same(said: list[_Said], before: list[_Said]) -> bool:
    """Both are of the very same tuples."""
    return len(said) == len(before) and all(
        one is other
        for new, old in zip(said, before, strict=True)
        for one, other in zip(new, old, strict=True)
    )
