"""Threads and their lives: a meter in each, and a watchdog over them.

Nearly everything the daemon waits for blocks (drivers, files, sockets), and a driver call that
hangs for minutes can be neither cancelled nor joined. So each meter has a daemon thread of its
own: nobody waits for it, its health says that it hangs, and the process can exit all the same.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from wattledger.clock import TickGrid
from wattledger.errors import MeterUnavailable
from wattledger.model import Fault, MeterReport, MeterStatus
from wattledger.ports import Clock, Meter
from wattledger.release import NOT_RELEASED, Released, recalled, released_for
from wattledger.units import NS_PER_S, format_duration, seconds

log = logging.getLogger(__name__)

FOREVER_NS = 2**62
HANG_NS = 5 * NS_PER_S  # a turn that takes longer than this hangs: real ones take milliseconds
RETRY_AFTER_BUG_S = 30.0
# Reasons that only a new process can mend: a loaded driver library cannot be exchanged.
NEEDS_RESTART = frozenset({"driver_mismatch"})
RESTART_PATIENCE_NS = 600 * NS_PER_S
# Reasons for which a meter is simply not part of this machine.
ABSENT = frozenset({"absent", "no_library", "no_driver", "covered_by_gpu_module"})


@dataclass
class _Health:
    """What is known of one meter; a `MeterStatus` in the making."""

    up: bool = False
    last_success_ns: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    message: str = ""
    hint: str = ""

    def never_there(self) -> bool:
        """Nothing but its absence is known."""
        return not self.last_success_ns and bool(self.errors) and ABSENT.issuperset(self.errors)


class MeterThread:
    """Runs one meter; implements `ports.MeterFeed`.

    The meter's turns fall on the tick grid that all meters share. A turn that hangs makes the
    meter's status fall, a turn that comes late is counted as missed.
    """

    def __init__(
        self, meter: Meter, clock: Clock, *, required: frozenset[str] | set[str] = frozenset()
    ) -> None:
        """A thread that has not started.

        Args:
            meter: what to read.
            clock: time.
            required: names of meters whose absence is reported; others that were never there
                (no GPU, a virtual machine without RAPL) are facts and no faults.
        """
        self._meter = meter
        self._required = required
        self._clock = clock
        self._reports: deque[MeterReport] = deque(maxlen=10_000)
        self._lock = threading.Lock()
        self._health: dict[str, _Health] = {meter.name: _Health()}
        self._busy_since_ns = 0
        self._hanging = False
        self._missed = 0
        self._restart_since_ns = 0
        self._wake = threading.Event()
        self._read_asked = False
        self._turn_ns = 0  # when the last turn that brought a report began
        self._resting = False  # none of its turns brings anything for a while
        self._stopping = False
        self._released = NOT_RELEASED
        self.first_turn = threading.Event()
        self.done = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"meter-{meter.name}", daemon=True)

    @property
    def name(self) -> str:
        """The meter's name."""
        return self._meter.name

    # ── from other threads ──────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin; the first turn is taken at once."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for a last turn and the end; `done` is set when all handles are closed."""
        self._stopping = True
        self._wake.set()

    def release(self, duration_ns: int, wait_s: float) -> bool:
        """Close the meter for a while, or (0) take it up again.

        Returns:
            Whether every handle was closed within `wait_s`; False while a driver call hangs.
        """
        asked = released_for(duration_ns, self._clock.now())
        with self._lock:
            if not (duration_ns and self._released.monotonic_ns):
                self._closed.clear()  # else it is closed already, and only its end is moved
            self._released = asked
        self._wake.set()
        if not duration_ns or self._closed.wait(wait_s):
            return True
        with self._lock:  # it did not come about, so it is not in force either
            self._released = NOT_RELEASED
        return False

    def stay_released(self, note: str) -> None:
        """Before `start`: go on with the release that an earlier process noted, if it is not over.

        Args:
            note: as `Released.note` made it; empty: there is none.
        """
        now = self._clock.now()
        self._released = recalled(note, now, self._clock.boot_id)
        if self._released.monotonic_ns:
            self._closed.set()
            left_ns = self._released.monotonic_ns - now.monotonic_ns
            left = format_duration(left_ns // NS_PER_S * NS_PER_S or NS_PER_S)
            log.info("meter %s: stays released for %s, as was asked before", self.name, left)

    def read_now(self) -> None:
        """Take a turn at once; a meter that does not answer is left alone."""
        if self._is_expected():
            self._read_asked = True
            self._wake.set()

    def read_up_to_ns(self) -> int:
        """When the last turn began whose report can be drained, on CLOCK_MONOTONIC.

        A meter from which nothing is to be expected now (absent, failing, released) has no part
        in what others wait for: its answer lies far in the future.
        """
        return self._turn_ns if self._is_expected() else FOREVER_NS

    def _is_expected(self) -> bool:
        return not (self._resting or self._released.monotonic_ns or self._stopping)

    def released(self) -> Released:
        """Until when the meter is closed on request."""
        return self._released

    def wants_restart(self) -> bool:
        """The meter can only be mended by a new process.

        At once where it worked before (the driver was upgraded under us), else after ten
        minutes: half an installed driver is no reason to restart again and again.
        """
        since_ns = self._restart_since_ns
        if not since_ns:
            return False
        worked = any(health.last_success_ns for health in tuple(self._health.values()))
        return worked or self._clock.now().monotonic_ns - since_ns >= RESTART_PATIENCE_NS

    def drain(self) -> list[MeterReport]:
        """The reports since the last call, oldest first."""
        reports = []
        while self._reports:
            reports.append(self._reports.popleft())
        return reports

    def statuses(self) -> tuple[MeterStatus, ...]:
        """The health of the meter, or of each that stands behind it."""
        now = self._clock.now()
        with self._lock:
            busy_ns = now.monotonic_ns - self._busy_since_ns if self._busy_since_ns else 0
            hanging = busy_ns > max(HANG_NS, 3 * self._meter.interval_ns)
            if hanging and not self._hanging:
                log.error("meter %s: a driver call does not return; the others go on", self.name)
            elif self._hanging and not hanging:
                log.warning("meter %s: the driver call has returned", self.name)
            self._hanging = hanging
            return tuple(
                self._status(name, health, busy_ns)
                for name, health in self._health.items()
                if name in self._required or not health.never_there()
            )

    def _status(self, name: str, health: _Health, busy_ns: int) -> MeterStatus:
        message, hint = health.message, health.hint
        if self._hanging:
            message = f"a driver call has not returned for {seconds(busy_ns):.0f} s"
            hint = "see dmesg for Xid or RAPL errors; energy is booked when it answers again"
        elif self._released.monotonic_ns:
            message = "closed on request"
            hint = "`wattledger release --end` takes it up again at once"
        up = health.up and not self._hanging and not self._released.monotonic_ns
        return MeterStatus(
            meter=name,
            up=up,
            last_success_ns=health.last_success_ns,
            errors=dict(health.errors),
            message="" if up else message or "not read yet",
            hint="" if up else hint,
            missed_ticks=self._missed,
        )

    # ── the thread ──────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        retry_ns = 0 if self._released.monotonic_ns else self._turn()
        self.first_turn.set()
        grid = TickGrid(self._meter.interval_ns)
        turn_ns = 0
        while not self._stopping:
            now_ns = self._clock.now().monotonic_ns
            if self._released.monotonic_ns:
                self._stay_closed(now_ns)
                retry_ns = 0
                continue
            if grid.interval_ns != self._meter.interval_ns:
                grid = TickGrid(self._meter.interval_ns)
            turn_ns = grid.next_after(max(turn_ns, now_ns, now_ns + retry_ns - grid.interval_ns))
            if self._wake.wait(seconds(turn_ns - now_ns)):
                self._wake.clear()
                turn_ns = 0
                if self._read_asked:
                    self._read_asked = False
                    if self._is_expected():
                        retry_ns = self._turn()
                        # Not once more in the same moment.
                        turn_ns = self._clock.now().monotonic_ns + grid.interval_ns // 4
                elif not self._stopping:  # `release` was asked for, or its end: at once
                    retry_ns = 0
                continue
            retry_ns = self._turn()
            late_ns = self._clock.now().monotonic_ns - turn_ns
            if late_ns >= grid.interval_ns and not retry_ns:
                self._missed += late_ns // grid.interval_ns
        if not self._released.monotonic_ns and not retry_ns:
            self._turn()  # the last second before the end
        self._meter.close()
        self.done.set()

    def _stay_closed(self, now_ns: int) -> None:
        if not self._closed.is_set():
            self._turn()  # the last second before it is closed
            self._meter.close()
            self._closed.set()
        left_ns = self._released.monotonic_ns - now_ns
        if left_ns > 0:
            if self._wake.wait(seconds(left_ns)):
                self._wake.clear()
            return
        with self._lock:
            if self._released.monotonic_ns > now_ns:
                return  # asked for anew in this very moment
            self._released = NOT_RELEASED
        log.info("meter %s: taken up again after its release", self.name)

    def _turn(self) -> int:
        """One read. Returns after how many ns to come back; 0: at the next turn of the grid."""
        begun_ns = self._busy_since_ns = self._clock.now().monotonic_ns
        try:
            report = self._meter.read()
        except MeterUnavailable as error:
            self._resting = True
            if error.reason not in NEEDS_RESTART:
                self._restart_since_ns = 0
            elif not self._restart_since_ns:
                self._restart_since_ns = self._clock.now().monotonic_ns
            self._failed(Fault(self.name, error.reason, error.message, error.hint, permanent=True))
            return round(error.retry_after_s * NS_PER_S)
        except Exception as error:
            # A meter must not take the others down with it, whatever a driver or a file held.
            self._resting = True
            log.exception("meter %s: unexpected error, tried again in 30 s", self.name)
            self._failed(Fault(self.name, "unexpected", repr(error), permanent=True))
            self._meter.close()
            return round(RETRY_AFTER_BUG_S * NS_PER_S)
        finally:
            self._busy_since_ns = 0
        self._succeeded(report)
        self._turn_ns, self._resting = begun_ns, False
        return 0

    def _succeeded(self, report: MeterReport) -> None:
        down = {fault.meter for fault in report.faults if fault.permanent}
        meter_of = {info.name: info.meter for info in report.devices if info.present}
        answering = set(meter_of.values()) - down
        reading = {meter_of.get(reading.device) for reading in report.readings}
        wall_ns = self._clock.now().wall_ns
        self._restart_since_ns = 0
        with self._lock:
            for name in answering:
                health = self._health.setdefault(name, _Health())
                if not health.up and health.errors:
                    log.info("meter %s answers", name)
                health.up, health.message, health.hint = True, "", ""
                if name in reading:
                    health.last_success_ns = wall_ns
            if answering:
                # This thread's meter may stand for others, which are named; and one that was
                # left for a better one is neither up nor down any more.
                left = [n for n, h in self._health.items() if n not in answering | down and h.up]
                for name in {self.name, *left} - answering - down:
                    self._health.pop(name, None)
        for fault in report.faults:
            self._failed(fault)
        self._reports.append(report)

    def _failed(self, fault: Fault) -> None:
        with self._lock:
            health = self._health.setdefault(fault.meter, _Health())
            first = fault.reason not in health.errors
            health.errors[fault.reason] = health.errors.get(fault.reason, 0) + 1
            if fault.permanent:
                first = first or health.up
                health.up, health.message, health.hint = False, fault.message, fault.hint
        # What is simply not part of this machine is said once, by the meter as a whole.
        quiet = fault.reason in ABSENT and fault.meter != self.name and not health.last_success_ns
        if first and (not quiet or fault.meter in self._required):
            level = logging.WARNING if health.last_success_ns else logging.INFO
            where = f"{fault.meter} {fault.device}".strip()
            hint = f" ({fault.hint})" if fault.hint else ""
            log.log(level, "meter %s: %s%s", where, fault.message, hint)


class PollingThread:
    """Calls a step again and again, after the pause that it asked for, until stopped."""

    PAUSE_AFTER_BUG_S = 60.0

    def __init__(self, name: str, step: Callable[[], float]) -> None:
        """Args: step: does one piece of work and returns the seconds to wait before the next."""
        self._name = name
        self._step = step
        self._stopped = False
        # Held until the end. Ten times a second, waiting for it costs half of what an Event does,
        # and that is most of what a short step costs.
        self._running = threading.Lock()
        self._running.acquire()

    def start(self) -> None:
        """Begin at once, in a daemon thread."""
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def stop(self) -> None:
        """No further step; one in flight is not waited for. May be called again."""
        if not self._stopped:
            self._stopped = True
            self._running.release()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._running.acquire(timeout=max(0.0, pause_s)):
            try:
                pause_s = self._step()
            except Exception:
                # Whatever a server sent must not end the polling for good.
                log.exception("%s: unexpected error, tried again in a minute", self._name)
                pause_s = self.PAUSE_AFTER_BUG_S
