"""CPU power from utilisation: the last resort, where nothing measures it.

    P = idle + (max − idle) × busy share of all logical CPUs

Defaults: 0.74 W idle and 3.5 W busy per logical CPU, the averages over server processors that
Cloud Carbon Footprint publishes for AWS (cloudcarbonfootprint.org/docs/methodology, Appendix I).
Idle power, frequency, vector units and memory make real machines differ: for GPU nodes such models
err by 27–37 % (arXiv 2506.14551), and linear curves "do not generalise well"
(if.greensoftware.foundation, Teads curve). That is on average, and single machines are off by more:
so the uncertainty stated is 50 %, the band of `model.uncertainty`, and all of it is booked as
`estimated`. Watts of the actual machine, where known, belong in the configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wattledger.errors import MeterUnavailable
from wattledger.meters.hwmon import covered
from wattledger.model import DeviceInfo, Instant, Kind, MeterReport, PowerReading, Quality
from wattledger.ports import Clock
from wattledger.procfs import busy_and_total_ticks, logical_cpus
from wattledger.units import NS_PER_S, UW_PER_W

NAME = "estimate"
DEVICE = "cpu0"
IDLE_W_PER_CPU = 0.74
MAX_W_PER_CPU = 3.5
_COUNT_NS = 60 * NS_PER_S  # CPUs are seldom plugged
UNCERTAINTY = 0.50  # what the bands of totals take for estimated energy; no standard deviation


class EstimateMeter:
    """The whole node's CPUs as one device, `cpu0`; implements `wattledger.ports.Meter`.

    The busy share is the kernel's own tick count between two reads, so nothing between them is
    missed. The first read is the baseline and brings no reading.

    Args:
        clock: stamps each reading.
        procfs: root of procfs.
        interval_ns: how often to be read.
        idle_w: watts of all the node's CPUs when idle; None: the default curve's part of `max_w`,
            or the default per logical CPU.
        max_w: watts of all the node's CPUs at full load; None: the default per logical CPU, at
            least `idle_w`.
        module_scope: True while a GPU's counter covers the CPU as well (Grace Hopper).

    Raises:
        ValueError: negative watts, or more when idle than at full load.
    """

    name = NAME

    def __init__(
        self,
        clock: Clock,
        *,
        procfs: Path,
        interval_ns: int,
        idle_w: float | None = None,
        max_w: float | None = None,
        module_scope: Callable[[], bool] = lambda: False,
    ) -> None:
        if min(idle_w or 0, max_w or 0) < 0 or (
            idle_w is not None and max_w is not None and idle_w > max_w
        ):
            raise ValueError(f"cannot be: idle {idle_w} W, full load {max_w} W")
        self.interval_ns = interval_ns
        self._clock = clock
        self._procfs = procfs
        self._idle_w = idle_w
        self._max_w = max_w
        self._module_scope = module_scope
        self._cpus = 0
        self._count_again_ns = 0
        self._idle_uw = self._span_uw = 0
        self._last: tuple[Instant, int, int] | None = None
        self._devices: tuple[DeviceInfo, ...] = ()

    def read(self) -> MeterReport:
        """The mean power since the last read; no reading where no tick has passed since.

        Raises:
            MeterUnavailable: /proc/stat cannot be read, or the GPU's counter covers the CPU.
        """
        if self._module_scope():
            self.close()
            raise covered()
        try:
            busy, total = busy_and_total_ticks(self._procfs)
            at = self._clock.now()
            if at.boottime_ns >= self._count_again_ns:
                self._fit(max(logical_cpus(self._procfs), 1))
                self._count_again_ns = at.boottime_ns + _COUNT_NS
        except (OSError, ValueError) as error:
            self.close()
            raise MeterUnavailable(
                "no_procfs",
                f"{self._procfs / 'stat'} does not tell the CPU's busy time: {error}",
                "mount /proc, or name its place with --path.procfs",
            ) from error
        last = self._last
        if last is None or total < last[2]:
            self._last = (at, busy, total)
            return MeterReport(devices=self._devices)
        since, busy_then, total_then = last
        passed = total - total_then
        if not passed:
            return MeterReport(devices=self._devices)
        self._last = (at, busy, total)
        spent = min(max(busy - busy_then, 0), passed)
        reading = PowerReading(
            DEVICE,
            at,
            self._idle_uw + self._span_uw * spent // passed,
            window_ns=at.monotonic_ns - since.monotonic_ns,
            max_gap_ns=self.interval_ns * 5 // 2,
            quality=Quality.ESTIMATED,
        )
        return MeterReport(devices=self._devices, readings=(reading,))

    def close(self) -> None:
        """Forget the baseline: the next read takes another."""
        self._last = None

    def _fit(self, cpus: int) -> None:
        """Fit the curve to the number of logical CPUs, which may change while running."""
        if cpus == self._cpus:
            return
        self._cpus = cpus
        idle_w, max_w = self._idle_w, self._max_w
        if max_w is None:
            max_w = max(MAX_W_PER_CPU * cpus, idle_w or 0.0)
        if idle_w is None:
            idle_w = max_w * IDLE_W_PER_CPU / MAX_W_PER_CPU
        self._idle_uw = round(idle_w * UW_PER_W)
        self._span_uw = round(max_w * UW_PER_W) - self._idle_uw
        model = (
            f"utilisation model, {cpus} logical CPUs, {idle_w:.3g}–{max_w:.3g} W, "
            f"±{UNCERTAINTY:.0%}"
        )
        self._devices = (DeviceInfo(DEVICE, Kind.CPU, NAME, model=model),)
