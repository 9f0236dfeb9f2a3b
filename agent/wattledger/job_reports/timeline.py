"""A job's time line as one line of bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from wattledger.printing import can_print
from wattledger.units import joules
from wattledger_exporters.wording import number

COLUMNS = 64
_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"
_GRAINS = ((86_400, "day"), (3600, "h"), (60, "min"))


class PowerLine(NamedTuple):
    """Mean power over time.

    Attributes:
        watts: of each bucket, the oldest first.
        begin_s: when the first bucket begins (Unix seconds).
        bucket_s: how long each is.
    """

    watts: tuple[float, ...]
    begin_s: int
    bucket_s: int


def power_line(
    timeline: Sequence[Mapping[str, Any]],
    grain_s: int,
    spans: Sequence[tuple[float, float]],
    columns: int = COLUMNS,
) -> PowerLine:
    """The mean power of a job in at most so many buckets of equal length.

    A bucket counts for as long as the job ran in it.

    Args:
        timeline: of the API: `start` and `energy_uj`, one for each kind of device.
        grain_s: of the time line.
        spans: when its runs began and ended, or were last seen (Unix seconds).
        columns: at most so many buckets.
    """
    energy_uj: dict[int, int] = {}
    for moment in timeline:
        at_s = _at_s(moment)
        energy_uj[at_s] = energy_uj.get(at_s, 0) + int(moment["energy_uj"])
    if not energy_uj:
        return PowerLine((), 0, grain_s)
    first_s = min(energy_uj)
    slots = (max(energy_uj) - first_s) // grain_s + 1
    bucket_s = grain_s * -(-slots // columns)
    buckets_uj = [0] * -(-slots * grain_s // bucket_s)
    for at_s, uj in energy_uj.items():
        buckets_uj[(at_s - first_s) // bucket_s] += uj
    watts = []
    for number_, uj in enumerate(buckets_uj):
        from_s = first_s + number_ * bucket_s
        watts.append(joules(uj) / max(_ran_s(spans, from_s, from_s + bucket_s), 1.0))
    return PowerLine(tuple(watts), first_s, bucket_s)


def line_of(moments: Sequence[Mapping[str, Any]], grain_s: int) -> PowerLine:
    """The power that metrics told, a bucket for each moment; none is 0 W.

    Args:
        moments: `start` and `watts`, oldest first, no more than there are columns.
        grain_s: how long each is.
    """
    if not moments:
        return PowerLine((), 0, grain_s)
    found = {_at_s(moment): float(moment["watts"]) for moment in moments}
    first_s, last_s = min(found), max(found)
    watts = (found.get(at_s, 0.0) for at_s in range(first_s, last_s + 1, grain_s))
    return PowerLine(tuple(watts), first_s, grain_s)


def _at_s(moment: Mapping[str, Any]) -> int:
    return int(datetime.fromisoformat(moment["start"]).timestamp())


def _ran_s(spans: Sequence[tuple[float, float]], from_s: float, until_s: float) -> float:
    """How long a job ran within a time, by one run or several at once; all of it, if by none."""
    ran_s, up_to_s = 0.0, from_s
    for begin_s, end_s in sorted(spans):
        begin_s, end_s = max(begin_s, up_to_s), min(end_s, until_s)
        if end_s > begin_s:
            ran_s, up_to_s = ran_s + end_s - begin_s, end_s
    return ran_s or until_s - from_s


def bars(watts: Sequence[float]) -> str:
    """One character each, scaled to the highest; a space is nothing at all."""
    levels = _BARS if can_print(_BARS) else _ASCII_BARS
    top = max(watts, default=0.0)
    steps = len(levels) - 1
    # What is little is not nothing: it gets the lowest bar.
    return "".join(
        levels[max(1, round(w / top * steps))] if w and top else levels[0] for w in watts
    )


def lines(line: PowerLine, mean_watts: float | None) -> list[str]:
    """The bars and what they mean; nothing where there is no course of time to show."""
    if len(line.watts) < 2:
        return []
    until_s = line.begin_s + len(line.watts) * line.bucket_s
    mean = "" if mean_watts is None else f"mean {number(mean_watts)} W, "
    return [
        bars(line.watts).rstrip(),
        f"{_when(line.begin_s)} to {_when(until_s)} UTC, {_length(line.bucket_s)} each",
        f"{mean}highest {number(max(*line.watts, mean_watts or 0.0))} W",
    ]


def _when(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")


def _length(span_s: int) -> str:
    size_s, unit = next((s, u) for s, u in _GRAINS if span_s % s == 0)
    many = span_s // size_s
    return f"{many} {unit}{'s' if unit == 'day' and many > 1 else ''}"
