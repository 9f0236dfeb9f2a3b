"""From the processes that drivers list to the runs' shares: by use, and by MIG slices."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgroups import FakeNode
from fakes import FakeClock
from wattledger.jobs.holders import Located, Locator
from wattledger.jobs.paths import Paths, Place
from wattledger.jobs.shares import shares_of
from wattledger.model import Payee
from wattledger.model.jobs import WHOLE_SHARE_PPM, Claim, job_payee
from wattledger.model.measuring import GpuNames, MigInstance, Process

GPU = "GPU-a"
THREE, FOUR = MigInstance("MIG-3", 2, 3), MigInstance("MIG-4", 1, 4)
CUT = GpuNames(GPU, 0, 0, (THREE, FOUR), 7)
RUNS = {f"/job_{n}": job_payee("slurm", str(n), 0) for n in range(1, 6)}


def cgroup(job: int) -> str:
    return f"/slurm/uid_1000/job_{job}"


class Node:
    def __init__(self, root: Path, *jobs: int) -> None:
        self.files = FakeNode(root, "v1")
        self.clock = FakeClock()
        for job in jobs:
            self.files.make(cgroup(job))
        self.locator = Locator(self.files.procfs, Paths())

    def locate(self, *processes: Process) -> Located:
        now_ns = self.clock.advance(1).monotonic_ns
        return self.locator.locate({GPU: processes}, now_ns)[GPU]


def test_the_use_of_a_jobs_processes_is_summed_up(tmp_path: Path) -> None:
    node = Node(tmp_path, 7, 8)
    for pid, job in ((70, 7), (71, 7), (80, 8)):
        node.files.process(pid, cgroup(job))
    told = (Process(70, 100, 50), Process(71, 100, 20), Process(80, 100, 30))
    assert node.locate(*told).sm == {cgroup(7): 70, cgroup(8): 30}
    untold = (*told[:2], Process(80, 100))
    assert node.locate(*untold).sm is None, "of one it is not told: of none, then"


def test_the_use_of_strangers_and_of_the_dead_is_not_asked_for(tmp_path: Path) -> None:
    node = Node(tmp_path, 7)
    node.files.process(70, cgroup(7))
    node.files.process(60, "/init.scope")
    located = node.locate(Process(70, 100, 40), Process(60, 100), Process(50, 100))
    assert located.sm == {cgroup(7): 40}
    assert located.strangers


def test_a_process_whose_use_changes_is_not_looked_up_again(tmp_path: Path) -> None:
    node = Node(tmp_path, 7, 8)
    node.files.process(70, cgroup(7))
    assert node.locate(Process(70, 100, 40)).sm == {cgroup(7): 40}
    assert node.locate(Process(70, 100, 50)).sm == {cgroup(7): 50}
    # It moves to another cgroup, which nobody does for long: seen only when it is looked up.
    node.files.process(70, cgroup(8))
    assert node.locate(Process(70, 100, 60)).sm == {cgroup(7): 60}
    node.clock.advance(60)
    assert node.locate(Process(70, 100, 60)).sm == {cgroup(8): 60}


def test_who_is_on_which_instance(tmp_path: Path) -> None:
    node = Node(tmp_path, 7, 8)
    for pid, job in ((70, 7), (71, 7), (72, 7), (80, 8)):
        node.files.process(pid, cgroup(job))
    located = node.locate(
        Process(70, 100, None, "MIG-3"),
        Process(71, 100, None, "MIG-3"),
        Process(72, 100, None, "MIG-4"),
        Process(80, 100, None, "MIG-4"),
    )
    assert located.instances == {"MIG-3": (cgroup(7),), "MIG-4": (cgroup(7), cgroup(8))}


# ── shares ──────────────────────────────────────────────────────────────────────────────────────


def place(name: str) -> Place:
    return Place(name, "slurm", name[5:])


def located(
    *names: str, sm: dict[str, int] | None = None, **instances: tuple[str, ...]
) -> dict[str, Located]:
    by_uuid = {uuid.replace("_", "-"): names for uuid, names in instances.items()}
    return {GPU: Located(tuple(place(name) for name in names), False, sm, by_uuid)}


def run_of(place: Place) -> Payee | None:
    return RUNS.get(place.cgroup)


def test_use_is_told_of_runs_that_live() -> None:
    on = located("/job_1", "/job_2", "/job_9", sm={"/job_1": 70, "/job_2": 30, "/job_9": 5})
    shares = shares_of(on, run_of, ())
    one, two = RUNS["/job_1"], RUNS["/job_2"]
    assert shares.processes == {GPU: (one, two)}
    assert shares.sm == {GPU: {one: 70, two: 30}}
    assert shares.claims == ()
    assert shares_of(located("/job_1", "/job_2"), run_of, ()).sm == {}, "not told"


def test_two_cgroups_of_one_run_are_one() -> None:
    on = located("/job_1", "/job_2", sm={"/job_1": 70, "/job_2": 30})
    shares = shares_of(on, lambda _: RUNS["/job_1"], ())
    assert shares.processes == {GPU: (RUNS["/job_1"],)}
    assert shares.sm == {GPU: {RUNS["/job_1"]: 100}}


def claims(on: dict[str, Located], *gpus: GpuNames) -> list[tuple[str, int, bool]]:
    found = shares_of(on, run_of, gpus).claims
    assert all(claim.source == "processes" and claim.device == GPU for claim in found)
    return sorted((claim.job_id, claim.share_ppm, claim.exact) for claim in found)


def test_an_instance_is_its_slices_of_the_gpu() -> None:
    on = located("/job_1", "/job_2", MIG_3=("/job_1",), MIG_4=("/job_2",))
    assert claims(on, CUT) == [("1", 428_571, True), ("2", 571_428, True)]
    assert shares_of(on, run_of, (CUT,)).sm == {}


def test_a_run_on_several_instances_has_all_of_them() -> None:
    on = located("/job_1", MIG_3=("/job_1",), MIG_4=("/job_1",))
    assert claims(on, CUT) == [("1", 999_999, True)]


def test_several_runs_on_one_instance_have_equal_parts_of_it() -> None:
    on = located("/job_1", "/job_2", MIG_3=("/job_1",), MIG_4=("/job_1", "/job_2"))
    assert claims(on, CUT) == [("1", 428_571 + 285_714, False), ("2", 285_714, False)]


@pytest.mark.parametrize("gpus", [(), (CUT._replace(instances=()),), (CUT._replace(uuid="B"),)])
def test_an_instance_that_is_not_known_any_more_is_nobodys(gpus: tuple[GpuNames, ...]) -> None:
    """The driver's list and the partition are not of one moment."""
    on = located("/job_1", MIG_9=("/job_1",))
    assert claims(on, *gpus) == []
    assert shares_of(on, run_of, gpus).processes == {GPU: ()}, "not all of the GPU, that is"


