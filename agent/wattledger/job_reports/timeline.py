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
    begin_s: float,
    end_s: float,
    columns: int = COLUMNS,
) -> PowerLine:
    """The mean power of a job in at most so many buckets of equal length.

    The first and the last bucket count for as long as the job ran in them.

    Args:
        timeline: of the API: `start` and `energy_uj`, one for each kind of device.
        grain_s: of the time line.
        begin_s: when the job began (Unix seconds).
        end_s: when it ended, or was last seen.
        columns: at most so many buckets.
    """
    energy_uj: dict[int, int] = {}
    for moment in timeline:
        at_s = int(datetime.fromisoformat(moment["start"]).timestamp())
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
        lasted_s = min(from_s + bucket_s, end_s) - max(from_s, begin_s)
        watts.append(joules(uj) / max(lasted_s, 1.0))
    return PowerLine(tuple(watts), first_s, bucket_s)


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
        f"{mean}highest {number(max(line.watts))} W",
    ]


def _when(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")


def _length(span_s: int) -> str:
    size_s, unit = next((s, u) for s, u in _GRAINS if span_s % s == 0)
    many = span_s // size_s
    return f"{many} {unit}{'s' if unit == 'day' and many > 1 else ''}"
