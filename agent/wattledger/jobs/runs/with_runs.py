"""The jobs of a node with the commands that are measured: what these use is not their job's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from wattledger.jobs.names import UserNames
from wattledger.jobs.runs.registry import YOUNG_NS, Run, RunRegistry, cgroup_of
from wattledger.model import Instant, Payee
from wattledger.model.jobs import RUN, WHOLE_SHARE_PPM, Claim, JobKey, JobRun, Survey
from wattledger.model.measuring import Process
from wattledger.ports import Jobs
from wattledger.procfs import memory_total_bytes
from wattledger.units import NS_PER_S

MANY = 512  # processes of all runs; from here on they are looked at less often
WALK_NS = 5 * NS_PER_S
MEMORY_NS = 5 * NS_PER_S

Listed = tuple[Process, ...]


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
    ) -> None:
        """A survey that has not looked yet.

        Args:
            jobs: who else is on the node.
            registry: the commands.
            boot_id: of this boot.
            remembered: the commands that the ledger knows as running.
            names: users' names.
        """
        self._jobs = jobs
        self._registry = registry
        self._boot_id = boot_id
        self._remembered = tuple(remembered)
        self._names = names or UserNames()
        self._runs: dict[str, Run] = {}  # as of the last survey
        self._listed: set[int] = set()
        self._taken: dict[Payee, _Taken] = {}
        self._filtered: dict[str, tuple[Listed, Listed, Listed]] = {}
        self._on_gpu: dict[Run, tuple[str, ...]] = {}

    def survey(
        self,
        now: Instant,
        busy_ns: int | None = None,
        processes: Mapping[str, Listed] = MappingProxyType({}),
    ) -> Survey:
        """Look around once; see `ports.Jobs`."""
        if not (self._registry or self._runs or self._taken or self._remembered):
            return self._jobs.survey(now, busy_ns, processes)
        # Before the cgroups are read, so that no run has used more than its job.
        runs = self._look(now, processes)
        mine = self._find_on_gpus(runs, processes)
        survey = self._jobs.survey(now, busy_ns, self._others(processes, mine))
        ended = self._ended(runs)
        return self._with(survey, runs, mine, ended)

    # ── what is there ───────────────────────────────────────────────────────────────────────────

    def _look(self, now: Instant, processes: Mapping[str, Listed]) -> list[Run]:
        """Read all trees; those whose root has gone are ended."""
        now_ns = now.monotonic_ns
        registered = self._registry.running()
        self._runs.update({run.payee.job_id: run for run in registered})
        self._registry.processes.begin()
        crowded = sum(len(run.tree.members) for run in registered) > MANY
        listed = {process.pid for some in processes.values() for process in some}
        newcomers = not listed <= self._listed
        self._listed = listed
        living = []
        for run in registered:
            # To find new members is what costs: each thread has a list of children of its own.
            urgent = run.finish is not None or now_ns - run.began_ns < YOUNG_NS
            due = now_ns >= run.walk_due_ns
            if crowded and not (urgent or due):
                living.append(run)
                continue
            walk = due or urgent or newcomers
            if not run.tree.look(walk=walk):
                self._registry.end(run.payee.job_id)
                continue
            if walk:
                run.walk_due_ns = now_ns + WALK_NS
            run.seen_ns = now.wall_ns
            if now_ns >= run.memory_due_ns or run.finish is not None:
                run.memory_due_ns = now_ns + MEMORY_NS
                run.memory_bytes = run.tree.memory_bytes()
            living.append(run)
        return living

    def _ended(self, living: Sequence[Run]) -> list[JobRun]:
        here = {run.payee.job_id: run for run in living}
        ended = [
            self._record(run, end_ns=run.finish.wall_ns if run.finish is not None else run.seen_ns)
            for job_id, run in self._runs.items()
            if job_id not in here
        ]
        for record in self._remembered:  # known from the ledger, and not here any more
            if record.payee.job_id not in here:
                end_ns = record.last_seen_ns or record.payee.start_ns
                ended.append(replace(record, end_ns=end_ns))
        self._remembered = ()
        self._runs = here
        return ended

    # ── GPUs ────────────────────────────────────────────────────────────────────────────────────

    def _find_on_gpus(
        self, runs: Sequence[Run], processes: Mapping[str, Listed]
    ) -> dict[str, dict[Process, Run]]:
        """GPU → the processes of runs on it, each with the innermost run that it is in."""
        found: dict[str, dict[Process, Run]] = {}
        for device, listed in processes.items():
            for process in listed:
                for run in reversed(runs):
                    start_ticks = run.tree.members.get(process.pid)
                    if start_ticks is not None and process.start_ticks in (0, start_ticks):
                        found.setdefault(device, {})[process] = run
                        break
        return found

    def _others(
        self, processes: Mapping[str, Listed], mine: Mapping[str, Mapping[Process, Run]]
    ) -> Mapping[str, Listed]:
        """The lists without the runs' processes, the same tuples as long as nothing changes."""
        if not mine:
            self._filtered.clear()
            return processes
        filtered: dict[str, tuple[Listed, Listed, Listed]] = {}
        for device, own in mine.items():
            listed, taken = processes[device], tuple(own)
            last = self._filtered.get(device)
            if last is None or last[0] is not listed or last[1] != taken:
                last = (listed, taken, tuple(p for p in listed if p not in own))
            filtered[device] = last
        self._filtered = filtered
        return {**processes, **{device: last[2] for device, last in filtered.items()}}

    # ── the answer ──────────────────────────────────────────────────────────────────────────────

    def _with(
        self,
        survey: Survey,
        runs: Sequence[Run],
        mine: Mapping[str, Mapping[Process, Run]],
        ended: Sequence[JobRun],
    ) -> Survey:
        around = {run: _job_around(run, survey.runs) for run in runs}
        # A job that is not known yet, or no more, cannot pay: its steps wait for it.
        shown = [run for run in runs if not run.step or run.outer or around[run]]
        shown = [run for run in shown if all(one in shown for one in run.chain()[1:] if run.step)]
        cpu_ns = self._cpu_time(survey, runs, around, shown)
        memory = _memory(survey, runs, around)
        processes, sm, strangers = self._on_gpus(survey, mine, shown)
        steps: dict[Payee, Payee] = {}
        for run in shown:
            payer = run.outer.payee if run.outer is not None else around[run]
            if run.step and payer is not None:
                steps[run.payee] = payer
        return replace(
            survey,
            runs={**survey.runs, **{run.payee: self._record(run) for run in shown}},
            ended=(*survey.ended, *ended),
            cpu_ns=cpu_ns,
            memory_bytes=memory,
            processes=processes,
            sm=sm,
            strangers=strangers,
            claims=(*survey.claims, *(claim for run in shown for claim in _claims(run))),
            steps=steps,
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
        runs: Sequence[Run],
        around: Mapping[Run, Payee | None],
        shown: Sequence[Run],
    ) -> dict[Payee, int]:
        """CPU time of each run without that of the runs inside it, and of jobs without both."""
        for run in runs:
            outside = run.outer.payee if run.outer is not None else around[run]
            if outside is not None:
                grown_ns = run.tree.used_ns - run.counted_ns
                self._taken.setdefault(outside, _Taken()).taken_ns += grown_ns
            if outside is not None or not run.step:  # else its job is yet to come
                run.counted_ns = run.tree.used_ns
        here = {run.payee for run in runs} | set(survey.runs) | set(survey.cpu_ns)
        for payee in [payee for payee in self._taken if payee not in here]:
            del self._taken[payee]
        cpu_ns = {**survey.cpu_ns, **{run.payee: run.tree.used_ns for run in shown}}
        for payee, taken in self._taken.items():
            if payee in cpu_ns:
                cpu_ns[payee] = taken.left(cpu_ns[payee])
        return cpu_ns

    def _on_gpus(
        self,
        survey: Survey,
        mine: Mapping[str, Mapping[Process, Run]],
        shown: Sequence[Run],
    ) -> tuple[dict[str, tuple[Payee, ...]], dict[str, Mapping[Payee, int]], frozenset[str]]:
        processes = dict(survey.processes)
        sm = dict(survey.sm)
        strangers = set(survey.strangers)
        on_gpu: dict[Run, tuple[str, ...]] = {}
        for device, own in mine.items():
            used: dict[Payee, int] = {}
            told = not processes.get(device) or device in sm
            for process, run in own.items():
                if run not in shown:
                    strangers.add(device)
                    continue
                used[run.payee] = used.get(run.payee, 0) + (process.sm or 0)
                told = told and process.sm is not None
                on_gpu[run] = (*on_gpu.get(run, ()), device)
            processes[device] = (*processes.get(device, ()), *used)
            if told and used:
                sm[device] = {**sm.get(device, {}), **used}
            else:
                sm.pop(device, None)
        for run, devices in self._on_gpu.items():
            # What has ended was on its GPUs until its end, whatever the driver lists now.
            if run.finish is not None and run in shown:
                for device in set(devices) - set(on_gpu.get(run, ())):
                    processes[device] = (*processes.get(device, ()), run.payee)
                    on_gpu[run] = (*on_gpu.get(run, ()), device)
        self._on_gpu = on_gpu
        return processes, sm, frozenset(strangers)


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


def _memory(
    survey: Survey, runs: Sequence[Run], around: Mapping[Run, Payee | None]
) -> dict[Payee, int]:
    """Memory of each run without that of the runs inside it; never more than their job's."""
    memory = dict(survey.memory_bytes)
    own = {run: run.memory_bytes for run in runs}
    for run in runs:
        if run.outer in own:
            own[run.outer] = max(0, own[run.outer] - run.memory_bytes)
    inside: dict[Payee, list[Run]] = {}
    for run in runs:
        top = run.chain()[-1]
        payee = around.get(top)
        # A job whose memory is not told pays for none, so that its steps have none either.
        if payee is not None and (payee in survey.memory_bytes or top.step):
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


def _claims(run: Run) -> list[Claim]:
    return [Claim(RUN, run.payee.job_id, device, WHOLE_SHARE_PPM, "run") for device in run.gpus]
