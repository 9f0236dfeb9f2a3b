"""Shared GPUs from the driver to the books: by use of the multiprocessors, and by MIG slices."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgroups import FakeNode
from fakes import SITE, FakeClock, FixedGrid, ListFeed
from wattledger.core.footprint import footprint
from wattledger.jobs.names import UserNames
from wattledger.jobs.paths import Paths
from wattledger.jobs.watch import JobWatch
from wattledger.ledger import open_ledger
from wattledger.ledger.run_rows import job_total
from wattledger.meters.nvml.meter import NvmlMeter
from wattledger.meters.simulated import SimulatedNvml, parse_scenario
from wattledger.model import Kind, PayeeKind, Snapshot
from wattledger.model.jobs import JobKey
from wattledger.model.measuring import DeviceInfo
from wattledger.sampler import Sampler
from wattledger.units import UJ_PER_J

WATTS = 300
A100 = f'[[gpu]]\nmodel = "A100"\nwaveform = {{ kind = "constant", watts = {WATTS} }}\n'


class Node:
    """A node of simulated GPUs, its jobs' processes, and a daemon over both."""

    def __init__(self, root: Path, scenario: str, **jobs: tuple[int, ...]) -> None:
        """Args: jobs: j7=(70, 71): job 7 has these processes."""
        self.files = FakeNode(root / "node", "v1")
        for name, pids in jobs.items():
            self.run(int(name[1:]), *pids)
        self.clock = FakeClock()
        self.driver = SimulatedNvml(parse_scenario(scenario, "shared.toml"), self.clock)
        self.meter = NvmlMeter(
            self.driver, self.clock, sysfs=self.files.sysfs, procfs=self.files.procfs
        )
        self.feed = ListFeed()
        self.sampler = Sampler(
            clock=self.clock,
            feeds=[self.feed],
            grid=FixedGrid(),
            site=SITE,
            ledger=open_ledger(root / "l.sqlite", clock=self.clock, footprint=footprint),
            node_load=lambda: 0,
            node_busy_ns=lambda: 0,
            jobs=JobWatch(
                Paths(),
                sysfs=self.files.sysfs,
                procfs=self.files.procfs,
                boot_id=self.clock.boot_id,
                gpus=self.meter.gpu_names,
                names=UserNames(lambda uid: f"user{uid}"),
            ),
        )

    def run(self, job: int, *pids: int) -> None:
        self.files.make(f"/slurm/uid_{1000 + job}/job_{job}")
        for pid in pids:
            self.files.process(pid, f"/slurm/uid_{1000 + job}/job_{job}")

    def end(self, job: int, *pids: int) -> None:
        self.files.remove(f"/slurm/uid_{1000 + job}/job_{job}")
        for pid in pids:
            self.files.gone(pid)

    def play(self, seconds: int) -> Snapshot:
        for _ in range(seconds):
            self.feed.put(self.meter.read())
            self.sampler.tick()
            self.clock.advance(1)
        return self.sampler.commit()

    @property
    def gpu(self) -> str:
        return self.meter.gpu_names()[0].uuid


def joules(snapshot: Snapshot, job: int) -> float:
    cells = job_total(snapshot.books.jobs, JobKey("slurm", str(job)))
    return sum(c.amounts.energy_uj for k, c in cells.items() if k.kind is Kind.GPU) / UJ_PER_J


def payee_joules(snapshot: Snapshot, payee: PayeeKind) -> float:
    amounts = [t.amounts for key, t in snapshot.books.totals.items() if key.payee is payee]
    return sum(amount.energy_uj for amount in amounts) / UJ_PER_J


def whole_joules(snapshot: Snapshot) -> float:
    return sum(t.amounts.energy_uj for t in snapshot.books.totals.values()) / UJ_PER_J


def shares(snapshot: Snapshot, job: int) -> list[tuple[int, bool]]:
    return [
        (holding.share_ppm, holding.exact)
        for payee, book in snapshot.books.jobs.runs.items()
        if payee.job_id == str(job)
        for holding in book.run.holdings
    ]


def test_two_jobs_on_one_gpu_pay_by_their_use_of_it(tmp_path: Path) -> None:
    node = Node(
        tmp_path,
        A100 + "processes = [{ pid = 70, sm_util = 50 }, { pid = 71, sm_util = 20 },"
        " { pid = 80, sm_util = 30 }]\n",
        j7=(70, 71),
        j8=(80,),
    )
    before = node.play(30)
    snapshot = node.play(300)
    whole = whole_joules(snapshot) - whole_joules(before)
    assert whole == pytest.approx(300 * WATTS, rel=0.01)
    assert joules(snapshot, 7) - joules(before, 7) == pytest.approx(0.7 * whole, abs=0.01)
    assert joules(snapshot, 8) - joules(before, 8) == pytest.approx(0.3 * whole, abs=0.01)
    assert shares(snapshot, 7) == [(700_000, True)]
    assert whole_joules(snapshot) == pytest.approx(
        joules(snapshot, 7) + joules(snapshot, 8), abs=1e-5
    )


def test_before_the_use_is_told_they_pay_equal_parts_and_that_is_said(tmp_path: Path) -> None:
    scenario = A100 + "processes = [{ pid = 70, sm_util = 70 }, { pid = 80, sm_util = 30 }]\n"
    node = Node(tmp_path, scenario, j7=(70,), j8=(80,))
    snapshot = node.play(4)
    assert shares(snapshot, 7) == shares(snapshot, 8) == [(500_000, False)]
    assert joules(snapshot, 7) > 0
    assert joules(snapshot, 7) == pytest.approx(joules(snapshot, 8), abs=1e-5)


