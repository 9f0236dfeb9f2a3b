"""What a provider's reply must pass before anything is priced with it."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from wattledger.errors import GridError
from wattledger.grid.outcome import Outcome, failure
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S, UG_PER_G, micro

MAX_G_PER_KWH = 2000  # coal without any use of its heat is near 1100, the worst country near 1300
FUTURE_NS = 300 * NS_PER_S
STEP_FACTOR = 4
_STEP_FLOOR_UG = 50 * UG_PER_G  # a clean grid may well go from 5 to 25 g
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|\+00:00)", re.ASCII)


def strict_json(raw: bytes) -> Any:
    """JSON as RFC 8259 has it: no NaN, no Infinity, no number beyond a float's range.

    Raises:
        GridError: outcome `bad_json`; nothing of the body is repeated.
    """

    def refuse(text: str) -> float:
        raise ValueError(f"{text[:20]} is no JSON number")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else refuse(text)

    try:
        return json.loads(raw.decode("utf-8"), parse_constant=refuse, parse_float=finite)
    except (ValueError, RecursionError) as error:
        # ValueError: syntax, UTF-8, refused numbers and integers of thousands of digits.
        raise failure(Outcome.BAD_JSON, f"the reply is not JSON ({type(error).__name__})") from None


def as_object(value: Any, what: str) -> dict[str, Any]:
    """The value as a JSON object.

    Raises:
        GridError: outcome `bad_value`.
    """
    if not isinstance(value, dict):
        raise failure(Outcome.BAD_VALUE, f"{what} is not an object")
    return value


def intensity_ug_per_kwh(value: Any, basis: Basis) -> int:
    """A number of g/kWh in µg/kWh.

    An exact 0 is possible where wind, sun and nuclear count as 0, but no power plant has a
    life-cycle intensity of 0: there it is a gap that somebody filled.

    Raises:
        GridError: outcome `bad_value`: not a number, or outside 0 to 2000 g/kWh.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise failure(Outcome.BAD_VALUE, f"the intensity is a {type(value).__name__}, not a number")
    if not 0 <= value <= MAX_G_PER_KWH or (value == 0 and basis is Basis.LIFECYCLE):
        raise failure(
            Outcome.BAD_VALUE,
            f"an intensity of {float(value) if abs(value) < 1e15 else 'very many':} g/kWh is not "
            "plausible",
        )
    return micro(value)


def instant_ns(value: Any, what: str) -> int:
    """An ISO 8601 instant in UTC, in wall-clock ns.

    Raises:
        GridError: outcome `bad_value`: not a UTC instant. A local time is refused, not guessed.
    """
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            return (parsed - _EPOCH) // timedelta(microseconds=1) * 1000
    raise failure(Outcome.BAD_VALUE, f"{what} is not an instant in UTC")


def check_signal(
    signal: GridSignal, *, zone: str, basis: Basis, now_wall_ns: int, max_age_ns: int
) -> None:
    """What every signal must pass, whichever source it came from.

    Age is judged by the time the value is valid for, never by when the provider says it touched
    it: that may well lie before it.

    Raises:
        GridError: outcome `wrong_zone`, `bad_value`, `future` or `stale`.
    """
    if signal.zone != zone:
        raise failure(Outcome.WRONG_ZONE, f"asked for zone {zone}, answered for another")
    if signal.basis is Basis.MARGINAL:
        raise failure(Outcome.BAD_VALUE, "a marginal intensity prices no books")
    if signal.basis is not basis:
        raise failure(Outcome.BAD_VALUE, f"asked for basis {basis}, answered on another")
    top = MAX_G_PER_KWH * UG_PER_G
    if not 0 <= signal.intensity_ug_per_kwh <= top or signal.valid_from_ns >= signal.valid_to_ns:
        raise failure(Outcome.BAD_VALUE, "the signal is outside its bounds")
    if signal.valid_from_ns > now_wall_ns + FUTURE_NS:
        ahead_s = (signal.valid_from_ns - now_wall_ns) // NS_PER_S
        raise failure(Outcome.FUTURE, f"the signal is for a time {ahead_s} s ahead of this clock")
    if now_wall_ns >= signal.valid_to_ns + max_age_ns:
        age_s = (now_wall_ns - signal.valid_to_ns) // NS_PER_S
        raise failure(Outcome.STALE, f"the newest signal ended {age_s} s ago: beyond grid.max_age")


def is_usable(signal: GridSignal) -> bool:
    """Whether a remembered signal is within its bounds."""
    try:
        check_signal(
            signal,
            zone=signal.zone,
            basis=signal.basis,
            now_wall_ns=signal.valid_from_ns,
            max_age_ns=1,
        )
    except GridError:
        return False
    return True


def is_step(before: GridSignal, after: GridSignal) -> bool:
    """Whether a value jumps more than a grid does between two signals: by more than 4 times.

    Real cases were units that changed, and gaps filled with a constant.
    """
    low, high = sorted((before.intensity_ug_per_kwh, after.intensity_ug_per_kwh))
    return high > low * STEP_FACTOR and high - low > _STEP_FLOOR_UG
