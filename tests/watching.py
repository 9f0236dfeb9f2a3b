"""A watch over the jobs of a node made of files, under a clock that stands until it is told."""

from __future__ import annotations

from pathlib import Path

from cgroups import FakeNode
from fakes import FakeClock
from wattledger.jobs.names import UserNames
from wattledger.jobs.paths import Paths
from wattledger.jobs.watch import JobWatch
from wattledger.model.jobs import Survey
from wattledger.model.measuring import Process
from wattledger.units import NS_PER_S

JOB = "/system.slice/slurmstepd.scope/job_7"
V1_JOB = "/slurm_node/uid_1001/job_7"


class Watched:
    """A node, its clock, and a watch over it."""

    def __init__(self, root: Path, version: str = "v2", **more: object) -> None:
        self.node = FakeNode(root, version)
        self.clock = FakeClock()
        self.names = UserNames(lambda uid: {1001: "alice"}.get(uid, ""))
        self.names.name(1001)
        self.names.settle()
        self.more = more
        self.start()

    def start(self, **more: object) -> None:
        self.watch = JobWatch(
            self.more.get("paths") or Paths(),  # type: ignore[arg-type]
            sysfs=self.node.sysfs,
            procfs=self.node.procfs,
            boot_id=self.clock.boot_id,
            names=self.names,
            **more,  # type: ignore[arg-type]
        )

    def step(self, seconds: float = 0.1) -> float:
        """A brief look; returns the pause that it asks for."""
        return self.watch.step(self.clock.advance(seconds))

    def look(self, seconds: float = 1.0, **processes: tuple[Process, ...]) -> Survey:
        return self.watch.survey(self.clock.advance(seconds), None, processes)


def used_s(survey: Survey) -> dict[str, float]:
    return {payee.job_id: ns / NS_PER_S for payee, ns in survey.cpu_ns.items()}
