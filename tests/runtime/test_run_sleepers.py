"""Jobs with commands that seem to have ended, and come back: nothing is paid for twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from wattledger.model import Kind
from wattledger.model.jobs import RUN
from wattledger.units import NS_PER_S
from wrapped import CPU, JOB, KEY, SHELL, Node, joules


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    made.turn({})
    return made


def populated(node: Node, number: int) -> None:
    events = node.files.cgroup / JOB[1:] / "cgroup.events"
    events.write_text(f"populated {number}\nfrozen 0\n")


def idle(node: Node, seconds: int) -> None:
    """The node is busy with something else."""
    for _ in range(seconds):
        node.busy_ns += NS_PER_S
        node.turn({CPU.name: 100})


def cpu_joules(node: Node) -> float:
    books = node.sampler.commit().books.jobs.runs.values()
    cells = [book.cells for book in books if book.run.key == KEY]
    uj = [cell.amounts.energy_uj for one in cells for key, cell in one.items() if key.kind == "cpu"]
    return sum(uj) / 10**6


@pytest.mark.parametrize("asleep_s", [30, 100])
def test_a_job_that_wakes_does_not_pay_for_its_commands_again(node: Node, asleep_s: int) -> None:
    node.spawn(100, SHELL)
    run_id = node.register(100)
    for _ in range(20):
        node.work(100, 0.5)
        node.work(SHELL, 0.25)
        node.busy_ns += NS_PER_S // 4
        node.turn({CPU.name: 100})
    receipt = node.end(run_id)
    assert joules(receipt, Kind.CPU) == pytest.approx(1000)
    assert cpu_joules(node) == pytest.approx(1500)
    node.processes.end(100)
    node.processes.wait_for(100)

    populated(node, 0)
    idle(node, asleep_s)
    (book,) = [b for b in node.sampler.commit().books.jobs.runs.values() if b.run.key == KEY]
    assert book.run.end_ns

    populated(node, 1)
    node.work(SHELL, 0.5)
    node.busy_ns += NS_PER_S // 2
    node.turn({CPU.name: 100})
    assert cpu_joules(node) == pytest.approx(1550)
    populated(node, 1)
    idle(node, 20)
    assert cpu_joules(node) == pytest.approx(1550)
    (book,) = [b for b in node.sampler.commit().books.jobs.runs.values() if b.run.key == KEY]
    assert not book.run.end_ns

    # And with another command in it, twice over.
    node.spawn(200, SHELL)
    node.register(200)
    node.work(200, 1)
    node.turn({CPU.name: 100})
    assert cpu_joules(node) == pytest.approx(1650)


def test_of_a_step_that_came_and_went_the_books_know_nothing(node: Node) -> None:
    node.spawn(100, SHELL)
    node.register(100, "short")
    node.work(100, 0.2)
    node.processes.end(100)
    node.processes.wait_for(100)
    node.turn({CPU.name: 100})
    node.turn({CPU.name: 100})
    runs = node.sampler.commit().books.jobs.runs
    assert [payee.manager for payee in runs] == ["slurm"]
    assert cpu_joules(node) == 100


def test_a_command_goes_on_without_the_one_that_ended_with_the_daemon(node: Node) -> None:
    node.spawn(100, 1)
    node.spawn(200, 100)
    outer, inner = node.register(100, "outer"), node.register(200, "inner")
    node.work(200, 1)
    node.turn({CPU.name: 100})
    node.sampler.commit()
    node.ledger.close()
    node.processes.end(100)
    node.processes.wait_for(100)
    node.start()
    for _ in range(5):
        node.work(200, 1)
        node.turn({CPU.name: 100})
    assert joules(node.receipt(inner), Kind.CPU) == 600
    books = node.sampler.commit().books
    ended = {payee.job_id: bool(book.run.end_ns) for payee, book in books.jobs.runs.items()}
    assert ended[outer] and not ended[inner]
    paid = [t.amounts.energy_uj for k, t in books.totals.items() if k.device == CPU.name]
    assert sum(paid) == 600 * 10**6
    (book,) = [b for p, b in books.jobs.runs.items() if (p.manager, p.job_id) == (RUN, inner)]
    uj = sum(cell.amounts.energy_uj for key, cell in book.cells.items() if key.kind is Kind.CPU)
    assert uj == 500 * 10**6  # what the outer one had paid before stays its own
