"""The processes of a command: what they use is neither lost nor counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from processes import FakeProcesses, ns
from wattledger.jobs.runs.tree import MAX_MEMBERS, Processes, ProcessTree

ROOT = 100

events = st.lists(
    st.one_of(
        st.tuples(st.just("fork"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("work"), st.integers(0, 20), st.integers(1, 500)),
        st.tuples(st.just("end"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("look"), st.booleans(), st.just(0)),
        st.tuples(st.just("missed"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(events=events, lists_children=st.booleans())
@example(
    events=[("fork", 0, 0), ("work", 1, 1), ("restart", 0, 0), ("look", 0, 0), ("look", 0, 0)],
    lists_children=False,
)
@example(
    events=[
        ("fork", 0, 0),
        ("work", 1, 500),
        ("look", 1, 0),
        ("missed", 1, 0),
        ("look", 0, 0),
        ("look", 1, 0),
    ],
    lists_children=True,
)
def test_cpu_time_is_conserved_whoever_ends_and_waits(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[tuple[str, int, int]],
    *,
    lists_children: bool,
) -> None:
    fake = FakeProcesses(tmp_path_factory.mktemp("p") / "proc", lists_children=lists_children)
    fake.spawn(ROOT, 1)
    fake.work(ROOT, 77)  # before it was registered: it does not count
    fake.spawn(50, 1)  # somebody else
    processes = Processes(fake.procfs)
    tree = ProcessTree(processes, ROOT, fake.alive[ROOT].start_ticks)
    used, next_pid, before = 0, 200, 0

    for what, number, ticks in events:
        inside = [pid for pid in fake.alive if pid >= ROOT]
        pid = inside[number % len(inside)]
        one = fake.alive[pid]
        if what == "fork" and not one.zombie:
            fake.spawn(next_pid, pid)
            next_pid += 1
        elif what == "work" and not one.zombie:
            fake.work(pid, ticks)
            used += ticks
            fake.work(50, 1000)
        elif what == "end" and pid != ROOT and not one.zombie:
            fake.end(pid, heir=ROOT)
        elif what == "wait" and one.zombie and not fake.alive[one.ppid].zombie:
            fake.wait_for(pid)
        elif what == "look":
            processes.begin()
            assert tree.look(walk=bool(number))
            assert before <= tree.used_ns <= ns(used)
            before = tree.used_ns
        elif what == "missed" and pid != ROOT:
            for listed, walk in ((False, True), (True, False)):
                fake.list_child(pid, listed=listed)
                processes.begin()
                assert tree.look(walk=walk)
                assert before <= tree.used_ns <= ns(used)
                before = tree.used_ns
        elif what == "restart":  # another daemon goes on where this one last looked
            processes.begin()
            tree.look()
            assert tree.used_ns == ns(used)
            tree = ProcessTree(processes, ROOT, fake.alive[ROOT].start_ticks, tree.raw_ns)
            used, before = 0, 0

    processes.begin()
    tree.look()
    assert tree.used_ns == ns(used)


@pytest.mark.parametrize("walk", [True, False])
def test_a_restart_goes_on_from_what_was_counted(fake: FakeProcesses, walk: bool) -> None:
    tree = tree_of(fake)
    fake.spawn(200, ROOT)
    fake.work(200, 500)
    tree.look()
    fake.list_child(200, listed=False)  # a moment's: nothing is taken back for it
    tree.look(walk=walk)
    fake.list_child(200)
    again = ProcessTree(Processes(fake.procfs), ROOT, tree.start_ticks, tree.raw_ns)
    again.look(walk=False)
    again.look()
    assert tree.used_ns + again.used_ns == ns(500)


@pytest.fixture
def fake(tmp_path: Path) -> FakeProcesses:
    made = FakeProcesses(tmp_path / "proc")
    made.spawn(ROOT, 1)
    return made


def tree_of(fake: FakeProcesses) -> ProcessTree:
    return ProcessTree(Processes(fake.procfs), ROOT, fake.alive[ROOT].start_ticks)


def test_what_is_never_waited_for_is_lost_once_and_does_not_hold_up_the_rest(
    fake: FakeProcesses,
) -> None:
    tree = tree_of(fake)
    fake.spawn(200, ROOT)
    fake.work(200, 500)
    tree.look()
    fake.forget(200)
    fake.work(ROOT, 10)
    tree.look()
    assert tree.used_ns == ns(500)  # it may have been a moment's: nothing is taken back
    fake.work(ROOT, 10)
    tree.look()
    fake.work(ROOT, 30)
    tree.look()
    assert tree.used_ns == ns(530)  # and it goes on from there


def test_a_reused_id_is_not_the_root(fake: FakeProcesses) -> None:
    tree = tree_of(fake)
    assert tree.look()
    fake.end(ROOT)
    assert not tree.look()  # a zombie has ended, whoever does not wait for it
    fake.wait_for(ROOT)
    fake.spawn(ROOT, 1)
    assert not tree.look()


def test_a_reused_id_is_no_member(fake: FakeProcesses) -> None:
    tree = tree_of(fake)
    fake.spawn(200, ROOT)
    fake.work(200, 5)
    tree.look()
    fake.end(200)
    fake.wait_for(200)
    fake.spawn(200, 50)  # somebody else's now
    fake.work(200, 9000)
    tree.look(walk=False)
    assert tree.used_ns == ns(5)
    tree.look()
    assert 200 not in tree.members


def test_shared_memory_counts_once(fake: FakeProcesses) -> None:
    tree = tree_of(fake)
    fake.memory(ROOT, 1000, 50_000)
    for pid in (200, 201):
        fake.spawn(pid, ROOT, anon_kb=300, shmem_kb=50_000)
    tree.look()
    assert tree.memory_bytes() == (1000 + 2 * 300 + 50_000) * 1024


@pytest.mark.parametrize(
    "text", [b"", b"100", b"100 (x) S", b"100 (x) S 1 1 1 a b c", b"\xff" * 99]
)
def test_a_stat_that_makes_no_sense_is_a_process_that_is_gone(
    fake: FakeProcesses, text: bytes
) -> None:
    (fake.procfs / f"{ROOT}/stat").write_bytes(text)
    processes = Processes(fake.procfs)
    assert processes.stat(ROOT) is None
    (fake.procfs / f"{ROOT}/status").write_bytes(text)
    assert processes.owner(ROOT) is None
    assert processes.memory_bytes(ROOT) == (0, 0)


def test_a_fork_bomb_is_looked_at_up_to_a_bound(fake: FakeProcesses) -> None:
    tree = tree_of(fake)
    # Only the list of children is long: what is beyond the bound need not be there.
    listing = " ".join(str(pid) for pid in range(1000, 1000 + 3 * MAX_MEMBERS))
    (fake.procfs / f"{ROOT}/task/{ROOT}/children").write_text(listing)
    for pid in range(1000, 1000 + MAX_MEMBERS + 10):
        directory = fake.procfs / str(pid)
        directory.mkdir()
        (directory / "stat").write_text(
            f"{pid} (x) S {ROOT} 1 1 0 -1 0 0 0 0 0 1 0 0 0 20 0 1 0 5 1 1\n"
        )
    tree.look()
    assert len(tree.members) == MAX_MEMBERS


def test_a_main_thread_that_ended_is_not_the_end(fake: FakeProcesses) -> None:
    tree = tree_of(fake)
    stat = fake.procfs / f"{ROOT}/stat"
    stat.write_text(stat.read_text().replace(" S ", " Z ").replace(" 20 0 1 0 ", " 20 0 3 0 "))
    assert tree.look()
