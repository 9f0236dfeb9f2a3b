"""Wrapped commands on a GPU with MIG: paid by slices, as the jobs' processes are."""

from __future__ import annotations

from pathlib import Path

import pytest

from wattledger.errors import RunRefused
from wattledger.jobs.runs import NoJobs, RunRegistry, WithRuns
from wattledger.jobs.runs.claiming import Claimable, claim
from wattledger.jobs.shares import slice_claims
from wattledger.ledger.run_rows import job_total
from wattledger.model import Amounts, Kind
from wattledger.model.jobs import RUN, WHOLE_SHARE_PPM, Claim, Held, JobKey, job_payee
from wattledger.model.measuring import GpuNames, MigInstance, Process
from wattledger.model.running import RunRequest
from wrapped import GPU, KEY, SHELL, UID, Node, joules

ONE, THREE = MigInstance("MIG-1", 1, 1), MigInstance("MIG-3", 2, 3)
CUT = GpuNames(GPU.name, 0, 0, (ONE, THREE), 7)
WATTS = 700
SECONDS = 10


def a_node(root: Path) -> Node:
    node = Node(root)
    node.gpus = (CUT,)
    node.turn({})
    return node


def play(node: Node, **on: str) -> None:
    """Args: on: p100="MIG-1": process 100 is on that instance."""
    node.instances = {int(name[1:]): instance for name, instance in on.items()}
    node.on_gpu = tuple(node.instances)
    for _ in range(SECONDS):
        node.turn({GPU.name: WATTS})


def paid(node: Node, key: JobKey) -> float:
    cells = job_total(node.sampler.commit().books.jobs, key)
    uj = sum(cell.amounts.energy_uj for one, cell in cells.items() if one.kind is Kind.GPU)
    return uj / 10**6


def whole(slices: float) -> float:
    return pytest.approx(WATTS * SECONDS * slices / 7, rel=1e-5)  # type: ignore[return-value]


def test_a_command_pays_for_its_instance(tmp_path: Path) -> None:
    node = a_node(tmp_path)
    node.spawn(100, 1)
    run_id = node.register(100)
    play(node, p100="MIG-1")
    assert paid(node, JobKey(RUN, run_id)) == whole(1)
    assert [h.share_ppm for h in node.receipt(run_id).run.holdings] == [WHOLE_SHARE_PPM // 7]


def test_beside_others_on_other_instances_and_on_the_same(tmp_path: Path) -> None:
    node = a_node(tmp_path)
    node.spawn(100, 1)
    node.spawn(200, 1)
    first, second = node.register(100), node.register(200)
    play(node, p50="MIG-3", p100="MIG-1", p200="MIG-3")
    assert paid(node, JobKey(RUN, first)) == whole(1)
    assert paid(node, JobKey(RUN, second)) == whole(1.5)
    assert paid(node, KEY) == whole(1.5), "the job's own process shares its instance"
    exact = {h.exact for run in (first, second) for h in node.receipt(run).run.holdings}
    assert exact == {False}


def test_inside_a_job_it_has_the_part_of_its_slices_and_the_job_pays(tmp_path: Path) -> None:
    totals: list[tuple[Amounts, Held]] = []
    gpu_joules, receipt = 0.0, None
    for wrapped in (False, True):
        node = a_node(tmp_path / str(wrapped))
        node.spawn(100, SHELL)
        node.spawn(300, 1)
        node.register(300)
        run_id = node.register(100) if wrapped else ""
        play(node, p50="MIG-1", p100="MIG-3", p300="MIG-3")
        if wrapped:
            receipt, gpu_joules = node.receipt(run_id), paid(node, KEY)
        totals.append(node.total(KEY))
    assert totals[0] == totals[1], "as if it were not wrapped, to the microgram"
    assert gpu_joules == whole(1 + 1.5)
    assert receipt is not None and joules(receipt, Kind.GPU) == whole(1.5)


def test_what_ends_was_on_its_instance_until_then(tmp_path: Path) -> None:
    node = a_node(tmp_path)
    node.spawn(100, 1)
    node.spawn(200, 100)
    run_id = node.register(100)
    play(node, p200="MIG-3")
    node.processes.end(200)
    node.processes.wait_for(200)
    node.pass_time(1, {GPU.name: WATTS})
    receipt = node.end(run_id)
    assert joules(receipt, Kind.GPU) == pytest.approx(WATTS * (SECONDS + 1) * 3 / 7, rel=1e-5)


def test_where_its_instance_is_not_known_nothing_is_said(tmp_path: Path) -> None:
    node = a_node(tmp_path)
    node.spawn(100, 1)
    run_id = node.register(100)
    node.on_gpu = (100,)
    node.turn({GPU.name: WATTS})
    assert paid(node, JobKey(RUN, run_id)) == 0


def test_it_is_the_same_where_nobody_looks_for_jobs(tmp_path: Path) -> None:
    node = a_node(tmp_path)
    registry = RunRegistry(node.clock, procfs=node.files.procfs)
    watch = WithRuns(NoJobs(node.files.procfs), registry, gpus=lambda: (CUT,))
    node.spawn(100, 1)
    node.spawn(200, 1)
    ticket = registry.register(RunRequest(100, UID))
    ticks = node.processes.alive[100].start_ticks
    listed = (Process(100, ticks, instance="MIG-3"), Process(200, 1, instance="MIG-1"))
    survey = watch.survey(node.clock.advance(1), 0, {GPU.name: listed})
    share_ppm = WHOLE_SHARE_PPM * 3 // 7
    assert survey.claims == (Claim(RUN, ticket.payee.job_id, GPU.name, share_ppm),)
    assert survey.processes == {GPU.name: (ticket.payee,)}
    assert survey.strangers == {GPU.name} and survey.sm == {}


def test_a_gpu_that_is_cut_up_cannot_be_claimed_as_one(tmp_path: Path) -> None:
    gpus = [Claimable(GPU.name, "0", None, divided=True)]
    with pytest.raises(RunRefused, match="divided into MIG instances") as refused:
        claim(["0"], gpus, {}, frozenset(), UID, frozenset())
    assert refused.value.reason == "gpu"
    # One that was whole when it was claimed is held by slices from then on.
    node = Node(tmp_path)
    node.spawn(100, 1)
    run_id = node.register(100, "", GPU.name)
    node.turn({})
    node.turn({GPU.name: WATTS})
    assert paid(node, JobKey(RUN, run_id)) == WATTS
    node.gpus = (CUT,)
    node.turn({})
    play(node, p100="MIG-1")
    assert paid(node, JobKey(RUN, run_id)) == pytest.approx(WATTS + WATTS * SECONDS / 7, rel=1e-4)


def test_what_a_payer_has_is_divided_without_a_rest() -> None:
    job = job_payee("slurm", "7", 0)
    steps = [job_payee(RUN, str(number), 0) for number in range(3)]
    there = {"MIG-3": (job, *steps), "MIG-1": (steps[0],)}
    alone = slice_claims(GPU.name, {"MIG-3": (job,), "MIG-1": (job,)}, CUT)
    claims = slice_claims(GPU.name, there, CUT, lambda _: job)
    assert sum(c.share_ppm for c in claims) == alone[0].share_ppm
    parts = {c.job_id: c.share_ppm for c in claims}
    assert parts["0"] == pytest.approx(WHOLE_SHARE_PPM * (3 / 4 + 1) / 7, abs=3)
    assert parts["7"] == pytest.approx(WHOLE_SHARE_PPM * 3 / 4 / 7, abs=3)
