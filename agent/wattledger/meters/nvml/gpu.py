"""One GPU: its handle, the ladder of estimators that serves it, and how it is doing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.activity import Activity
from wattledger.meters.nvml.binding import CallFailed, NvmlDriver
from wattledger.meters.nvml.facts import GpuFacts, runtime_status_file
from wattledger.meters.nvml.ladder import Ladder
from wattledger.meters.nvml.lists import Lists
from wattledger.meters.nvml.mig import Partition, Tenants, read_partition
from wattledger.meters.nvml.multiprocessors import SmUse
from wattledger.meters.nvml.processes import Looked, ProcessList
from wattledger.meters.nvml.remedies import METER, Remedy, gpu_fault, remedy
from wattledger.meters.nvml.session import Session
from wattledger.model import DeviceInfo, Fault, Kind, Reading
from wattledger.model.measuring import GpuNames, Process
from wattledger.ports import Clock
from wattledger.units import NS_PER_S

LOST_AFTER = 2  # "lost" or "forbidden" twice in a row is believed
FIRST_RESOLVE_NS = NS_PER_S
LONGEST_RESOLVE_NS = 60 * NS_PER_S
PARTITION_INTERVAL_NS = 300 * NS_PER_S
OUTDATED_INTERVAL_NS = 60 * NS_PER_S


class Gpu:
    """A GPU by its UUID, through losses and returns.

    Attributes:
        facts: what is fixed about it.
        info: as the books know it; the same object until something changes.
        names: all that others call it, likewise.
        handle: the driver's; None while it is lost or NVML is closed.
        ladder: its estimators.
        trouble: the code of the last read if it failed; 0: it answered.
        failures: failed reads in a row.
        activity: whether it is used at all.
    """

    def __init__(
        self,
        driver: NvmlDriver,
        clock: Clock,
        facts: GpuFacts,
        *,
        sysfs: Path,
        procfs: Path | None,
        process_interval_ns: int,
    ) -> None:
        """A GPU that is known but not yet bound to a handle; see `meter.NvmlMeter`."""
        self._driver = driver
        self._clock = clock
        self._sysfs = sysfs
        lists = Lists(driver, procfs)
        self._processes = ProcessList(lists, SmUse(driver, clock), process_interval_ns)
        self._tenants = Tenants(lists, process_interval_ns)
        self._partition_ns = 0  # when it was last looked how the GPU is cut up
        self.activity = Activity(driver, clock.now().wall_ns)
        self._bare = False  # nobody was on it when it was last listed
        self.facts = facts
        self.info = _describe(facts, present=True)
        self.names = facts.names
        self.handle: Any = None
        self.ladder = Ladder(driver, clock, facts, "", "")
        self.trouble = nvml.SUCCESS
        self.failures = 0
        self._runtime_status: Path | None = None
        self._due_ns = 0
        self._resolve_due_ns = 0
        self._resolve_wait_ns = FIRST_RESOLVE_NS

    def bind(self, facts: GpuFacts, handle: Any, partition: Partition, session: Session) -> None:
        """Take a handle and what was found out with it; the ladder starts at its top.

        Raises:
            NVMLError: it fails at once.
            CallFailed: likewise.
        """
        ladder = Ladder(self._driver, self._clock, facts, session.version, session.driver_load)
        ladder.skip_frozen(handle, self.ladder.frozen_uj)
        self.facts = facts
        self.handle = handle
        self.ladder = ladder
        self._renew(partition)
        self._runtime_status = runtime_status_file(self._sysfs, facts.pci)
        self.trouble = nvml.SUCCESS
        self.failures = 0
        self._resolve_wait_ns = FIRST_RESOLVE_NS
        self._show(present=True)

    def _renew(self, partition: Partition) -> None:
        self._partition_ns = self._clock.now().monotonic_ns
        self._processes.renew()
        self._tenants.renew(partition)
        self.activity.renew()

    def rebind(self, index: int, handle: Any) -> None:
        """The same GPU with a fresh handle, perhaps under another number."""
        self.handle = handle
        self.facts = replace(self.facts, index=index)
        self._show(present=True)

    def leave(self) -> None:
        """It has gone from the machine, or does not answer any more: look for it later."""
        self.handle = None
        self._processes.forget()
        self._tenants.forget()
        self._show(present=False)
        self.look_later()

    def look_later(self) -> None:
        """Not found this time; the pauses grow up to a minute."""
        self._resolve_due_ns = self._clock.now().monotonic_ns + self._resolve_wait_ns
        self._resolve_wait_ns = min(2 * self._resolve_wait_ns, LONGEST_RESOLVE_NS)

    def _show(self, *, present: bool) -> None:
        info = _describe(self.facts, present=present)
        if info != self.info:
            self.info = info
        # Where it was others may be by now; only its own name is left to it.
        names = self.facts.names if present else GpuNames(self.facts.uuid, -1)
        if names != self.names:
            self.names = names

    def wants_resolving(self, now_ns: int) -> bool:
        """It is lost, and the time has come to look for it again."""
        return self.handle is None and now_ns >= self._resolve_due_ns

    def is_due(self, now_ns: int, meter_ns: int, turn_ns: int) -> bool:
        """Whether this turn is one of its own, where other GPUs need shorter turns.

        Args:
            now_ns: CLOCK_MONOTONIC.
            meter_ns: the configured interval.
            turn_ns: the present one.
        """
        interval_ns = self.ladder.interval_ns or meter_ns
        if turn_ns < interval_ns and now_ns + turn_ns // 2 < self._due_ns:
            return False
        self._due_ns = now_ns + interval_ns
        return True

    def is_suspended(self) -> bool:
        """The kernel has put it to sleep; a question would wake it."""
        if self._runtime_status is None:
            return False
        try:
            return self._runtime_status.read_text().startswith("suspended")
        except OSError:
            return False

    def look(self, now_ns: int, delay_ns: int) -> bool | None:
        """Ask who uses it or, in between, whether it is used at all, when it is time.

        Returns:
            Whether it did anything since this was last told; None: not asked, or it cannot be
            told, as with MIG.
        """
        if self.facts.mig:
            self._tenants.read(self.handle, now_ns, delay_ns)
            wait_ns = OUTDATED_INTERVAL_NS if self._tenants.outdated else PARTITION_INTERVAL_NS
            if now_ns - self._partition_ns >= wait_ns + delay_ns:
                self._look_for_instances()
            return None
        tells = self.activity.answers
        looked = self._processes.read(self.handle, now_ns, delay_ns, may_skip=tells)
        bare = looked is Looked.LISTED and self._processes.listed == ()
        # Somebody may have come and gone since the last list; an empty one costs so little that
        # there is room for both questions every second time.
        if looked is Looked.SKIPPED or (bare and tells and self._bare):
            self._bare = False
            return self.activity.read(self.handle, self._clock.now().wall_ns)
        if looked is not Looked.NOT_DUE:
            self._bare = bare
        return False if bare and not tells else None

    def hurry(self, now_ns: int) -> bool | None:
        """List its processes now: a command began a moment ago, or ends.

        Returns:
            As `look`: its receipt is to say how much of the time nothing was done.
        """
        if self.handle is None or self.facts.mig:
            return None
        self._processes.hurry(self.handle, now_ns)
        if not self.activity.answers:
            return None
        return self.activity.read(self.handle, self._clock.now().wall_ns)

    @property
    def listed(self) -> tuple[Process, ...] | None:
        """The processes on it, the same tuple until they were asked for again; None: not told."""
        return (self._tenants if self.facts.mig else self._processes).listed

    def look_for_mig(self) -> None:
        """Ask whether MIG has been switched on, on a board that knows it."""
        if self.handle is not None and self.facts.mig is False and not self.is_suspended():
            self._look_for_instances()

    def _look_for_instances(self) -> None:
        """How the GPU is cut up: while MIG is off one question, else several for each instance."""
        self._partition_ns = self._clock.now().monotonic_ns
        try:
            partition = read_partition(self._driver, self.handle, self.facts.instances)
        except self._driver.NVMLError:
            return  # it will be told when its energy is read
        facts = replace(
            self.facts,
            mig=partition.mig,
            slices=partition.slices,
            instances=partition.instances,
        )
        if facts == self.facts:
            self._tenants.refresh(partition)
            return
        self.facts = facts
        self._renew(partition)
        self._show(present=True)

    def read(self, faults: list[Fault]) -> list[Reading]:
        """Its energy or power since the last turn. A failure is added to faults and `trouble`."""
        try:
            readings = self.ladder.read(self.handle, faults)
        except (self._driver.NVMLError, CallFailed) as error:
            self.trouble = nvml.error_code(error)
            self.failures += 1
            faults.append(gpu_fault(self.facts.uuid, self.facts.label, self.trouble))
            gone = remedy(self.trouble) in (Remedy.LOST, Remedy.FORBIDDEN)
            if gone and self.failures >= LOST_AFTER:
                self.leave()
            return []
        self.trouble = nvml.SUCCESS
        self.failures = 0
        return readings


def _describe(facts: GpuFacts, *, present: bool) -> DeviceInfo:
    return DeviceInfo(
        facts.uuid, Kind.GPU, METER, str(facts.index), facts.model, facts.pci, present
    )
