"""The meter of GPUs: one driver call per GPU and turn, and an answer to each of NVML's errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wattledger.errors import MeterUnavailable
from wattledger.meters.nvml import binding as nvml
from wattledger.meters.nvml.binding import CallFailed, NvmlDriver
from wattledger.meters.nvml.facts import GpuFacts
from wattledger.meters.nvml.ladder import PATIENCE
from wattledger.meters.nvml.remedies import METER, Remedy, all_lost, remedy
from wattledger.meters.nvml.roster import Roster
from wattledger.meters.nvml.session import Session
from wattledger.model import DeviceInfo, Fault, MeterReport, Reading
from wattledger.model.measuring import GpuNames, Process
from wattledger.ports import Clock
from wattledger.units import NS_PER_S

log = logging.getLogger(__name__)

# One GPU's trouble is worth a new initialisation of all of NVML only so often: it may reset the
# other GPUs' counters where persistence mode is off.
FIRST_RENEWAL_NS = 60 * NS_PER_S
LONGEST_RENEWAL_NS = 3600 * NS_PER_S


class NvmlMeter:
    """GPU energy through NVML; implements `ports.Meter`.

    MIG instances never become devices: the energy is the parent GPU's and appears once.
    """

    name = METER

    def __init__(
        self,
        driver: NvmlDriver,
        clock: Clock,
        *,
        sysfs: Path = Path("/sys"),
        procfs: Path | None = Path("/proc"),
        interval_ns: int = NS_PER_S,
        process_interval_ns: int = 5 * NS_PER_S,
        hurried: Callable[[], bool] = lambda: False,
    ) -> None:
        """A meter that has not touched the driver yet.

        Args:
            driver: `binding.real_driver()`, or a simulated one of the same surface.
            clock: time.
            sysfs: where sysfs is mounted.
            procfs: where process ids are looked up, to leave out dead ones; None where they are
                not of this machine, as with a simulated driver.
            interval_ns: between two turns; GPUs whose power has to be polled shorten it.
            process_interval_ns: between two process lists of a GPU.
            hurried: a command has just begun, or ends: at each turn list the processes and ask
                whether the GPU is used.
        """
        self._driver = driver
        self._clock = clock
        self._base_interval_ns = interval_ns
        self._interval_ns = interval_ns
        self._process_interval_ns = process_interval_ns
        self._hurried = hurried
        self._session = Session(driver, sysfs)
        self._roster = Roster(
            driver,
            clock,
            self._session,
            sysfs=sysfs,
            procfs=procfs,
            process_interval_ns=process_interval_ns,
        )
        self._devices: tuple[DeviceInfo, ...] = ()
        self._names: tuple[GpuNames, ...] = ()
        self._estimators: dict[str, str] = {}
        self._renewal_wait_ns = FIRST_RENEWAL_NS
        self._renewal_due_ns = 0
        self._rest_until_ns = 0

    # ── for doctor, banner and tests; callable from any thread ──────────────────────────────────

    @property
    def interval_ns(self) -> int:
        """How often it wants to be read."""
        return self._interval_ns

    def estimators(self) -> Mapping[str, str]:
        """GPU → the estimator that serves it; see `estimators`."""
        return self._estimators

    def facts(self) -> tuple[GpuFacts, ...]:
        """What is known of each GPU."""
        return tuple(gpu.facts for gpu in tuple(self._roster.gpus.values()))

    def gpu_names(self) -> tuple[GpuNames, ...]:
        """Each GPU by all its names; the same tuple while nothing changes."""
        return self._names

    def module_scope(self) -> bool:
        """A GPU's energy covers its whole superchip: the CPU's power is not to be added."""
        return any(facts.module for facts in self.facts())

    # ── the turn ────────────────────────────────────────────────────────────────────────────────

    def read(self) -> MeterReport:
        """One turn; see `ports.Meter`.

        Raises:
            MeterUnavailable: `no_library`, `no_driver`, `no_devices`, `no_permission`,
                `gpu_lost`, `driver_error`; `driver_mismatch` means that only a new process can
                read again, since the library cannot be unloaded.
        """
        now_ns = self._clock.now().monotonic_ns
        if now_ns < self._rest_until_ns:
            left_s = (self._rest_until_ns - now_ns) / NS_PER_S
            raise all_lost(left_s)
        if not self._session.is_open:
            self._session.open()
        faults: list[Fault] = []
        try:
            self._roster.refresh(faults)
        except (self._driver.NVMLError, CallFailed) as error:
            raise self._fail(nvml.error_code(error)) from None
        except MeterUnavailable:
            self.close()
            raise
        readings: list[Reading] = []
        processes: dict[str, int | None] = {}
        listed: dict[str, tuple[Process, ...]] = {}
        used: dict[str, bool] = {}
        ratios: dict[str, float] = {}
        gpus = self._roster.gpus
        hurried = self._hurried()
        for place, (uuid, gpu) in enumerate(gpus.items()):
            if gpu.handle is None:
                continue
            due = gpu.is_due(now_ns, self._base_interval_ns, self._interval_ns)
            if due and not gpu.is_suspended():
                readings += gpu.read(faults)
                if not gpu.trouble:
                    spread_ns = place * self._process_interval_ns // len(gpus)
                    did = gpu.look(now_ns, spread_ns)
                    at_once = gpu.hurry(now_ns) if hurried else None
                    if did is not None or at_once is not None:
                        used[uuid] = bool(did or at_once)
            if gpu.handle is not None:
                there = gpu.listed
                processes[uuid] = None if there is None else len(there)
                if there is not None:
                    listed[uuid] = there
                ratio = gpu.ladder.ratio
                if ratio is not None:
                    ratios[uuid] = ratio
        self._judge(faults)
        self._note_changes()
        return MeterReport(
            self._devices, tuple(readings), tuple(faults), processes, ratios, listed, used
        )

    def _judge(self, faults: list[Fault]) -> None:
        """What the failures of this turn mean for NVML as a whole.

        Raises:
            MeterUnavailable: nothing answers.
        """
        gpus = [gpu for gpu in self._roster.gpus.values() if gpu.handle is not None]
        troubled = [gpu for gpu in gpus if gpu.trouble]
        if not gpus:
            # Handles held on lost GPUs would only be in the way of their reset.
            self._shut()
            self._rest_until_ns = self._clock.now().monotonic_ns + 10 * NS_PER_S
            lost = all_lost()
            faults.append(Fault(METER, lost.reason, lost.message, lost.hint, permanent=True))
            return
        if not troubled:
            self._session.answers()
            self._renewal_wait_ns = FIRST_RENEWAL_NS
            return
        for gpu in troubled:
            if remedy(gpu.trouble) in (Remedy.REOPEN, Remedy.RESTART, Remedy.WAIT):
                raise self._fail(gpu.trouble)
        tired = [gpu for gpu in troubled if gpu.failures >= PATIENCE]
        if len(tired) == len(gpus):
            raise self._fail(tired[0].trouble)
        now_ns = self._clock.now().monotonic_ns
        if tired and now_ns >= self._renewal_due_ns:
            self._renewal_due_ns = now_ns + self._renewal_wait_ns
            self._renewal_wait_ns = min(2 * self._renewal_wait_ns, LONGEST_RENEWAL_NS)
            names = ", ".join(gpu.facts.label for gpu in tired)
            log.warning("NVML is initialised anew, since %s did not answer", names)
            self._shut()

    def _fail(self, code: int) -> MeterUnavailable:
        self._roster.forget_handles()
        return self._session.failed(code)

    def _note_changes(self) -> None:
        """Keep what others look at up to date, the same objects while nothing changes."""
        gpus = self._roster.gpus
        devices = tuple(gpu.info for gpu in gpus.values())
        if not _same(devices, self._devices):
            self._devices = devices
        names = tuple(gpu.names for gpu in gpus.values())
        if not _same(names, self._names):
            self._names = names
        estimators = {uuid: gpu.ladder.name for uuid, gpu in gpus.items()}
        if estimators != self._estimators:
            if not self._estimators:
                log.info("GPU energy by: %s", ", ".join(sorted(set(estimators.values()))))
            for uuid, name in estimators.items():
                if name == "counter" and self._estimators.get(uuid, name) != name:
                    log.info("%s: by its energy counter again", gpus[uuid].facts.label)
            self._estimators = estimators
        shortest_ns = min(
            (gpu.ladder.interval_ns or self._base_interval_ns for gpu in gpus.values()),
            default=self._base_interval_ns,
        )
        self._interval_ns = min(shortest_ns, self._base_interval_ns)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Shut NVML down and drop all handles; the next `read` takes it up again. Never raises."""
        self._shut()
        self._rest_until_ns = 0

    def _shut(self) -> None:
        self._roster.forget_handles()
        self._session.close()


def _same(new: Sequence[object], old: Sequence[object]) -> bool:
    """Both are of the very same objects."""
    return len(new) == len(old) and all(a is b for a, b in zip(new, old, strict=True))
