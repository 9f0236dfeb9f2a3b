"""Which GPUs there are: found by index, known by UUID, found again when they come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wattledger.errors import MeterUnavailable
from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import CallFailed, NvmlDriver
from wattledger.meters.nvml.facts import read_facts
from wattledger.meters.nvml.gpu import Gpu
from wattledger.meters.nvml.mig import read_partition
from wattledger.meters.nvml.remedies import (
    Remedy,
    all_lost,
    gpu_fault,
    no_devices,
    no_permission,
    remedy,
)
from wattledger.meters.nvml.session import Session
from wattledger.model import Fault
from wattledger.ports import Clock
from wattledger.units import NS_PER_S

COUNT_INTERVAL_NS = 60 * NS_PER_S
IDENTITY_INTERVAL_NS = 300 * NS_PER_S


class Roster:
    """The GPUs of this machine by UUID, those that left included.

    How many there are is asked every minute, who they are every five and whenever their number
    changes: index and handle of a GPU are void once any has been removed or found anew.
    """

    def __init__(
        self,
        driver: NvmlDriver,
        clock: Clock,
        session: Session,
        *,
        sysfs: Path,
        procfs: Path | None,
        process_interval_ns: int,
    ) -> None:
        """An empty roster; see `meter.NvmlMeter` for the arguments."""
        self._driver = driver
        self._clock = clock
        self._session = session
        self._sysfs = sysfs
        self._procfs = procfs
        self._process_interval_ns = process_interval_ns
        self.gpus: dict[str, Gpu] = {}
        self._count = -1
        self._count_due_ns = self._identity_due_ns = 0

    def forget_handles(self) -> None:
        """NVML has been shut down: everything is asked anew at the next `refresh`."""
        for gpu in self.gpus.values():
            gpu.handle = None
        self._count = -1
        self._count_due_ns = 0

    def refresh(self, faults: list[Fault]) -> None:
        """Look for GPUs, if it is time.

        Raises:
            NVMLError: the driver as a whole does not answer.
            MeterUnavailable: there is no GPU that may be read, nor ever was one.
        """
        now_ns = self._clock.now().monotonic_ns
        if now_ns >= self._count_due_ns:
            self._count_due_ns = now_ns + COUNT_INTERVAL_NS
            count = self._driver.nvmlDeviceGetCount()
            if count != self._count or (now_ns >= self._identity_due_ns and self._all_awake()):
                self._identity_due_ns = now_ns + IDENTITY_INTERVAL_NS
                complete = self._enumerate(count, faults)
                self._count = count if complete else -1
            else:  # that was enough for one turn
                for gpu in self.gpus.values():
                    gpu.look_for_mig()
        for gpu in self.gpus.values():
            if gpu.wants_resolving(now_ns):
                self._resolve(gpu)

    def _all_awake(self) -> bool:
        return not any(gpu.is_suspended() for gpu in self.gpus.values())

    def _enumerate(self, count: int, faults: list[Fault]) -> bool:
        """Ask each index who it is. False: one did not answer, ask again in a minute."""
        seen: set[str] = set()
        codes: list[int] = []
        for index in range(count):
            try:
                seen.add(self._meet(index))
            except (self._driver.NVMLError, CallFailed) as error:
                code = nvml.error_code(error)
                if remedy(code) in (Remedy.REOPEN, Remedy.RESTART, Remedy.WAIT):
                    raise
                codes.append(code)
                faults.append(gpu_fault("", f"GPU {index}", code))
        passing = [code for code in codes if remedy(code) is Remedy.RETRY]
        if passing and not seen:
            raise CallFailed(passing[0])
        for uuid, gpu in self.gpus.items():
            if uuid not in seen and not passing:
                gpu.leave()
        if not self.gpus:
            raise _nobody(codes)
        return not passing

    def _meet(self, index: int) -> str:
        """One GPU, old or new, by its index; its UUID."""
        handle = self._driver.nvmlDeviceGetHandleByIndex(index)
        uuid = self._driver.nvmlDeviceGetUUID(handle)
        known = self.gpus.get(uuid)
        if known is not None and known.handle is not None and not known.ladder.incomplete:
            known.rebind(index, handle)
            return uuid
        self._bind(known, handle, index, uuid)
        return uuid

    def _bind(self, known: Gpu | None, handle: Any, index: int, uuid: str) -> None:
        """Find out about a GPU and take it up."""
        partition = read_partition(self._driver, handle)
        facts = read_facts(self._driver, handle, index, uuid, partition)
        gpu = known or Gpu(
            self._driver,
            self._clock,
            facts,
            sysfs=self._sysfs,
            procfs=self._procfs,
            process_interval_ns=self._process_interval_ns,
        )
        gpu.bind(facts, handle, partition, self._session)
        self.gpus[uuid] = gpu

    def _resolve(self, gpu: Gpu) -> None:
        """Look for a lost GPU by its UUID; it takes up its old name and place."""
        uuid = gpu.facts.uuid
        try:
            handle = self._driver.nvmlDeviceGetHandleByUUID(uuid)
            self._bind(gpu, handle, gpu.facts.index, uuid)
            self._count = -1  # who came back may have moved everybody's index
            self._count_due_ns = 0
        except (self._driver.NVMLError, CallFailed) as error:
            kind = remedy(nvml.error_code(error))
            if kind in (Remedy.REOPEN, Remedy.RESTART, Remedy.WAIT):
                raise
            if kind is Remedy.RETRY:
                gpu.look_later()
            else:
                gpu.leave()


def _nobody(codes: list[int]) -> MeterUnavailable:
    """Why not one GPU can be read."""
    if not codes:
        return no_devices()
    if any(remedy(code) is Remedy.LOST for code in codes):
        return all_lost()
    return no_permission()
