"""What a scenario file may say: every key with its type, default and meaning, in one table.

`reader` reads by it; `configs/scenarios/README.md` is held equal to it by a test.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from wattledger.meters.simulated.models import MODELS
from wattledger.units import NS_PER_MS, NS_PER_S, PPM, UW_PER_W

MAX_GPUS = 64
Check = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        check: the value as read → as used; ValueError with a sentence if it will not do.
        meaning: for people.
        default: what holds when it is not written, as a person would write it.
        required: it must be written.
    """

    check: Check
    meaning: str
    default: str = ""
    required: bool = False


def number(
    lowest: float = -math.inf, above: float | None = None, highest: float = math.inf
) -> Check:
    """A finite number in a range, as a Decimal of what was written."""

    def check(value: Any) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{_shown(value)} is not a number")
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        if value < lowest or (above is not None and value <= above) or value > highest:
            bounds = [f"above {above:g}"] if above is not None else []
            bounds += [f"at least {lowest:g}"] if above is None and lowest > -math.inf else []
            bounds += [f"at most {highest:g}"] if highest < math.inf else []
            raise ValueError(f"{value} is out of range; it must be {' and '.join(bounds)}")
        return Decimal(str(value))

    return check


def _scaled(unit: int, **bounds: float) -> Check:
    check = number(**bounds)
    return lambda value: round(check(value) * unit)


WATTS = _scaled(UW_PER_W, lowest=0, highest=100_000)
SIGNED_WATTS = _scaled(UW_PER_W, lowest=-1_000, highest=1_000)
SECONDS = _scaled(NS_PER_S, lowest=0, highest=1e9)
LENGTH = _scaled(NS_PER_S, lowest=1e-6, highest=1e9)
MILLISECONDS = _scaled(NS_PER_MS, lowest=0, highest=1e6)
MS_LENGTH = _scaled(NS_PER_MS, lowest=0.1, highest=1e6)
DUTY = _scaled(PPM, lowest=0, highest=1)
GAIN = _scaled(PPM, above=0, highest=10)


def integer(lowest: int, highest: int = 1 << 31) -> Check:
    """A whole number in a range."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{_shown(value)} is not a whole number")
        if not lowest <= value <= highest:
            raise ValueError(f"{value} is out of range; it must be {lowest} to {highest}")
        return value

    return check


def boolean(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is not true or false")
    return value


def text(value: Any) -> str:
    """A string that says something."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{_shown(value)} is not a text")
    return value


def one_of(*names: str) -> Check:
    """One of a few words."""

    def check(value: Any) -> str:
        if value not in names:
            raise ValueError(f"{_shown(value)} is none of {', '.join(names)}; use one of these")
        return str(value)

    return check


def or_word(word: str, check: Check) -> Check:
    """Either a certain word, given back as it is, or what `check` takes."""

    def either(value: Any) -> Any:
        if value == word:
            return value
        try:
            return check(value)
        except ValueError as error:
            raise ValueError(f'{error}; or write "{word}"') from None

    return either


def uuid(value: Any) -> str:
    """A GPU's UUID as NVML writes it."""
    if not isinstance(value, str) or not re.fullmatch(
        r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value
    ):
        raise ValueError(
            f'{_shown(value)} is not a UUID such as "GPU-{"0" * 8}-0000-0000-0000-{"0" * 12}"'
        )
    return value


def table(value: Any) -> Mapping[str, Any]:
    """A table, read further by its own keys."""
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is not a table")
    return value


def array(value: Any) -> list[Any]:
    """An array, read further element by element."""
    if not isinstance(value, list):
        raise ValueError(f"{_shown(value)} is not an array")
    return value


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


SCENARIO = {
    "name": Key(
        text, "for people, on the status page and in `wattledger_build_info`", "the file's name"
    ),
    "seed": Key(integer(0), "of phases, noise, random gains, UUIDs", "1"),
    "driver_version": Key(text, "what the driver calls itself", '"570.133.20"'),
    "gpu": Key(array, "the cards: `[[gpu]]`, in the driver's order", required=True),
    "fault": Key(array, "what goes wrong: `[[fault]]`", "none"),
}

