"""Which runs there are, from directories that come and go.

A run is (manager, id, start). What tells one from the next of the same id (ids are used again, a
requeued job keeps its own) is the inode of its cgroup, which the kernel counts upward and does not
give twice in a boot. Its start is the directory's ctime at first sight, kept between boot and now:
that is when the manager made it, unless it was made while nobody looked and has left the kernel's
cache since; then it is when we first saw it. Once seen, it stays: a restarted daemon knows the run
by inode and boot id from the ledger.

Since Slurm 26.05 a job's directory bears its SLUID. The job's number is in the prolog's file,
which is there before the directory is, but may be read after it: a run waits for its number a
moment before anybody hears of it, so that no job is two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from wattledger.jobs.counters import Cgroup, Tally
from wattledger.jobs.newcomers import FIRST, Sighting
from wattledger.jobs.paths import Place
from wattledger.jobs.tree import Found
from wattledger.model import Instant, Payee
from wattledger.model.jobs import SLURM, JobKey, JobRun, job_payee
from wattledger.units import NS_PER_S

NAMING_NS = 5 * NS_PER_S  # how long a run waits for its job's number


class Run:
    """A run in the making.

    Attributes:
        payee: who it is.
        uid: whose it is.
        labels: what else is known; replaced, never changed.
        cgroups: path → those that are there.
        tally: what it has used.
        seen_ns: wall clock of its last sign of life.
        end_ns: wall clock; 0: it runs.
        naming_until_ns: CLOCK_MONOTONIC until when it waits for its number; 0: it has its name.
        told: it was in a survey.
        dormant: its directory has outlived it.
    """

    __slots__ = (
        "_record",
        "about_due_ns",
        "cgroups",
        "dormant",
        "end_ns",
        "home",
        "labels",
        "naming_until_ns",
        "payee",
        "seen_ns",
        "since_ns",
        "tally",
        "told",
        "uid",
        "uid_due_ns",
        "uid_tries",
    )

    def __init__(self, payee: Payee, uid: int | None, labels: Mapping[str, str]) -> None:
        self.payee = payee
        self.uid = uid
        self.labels = labels
        self.cgroups: dict[str, Cgroup] = {}
        self.tally = Tally()
        self.home = ("", 0)  # path and inode of one of its directories
        self.seen_ns = 0
        self.end_ns = 0
        self.naming_until_ns = 0
        self.since_ns = 0
        self.told = False
        self.dormant = False
        self.about_due_ns = 0
        self.uid_tries = 0
        self.uid_due_ns = 0
        self._record: JobRun | None = None

    @property
    def key(self) -> JobKey:
        """The job of which it is a run."""
        return JobKey(self.payee.manager, self.payee.job_id)

    def end_by(self, ns: int) -> None:
        """It had ended when the next run of its job began, though it was not seen to be gone."""
        self.end_ns = max(self.payee.start_ns, min(self.end_ns, ns))
        self.seen_ns = min(self.seen_ns, self.end_ns)

    def record(self, boot_id: str, end_ns: int = 0) -> JobRun:
        """It, as it is now; the same object while nothing changed."""
        known = self._record
        if (
            known is None
            or known.last_seen_ns != self.seen_ns
            or known.labels is not self.labels
            or known.uid != self.uid
            or known.end_ns != end_ns
            or known.payee is not self.payee
        ):
            path, inode = self.home
            alone = self.cgroups.get(path) if len(self.cgroups) == 1 else None
            known = self._record = JobRun(
                payee=self.payee,
                uid=self.uid,
                labels=self.labels,
                cgroup=path,
                inode=inode,
                boot_id=boot_id,
                cpu_ns=alone.raw_ns if alone is not None else None,
                last_seen_ns=self.seen_ns,
                end_ns=end_ns,
            )
        return known


class Roll:
    """The runs of a node.

    Attributes:
        cgroups: path → job's cgroup, each after those around it.
        running: job → its run.
    """

    def __init__(
        self,
        boot_id: str,
        remembered: Iterable[JobRun] = (),
        sluid: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """A roll that goes on where the ledger ends.

        Args:
            boot_id: of this boot.
            remembered: the runs that the ledger knows as running.
            sluid: the job number of a SLUID of Slurm's; None: not known. Never blocks.
        """
        self._boot_id = boot_id
        self._sluid = sluid
        self._remembered = tuple(remembered)
        self._known: dict[JobKey, JobRun] = {}
        self._numbers: dict[str, str] = {}  # SLUID → job number; itself, where that never came
        self._nameless: list[Run] = []
        self._just_ended: dict[JobKey, Run] = {}
        self._run_of: dict[str, Run] = {}
        self.cgroups: dict[str, Cgroup] = {}
        self.running: dict[JobKey, Run] = {}

    def run_at(self, path: str) -> Run | None:
        """The run whose cgroup this is."""
        return self._run_of.get(path)

    def recall(self, seen: Sequence[Sighting]) -> list[JobRun]:
        """Know the ledger's runs again by what is there now.

        Returns:
            Those that ended while no daemon was looking: paid until their last sign of life.
        """
        there: dict[str, dict[int, Found]] = {}
        for sighting in seen:
            found = sighting.found
            there.setdefault(found.place.cgroup, {})[found.inode] = found
        ended: list[JobRun] = []
        for run in self._remembered:
            found_ = there.get(run.cgroup, {}).get(run.inode)
            if run.boot_id != self._boot_id or found_ is None or run.key in self._known:
                ended.append(replace(run, end_ns=run.last_seen_ns or run.payee.start_ns))
                continue
            self._known[run.key] = run
            if run.payee.manager == SLURM:
                self._numbers[found_.place.job_id] = run.payee.job_id
        self._remembered = ()
        return ended

    def take(self, seen: Iterable[Sighting], now: Instant, *, late: bool = False) -> list[Run]:
        """Bring the runs up to what was seen.

        Args:
            seen: each after those around it.
            now: this moment.
            late: but these may lie around others that are known.

        Returns:
            Those that have ended.
        """
        ended: list[Run] = []
        for sighting in seen:
            if sighting.came:
                self._came(sighting, now, late=late)
            else:
                self._went(sighting, ended)
        ended += self._name(now)
        self._known.clear()
        self._just_ended.clear()
        return ended

    # ── who came, who went ──────────────────────────────────────────────────────────────────────

    def _came(self, sighting: Sighting, now: Instant, *, late: bool) -> None:
        found = sighting.found
        path = found.place.cgroup
        cgroup = self.cgroups.get(path)
        if cgroup is not None:
            if sighting.number == FIRST and FIRST not in cgroup.inodes:
                # It is made in one hierarchy after the other, and this is the one that counts.
                cgroup.raw_ns = 0 if found.fresh else None
            cgroup.inodes[sighting.number] = found.inode
            return
        key = self._key(found.place)
        known = self._known.get(key)
        run = self.running.get(key)
        if run is None:
            run = self.running[key] = self._begin(key, known, sighting, now)
            before = self._just_ended.get(key)
            if before is not None:
                before.end_by(run.payee.start_ns)
        cgroup = Cgroup(found.place, run.tally)
        cgroup.inodes[sighting.number] = found.inode
        cgroup.parent = self._around(path)
        if known is not None and known.cgroup == path:
            cgroup.raw_ns = known.cpu_ns
        elif found.fresh:
            cgroup.raw_ns = 0
        run.cgroups[path] = self.cgroups[path] = cgroup
        self._run_of[path] = run
        if late:
            self._enclose(path, cgroup)
        if not run.home[0] or (known is not None and known.cgroup == path):
            run.home = (path, found.inode)

    def _begin(self, key: JobKey, known: JobRun | None, sighting: Sighting, now: Instant) -> Run:
        place = sighting.found.place
        if known is not None:
            run = Run(known.payee, known.uid, known.labels)
            run.seen_ns, run.told = known.last_seen_ns, True
        else:
            start_ns = _start(sighting, now)
            run = Run(job_payee(*key, start_ns), place.uid, dict(place.labels))
            has_number = key.job_id.isdigit() or key.job_id in self._numbers
            if place.manager == SLURM and not has_number:
                run.naming_until_ns = now.monotonic_ns + NAMING_NS
                self._nameless.append(run)
        run.since_ns = now.monotonic_ns
        return run

    def _went(self, sighting: Sighting, ended: list[Run]) -> None:
        path = sighting.found.place.cgroup
        cgroup, run = self.cgroups.get(path), self._run_of.get(path)
        if cgroup is None or run is None:
            return
        if cgroup.inodes.get(sighting.number) != sighting.found.inode:
            return
        if cgroup.raw_ns is not None and (sighting.raw_ns or 0) > cgroup.raw_ns:
            cgroup.count(sighting.raw_ns or 0)
        if not cgroup.doubted:
            run.seen_ns = max(run.seen_ns, sighting.at_ns)
        if run.uid is None:
            run.uid = sighting.uid
        del cgroup.inodes[sighting.number]
        if cgroup.inodes:
            return
        cgroup.remember(None)
        cgroup.gone = True
        del self.cgroups[path], self._run_of[path], run.cgroups[path]
        if run.cgroups:
            if run.home[0] == path:
                other, first = next(iter(run.cgroups.items()))
                run.home = (other, next(iter(first.inodes.values()), 0))
            return
        del self.running[run.key]
        run.end_ns = max(run.seen_ns, run.payee.start_ns)
        self._just_ended[run.key] = run
        if not run.naming_until_ns and not run.dormant:
            ended.append(run)

    def _around(self, path: str) -> Cgroup | None:
        """The nearest job's cgroup around this one."""
        while path := path.rpartition("/")[0]:
            if path in self.cgroups:
                return self.cgroups[path]
        return None

    def _enclose(self, path: str, outer: Cgroup) -> None:
        """A cgroup turns out to be a job's; those inside it were there before."""
        for inner_path, inner in self.cgroups.items():
            if inner_path.startswith(path + "/") and inner.parent is outer.parent:
                memory = inner.memory_raw
                inner.remember(None)
                inner.parent = outer
                inner.remember(memory)

    # ── the names of Slurm's jobs ───────────────────────────────────────────────────────────────

    def _key(self, place: Place) -> JobKey:
        job_id = place.job_id
        if place.manager == SLURM and not job_id.isdigit():
            number = self._numbers.get(job_id) or self._sluid(job_id)
            if number:
                job_id = self._numbers[job_id] = number
        return JobKey(place.manager, job_id)

    def _name(self, now: Instant) -> list[Run]:
        """Give runs their jobs' numbers; returns those that had ended without one."""
        waiting, self._nameless = self._nameless, []
        ended: list[Run] = []
        for run in waiting:
            sluid = run.payee.job_id
            number = self._numbers.get(sluid) or self._sluid(sluid)
            if not number and now.monotonic_ns < run.naming_until_ns:
                self._nameless.append(run)
                continue
            self._numbers[sluid] = number or sluid
            run.naming_until_ns = 0
            if number:
                self._rename(run, number)
            if run.end_ns and not run.dormant:
                ended.append(run)
        if len(self._numbers) > 4 * len(self.cgroups) + 64:
            names = {cgroup.place.job_id for cgroup in self.cgroups.values()}
            self._numbers = {s: job for s, job in self._numbers.items() if s in names}
        return ended

    def _rename(self, run: Run, number: str) -> None:
        key = JobKey(SLURM, number)
        if not run.end_ns:
            del self.running[run.key]
            other = self.running.get(key)
            if other is not None:  # another slurmd's part of the job had its number before
                for path, cgroup in run.cgroups.items():
                    cgroup.tally = other.tally
                    other.cgroups[path] = cgroup
                    self._run_of[path] = other
                other.tally.used_ns += run.tally.used_ns
                return
            self.running[key] = run
        run.payee = job_payee(SLURM, number, run.payee.start_ns)


def _start(sighting: Sighting, now: Instant) -> int:
    """When a job began: when its directory was made, where that can be told."""
    made_ns, seen_ns = sighting.found.changed_ns, sighting.at_ns
    if now.wall_ns - now.boottime_ns <= made_ns <= seen_ns:
        return made_ns
    if seen_ns < made_ns < seen_ns + NS_PER_S:
        return seen_ns - 1  # it was made while we looked, so nothing was before it
    return seen_ns
