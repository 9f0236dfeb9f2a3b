"""A command that is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wattledger.jobs.hierarchy import process_cgroups
from wattledger.jobs.paths import Paths, Place
from wattledger.jobs.runs.tree import ProcessTree
from wattledger.model import Instant, Payee
from wattledger.model.jobs import MANAGERS, RUN, JobKey


class Where(NamedTuple):
    """In which cgroups a process is.

    Attributes:
        cgroups: their paths, one for each hierarchy.
        place: the job of which it is there; None: of none.
    """

    cgroups: tuple[str, ...] = ()
    place: Place | None = None

    @property
    def is_job(self) -> bool:
        """It is a job that pays for the commands in it; a login session is none."""
        return self.place is not None and self.place.rank < MANAGERS.index(RUN)


def where_is(procfs: Path, paths: Paths, pid: int) -> Where:
    """In which cgroups, and so of which job, a process is."""
    cgroups = process_cgroups(procfs, pid, paths.locate)
    places = [place for path in cgroups for place in paths.places(path)[:1]]
    return Where(cgroups, min(places, key=lambda place: place.rank, default=None))


@dataclass(slots=True, eq=False)
class Run:
    """A registered command.

    Attributes:
        payee: (run, its id, its start).
        uid: whose it is.
        name: what its user calls it.
        tree: its processes.
        where: the cgroups of its root when it was registered.
        outer: the run in which it runs; None: in none.
        step: it does not pay for itself: `outer` does, or the job of `where`.
        gpus: those that it claims.
        began_ns: CLOCK_MONOTONIC when it was registered.
        finish: when its end was asked for; None: it runs.
        exit_code: of the command, once it has ended.
        memory_bytes: of all its processes.
        told: it was in a survey.
    """

    payee: Payee
    uid: int
    name: str
    tree: ProcessTree
    where: Where
    outer: Run | None
    step: bool
    gpus: tuple[str, ...] = ()
    began_ns: int = 0
    finish: Instant | None = None
    exit_code: int | None = None
    memory_bytes: int = 0
    memory_due_ns: int = 0
    walk_due_ns: int = 0
    counted_ns: int = 0
    seen_ns: int = 0
    told: bool = False

    @property
    def key(self) -> JobKey:
        """What it is called among jobs."""
        return JobKey(RUN, self.payee.job_id)

    @property
    def step_of(self) -> JobKey | None:
        """The job that pays for it; None: it does."""
        if not self.step:
            return None
        outer = self.outer  # once: other threads change it
        if outer is not None:
            return outer.step_of or outer.key
        place = self.where.place
        return JobKey(place.manager, place.job_id) if place is not None else None

    def chain(self) -> list[Run]:
        """Itself, the run around it, the run around that, …"""
        chain, run = [], self
        while run not in chain:
            chain.append(run)
            run = run.outer or run
        return chain


class Around(NamedTuple):
    """What is around a run at one moment; as in `Run`."""

    outer: Run | None
    step: bool


def cgroup_of(pid: int) -> str:
    """What stands in place of a cgroup in a run's record: its root process."""
    return f"pid:{pid}"


def pid_of(cgroup: str) -> int:
    """The root process of such a record; 0: it is none."""
    kind, _, number = cgroup.partition(":")
    return int(number) if kind == "pid" and number.isascii() and number.isdigit() else 0
