"""Pages of thousands of nodes: some are played by the daemon's own parts, the others are like them.

A node that is played (`e2e.fleet_nodes.Node`) has the product's sampler, ledger and renderer. Its
page becomes another node's by other names: ledger epoch, GPUs, jobs and users.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from e2e.fleet_nodes import JobPlan, Node

GPUS = 8
PLAYED = 16
WIDE = 16
"""Nodes of each job that holds whole nodes; every other node is one of such a job."""
USERS = 200
ACCOUNTS = 20


class EightGpus(Node):
    """A node of eight GPUs on which the same jobs run all the time."""

    jobs_here: tuple[JobPlan, ...] = ()

    def plans(self) -> list[JobPlan]:
        return list(self.jobs_here)


@dataclass(frozen=True)
class Page:
    """A page of a node.

    Attributes:
        node: its number.
        at_s: when it is scraped, Unix time.
        text: what it shows.
    """

    node: int
    at_s: int
    text: str


def name_of(node: int) -> str:
    """Its `instance`."""
    return f"gpu{node:04d}:19400"


def is_wide(node: int) -> bool:
    """Whether one job holds all of it; else one job holds each GPU."""
    return node % 2 == 0


def wide_job(node: int) -> str:
    """Which one."""
    return str(900_000 + node // (2 * WIDE))


def series_of(text: str) -> list[str]:
    """The lines of a page that are samples."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def play(home: Path, name: str, jobs: int, begin_s: int) -> EightGpus:
    """A node with so many jobs: none, one on all GPUs, or one on each."""
    node = EightGpus(name, home, begin_s=begin_s, gpu_numbers=tuple(range(GPUS)))
    every = range(0, GPUS, GPUS // jobs) if jobs else ()
    node.jobs_here = tuple(
        JobPlan("slurm", f"job-{k}@", f"train-{k}@", f"user-{k}@", f"account-{k}@",
                {name: tuple(range(first, first + GPUS // jobs))}, 0, cores=64 // jobs)
        for k, first in enumerate(every)
    )  # fmt: skip
    return node


class Fleet:
    """So many nodes, scraped at the same times."""

    def __init__(self, home: Path, nodes: int, begin_s: int) -> None:
        """Args: home: an empty directory. begin_s: when their ledgers begin, Unix time."""
        self.nodes = nodes
        self._played = [
            play(home, f"n{k:02d}", 1 if is_wide(k) else GPUS, begin_s) for k in range(PLAYED)
        ]

    def turn(self) -> Iterator[Page]:
        """Half a minute passes; each node's page after it."""
        texts = [node.turn() for node in self._played]
        at_s = self._played[0].begin_s + self._played[0].second
        for number in range(self.nodes):
            like = number % PLAYED
            yield Page(number, at_s, self._renamed(texts[like], self._played[like], number))

    def kwh(self) -> float:
        """What all ledgers hold, exactly summed."""
        energy_uj = [
            sum(total.amounts.energy_uj for total in node.ledger.books.totals.values())
            for node in self._played
        ]
        return sum(energy_uj[number % PLAYED] for number in range(self.nodes)) / 3.6e12

    def job_uj(self, job_id: str) -> int:
        """What the ledgers of all nodes of a wide job hold on it."""
        found = 0
        for number in filter(is_wide, range(self.nodes)):
            if wide_job(number) == job_id:
                (book,) = self._played[number % PLAYED].ledger.books.jobs.runs.values()
                found += sum(cell.amounts.energy_uj for cell in book.cells.values())
        return found

    def _renamed(self, text: str, like: EightGpus, number: int) -> str:
        epoch = like.ledger.books.epoch
        text = text.replace(epoch, f"{number:08d}{epoch[8:]}")
        text = text.replace(f"GPU-{like.name[-2:]}", f"GPU-{number:04d}")

        def name(found: re.Match[str]) -> str:
            what, k = found[1], int(found[2])
            narrow = 100_000 + number * GPUS + k
            job = int(wide_job(number)) if is_wide(number) else narrow
            count = {"user": USERS, "account": ACCOUNTS}.get(what)
            if what == "job":
                return str(job)
            return f"{what}{job % count:03d}" if count else f"{what}{job % 50}"

        return _MARK.sub(name, text)

    def close(self) -> None:
        """Their ledgers."""
        for node in self._played:
            node.close()


_MARK = re.compile(r"(job|train|user|account)-(\d)@")


def cardinality(home: Path, begin_s: int) -> dict[str, float]:
    """How many series a node shows: without jobs, with one on all GPUs, with one on each."""
    counts = {}
    for jobs in (0, 1, GPUS):
        node = play(home, f"c{jobs:02d}", jobs, begin_s)
        try:
            for _ in range(3):
                text = node.turn()
            counts[jobs] = len(series_of(text))
        finally:
            node.close()
    return {
        "series of a node without jobs": counts[0],
        "series of a node with one job on 8 GPUs": counts[1],
        "series of a node with 8 jobs": counts[GPUS],
        "series for each job on one GPU": (counts[GPUS] - counts[0]) / GPUS,
    }
