"""Which jobs run and what they use, from the cgroups of this node.

A run is (manager, id, start). What tells one from the next of the same id (ids are used again, a
requeued job keeps its own) is the inode of its cgroup, which the kernel counts upward and does not
give twice in a boot. Its start is the directory's ctime at first sight, kept between boot and now:
that is when the manager made it, unless it was made while nobody looked and has left the kernel's
cache since; then it is when we first saw it. Once seen, it stays: a restarted daemon knows the run
by inode and boot id from the ledger.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from wattledger.jobs.counters import Cgroup, read_counters
from wattledger.jobs.hierarchy import find_layout, some_pids
from wattledger.jobs.holders import Located, Locator
from wattledger.jobs.names import UserNames
from wattledger.jobs.paths import Paths, Place
from wattledger.jobs.shares import shares_of
from wattledger.jobs.tree import Tree
from wattledger.model import Instant, Payee
from wattledger.model.jobs import SLURM, Claim, JobKey, JobRun, Survey, job_payee
from wattledger.model.measuring import GpuNames, Process
from wattledger.units import NS_PER_S

UID_TRIES = 8
LAYOUT_RETRY_NS = 60 * NS_PER_S


class Description(NamedTuple):
    """What a scheduler says of a job."""

    uid: int | None
    labels: Mapping[str, str]


class _Run:
    """A run in the making."""

    __slots__ = (
        "cgroups",
        "dormant",
        "labels",
        "payee",
        "seen_ns",
        "uid",
        "uid_due_ns",
        "uid_tries",
        "used_ns",
    )

    def __init__(self, payee: Payee, uid: int | None, labels: Mapping[str, str]) -> None:
        self.payee = payee
        self.uid = uid
        self.labels = labels
        self.cgroups: dict[str, Cgroup] = {}
        self.used_ns = 0
        self.seen_ns = 0
        self.dormant = False
        self.uid_tries = 0
        self.uid_due_ns = 0


class JobWatch:
    """Surveys the jobs of a node. All methods are called from one thread."""

    def __init__(
        self,
        paths: Paths,
        *,
        sysfs: Path = Path("/sys"),
        procfs: Path = Path("/proc"),
        boot_id: str = "",
        remembered: Iterable[JobRun] = (),
        names: UserNames | None = None,
        claims: Callable[[], Sequence[Claim]] = tuple,
        gpus: Callable[[], Sequence[GpuNames]] = tuple,
        describe: Callable[[JobKey], Description | None] = lambda _: None,
        sluid: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """A watch that has not looked yet.

        Args:
            paths: which cgroups are jobs'.
            sysfs: where sysfs is mounted.
            procfs: where procfs is mounted.
            boot_id: of this boot.
            remembered: the runs that the ledger knows as running.
            names: users' names.
            claims: what others than cgroups and processes say of who holds a GPU. Never blocks.
            gpus: this node's GPUs, as they are cut up now. Never blocks.
            describe: what a scheduler says of a job; None: nothing. Never blocks.
            sluid: the job number of a SLUID of Slurm's; None: not known. Never blocks.
        """
        self._paths = paths
        self._sysfs = sysfs
        self._procfs = procfs
        self._boot_id = boot_id
        self._remembered: dict[JobKey, list[JobRun]] = {}
        for run in remembered:
            self._remembered.setdefault(run.key, []).append(run)
        self._names = names or UserNames()
        self._claims = claims
        self._gpus = gpus
        self._describe = describe
        self._sluid = sluid
        self._layout = find_layout(sysfs)
        self._layout_due_ns = 0
        self._trees = [Tree(base, paths) for base in self._layout.walked()]
        self._locator = Locator(procfs, paths)
        self._running: dict[JobKey, _Run] = {}
        self._adopted: dict[str, Place] = {}  # units that are jobs since they were on a GPU
        self._aliases: dict[str, str] = {}  # SLUID → job number, as it was at first sight
        self._first = True
        self._cpus = os.cpu_count() or 1
        self._memory_total = _memory_total(procfs)

    @property
    def listings(self) -> int:
        """How many directories were listed so far, for tests of what a look costs."""
        return sum(tree.listings for tree in self._trees)

    def survey(
        self,
        now: Instant,
        busy_ns: int | None = None,
        processes: Mapping[str, tuple[Process, ...]] = MappingProxyType({}),
    ) -> Survey:
        """Look around once.

        Args:
            now: this moment.
            busy_ns: CPU time that the node was busy, as counted since boot; None: unknown.
            processes: GPU → the processes that its driver lists.
        """
        self._find_hierarchies(now)
        located = self._locator.locate(processes, now.monotonic_ns)
        present = self._present(now, located)
        ended = self._match(present, now)
        cgroups = {p: c for run in self._running.values() for p, c in run.cgroups.items()}
        used = read_counters(self._layout, cgroups, now, self._cpus)
        alive: dict[JobKey, _Run] = {}
        for key, run in self._running.items():
            run.used_ns += sum(used.get(path, 0) for path in run.cgroups)
            if all(cgroup.empty for cgroup in run.cgroups.values()):
                if not run.dormant:
                    ended.append(self._record(run, end_ns=run.seen_ns))
                run.dormant = True
                continue
            run.dormant = False
            run.seen_ns = now.wall_ns
            self._find_out(key, run, now)
            alive[key] = run
        self._first = False
        return self._result(now, busy_ns, alive, located, ended)

    # ── what is there ───────────────────────────────────────────────────────────────────────────

    def _find_hierarchies(self, now: Instant) -> None:
        if self._trees or now.monotonic_ns < self._layout_due_ns:
            return
        self._layout_due_ns = now.monotonic_ns + LAYOUT_RETRY_NS
        self._layout = find_layout(self._sysfs)
        self._trees = [Tree(base, self._paths) for base in self._layout.walked()]
        self._first = True  # what is there now was there before

    def _present(
        self, now: Instant, located: Mapping[str, Located]
    ) -> dict[JobKey, dict[str, Cgroup]]:
        """Jobs' cgroups that exist now, by job and path."""
        found: dict[str, Cgroup] = {}
        for number, tree in enumerate(self._trees):
            for place, inode, changed_ns in tree.walk(now.monotonic_ns):
                cgroup = found.get(place.cgroup)
                if cgroup is None:
                    cgroup = found[place.cgroup] = Cgroup(place, changed_ns)
                cgroup.inodes[number] = inode
        for one in located.values():
            for place in one.places:
                if place.cgroup not in found:
                    self._adopted.setdefault(place.cgroup, place)
        for path, place in list(self._adopted.items()):
            inodes, changed_ns = self._stat(path)
            if not inodes or path in found:
                del self._adopted[path]
                continue
            found[path] = Cgroup(place, changed_ns)
            found[path].inodes.update(inodes)
        jobs: dict[JobKey, dict[str, Cgroup]] = {}
        for path, cgroup in found.items():
            jobs.setdefault(self._key(cgroup.place), {})[path] = cgroup
        return jobs

    def _stat(self, path: str) -> tuple[dict[int, int], int]:
        inodes, changed_ns = {}, 0
        for number, base in enumerate(self._layout.walked()):
            try:
                status = os.lstat(base + path)
            except OSError:
                continue
            inodes[number] = status.st_ino
            changed_ns = changed_ns or status.st_ctime_ns
        return inodes, changed_ns

    def _key(self, place: Place) -> JobKey:
        job_id = place.job_id
        if place.manager == SLURM and not job_id.isdigit():
            # Asked at first sight only: the prolog has run by then, and a run keeps its name.
            known = self._aliases.get(job_id)
            if known is None:
                known = self._aliases[job_id] = self._sluid(job_id) or job_id
            job_id = known
        return JobKey(place.manager, job_id)

    # ── runs ────────────────────────────────────────────────────────────────────────────────────

    def _match(self, present: dict[JobKey, dict[str, Cgroup]], now: Instant) -> list[JobRun]:
        """Bring the runs up to what is there; returns those that have ended."""
        ended: list[JobRun] = []
        for key, run in list(self._running.items()):
            cgroups = present.get(key, {})
            kept = {
                path: old
                for path, old in run.cgroups.items()
                if path in cgroups and old.is_same(cgroups[path])
            }
            if kept:
                for path, old in kept.items():
                    old.inodes = cgroups[path].inodes
                for path, cgroup in cgroups.items():
                    if path not in kept:  # another slurmd has begun its part of the job
                        cgroup.raw_ns = 0
                        kept[path] = cgroup
                run.cgroups = kept
            else:
                del self._running[key]
                if not run.dormant:
                    ended.append(self._record(run, end_ns=run.seen_ns))
        for key, cgroups in present.items():
            if key not in self._running:
                self._running[key] = self._begin(key, cgroups, now)
        if self._first:
            for runs in self._remembered.values():
                ended += [_ended(run) for run in runs]
            self._remembered.clear()
        elif len(self._aliases) > 4 * len(present) + 64:
            names = {cgroup.place.job_id for run in present.values() for cgroup in run.values()}
            self._aliases = {s: job for s, job in self._aliases.items() if s in names}
        return ended

    def _begin(self, key: JobKey, cgroups: dict[str, Cgroup], now: Instant) -> _Run:
        place = next(iter(cgroups.values())).place
        known = self._recall(key, cgroups)
        if known is None:
            boot_ns = now.wall_ns - now.boottime_ns
            made_ns = min(cgroup.changed_ns for cgroup in cgroups.values())
            start_ns = made_ns if boot_ns <= made_ns <= now.wall_ns else now.wall_ns
            run = _Run(job_payee(*key, start_ns), place.uid, dict(place.labels))
        else:
            run = _Run(known.payee, known.uid, known.labels)
        run.cgroups = cgroups
        if known is not None and len(cgroups) == 1:
            next(iter(cgroups.values())).raw_ns = known.cpu_ns
        if not self._first:
            for path, cgroup in cgroups.items():
                if path not in self._adopted:
                    cgroup.raw_ns = 0  # made since the last look: all it used is new
        return run

    def _recall(self, key: JobKey, cgroups: dict[str, Cgroup]) -> JobRun | None:
        """The run as the ledger knows it, if this is the same."""
        inodes = {inode for cgroup in cgroups.values() for inode in cgroup.inodes.values()}
        for run in self._remembered.get(key, ()):
            if run.boot_id == self._boot_id and run.inode in inodes:
                self._remembered[key].remove(run)
                return run
        return None

    def _find_out(self, key: JobKey, run: _Run, now: Instant) -> None:
        """Whose it is, and what it is called; asked again until it is known, but not for ever."""
        described = self._describe(key)
        labels = dict(run.labels)
        if described is not None:
            run.uid = described.uid if described.uid is not None else run.uid
            labels.update({name: text for name, text in described.labels.items() if text})
        if (
            run.uid is None
            and key.manager == SLURM
            and run.uid_tries < UID_TRIES
            and now.monotonic_ns >= run.uid_due_ns
        ):
            run.uid_due_ns = now.monotonic_ns + (NS_PER_S << run.uid_tries)
            run.uid_tries += 1
            run.uid = self._owner(next(iter(run.cgroups)))
        if run.uid is not None and not labels.get("user"):
            name = self._names.name(run.uid)
            if name:
                labels["user"] = name
        if labels != run.labels:
            run.labels = labels

    def _owner(self, cgroup: str) -> int | None:
        """The user whose processes are in it; root's own (slurmstepd) do not count."""
        for pid in some_pids(self._layout, cgroup):
            try:
                uid = (self._procfs / str(pid)).stat().st_uid
            except OSError:
                continue
            if uid:
                return uid
        return None

    # ── the answer ──────────────────────────────────────────────────────────────────────────────

    def _record(self, run: _Run, end_ns: int = 0) -> JobRun:
        path, cgroup = next(iter(run.cgroups.items()))
        return JobRun(
            payee=run.payee,
            uid=run.uid,
            labels=run.labels,
            cgroup=path,
            inode=next(iter(cgroup.inodes.values()), 0),
            boot_id=self._boot_id,
            cpu_ns=cgroup.raw_ns if len(run.cgroups) == 1 else None,
            last_seen_ns=run.seen_ns,
            end_ns=end_ns,
        )

    def _result(
        self,
        now: Instant,
        busy_ns: int | None,
        alive: Mapping[JobKey, _Run],
        located: Mapping[str, Located],
        ended: Sequence[JobRun],
    ) -> Survey:
        memory: dict[Payee, int] = {}
        cpusets: dict[Payee, int] = {}
        for run in alive.values():
            held = sum(cgroup.memory_bytes or 0 for cgroup in run.cgroups.values())
            if held:
                memory[run.payee] = held
            own = sum(cgroup.cpuset_ppm for cgroup in run.cgroups.values())
            if own:
                cpusets[run.payee] = own

        def run_of(place: Place) -> Payee | None:
            run = alive.get(self._key(place))
            return run.payee if run is not None else None

        shares = shares_of(located, run_of, self._gpus() if located else ())
        return Survey(
            at=now,
            runs={run.payee: self._record(run) for run in alive.values()},
            ended=tuple(ended),
            cpu_ns={run.payee: run.used_ns for run in alive.values()},
            busy_ns=busy_ns,
            memory_bytes=memory,
            memory_total_bytes=self._memory_total,
            cpuset_ppm=cpusets,
            processes=shares.processes,
            sm=shares.sm,
            strangers=frozenset(d for d, one in located.items() if one.strangers),
            claims=(*self._claims(), *shares.claims),
        )


def _ended(run: JobRun) -> JobRun:
    """A run that ended while no daemon was looking: paid until its last sign of life."""
    return replace(run, end_ns=run.last_seen_ns or run.payee.start_ns)


def _memory_total(procfs: Path) -> int:
    """MemTotal in bytes; 0: not told."""
    try:
        for line in (procfs / "meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return 0
    return 0
