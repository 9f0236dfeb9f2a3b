"""The commands that are being measured, as they register and finish; for any thread.

Threads of the HTTP floor register and finish, the sampling thread surveys (`with_runs`). A run's
tree is read once by who registers it, and from then on by the sampling thread alone.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from wattledger.errors import RunRefused
from wattledger.jobs.runs.run import Around, Run, Where, pid_of
from wattledger.jobs.runs.tree import Processes, ProcessTree
from wattledger.model import Instant
from wattledger.model.jobs import RUN, JobKey, job_payee
from wattledger.model.running import KnownRun, RunRequest, RunTicket
from wattledger.ports import Clock
from wattledger.units import NS_PER_S

MAX_RUNS = 256
MAX_RUNS_OF_A_USER = 32
YOUNG_NS = 20 * NS_PER_S
BURST = 120  # for a registry whose commands are kept in a ledger
NAME_CHARS = 128

ClaimGpus = Callable[[RunRequest, frozenset[int], frozenset[JobKey]], tuple[str, ...]]


class RunRegistry:
    """Which commands are measured. All methods may be called from any thread."""

    def __init__(
        self,
        clock: Clock,
        *,
        procfs: Path = Path("/proc"),
        where: Callable[[int], Where] = lambda _: Where(),
        claim_gpus: ClaimGpus | None = None,
        known: Iterable[KnownRun] = (),
        max_runs: int = MAX_RUNS,
        max_runs_of_a_user: int = MAX_RUNS_OF_A_USER,
        burst: int | None = None,
    ) -> None:
        """A registry that goes on with what an earlier process knew.

        Args:
            clock: time.
            procfs: where procfs is mounted.
            where: in which cgroups a process is.
            claim_gpus: the GPUs that a request may have, by the request, the caller's groups and
                the jobs inside which it runs; raises RunRefused. None: there are none to claim.
            known: the commands that an earlier process was measuring.
            max_runs: at most so many at a time.
            max_runs_of_a_user: at most so many of one user.
            burst: so many a user may begin at once, more than these one a second; None: any
                number, since nothing is kept of them.
        """
        self._clock = clock
        self._procfs = procfs
        self.processes = Processes(procfs)  # of the sampling thread
        self._where = where
        self._claim_gpus = claim_gpus
        self._max_runs = max_runs
        self._max_of_a_user = max_runs_of_a_user
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}
        self._newest_ns = -YOUNG_NS
        self._burst = burst
        self._begun: dict[int, int] = {}  # uid → up to when its commands are paid for, in ns
        for one in sorted(known, key=lambda one: one.run.payee.start_ns):
            self._restore(one)

    # ── register and finish ─────────────────────────────────────────────────────────────────────

    def register(self, request: RunRequest) -> RunTicket:
        """Measure a process and its descendants from now on.

        Raises:
            RunRefused: with the reason.
        """
        processes = Processes(self._procfs)
        self._same_namespace(request.pid)
        root, owner = processes.stat(request.pid), processes.owner(request.pid)
        if root is None or root.is_dead or owner is None or owner.uid != request.uid:
            raise RunRefused(
                "gone",
                f"the daemon does not see process {request.pid}, or not as yours",
                "where /proc is mounted with hidepid, the daemon has to be in its gid= group",
            )
        where = self._where(request.pid)
        ancestors = processes.ancestors(request.pid)
        with self._lock:
            self._count(request.uid)
            outer = self._around(ancestors, processes)
            now = self._clock.now()
            self._throttle(request.uid, now.monotonic_ns)
            run = Run(
                payee=job_payee(RUN, secrets.token_hex(6), now.wall_ns),
                uid=request.uid,
                name=_clean(request.name),
                tree=ProcessTree(processes, request.pid, root.start_ticks),
                where=where,
                outer=outer,
                step=where.is_job or outer is not None,
                began_ns=now.monotonic_ns,
                seen_ns=now.wall_ns,
            )
            run.gpus = self._claimed(request, owner.groups, run)
            self._add(run, processes)
            self._newest_ns = now.monotonic_ns
        return RunTicket(run.payee, run.step_of, run.gpus)

    def finish(
        self, run_id: str, uid: int | None, exit_code: int | None = None
    ) -> tuple[Run, Instant]:
        """Say that a run has come to its end; it is measured until `end`.

        Args:
            run_id: as `register` gave it.
            uid: who asks; None: somebody who may finish everybody's.
            exit_code: of the command.

        Returns:
            The run, and when its end was first said.

        Raises:
            RunRefused: there is no such run of theirs.
        """
        run = self.get(run_id, uid)
        with self._lock:
            if run.finish is None:
                run.exit_code = exit_code
                run.finish = self._clock.now()
            return run, run.finish

    def end(self, run_id: str) -> None:
        """Measure it no longer; the next survey tells that it has ended."""
        with self._lock:
            ended = self._runs.pop(run_id, None)
            for run in self._runs.values():
                if ended is not None and run.outer is ended:
                    run.outer = ended.outer
                    # Who was to pay for it is no more: from now on it pays for itself.
                    run.step = run.step and (run.outer is not None or run.where.is_job)

    def get(self, run_id: str, uid: int | None) -> Run:
        """A run that is measured.

        Raises:
            RunRefused: there is no such run of theirs.
        """
        run = self._runs.get(run_id)
        if run is None or (uid is not None and run.uid != uid):
            raise RunRefused("unknown", f"there is no run {run_id[:64]} of yours")
        return run

    # ── for the sampling thread ─────────────────────────────────────────────────────────────────

    def __bool__(self) -> bool:
        return bool(self._runs)

    def running(self) -> Sequence[Run]:
        """The runs, each after those around it."""
        with self._lock:
            return sorted(self._runs.values(), key=lambda run: len(run.chain()))

    def nested(self, runs: Iterable[Run]) -> dict[Run, Around]:
        """What is around each of these, as of one moment: others register and finish meanwhile.

        Returns:
            Those that are still measured, each after those around it. A run that is not one of
            these is around nothing.
        """
        with self._lock:
            found: dict[Run, Around] = {}
            here = {run: None for run in runs if self._runs.get(run.payee.job_id) is run}
            for run in sorted(here, key=lambda run: len(run.chain())):
                outer = next((one for one in run.chain()[1:] if one in here), None)
                found[run] = Around(outer, run.step and (outer is not None or run.where.is_job))
            return found

    def is_young(self) -> bool:
        """Whether some run began a few seconds ago; cheap."""
        if not self._runs:
            return False
        return self._clock.now().monotonic_ns - self._newest_ns < YOUNG_NS

    # ── parts ───────────────────────────────────────────────────────────────────────────────────

    def _same_namespace(self, pid: int) -> None:
        if pid <= 0:
            raise RunRefused(
                "namespace",
                "the daemon cannot see your process: it runs in another PID namespace",
                "run the command on the host, or share the host's PID namespace",
            )
        try:
            own = (self._procfs / "self").readlink().name
        except OSError:
            return
        if own.isdigit() and int(own) != os.getpid():
            raise RunRefused(
                "namespace",
                f"the daemon's {self._procfs} is of another PID namespace than the daemon itself",
                "run the daemon in the host's PID namespace",
            )

    def _count(self, uid: int) -> None:
        if len(self._runs) >= self._max_runs:
            raise RunRefused("too_many", f"{self._max_runs} commands are being measured already")
        if sum(1 for run in self._runs.values() if run.uid == uid) >= self._max_of_a_user:
            raise RunRefused(
                "too_many", f"{self._max_of_a_user} commands of yours are being measured already"
            )

    def _throttle(self, uid: int, now_ns: int) -> None:
        """Each command has a row in the ledger for good, so that a loop must not make millions."""
        if self._burst is None:
            return
        paid_ns = max(self._begun.get(uid, 0), now_ns)
        if paid_ns - now_ns > (self._burst - 1) * NS_PER_S:
            raise RunRefused(
                "too_many",
                "you begin more than one command a second",
                "measure fewer and longer ones: the loop as a whole, not each of its rounds",
            )
        if len(self._begun) > self._max_runs:
            self._begun = {who: until for who, until in self._begun.items() if until > now_ns}
        self._begun[uid] = paid_ns + NS_PER_S

    def _around(self, ancestors: Sequence[int], processes: Processes) -> Run | None:
        """The innermost run in which a process is."""
        by_root: dict[int, Run] = {run.tree.pid: run for run in self._runs.values()}
        for pid in ancestors:
            run = by_root.get(pid)
            stat = processes.stat(pid) if run is not None else None
            if run is not None and stat is not None and stat.start_ticks == run.tree.start_ticks:
                return run
        return None

    def _add(self, run: Run, processes: Processes) -> None:
        for other in self._runs.values():  # an earlier one may turn out to be inside of this
            beside = other.outer is run.outer and (run.step or not other.step)
            if beside and run.tree.pid in processes.ancestors(other.tree.pid)[1:]:
                other.outer = run
        self._runs[run.payee.job_id] = run

    def _claimed(self, request: RunRequest, groups: frozenset[int], run: Run) -> tuple[str, ...]:
        if not request.gpus:
            return ()
        if self._claim_gpus is None:
            raise RunRefused("gpu", "no GPUs are metered here")
        inside = {one.key for one in run.chain()}
        if run.step_of is not None:
            inside.add(run.step_of)
        if run.where.place is not None:  # a login session: what it uses now is left to the command
            inside.add(JobKey(run.where.place.manager, run.where.place.job_id))
        found = self._claim_gpus(request, groups, frozenset(inside))
        for other in self._runs.values():
            common = set(found) & set(other.gpus)
            if common and not inside & {other.key, other.step_of}:
                raise RunRefused("gpu", f"{min(common)} is held by another command")
        return found

    def _restore(self, known: KnownRun) -> None:
        """Go on with a run whose root still lives; in the order in which they were registered."""
        record = known.run
        pid, ticks = pid_of(record.cgroup), record.inode
        stat = self.processes.stat(pid) if pid else None
        if stat is None or stat.is_dead or stat.start_ticks != ticks:
            return
        if record.boot_id != self._clock.boot_id or record.payee.job_id in self._runs:
            return
        where = self._where(pid)
        outer = self._around(self.processes.ancestors(pid), self.processes)
        run = Run(
            payee=record.payee,
            uid=record.uid if record.uid is not None else -1,
            name=record.labels.get("name", ""),
            tree=ProcessTree(self.processes, pid, ticks, record.cpu_ns or 0),
            where=where,
            outer=outer,
            # Who was to pay for it may have ended meanwhile.
            step=known.step and (outer is not None or where.is_job),
            gpus=known.gpus,
            began_ns=self._clock.now().monotonic_ns,
            seen_ns=record.last_seen_ns,
            told=True,
        )
        self._add(run, self.processes)


def _clean(name: str) -> str:
    text = name[:NAME_CHARS].encode("utf-8", "replace").decode()
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
