"""The jobs of a node with the commands that are measured: what these use is not their job's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from wattledger.jobs.names import UserNames
from wattledger.jobs.runs.on_gpus import Listed, Mine, OnGpus
from wattledger.jobs.runs.registry import YOUNG_NS, RunRegistry
from wattledger.jobs.runs.run import Around, Run, cgroup_of
from wattledger.model import Instant, Payee
from wattledger.model.jobs import RUN, JobKey, JobRun, Survey
from wattledger.model.measuring import GpuNames
from wattledger.ports import Jobs
from wattledger.procfs import memory_total_bytes
from wattledger.units import NS_PER_S

MANY = 512  # processes of all runs; from here on they are looked at less often
WALK_NS = 5 * NS_PER_S
MEMORY_NS = 5 * NS_PER_S
NAMING_NS = 15 * NS_PER_S  # so long an ended command waits for its user's name
MAX_ASLEEP = 4_096  # jobs that had commands, and may come back

Nested = Mapping[Run, Around]


class NoJobs:
    """A node where nobody looks for jobs; implements `ports.Jobs`."""

    def __init__(self, procfs: Path = Path("/proc")) -> None:
        """Args: procfs: where it is mounted."""
        self._memory_total = memory_total_bytes(procfs)

    def survey(
        self,
        now: Instant,
        busy_ns: int | None = None,
        processes: Mapping[str, Listed] = MappingProxyType({}),
    ) -> Survey:
        """Nobody is here; every process on a GPU is a stranger."""
        return Survey(
            at=now,
            busy_ns=busy_ns,
            memory_total_bytes=self._memory_total,
            processes=dict.fromkeys(processes, ()),
            strangers=frozenset(device for device, listed in processes.items() if listed),
        )


class _Taken:
    """What runs have used of a job, or of the run around them."""

    __slots__ = ("shown_ns", "taken_ns")

    def __init__(self) -> None:
        self.shown_ns = self.taken_ns = 0

    def left(self, used_ns: int) -> int:
        """What is the job's own; never falls."""
        self.shown_ns = max(self.shown_ns, used_ns - self.taken_ns)
        return self.shown_ns


