"""Embodied carbon of wrapped commands and of the jobs they run in, through the whole daemon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fakes import SITE, FixedGrid
from wattledger.model import Kind
from wattledger.model.embodied import Embodied
from wattledger.model.jobs import RUN
from wattledger.model.sums import read_node
from wattledger.units import NS_PER_S
from wrapped import CPU, GPU, SHELL, Node

KG_NS = 10**3 * 3600 * NS_PER_S  # makes 1 kg over a lifetime of so long one gram per hour
HARDWARE = Embodied(gpus_ug=(("*", 10**9),), host_ug=2 * 10**9, lifetime_ns=KG_NS)


def embodied_g(node: Node, manager: str) -> float | None:
    (book,) = [b for b in node.ledger.books.jobs.runs.values() if b.run.payee.manager == manager]
    return book.sums.embodied_g


def hour(node: Node, watts: dict[str, float]) -> None:
    for _ in range(60):
        node.turn(watts, 60.0)


def test_a_command_bears_its_gpu_and_the_gpus_part_of_the_host(tmp_path: Path) -> None:
    node = Node(tmp_path, HARDWARE)
    node.turn({})
    node.spawn(100, 1)
    run_id = node.register(100)
    node.on_gpu = (100,)
    node.turn({GPU.name: 100}, 1.0)
    hour(node, {GPU.name: 100})
    node.on_gpu = ()
    hour(node, {GPU.name: 50})  # nobody's
    receipt = node.end(run_id)
    snapshot = node.sampler.commit()
    assert receipt.sums.embodied_fg / 1e15 == pytest.approx(3.0, rel=0.02)
    assert embodied_g(node, RUN) == pytest.approx(receipt.sums.embodied_fg / 1e15, rel=1e-4)
    sums = read_node(snapshot.books.notes)
    assert sums[Kind.GPU].embodied_g == pytest.approx(2.0, rel=0.01)
    assert sums[Kind.OTHER].embodied_g == pytest.approx(4.0, rel=0.01)
    amounts = [cell.amounts.co2e_ug for cell in receipt.cells.values()]
    assert sum(amounts) == pytest.approx(100 * 3600 * 1.56 * 473e6 / 3.6e6, rel=0.02)  # energy only


def test_a_receipt_keeps_it_over_a_restart_and_counts_no_time_without_a_daemon(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path, HARDWARE)
    node.turn({})
    node.spawn(100, SHELL)
    run_id = node.register(100)
    node.on_gpu = (100,)
    hour(node, {GPU.name: 100})
    node.sampler.commit()
    before = node.receipt(run_id).sums.embodied_fg
    node.ledger.close()
    node.pass_time(6 * 3600, {GPU.name: 100})
    node.start()
    node.turn({GPU.name: 100})
    assert node.receipt(run_id).sums.embodied_fg == pytest.approx(before, rel=0.01)
    hour(node, {GPU.name: 100})
    assert node.receipt(run_id).sums.embodied_fg == pytest.approx(2 * before, rel=0.02)
    node.sampler.commit()
    assert embodied_g(node, "slurm") == pytest.approx(2 * before / 1e15, rel=0.02)
    [gpu] = [s for k, s in read_node(node.ledger.books.notes).items() if k is Kind.GPU]
    assert gpu.embodied_g == pytest.approx(2.0, rel=0.02)


def test_nothing_is_known_of_it_by_default(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.turn({})
    node.spawn(100, 1)
    run_id = node.register(100)
    node.on_gpu = (100,)
    hour(node, {GPU.name: 100, CPU.name: 10})
    assert node.end(run_id).sums.embodied_fg == 0
    node.sampler.commit()
    assert embodied_g(node, RUN) is None


def test_a_reload_between_two_commits_leaves_job_receipt_and_node_equal(tmp_path: Path) -> None:
    node = Node(tmp_path, HARDWARE)
    node.turn({})
    node.spawn(100, 1)
    run_id = node.register(100)
    node.on_gpu = (100,)
    node.turn({GPU.name: 100}, 1.0)
    hour(node, {GPU.name: 100})
    quick = replace(HARDWARE, lifetime_ns=KG_NS // 1000)
    node.sampler.reconfigure(grid=FixedGrid(), site=SITE, embodied=quick)
    node.turn({GPU.name: 100}, 1.0)
    node.sampler.reconfigure(grid=FixedGrid(), site=SITE, embodied=HARDWARE)
    hour(node, {GPU.name: 100})
    receipt = node.end(run_id)
    node.sampler.commit()
    whole = sum(s.embodied_fg for s in read_node(node.ledger.books.notes).values())
    assert receipt.sums.embodied_fg / 1e15 == pytest.approx(6.0 + 3000 / 3600, rel=0.01)
    assert embodied_g(node, RUN) == receipt.sums.embodied_fg / 1e15
    assert whole == pytest.approx(receipt.sums.embodied_fg, rel=0.001)