def test_a_run_whose_instance_is_not_told_has_nothing_of_a_gpu_with_mig() -> None:
    on = located("/job_1", "/job_2", MIG_3=("/job_2",))
    assert claims(on, CUT) == [("2", 428_571, True)]
    assert shares_of(on, run_of, (CUT,)).processes == {GPU: (RUNS["/job_2"],)}
    assert claims(located("/job_1"), CUT) == []


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=7).filter(lambda sizes: sum(sizes) <= 7),
    st.data(),
)
def test_slices_are_never_given_twice(sizes: list[int], data: st.DataObject) -> None:
    """Shares of all runs sum to the slices in use or less (by a ppm for each rounding)."""
    names = sorted(RUNS)
    instances = tuple(MigInstance(f"MIG-{n}", n, size) for n, size in enumerate(sizes))
    on = {
        one.uuid: tuple(data.draw(st.lists(st.sampled_from(names), unique=True, max_size=5)))
        for one in instances
    }
    there = {GPU: Located(tuple(place(name) for name in names), False, None, on)}
    found: tuple[Claim, ...] = shares_of(there, run_of, (GpuNames(GPU, 0, 0, instances, 7),)).claims
    used = sum(one.slices for one in instances if on[one.uuid])
    total = sum(claim.share_ppm for claim in found)
    assert used * WHOLE_SHARE_PPM / 7 - 40 <= total <= used * WHOLE_SHARE_PPM / 7
    held = {claim.job_id for claim in found}
    assert held == {RUNS[name].job_id for names_on in on.values() for name in names_on}
