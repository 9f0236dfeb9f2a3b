"""What exporters are tested with: ended runs, an outbox that is a list, and the daemon's tools."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from fakes import FakeClock
from snapshots import EPOCH_NS, amounts
from wattledger.model import Amounts, Basis, Kind, Quality
from wattledger.model.exporting import EndedRun
from wattledger.model.jobbooks import Cell, RunBook
from wattledger.model.jobs import Held, Holding, JobRun, KindBasis, job_payee
from wattledger.units import NS_PER_S


def ended_run(number: int, queued: int = 1) -> EndedRun:
    """A run of job `number`, with an energy that no float64 holds."""
    start_ns = EPOCH_NS + number * NS_PER_S
    run = JobRun(
        job_payee("slurm", str(number), start_ns),
        uid=1001,
        labels={"user": "user1001", "account": "physics", "name": "mine"},
        holdings=(Holding("GPU-1", 1_000_000, exact=True),),
        last_seen_ns=start_ns + 60 * NS_PER_S,
        end_ns=start_ns + 60 * NS_PER_S,
    )
    cells = {
        KindBasis(Kind.GPU, Basis.LIFECYCLE): Cell(
            amounts(2**53 + number), Held(60_000, 20_000, 12_345_678)
        ),
        KindBasis(Kind.CPU, Basis.LIFECYCLE): Cell(Amounts(1_000)),
    }
    uid = str(uuid.uuid5(uuid.NAMESPACE_URL, str(number)))
    quality = {Quality.METERED: 3_000, Quality.ESTIMATED: 1_000}
    return EndedRun(number, queued, uid, RunBook(run, cells, start_ns), quality)


class ListOutbox:
    """A `RunOutbox` in memory."""

    def __init__(self, runs: Sequence[EndedRun] = ()) -> None:
        self.runs = list(runs)
        self.done: list[str] = []
        self.refusals: list[str] = []
        self.most_asked = 0

    def waiting(self, most: int) -> list[EndedRun]:
        self.most_asked = max(self.most_asked, most)
        return self.runs[:most]

    def delivered(self, runs: Sequence[EndedRun]) -> None:
        self.done += self._taken(runs)

    def refused(self, runs: Sequence[EndedRun]) -> None:
        self.refusals += self._taken(runs)

    def _taken(self, runs: Sequence[EndedRun]) -> list[str]:
        for run in runs:
            self.runs.remove(run)
        return [run.record_id for run in runs]


class ToolsFake:
    """An `ExporterTools`."""

    def __init__(
        self,
        outbox: ListOutbox | None = None,
        *,
        job_labels: tuple[str, ...] = (),
        clock: FakeClock | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.job_labels = job_labels
        self.commit_interval_ns = 5 * NS_PER_S
        self.created_timestamps = False
        self.runs = outbox or ListOutbox()
