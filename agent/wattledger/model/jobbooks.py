"""What the ledger remembers of jobs, and what it can be asked about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from wattledger.model.amounts import Amounts
from wattledger.model.jobs import Held, JobKey, JobRun, KindBasis
from wattledger.model.measuring import Kind, Quality
from wattledger.model.paying import Payee
from wattledger.model.pricing import GridPart, Weights
from wattledger.model.settling import NONE_SETTLED, SettledBy
from wattledger.model.sums import NO_SUMS, Sums


class Cell(NamedTuple):
    """Amounts, and how long devices were held for them."""

    amounts: Amounts = Amounts()
    held: Held = Held()

    def plus(self, other: Cell) -> Cell:
        """The sum."""
        return Cell(self.amounts.plus(other.amounts), self.held.plus(other.held))


Cells = Mapping[KindBasis, Cell]
NO_CELLS: Cells = MappingProxyType({})


def sum_of(parts: Iterable[Cells]) -> dict[KindBasis, Cell]:
    """The sum, cell by cell."""
    whole: dict[KindBasis, Cell] = {}
    for cells in parts:
        for key, cell in cells.items():
            known = whole.get(key)
            whole[key] = cell if known is None else known.plus(cell)
    return whole


@dataclass(frozen=True, slots=True)
class RunBook:
    """A run and its totals since it began.

    Attributes:
        run: the run.
        cells: its sums by kind of device and basis.
        first_booked_ns: wall clock; 0: nothing was.
        settled: what is known better of it, and what that changes; told by questions only.
        sums: money, market-based and embodied CO2e.
    """

    run: JobRun
    cells: Cells = field(default_factory=lambda: NO_CELLS)
    first_booked_ns: int = 0
    settled: SettledBy = field(default_factory=lambda: NONE_SETTLED)
    sums: Sums = NO_SUMS


class UserKey(NamedTuple):
    """Whose totals these are."""

    manager: str
    user: str
    account: str


class PastRuns(NamedTuple):
    """The sum of a job's earlier runs.

    Attributes:
        cells: by kind of device and basis.
        first_booked_ns: of the first of them; 0: there was none.
    """

    cells: Cells = NO_CELLS
    first_booked_ns: int = 0


@dataclass(frozen=True, slots=True)
class JobBooks:
    """The committed totals of the jobs that run or ended a short while ago, and the sums.

    Attributes:
        runs: run → its book.
        past: job → the sum of its runs that are not in `runs`; a job's series is both together.
        unlisted: jobs in `runs` that were left without a series of their own.
        unlisted_total: the sum of all such jobs since the epoch.
        unlisted_count: how many there were.
        users: user → sum over all their jobs since the epoch.
        waiting: run → what of its totals is not in `users`, while it is not known whose it is.
    """

    runs: Mapping[Payee, RunBook] = field(default_factory=lambda: MappingProxyType({}))
    past: Mapping[JobKey, PastRuns] = field(default_factory=lambda: MappingProxyType({}))
    unlisted: frozenset[JobKey] = frozenset()
    unlisted_total: Cells = field(default_factory=lambda: NO_CELLS)
    unlisted_count: int = 0
    users: Mapping[UserKey, Amounts] = field(default_factory=lambda: MappingProxyType({}))
    waiting: Mapping[Payee, Amounts] = field(default_factory=lambda: MappingProxyType({}))


JOB_SORTS = ("start", "energy", "co2e", "held_idle")


class JobQuery(NamedTuple):
    """Which runs are asked for.

    Attributes:
        manager: one of the managers; empty: all.
        user: a name, or a uid; empty: all.
        account: its name; empty: all.
        name: of the job, `*`, `?` and `[…]` as in file names; empty: all.
        uid: only this user's runs, whatever else is asked; None: all.
        state: `running`, `ended` or empty: both.
        since_ns: those that ended at or after this instant, or run.
        until_ns: those that began before.
        sort: one of `JOB_SORTS`, the latest or the most first.
        ascending: the earliest or the least first instead.
        limit: at most so many.
        after: where the page before ended: (value sorted by, id); None: the first page.
    """

    manager: str = ""
    user: str = ""
    account: str = ""
    name: str = ""
    uid: int | None = None
    state: str = ""
    since_ns: int = 0
    until_ns: int = 2**62
    sort: str = "start"
    ascending: bool = False
    limit: int = 100
    after: tuple[int, int] | None = None


class JobRow(NamedTuple):
    """One run of an answer.

    Attributes:
        book: the run and its totals.
        position: (value sorted by, id), to ask for what follows.
    """

    book: RunBook
    position: tuple[int, int]


class JobMoment(NamedTuple):
    """A job's energy in a slot or an hour, by kind of device."""

    start_s: int
    kind: Kind
    energy_uj: int


