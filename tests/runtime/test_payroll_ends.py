"""What the payroll tells the ledger of runs that have ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fakes import FakeClock
from wattledger.model import Books, Instant
from wattledger.model.jobs import Claim, Holding, JobRun, Survey, job_payee
from wattledger.model.measuring import Process
from wattledger.payroll import Payroll

RUN = JobRun(job_payee("slurm", "7", 1), uid=1001)


class Told:
    """A `ports.Jobs` whose surveys are given."""

    def __init__(self) -> None:
        self.next = Survey(at=FakeClock().now())

    def survey(
        self, now: Instant, busy_ns: int | None, processes: Mapping[str, tuple[Process, ...]]
    ) -> Survey:
        return replace(self.next, at=now)


def test_one_that_is_told_of_again_held_what_it_held() -> None:
    clock, jobs = FakeClock(), Told()
    payroll = Payroll(jobs, "equal", Books("e", 0, {}, {}, (), {}, 0, 0), clock.boot_id)
    claim = Claim("slurm", "7", "GPU-1", source="slurm")
    jobs.next = replace(jobs.next, runs={RUN.payee: RUN}, claims=(claim,))
    payroll.look(clock.advance(1), None, {})
    over = replace(RUN, end_ns=clock.wall_ns)
    jobs.next = replace(jobs.next, runs={}, claims=(), ended=(over,))
    payroll.look(clock.advance(1), None, {})
    jobs.next = replace(jobs.next, ended=(replace(over, labels={"user": "alice"}),))
    payroll.look(clock.advance(1), None, {})

    (told,) = payroll.runs()
    assert told.holdings == (Holding("GPU-1", 1_000_000),) and told.labels == {"user": "alice"}