GPU = {
    "model": Key(one_of(*MODELS), "which card", required=True),
    "count": Key(integer(1, MAX_GPUS), "so many of them", "1"),
    "waveform": Key(table, "true power over time", "the model's idle power"),
    "power_limit_w": Key(WATTS, "enforced limit", "the model's highest"),
    "persistence": Key(boolean, "persistence mode is on", "true"),
    "uuid": Key(uuid, "for a single card", "from the seed"),
    "minor": Key(integer(0, 255), "number of /dev/nvidia*, of the first card", "the index"),
    "sensor": Key(table, "how sensors distort the truth", "as the model's, without error"),
    "processes": Key(array, "tables of processes on each card", "none"),
    "mig": Key(table, "MIG mode and instances", "off"),
}

_PHASE = Key(SECONDS, "how far into its cycle it is at boot", "0")
_STAGGER = Key(SECONDS, "added to the phase of each further card of `count`", "0")

WAVEFORMS: dict[str, dict[str, Key]] = {
    "constant": {"watts": Key(WATTS, "always", required=True)},
    "square": {
        "low_w": Key(WATTS, "low power", required=True),
        "high_w": Key(WATTS, "high power, first in the cycle", required=True),
        "period_s": Key(LENGTH, "length of a cycle", required=True),
        "duty": Key(DUTY, "part of the cycle that is high", "0.5"),
        "phase_s": _PHASE,
        "stagger_s": _STAGGER,
    },
    "sine": {
        "mean_w": Key(WATTS, "mean power", required=True),
        "amplitude_w": Key(WATTS, "at most the mean", required=True),
        "period_s": Key(LENGTH, "length of a cycle", required=True),
        "phase_s": _PHASE,
        "stagger_s": _STAGGER,
    },
    "burst": {
        "low_w": Key(WATTS, "power between bursts", required=True),
        "high_w": Key(WATTS, "power in a burst", required=True),
        "width_s": Key(LENGTH, "length of a burst", required=True),
        "every_s": Key(LENGTH, "one burst in each such time", required=True),
        "random": Key(
            boolean, "each burst at a random place in its time (1024 places, then again)", "false"
        ),
        "phase_s": _PHASE,
        "stagger_s": _STAGGER,
    },
    "trace": {
        "file": Key(text, "CSV with columns t_s, watts; path relative to the scenario", "`points`"),
        "points": Key(array, "[[t_s, watts], …] instead of a file", "`file`"),
        "interpolation": Key(
            one_of("step", "linear"), "a power holds until the next point, or runs to it", '"step"'
        ),
        "phase_s": _PHASE,
        "stagger_s": _STAGGER,
    },
    "live": {
        "file": Key(
            text,
            "CSV that grows while it is played, columns t_s (since boot) and watts; each holds "
            "until the next; write points a little ahead of their time",
            required=True,
        ),
        "idle_w": Key(WATTS, "power before the first point", "the model's idle power"),
    },
}

SENSOR = {
    "counter": Key(boolean, "there is an energy counter", "true"),
    "mode": Key(
        one_of("full", "window"), "the counter adds all energy, or windows × tick", '"full"'
    ),
    "tick_ms": Key(MS_LENGTH, "the counter moves this often", "the model's"),
    "lag_ms": Key(MILLISECONDS, "and shows the energy of this long ago", "0"),
    "power_tick_ms": Key(MS_LENGTH, "power readings move this often", "the model's"),
    "window_ms": Key(MS_LENGTH, "instant power is the mean over this", "the model's"),
    "average": Key(boolean, "the average-power fields answer", "the model's"),
    "average_ms": Key(MS_LENGTH, "average power is the mean over this", "1000"),
    "usage": Key(
        one_of("average", "instant"), "what nvmlDeviceGetPowerUsage returns", "the model's"
    ),
    "scope": Key(one_of("gpu", "module"), "in which scope power answers", "the model's"),
    "gain": Key(
        or_word("random", GAIN), 'shown over true; "random": drawn from N(0.96, 0.03)', "1"
    ),
    "offset_w": Key(
        or_word("random", SIGNED_WATTS), 'added to what is shown; "random": within ±5', "0"
    ),
    "noise_w": Key(WATTS, "standard deviation of power readings", "0.1"),
    "rise_ms": Key(MILLISECONDS, "time constant of power readings", "0"),
    "samples": Key(boolean, "the driver keeps a buffer of power samples", "true"),
    "sample_ms": Key(MS_LENGTH, "one sample is the mean over this", "20"),
    "sample_count": Key(integer(1, 10_000), "length of the buffer", "120"),
    "timestamps": Key(
        one_of("tick", "call"), "field timestamps: of the sensor's tick, or of the call", '"tick"'
    ),
}

