"""Registered commands in the surveys of the node's jobs: who is a step, and what is whose."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import FakeClock
from processes import FakeProcesses, ns
from wattledger.errors import RunRefused
from wattledger.jobs.names import UserNames
from wattledger.jobs.paths import Paths
from wattledger.jobs.runs import RunRegistry, WithRuns, where_is
from wattledger.jobs.runs.registry import BURST
from wattledger.model import Instant, Payee
from wattledger.model.jobs import Claim, JobKey, JobRun, Survey, job_payee
from wattledger.model.measuring import Process
from wattledger.model.running import KnownRun, RunRequest, RunTicket

UID = 1000
SLURM_JOB = "/slurm/uid_1000/job_7"
SESSION = "/user.slice/user-1000.slice"
GPU = "GPU-1"


class OtherJobs:
    """A `ports.Jobs` of jobs whose cgroups count what their processes use, as the kernel does."""

    def __init__(self) -> None:
        self.cgroups: dict[str, Payee] = {}
        self.cpu_ns: dict[Payee, int] = {}
        self.memory: dict[Payee, int] = {}
        self.claims: tuple[Claim, ...] = ()
        self.seen: list[Mapping[str, Sequence[Process]]] = []
        self.owners: dict[int, Payee] = {}

    def add(self, manager: str, job_id: str, cgroup: str, memory: int = 0) -> Payee:
        payee = job_payee(manager, job_id, 1)
        self.cgroups[cgroup] = payee
        self.cpu_ns[payee] = 0
        if memory:
            self.memory[payee] = memory
        return payee

    def survey(
        self,
        now: Instant,
        busy_ns: int | None = None,
        processes: Mapping[str, tuple[Process, ...]] | None = None,
    ) -> Survey:
        processes = processes or {}
        self.seen.append(processes)
        return Survey(
            at=now,
            runs={p: JobRun(p, cgroup=cgroup) for cgroup, p in self.cgroups.items()},
            cpu_ns=dict(self.cpu_ns),
            busy_ns=busy_ns,
            memory_bytes=dict(self.memory),
            memory_total_bytes=10**9,
            processes={
                device: tuple(
                    dict.fromkeys(self.owners[p.pid] for p in listed if p.pid in self.owners)
                )
                for device, listed in processes.items()
            },
            claims=self.claims,
        )


class Node:
    """Processes, jobs and commands."""

    def __init__(self, root: Path, known: Sequence[KnownRun] = ()) -> None:
        self.clock = FakeClock()
        self.fake = FakeProcesses(root / "proc")
        self.jobs = OtherJobs()
        self.used: dict[Payee, int] = {}
        self.start(known)

    def start(
        self,
        known: Sequence[KnownRun] = (),
        remembered: Sequence[JobRun] = (),
        names: UserNames | None = None,
    ) -> None:
        self.registry = RunRegistry(
            self.clock,
            procfs=self.fake.procfs,
            where=lambda pid: where_is(self.fake.procfs, Paths(), pid),
            claim_gpus=lambda request, _groups, _inside: request.gpus,
            known=known,
            max_runs=6,
            max_runs_of_a_user=4,
            burst=BURST,
        )
        self.watch = WithRuns(
            self.jobs,
            self.registry,
            boot_id=self.clock.boot_id,
            remembered=remembered,
            names=names or UserNames(lambda uid: f"user{uid}"),
        )

    def spawn(self, pid: int, ppid: int = 1, cgroup: str = "/", **more: int) -> None:
        self.fake.spawn(pid, ppid, cgroup=cgroup, **more)

    def work(self, pid: int, ticks: int, cgroup: str = "") -> None:
        self.fake.work(pid, ticks)
        if cgroup:
            self.jobs.cpu_ns[self.jobs.cgroups[cgroup]] += ns(ticks)

    def register(self, pid: int, name: str = "", gpus: tuple[str, ...] = ()) -> RunTicket:
        return self.registry.register(RunRequest(pid, UID, name, gpus))

    def look(self, *listed: Process, seconds: float = 1) -> Survey:
        return self.watch.survey(self.clock.advance(seconds), 0, {GPU: listed} if listed else {})


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


# ── who is what ─────────────────────────────────────────────────────────────────────────────────


def test_without_a_command_the_survey_is_that_of_the_others(node: Node) -> None:
    listed = (Process(5, 1),)
    survey = node.watch.survey(node.clock.advance(1), 0, {GPU: listed})
    assert survey.runs == {} and node.jobs.seen[-1][GPU] is listed


def test_a_command_is_a_job_of_its_own(node: Node) -> None:
    node.spawn(100)
    ticket = node.register(100, 'my "run"\n')
    assert ticket.step_of is None and ticket.payee.manager == "run"
    node.work(100, 50)
    node.look()
    survey = node.look()
    run = survey.runs[ticket.payee]
    assert dict(run.labels) == {"name": 'my "run"\N{REPLACEMENT CHARACTER}', "user": "user1000"}
    assert (run.uid, run.cgroup, run.inode) == (UID, "pid:100", 2)
    assert survey.cpu_ns == {ticket.payee: ns(50)} and survey.steps == {}


def test_inside_a_job_it_is_a_step_and_the_job_keeps_the_rest(node: Node) -> None:
    job = node.jobs.add("slurm", "7", SLURM_JOB, memory=10_000_000)
    node.spawn(90, cgroup=SLURM_JOB)
    node.spawn(100, 90, cgroup=f"{SLURM_JOB}/step_0", anon_kb=1000)
    ticket = node.register(100)
    assert ticket.step_of == JobKey("slurm", "7")
    node.work(100, 30, SLURM_JOB)
    node.work(90, 5, SLURM_JOB)
    survey = node.look()
    assert survey.cpu_ns == {job: ns(5), ticket.payee: ns(30)}
    assert survey.memory_bytes == {job: 10_000_000 - 1_024_000, ticket.payee: 1_024_000}
    assert survey.steps == {ticket.payee: job}


def test_a_login_session_does_not_pay_for_what_runs_in_it(node: Node) -> None:
    session = node.jobs.add("user", "1000", SESSION)
    node.spawn(100, cgroup=f"{SESSION}/session-3.scope")
    ticket = node.register(100)
    assert ticket.step_of is None
    node.work(100, 30, SESSION)
    survey = node.look()
    assert survey.cpu_ns == {session: 0, ticket.payee: ns(30)} and not survey.steps


def test_a_command_within_a_command_is_its_step(node: Node) -> None:
    node.spawn(100)
    outer = node.register(100)
    node.spawn(200, 100)
    inner = node.register(200)
    third = node.register(200)  # measure() within measure()
    assert inner.step_of == third.step_of == JobKey("run", outer.payee.job_id)
    node.work(100, 10)
    node.work(200, 40)
    survey = node.look()
    assert survey.cpu_ns == {outer.payee: ns(10), inner.payee: 0, third.payee: ns(40)}
    assert survey.steps == {inner.payee: outer.payee, third.payee: inner.payee}
    # The inner one is waited for: its time lies with its parent now, but is not the parent's own.
    node.registry.end(third.payee.job_id)
    node.fake.end(200)
    node.fake.wait_for(200)
    survey = node.look()
    assert survey.cpu_ns == {outer.payee: ns(10)}
    assert {run.payee for run in survey.ended} == {inner.payee, third.payee}


def test_a_parent_that_registers_later_has_what_its_child_leaves(node: Node) -> None:
    node.spawn(100)
    node.spawn(200, 100)
    child = node.register(200)
    node.work(200, 7)
    node.look()
    parent = node.register(100)
    assert parent.step_of is None and child.step_of is None
    node.work(200, 40)
    node.work(100, 3)
    survey = node.look()
    assert survey.cpu_ns == {child.payee: ns(47), parent.payee: ns(3)} and not survey.steps


def test_a_step_waits_for_a_job_that_is_not_known_yet(node: Node) -> None:
    node.spawn(100, cgroup=SLURM_JOB)
    ticket = node.register(100)
    node.fake.work(100, 30)
    assert node.look().runs == {}
    job = node.jobs.add("slurm", "7", SLURM_JOB)
    node.jobs.cpu_ns[job] = ns(30)
    survey = node.look()
    assert survey.cpu_ns == {job: 0, ticket.payee: ns(30)}


# ── the end ─────────────────────────────────────────────────────────────────────────────────────


def test_a_command_ends_with_its_root(node: Node) -> None:
    node.spawn(100)
    node.spawn(200, 100)
    ticket = node.register(100)
    seen = node.look().at.wall_ns
    node.fake.end(100)
    survey = node.look()
    assert survey.runs == {} and [r.payee for r in survey.ended] == [ticket.payee]
    assert survey.ended[0].end_ns == seen  # its last sign of life
    assert not node.look().ended
    with pytest.raises(RunRefused, match="no run"):
        node.registry.get(ticket.payee.job_id, UID)


def test_one_that_came_and_went_between_two_looks_is_told_of(node: Node) -> None:
    node.spawn(100)
    ticket = node.register(100)
    node.fake.end(100)
    assert [run.payee for run in node.look().ended] == [ticket.payee]


def test_the_end_that_was_said_is_the_end(node: Node) -> None:
    node.spawn(100)
    node.spawn(200, 100)
    ticket = node.register(100)
    node.look(Process(200, 3))
    node.fake.end(200)
    node.fake.wait_for(200)
    run, finish = node.registry.finish(ticket.payee.job_id, UID, 3)
    assert node.registry.finish(ticket.payee.job_id, UID, 4) == (run, finish)  # said once
    survey = node.look()
    assert ticket.payee in survey.runs and run.exit_code == 3
    node.registry.end(ticket.payee.job_id)
    (ended,) = node.look().ended
    assert ended.end_ns == finish.wall_ns


def test_a_name_that_comes_after_the_end_is_told_once(node: Node) -> None:
    answers = threading.Event()
    names = UserNames(lambda uid: f"user{uid}" if answers.wait(60) else "")
    node.start(names=names)
    node.spawn(100)
    node.spawn(300)
    ticket, stays = node.register(100, "train"), node.register(300)
    node.look()
    node.fake.end(100)
    (ended,) = node.look().ended
    assert ended.labels == {"name": "train"}
    assert node.look().ended == ()
    answers.set()
    names.settle()
    (named,) = node.look().ended
    assert named == replace(ended, labels={"name": "train", "user": f"user{UID}"})
    assert node.look().ended == () and ticket.payee == named.payee
    assert node.look().runs[stays.payee].labels["user"] == f"user{UID}"


def test_a_name_that_does_not_come_is_not_waited_for_for_ever(node: Node) -> None:
    late = threading.Event()
    names = UserNames(lambda _: "alice" if late.wait(60) else "")
    node.start(names=names)
    node.spawn(100)
    node.register(100)
    node.fake.end(100)
    assert len(node.look().ended) == 1
    node.look(seconds=20)
    late.set()
    names.settle()
    assert [node.look().ended for _ in range(3)] == [(), (), ()]


def test_what_has_just_ended_was_on_its_gpus_until_then(node: Node) -> None:
    node.spawn(100)
    node.spawn(200, 100)
    ticket = node.register(100)
    process = Process(200, node.fake.alive[200].start_ticks)
    assert node.look(process).processes == {GPU: (ticket.payee,)}
    node.fake.end(200)
    node.registry.finish(ticket.payee.job_id, UID, 0)
    survey = node.watch.survey(node.clock.advance(1), 0, {GPU: ()})
    assert survey.processes == {GPU: (ticket.payee,)}


def test_what_goes_on_after_the_command_around_it_pays_for_itself(node: Node) -> None:
    node.spawn(100)
    outer = node.register(100)
    node.spawn(200, 100)
    inner = node.register(200)
    node.work(200, 5)
    assert node.look().steps == {inner.payee: outer.payee}
    node.fake.end(100)
    node.work(200, 5)
    survey = node.look()
    assert survey.cpu_ns == {inner.payee: ns(10)} and survey.steps == {}
    assert node.registry.get(inner.payee.job_id, UID).step_of is None


# ── GPUs ────────────────────────────────────────────────────────────────────────────────────────


def test_a_gpu_is_the_jobs_only_where_it_has_processes_of_its_own(node: Node) -> None:
    job = node.jobs.add("slurm", "7", SLURM_JOB)
    for pid in (90, 100):
        node.spawn(pid, cgroup=SLURM_JOB)
        node.jobs.owners[pid] = job
    ticket = node.register(100)
    own = Process(90, node.fake.alive[90].start_ticks, 30)
    step = Process(100, node.fake.alive[100].start_ticks, 70)
    assert node.look(step).processes == {GPU: (ticket.payee,)}
    survey = node.look(own, step)
    assert survey.processes == {GPU: (job, ticket.payee)}
    reused = step._replace(start_ticks=999)  # another process of the same id
    assert node.look(reused).processes == {GPU: (job,)}
    assert node.jobs.seen[-1][GPU] == (reused,)


def test_lists_that_stand_still_stay_the_same_objects(node: Node) -> None:
    node.spawn(90)
    node.spawn(100)
    node.register(100)
    listed = (Process(90, 2), Process(100, 3))
    node.watch.survey(node.clock.advance(1), 0, {GPU: listed})
    node.watch.survey(node.clock.advance(1), 0, {GPU: listed})
    first, second = (seen[GPU] for seen in node.jobs.seen[-2:])
    assert first == (Process(90, 2),) and first is second


def test_use_is_told_where_it_is_told_of_all(node: Node) -> None:
    node.spawn(100)
    node.spawn(200, 100)
    ticket = node.register(100)
    ticks = [node.fake.alive[pid].start_ticks for pid in (100, 200)]
    told = (Process(100, ticks[0], 30), Process(200, ticks[1], 20))
    assert node.look(*told).sm == {GPU: {ticket.payee: 50}}
    assert node.look(told[0], told[1]._replace(sm=None)).sm == {}


def test_claims_are_in_force_while_the_command_runs(node: Node) -> None:
    node.spawn(100)
    node.spawn(200)
    ticket = node.register(100, gpus=(GPU,))
    assert node.look().claims == (Claim("run", ticket.payee.job_id, GPU, 1_000_000, "run"),)
    with pytest.raises(RunRefused, match="held by another command"):
        node.register(200, gpus=(GPU,))
    assert node.register(100, gpus=(GPU,)).gpus == (GPU,)  # its own step may
    for run in node.registry.running():
        node.registry.end(run.payee.job_id)
    assert node.look().claims == ()


# ── who may ─────────────────────────────────────────────────────────────────────────────────────


def test_nobody_registers_what_is_not_theirs(node: Node) -> None:
    node.spawn(100, uid=1001)
    for pid, reason in ((100, "gone"), (4711, "gone"), (0, "namespace"), (-1, "namespace")):
        with pytest.raises(RunRefused) as refused:
            node.register(pid)
        assert refused.value.reason == reason
    ticket = node.registry.register(RunRequest(100, 1001))
    for uid in (UID, 0):
        with pytest.raises(RunRefused):
            node.registry.finish(ticket.payee.job_id, uid, 0)
    assert node.registry.get(ticket.payee.job_id, None).uid == 1001


def test_a_proc_of_another_namespace_is_noticed(node: Node) -> None:
    node.spawn(100)
    (node.fake.procfs / "self").symlink_to(str(os.getpid() + 1))
    with pytest.raises(RunRefused) as refused:
        node.register(100)
    assert refused.value.reason == "namespace"
    (node.fake.procfs / "self").unlink()
    (node.fake.procfs / "self").symlink_to(str(os.getpid()))
    assert node.register(100)


def test_there_is_a_limit_for_each_user_and_for_all(node: Node) -> None:
    for number in range(6):
        node.spawn(100 + number, uid=UID if number < 4 else 1001)
    for number in range(4):
        node.register(100 + number)
    with pytest.raises(RunRefused, match="4 commands of yours"):
        node.register(103)
    for number in (4, 5):
        node.registry.register(RunRequest(100 + number, 1001))
    with pytest.raises(RunRefused) as refused:
        node.registry.register(RunRequest(105, 1001))
    assert refused.value.reason == "too_many" and "6 commands" in refused.value.message


def test_a_loop_of_commands_is_slowed_down_to_one_a_second(node: Node) -> None:
    node.spawn(100)
    node.spawn(101, uid=1001)
    for _ in range(BURST):
        node.registry.end(node.register(100).payee.job_id)
    for seconds in (0, 0.5, 0.25):
        node.clock.advance(seconds)
        with pytest.raises(RunRefused, match="more than one command a second") as refused:
            node.register(100)
        assert refused.value.reason == "too_many"
    assert node.registry.register(RunRequest(101, 1001))  # nobody else is
    node.clock.advance(0.25)
    assert node.register(100)
    node.clock.advance(3600)
    for _ in range(BURST):
        node.registry.end(node.register(100).payee.job_id)


# ── over a restart ──────────────────────────────────────────────────────────────────────────────


def test_a_restarted_daemon_goes_on_with_those_that_live(node: Node) -> None:
    for pid in (100, 200, 300):
        node.spawn(pid)
    node.spawn(101, 100)
    tickets = {pid: node.register(pid) for pid in (100, 101, 200, 300)}
    for pid in tickets:
        node.work(pid, 10)
    survey = node.look()
    known = [
        KnownRun(survey.runs[ticket.payee], ticket.payee in survey.steps)
        for ticket in tickets.values()
    ]
    remembered = [one.run for one in known if not one.step]
    node.work(101, 25)
    node.fake.end(200)
    node.fake.end(300)
    node.fake.wait_for(300)
    node.fake.spawn(300, 1)  # its id is another's
    node.start(known, remembered)
    after = node.look()
    assert set(after.runs) == {tickets[100].payee, tickets[101].payee}
    assert after.cpu_ns == {tickets[100].payee: 0, tickets[101].payee: ns(25)}  # of the gap
    assert after.steps == {tickets[101].payee: tickets[100].payee}
    assert {run.payee: run.end_ns for run in after.ended} == {
        tickets[200].payee: survey.at.wall_ns,
        tickets[300].payee: survey.at.wall_ns,
    }


def test_another_boot_knows_nothing_of_them(node: Node) -> None:
    node.spawn(100)
    ticket = node.register(100)
    run = node.look().runs[ticket.payee]
    node.clock.boot_id = "boot-2"
    node.start([KnownRun(run)], [run])
    survey = node.look()
    assert survey.runs == {} and [one.payee for one in survey.ended] == [ticket.payee]


# ── conservation ────────────────────────────────────────────────────────────────────────────────

steps = st.lists(
    st.one_of(
        st.tuples(st.just("fork"), st.integers(0, 9), st.booleans()),
        st.tuples(st.just("work"), st.integers(0, 9), st.integers(1, 300)),
        st.tuples(st.just("end"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("register"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("finish"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("look"), st.integers(1, 4), st.just(0)),
    ),
    max_size=40,
)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(steps)
def test_a_job_and_its_steps_use_what_the_job_used(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """Σ of a job and of all commands that ever ran in it = what its cgroup counted; none falls."""
    node = Node(tmp_path_factory.mktemp("n"))
    job = node.jobs.add("slurm", "7", SLURM_JOB)
    node.spawn(100, cgroup=SLURM_JOB)
    next_pid = 200
    last: dict[Payee, int] = {job: 0}

    def look(seconds: float = 1) -> None:
        survey = node.look(seconds=seconds)
        for payee, used in survey.cpu_ns.items():
            assert used >= last.get(payee, 0)
            last[payee] = used
        assert all(survey.steps[payee] in survey.runs for payee in survey.steps)
        assert sum(last.values()) <= node.jobs.cpu_ns[job]

    for what, number, more in steps:
        inside = [pid for pid in node.fake.alive if pid >= 100]
        pid = inside[number % len(inside)]
        if what == "fork":
            node.spawn(next_pid, pid, SLURM_JOB)
            next_pid += 1
        elif what == "work":
            node.work(pid, more, SLURM_JOB)
        elif what == "end" and pid != 100:
            look()  # what is used after the last look before a root dies is the job's
            node.fake.end(pid, heir=100)
            node.fake.wait_for(pid)
        elif what == "register" and len(node.registry.running()) < 4:
            look()
            node.register(pid)
        elif what == "finish" and node.registry.running():
            look()
            running = node.registry.running()
            for run in running[number % 4 : number % 4 + 1]:
                node.registry.end(run.payee.job_id)
        elif what == "look":
            look(seconds=number)
    look()
    look()
    assert sum(last.values()) == node.jobs.cpu_ns[job]
    assert replace(node.look(), ended=()).ended == ()
