"""Which jobs run and what they use, from the cgroups of this node.

What came and went is seen by `newcomers`, the runs are kept by `roll`, their counters are read by
`counters`; here it becomes a survey.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from wattledger.jobs import hierarchy
from wattledger.jobs.afterwards import Afterwards, Past
from wattledger.jobs.counters import Counters
from wattledger.jobs.hierarchy import find_layout
from wattledger.jobs.holders import Located, Locator
from wattledger.jobs.names import UserNames
from wattledger.jobs.newcomers import STEP_NS, Newcomers, Sighting
from wattledger.jobs.paths import Paths, Place
from wattledger.jobs.roll import Roll, Run
from wattledger.jobs.shares import shares_of
from wattledger.jobs.tree import MAX_OF_A_USER, Found
from wattledger.model import Instant, Payee
from wattledger.model.jobs import SLURM, UNIT, Claim, JobKey, JobRun, Survey
from wattledger.model.measuring import GpuNames, Process
from wattledger.units import NS_PER_S, seconds

UID_TRIES = 8
UIDS_IN_A_SURVEY = 64
LAYOUT_RETRY_NS = 60 * NS_PER_S
# What a scheduler says of a job may change in its first moments, and seldom after.
FIRST_MOMENTS_NS = 15 * NS_PER_S
ABOUT_NS = 10 * NS_PER_S


class Description(NamedTuple):
    """What a scheduler says of a job."""

    uid: int | None
    labels: Mapping[str, str]


class JobWatch:
    """Surveys the jobs of a node.

    `step` may be called from a thread of its own, all else from another.
    """

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
        past: Past = tuple,
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
            past: the last Slurm jobs that ended here and what they had held; the same object as
                long as nothing changes. Never blocks.
        """
        self._paths = paths
        self._sysfs = sysfs
        self._procfs = procfs
        self._boot_id = boot_id
        self._remembered = tuple(remembered)
        self._names = names or UserNames()
        self._claims = claims
        self._gpus = gpus
        self._describe = describe
        self._locator = Locator(procfs, paths)
        self._roll = Roll(boot_id, self._remembered, sluid)
        self._afterwards = Afterwards(boot_id, past, self._described)
        self._adopted: dict[str, Place] = {}  # jobs since one of their processes was on a GPU
        self._first = True
        self._uids_left = 0
        self._memory_total = _memory_total(procfs)
        self._layout_due_ns = 0
        self._find_hierarchies()

    @property
    def listings(self) -> int:
        """How many directories were listed so far, for tests of what a look costs."""
        return self._newcomers.listings

    def rest(self, most_s: float) -> bool:
        """Wait, but not longer than that, while no job comes or goes; for the thread of `step`.

        Returns:
            It is time for a `step`.
        """
        return self._newcomers.rest(most_s)

    def step(self, now: Instant) -> float:
        """Look briefly whether jobs came or went; thread-safe, for a thread of its own.

        Returns:
            In how many seconds to do so again.
        """
        return self._newcomers.step(now) if self._layout.walked() else seconds(10 * STEP_NS)

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
        if not self._layout.walked() and now.monotonic_ns >= self._layout_due_ns:
            self._layout_due_ns = now.monotonic_ns + LAYOUT_RETRY_NS
            self._find_hierarchies()
        self._uids_left = UIDS_IN_A_SURVEY
        located = self._locator.locate(processes, now.monotonic_ns)
        over, ended = self._match(located, now)
        for path in self._counters.read(self._roll.cgroups, now.monotonic_ns):
            self._newcomers.doubt(path)
        claims = tuple(self._claims())
        used_ns: dict[Payee, int] = {}
        for run in ended:
            over.append(self._end(run, claims, now))
            used_ns[run.payee] = run.tally.used_ns
        alive: list[Run] = []
        for run in self._roll.running.values():
            if run.naming_until_ns:
                continue
            if all(cgroup.empty for cgroup in run.cgroups.values()):
                if not run.dormant:
                    run.dormant = True
                    if run.told:  # else it has outlived a job that nobody here knew
                        used_ns[run.payee] = run.tally.used_ns
                        record = run.record(self._boot_id, run.seen_ns)
                        over.append(self._note(record, now, seen=True))
                continue
            run.dormant = False
            run.told = True
            if run.tally.alive_ns == now.monotonic_ns:
                run.seen_ns = now.wall_ns
            self._find_out(run, now)
            used_ns[run.payee] = run.tally.used_ns
            alive.append(run)
        over += self._afterwards.news(now, self._start_of)
        return self._result(now, busy_ns, alive, located, over, used_ns, claims)

    # ── what is there ───────────────────────────────────────────────────────────────────────────

    def _find_hierarchies(self) -> None:
        self._layout = find_layout(self._sysfs)
        self._newcomers = Newcomers(self._layout, self._paths, self._procfs)
        self._counters = Counters(self._layout, os.cpu_count() or 1)

    def _match(
        self, located: Mapping[str, Located], now: Instant
    ) -> tuple[list[JobRun], list[Run]]:
        """Bring the roll up to what is there; returns what ended unseen, and what has ended."""
        seen = self._newcomers.take(now)
        over: list[JobRun] = []
        if self._first:
            self._first = False
            seen += self._units_again({one.found.place.cgroup for one in seen}, now)
            over = [self._note(run, now, seen=True) for run in self._roll.recall(seen)]
        ended = self._roll.take(seen, now)
        ended += self._roll.take(self._adoptions(located, now), now, late=True)
        return over, ended

    def _units_again(self, found: set[str], now: Instant) -> list[Sighting]:
        """The units that were jobs since they hold a GPU, as far as they are still there."""
        seen: list[Sighting] = []
        for run in self._remembered:
            place = next(iter(self._paths.places(run.cgroup, any_unit=True)), None)
            if place is None or run.payee.manager != UNIT or run.cgroup in found:
                continue
            if place.cgroup == run.cgroup:
                self._adopted[run.cgroup] = place
                seen += self._look_at(place, now)
        return seen

    def _adoptions(self, located: Mapping[str, Located], now: Instant) -> list[Sighting]:
        """Cgroups that no tree looks for, but one of their processes is or was on a GPU."""
        for one in located.values():
            for place in one.places:
                if place.cgroup not in self._roll.cgroups and self._may_adopt(place):
                    self._adopted.setdefault(place.cgroup, place)
        seen: list[Sighting] = []
        for path, place in list(self._adopted.items()):
            there = self._look_at(place, now)
            known = self._roll.cgroups.get(path)
            inodes = dict(known.inodes) if known is not None else {}
            now_there = {one.number: one.found.inode for one in there}
            for number, inode in inodes.items():
                if now_there.get(number) != inode:
                    gone = Found(place, inode, 0, fresh=False)
                    seen.append(Sighting(number, gone, False, 0))
            seen += [one for one in there if inodes.get(one.number) != one.found.inode]
            if not there:
                del self._adopted[path]
        return seen

    def _may_adopt(self, place: Place) -> bool:
        if not place.rootless:
            return True
        others = (c.place for c in self._roll.cgroups.values())
        known = sum(1 for other in others if other.rootless and other.uid == place.uid)
        waiting = sum(1 for other in self._adopted.values() if other.uid == place.uid)
        return known + waiting < MAX_OF_A_USER

    def _look_at(self, place: Place, now: Instant) -> list[Sighting]:
        seen: list[Sighting] = []
        for number, base in enumerate(self._layout.walked()):
            try:
                status = os.lstat(base + place.cgroup)
            except OSError:
                continue
            found = Found(place, status.st_ino, status.st_ctime_ns, fresh=False)
            seen.append(Sighting(number, found, True, now.wall_ns))
        return seen

    # ── runs ────────────────────────────────────────────────────────────────────────────────────

    def _start_of(self, key: JobKey) -> int | None:
        run = self._roll.running.get(key)
        return run.payee.start_ns if run is not None else None

    def _end(self, run: Run, claims: Sequence[Claim], now: Instant) -> JobRun:
        """A run as it ended."""
        self._find_out(run, now)
        record = self._afterwards.held(run.record(self._boot_id, run.end_ns), claims)
        return self._note(record, now, seen=run.told)

    def _note(self, run: JobRun, now: Instant, *, seen: bool) -> JobRun:
        self._afterwards.note(run, now, seen=seen)
        return run

    def _described(self, run: JobRun) -> JobRun:
        """A run with all that is said of its job."""
        uid, labels = self._about(run.key, run.uid, run.labels)
        if uid == run.uid and labels == run.labels:
            return run
        return replace(run, uid=uid, labels=labels)

    def _about(
        self, key: JobKey, uid: int | None, labels: Mapping[str, str]
    ) -> tuple[int | None, dict[str, str]]:
        described = self._describe(key)
        known = dict(labels)
        if described is not None:
            uid = described.uid if described.uid is not None else uid
            known.update({name: text for name, text in described.labels.items() if text})
        if uid is not None and not known.get("user"):
            name = self._names.name(uid)
            if name:
                known["user"] = name
        return uid, known

    def _find_out(self, run: Run, now: Instant) -> None:
        """Whose it is, and what it is called; asked again until it is known, but not for ever."""
        now_ns = now.monotonic_ns
        if now_ns < run.about_due_ns and not run.end_ns:
            return
        key = run.key
        if (
            run.uid is None
            and key.manager == SLURM
            and run.uid_tries < UID_TRIES
            and now_ns >= run.uid_due_ns
            and run.cgroups
            and self._uids_left
        ):
            self._uids_left -= 1
            run.uid_due_ns = now_ns + (NS_PER_S << run.uid_tries)
            run.uid_tries += 1
            run.uid = hierarchy.owner_uid(self._layout, self._procfs, next(iter(run.cgroups)))
        run.uid, labels = self._about(key, run.uid, run.labels)
        if labels != run.labels:
            run.labels = labels
        if now_ns - run.since_ns >= FIRST_MOMENTS_NS:
            run.about_due_ns = now_ns + ABOUT_NS

    # ── the answer ──────────────────────────────────────────────────────────────────────────────

    def _result(
        self,
        now: Instant,
        busy_ns: int | None,
        alive: Sequence[Run],
        located: Mapping[str, Located],
        ended: Sequence[JobRun],
        used_ns: Mapping[Payee, int],
        claims: tuple[Claim, ...],
    ) -> Survey:
        memory: dict[Payee, int] = {}
        cpusets: dict[Payee, int] = {}
        for run in alive:
            held = own = 0
            for cgroup in run.cgroups.values():
                held += cgroup.memory_bytes
                own += cgroup.cpuset_ppm
            if held:
                memory[run.payee] = held
            if own:
                cpusets[run.payee] = own
        runs = {run.payee: run.record(self._boot_id) for run in alive}

        def payee_of(place: Place) -> Payee | None:
            run = self._run_of(place)
            return run.payee if run is not None and run.payee in runs else None

        shares = shares_of(located, payee_of, self._gpus() if located else ())
        return Survey(
            at=now,
            runs=runs,
            ended=tuple(ended),
            cpu_ns=used_ns,
            busy_ns=busy_ns,
            memory_bytes=memory,
            memory_total_bytes=self._memory_total,
            cpuset_ppm=cpusets,
            processes=shares.processes,
            sm=shares.sm,
            instances=shares.instances,
            strangers=frozenset(d for d, one in located.items() if one.strangers),
            claims=(*claims, *shares.claims),
        )

    def _run_of(self, place: Place) -> Run | None:
        """Whose process that is; of containers beyond a user's limit it is the user's."""
        run = self._roll.run_at(place.cgroup)
        if run is None and place.rootless:
            for outer in self._paths.places(place.cgroup)[1:]:
                run = run or self._roll.run_at(outer.cgroup)
        return run


def _memory_total(procfs: Path) -> int:
    """MemTotal in bytes; 0: not told."""
    try:
        for line in (procfs / "meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return 0
    return 0
