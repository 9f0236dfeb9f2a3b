"""One simulated card: its true energy, and what its sensors make of it.

The counter and the power sensors tick on their own, each with a phase drawn from the scenario's
seed, and stand still between ticks. Everything is a function of the time since boot: a process
that starts anew finds the counter where the hardware would have carried it.
"""

from __future__ import annotations

import hashlib
import math
from functools import cached_property
from random import Random

from wattledger.meters.simulated.scenario import Gpu
from wattledger.units import NS_PER_S, PPM

UWNS_PER_MJ = 1_000 * 1_000 * 1_000_000  # 1 mJ = 1000 µJ, 1 µJ = 10⁹ µW·ns
UWNS_PER_UJ = NS_PER_S
MAX_WINDOW_TICKS = 50_000  # prefix sums kept of a counter that adds up windows

_GAUSS = Random(2312)  # noqa: S311 - noise, no secret
_NOISE = tuple(_GAUSS.gauss(0.0, 1.0) for _ in range(1024))


def draw(seed: int, number: int, what: str) -> Random:
    """A generator of its own for each (scenario, card, purpose)."""
    text = f"{seed}/{number}/{what}".encode()
    return Random(hashlib.sha256(text).digest())  # noqa: S311 - reproducible, no secret


class Card:
    """The truth and the sensors of one GPU; every method takes ns since boot.

    Args:
        gpu: what the scenario says about it.
        seed: the scenario's.
    """

    def __init__(self, gpu: Gpu, seed: int) -> None:
        self.gpu = gpu
        self._sensor = sensor = gpu.sensor
        self._energy = gpu.waveform.energy_uwns
        random = draw(seed, gpu.number, "phase")
        self._counter_phase_ns = random.randrange(sensor.tick_ns)
        self._power_phase_ns = random.randrange(sensor.power_tick_ns)
        self._sample_phase_ns = random.randrange(sensor.sample_ns)
        self._noise_salt = random.randrange(1 << 30)

    # ── truth ───────────────────────────────────────────────────────────────────────────────────

    def true_energy_uj(self, t_ns: int) -> int:
        """Energy since boot."""
        return self._energy(t_ns) // UWNS_PER_UJ

    def true_power_uw(self, t_ns: int) -> int:
        """Power now."""
        return self.gpu.waveform.power_uw(t_ns)

    # ── counter ─────────────────────────────────────────────────────────────────────────────────

    def counter_tick_ns(self, t_ns: int) -> int:
        """When the counter last moved."""
        tick = self._sensor.tick_ns
        return t_ns - (t_ns - self._counter_phase_ns) % tick

    def counter_uwns(self, t_ns: int) -> int:
        """What the counter shows of the energy since boot."""
        sensor = self._sensor
        seen = self.counter_tick_ns(t_ns) - sensor.lag_ns
        if seen <= 0:
            return 0
        energy = self._windows_uwns(seen) if sensor.window_mode else self._energy(seen)
        if sensor.gain_ppm != PPM:
            energy = energy * sensor.gain_ppm // PPM
        return energy + sensor.offset_uw * seen

    def counter_since_uwns(self, t_ns: int, reset_ns: int) -> int:
        """What a counter that was set to 0 at `reset_ns` shows."""
        sensor = self._sensor
        if sensor.window_mode:
            return max(0, self.counter_uwns(t_ns) - self.counter_uwns(reset_ns))
        base = self._energy(reset_ns) * sensor.gain_ppm // PPM + sensor.offset_uw * reset_ns
        return max(0, self.counter_uwns(t_ns) - base)

    def _windows_uwns(self, seen_ns: int) -> int:
        """Σ over ticks of the window's mean power times the tick."""
        sums = self._window_sums
        cycle = len(sums) - 1
        first = (self._counter_phase_ns - self._sensor.lag_ns) % self._sensor.tick_ns
        ticks = (seen_ns - first) // self._sensor.tick_ns  # the first one only begins
        cycles, rest = divmod(ticks, cycle)
        return cycles * sums[cycle] + sums[rest]

    @cached_property
    def _window_sums(self) -> list[int]:
        sensor, energy = self._sensor, self._energy
        tick, window = sensor.tick_ns, sensor.window_ns
        first = (self._counter_phase_ns - sensor.lag_ns) % tick
        sums = [0]
        for index in range(window_ticks(tick, self.gpu.waveform.period_ns)):
            at = first + (index + 1) * tick
            sums.append(sums[-1] + (energy(at) - energy(at - window)) * tick // window)
        return sums

    # ── power ───────────────────────────────────────────────────────────────────────────────────

    def power_tick_ns(self, t_ns: int) -> int:
        """When the power sensors last moved."""
        return t_ns - (t_ns - self._power_phase_ns) % self._sensor.power_tick_ns

    def instant_mw(self, t_ns: int) -> int:
        """The instant power the sensor shows."""
        return self._shown_mw(self.power_tick_ns(t_ns), self._sensor.window_ns)

    def average_mw(self, t_ns: int) -> int:
        """The average power the sensor shows."""
        return self._shown_mw(self.power_tick_ns(t_ns), self._sensor.average_ns)

    def sample_ticks_ns(self, t_ns: int) -> range:
        """When the samples now in the driver's buffer were taken, oldest first."""
        step = self._sensor.sample_ns
        last = t_ns - (t_ns - self._sample_phase_ns) % step
        return range(last - (self._sensor.sample_count - 1) * step, last + 1, step)

    def sample_mw(self, tick_ns: int) -> int:
        """The sample taken at this tick."""
        return self._shown_mw(tick_ns, self._sensor.sample_ns)

    def utilization(self, t_ns: int) -> int:
        """Per cent busy over the last second: 0 at idle, 100 at the model's load, by power."""
        mean_uw = (self._energy(t_ns) - self._energy(t_ns - NS_PER_S)) // NS_PER_S
        model = self.gpu.model
        above_w = mean_uw / 1e6 - 1.1 * model.idle_w
        if above_w <= 0:
            return 0
        return min(100, max(1, round(100 * above_w / (model.load_w - 1.1 * model.idle_w))))

    def _shown_mw(self, tick_ns: int, window_ns: int) -> int:
        sensor = self._sensor
        energy: float = self._energy(tick_ns) - self._energy(tick_ns - window_ns)
        if tau := sensor.rise_ns:
            lagged = self.gpu.waveform.lagged_uw
            energy -= tau * (lagged(tick_ns, tau) - lagged(tick_ns - window_ns, tau))
        power_uw = energy / window_ns * sensor.gain_ppm / PPM + sensor.offset_uw
        if sensor.noise_uw:
            mixed = (tick_ns // 1_000_000 + self._noise_salt) * 0x9E3779B97F4A7C15
            power_uw += sensor.noise_uw * _NOISE[(mixed >> 40) & 1023]
        return max(0, round(power_uw / 1000))


def window_ticks(tick_ns: int, period_ns: int) -> int:
    """After how many ticks a counter that adds up windows sees the same windows again."""
    return math.lcm(tick_ns, period_ns) // tick_ns
