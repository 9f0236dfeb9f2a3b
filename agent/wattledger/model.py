"""The vocabulary: immutable records that flow from the meters to the exporters.

    Reading → EnergyInterval → AttributedInterval → Booking → (ledger) → Totals → Snapshot

Nothing here reads a clock, a file or a device. Energy is µJ, power µW, CO2e µg, water µL,
time ns, ratios millionths: see `wattledger.units`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Kind(StrEnum):
    """What a device is; the value of the metrics' `kind` label."""

    GPU = "gpu"
    CPU = "cpu"
    DRAM = "dram"
    OTHER = "other"


class Quality(StrEnum):
    """How an energy was found; part of every ledger entry."""

    METERED = "metered"  # the difference of a hardware energy counter
    INTEGRATED = "integrated"  # measured power over time
    ESTIMATED = "estimated"  # a model or a configured constant: no meter saw it
    RECOVERED = "recovered"  # a hardware counter moved while nobody was reading it


class Basis(StrEnum):
    """What a carbon intensity counts; intensities of different bases are never added up."""

    LIFECYCLE = "lifecycle"  # fuel, plant construction and upstream
    DIRECT = "direct"  # combustion only
    GENERATION = "generation"  # at the generator with imports and losses; renewables and nuclear 0


class PayeeKind(StrEnum):
    """For whom energy was used; the value of the metrics' `payee` label."""

    JOBS = "jobs"
    IDLE = "idle"  # nobody held or used the device
    SYSTEM = "system"  # processes outside any job
    UNATTRIBUTED = "unattributed"  # what cannot be told


class FallbackLevel:
    """Where a carbon intensity came from; the value of `grid_fallback_level`."""

    LIVE = 0
    LAST_GOOD = 1
    TABLE = 2


# ── time ────────────────────────────────────────────────────────────────────────────────────────


class Instant(NamedTuple):
    """One moment on three clocks, each in ns.

    `monotonic` stands still while the machine sleeps and serves rates; `boottime` runs on and
    serves gaps; `wall` (Unix time, may be stepped) serves slots and labels only.
    """

    monotonic_ns: int
    boottime_ns: int
    wall_ns: int


