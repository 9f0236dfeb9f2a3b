"""What a relay and its nodes say to each other: signals as JSON, exact to the integer.

    {"zone":"GB","source":"neso","basis":"generation","cadence_s":1800,"signals":[
        {"valid_from":"2018-01-20T12:00:00Z","valid_to":"2018-01-20T12:30:00Z",
         "intensity_ug_per_kwh":"263000000","ewif_ul_per_kwh":null,"estimated":false,
         "fetched_at":"2018-01-20T12:34:10Z"},…]}

All signals of a reply are of one source, whose name, zone and basis stand once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from wattledger.grid.checks import FUTURE_NS, MAX_G_PER_KWH, as_object, instant_ns
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import DAY_NS, good_of, rows_of
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S, UG_PER_G

PATH = "/grid/v1"
_LONGEST_NS = 31 * DAY_NS  # of one signal: a month of a contract, as `csv` takes it
_CADENCES_S = range(60, 86_401)
_MOST_EWIF_UL = 1_000_000_000  # 1000 L/kWh: hydro's median is 17
_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,13}", re.ASCII)
_NOT_A_SOURCE = frozenset({"table", "wattledger"})  # nobody's word, and nobody's name
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Voice(NamedTuple):
    """One source behind a relay.

    Attributes:
        source: its name.
        basis: what its intensities count; may be marginal.
        cadence_ns: how often it publishes.
        history: it knows its past.
        forecast: it forecasts.
    """

    source: str
    basis: Basis
    cadence_ns: int
    history: bool
    forecast: bool


# ── what the relay writes ───────────────────────────────────────────────────────────────────────


def voice_fields(voice: Voice) -> dict[str, Any]:
    """A source, for JSON."""
    return {
        "source": voice.source,
        "basis": str(voice.basis),
        "cadence_s": voice.cadence_ns // NS_PER_S,
        "history": voice.history,
        "forecast": voice.forecast,
    }


def signals_fields(zone: str, voice: Voice, signals: Iterable[GridSignal]) -> dict[str, Any]:
    """The signals of one source, for JSON."""
    return {
        "zone": zone,
        "source": voice.source,
        "basis": str(voice.basis),
        "cadence_s": voice.cadence_ns // NS_PER_S,
        "signals": [_fields(signal) for signal in signals],
    }


def _fields(signal: GridSignal) -> dict[str, Any]:
    ewif_ul = signal.ewif_ul_per_kwh
    return {
        "valid_from": instant_text(signal.valid_from_ns),
        "valid_to": instant_text(signal.valid_to_ns),
        "intensity_ug_per_kwh": str(signal.intensity_ug_per_kwh),
        "ewif_ul_per_kwh": None if ewif_ul is None else str(ewif_ul),
        "estimated": signal.estimated,
        "fetched_at": instant_text(signal.fetched_at_ns),
    }


def instant_text(wall_ns: int) -> str:
    """An instant in UTC, to the microsecond where it is no whole second."""
    when = _EPOCH + timedelta(microseconds=wall_ns // 1000)
    return when.replace(tzinfo=None).isoformat() + "Z"


# ── what a node makes of it ─────────────────────────────────────────────────────────────────────


def is_zone(text: str) -> bool:
    """Whether a relay may have a zone of this name: a label, or an EIC such as 10YDE-VE-------2."""
    return _ZONE.fullmatch(text) is not None


def check_zone(reply: Any, zone: str) -> dict[str, Any]:
    """The reply's fields, if it is about the zone that was asked for.

    Raises:
        GridError: outcome `wrong_zone` or `bad_value`.
    """
    fields = as_object(reply, "the reply")
    if fields.get("zone") != zone:
        raise failure(Outcome.WRONG_ZONE, f"asked for zone {zone}, answered for another")
    return fields


def voices_of(fields: Mapping[str, Any]) -> list[Voice]:
    """The sources behind a relay, in order of preference.

    Raises:
        GridError: outcome `no_data` or `bad_value`.
    """
    found: list[Voice] = []
    for row in rows_of(fields, "sources")[:64]:
        row = as_object(row, "a source")
        history, forecast = row.get("history"), row.get("forecast")
        if not isinstance(history, bool) or not isinstance(forecast, bool):
            raise failure(Outcome.BAD_VALUE, "history or forecast is neither true nor false")
        found.append(Voice(*_who(row), history, forecast))
    if len({voice.source for voice in found}) != len(found):
        raise failure(Outcome.BAD_VALUE, "two sources have the same name")
    return found


def voice_of(fields: Mapping[str, Any]) -> Voice:
    """Whose signals a reply holds.

    Raises:
        GridError: outcome `bad_value`.
    """
    return Voice(*_who(fields), False, False)


def _who(fields: Mapping[str, Any]) -> tuple[str, Basis, int]:
    name, basis, cadence_s = (fields.get(key) for key in ("source", "basis", "cadence_s"))
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _NOT_A_SOURCE:
        raise failure(Outcome.BAD_VALUE, "source is not the name of one")
    if not isinstance(basis, str) or basis not in list(Basis):
        raise failure(Outcome.BAD_VALUE, "basis is not one we know")
    if isinstance(cadence_s, bool) or not isinstance(cadence_s, int):
        raise failure(Outcome.BAD_VALUE, "cadence_s is not a whole number")
    if cadence_s not in _CADENCES_S:
        raise failure(Outcome.BAD_VALUE, "cadence_s is not from a minute to a day")
    return name, Basis(basis), cadence_s * NS_PER_S


def signals_of(
    fields: Mapping[str, Any], zone: str, voice: Voice, now_wall_ns: int
) -> list[GridSignal]:
    """The signals of a reply that are sound, oldest first.

    Raises:
        GridError: none is; outcome `no_data`, `bad_value` or `future`.
    """
    return good_of(rows_of(fields, "signals"), lambda row: _signal(row, zone, voice, now_wall_ns))


def _signal(row: Any, zone: str, voice: Voice, now_wall_ns: int) -> GridSignal:
    fields = as_object(row, "a signal")
    start_ns = instant_ns(fields.get("valid_from"), "valid_from")
    end_ns = instant_ns(fields.get("valid_to"), "valid_to")
    fetched_ns = instant_ns(fields.get("fetched_at"), "fetched_at")
    if not start_ns < end_ns <= start_ns + _LONGEST_NS:
        raise failure(Outcome.BAD_VALUE, "a signal is not valid for a time")
    if fetched_ns > now_wall_ns + FUTURE_NS:
        raise failure(Outcome.FUTURE, "a signal was fetched ahead of this clock")
    intensity_ug = _whole(fields.get("intensity_ug_per_kwh"), MAX_G_PER_KWH * UG_PER_G)
    if intensity_ug == 0 and voice.basis is Basis.LIFECYCLE:  # as in `checks`: a filled gap
        raise failure(Outcome.BAD_VALUE, "a life-cycle intensity of 0 is not plausible")
    ewif, estimated = fields.get("ewif_ul_per_kwh"), fields.get("estimated")
    if not isinstance(estimated, bool):
        raise failure(Outcome.BAD_VALUE, "estimated is neither true nor false")
    return GridSignal(
        intensity_ug_per_kwh=intensity_ug,
        zone=zone,
        source=voice.source,
        basis=voice.basis,
        valid_from_ns=start_ns,
        valid_to_ns=end_ns,
        estimated=estimated,
        # When the relay was given it: what is old there is not new here.
        fetched_at_ns=min(fetched_ns, now_wall_ns),
        cadence_ns=voice.cadence_ns,
        ewif_ul_per_kwh=None if ewif is None else _whole(ewif, _MOST_EWIF_UL),
    )


def _whole(value: Any, most: int) -> int:
    if not isinstance(value, str) or not _WHOLE.fullmatch(value) or int(value) > most:
        raise failure(Outcome.BAD_VALUE, "a figure is not a whole number within its bounds")
    return int(value)
