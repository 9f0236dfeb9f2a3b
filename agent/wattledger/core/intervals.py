"""From two readings of a device to the energy between them, or to time that nothing measured.

Counters (the rules in one place):

    first sight             a baseline: nothing is booked
    same boot, same driver  the difference, if the device could have drawn it
    GPU counter fell,       a reset: what it shows was used since the last reading (or since the
    or a new driver load    boot); the span is also counted as possibly unobserved
    RAPL counter fell       one wrap, if the gap is too short for two and the machine was awake
    RAPL, longer gap        how often it wrapped cannot be told: a baseline, the gap unobserved
    RAPL, another boot      a baseline, unobserved since the last reading

Power: the mean over a window that reaches back to the last reading is a rectangle, everything
else a trapezoid; across a sleep or a gap that is too long nothing is interpolated.

Gaps are measured on CLOCK_BOOTTIME, which neither stands still in a sleep nor is ever stepped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wattledger.model import (
    CounterReading,
    EnergyInterval,
    PowerReading,
    Quality,
    Reading,
)
from wattledger.units import NS_PER_MS, NS_PER_S, SLOT_NS, SLOT_S, slot_of

_SLEPT_NS = NS_PER_S  # boottime ran this much further than monotonic: the machine slept


@dataclass(frozen=True, slots=True)
class Step:
    """What a reading adds to the books.

    Attributes:
        interval: the energy since the last reading; None where nothing may be booked.
        unobserved_ns: time that nothing measured.
        reset: the device's counter began anew.
        reason: why something was unobserved or reset; empty in the ordinary case.
    """

    interval: EnergyInterval | None = None
    unobserved_ns: int = 0
    reset: bool = False
    reason: str = ""


_NOTHING = Step()


def advance(last: Reading | None, now: Reading, *, recovered: bool = False) -> Step:
    """What happened between a device's last reading and this one.

    Args:
        last: the last reading that was booked; None at first sight.
        now: the new reading.
        recovered: `last` was taken by an earlier process: nobody was reading in between.
    """
    if last is None:
        return _NOTHING
    if isinstance(now, CounterReading):
        if isinstance(last, CounterReading):
            return _counter_step(last, now, Quality.RECOVERED if recovered else Quality.METERED)
    elif isinstance(last, PowerReading):
        return _power_step(last, now)
    # Another kind of meter took over. Its first reading is a baseline: were a counter's
    # difference taken across, the time that the other meter covered would be booked twice.
    return Step(unobserved_ns=_span_ns(last, now), reason="meter_changed")


def _span_ns(last: Reading, now: Reading) -> int:
    """Time between two readings; on the wall clock where they are of different boots."""
    boots = [r.boot_id for r in (last, now) if isinstance(r, CounterReading)]
    if len(boots) == 2 and boots[0] != boots[1]:
        return max(0, now.at.wall_ns - last.at.wall_ns)
    return max(0, now.at.boottime_ns - last.at.boottime_ns)


def _counter_step(last: CounterReading, now: CounterReading, quality: Quality) -> Step:
    same_boot = last.boot_id == now.boot_id
    gap_ns = now.at.boottime_ns - last.at.boottime_ns if same_boot else now.at.boottime_ns
    if gap_ns <= 0:
        return _NOTHING
    span_ns = _span_ns(last, now)
    bound_uj = now.max_power_uw * gap_ns // NS_PER_S  # 1 µW for 1 s is 1 µJ
    tick_uj = now.max_power_uw * now.tick_ns // NS_PER_S
    energy_uj = now.raw_uj - last.raw_uj
    reset = False
    if now.range_uj is None:
        new_load = bool(last.driver_load and now.driver_load != last.driver_load)
        if not same_boot or new_load or energy_uj < 0:
            reset = True
            energy_uj = now.raw_uj
    else:
        if not same_boot:
            return Step(unobserved_ns=span_ns, reset=True, reason="reboot")
        if bound_uj >= now.range_uj:
            return Step(unobserved_ns=span_ns, reason="wraps_unknown")
        if energy_uj < 0:
            slept = gap_ns - (now.at.monotonic_ns - last.at.monotonic_ns) > _SLEPT_NS
            if slept:
                return Step(unobserved_ns=span_ns, reset=True, reason="slept")
            energy_uj += now.range_uj
    if energy_uj < 0 or energy_uj * 10 > bound_uj * 11 + tick_uj * 10:
        return Step(unobserved_ns=span_ns, reset=reset, reason="implausible")
    end_ns = now.at.wall_ns
    interval = EnergyInterval(now.device, end_ns - gap_ns, end_ns, energy_uj, quality)
    if reset:
        return Step(interval, unobserved_ns=span_ns, reset=True, reason="counter_reset")
    return Step(interval)


def _power_step(last: PowerReading, now: PowerReading) -> Step:
    gap_ns = now.at.boottime_ns - last.at.boottime_ns
    if gap_ns <= 0:
        return _NOTHING
    slept = gap_ns - (now.at.monotonic_ns - last.at.monotonic_ns) > _SLEPT_NS
    covered_ns = gap_ns
    if slept or gap_ns > now.max_gap_ns:
        # The mean of the last window is still true; what lies before it nobody saw.
        covered_ns = 0 if slept else min(gap_ns, now.window_ns)
        doubled_uw = 2 * now.power_uw
    elif 2 * gap_ns <= 3 * now.window_ns:
        doubled_uw = 2 * now.power_uw
    else:
        doubled_uw = last.power_uw + now.power_uw
    unobserved_ns = gap_ns - covered_ns
    reason = ("slept" if slept else "gap") if unobserved_ns else ""
    if not covered_ns:
        return Step(unobserved_ns=unobserved_ns, reason=reason)
    energy_uj = (doubled_uw * covered_ns + NS_PER_S) // (2 * NS_PER_S)
    end_ns = now.at.wall_ns
    interval = EnergyInterval(now.device, end_ns - covered_ns, end_ns, energy_uj, now.quality)
    return Step(interval, unobserved_ns=unobserved_ns, reason=reason)


def only_slot(start_ns: int, end_ns: int) -> int | None:
    """The 5-minute slot, in Unix seconds, that holds all of a span; None: there are several."""
    first = slot_of(start_ns)
    if end_ns > (first + SLOT_S) * NS_PER_S:
        return None
    return first if end_ns > start_ns else slot_of(end_ns)


def over_slots(start_ns: int, end_ns: int, amount: int) -> Iterator[tuple[int, int]]:
    """An amount spread evenly over a span, cut at the 5-minute slots; the parts sum to it.

    Args:
        start_ns: wall clock.
        end_ns: wall clock; not after `start_ns` puts everything in its slot.
        amount: what to spread.

    Yields:
        (slot start in Unix seconds, part), parts of 0 left out.
    """
    only = only_slot(start_ns, end_ns)
    if only is not None:
        if amount:
            yield only, amount
        return
    done = 0
    for slot_s in range(slot_of(start_ns), slot_of(end_ns - 1) + SLOT_S, SLOT_S):
        boundary_ns = min(end_ns, slot_s * NS_PER_S + SLOT_NS)
        upto = amount * (boundary_ns - start_ns) // (end_ns - start_ns)
        if upto > done:
            yield slot_s, upto - done
        done = upto


def merged(intervals: Iterable[EnergyInterval]) -> list[EnergyInterval]:
    """Neighbouring intervals of a device and quality as one; fifty samples a second become one.

    Only where one begins where the other ended, so that no time is counted twice.
    """
    joined: list[EnergyInterval] = []
    open_: dict[tuple[str, Quality], int] = {}
    for interval in intervals:
        key = (interval.device, interval.quality)
        at = open_.get(key)
        if at is not None and abs(joined[at].end_ns - interval.start_ns) < NS_PER_MS:
            before = joined[at]
            joined[at] = EnergyInterval(
                before.device,
                before.start_ns,
                interval.end_ns,
                before.energy_uj + interval.energy_uj,
                before.quality,
            )
        else:
            open_[key] = len(joined)
            joined.append(interval)
    return joined