class WithRuns:
    """Adds the registered commands to the surveys of others; implements `ports.Jobs`.

    While none is registered a survey costs nothing more.
    """

    def __init__(
        self,
        jobs: Jobs,
        registry: RunRegistry,
        *,
        boot_id: str = "",
        remembered: Iterable[JobRun] = (),
        names: UserNames | None = None,
        gpus: Callable[[], Sequence[GpuNames]] = tuple,
    ) -> None:
        """A survey that has not looked yet.

        Args:
            jobs: who else is on the node.
            registry: the commands.
            boot_id: of this boot.
            remembered: the commands that the ledger knows as running.
            names: users' names.
            gpus: this node's GPUs, as they are cut up now. Never blocks.
        """
        self._jobs = jobs
        self._registry = registry
        self._boot_id = boot_id
        self._remembered = tuple(remembered)
        self._names = names or UserNames()
        self._runs: dict[str, Run] = {}  # as of the last survey
        self._listed: set[int] = set()
        self._taken: dict[Payee, _Taken] = {}
        self._asleep: dict[Payee, _Taken] = {}  # of jobs that are in no survey now
        self._nameless: list[tuple[JobRun, int]] = []  # ended, and until when to ask for the user
        self._on_gpus = OnGpus(gpus)

    def survey(
        self,
        now: Instant,
        busy_ns: int | None = None,
        processes: Mapping[str, Listed] = MappingProxyType({}),
    ) -> Survey:
        """Look around once; see `ports.Jobs`."""
        busy = self._registry or self._runs or self._taken or self._remembered
        if not (busy or self._nameless):
            survey = self._jobs.survey(now, busy_ns, processes)
            if self._asleep.keys().isdisjoint(survey.cpu_ns):
                return survey
            return self._with(survey, {}, {}, ())
        # Before the cgroups are read, so that no run has used more than its job.
        living = self._look(now, processes)
        runs = self._registry.nested(living)
        mine = self._on_gpus.find(tuple(runs), processes)
        survey = self._jobs.survey(now, busy_ns, self._on_gpus.others(processes, mine))
        ended = [*self._named(now.monotonic_ns), *self._ended(runs, now.monotonic_ns)]
        return self._with(survey, runs, mine, ended)

    # ── what is there ───────────────────────────────────────────────────────────────────────────

    def _look(self, now: Instant, processes: Mapping[str, Listed]) -> list[Run]:
        """Read all trees, and end those whose root has gone."""
        now_ns = now.monotonic_ns
        registered = self._registry.running()
        self._runs.update({run.payee.job_id: run for run in registered})
        self._registry.processes.begin()
        crowded = sum(len(run.tree.members) for run in registered) > MANY
        listed = {process.pid for some in processes.values() for process in some}
        newcomers = not listed <= self._listed
        self._listed = listed
        living: list[Run] = []
        dead: list[Run] = []
        for run in registered:
            # To find new members is what costs: each thread has a list of children of its own.
            urgent = run.finish is not None or now_ns - run.began_ns < YOUNG_NS
            due = now_ns >= run.walk_due_ns
            if crowded and not (urgent or due):
                living.append(run)
                continue
            walk = due or urgent or newcomers
            if not run.tree.look(walk=walk):
                dead.append(run)
                continue
            if walk:
                run.walk_due_ns = now_ns + WALK_NS
            run.seen_ns = now.wall_ns
            if now_ns >= run.memory_due_ns or run.finish is not None:
                run.memory_due_ns = now_ns + MEMORY_NS
                run.memory_bytes = run.tree.memory_bytes()
            living.append(run)
        for run in reversed(dead):  # while what is around it is still known
            self._registry.end(run.payee.job_id)
        return living

    def _ended(self, living: Iterable[Run], now_ns: int) -> list[JobRun]:
        here = {run.payee.job_id: run for run in living}
        ended: list[JobRun] = []
        for job_id, run in self._runs.items():
            # A step that no survey told of has paid nothing, and is no job of its own.
            if job_id in here or (run.step and not run.told):
                continue
            end_ns = run.finish.wall_ns if run.finish is not None else run.seen_ns
            ended.append(self._record(run, end_ns=end_ns))
            if run.uid >= 0 and not run.step and "user" not in ended[-1].labels:
                self._nameless.append((ended[-1], now_ns + NAMING_NS))
        for record in self._remembered:  # known from the ledger, and not here any more
            if record.payee.job_id not in here:
                end_ns = record.last_seen_ns or record.payee.start_ns
                ended.append(replace(record, end_ns=end_ns))
        self._remembered = ()
        self._runs = here
        return ended

    def _named(self, now_ns: int) -> list[JobRun]:
        """Ended commands whose user's name has become known since, told of once more."""
        waiting, self._nameless = self._nameless, []
        named: list[JobRun] = []
        for record, until_ns in waiting:
            user = self._names.name(record.uid or 0)
            if user:
                named.append(replace(record, labels={**record.labels, "user": user}))
            elif now_ns < until_ns:
                self._nameless.append((record, until_ns))
        return named

    # ── the answer ──────────────────────────────────────────────────────────────────────────────

    def _with(self, survey: Survey, runs: Nested, mine: Mine, ended: Sequence[JobRun]) -> Survey:
        around = {run: _job_around(run, survey.runs) for run in runs}
        shown: dict[Run, None] = {}
        steps: dict[Payee, Payee] = {}
        payers: dict[Payee, Payee] = {}
        for run, (outer, step) in runs.items():
            payer = outer.payee if outer is not None else around[run]
            # A job that is not known yet, or no more, cannot pay: its steps wait for it.
            if not step or outer in shown or (outer is None and payer is not None):
                shown[run] = None
                run.told = True
                if step and payer is not None:
                    steps[run.payee], payers[run.payee] = payer, payers.get(payer, payer)
        cpu_ns = self._cpu_time(survey, runs, around, shown)
        memory = _memory(survey, runs, around)
        survey = self._on_gpus.add(survey, mine, shown, lambda run: payers.get(run, run))
        return replace(
            survey,
            runs={**survey.runs, **{run.payee: self._record(run) for run in shown}},
            ended=(*survey.ended, *ended),
            cpu_ns=cpu_ns,
            memory_bytes=memory,
            steps=steps,
            ending={r.payee: f.wall_ns for r in shown if (f := r.finish) is not None},
        )

    def _record(self, run: Run, end_ns: int = 0) -> JobRun:
        labels = {"name": run.name} if run.name else {}
        user = self._names.name(run.uid) if run.uid >= 0 else ""
        if user:
            labels["user"] = user
        return JobRun(
            payee=run.payee,
            uid=run.uid if run.uid >= 0 else None,
            labels=labels,
            cgroup=cgroup_of(run.tree.pid),
            inode=run.tree.start_ticks,
            boot_id=self._boot_id,
            cpu_ns=run.tree.raw_ns,
            last_seen_ns=run.seen_ns,
            end_ns=end_ns,
        )

    def _cpu_time(
        self,
        survey: Survey,
        runs: Nested,
        around: Mapping[Run, Payee | None],
        shown: Iterable[Run],
    ) -> dict[Payee, int]:
        """CPU time of each run without that of the runs inside it, and of jobs without both."""
        here = {run.payee for run in runs} | set(survey.runs) | set(survey.cpu_ns)
        for payee in [payee for payee in self._asleep if payee in here]:
            self._taken[payee] = self._asleep.pop(payee)
        for run, (outer, step) in runs.items():
            outside = outer.payee if outer is not None else around[run]
            if outside is not None:
                grown_ns = run.tree.used_ns - run.counted_ns
                self._taken.setdefault(outside, _Taken()).taken_ns += grown_ns
            if outside is not None or not step:  # else its job is yet to come
                run.counted_ns = run.tree.used_ns
        for payee in [payee for payee in self._taken if payee not in here]:
            taken = self._taken.pop(payee)
            if payee.manager != RUN:  # it may wake, and its counter goes on where it stood
                self._asleep[payee] = taken
                if len(self._asleep) > MAX_ASLEEP:
                    del self._asleep[next(iter(self._asleep))]
        cpu_ns = {**survey.cpu_ns, **{run.payee: run.tree.used_ns for run in shown}}
        for payee, taken in self._taken.items():
            if payee in cpu_ns:
                cpu_ns[payee] = taken.left(cpu_ns[payee])
        return cpu_ns


