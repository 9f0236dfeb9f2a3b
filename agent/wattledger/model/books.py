"""What is remembered: entries, totals, one commit and the committed state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from wattledger.model.amounts import Amounts
from wattledger.model.exporting import Delivery
from wattledger.model.jobbooks import JobBooks
from wattledger.model.jobs import Held, JobRun
from wattledger.model.measuring import CounterReading, DeviceInfo, Quality
from wattledger.model.paying import Payee, PayeeKind
from wattledger.model.pricing import Basis, GridSignal, Price
from wattledger.model.restating import Restatement, Stale
from wattledger.model.settling import Settled, SettledBy, Settlement
from wattledger.model.sums import NO_SUMS, Sums
from wattledger.model.uncertainty import NO_PARTS, Parts


class EntryKey(NamedTuple):
    """Where a booking goes: one row of table `entry`."""

    slot_s: int
    device: str
    payee: Payee
    quality: Quality
    price: Price


class TotalKey(NamedTuple):
    """The cells from which every exported node counter is summed: one row of table `total`."""

    device: str
    payee: PayeeKind
    quality: Quality
    basis: Basis


@dataclass(frozen=True, slots=True)
class Total:
    """A cell's amounts since the ledger's epoch and when it was first booked (wall clock)."""

    amounts: Amounts
    first_booked_ns: int


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """What the ledger remembers of a device besides its energy.

    Attributes:
        info: as last seen.
        unobserved_ms: time in which nothing measured it.
        resets: resets of its counter.
        last_reading: its last reading: the next difference is taken from here; None after a
            power reading of an earlier process.
    """

    info: DeviceInfo
    unobserved_ms: int = 0
    resets: int = 0
    last_reading: CounterReading | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit writes, in one transaction. Amounts are increments, the rest is state.

    Attributes:
        energy_uj: entry → µJ to add, above 0.
        unobserved_ms: device → ms to add.
        resets: device → count to add.
        devices: the devices as they are now.
        checkpoints: device → its last counter reading, None where its last was no counter's.
        signals: the last good grid signals, so that a restart need not begin without.
        notes: small state of other rooms by name (learned idle floors, …), JSON text.
        books_ns: wall clock up to which the books are complete with this commit.
        runs: jobs' runs as they are now: those that run, and those that have ended since.
        held: entry → how long its device was held, to add; its energy need not be in this batch.
        settlements: prices published since; what was booked does not change.
        restatements: factors of the past, as somebody says since; likewise.
        stale: what the restatements in force are still to be applied to.
        sums: job's run → what its sums beside the amounts grow by.
        deliveries: what became of ended runs that exporters had to deliver.
    """

    energy_uj: Mapping[EntryKey, int]
    unobserved_ms: Mapping[str, int]
    resets: Mapping[str, int]
    devices: tuple[DeviceInfo, ...]
    checkpoints: Mapping[str, CounterReading | None]
    signals: tuple[GridSignal, ...]
    notes: Mapping[str, str]
    books_ns: int
    runs: tuple[JobRun, ...] = ()
    held: Mapping[EntryKey, Held] = field(default_factory=lambda: MappingProxyType({}))
    settlements: tuple[Settlement, ...] = ()
    restatements: tuple[Restatement, ...] = ()
    stale: tuple[Stale, ...] = ()
    sums: Mapping[Payee, Sums] = field(default_factory=lambda: MappingProxyType({}))
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True)
class Books:
    """The committed state of the ledger, as the writer holds it in memory.

    Attributes:
        epoch: a UUID; another one means that counters began again at 0.
        epoch_start_ns: wall clock when the epoch began.
        totals: all cells.
        devices: name → record, gone devices included.
        signals: the last good grid signals.
        notes: small state of other rooms.
        books_ns: wall clock up to which the books are complete; 0 before the first commit.
        commits: how many commits this epoch holds.
        jobs: totals of jobs.
        settled: what is known better since the epoch, by what the intensities count.
        restatements: all that were ever made, in that order.
    """

    epoch: str
    epoch_start_ns: int
    totals: Mapping[TotalKey, Total]
    devices: Mapping[str, DeviceRecord]
    signals: tuple[GridSignal, ...]
    notes: Mapping[str, str]
    books_ns: int
    commits: int
    jobs: JobBooks = field(default_factory=JobBooks)
    settled: SettledBy = field(default_factory=lambda: MappingProxyType({}))
    restatements: tuple[Restatement, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """The ledger's health, for `ledger_*` metrics and `doctor`.

    Attributes:
        storage: `disk` or `volatile`.
        path: where it lies.
        errors: commits that failed since the start of the process.
        last_commit_ns: wall clock of the last commit; 0: none by this process yet.
        last_commit_duration_ns: how long it took.
        pending_entries: bookings kept in memory that no commit has written yet.
        message: why the last commit failed; empty when it did not.
        hint: what to do about it.
        size_bytes: of the database file.
        quarantined: where a damaged file was set aside by this process; empty: none was.
    """

    storage: str
    path: str
    errors: int = 0
    last_commit_ns: int = 0
    last_commit_duration_ns: int = 0
    pending_entries: int = 0
    message: str = ""
    hint: str = ""
    size_bytes: int = 0
    quarantined: str = ""


class TotalsRow(NamedTuple):
    """One line of a report: a group and its amounts.

    Attributes:
        group: the device, the kind, or the UTC hour or day in ISO form; `all` for the whole. By
            job `manager/id`, by user the name; what is no job's is in brackets there.
        amounts: exact.
        estimated_uj: of the energy, what no meter saw.
        bases: what its carbon intensities count; more than one: the CO2e adds up unlike things.
        facility_uj: IT energy × PUE, each part at the PUE it was booked with; None: not known.
        settled: what is known better of it by now, and what that changes; over all bases.
        sure: the amounts by what tells how sure they are; empty: that is not known.
        settled_bases: what the final intensities count; empty: as booked.
        settled_facility_uj: IT energy × PUE, restated where it was; None: not known.
        sums: money and market-based CO2e, as they were booked.
    """

    group: str
    amounts: Amounts
    estimated_uj: int
    bases: tuple[Basis, ...] = ()
    facility_uj: int | None = None
    settled: Settled = Settled()
    sure: Parts = NO_PARTS
    settled_bases: tuple[Basis, ...] = ()
    settled_facility_uj: int | None = None
    sums: Sums = NO_SUMS