# ── how much ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A metered device.

    Attributes:
        name: stable for life: a GPU's UUID, `cpu0`, `dram0`, `other`.
        kind: what it is.
        meter: which meter reads it now (`nvml`, `rapl`, `hwmon`, `estimate`, `constant`).
        index: the driver's number for it, as text; may change at the next boot.
        model: for people.
        pci: PCI address, or empty.
        present: False once the device has left; its totals stay.
    """

    name: str
    kind: Kind
    meter: str
    index: str = ""
    model: str = ""
    pci: str = ""
    present: bool = True


@dataclass(frozen=True, slots=True)
class CounterReading:
    """What a cumulative energy counter showed.

    Attributes:
        device: the device's stable name.
        at: when it was read.
        raw_uj: the counter in µJ, as the hardware gives it.
        range_uj: the counter wraps after this many µJ; None: it never wraps, a fall is a reset.
        max_power_uw: more than this the device cannot draw (a power limit, or a bound for its
            class); differences beyond 1.1 times this are not booked.
        tick_ns: how often the hardware moves the counter.
        boot_id: the kernel's boot id: another one means the counter began anew.
        driver_load: changes when the driver was loaded anew; empty where there is none to load.
    """

    device: str
    at: Instant
    raw_uj: int
    range_uj: int | None
    max_power_uw: int
    tick_ns: int
    boot_id: str
    driver_load: str = ""


@dataclass(frozen=True, slots=True)
class PowerReading:
    """What a power sensor, a model or a constant showed.

    Attributes:
        device: the device's stable name.
        at: when the value was true (for an average: when its window ended).
        power_uw: µW.
        window_ns: the value is the mean over this long before `at`; 0: it is instantaneous.
        max_gap_ns: two readings farther apart than this leave the time between unobserved.
        quality: `INTEGRATED` for a sensor, `ESTIMATED` for a model or a constant.
    """

    device: str
    at: Instant
    power_uw: int
    window_ns: int
    max_gap_ns: int
    quality: Quality = Quality.INTEGRATED


Reading = CounterReading | PowerReading


@dataclass(frozen=True, slots=True)
class EnergyInterval:
    """Energy of one device over a span of time.

    Attributes:
        device: the device's stable name.
        start_ns: wall clock; `end_ns` less the span's length on CLOCK_BOOTTIME.
        end_ns: wall clock when the closing reading was taken.
        energy_uj: at least 0.
        quality: how it was found.
    """

    device: str
    start_ns: int
    end_ns: int
    energy_uj: int
    quality: Quality


@dataclass(frozen=True, slots=True)
class Fault:
    """Something a meter could not do; counted in `meter_errors_total{meter,reason}`.

    Attributes:
        meter: the meter's name.
        reason: one lower-case word with underscores.
        message: a sentence for the log and for `doctor`.
        hint: what to do about it.
        device: the device concerned, or empty for the whole meter.
        permanent: the meter as a whole does not answer (`meter_up 0`), not just one read.
    """

    meter: str
    reason: str
    message: str
    hint: str = ""
    device: str = ""
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class MeterReport:
    """All that one turn of a meter brought.

    Attributes:
        devices: every device the meter knows, those that left with `present=False`.
        readings: in order of time for each device.
        faults: what could not be read this time.
        processes: GPU name → number of processes on it, None: cannot be told; only where asked.
        counter_power_ratio: device → energy by counter over energy by power sensor, for devices
            where both answer; a cross-check, 1.0 when they agree.
    """

    devices: tuple[DeviceInfo, ...] = ()
    readings: tuple[Reading, ...] = ()
    faults: tuple[Fault, ...] = ()
    processes: Mapping[str, int | None] = field(default_factory=lambda: MappingProxyType({}))
    counter_power_ratio: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """A meter's health, for metrics, `/api/v1/status` and `doctor`.

    Attributes:
        meter: its name.
        up: it answered at its last turn, and that was not too long ago.
        last_success_ns: wall clock of the last turn that brought readings; 0: never.
        errors: reason → count since the start of the process.
        message: why it is down; empty while up.
        hint: what to do about it.
        missed_ticks: turns that could not be held at their time.
    """

    meter: str
    up: bool
    last_success_ns: int
    errors: Mapping[str, int]
    message: str = ""
    hint: str = ""
    missed_ticks: int = 0


# ── for whom ────────────────────────────────────────────────────────────────────────────────────


class Payee(NamedTuple):
    """Who pays: a job's run, or one of idle, system and unattributed.

    A run is (manager, job id, start): ids are used again. For the other three all but `kind`
    is empty.
    """

    kind: PayeeKind
    manager: str = ""
    job_id: str = ""
    start_ns: int = 0


IDLE = Payee(PayeeKind.IDLE)
SYSTEM = Payee(PayeeKind.SYSTEM)
UNATTRIBUTED = Payee(PayeeKind.UNATTRIBUTED)


@dataclass(frozen=True, slots=True)
class Usage:
    """Who held and used one device over a span, as weights.

    Attributes:
        device: the device's stable name.
        weights: payee → weight; with `whole`, the payee's part is weight over whole.
        whole: at least the sum of the weights, above 0.
        rest: who pays what the weights leave.
        floor_uw: the device's power when idle; that much of its energy goes to `idle` first.
    """

    device: str
    weights: tuple[tuple[Payee, int], ...] = ()
    whole: int = 1
    rest: Payee = UNATTRIBUTED
    floor_uw: int = 0


@dataclass(frozen=True, slots=True)
class AttributedInterval:
    """An interval and who pays for it; the shares sum to `interval.energy_uj` exactly."""

    interval: EnergyInterval
    shares: tuple[tuple[Payee, int], ...]


# ── how dirty ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class GridSignal:
    """A carbon intensity and where it came from.

    Attributes:
        intensity_ug_per_kwh: µgCO2e per kWh of facility energy.
        zone: the grid zone the source answered for, as it names it.
        source: `neso`, `electricity_maps`, `table`, …
        basis: what is counted.
        valid_from_ns: wall clock; for the table the start of its year.
        valid_to_ns: wall clock, exclusive.
        estimated: the source itself says that it is not measured (or it is a table).
        fetched_at_ns: wall clock.
        cadence_ns: how often the source publishes a new one.
    """

    intensity_ug_per_kwh: int
    zone: str
    source: str
    basis: Basis
    valid_from_ns: int
    valid_to_ns: int
    estimated: bool
    fetched_at_ns: int
    cadence_ns: int


@dataclass(frozen=True, slots=True)
class GridChoice:
    """The signal to price an instant with, and how it was come by.

    Attributes:
        signal: the signal.
        level: a `FallbackLevel`.
        estimated: the signal is an estimate, or is used beyond the time it was published for.
    """

    signal: GridSignal
    level: int
    estimated: bool


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A grid source's health: request outcomes since the start, and the last error."""

    source: str
    outcomes: Mapping[str, int]
    last_success_ns: int = 0
    last_signal: GridSignal | None = None
    message: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class SiteFactors:
    """What the site adds to each kWh of IT energy; each with the name of its source.

    `*_source` is `default` until configured, then `config`; EWIF may also be `table`.
    """

    pue_ppm: int
    pue_source: str
    wue_ul_per_kwh: int
    wue_source: str
    ewif_ul_per_kwh: int
    ewif_source: str


