"""Whatever comes, goes and is looked at when: each ns of CPU time is somebody's once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cgroups import CID, POD_UID
from watching import Watched
from wattledger.jobs.paths import Paths
from wattledger.model import Payee
from wattledger.model.jobs import Survey
from wattledger.model.measuring import Process

US = 1000
POD = f"/kubepods/pod{POD_UID}"
USER = "/user.slice/user-1001.slice"
OWN = f"{USER}/user@1001.service/user.slice"
UNIT = "/system.slice/train.service"
TOPS = (POD, USER)


def jobs(number: int) -> tuple[str, ...]:
    """Jobs inside of others, and some that are not."""
    cid = f"{number << 224:064x}"
    return (
        f"{POD}/{CID}/system.slice/slurmstepd.scope/job_{number}",
        f"{OWN}/libpod-{cid}.scope",
        f"/system.slice/slurmstepd.scope/job_{number}",
        f"/slurm/uid_1001/job_{number}",
        f"/docker/{cid}",
    )


ops = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.integers(0, 4), st.integers(1, 3)),
        st.tuples(st.just("grow"), st.integers(0, 30), st.integers(1, 5_000_000)),
        st.tuples(st.just("remove"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("flash"), st.integers(0, 4), st.integers(1, 5_000_000)),
        st.tuples(st.just("step"), st.just(0), st.just(0)),
        st.tuples(st.just("survey"), st.sampled_from([0.2, 1.0, 6.0]), st.booleans()),
    ),
    max_size=40,
)


class Books:
    """What the surveys say in all: run → the CPU time as last told."""

    def __init__(self, w: Watched) -> None:
        self.w = w
        self.told: dict[Payee, int] = {}
        self.ended: list[Payee] = []

    def take(self, survey: Survey) -> None:
        for payee, used_ns in survey.cpu_ns.items():
            assert used_ns >= self.told.get(payee, 0), "it fell"
            self.told[payee] = used_ns
        assert set(survey.runs) <= set(survey.cpu_ns)
        told_now = [run.payee for run in survey.ended]
        assert len(told_now) == len(set(told_now))
        assert not set(told_now) & set(survey.runs)
        for run in survey.ended:
            assert run.payee.start_ns <= run.end_ns <= survey.at.wall_ns
        self.ended += told_now

    @property
    def total_ns(self) -> int:
        return sum(self.told.values())


class Tree:
    """Cgroups with counters that have all below them in theirs, as the kernel's have."""

    def __init__(self, w: Watched) -> None:
        self.w = w
        self.used_us: dict[str, int] = {}

    def make(self, path: str) -> None:
        self.used_us[path] = 0
        self.write(path)

    def write(self, path: str) -> None:
        self.w.node.make(path, cpu_s=self.used_us[path] / 1e6)

    def grow(self, path: str, us: int) -> None:
        for up in (path, *above(path)):
            if up in self.used_us:
                self.used_us[up] += us
                self.write(up)

    def remove(self, path: str) -> None:
        self.w.node.remove(path)
        del self.used_us[path]


def is_outermost(path: str) -> bool:
    return not any(path.startswith(top + "/") for top in TOPS)


def above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


@pytest.mark.parametrize("version", ["v2", "v1"])
@settings(max_examples=40, deadline=None)
@example(ops=[("make", 3, 1), ("remove", 0, 0), ("flash", 3, 1)])  # before it was followed
@given(ops=ops)
def test_what_the_counters_moved_is_what_the_runs_used(
    version: str, ops: list[tuple[str, int, int]]
) -> None:
    """Jobs nested in a pod and in a user's session, and others beside them.

    What a job used after its counter was last read is its surroundings', where there are any; so
    the runs' sum is the movement of the outermost counters as they were read.
    """
    with tempfile.TemporaryDirectory() as root:
        w = Watched(Path(root), version, paths=Paths(slurm_roots=["/kubepods/*/*"]))
        tree, books = Tree(w), Books(w)
        for top in TOPS:
            tree.make(top)
        books.take(w.look())
        gone_ns = number = 0  # gone: of outermost jobs, as last read
        for op, a, b in ops:
            inside = [path for path in tree.used_us if path not in TOPS]
            if op == "make":
                number += 1
                tree.make(jobs(number)[a])
            elif op == "grow":
                paths = list(tree.used_us)
                tree.grow(paths[a % len(paths)], b)
            elif op == "remove" and inside:
                path = inside[a % len(inside)]
                books.take(w.look(0.2))  # the last reading
                gone_ns += tree.used_us[path] * US if is_outermost(path) else 0
                tree.remove(path)
            elif op == "flash":  # it comes and goes, and only steps see it
                number += 1
                path = jobs(number)[a % 5]
                tree.make(path)
                w.step()
                tree.grow(path, b)
                w.step()
                gone_ns += tree.used_us[path] * US if is_outermost(path) else 0
                tree.remove(path)
            elif op == "step":
                w.step()
            elif op == "survey":
                books.take(w.look(float(a)))
        for _ in range(8):
            books.take(w.look(3))

        there_ns = sum(used * US for path, used in tree.used_us.items() if is_outermost(path))
        assert books.total_ns == gone_ns + there_ns


@settings(max_examples=40, deadline=None)
@given(ops=ops)
def test_who_was_not_read_to_the_end_is_never_paid_more_than_was_used(
    ops: list[tuple[str, int, int]],
) -> None:
    """Nobody looks before a removal, a unit comes in late: less may be seen, never more."""
    with tempfile.TemporaryDirectory() as root:
        w = Watched(Path(root), paths=Paths(slurm_roots=["/kubepods/*/*"]))
        tree, books = Tree(w), Books(w)
        for top in (*TOPS, UNIT):
            tree.make(top)
            tree.grow(top, 10**9)
        w.node.process(10, UNIT)
        books.take(w.look())
        number = used_us = 0
        for op, a, b in ops:
            inside = [path for path in tree.used_us if path not in (*TOPS, UNIT)]
            if op == "make":
                number += 1
                tree.make(jobs(number)[a])
            elif op == "grow":
                paths = list(tree.used_us)
                tree.grow(paths[a % len(paths)], b)
                used_us += b
            elif op == "remove" and inside:
                tree.remove(inside[a % len(inside)])
            elif op == "step":
                w.step()
            elif op == "survey":
                books.take(w.look(float(a), **({"G0": (Process(10, 100),)} if b else {})))
        for _ in range(8):
            books.take(w.look(3))

        assert books.total_ns <= used_us * US
        assert len(books.ended) == len(set(books.ended))
        assert len(w.look().runs) >= len([path for path in tree.used_us if path != UNIT])