def test_use_that_changes_is_followed_within_sampling_error(tmp_path: Path) -> None:
    """Job 7 computes all the time; job 8 in half of each minute, as much as it."""
    bursts = "".join(
        f", {{ pid = 80, sm_util = 50, at_s = {at}, for_s = 30 }}" for at in range(0, 1200, 60)
    )
    quiet = "".join(
        f", {{ pid = 80, sm_util = 0, at_s = {at}, for_s = 30 }}" for at in range(30, 1200, 60)
    )
    node = Node(
        tmp_path,
        A100 + f"processes = [{{ pid = 70, sm_util = 50 }}{bursts}{quiet}]\n",
        j7=(70,),
        j8=(80,),
    )
    snapshot = node.play(1200)
    whole = whole_joules(snapshot)
    assert joules(snapshot, 7) + joules(snapshot, 8) == pytest.approx(whole, abs=1e-5)
    assert joules(snapshot, 7) / whole == pytest.approx(0.75, abs=0.05)


def test_a_gpu_that_nobody_of_its_holders_uses_is_paid_equally(tmp_path: Path) -> None:
    scenario = A100 + "processes = [{ pid = 70, sm_util = 0 }, { pid = 80, sm_util = 0 }]\n"
    node = Node(tmp_path, scenario, j7=(70,), j8=(80,))
    snapshot = node.play(60)
    assert shares(snapshot, 7) == shares(snapshot, 8) == [(500_000, False)]


CUT = A100 + (
    'mig = { instances = [{ profile = "3g.40gb", processes = [{ pid = 70 }] },'
    ' { profile = "4g.40gb", processes = [%s] }] }\n'
)


def test_mig_is_paid_by_slices(tmp_path: Path) -> None:
    node = Node(tmp_path, CUT % "{ pid = 80 }", j7=(70,), j8=(80,))
    snapshot = node.play(300)
    whole = whole_joules(snapshot)
    assert whole == pytest.approx(300 * WATTS, rel=0.01)
    assert joules(snapshot, 7) == pytest.approx(whole * 3 / 7, rel=1e-5)
    assert joules(snapshot, 8) == pytest.approx(whole * 4 / 7, rel=1e-5)
    assert payee_joules(snapshot, PayeeKind.IDLE) <= whole * 2e-6
    assert shares(snapshot, 7) == [(428_571, True)]
    held = [
        cell.held
        for job in (7, 8)
        for cell in job_total(snapshot.books.jobs, JobKey("slurm", str(job))).values()
    ]
    assert not any(one.idle_ms or one.idle_uj for one in held), "held-idle is not told with MIG"


def test_slices_that_nobody_uses_are_idle(tmp_path: Path) -> None:
    node = Node(tmp_path, CUT % "", j7=(70,))
    snapshot = node.play(120)
    whole = whole_joules(snapshot)
    assert joules(snapshot, 7) == pytest.approx(whole * 3 / 7, rel=1e-5)
    assert payee_joules(snapshot, PayeeKind.IDLE) == pytest.approx(whole * 4 / 7, rel=1e-5)


def test_two_jobs_on_one_instance_share_its_slices_equally_and_that_is_said(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path, CUT % "{ pid = 71 }, { pid = 80 }", j7=(70, 71), j8=(80,))
    snapshot = node.play(120)
    whole = whole_joules(snapshot)
    assert joules(snapshot, 7) == pytest.approx(whole * 5 / 7, rel=1e-5), "3 slices and half of 4"
    assert joules(snapshot, 8) == pytest.approx(whole * 2 / 7, rel=1e-5)
    assert [exact for _, exact in shares(snapshot, 7) + shares(snapshot, 8)] == [False, False]


def test_mig_switched_on_under_a_running_daemon(tmp_path: Path) -> None:
    """The whole GPU is its holder's until then, the instance's slices afterwards."""
    node = Node(
        tmp_path,
        A100
        + "processes = [{ pid = 70, for_s = 100 }]\n"
        + 'mig = { enabled = false, instances = [{ profile = "3g.40gb", processes = '
        "[{ pid = 70 }] }] }\n" + '[[fault]]\nkind = "mig_on"\ngpu = 0\nat_s = 100\n',
        j7=(70,),
    )
    first = node.play(95)
    assert joules(first, 7) == pytest.approx(whole_joules(first), abs=1e-5)
    middle = node.play(105)  # it is found out within a minute
    last = node.play(100)
    whole = whole_joules(last) - whole_joules(middle)
    assert joules(last, 7) - joules(middle, 7) == pytest.approx(whole * 3 / 7, rel=1e-4)


def test_a_job_that_ends_leaves_its_slices_idle(tmp_path: Path) -> None:
    node = Node(tmp_path, CUT % "{ pid = 80 }", j7=(70,), j8=(80,))
    before = node.play(60)
    node.end(8, 80)
    after = node.play(60)
    whole = whole_joules(after) - whole_joules(before)
    assert joules(after, 8) == pytest.approx(joules(before, 8), abs=WATTS)
    assert joules(after, 7) - joules(before, 7) == pytest.approx(whole * 3 / 7, rel=1e-3)
    idle = payee_joules(after, PayeeKind.IDLE) - payee_joules(before, PayeeKind.IDLE)
    assert idle == pytest.approx(whole * 4 / 7, abs=WATTS)


def test_devices_are_the_gpus_not_their_instances(tmp_path: Path) -> None:
    node = Node(tmp_path, CUT % "{ pid = 80 }", j7=(70,), j8=(80,))
    snapshot = node.play(10)
    infos: list[DeviceInfo] = [record.info for record in snapshot.books.devices.values()]
    assert [info.name for info in infos] == [node.gpu]
