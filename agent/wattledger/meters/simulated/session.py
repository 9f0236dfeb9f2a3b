"""The driver's lifetime: initialisation, handles, and the faults every call may meet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from wattledger.meters.nvml.binding import real_driver
from wattledger.meters.simulated.card import Card
from wattledger.meters.simulated.faults import FaultPlan
from wattledger.meters.simulated.scenario import MigInstance, Scenario
from wattledger.meters.simulated.wall import WallMap
from wattledger.ports import Clock
from wattledger.units import NS_PER_S


class Handle:
    """What the driver gives for a card or for one of its MIG instances; opaque to callers.

    It stands for the physical card, whatever its index becomes, until the initialisation it came
    from ends or the card leaves the bus.
    """

    __slots__ = ("born_ns", "card", "epoch", "instance", "number")

    def __init__(self, card: Card, epoch: int, born_ns: int, instance: int | None = None) -> None:
        self.card = card
        self.number = card.gpu.number
        self.epoch = epoch
        self.born_ns = born_ns
        self.instance = instance


class Session:
    """Everything of the simulated driver that is not a question about one device.

    Constants and error classes are pynvml's own; nothing else of pynvml shows through.
    """

    def __init__(
        self, scenario: Scenario, clock: Clock, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.scenario = scenario
        self._clock = clock
        self._sleep = sleep
        self._nvml = real_driver()
        self._cards = tuple(Card(gpu, scenario.seed) for gpu in scenario.gpus)
        started = clock.now()
        self._started_ns = started.boottime_ns
        self._wall = WallMap(started)
        self._plan = FaultPlan(scenario.faults, len(self._cards), started.boottime_ns)
        self._lock = threading.Lock()
        self._refcount = 0
        self._epoch = 0
        self._init_ns = 0
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        """Pynvml's constants and error classes, never its functions."""
        if not name.startswith("NVML"):
            raise AttributeError(f"the simulated NVML has no {name}")
        value = getattr(self._nvml, name)
        setattr(self, name, value)  # found at once next time
        return value

    @property
    def NVMLError(self) -> type[Exception]:  # noqa: N802 - pynvml's name
        """The base of pynvml's error classes; `value` is the code."""
        error: type[Exception] = self._nvml.NVMLError
        return error

    # ── for tests and benchmarks: what no real driver tells ─────────────────────────────────────

    @property
    def initialisations(self) -> int:
        """How often it is initialised and not yet shut down."""
        return self._refcount

    @property
    def calls(self) -> int:
        """Driver calls so far."""
        return self._calls

    def true_energy_uj(
        self, gpu: int | str, *, boottime_ns: int | None = None, wall_ns: int | None = None
    ) -> int:
        """What the card has really used since boot, whatever its driver says.

        Args:
            gpu: the card's number in the scenario, or its UUID.
            boottime_ns: until then; neither this nor `wall_ns`: until now.
            wall_ns: the same by the wall clock as it goes now.

        Raises:
            KeyError: no such card.
        """
        return self._card(gpu).true_energy_uj(self._instant(boottime_ns, wall_ns))

    def true_power_uw(
        self, gpu: int | str, *, boottime_ns: int | None = None, wall_ns: int | None = None
    ) -> int:
        """What the card really draws; arguments as for `true_energy_uj`."""
        return self._card(gpu).true_power_uw(self._instant(boottime_ns, wall_ns))

    def _instant(self, boottime_ns: int | None, wall_ns: int | None) -> int:
        now_ns = self._now()
        if boottime_ns is not None:
            return boottime_ns
        return now_ns if wall_ns is None else self._wall.boottime_ns(wall_ns)

    def _card(self, gpu: int | str) -> Card:
        for card in self._cards:
            if gpu in (card.gpu.number, card.gpu.uuid):
                return card
        raise KeyError(f"the scenario has no GPU {gpu!r}")

    # ── lifetime ────────────────────────────────────────────────────────────────────────────────

    def nvmlInit(self) -> None:  # noqa: N802 - pynvml's name
        """Initialise; counted, as NVML does."""
        self.nvmlInitWithFlags(0)

    def nvmlInitWithFlags(self, flags: int) -> None:  # noqa: N802, ARG002 - pynvml's signature
        """Initialise; the flags change nothing here, since no simulation needs attaching."""
        self._calls += 1
        now_ns = self._obstructed(None, self._now())
        holds = self._plan.of_driver
        if holds("library_missing", now_ns):
            raise self._error(self._nvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        if holds("driver_reload", now_ns):
            raise self._error(self._nvml.NVML_ERROR_DRIVER_NOT_LOADED)
        if holds("driver_mismatch", now_ns):
            raise self._error(self._nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
        with self._lock:
            if self._refcount == 0:
                self._epoch += 1
                self._init_ns = now_ns
            self._refcount += 1

    def nvmlShutdown(self) -> None:  # noqa: N802 - pynvml's name
        """Undo one initialisation; after the last, handles are invalid."""
        self._calls += 1
        with self._lock:
            if self._refcount == 0:
                raise self._error(self._nvml.NVML_ERROR_UNINITIALIZED)
            self._refcount -= 1

    def nvmlErrorString(self, result: int) -> str:  # noqa: N802 - pynvml's name
        """The driver's words for an error code."""
        return "Success" if result == 0 else str(self._nvml.NVMLError(result))

    # ── the gates every call passes ─────────────────────────────────────────────────────────────

    def _now(self) -> int:
        """Boot time, with a look at whether the wall clock was stepped."""
        now = self._clock.now()
        self._wall.observe(now)
        return now.boottime_ns

    def _error(self, code: int) -> Exception:
        error: Exception = self._nvml.NVMLError(code)
        return error

    def _enter(self) -> int:
        """A call to the driver as a whole; returns the boot time."""
        return self._obstructed(None, self._alive())

    def _enter_device(self, handle: Handle) -> tuple[Card, int]:
        """A call about one device; returns its card and the boot time."""
        now_ns = self._alive()
        if type(handle) is not Handle or handle.epoch != self._epoch:
            raise self._error(self._nvml.NVML_ERROR_INVALID_ARGUMENT)
        number = handle.number
        if self._plan.any_of_gpu[number]:
            now_ns = self._obstructed(number, now_ns)
            if self._plan.rediscovered(number, handle.born_ns, now_ns):
                raise self._error(self._nvml.NVML_ERROR_GPU_IS_LOST)
            if handle.instance is not None and not self._mig_on(handle.card, now_ns):
                raise self._error(self._nvml.NVML_ERROR_INVALID_ARGUMENT)
        return handle.card, now_ns

    def _enter_card(self, handle: Handle) -> tuple[Card, int]:
        """As `_enter_device`, for questions no MIG instance answers."""
        entered = self._enter_device(handle)
        if handle.instance is not None:
            raise self._error(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        return entered

    def _alive(self) -> int:
        self._calls += 1
        if self._refcount == 0:
            raise self._error(self._nvml.NVML_ERROR_UNINITIALIZED)
        now_ns = self._now()
        if self._plan.reloaded(self._init_ns, now_ns):
            raise self._error(self._nvml.NVML_ERROR_UNKNOWN)  # until it is initialised anew
        return now_ns

    def _obstructed(self, number: int | None, now_ns: int) -> int:
        """Meet the faults of the driver, or of one card; returns the boot time, later if hung."""

        def holds(kind: str) -> bool:
            if number is None:
                return self._plan.of_driver(kind, now_ns) is not None
            return self._plan.of_gpu(number, kind, now_ns) is not None

        plan = self._plan
        hang = (
            plan.of_driver("hang", now_ns)
            if number is None
            else (plan.of_gpu(number, "hang", now_ns))
        )
        if hang is not None:
            self._sleep((hang.end_ns - now_ns) / NS_PER_S)
            now_ns = self._now()
        if holds("unknown_error"):
            raise self._error(self._nvml.NVML_ERROR_UNKNOWN)
        if number is not None:
            if holds("lost") or holds("removed"):
                raise self._error(self._nvml.NVML_ERROR_GPU_IS_LOST)
            if holds("reset_required"):
                raise self._error(self._nvml.NVML_ERROR_RESET_REQUIRED)
            if holds("no_permission"):
                raise self._error(self._nvml.NVML_ERROR_NO_PERMISSION)
        return now_ns

    # ── handles ─────────────────────────────────────────────────────────────────────────────────

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - pynvml's name
        """Cards the driver lists, inaccessible ones among them."""
        return len(self._plan.order(self._enter()))

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle:  # noqa: N802 - pynvml's name
        """The card that has this index now."""
        now_ns = self._enter()
        order = self._plan.order(now_ns)
        if not 0 <= index < len(order):
            raise self._error(self._nvml.NVML_ERROR_INVALID_ARGUMENT)
        return self._handle(order[index], now_ns)

    def nvmlDeviceGetHandleByUUID(self, uuid: str | bytes) -> Handle:  # noqa: N802 - pynvml's
        """The card, or the MIG instance, of this UUID."""
        now_ns = self._enter()
        wanted = uuid.decode() if isinstance(uuid, bytes) else uuid
        for number in self._plan.order(now_ns):
            card = self._cards[number]
            if card.gpu.uuid == wanted:
                return self._handle(number, now_ns)
            for instance in range(len(self._instances(card, now_ns))):
                if mig_uuid(card, instance) == wanted:
                    return self._handle(number, now_ns, instance)
        raise self._error(self._nvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str | bytes) -> Handle:  # noqa: N802
        """The card at this PCI address, the domain with four digits or with eight."""
        now_ns = self._enter()
        text = bus_id.decode() if isinstance(bus_id, bytes) else bus_id
        wanted = f"{text.lower():0>16}"
        for number in self._plan.order(now_ns):
            if pci_address(number) == wanted:
                return self._handle(number, now_ns)
        raise self._error(self._nvml.NVML_ERROR_NOT_FOUND)

    def _handle(self, number: int, now_ns: int, instance: int | None = None) -> Handle:
        later_ns = self._obstructed(number, now_ns)
        return Handle(self._cards[number], self._epoch, later_ns, instance)

    # ── MIG ─────────────────────────────────────────────────────────────────────────────────────

    def _mig_on(self, card: Card, now_ns: int) -> bool:
        gpu = card.gpu
        return gpu.mig_on or self._plan.of_gpu(gpu.number, "mig_on", now_ns) is not None

    def _instances(self, card: Card, now_ns: int) -> tuple[MigInstance, ...]:
        return card.gpu.mig if self._mig_on(card, now_ns) else ()


def pci_address(number: int) -> str:
    """Where the scenario's nth card sits: domain, bus, device, function."""
    return f"00000000:{1 + 3 * number:02x}:00.0"


def mig_uuid(card: Card, instance: int) -> str:
    """A MIG instance's UUID, from its card's."""
    return f"MIG-{card.gpu.uuid[4:-2]}{instance:02x}"
