"""The heart: readings in, books out, one snapshot per commit attempt.

One thread owns everything here. It drains what the meter threads brought, turns it into
intervals, finds the payees, prices each slot, and every commit interval hands one batch to the
ledger. A commit that fails leaves the batch pending; the page then shows the last committed
counters with the present health.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from wattledger.core.baselines import ENDED_NOTE, Baselines
from wattledger.core.books import PendingBooks
from wattledger.core.floor import IdleFloors
from wattledger.core.footprint import price_of
from wattledger.core.intervals import Step, merged
from wattledger.core.summing import Summing
from wattledger.errors import CommitFailed
from wattledger.model import (
    IDLE,
    DeviceInfo,
    EnergyInterval,
    Instant,
    Kind,
    MeterReport,
    Payee,
    Price,
    Quality,
    Snapshot,
    Usage,
)
from wattledger.model.embodied import NO_EMBODIED, Embodied
from wattledger.model.measuring import Process
from wattledger.model.receipts import Receipt
from wattledger.payroll import Payroll
from wattledger.ports import Clock, Grid, Jobs, Ledger, MeterFeed, Site
from wattledger.release import RELEASE_NOTE, Released
from wattledger.units import NS_PER_MS, NS_PER_S, SLOT_NS, UJ_PER_J, format_duration

log = logging.getLogger(__name__)

FLOORS_NOTE = "idle_floors"
SITE_NOTE = "site_factors"
MAX_TURNS = 64  # that wait to be divided


class _Shared(NamedTuple):
    """An interval and who used its device; None: it follows the others of its turn."""

    interval: EnergyInterval
    kind: Kind
    usage: Usage | None


class _Turn(NamedTuple):
    """What a turn brought.

    Attributes:
        now_ns: wall clock.
        shared: the intervals.
        used: GPU → whether it did anything since this was last told.
    """

    now_ns: int
    shared: Sequence[_Shared]
    used: Mapping[str, bool]


class Sampler:
    """Keeps the books of one node. All methods are called from one thread."""

    def __init__(
        self,
        *,
        clock: Clock,
        feeds: Sequence[MeterFeed],
        grid: Grid,
        site: Site,
        ledger: Ledger,
        node_load: Callable[[], int | None],
        node_busy_ns: Callable[[], int | None] = lambda: None,
        jobs: Jobs | None = None,
        idle_policy: str = "allocated",
        cpu_idle_uw: int | None = None,
        embodied: Embodied = NO_EMBODIED,
        released: Callable[[], Released] = Released,
        version: str = "",
        simulated: str = "",
    ) -> None:
        """A sampler that goes on where the ledger's books end.

        Args:
            clock: time.
            feeds: the meters, each in its thread.
            grid: carbon intensity.
            site: PUE, WUE, EWIF.
            ledger: the books.
            node_load: how busy the CPUs were since the last call, in ppm; None: unknown.
            node_busy_ns: the CPU time that they were busy since boot, as of that call.
            jobs: who is on the node; None: nobody is looked for.
            idle_policy: who bears the CPUs' idle floor, one of `core.usage.POLICIES`.
            cpu_idle_uw: what a CPU package draws when idle; None: it is learnt.
            embodied: what making the hardware emitted.
            released: until when NVML is released on request.
            version: of the program, for `build_info`.
            simulated: the scenario's name, or empty.
        """
        self._clock = clock
        self._feeds = tuple(feeds)
        self._grid = grid
        self._site = site
        self._ledger = ledger
        self._node_load = node_load
        self._released = released
        self._version = version
        self._simulated = simulated
        self._started_ns = clock.now().wall_ns

        books = ledger.books
        self._devices: dict[str, DeviceInfo] = {}
        # Until a meter reports a device, it is as the ledger knew it, but not present.
        self._remembered = {name: record.info for name, record in books.devices.items()}
        self._baselines = Baselines(books, clock.now(), clock.boot_id)
        self._floors = IdleFloors(books.notes.get(FLOORS_NOTE, ""), cpu_idle_uw)
        self._pending = PendingBooks()
        self._summing = Summing(embodied, clock.now().boottime_ns)
        self._payroll = Payroll(jobs, idle_policy, books, clock.boot_id, self._summing)
        self._node_busy_ns = node_busy_ns
        self._processes: dict[str, int | None] = {}
        self._listed: dict[str, tuple[Process, ...]] = {}
        self._used: dict[str, bool] = {}
        self._turns: list[_Turn] = []
        self._undivided: list[EnergyInterval] = []
        self._waits = False
        self._ratios: dict[str, float] = {}
        self._window: dict[str, tuple[int, int]] = {}  # device → (µJ, ns) since the last commit
        self._trouble: dict[str, str] = {}  # device → what was last said of it
        self._commit_failing = False

    # ── settings that a reload changes ──────────────────────────────────────────────────────────

    def reconfigure(self, *, grid: Grid, site: Site, embodied: Embodied = NO_EMBODIED) -> None:
        """Price with another grid and other factors from now on; what is booked stays."""
        if self._undivided:
            self.tick()
        self._settle()
        self._grid = grid
        self._site = site
        self._summing.reconfigure(embodied, self._clock.now().boottime_ns)

    @property
    def devices_present(self) -> int:
        """How many devices are here."""
        return sum(info.present for info in self._devices.values())

    # ── one turn ────────────────────────────────────────────────────────────────────────────────

    def tick(self, *, may_wait: bool = False) -> None:
        """Take in everything the meters brought since the last turn.

        Args:
            may_wait: where many jobs run, who used it may be found out at the next turn.
        """
        for feed in self._feeds:
            for report in feed.drain():
                self._take(report, self._undivided)
        if may_wait and not self._waits and self._payroll.is_crowded:
            # Looking at all jobs is what costs most. Their beginnings and ends are known to the
            # moment all the same, and two seconds of a meter are divided as exactly as one.
            self._waits = True
            return
        self._waits = False
        intervals, self._undivided = self._undivided, []
        busy_ppm = self._node_load()
        now = self._clock.now()
        self._payroll.look(now, self._node_busy_ns(), self._listed, self._all_devices())
        shares = [self._shared(interval, busy_ppm) for interval in merged(intervals)]
        used, self._used = self._used, {}
        if shares or used:
            self._turns.append(_Turn(now.wall_ns, shares, used))
        # Who pays is known now; to divide the energy can wait for the commit, where five turns
        # one after the other cost little more than one. Only a command's receipt does not wait.
        if self._payroll.measures_commands or len(self._turns) >= MAX_TURNS:
            self._settle()

    def _take(self, report: MeterReport, intervals: list[EnergyInterval]) -> None:
        for info in report.devices:
            known = self._devices.get(info.name)
            if known is not info and known != info:
                self._devices[info.name] = info
                self._log_device(known, info)
        for info in report.devices:
            if info.kind is Kind.CPU and info.present:
                self._baselines.cpus_read_by(info.meter, self._devices.values())
        self._processes.update(report.processes)
        for device, used in report.used.items():  # there may be two since the last turn
            self._used[device] = used or self._used.get(device, False)
        for name in report.processes:
            if name in report.listed:
                self._listed[name] = report.listed[name]
            else:
                self._listed.pop(name, None)
        self._ratios.update(report.counter_power_ratio)
        for reading in report.readings:
            step = self._baselines.take(reading)
            if step is not None:
                if step.interval is not None and step.interval.energy_uj:
                    intervals.append(step.interval)
                self._note(reading.device, step)

    def _note(self, name: str, step: Step) -> None:
        """Book what a step says besides energy, and count its time for the mean power."""
        if step.interval is not None and step.interval.quality is not Quality.RECOVERED:
            interval = step.interval
            energy_uj, spent_ns = self._window.get(name, (0, 0))
            self._window[name] = (
                energy_uj + interval.energy_uj,
                spent_ns + interval.end_ns - interval.start_ns,
            )
        if step.reset:
            self._pending.reset(name)
        if step.unobserved_ns:
            self._pending.unobserved(name, step.unobserved_ns)
        if step.reason != self._trouble.get(name, ""):
            self._trouble[name] = step.reason
            self._log_trouble(name, step)

    def _log_trouble(self, name: str, step: Step) -> None:
        """Said once when it begins and once when it ends, not at each turn in between."""
        if not step.reason:
            log.info("%s is metered without trouble again", name)
            return
        log.warning(
            "%s: %s; %s unobserved, %d J booked (meter %s)",
            name,
            step.reason.replace("_", " "),
            format_duration(step.unobserved_ns // NS_PER_MS * NS_PER_MS),
            (step.interval.energy_uj if step.interval is not None else 0) // UJ_PER_J,
            self._devices[name].meter if name in self._devices else "unknown",
        )

    def _log_device(self, known: DeviceInfo | None, info: DeviceInfo) -> None:
        if known is None:
            log.info("metering %s (%s) with %s", info.name, info.model or info.kind, info.meter)
        elif known.present and not info.present:
            log.warning("%s has left; its totals stay", info.name)
            self._ratios.pop(info.name, None)
            self._processes.pop(info.name, None)
            self._listed.pop(info.name, None)
        elif info.present and not known.present:
            log.info("%s is back", info.name)
        elif known.meter != info.meter:
            log.info("%s is now metered with %s", info.name, info.meter)

    # ── for whom, and at what price ─────────────────────────────────────────────────────────────

    def _shared(self, interval: EnergyInterval, busy_ppm: int | None) -> _Shared:
        kind = self._kind(interval.device)
        usage = None if kind is Kind.OTHER else self._usage(interval, kind, busy_ppm)
        return _Shared(interval, kind, usage)

    def _settle(self) -> None:
        """Divide what the turns brought since this was last done, turn by turn."""
        turns, self._turns = self._turns, []
        for turn in turns:
            self._book(turn.shared, turn.now_ns)
            for device, used in turn.used.items():
                self._pending.decide(device, used=used)
                self._payroll.decide(device, used=used)

    def _book(self, shared: Sequence[_Shared], now_ns: int) -> None:
        prices: dict[int, Price] = {}

        def price_at(slot_s: int) -> Price:
            price = prices.get(slot_s)
            if price is None:
                # The latest instant of the slot that is not in the future: the present slot is
                # priced with what is known now, a past one with what was valid in it.
                at_ns = min(now_ns, slot_s * NS_PER_S + SLOT_NS - 1)
                price = prices[slot_s] = price_of(self._grid.at(at_ns), self._site.at(at_ns))
            return price

        split: dict[Payee, int] = {}
        for interval, kind, usage in shared:
            if usage is None:
                continue
            settled = self._payroll.settle(interval, usage, kind, price_at)
            self._pending.book(settled.attributed, price_at, settled.usage)
            for payee, share_uj in settled.members:
                split[payee] = split.get(payee, 0) + share_uj
        for interval, kind, usage in shared:
            if usage is not None:
                continue
            whole = sum(split.values())  # the rest of the node follows the metered parts
            usage = (
                Usage(interval.device, tuple(split.items()), whole)
                if whole
                else Usage(interval.device, rest=IDLE)
            )
            settled = self._payroll.settle(interval, usage, kind, price_at)
            self._pending.book(settled.attributed, price_at)

    def _usage(self, interval: EnergyInterval, kind: Kind, busy_ppm: int | None) -> Usage:
        """Who pays for a device."""
        device, floor_uw = interval.device, 0
        if kind is Kind.CPU:
            if interval.quality is not Quality.RECOVERED:
                duration_ns = interval.end_ns - interval.start_ns
                self._floors.observe(device, interval.energy_uj, duration_ns, busy_ppm)
            floor_uw = self._floors.floor_uw(device)
        return self._payroll.usage(
            interval, kind, processes=self._processes.get(device), floor_uw=floor_uw
        )

    def _kind(self, device: str) -> Kind:
        info = self._devices.get(device) or self._remembered.get(device)
        return info.kind if info is not None else Kind.OTHER

    def receipt(self, run_id: str) -> Receipt | None:
        """What a command has cost so far, for any thread; None: it is not known."""
        return self._payroll.receipt(run_id)

    def read_at_ns(self, device: str) -> int | None:
        """See `Baselines.read_at_ns`; for any thread."""
        return self._baselines.read_at_ns(device)

    # ── commit ──────────────────────────────────────────────────────────────────────────────────

    def commit(self) -> Snapshot:
        """One commit attempt; the snapshot shows what is committed, and how things stand."""
        self._settle()
        now = self._clock.now()
        books_ns = self._baselines.complete_up_to_ns(self._devices.values(), now)
        batch = self._pending.batch(
            devices=self._all_devices(),
            checkpoints=self._baselines.checkpoints(),
            signals=self._grid.signals(),
            notes={
                FLOORS_NOTE: self._floors.note(),
                SITE_NOTE: self._site.note(),
                RELEASE_NOTE: self._released().note(self._clock.boot_id),
                **self._payroll.notes(),
                ENDED_NOTE: self._baselines.ended_note(books_ns, now, self._clock.boot_id),
            },
            books_ns=books_ns,
            runs=self._payroll.runs(),
        )
        try:
            self._ledger.commit(self._payroll.complete(batch, self._ledger.books, now), now)
        except CommitFailed as error:
            if not self._commit_failing:
                log.error("the books could not be written, counting on in memory: %s", error)
            self._commit_failing = True
        else:
            self._pending.committed()
            self._payroll.committed()
            if self._commit_failing:
                log.warning("the books are written again; nothing was lost")
            self._commit_failing = False
        return self._snapshot(now)

    def _all_devices(self) -> tuple[DeviceInfo, ...]:
        gone = (
            replace(info, present=False)
            for name, info in self._remembered.items()
            if name not in self._devices
        )
        return (*self._devices.values(), *gone)

    def _snapshot(self, now: Instant) -> Snapshot:
        window, self._window = self._window, {}
        grid, site = self._grid.at(now.wall_ns), self._site.at(now.wall_ns)
        ewif_ul_per_kwh, ewif_source = site.ewif_beside(grid.signal)
        return Snapshot(
            at_ns=now.wall_ns,
            books=self._ledger.books,
            power_uw={
                name: energy_uj * NS_PER_S // spent_ns
                for name, (energy_uj, spent_ns) in window.items()
                if spent_ns
            },
            counter_power_ratio=dict(self._ratios),
            meters=tuple(status for feed in self._feeds for status in feed.statuses()),
            grid=grid,
            sources=self._grid.statuses(),
            site=replace(site, ewif_ul_per_kwh=ewif_ul_per_kwh, ewif_source=ewif_source),
            site_sources=self._site.statuses(),
            ledger=replace(self._ledger.status, pending_entries=len(self._pending)),
            released_until_ns=self._released().wall_ns,
            version=self._version,
            started_ns=self._started_ns,
            simulated=self._simulated,
            quality=self._baselines.qualities(),
            job_power_uw=self._payroll.power_uw(now),
            embodied=self._summing.rates,
        )
