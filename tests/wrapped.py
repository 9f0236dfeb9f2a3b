"""A node on which commands are measured: the whole of the daemon but its threads."""

from __future__ import annotations

from pathlib import Path

from cgroups import FakeNode
from fakes import SITE, FakeClock, FixedGrid, ListFeed
from processes import FakeProcesses
from wattledger.core.footprint import footprint
from wattledger.jobs.names import UserNames
from wattledger.jobs.paths import Paths
from wattledger.jobs.runs import RunRegistry, WithRuns, where_is
from wattledger.jobs.watch import JobWatch
from wattledger.ledger import open_ledger
from wattledger.ledger.run_rows import job_total
from wattledger.model import Amounts, CounterReading, DeviceInfo, Kind, MeterReport, PowerReading
from wattledger.model.embodied import NO_EMBODIED, Embodied
from wattledger.model.jobs import RUN, Held, JobKey
from wattledger.model.measuring import GpuNames, Process, Quality
from wattledger.model.receipts import Receipt
from wattledger.model.running import RunRequest
from wattledger.payroll import known_runs, remembered_runs
from wattledger.procfs import NS_PER_TICK
from wattledger.sampler import Sampler
from wattledger.units import NS_PER_S, UJ_PER_J

GPU = DeviceInfo("GPU-1", Kind.GPU, "nvml", "0", "H100")
CPU = DeviceInfo("cpu0", Kind.CPU, "rapl")
DRAM = DeviceInfo("dram0", Kind.DRAM, "rapl")
OTHER = DeviceInfo("other", Kind.OTHER, "constant")
COUNTED = (GPU, CPU, DRAM)
JOB = "/system.slice/slurmstepd.scope/job_7"
KEY = JobKey("slurm", "7")
UID = 1000
SHELL = 50  # of the job, always there
TICKS_PER_S = NS_PER_S // NS_PER_TICK


class Node:
    """A node with one Slurm job, processes inside and outside of it, and a daemon over it."""

    def __init__(self, root: Path, embodied: Embodied = NO_EMBODIED) -> None:
        self.embodied = embodied
        self.files = FakeNode(root / "node", "v2")
        self.processes = FakeProcesses(self.files.procfs)
        self.clock = FakeClock()
        self.path = root / "l.sqlite"
        self.raw_uj = {device.name: 5_000 * UJ_PER_J for device in COUNTED}
        self.busy_ns = 10**12
        self.job_s = 0.0
        self.in_job = {SHELL}
        self.on_gpu: tuple[int, ...] = ()
        self.instances: dict[int, str] = {}  # process → the MIG instance that it is on
        self.gpus: tuple[GpuNames, ...] = ()
        self._listed: tuple[Process, ...] = ()
        self.files.make(JOB)
        self.processes.spawn(SHELL, 1, uid=UID, cgroup=JOB)
        self.start()

    def start(self) -> None:
        self.feed = ListFeed()
        self.ledger = open_ledger(self.path, clock=self.clock, footprint=footprint)
        books, procfs = self.ledger.books, self.files.procfs
        remembered = remembered_runs(books)
        self.registry = RunRegistry(
            self.clock,
            procfs=procfs,
            where=lambda pid: where_is(procfs, Paths(), pid),
            claim_gpus=lambda request, _groups, _inside: request.gpus,
            known=known_runs(books),
        )
        watch = JobWatch(
            Paths(),
            sysfs=self.files.sysfs,
            procfs=procfs,
            boot_id=self.clock.boot_id,
            remembered=[run for run in remembered if run.payee.manager != RUN],
            names=UserNames(str),
            gpus=lambda: self.gpus,
        )
        self.sampler = Sampler(
            clock=self.clock,
            feeds=[self.feed],
            grid=FixedGrid(),
            site=SITE,
            ledger=self.ledger,
            node_load=lambda: 500_000,
            embodied=self.embodied,
            node_busy_ns=lambda: self.busy_ns,
            jobs=WithRuns(
                watch,
                self.registry,
                boot_id=self.clock.boot_id,
                remembered=[run for run in remembered if run.payee.manager == RUN],
                names=UserNames(str),
                gpus=lambda: self.gpus,
            ),
        )

    def spawn(self, pid: int, ppid: int, anon_kb: int = 0) -> None:
        inside = ppid in self.in_job
        self.processes.spawn(
            pid, ppid, uid=UID, cgroup=JOB if inside else "/elsewhere", anon_kb=anon_kb
        )
        if inside:
            self.in_job.add(pid)

    def work(self, pid: int, seconds: float) -> None:
        ticks = round(seconds * TICKS_PER_S)
        self.processes.work(pid, ticks)
        self.busy_ns += ticks * NS_PER_TICK
        if pid in self.in_job:
            self.job_s += ticks / TICKS_PER_S
        self.files.make(JOB, self.job_s, 400_000_000)

    def register(self, pid: int, name: str = "", *gpus: str) -> str:
        return self.registry.register(RunRequest(pid, UID, name, gpus)).payee.job_id

    def end(self, run_id: str) -> Receipt:
        """As the daemon does it: a reading at once, the books, the receipt."""
        self.registry.finish(run_id, UID, 0)
        self.turn({}, 1e-6)
        receipt = self.receipt(run_id)
        self.registry.end(run_id)
        return receipt

    def receipt(self, run_id: str) -> Receipt:
        receipt = self.sampler.receipt(run_id)
        assert receipt is not None
        return receipt

    def pass_time(self, seconds: float, watts: dict[str, float]) -> None:
        self.clock.advance(seconds)
        for name in self.raw_uj:
            self.raw_uj[name] += round(watts.get(name, 0) * seconds * UJ_PER_J)

    def turn(self, watts: dict[str, float], seconds: float = 1.0, used: bool | None = None) -> None:
        self.pass_time(seconds, watts)
        now, boot = self.clock.now(), self.clock.boot_id
        alive = self.processes.alive
        listed = tuple(
            Process(pid, alive[pid].start_ticks, instance=self.instances.get(pid))
            for pid in self.on_gpu
            if pid in alive
        )
        if listed != self._listed:
            self._listed = listed
        counted = (
            CounterReading(d.name, now, self.raw_uj[d.name], None, 10**9, 10**8, boot, "1")
            for d in COUNTED
        )
        self.feed.put(
            MeterReport(
                devices=(*COUNTED, OTHER),
                readings=(
                    *counted,
                    PowerReading("other", now, 10**8, NS_PER_S, 9 * NS_PER_S, Quality.ESTIMATED),
                ),
                processes={GPU.name: len(listed)},
                listed={GPU.name: self._listed},
                used={} if used is None else {GPU.name: used},
            )
        )
        self.sampler.tick()

    def total(self, key: JobKey) -> tuple[Amounts, Held]:
        """What the committed books say of a job."""
        amounts, held = Amounts(), Held()
        for cell in job_total(self.sampler.commit().books.jobs, key).values():
            amounts, held = amounts.plus(cell.amounts), held.plus(cell.held)
        return amounts, held


def whole(receipt: Receipt) -> tuple[Amounts, Held]:
    amounts, held = Amounts(), Held()
    for cell in receipt.cells.values():
        amounts, held = amounts.plus(cell.amounts), held.plus(cell.held)
    return amounts, held


def joules(receipt: Receipt, kind: Kind) -> float:
    cells = [cell for key, cell in receipt.cells.items() if key.kind is kind]
    return sum(cell.amounts.energy_uj for cell in cells) / UJ_PER_J
