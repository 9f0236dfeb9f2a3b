"""Wrapped commands through the whole of the daemon but its threads: receipts, books, restarts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wattledger.core.footprint import footprint
from wattledger.ledger import open_reader_offline
from wattledger.model import Amounts, Kind, MeterReport
from wattledger.model.jobs import RUN, JobKey
from wattledger.payroll import known_runs
from wattledger.units import UJ_PER_J
from wrapped import COUNTED, CPU, DRAM, GPU, KEY, SHELL, UID, Node, joules, whole


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    made.turn({})
    return made


def test_a_command_pays_for_what_it_uses_and_its_receipt_is_its_row(node: Node) -> None:
    node.spawn(100, 1, anon_kb=250_000)  # a quarter of the node's
    run_id = node.register(100, "train")
    node.spawn(200, 100)
    node.on_gpu = (200,)
    node.work(200, 3)
    node.work(SHELL, 1)
    node.turn({GPU.name: 400, CPU.name: 100, DRAM.name: 20})
    node.turn({GPU.name: 400}, used=False)
    receipt = node.end(run_id)

    assert joules(receipt, Kind.GPU) == 800
    assert joules(receipt, Kind.CPU) == 75
    assert joules(receipt, Kind.DRAM) == 20 * 256 / 1024
    assert receipt.run.labels == {"name": "train", "user": str(UID)}
    assert [held.device for held in receipt.run.holdings] == [GPU.name]
    assert receipt.step_of is None and receipt.since_ns == receipt.run.payee.start_ns
    assert whole(receipt) == node.total(JobKey(RUN, run_id))
    assert whole(receipt)[1].idle_ms == 2000
    node.turn({GPU.name: 300})  # the driver lists what was the command's; it is nobody's now
    assert whole(receipt) == node.total(JobKey(RUN, run_id))
    (book,) = [b for b in node.ledger.books.jobs.runs.values() if b.run.payee.manager == RUN]
    assert book.run.end_ns == receipt.run.end_ns or book.run.end_ns > book.run.payee.start_ns


def test_a_step_has_its_receipt_and_the_job_pays_as_if_there_were_none(tmp_path: Path) -> None:
    totals, receipts = [], []
    for wrapped in (False, True):
        node = Node(tmp_path / str(wrapped))
        node.turn({})
        node.spawn(100, SHELL, anon_kb=100_000)
        run_id = node.register(100) if wrapped else ""
        node.on_gpu = (100, SHELL)
        for number in range(160):  # over some slots
            node.work(100, 0.37)
            node.work(SHELL, 0.11)
            node.busy_ns += 10**7 * (number % 13)
            watts = {GPU.name: 411.3, CPU.name: 97.7, DRAM.name: 13.1}
            node.turn(watts, 4, used=number % 2 == 0)
        if wrapped:
            receipts.append(node.end(run_id))
        else:
            node.turn({}, 0.25)
        totals.append(node.total(KEY))
        managers = {book.run.payee.manager for book in node.ledger.books.jobs.runs.values()}
        assert managers == {"slurm"}  # the step has no row

    assert totals[0] == totals[1]  # to the microgram
    (receipt,) = receipts
    assert receipt.step_of == KEY
    amounts, held = whole(receipt)
    assert 0 < amounts.energy_uj < totals[1][0].energy_uj
    assert joules(receipt, Kind.GPU) == pytest.approx(411.3 * 640 / 2, rel=0.01)
    assert 0 < held.idle_ms < held.held_ms <= totals[1][1].held_ms


def test_the_end_of_a_step_does_not_end_what_it_paid(node: Node) -> None:
    """What a device's later reading says of the time before is folded all the same."""
    node.spawn(100, SHELL)
    run_id = node.register(100)
    node.work(100, 5)
    node.registry.finish(run_id, UID, 0)
    node.feed.put(MeterReport())
    node.sampler.tick()  # no reading in this turn
    node.registry.end(run_id)
    node.turn({CPU.name: 100})
    assert joules(node.receipt(run_id), Kind.CPU) == 100
    assert node.total(KEY)[0].energy_uj >= 100 * UJ_PER_J
    assert node.total(JobKey(RUN, run_id))[0] == Amounts()


def test_a_claimed_gpu_is_paid_for_without_a_process_on_it(node: Node) -> None:
    node.spawn(100, 1)
    run_id = node.register(100, "", GPU.name)
    node.turn({GPU.name: 70})
    assert joules(node.end(run_id), Kind.GPU) == 70


