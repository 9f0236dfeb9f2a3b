"""Nodes of a small fleet whose day can be told in seconds: the daemon's own parts on a held clock.

What is made up is what the hardware and the scheduler say: watts, jobs, faults. What becomes of it
is the product's: `Sampler`, the SQLite ledger and the page's renderer, turn by turn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from fakes import FakeClock
from wattledger.core.footprint import footprint
from wattledger.ledger import open_ledger
from wattledger.model import (
    Basis,
    CounterReading,
    DeviceInfo,
    FallbackLevel,
    GridChoice,
    GridSignal,
    Instant,
    Kind,
    MeterReport,
    MeterStatus,
    PowerReading,
    Quality,
    SiteFactors,
    SourceStatus,
)
from wattledger.model.embodied import Embodied
from wattledger.model.jobs import Claim, Holding, JobRun, Survey, job_payee
from wattledger.model.market import Contract, Market
from wattledger.model.measuring import Process
from wattledger.sampler import Sampler
from wattledger.units import NS_PER_S, UJ_PER_J, micro
from wattledger_exporters.prometheus import Renderer

BEGIN_S = 1_768_456_800  # 2026-01-15T06:00:00Z
TURN_S = 30
LABELS = ("name", "user", "account")
CORES = 64
MODEL = "NVIDIA H100 80GB HBM3"
OTHER_W, DRAM_W, GPU_IDLE_W, CPU_IDLE_W, CORE_W = 250.0, 18.0, 72.0, 90.0, 2.5
CPU_SHARE, MEMORY_BYTES = 0.006, 44 << 20


class JobPlan(NamedTuple):
    """A job as the scheduler knows it.

    Attributes:
        gpus: node → the numbers of its GPUs that the job holds.
        begin_s: seconds after `BEGIN_S`.
        end_s: likewise; None: it runs on.
        busy_until_s: after that it holds its GPUs without using them.
        cores: that it keeps busy on each of its nodes.
        named_s: so long after its beginning nobody knows its labels.
    """

    manager: str
    job_id: str
    name: str
    user: str
    account: str
    gpus: dict[str, tuple[int, ...]]
    begin_s: int
    end_s: int | None = None
    busy_until_s: int = 10**9
    cores: int = 8
    named_s: int = 0

    def runs_at(self, second: float) -> bool:
        """Whether it is there."""
        return self.begin_s <= second and (self.end_s is None or second < self.end_s)

    def uses_at(self, second: float) -> bool:
        """Whether its GPUs do anything."""
        return self.runs_at(second) and second < self.busy_until_s


EVERY = (0, 1, 2, 3)
PLANS = (
    JobPlan("slurm", "4711", "train-llm", "alice", "physics",
            {"gpu01": EVERY, "gpu02": EVERY}, 600, cores=24),
    JobPlan("slurm", "4712", "sweep", "bob", "physics", {"gpu03": (0, 1)}, 1200, busy_until_s=5400),
    JobPlan("slurm", "4713", "fold", "carol", "biology", {"gpu03": (2,)}, 600, 4200),
    JobPlan("slurm", "4714", "fold", "carol", "biology", {"gpu03": (2,)}, 8100),
    JobPlan("pod", "8c1f0a52-7d0e-4a1b-9a57-3f5f0d1c2b3a", "notebook", "dave", "teaching",
            {"gpu03": (3,)}, 9000, 12_600, cores=2),
)  # fmt: skip
LENGTH_S = 15_000  # four hours and ten minutes
COUNTER_RESET_S = 9900  # gpu03: the driver is loaded anew
LATE_METER_S = (10_800, 11_400)  # gpu02: a meter does not answer
SITE = SiteFactors(
    *(micro(1.2), "config", micro(0.36), "default", micro(3.1), "table"),
    price_per_kwh=0.25,
    market=Market((Contract("wind", 400_000, 11_000_000),)),
    water_stress_factor=1.8,
)


class DayGrid:
    """A grid that gets cleaner as the sun rises, published half-hour by half-hour."""

    def __init__(self, clock: FakeClock, begin_s: int = BEGIN_S) -> None:
        self._clock, self._begin_s = clock, begin_s

    def at(self, wall_ns: int) -> GridChoice:
        """A smooth fall from 420 to 180 g/kWh over the four hours."""
        slot = wall_ns // NS_PER_S // 1800 * 1800
        turn = min(1, (slot - self._begin_s) / 14_400)
        grams = 300 + 120 * math.cos(math.pi * turn)
        signal = GridSignal(
            micro(round(grams)), "DE", "energy-charts", Basis.LIFECYCLE,
            slot * NS_PER_S, (slot + 1800) * NS_PER_S, False, slot * NS_PER_S, 1800 * NS_PER_S,
        )  # fmt: skip
        return GridChoice(signal, FallbackLevel.LIVE, estimated=False)

    def signals(self) -> tuple[GridSignal, ...]:
        return ()

    def statuses(self) -> tuple[SourceStatus, ...]:
        """A request each quarter of an hour, of which some fail."""
        asked = (self._clock.wall_ns // NS_PER_S - self._begin_s) // 900 + 1
        return (SourceStatus("energy-charts", {"ok": asked, "timeout": asked // 6}),)


class Stopwatch:
    """The node's clock, but with a monotonic one that runs: commits take their time."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    @property
    def boot_id(self) -> str:
        return self._clock.boot_id

    def now(self) -> Instant:
        return self._clock.now()._replace(monotonic_ns=time.monotonic_ns())


