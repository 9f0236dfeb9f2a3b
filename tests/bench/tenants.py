"""Jobs on the simulated node: 64 that run, 100 that linger, 1,000 that ended long ago.

The cgroups and the processes are files in the shapes of Slurm and systemd. Another process moves
their counters. What ended is written to the ledger beforehand, as a daemon would have.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from bench.node import Case, Node, all_counters
from cgroups import FakeNode
from ledgers import PRICE, batch, key, opened
from wattledger.clock import SystemClock
from wattledger.model import DeviceInfo, EntryKey, Kind
from wattledger.model.jobs import SLURM, Held, JobRun, job_payee
from wattledger.units import NS_PER_MS, NS_PER_S, slot_of

RUNNING = 64
PROCESSES = 10  # of each
LINGERING = 100
ENDED = 1000
USERS = 12
FIRST_ID = 2_000_000  # job ids as long as on a cluster that is no longer young
FIRST_PID = 3_000_000  # of no process of the machine
MOVE_S = 0.25
SCOPE = "/system.slice/slurmstepd.scope"
PROLOG = Path(__file__).parents[2] / "deploy/slurm/prolog.sh"
KERNEL_FILES = ("stat", "cpuinfo", "sys", "self", "mounts", "version")
SETTINGS = """
[jobs]
labels = ["user", "account", "partition"]
slurm.hooks_dir = "{hooks}"
"""


class Tenant(NamedTuple):
    """A running job: its id, whose it is, the GPU it is on, its processes."""

    job_id: str
    user: str
    gpu: int
    pids: range

    @property
    def cgroup(self) -> str:
        """Its directory."""
        return f"{SCOPE}/job_{self.job_id}"


def tenants(gpus: int) -> list[Tenant]:
    """The jobs that run, spread over the GPUs."""
    return [
        Tenant(
            str(FIRST_ID + 2000 + number),
            f"user{number % USERS:02d}",
            number % gpus,
            range(FIRST_PID + number * PROCESSES, FIRST_PID + (number + 1) * PROCESSES),
        )
        for number in range(RUNNING)
    ]


def gpus_in_use() -> list[Case]:
    """The eight GPUs, each with the processes of eight jobs on it, which keep it busy."""
    cases = all_counters()
    for tenant in tenants(len(cases)):
        cases[tenant.gpu].gpu.pids.extend(tenant.pids)
    for case in cases:
        case.gpu.utilization = 93
    return cases


class TenantNode(Node):
    """A node with jobs on it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, gpus_in_use())
        self.tenants = tenants(len(self.cases))
        self.kernel = FakeNode(directory)
        self.procfs = self.kernel.procfs
        self.hooks = directory / "hooks"
        for name in KERNEL_FILES:
            (self.procfs / name).symlink_to(f"/proc/{name}")
        self._make_strangers()
        for tenant in self.tenants:
            self._make(tenant)
        self._run_hooks()
        self._write_past(directory / "ledger.sqlite")

    @property
    def settings(self) -> str:
        """What the daemon is told besides its defaults."""
        return SETTINGS.format(hooks=self.hooks)

    def _make_strangers(self) -> None:
        """What a node runs besides jobs."""
        for number in range(40):
            self.kernel.make(f"/system.slice/service-{number}.service", cpu_s=number)
        for uid in range(1000, 1004):
            self.kernel.make(f"/user.slice/user-{uid}.slice/session-{uid}.scope", cpu_s=1)

    def _make(self, tenant: Tenant) -> None:
        number = int(tenant.job_id) % 2000
        self.kernel.make(tenant.cgroup, cpu_s=100.0, memory=(1 + number) << 26)
        self.kernel.make(f"{tenant.cgroup}/step_batch/user/task_0", cpu_s=100.0)
        inside = f"{tenant.cgroup}/step_batch/user/task_0"
        for pid in tenant.pids:
            self.kernel.process(pid, inside, start_ticks=1_000_000 + pid)
        procs = self.kernel.cgroup / inside.lstrip("/") / "cgroup.procs"
        procs.write_text("".join(f"{pid}\n" for pid in tenant.pids))

    def _run_hooks(self) -> None:
        """The prolog of `deploy/slurm` for each job: what it writes is believed of root only."""
        self.hooks.mkdir(mode=0o755)
        for tenant in self.tenants:
            environment = {
                "WATTLEDGER_JOBS_DIR": str(self.hooks),
                "SLURM_JOB_ID": tenant.job_id,
                "SLURM_JOB_UID": str(1000 + int(tenant.user[4:])),
                "SLURM_JOB_USER": tenant.user,
                "SLURM_JOB_ACCOUNT": "physics",
                "SLURM_JOB_PARTITION": "gpu",
                "SLURM_JOB_GPUS": str(tenant.gpu),
            }
            subprocess.run(["/bin/sh", str(PROLOG)], env=environment, check=True)

    def _write_past(self, ledger: Path) -> None:
        """A ledger of jobs that ended within the last five minutes, and in the last month."""
        clock = SystemClock()
        now = clock.now()
        draws = random.Random(4711)
        gpus = [
            DeviceInfo(case.gpu.uuid, Kind.GPU, "nvml", str(index), case.gpu.name)
            for index, case in enumerate(self.cases)
        ]
        cpus = [DeviceInfo(f"cpu{n}", Kind.CPU, "rapl", str(n)) for n in range(2)]
        drams = [DeviceInfo(f"dram{n}", Kind.DRAM, "rapl", str(n)) for n in range(2)]
        devices = (*gpus, *cpus, *drams)
        with contextlib.closing(opened(ledger, clock)) as books:  # type: ignore[arg-type]
            for begin in range(0, LINGERING + ENDED, 100):
                runs: list[JobRun] = []
                energy_uj: dict[EntryKey, int] = {}
                held: dict[EntryKey, Held] = {}
                for number in range(begin, begin + 100):
                    month_ns = draws.randrange(3600, 30 * 86_400) * NS_PER_S
                    ago_ns = number * 3 * NS_PER_S if number < LINGERING else month_ns
                    end_ns = now.wall_ns - ago_ns
                    payee = job_payee(SLURM, str(FIRST_ID + number), end_ns - 600 * NS_PER_S)
                    labels = {
                        "user": f"user{number % USERS:02d}",
                        "account": "physics",
                        "partition": "gpu",
                    }
                    runs.append(JobRun(payee, 1000, labels, last_seen_ns=end_ns, end_ns=end_ns))
                    for device in (gpus[number % len(gpus)], *cpus, *drams):
                        entry = key(slot_of(end_ns), device.name, payee, price=PRICE)
                        energy_uj[entry] = draws.randrange(1_000_000, 400_000_000_000)
                        if device.kind is Kind.GPU:
                            held[entry] = Held(600_000, 60_000, energy_uj[entry] // 20)
                books.commit(
                    batch(
                        energy_uj,
                        devices=devices,
                        runs=tuple(runs),
                        held=held,
                        books_ns=now.wall_ns,
                    ),
                    clock.now(),
                )

    @contextlib.contextmanager
    def working(self) -> Iterator[TenantNode]:
        """Keep the jobs' CPU counters moving, from another process, and RAPL's from a third."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        stats = [
            str(self.kernel.cgroup / tenant.cgroup.lstrip("/") / "cpu.stat")
            for tenant in self.tenants
        ]
        mover = context.Process(target=_work, args=(stats, there), daemon=True)
        mover.start()
        try:
            here.recv()
            with self.moving():
                yield self
        finally:
            here.send(None)
            mover.join(5)


def _work(stats: list[str], pipe: Connection) -> None:
    """The process that lets CPU time pass, for each job at a rate of its own."""
    opened_stats = [os.open(path, os.O_WRONLY) for path in stats]
    begun_ns = time.monotonic_ns()
    pipe.send(None)
    while not pipe.poll(MOVE_S):
        passed_ms = (time.monotonic_ns() - begun_ns) // NS_PER_MS
        for number, handle in enumerate(opened_stats):
            used_us = 100_000_000 + passed_ms * (100 + 10 * number)
            text = f"usage_usec {used_us:020d}\nuser_usec {used_us:020d}\nsystem_usec 0\n"
            os.pwrite(handle, text.encode(), 0)
    for handle in opened_stats:
        os.close(handle)
