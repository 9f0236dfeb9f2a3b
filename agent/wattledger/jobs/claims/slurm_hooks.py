"""Slurm's own word: the files that the prolog and epilog of `deploy/slurm` keep."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from wattledger.jobs.claims.directory import DirectoryState, SmallFile, TrustedDirectory
from wattledger.jobs.claims.faults import FaultLog
from wattledger.jobs.claims.job_names import JobNames
from wattledger.jobs.claims.liveness import GRACE_NS, Liveness
from wattledger.jobs.claims.records import Alive, GpuBy, JobFacts, SourceClaim
from wattledger.jobs.claims.slurm_text import JobFile, parse_job_file
from wattledger.model import Fault
from wattledger.ports import Clock

DIRECTORY = Path("/run/wattledger-jobs")
_WANTED = re.compile(r"[0-9]{1,10}|ended\.[0-9]{1,3}", re.ASCII)
_ID_LINE = re.compile(r"^id=([0-9]{1,10})$", re.ASCII | re.MULTILINE)


class SlurmHooks:
    """Jobs and their GPUs as the node's prolog wrote them down.

    One file per job; the prolog renames it into place, the epilog renames it to one of 256
    `ended.N`, so that a job that came and went between two looks is still told of.

    Sources: Slurm's Prolog and Epilog Guide (https://slurm.schedmd.com/prolog_epilog.html) for
    the variables; `SLURM_JOB_SLUID` by the changelog of Slurm 25.11; the form of a SLUID by
    src/common/sluid.c of Slurm.

    Args:
        clock: for `Liveness`, and its `boot_id` tells which files are of this boot.
        directory: where the hooks write.
        trusted_uids: who may own it and its files: root, or a lone user's own slurmd.
        numbering: what Slurm's GPU numbers mean on this node.
        order: UUIDs of GPUs or MIG instances in the order of gres.conf, where set.
        names: looks up jobs' names and array ids; None: they are not known here.
        alive: tells which jobs have a cgroup; see `Liveness`.
        grace_ns: see `Liveness`.
    """

    name = "slurm"

    def __init__(
        self,
        clock: Clock,
        directory: Path = DIRECTORY,
        *,
        trusted_uids: Collection[int] = (0,),
        numbering: GpuBy = GpuBy.MINOR,
        order: Sequence[str] = (),
        names: JobNames | None = None,
        alive: Alive | None = None,
        grace_ns: int = GRACE_NS,
    ) -> None:
        self._clock = clock
        self._path = directory
        self._directory = TrustedDirectory(
            self.name, directory, _WANTED, trusted_uids=trusted_uids, atomic=True
        )
        self._numbering = numbering
        self._order = tuple(order)
        self._names = names
        self._liveness = Liveness(self.name, clock, alive, grace_ns)
        self._faults = FaultLog(self.name)
        self._state: DirectoryState | None = None
        self._parsed: dict[tuple[str, SmallFile], JobFile | Fault | None] = {}
        self._held: tuple[JobFile, ...] = ()
        self._ended: tuple[JobFile, ...] = ()
        self._bad: tuple[Fault, ...] = ()
        self._jobs: tuple[JobFacts, ...] = ()
        self._claims: tuple[SourceClaim, ...] = ()
        self._over: tuple[tuple[JobFacts, tuple[SourceClaim, ...]], ...] = ()
        self._version = 0
        self._nameless: list[tuple[str, int]] = []

    def claims(self) -> tuple[SourceClaim, ...]:
        """Who holds which GPU now."""
        state = self._directory.look()
        version = 0
        if state is not self._state:
            self._read(state)
        if self._names is not None:
            for job_id, run_ns in self._nameless:
                self._names.of(job_id, run_ns)
            version = self._names.version
        if state is not self._state or version != self._version:
            self._state, self._version = state, version
            if self._names is not None:
                self._list_nameless(self._names)
            held = [self._named(one) for one in self._held]
            self._jobs = tuple(one.job for one in held)
            self._claims = tuple(claim for one in held for claim in self._claims_of(one))
            over = [self._named(one) for one in self._ended]
            self._over = tuple((one.job, self._claims_of(one)) for one in over)
        kept, stale = self._liveness.sift(self._claims)
        named = self._names.faults() if self._names is not None else ()
        self._faults.replace((*self._bad, *stale, *named))
        return kept

    def jobs(self) -> tuple[JobFacts, ...]:
        """Every job with a file, with or without GPUs."""
        return self._jobs

    def ended(self) -> tuple[tuple[JobFacts, tuple[SourceClaim, ...]], ...]:
        """The last 256 or so jobs that ended here, and what they had held.

        As of the last `claims()`; the same tuple as long as nothing changes.
        """
        return self._over

    def faults(self) -> tuple[Fault, ...]:
        """What was wrong at the last `claims()`."""
        return self._faults.now

    def _read(self, state: DirectoryState) -> None:
        held: list[JobFile] = []
        ended: list[JobFile] = []
        bad = list(state.faults)
        parsed: dict[tuple[str, SmallFile], JobFile | Fault | None] = {}
        for name in sorted(state.files):
            key = (name, state.files[name])
            what = self._parsed[key] if key in self._parsed else self._parse(*key)
            parsed[key] = what
            if isinstance(what, Fault):
                bad.append(what)
            elif what is not None:
                (ended if what.job.end_ns else held).append(what)
        self._parsed = parsed
        self._held, self._ended, self._bad = tuple(held), tuple(ended), tuple(bad)
        self._nameless = [(one.job.job_id, one.job.since_ns) for one in (*held, *ended)]

    def _parse(self, name: str, file: SmallFile) -> JobFile | Fault | None:
        """A job's file; None: it is of an earlier boot."""
        over = name.startswith("ended.")
        job_id = name
        if over:
            found = _ID_LINE.search(file.text)
            job_id = found[1] if found else ""
        try:
            one = parse_job_file(job_id, file.text, self._numbering, self._order)
        except ValueError as error:
            message = f"{self._path / name} is ignored: {error}"
            return Fault(self.name, "bad_file", message, "only the prolog writes these files")
        if one.boot_id and one.boot_id != self._clock.boot_id:
            return None
        return one._replace(
            job=one.job._replace(since_ns=file.mtime_ns, end_ns=file.ctime_ns if over else 0)
        )

    def _list_nameless(self, names: JobNames) -> None:
        known = [*self._held, *self._ended]
        names.forget_all_but({one.job.job_id for one in known})
        self._nameless = [
            (one.job.job_id, one.job.since_ns)
            for one in known
            if not names.has(one.job.job_id, one.job.since_ns)
        ]

    def _named(self, one: JobFile) -> JobFile:
        if self._names is None:
            return one
        name, array_job, array_task = self._names.of(one.job.job_id, one.job.since_ns)
        return one._replace(
            job=one.job._replace(name=name, array_job_id=array_job, array_task_id=array_task)
        )

    def _claims_of(self, one: JobFile) -> tuple[SourceClaim, ...]:
        share = (one.mps_percent, 100) if one.mps_percent else (1, 1)
        return tuple(
            SourceClaim(self.name, one.job.manager, one.job.job_id, *gpu, *share, job=one.job)
            for gpu in one.gpus
        )
