"""MIG: what a GPU is cut into, and which processes are on which part of it.

The energy is the whole GPU's; nothing here measures. nvml.h, section "Multi Instance GPU": a MIG
device is a compute instance within a GPU instance, has a UUID and lists of processes of its own,
and tells no utilisation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import NvmlDriver
from wattledger.meters.nvml.lists import COMPUTE, Failure, Lists, Pids
from wattledger.meters.nvml.remedies import Remedy, optional, remedy
from wattledger.model.measuring import MigInstance, Process
from wattledger.units import NS_PER_S

WHOLE_SLICES = 7  # of the A100 and its successors, save for the A30's 4
NOT_TOLD_INTERVAL_NS = 60 * NS_PER_S


class Partition(NamedTuple):
    """How a GPU is cut up.

    Attributes:
        mig: whether MIG is on; None: the board does not know it.
        slices: compute slices of the whole GPU, as told while MIG is on.
        instances: its MIG instances; None: MIG is on, and they cannot be told.
        handles: the driver's for each of these.
    """

    mig: bool | None = None
    slices: int = WHOLE_SLICES
    instances: tuple[MigInstance, ...] | None = ()
    handles: tuple[Any, ...] = ()


def read_partition(
    driver: NvmlDriver, handle: Any, known: tuple[MigInstance, ...] | None = ()
) -> Partition:
    """How a GPU is cut up now; one driver call where MIG is off.

    Args:
        driver: the driver.
        handle: the GPU's.
        known: instances that need not be asked for more than their names.

    Raises:
        NVMLError: the GPU is lost or NVML is not initialised.
    """
    mode = optional(driver, driver.nvmlDeviceGetMigMode, handle)
    if mode is None or not mode[0]:
        return Partition(None if mode is None else False)
    by_uuid = {one.uuid: one for one in known or ()}
    found: list[tuple[MigInstance, Any]] = []
    try:
        # As many MIG devices can exist as the GPU has compute slices.
        most = driver.nvmlDeviceGetMaxMigDeviceCount(handle)
        for index in range(most):
            child = _child(driver, handle, index)
            if child is not None:
                uuid = driver.nvmlDeviceGetUUID(child)
                found.append((by_uuid.get(uuid) or _describe(driver, child, uuid), child))
    except driver.NVMLError as error:
        if remedy(nvml.error_code(error)) in (Remedy.LOST, Remedy.REOPEN):
            raise
        return Partition(True, instances=None)
    if not most:
        return Partition(True, instances=None)
    used = sum(one.slices for one, _ in found)
    return Partition(
        True, max(most, used), tuple(one for one, _ in found), tuple(child for _, child in found)
    )


def _child(driver: NvmlDriver, handle: Any, index: int) -> Any:
    """A MIG device's handle; None: there is none by this number, or it is another's."""
    try:
        return driver.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
    except driver.NVMLError as error:
        if remedy(nvml.error_code(error)) in (Remedy.EMPTY, Remedy.FORBIDDEN):
            return None
        raise


def _describe(driver: NvmlDriver, child: Any, uuid: str) -> MigInstance:
    slices = int(driver.nvmlDeviceGetAttributes(child).computeInstanceSliceCount)
    return MigInstance(uuid, int(driver.nvmlDeviceGetGpuInstanceId(child)), slices)


class Tenants:
    """The processes on a GPU's MIG instances, asked for every few seconds.

    The parent's list tells who came and who went, where it is told at all; on which instance a
    process is, only that instance's own list tells. So one question is asked at a time: the
    parent's list and one instance's take turns, and where the two differ, the instances concerned
    are asked at once.

    Attributes:
        listed: the processes, a new tuple each time; None: it cannot be told.
        outdated: the GPU seems to be cut up differently by now.
    """

    def __init__(self, lists: Lists, interval_ns: int) -> None:
        """Args: lists: the door to the driver's lists. interval_ns: between two questions."""
        self._lists = lists
        self._interval_ns = interval_ns
        self._due_ns = 0
        self.listed: tuple[Process, ...] | None = None
        self.renew(Partition())

    def renew(self, partition: Partition) -> None:
        """Another handle, or another partition: everything is asked anew."""
        self._partition = partition
        self._on: dict[str, frozenset[int]] = {}  # instance → the processes that it last listed
        self._nowhere: frozenset[int] = frozenset()  # listed by the parent, by no instance
        self._turn = -1
        self._parent_next = False
        self._parent_tells = True
        self._due_ns = 0
        self.outdated = False

    def refresh(self, partition: Partition) -> None:
        """New handles of the same instances."""
        self._partition = partition
        self.outdated = False

    def forget(self) -> None:
        """It cannot be told any more."""
        self.listed = None

    def read(self, handle: Any, now_ns: int, delay_ns: int) -> None:
        """Ask the next question if it is time; see `processes.ProcessList.read`."""
        if now_ns < self._due_ns:
            return
        first = not self._due_ns
        slack_ns = self._interval_ns // 20
        self._due_ns = now_ns + self._interval_ns - slack_ns + (delay_ns if first else 0)
        if self._partition.instances is None:
            self.listed = None
            self.outdated = True
            return
        if not self._on:
            self._ask(range(len(self._instances)))
            if not self._on and self._instances:
                self._due_ns = now_ns + NOT_TOLD_INTERVAL_NS
        elif self._parent_next and self._parent_tells:
            self._ask_parent(handle)
        else:
            self._turn = (self._turn + 1) % len(self._instances)
            self._ask([self._turn])
        self._parent_next = not self._parent_next
        self._tell()

    def _ask_parent(self, handle: Any) -> None:
        said = self._lists.ask(COMPUTE, handle)
        if isinstance(said, Failure):  # not told with MIG, or not to us: without it, then
            self._parent_tells = said is Failure.PASSING
            return
        known = frozenset[int]().union(*self._on.values())
        gone = known - said.keys()
        if gone:
            self._ask(place for place, one in enumerate(self._instances) if self._has(one, gone))
            known = frozenset[int]().union(*self._on.values())
            # An instance still lists it, so the parent does not tell of everybody.
            self._parent_tells = not (gone & known)
        new = said.keys() - known
        for place in self._likely_first(said, new - self._nowhere):
            if not new - known:
                break
            self._ask([place])
            known |= self._on.get(self._instances[place].uuid, frozenset())
        self.outdated = self.outdated or bool(new - known - self._nowhere)
        self._nowhere = frozenset(new - known)

    def _likely_first(self, said: Pids, new: Iterable[int]) -> list[int]:
        """All instances, in the order in which the new processes may be found on them."""
        hinted = {said[pid] for pid in new}
        places = range(len(self._instances)) if hinted else ()
        return sorted(places, key=lambda at: self._instances[at].gpu_instance not in hinted)

    def _ask(self, places: Iterable[int]) -> None:
        for place in places:
            uuid = self._instances[place].uuid
            said = self._lists.ask(COMPUTE, self._partition.handles[place])
            if not isinstance(said, Failure):
                self._on[uuid] = frozenset(said)
            else:
                self.outdated = True
                if said is Failure.LASTING:
                    self._on.pop(uuid, None)

    def _tell(self) -> None:
        if any(one.uuid not in self._on for one in self._instances):
            self.listed = None  # nobody says who is on that one
            return
        found = [
            process._replace(instance=uuid)
            for uuid, pids in self._on.items()
            for process in self._lists.living(pids)
        ]
        self.listed = tuple(sorted((*found, *self._lists.living(self._nowhere)), key=_by_pid))

    def _has(self, one: MigInstance, pids: frozenset[int]) -> bool:
        return bool(self._on.get(one.uuid, frozenset()) & pids)

    @property
    def _instances(self) -> tuple[MigInstance, ...]:
        return self._partition.instances or ()


def _by_pid(process: Process) -> tuple[int, str]:
    return process.pid, process.instance or ""
