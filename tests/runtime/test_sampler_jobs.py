"""Jobs through the whole of the daemon but its threads: cgroups, meters, books, restarts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgroups import FakeNode
from fakes import SITE, FakeClock, FixedGrid, ListFeed
from wattledger.core.footprint import footprint
from wattledger.jobs.names import UserNames
from wattledger.jobs.paths import Paths
from wattledger.jobs.watch import JobWatch
from wattledger.ledger import open_ledger, open_reader_offline
from wattledger.ledger.run_rows import job_total
from wattledger.model import (
    CounterReading,
    DeviceInfo,
    Kind,
    MeterReport,
    PayeeKind,
    PowerReading,
    Quality,
    Snapshot,
)
from wattledger.model.jobbooks import JobQuery
from wattledger.model.jobs import JobKey
from wattledger.model.measuring import Process
from wattledger.payroll import remembered_runs
from wattledger.sampler import Sampler
from wattledger.units import NS_PER_S, UJ_PER_J

GPU = DeviceInfo("GPU-1", Kind.GPU, "nvml", "0", "H100")
CPU = DeviceInfo("cpu0", Kind.CPU, "rapl")
DRAM = DeviceInfo("dram0", Kind.DRAM, "rapl")
OTHER = DeviceInfo("other", Kind.OTHER, "constant")
COUNTED = (GPU, CPU, DRAM)


def cgroup(job: int) -> str:
    return f"/slurm/uid_{1000 + job}/job_{job}"


class Node:
    """A node with a GPU, a CPU and memory, its jobs, and a daemon over it."""

    def __init__(self, root: Path) -> None:
        self.files = FakeNode(root / "node", "v1")
        self.clock = FakeClock()
        self.path = root / "l.sqlite"
        self.raw_uj = {device.name: 5_000 * UJ_PER_J for device in COUNTED}
        self.busy_ns = 10**12
        self.cpu_s: dict[int, float] = {}
        self.on_gpu: tuple[int, ...] = ()
        self._listed: tuple[Process, ...] = ()
        self.start()

    def start(self) -> None:
        self.feed = ListFeed()
        self.ledger = open_ledger(self.path, clock=self.clock, footprint=footprint)
        self.sampler = Sampler(
            clock=self.clock,
            feeds=[self.feed],
            grid=FixedGrid(),
            site=SITE,
            ledger=self.ledger,
            node_load=lambda: 500_000,
            node_busy_ns=lambda: self.busy_ns,
            jobs=JobWatch(
                Paths(),
                sysfs=self.files.sysfs,
                procfs=self.files.procfs,
                boot_id=self.clock.boot_id,
                remembered=remembered_runs(self.ledger.books),
                names=UserNames(lambda uid: f"user{uid}"),
            ),
        )

    def run(self, job: int, cpu_s: float = 0.0, memory: int = 0) -> None:
        """The job exists, and has used so much more CPU."""
        self.cpu_s[job] = self.cpu_s.get(job, 0.0) + cpu_s
        self.busy_ns += round(cpu_s * NS_PER_S)
        self.files.make(cgroup(job), self.cpu_s[job], memory)
        self.files.process(100 + job, cgroup(job))

    def end(self, job: int) -> None:
        self.files.remove(cgroup(job))
        if job in self.cpu_s:
            self.files.gone(100 + job)
        self.cpu_s.pop(job, None)

    def pass_time(self, seconds: float, watts: dict[str, float]) -> None:
        self.clock.advance(seconds)
        for name in self.raw_uj:
            self.raw_uj[name] += round(watts.get(name, 0) * seconds * UJ_PER_J)

    def turn(
        self,
        watts: dict[str, float],
        seconds: float = 1.0,
        used: bool | None = None,
        may_wait: bool = False,
    ) -> None:
        self.pass_time(seconds, watts)
        now, boot = self.clock.now(), self.clock.boot_id
        pids = tuple(100 + job for job in self.on_gpu)
        if tuple(p.pid for p in self._listed) != pids:
            self._listed = tuple(Process(pid, 100) for pid in pids)
        self.feed.put(
            MeterReport(
                devices=(*COUNTED, OTHER),
                readings=(
                    *(
                        CounterReading(
                            d.name, now, self.raw_uj[d.name], None, 10**9, 10**8, boot, "1"
                        )
                        for d in COUNTED
                    ),
                    PowerReading("other", now, 10**8, NS_PER_S, 3 * NS_PER_S, Quality.ESTIMATED),
                ),
                processes={GPU.name: len(pids)},
                listed={GPU.name: self._listed},
                used={} if used is None else {GPU.name: used},
            )
        )
        self.sampler.tick(may_wait=may_wait)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def joules(snapshot: Snapshot, job: int, kind: Kind) -> float:
    cells = job_total(snapshot.books.jobs, JobKey("slurm", str(job)))
    found = [cell for key, cell in cells.items() if key.kind is kind]
    return sum(cell.amounts.energy_uj for cell in found) / UJ_PER_J


def payee_joules(snapshot: Snapshot, device: str, payee: PayeeKind) -> float:
    return (
        sum(
            total.amounts.energy_uj
            for key, total in snapshot.books.totals.items()
            if key.device == device and key.payee is payee
        )
        / UJ_PER_J
    )


def test_a_job_pays_for_what_it_holds_and_uses(node: Node) -> None:
    node.turn({})
    node.run(7, cpu_s=1.0, memory=512_000_000)  # half of the node's
    node.on_gpu = (7,)
    node.busy_ns += NS_PER_S  # another second of somebody's
    node.turn({GPU.name: 400, CPU.name: 100, DRAM.name: 20})
    snapshot = node.sampler.commit()

    assert joules(snapshot, 7, Kind.GPU) == 400
    assert joules(snapshot, 7, Kind.CPU) == 50
    assert joules(snapshot, 7, Kind.DRAM) == 10
    # `other` follows: 460 of 520 J were the job's.
    assert joules(snapshot, 7, Kind.OTHER) == pytest.approx(100 * 460 / 520, abs=1e-5)
    assert payee_joules(snapshot, "cpu0", PayeeKind.SYSTEM) == 50
    assert payee_joules(snapshot, "dram0", PayeeKind.IDLE) == 10
    (book,) = snapshot.books.jobs.runs.values()
    assert [h.device for h in book.run.holdings] == [GPU.name]
    assert book.run.uid == 1007
    watts = snapshot.job_power_uw[JobKey("slurm", "7")] / 1e6
    assert watts == pytest.approx(460 + 100 * 460 / 520, rel=0.01)


def test_the_last_sign_of_life_is_the_end(node: Node) -> None:
    node.run(7)
    node.on_gpu = (7,)
    node.turn({})
    node.turn({GPU.name: 300})
    seen_ns = node.clock.wall_ns
    node.end(7)
    node.turn({GPU.name: 300})  # the driver still lists what has gone
    snapshot = node.sampler.commit()

    assert joules(snapshot, 7, Kind.GPU) == 300
    assert payee_joules(snapshot, GPU.name, PayeeKind.IDLE) == 300
    (book,) = snapshot.books.jobs.runs.values()
    assert book.run.end_ns == seen_ns
    assert [h.device for h in book.run.holdings] == [GPU.name]  # what it held to its end


def test_what_is_held_and_not_used_is_told(node: Node) -> None:
    node.run(7)
    node.on_gpu = (7,)
    node.turn({})
    for _ in range(4):
        node.turn({GPU.name: 300})
    node.turn({GPU.name: 300}, used=True)
    for _ in range(4):
        node.turn({GPU.name: 60})
    node.sampler.commit()  # what is idle is known later than the energy
    node.turn({GPU.name: 60}, used=False)
    node.turn({GPU.name: 60})
    snapshot = node.sampler.commit()

    cells = job_total(snapshot.books.jobs, JobKey("slurm", "7"))
    (held,) = [cell.held for key, cell in cells.items() if key.kind is Kind.GPU]
    assert held.held_ms == 11_000
    assert (held.idle_ms, held.idle_uj) == (5_000, 300 * UJ_PER_J)


def test_of_two_reports_in_one_turn_each_may_say_that_a_gpu_was_used(node: Node) -> None:
    node.run(7)
    node.on_gpu = (7,)
    node.turn({})
    for used in (True, False):  # drained together: the sampler came late
        node.feed.put(MeterReport(used={GPU.name: used}))
    node.turn({GPU.name: 300})
    node.turn({GPU.name: 60}, used=False)
    cells = job_total(node.sampler.commit().books.jobs, JobKey("slurm", "7"))
    (held,) = [cell.held for key, cell in cells.items() if key.kind is Kind.GPU]
    assert (held.held_ms, held.idle_ms, held.idle_uj) == (2_000, 1_000, 60 * UJ_PER_J)


def test_a_restart_gives_the_gap_to_who_lives_on_both_sides(node: Node) -> None:
    node.run(7, memory=512_000_000)
    node.run(8)
    node.on_gpu = (7,)
    node.turn({})
    node.turn({GPU.name: 300})
    before = node.sampler.commit()
    node.ledger.close()
    node.end(8)
    node.run(7, cpu_s=30, memory=512_000_000)
    node.busy_ns += 30 * NS_PER_S
    node.run(9, cpu_s=0)
    node.pass_time(59, {GPU.name: 100, CPU.name: 10})
    node.start()
    node.turn({GPU.name: 100, CPU.name: 10})
    after = node.sampler.commit()

    assert joules(before, 7, Kind.GPU) == 300
    assert joules(after, 7, Kind.GPU) == 300 + 6000
    assert joules(after, 7, Kind.CPU) == 300  # 30 of the 60 CPU seconds
    assert payee_joules(after, "cpu0", PayeeKind.UNATTRIBUTED) == 300
    runs = {p.job_id: book.run for p, book in after.books.jobs.runs.items()}
    assert runs["8"].end_ns and not runs["7"].end_ns
    assert set(before.books.jobs.runs) <= set(after.books.jobs.runs)  # the same run as before


def test_a_forged_cgroup_gets_nothing_and_takes_nothing(node: Node) -> None:
    session = "/user.slice/user-1001.slice"
    fake = f"{session}/user@1001.service/app.slice/slurm/uid_1007/job_7"
    node.files.make(session)
    node.files.make(fake)
    node.files.process(500, fake)
    node.run(7)
    node.turn({})
    node.feed.put(MeterReport(processes={GPU.name: 1}, listed={GPU.name: (Process(500, 100),)}))
    node._listed = (Process(500, 100),)
    node.on_gpu = (400,)
    node.turn({GPU.name: 300})
    snapshot = node.sampler.commit()
    totals = {
        key.job_id: sum(c.amounts.energy_uj for c in job_total(snapshot.books.jobs, key).values())
        for key in {book.run.key for book in snapshot.books.jobs.runs.values()}
    }
    assert totals["1001"] > 0 and totals["7"] == 0


events = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.floats(0, 700), st.floats(0.2, 5)),
        st.tuples(st.just("run"), st.integers(1, 4), st.floats(0, 3)),
        st.tuples(st.just("end"), st.integers(1, 4), st.none()),
        st.tuples(st.just("gpu"), st.lists(st.integers(1, 5), max_size=3, unique=True), st.none()),
        st.tuples(st.just("used"), st.booleans(), st.none()),
        st.tuples(st.just("commit"), st.none(), st.none()),
        st.tuples(st.just("kill"), st.none(), st.floats(0, 90)),
        st.tuples(st.just("step"), st.none(), st.floats(-4000, 4000)),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events)
def test_whatever_happens_the_answers_of_all_are_the_nodes_energy(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, object, object]]
) -> None:
    """Σ jobs, idle, system and unattributed = the node, in every quantity, with ==; nobody pays
    for a GPU without a process on it; no job's total ever falls."""
    node = Node(tmp_path_factory.mktemp("node"))
    node.turn({})
    shown: dict[JobKey, int] = {}
    ever_on_gpu: set[str] = set()

    def check(snapshot: Snapshot) -> None:
        for book in snapshot.books.jobs.runs.values():
            key = book.run.key
            total = job_total(snapshot.books.jobs, key)
            energy = sum(cell.amounts.energy_uj for cell in total.values())
            assert energy >= shown.get(key, 0)
            shown[key] = energy

    for what, first, second in events:
        if what == "turn":
            node.turn({d.name: float(first) for d in COUNTED}, float(second))  # type: ignore[arg-type]
        elif what == "run":
            node.run(int(first), float(second), 1000)  # type: ignore[call-overload, arg-type]
        elif what == "end":
            node.end(int(first))  # type: ignore[call-overload]
        elif what == "gpu":
            node.on_gpu = tuple(first)  # type: ignore[arg-type]
            ever_on_gpu |= {str(job) for job in node.on_gpu}
        elif what == "used":
            node.turn({GPU.name: 50}, used=bool(first))
        elif what == "commit":
            check(node.sampler.commit())
        elif what == "kill":
            node.ledger.close()
            node.pass_time(float(second), {d.name: 100 for d in COUNTED})  # type: ignore[arg-type]
            node.start()
        elif what == "step":
            node.clock.step_wall(float(second))  # type: ignore[arg-type]
    node.turn({})
    check(node.sampler.commit())
    node.ledger.close()
    reader = open_reader_offline(node.path)
    assert reader.check(footprint) == []
    whole = reader.totals(0, 2**62, "all")
    for by in ("payee", "job", "user", "device"):
        rows = reader.totals(0, 2**62, by)
        for index in range(4):
            assert sum(r.amounts[index] for r in rows) == sum(r.amounts[index] for r in whole)
    for row in reader.jobs(JobQuery(limit=1000)):
        gpu = [c for k, c in row.book.cells.items() if k.kind is Kind.GPU]
        assert not gpu or row.book.run.payee.job_id in ever_on_gpu
        for cell in row.book.cells.values():
            assert 0 <= cell.held.idle_ms <= cell.held.held_ms
            assert cell.held.idle_uj <= cell.amounts.energy_uj
    reader.close()


def test_among_many_jobs_every_second_turn_has_to_do(node: Node) -> None:
    for job in range(40):
        node.run(job)
    node.on_gpu = (7,)
    node.turn({})
    node.sampler.commit()
    node.run(7, cpu_s=1.0)
    node.turn({GPU.name: 400, CPU.name: 100}, may_wait=True)  # looks at nobody
    node.run(8, cpu_s=1.0)
    node.turn({GPU.name: 200, CPU.name: 100}, may_wait=True)
    snapshot = node.sampler.commit()
    assert joules(snapshot, 7, Kind.GPU) == 600
    assert joules(snapshot, 7, Kind.CPU) == joules(snapshot, 8, Kind.CPU) == 100
