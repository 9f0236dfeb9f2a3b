"""Commands within commands: after a restart, and while others register and finish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from fakes import FakeClock
from processes import FakeProcesses, ns
from wattledger.jobs.paths import Paths
from wattledger.jobs.runs import NoJobs, RunRegistry, WithRuns, where_is
from wattledger.model import Instant
from wattledger.model.jobs import JobKey, Survey
from wattledger.model.measuring import Process
from wattledger.model.running import KnownRun, RunRequest, RunTicket

SLURM_JOB = "/slurm/uid_1000/job_7"
UID = 1000


class Interrupted:
    """A `ports.Jobs` in whose survey something else happens, as from another thread."""

    def __init__(self, procfs: Path) -> None:
        self._jobs = NoJobs(procfs)
        self.meanwhile: Callable[[], object] = lambda: None

    def survey(
        self,
        now: Instant,
        busy_ns: int | None = None,
        processes: Mapping[str, tuple[Process, ...]] | None = None,
    ) -> Survey:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return self._jobs.survey(now, busy_ns, processes or {})


class Node:
    def __init__(self, root: Path) -> None:
        self.clock = FakeClock()
        self.fake = FakeProcesses(root / "proc")
        self.jobs = Interrupted(self.fake.procfs)
        self.start()

    def start(self, known: Sequence[KnownRun] = ()) -> None:
        self.registry = RunRegistry(
            self.clock,
            procfs=self.fake.procfs,
            where=lambda pid: where_is(self.fake.procfs, Paths(), pid),
            known=known,
        )
        self.watch = WithRuns(self.jobs, self.registry, boot_id=self.clock.boot_id)

    def register(self, pid: int) -> RunTicket:
        self.clock.advance(0.1)
        return self.registry.register(RunRequest(pid, UID))

    def look(self) -> Survey:
        return self.watch.survey(self.clock.advance(1), 0, {})

    def restart(self) -> None:
        """As from the note that the ledger keeps."""
        survey = self.look()
        known = [KnownRun(run, payee in survey.steps) for payee, run in survey.runs.items()]
        self.start(known[::-1])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def outer_of(node: Node, ticket: RunTicket) -> str:
    outer = node.registry.get(ticket.payee.job_id, UID).outer
    return outer.payee.job_id if outer is not None else ""


def test_after_a_restart_everything_is_around_what_it_was_around(node: Node) -> None:
    for pid, parent in ((100, 1), (200, 100), (300, 200), (400, 300)):
        node.fake.spawn(pid, parent)
    # The innermost first, then its grandparent, then one in between, and one process twice.
    tickets = [node.register(pid) for pid in (400, 200, 300, 300, 100)]
    before = [outer_of(node, ticket) for ticket in tickets]
    steps = node.look().steps
    node.restart()
    assert [outer_of(node, ticket) for ticket in tickets] == before
    assert before[1] == tickets[4].payee.job_id
    assert node.look().steps == steps


def test_after_a_restart_a_parent_has_what_its_child_leaves(node: Node) -> None:
    node.fake.spawn(100, 1)
    node.fake.spawn(200, 100)
    child, parent = node.register(200), node.register(100)
    node.restart()
    node.fake.work(200, 40)
    node.fake.work(100, 3)
    assert node.look().cpu_ns == {child.payee: ns(40), parent.payee: ns(3)}


def test_one_whose_command_ended_while_no_daemon_looked_pays_for_itself(node: Node) -> None:
    node.fake.spawn(100, 1)
    node.fake.spawn(200, 100)
    node.register(100)
    inner = node.register(200)
    survey = node.look()
    node.fake.end(100)
    node.start([KnownRun(run, payee in survey.steps) for payee, run in survey.runs.items()])
    node.fake.work(200, 5)
    survey = node.look()
    assert survey.cpu_ns == {inner.payee: ns(5)} and set(survey.runs) == {inner.payee}
    assert survey.steps == {}
    assert node.registry.get(inner.payee.job_id, UID).step_of is None


def test_in_a_job_it_is_the_jobs_step_whoever_ended(node: Node) -> None:
    node.fake.spawn(100, 1, cgroup=SLURM_JOB)
    node.fake.spawn(200, 100, cgroup=SLURM_JOB)
    node.register(100)
    inner = node.register(200)
    runs = [node.registry.get(t.payee.job_id, UID) for t in (inner,)]
    record = node.watch._record(runs[0])
    node.fake.end(100)
    node.start([KnownRun(record, step=True)])
    assert node.registry.get(inner.payee.job_id, UID).step_of == JobKey("slurm", "7")


def test_a_command_that_ends_while_we_look_is_there_or_is_not(node: Node) -> None:
    """Whoever finishes does so in another thread; a survey is of one moment all the same."""
    node.fake.spawn(100, 1)
    node.fake.spawn(200, 100)
    outer, inner = node.register(100), node.register(200)
    node.look()
    node.fake.work(100, 3)
    node.fake.work(200, 40)
    node.jobs.meanwhile = lambda: node.registry.end(outer.payee.job_id)
    survey = node.look()
    assert survey.cpu_ns == {outer.payee: ns(3), inner.payee: ns(40)}
    assert survey.steps == {inner.payee: outer.payee}
    survey = node.look()
    assert survey.cpu_ns == {inner.payee: ns(40)} and survey.steps == {}
    assert [run.payee for run in survey.ended] == [outer.payee]


def test_a_command_that_begins_while_we_look_is_there_at_the_next_look(node: Node) -> None:
    node.fake.spawn(100, 1)
    node.fake.spawn(200, 100)
    inner = node.register(200)
    node.look()
    node.fake.work(200, 40)
    late: list[RunTicket] = []
    node.jobs.meanwhile = lambda: late.append(node.register(100))
    assert node.look().cpu_ns == {inner.payee: ns(40)}
    node.fake.work(100, 3)
    node.fake.work(200, 2)
    assert node.look().cpu_ns == {inner.payee: ns(42), late[0].payee: ns(3)}


def test_a_step_that_no_look_has_seen_is_no_job_of_its_own(node: Node) -> None:
    node.fake.spawn(90, 1, cgroup=SLURM_JOB)
    node.fake.spawn(100, 90, cgroup=SLURM_JOB)
    node.fake.spawn(300, 1)
    node.fake.spawn(400, 300)
    of_a_job = node.register(100)
    own = node.register(300)
    of_a_command = node.register(400)
    assert of_a_job.step_of and of_a_command.step_of
    for pid in (100, 300, 400):
        node.fake.end(pid)
    survey = node.look()
    assert survey.runs == {} and [run.payee for run in survey.ended] == [own.payee]


def test_a_step_that_waited_for_its_job_in_vain_is_none_either(node: Node) -> None:
    node.fake.spawn(100, 1, cgroup=SLURM_JOB)
    ticket = node.register(100)
    assert node.look().runs == {}
    node.registry.finish(ticket.payee.job_id, UID, 0)
    assert node.look().runs == {}
    node.registry.end(ticket.payee.job_id)
    assert node.look().ended == ()