class JobPart(NamedTuple):
    """A part of a job's energy: how it was measured, and what priced it."""

    quality: Quality
    grid: GridPart


@dataclass(frozen=True, slots=True)
class JobDetail:
    """All about one job.

    Attributes:
        runs: its newest runs, the newest first.
        run_count: how many there are in all.
        begun_ns: when the first of all began (wall clock).
        ran_ns: how long they ran, all together.
        total: over all of them.
        parts: the same sums by how they were measured and what priced them.
        moments: its time line, oldest first.
        grain_s: the time line's grain in seconds.
        weights: the intensities by which the parts were priced.
        settled: what is known better of the total, and what that changes.
        sums: money, market-based and embodied CO2e, over all runs.
        idle_sums: money of what was held without any use.
        unmeasured_ns: how much of `ran_ns` was before the ledger began.
    """

    runs: tuple[RunBook, ...]
    run_count: int
    begun_ns: int
    ran_ns: int
    total: Cells
    parts: Mapping[JobPart, Cell]
    moments: tuple[JobMoment, ...]
    grain_s: int
    weights: Weights = field(default_factory=lambda: MappingProxyType({}))
    settled: SettledBy = field(default_factory=lambda: NONE_SETTLED)
    sums: Sums = NO_SUMS
    idle_sums: Sums = NO_SUMS
    unmeasured_ns: int = 0


class WasteRow(NamedTuple):
    """What a user or an account held of GPUs in a span, and what of it they let idle.

    Attributes:
        group: the user's or the account's name.
        runs: of how many runs.
        held: how long, how much of that without any use, and the energy of that part.
        energy_uj: of all that was held.
        facility_uj: the same at the meter of the site: times the PUE of its time.
        idle_facility_uj: likewise of what was held without any use.
        sums: what all that was held cost.
        idle_sums: likewise what was held without any use.
    """

    group: str
    runs: int
    held: Held
    energy_uj: int
    facility_uj: int
    idle_facility_uj: int
    sums: Sums = NO_SUMS
    idle_sums: Sums = NO_SUMS

    def plus(self, other: WasteRow) -> WasteRow:
        """The sum, under this one's name; for runs that are not the same."""
        return WasteRow(
            self.group,
            self.runs + other.runs,
            self.held.plus(other.held),
            self.energy_uj + other.energy_uj,
            self.facility_uj + other.facility_uj,
            self.idle_facility_uj + other.idle_facility_uj,
            self.sums.plus(other.sums),
            self.idle_sums.plus(other.idle_sums),
        )


class Waste(NamedTuple):
    """Who let GPUs idle, and what GPUs used that nobody held.

    Attributes:
        rows: the worst first: by the energy held without use, then by the time.
        unheld_uj: of GPUs that no job held.
        unheld_facility_uj: the same times the PUE of its time.
        unheld_sums: what that cost.
    """

    rows: tuple[WasteRow, ...]
    unheld_uj: int
    unheld_facility_uj: int
    unheld_sums: Sums = NO_SUMS