_AT = Key(SECONDS, "begins so long after the start of the process", "0")
_FOR = Key(SECONDS, "lasts so long", "for ever")
_SINCE = Key(
    one_of("start", "boot"), "`at_s` counts from the start of the process or from boot", '"start"'
)
SPAN = {"at_s": _AT, "for_s": _FOR, "since": _SINCE}

PROCESS = {
    "pid": Key(or_word("self", integer(1, 1 << 22)), 'as listed; "self": who asks', '"self"'),
    "sm_util": Key(
        integer(0, 100),
        "its use of the multiprocessors, in per cent; not told with MIG",
        "an equal part of the card's",
    ),
    "memory_mib": Key(integer(0), "it holds", "1024"),
    "type": Key(one_of("compute", "graphics"), "in which list it is", '"compute"'),
    **SPAN,
}

MIG = {
    "enabled": Key(boolean, "from the start", "true"),
    "instances": Key(array, "tables of instances", required=True),
}

MIG_INSTANCE = {
    "profile": Key(text, 'compute slices and memory, such as "3g.40gb"', required=True),
    "processes": Key(array, "tables of processes on it", "none"),
}

_GPU = Key(integer(0, MAX_GPUS - 1), "the card's number, in the order of the file", "all of them")
_DEVICE = {"gpu": _GPU, **SPAN}
_DRIVER = SPAN
_LASTING = Key(LENGTH, "lasts so long", required=True)

# kind → (what it does, its keys)
FAULTS: dict[str, tuple[str, dict[str, Key]]] = {
    "library_missing": ("nvmlInit: LIBRARY_NOT_FOUND", _DRIVER),
    "driver_mismatch": ("nvmlInit: LIB_RM_VERSION_MISMATCH", _DRIVER),
    "driver_reload": (
        "no driver while it lasts, then counters at 0; earlier initialisations answer UNKNOWN",
        {
            "driver_version": Key(text, "the version afterwards", "the same"),
            **SPAN,
            "for_s": Key(SECONDS, "lasts so long", "0"),
        },
    ),
    "unknown_error": ("calls answer UNKNOWN (999)", _DEVICE),
    "hang": ("calls block until it ends", {**_DEVICE, "for_s": _LASTING}),
    "lost": ("GPU_IS_LOST; afterwards for handles from before", _DEVICE),
    "reset_required": ("RESET_REQUIRED", _DEVICE),
    "no_permission": ("NO_PERMISSION for the card, still counted", _DEVICE),
    "removed": (
        "not listed, indices close up; at 0 s: a card that appears later",
        {**_DEVICE, "gpu": Key(_GPU.check, _GPU.meaning, required=True)},
    ),
    "reorder": (
        "other indices",
        {
            "indices": Key(array, "the card's number at each index", required=True),
            **_DRIVER,
        },
    ),
    "no_energy": ("the energy counter: NOT_SUPPORTED", _DEVICE),
    "reset_counter": (
        "the energy counter begins anew at 0",
        {key: value for key, value in _DEVICE.items() if key != "for_s"},
    ),
    "frozen_counter": (
        "the energy counter stands still",
        {
            **_DEVICE,
            "catch_up": Key(
                boolean, "afterwards it shows all energy, else that time's is missing", "true"
            ),
        },
    ),
    "missed_samples": ("no power samples from that time", _DEVICE),
    "mig_on": ("MIG is switched on, with the card's `mig.instances` if any", _DEVICE),
    "zombie_pid": (
        "a process is listed that does not exist",
        {**_DEVICE, "pid": Key(integer(1, (1 << 32) - 1), "which", "4194304, above any real one")},
    ),
    "util_over_100": (
        "illegal utilisation values",
        {**_DEVICE, "value": Key(integer(101, (1 << 32) - 1), "per cent", "255")},
    ),
    "stale_util": (
        "old rows of process utilisation, seen or not",
        {**_DEVICE, "age_s": Key(SECONDS, "their age", "9")},
    ),
}