def _job_around(run: Run, jobs: Mapping[Payee, JobRun]) -> Payee | None:
    """The job in whose cgroup a run's root was: the deepest, by its path."""
    best, depth = None, -1
    for payee, job in jobs.items():
        for path in run.where.cgroups:
            if job.cgroup and len(job.cgroup) > depth and f"{path}/".startswith(f"{job.cgroup}/"):
                best, depth = payee, len(job.cgroup)
    place = run.where.place
    if best is None and place is not None:
        key = JobKey(place.manager, place.job_id)
        best = next((payee for payee, job in jobs.items() if job.key == key), None)
    return best


def _memory(survey: Survey, runs: Nested, around: Mapping[Run, Payee | None]) -> dict[Payee, int]:
    """Memory of each run without that of the runs inside it; never more than their job's."""
    memory = dict(survey.memory_bytes)
    own = {run: run.memory_bytes for run in runs}
    outermost: dict[Run, Run] = {}
    inside: dict[Payee, list[Run]] = {}
    for run, (outer, _) in runs.items():
        if outer is not None:
            own[outer] = max(0, own[outer] - run.memory_bytes)
        top = outermost[run] = run if outer is None else outermost[outer]
        payee = around[top]
        # A job whose memory is not told pays for none, so that its steps have none either.
        if payee is not None and (payee in survey.memory_bytes or runs[top].step):
            inside.setdefault(payee, []).append(run)
    for payee, those in inside.items():
        whole, held = sum(own[run] for run in those), survey.memory_bytes.get(payee, 0)
        if whole > held:
            for run in those:
                own[run] = own[run] * held // whole
        if left := held - sum(own[run] for run in those):
            memory[payee] = left
        else:
            memory.pop(payee, None)
    memory.update({run.payee: held for run, held in own.items() if held})
    return memory