@dataclass
class Node:
    """One node: hardware that is made up, and the daemon's own parts over it."""

    name: str
    home: Path
    begin_s: int = BEGIN_S
    gpu_numbers: tuple[int, ...] = EVERY
    schedule: Sequence[JobPlan] = PLANS
    clock: FakeClock = field(init=False)
    watts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = FakeClock(self.begin_s * NS_PER_S)
        self.clock.boot_id = f"boot-{self.name}"
        tag = self.name[-2:]
        self.gpus = [
            DeviceInfo(f"GPU-{tag}{i:06d}-1111-2222-3333-444444444444", Kind.GPU, "nvml", str(i),
                       MODEL, f"00000000:{i + 1:02X}:00.0")
            for i in self.gpu_numbers
        ]  # fmt: skip
        self.cpus = [DeviceInfo(f"cpu{i}", Kind.CPU, "rapl", str(i), "package") for i in range(2)]
        self.drams = [DeviceInfo(f"dram{i}", Kind.DRAM, "rapl", str(i)) for i in range(2)]
        self.other = DeviceInfo("other", Kind.OTHER, "constant", "0")
        self.counted = [*self.gpus, *self.cpus, *self.drams]
        self._raw_uj = {info.name: 10**9 for info in self.counted}
        self._load = {info.name: "1" for info in self.counted}
        self._cpu_ns: dict[str, int] = {}
        self._busy_ns = 10**12
        self._late = 0
        self._using: set[int] = set()
        self._running: dict[str, JobRun] = {}
        self._reports: list[MeterReport] = []
        path = self.home / f"{self.name}.sqlite"
        self.ledger = open_ledger(path, clock=Stopwatch(self.clock), footprint=footprint)
        self._renderer = Renderer()
        self._sampler = Sampler(
            clock=self.clock,
            feeds=[self],
            grid=DayGrid(self.clock, self.begin_s),
            site=SITE,
            ledger=self.ledger,
            node_load=lambda: 500_000,
            node_busy_ns=lambda: self._busy_ns,
            jobs=self,
            embodied=Embodied(),
            version="0.1.0",
            simulated="fleet",
        )

    # ── the shape of the world ──────────────────────────────────────────────────────────────────

    @property
    def second(self) -> int:
        """Since the beginning."""
        return self.clock.wall_ns // NS_PER_S - self.begin_s

    def plans(self) -> list[JobPlan]:
        """The jobs that are here now."""
        return [p for p in self.schedule if self.name in p.gpus and p.runs_at(self.second)]

    def _draw(self) -> dict[str, float]:
        """Watts of each device now."""
        second = self.second
        watts = {"other": OTHER_W, **{info.name: DRAM_W for info in self.drams}}
        for number, info in enumerate(self.gpus):
            users = [p for p in self.plans() if number in p.gpus[self.name] and p.uses_at(second)]
            swing = 60 * math.sin(second / 420 + number + 2 * int(self.name[-1]))
            watts[info.name] = 540 + swing if users else GPU_IDLE_W
        cores = 2 + sum(plan.cores for plan in self.plans())
        for info in self.cpus:
            watts[info.name] = CPU_IDLE_W + CORE_W * cores / len(self.cpus)
        return watts

    # ── ports.MeterFeed and ports.Jobs ──────────────────────────────────────────────────────────

    def drain(self) -> list[MeterReport]:
        taken, self._reports = self._reports, []
        return taken

    def statuses(self) -> tuple[MeterStatus, ...]:
        begin, end = LATE_METER_S
        down = self.name == "gpu02" and begin <= self.second < end
        self._late += down
        now_ns = self.clock.wall_ns
        return (
            MeterStatus("nvml", True, now_ns, {"timeout": self.second // 3600}),
            MeterStatus("cpu", True, now_ns, {}, missed_ticks=self.second // 1800),
            MeterStatus("hwmon", not down, now_ns, {"permission": self._late}),
        )

    def survey(
        self,
        now: Instant,
        busy_ns: int | None = None,
        processes: object = None,
    ) -> Survey:
        here = {plan.job_id: plan for plan in self.plans()}
        ended = tuple(
            replace(run, last_seen_ns=now.wall_ns, end_ns=now.wall_ns)
            for job_id, run in self._running.items()
            if job_id not in here
        )
        self._running = {
            job_id: replace(self._running.get(job_id) or self._run(plan), labels=self._told(plan))
            for job_id, plan in here.items()
        }
        runs = {run.payee: run for run in self._running.values()}
        return Survey(
            at=now,
            runs=runs,
            ended=ended,
            cpu_ns={run.payee: self._cpu_ns.get(i, 0) for i, run in self._running.items()},
            busy_ns=busy_ns,
            memory_bytes=dict.fromkeys(runs, 64 << 30),
            memory_total_bytes=512 << 30,
            claims=tuple(
                Claim(plan.manager, plan.job_id, self.gpus[number].name, source="slurm")
                for plan in here.values()
                for number in plan.gpus[self.name]
            ),
        )

    def _run(self, plan: JobPlan) -> JobRun:
        held = tuple(Holding(self.gpus[n].name, 1_000_000) for n in plan.gpus[self.name])
        start_ns = (self.begin_s + plan.begin_s) * NS_PER_S
        now_ns = self.clock.wall_ns
        payee = job_payee(plan.manager, plan.job_id, start_ns)
        return JobRun(payee, 1000, {}, holdings=held, last_seen_ns=now_ns)

    def _told(self, plan: JobPlan) -> dict[str, str]:
        if self.second < plan.begin_s + plan.named_s:
            return {}
        return {"name": plan.name, "user": plan.user, "account": plan.account}

    # ── time ────────────────────────────────────────────────────────────────────────────────────

    def turn(self) -> str:
        """Half a minute passes; the page after it."""
        self.watts = self._draw()
        plans = self.plans()
        self._using = {n for p in plans if p.uses_at(self.second) for n in p.gpus[self.name]}
        self.clock.advance(TURN_S)
        for info in self.counted:
            self._raw_uj[info.name] += round(self.watts[info.name] * TURN_S * UJ_PER_J)
        for plan in plans:
            spent_ns = plan.cores * TURN_S * NS_PER_S
            self._cpu_ns[plan.job_id] = self._cpu_ns.get(plan.job_id, 0) + spent_ns
            self._busy_ns += spent_ns
        self._busy_ns += 2 * TURN_S * NS_PER_S  # the system's own
        if self.name == "gpu03" and self.second == COUNTER_RESET_S:
            first = self.gpus[0].name
            self._raw_uj[first], self._load[first] = 40 * UJ_PER_J, "2"
        self._reports.append(self._report())
        self._sampler.tick()
        page = self._renderer.render(
            self._sampler.commit(), self.clock.monotonic_ns, labels=LABELS, process=False
        )
        return page.openmetrics.decode()

    def process(self) -> Iterator[str]:
        """What the daemon would show of itself: what plays it is no daemon."""
        yield f"process_cpu_seconds_total {CPU_SHARE * self.second:.2f}"
        yield f"process_resident_memory_bytes {MEMORY_BYTES + (len(self.plans()) << 20)}"

    def _report(self) -> MeterReport:
        now, boot = self.clock.now(), self.clock.boot_id
        other = PowerReading(
            "other", now, round(self.watts["other"] * 1e6), TURN_S * NS_PER_S,
            3 * TURN_S * NS_PER_S, Quality.ESTIMATED,
        )  # fmt: skip
        readings = [
            CounterReading(
                info.name, now, self._raw_uj[info.name], None, 10**9, 10**8, boot,
                self._load[info.name],
            )
            for info in self.counted
        ]  # fmt: skip
        lists: dict[str, tuple[Process, ...]] = {info.name: () for info in self.gpus}
        held = {n for plan in self.plans() for n in plan.gpus[self.name]}
        known = {i.name: int(n in held) for n, i in enumerate(self.gpus)}
        unknown = self.name == "gpu03" and 3600 <= self.second < 5400  # one GPU, for half an hour
        return MeterReport(
            devices=(*self.counted, self.other),
            readings=(*readings, other),
            processes={**known, **({self.gpus[3].name: None} if unknown else {})},
            counter_power_ratio={
                info.name: 1 + 0.01 * math.sin(self.second / 900 + number)
                for number, info in enumerate(self.gpus)
            },
            listed=lists,
            used={info.name: number in self._using for number, info in enumerate(self.gpus)},
        )

    def beside(self) -> Iterator[str]:
        """What other exporters on the node would show of the same watts."""
        it_w = sum(self.watts.values())
        yield f"ipmi_dcmi_power_consumption_watts {round(it_w * 1.06 + 70)}"
        for number, info in enumerate(self.gpus):
            watts = self.watts[info.name] * (1 + 0.01 * math.sin(self.second / 300 + number))
            labels = f'gpu="{number}",UUID="{info.name}",modelName="{MODEL}"'
            yield f"DCGM_FI_DEV_POWER_USAGE{{{labels}}} {watts:.3f}"

    def close(self) -> None:
        """The ledger too."""
        self.ledger.close()


def names() -> Sequence[str]:
    """The nodes."""
    return ("gpu01", "gpu02", "gpu03")