class Price(NamedTuple):
    """Everything that turns µJ into µg and µL, and its provenance: one row of table `price`.

    Equal prices are one row; any change opens a new ledger entry and alters no old one.
    """

    intensity_ug_per_kwh: int
    zone: str
    source: str
    basis: Basis
    estimated: bool
    level: int
    signal_from_ns: int
    signal_to_ns: int
    pue_ppm: int
    wue_ul_per_kwh: int
    ewif_ul_per_kwh: int


# ── what is remembered ──────────────────────────────────────────────────────────────────────────


class EntryKey(NamedTuple):
    """Where a booking goes: one row of table `entry`."""

    slot_s: int
    device: str
    payee: Payee
    quality: Quality
    price: Price


class Amounts(NamedTuple):
    """The quantities of an entry or a total, all exact integers."""

    energy_uj: int = 0
    co2e_ug: int = 0
    water_onsite_ul: int = 0
    water_grid_ul: int = 0

    def plus(self, other: Amounts) -> Amounts:
        """The sum, quantity by quantity."""
        return Amounts(
            self.energy_uj + other.energy_uj,
            self.co2e_ug + other.co2e_ug,
            self.water_onsite_ul + other.water_onsite_ul,
            self.water_grid_ul + other.water_grid_ul,
        )


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
    """

    energy_uj: Mapping[EntryKey, int]
    unobserved_ms: Mapping[str, int]
    resets: Mapping[str, int]
    devices: tuple[DeviceInfo, ...]
    checkpoints: Mapping[str, CounterReading | None]
    signals: tuple[GridSignal, ...]
    notes: Mapping[str, str]
    books_ns: int


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
    """

    epoch: str
    epoch_start_ns: int
    totals: Mapping[TotalKey, Total]
    devices: Mapping[str, DeviceRecord]
    signals: tuple[GridSignal, ...]
    notes: Mapping[str, str]
    books_ns: int
    commits: int


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
        group: the device, the kind, or the UTC hour or day in ISO form; `all` for the whole.
        amounts: exact.
        estimated_uj: of the energy, what no meter saw.
        bases: what its carbon intensities count; more than one: the CO2e adds up unlike things.
    """

    group: str
    amounts: Amounts
    estimated_uj: int
    bases: tuple[Basis, ...] = ()


# ── what others see ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The page's content: committed books and present health. Reading it changes nothing.

    Attributes:
        at_ns: wall clock when it was taken.
        books: the committed books.
        power_uw: device → mean power of the commit window; absent where unobserved.
        counter_power_ratio: device → cross-check of counter against power sensor.
        meters: health of each meter.
        grid: what energy is priced with now.
        sources: health of each grid source.
        site: PUE, WUE and EWIF in force.
        ledger: health of the ledger.
        released_until_ns: NVML is closed on request until then (wall clock); 0: it is not.
        version: of the program.
        started_ns: wall clock when the process became ready.
        simulated: the scenario's name when the GPUs are simulated, else empty.
    """

    at_ns: int
    books: Books
    power_uw: Mapping[str, int]
    counter_power_ratio: Mapping[str, float]
    meters: tuple[MeterStatus, ...]
    grid: GridChoice
    sources: tuple[SourceStatus, ...]
    site: SiteFactors
    ledger: LedgerStatus
    released_until_ns: int = 0
    version: str = ""
    started_ns: int = 0
    simulated: str = ""