def test_a_receipt_goes_on_over_a_restart(node: Node) -> None:
    node.spawn(100, SHELL)
    node.spawn(300, 1)
    step, own = node.register(100, "step"), node.register(300, "own")
    node.on_gpu = (100,)
    node.work(300, 1)
    node.turn({GPU.name: 300, CPU.name: 10})
    node.sampler.commit()
    before = {run: whole(node.receipt(run))[0].energy_uj for run in (step, own)}
    node.turn({GPU.name: 100})  # read, but not committed before the end
    node.ledger.close()
    node.work(300, 30)
    node.work(SHELL, 30)
    node.pass_time(59, {GPU.name: 100, CPU.name: 10})
    node.start()
    node.turn({GPU.name: 100, CPU.name: 10})

    assert joules(node.receipt(step), Kind.GPU) == 300 + 6100
    assert joules(node.receipt(own), Kind.CPU) == 10 + 300
    first, second = node.end(step), node.end(own)
    assert first.since_ns == first.run.payee.start_ns and first.step_of == KEY
    assert whole(first)[0].energy_uj > before[step]
    amounts, _ = node.total(JobKey(RUN, own))
    assert whole(second)[0].energy_uj == amounts.energy_uj
    assert {"name": "own", "user": str(UID)} == dict(second.run.labels)


def test_ended_commands_are_in_no_note(node: Node) -> None:
    node.spawn(100, 1)
    run_id = node.register(100)
    node.turn({})
    assert [one.run.payee.job_id for one in known_runs(node.sampler.commit().books)] == [run_id]
    node.end(run_id)
    node.turn({})
    assert known_runs(node.sampler.commit().books) == ()
    assert node.sampler.receipt(run_id) is not None  # for those who lost the answer
    for _ in range(3):
        node.turn({}, 400)
    assert node.sampler.receipt(run_id) is None


events = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.floats(0, 700), st.floats(0.2, 400)),
        st.tuples(st.just("work"), st.integers(0, 20), st.floats(0.01, 3)),
        st.tuples(st.just("fork"), st.integers(0, 20), st.none()),
        st.tuples(st.just("die"), st.integers(0, 20), st.none()),
        st.tuples(st.just("register"), st.integers(0, 20), st.none()),
        st.tuples(st.just("finish"), st.integers(0, 5), st.none()),
        st.tuples(st.just("gpu"), st.lists(st.integers(0, 20), max_size=3), st.none()),
        st.tuples(st.just("used"), st.booleans(), st.none()),
        st.tuples(st.just("commit"), st.none(), st.none()),
        st.tuples(st.just("kill"), st.none(), st.floats(0, 90)),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events)
def test_whatever_is_wrapped_the_books_are_the_nodes_energy(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, object, object]]
) -> None:
    """The ledger checks; Σ of all payees = the node, with ==; what a step cost is in its job's
    books, and a command's own receipt is what its row says."""
    node = Node(tmp_path_factory.mktemp("node"))
    node.turn({})
    next_pid = 200
    for what, first, second in events:
        alive = [pid for pid in node.processes.alive if not node.processes.alive[pid].zombie]
        number = first if isinstance(first, int) else 0
        pid = alive[number % len(alive)]
        if what == "turn":
            node.turn({d.name: float(first) for d in COUNTED}, float(second))  # type: ignore[arg-type]
        elif what == "work":
            node.work(pid, float(second))  # type: ignore[arg-type]
        elif what == "fork":
            node.spawn(next_pid, pid, 1000)
            next_pid += 1
        elif what == "die" and pid not in (1, SHELL):
            node.processes.end(pid)
            node.processes.wait_for(pid)
        elif what == "register" and pid != 1 and len(node.registry.running()) < 5:
            node.register(pid)
        elif what == "finish":
            for run in list(node.registry.running())[number : number + 1]:
                node.end(run.payee.job_id)
        elif what == "gpu":
            node.on_gpu = tuple(dict.fromkeys(alive[n % len(alive)] for n in first))  # type: ignore[attr-defined]
        elif what == "used":
            node.turn({GPU.name: 50}, used=bool(first))
        elif what == "commit":
            node.sampler.commit()
        elif what == "kill":
            node.ledger.close()
            node.pass_time(float(second), {d.name: 100 for d in COUNTED})  # type: ignore[arg-type]
            node.start()
    node.turn({d.name: 100 for d in COUNTED})
    books = node.sampler.commit().books
    job_uj = node.total(KEY)[0].energy_uj
    for payee, book in books.jobs.runs.items():
        receipt = node.sampler.receipt(payee.job_id) if payee.manager == RUN else None
        if receipt is not None and receipt.step_of is None:
            row = sum(cell.amounts.energy_uj for cell in book.cells.values())
            # At least: while it was a step of a command that is gone, that one paid.
            assert whole(receipt)[0].energy_uj >= row
    for run in node.registry.running():
        receipt = node.sampler.receipt(run.payee.job_id)
        if receipt is not None and receipt.step_of == KEY:
            assert whole(receipt)[0].energy_uj <= job_uj
    node.ledger.close()
    reader = open_reader_offline(node.path)
    assert reader.check(footprint) == []
    everything = reader.totals(0, 2**62, "all")
    for by in ("payee", "job", "device"):
        rows = reader.totals(0, 2**62, by)
        for index in range(4):
            assert sum(r.amounts[index] for r in rows) == sum(r.amounts[index] for r in everything)
    reader.close()
