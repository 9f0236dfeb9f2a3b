"""`wattledger when`: from options to what is printed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from wattledger import build
from wattledger.alternatives.sources import sources_of
from wattledger.alternatives.when import Found, find
from wattledger.config import Config
from wattledger.core.windows import Window
from wattledger.errors import ConfigError
from wattledger.model import Basis
from wattledger.units import (
    NS_PER_MS,
    NS_PER_S,
    UG_PER_G,
    format_duration,
    grams,
    micro,
    parse_duration_ns,
    seconds,
    watts,
)
from wattledger_exporters.when import iso

_HOUR_NS = 3_600 * NS_PER_S
_MOST_HOURS = 24 * 14
_MOST_W = 10**9
_MARGINAL = (
    "MARGINAL: what one kWh more would cause, which says when, and never what the books hold."
)


def when_command(
    options: argparse.Namespace, config: Config, clock: Callable[[], int] = time.time_ns
) -> int:
    """The exit code.

    Raises:
        ConfigError: an option that cannot be.
        WattledgerError: no source forecasts such a window.
    """
    length_ns, within_ns, power_uw = _checked(options)
    sources = sources_of(config, options.zone, options.source, "--source", ahead=True)
    place = options.zone or str(config.site.zone)
    found = find(sources, length_ns, within_ns, clock, place)
    answer = _answer(found, clock(), power_uw, build.site_factors(config).pue_ppm)
    if options.json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        _print(answer)
    return 0


def _checked(options: argparse.Namespace) -> tuple[int, int, int | None]:
    """The window's length, how far to look, and the power in µW."""
    faults: list[tuple[str, str]] = []
    hours = _number(options.hours, Decimal(_MOST_HOURS))
    length_ns = int(hours * 3600 * 1000) * NS_PER_MS if hours else 0
    if length_ns <= 0:
        text = f"{options.hours[:40]!r} is not a number of hours above 0 and up to {_MOST_HOURS}"
        faults.append(("--hours", text))
    within_ns = 0
    try:
        within_ns = parse_duration_ns(options.within)
    except ValueError as error:
        faults.append(("--within", str(error)))
    else:
        if within_ns > _MOST_HOURS * _HOUR_NS:
            faults.append(("--within", f'is longer than "{_MOST_HOURS // 24}d"'))
        elif within_ns < length_ns:
            faults.append(("--within", f"is shorter than the {options.hours} h that it takes"))
    power = None if options.power is None else _number(options.power, Decimal(_MOST_W))
    if options.power is not None and power is None:
        text = f"{options.power[:40]!r} is not a number of watts above 0 and up to {_MOST_W}"
        faults.append(("--power", text))
    if faults:
        raise ConfigError(faults)
    return length_ns, within_ns, None if power is None else micro(power)


def _number(text: str, most: Decimal) -> Decimal | None:
    """A number above 0; None: it is none."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() and 0 < value <= most else None


def _answer(found: Found, now_ns: int, power_uw: int | None, pue_ppm: int) -> dict[str, Any]:
    first = found.signals[0]
    length_ns = found.cleanest.end_ns - found.cleanest.start_ns
    before, after = found.soonest.mean_ug_per_kwh, found.cleanest.mean_ug_per_kwh
    power: dict[str, Any] | None = None
    if power_uw is not None:
        energy_kwh = watts(power_uw) / 1000 * seconds(length_ns) / 3600
        power = {"power_w": watts(power_uw), "energy_kwh": energy_kwh, "pue": pue_ppm / 1_000_000}
    periods_ns = {signal.valid_to_ns - signal.valid_from_ns for signal in found.signals}
    return {
        "zone": first.zone,
        "source": first.source,
        "basis": first.basis,
        "marginal": first.basis is Basis.MARGINAL,
        "asked": iso(found.asked_ns),
        "fetched": iso(first.fetched_at_ns),
        "age_s": max(0, now_ns - first.fetched_at_ns) // NS_PER_S,
        "period_s": min(periods_ns) // NS_PER_S,
        "hours": length_ns / _HOUR_NS,
        "within_hours": found.within_ns / _HOUR_NS,
        "forecast_until": iso(found.known_until_ns),
        "ends_early": found.known_until_ns < found.asked_ns + found.within_ns,
        "known_hours": found.known_ns / _HOUR_NS,
        "gaps_s": found.gaps_ns // NS_PER_S,
        "whole_time_known": found.known_ns == found.within_ns,
        "load": power,
        "now": _window(found.soonest, found.asked_ns, power_uw, pue_ppm),
        "cleanest": _window(found.cleanest, found.asked_ns, power_uw, pue_ppm),
        "difference_percent": float((after - before) * 100 / before) if before else 0.0,
        "skipped": [tried._asdict() for tried in found.skipped],
    }


def _window(
    window: Window, asked_ns: int, power_uw: int | None, pue_ppm: int
) -> dict[str, str | float | None]:
    co2e_ug = None if power_uw is None else window.co2e_ug(power_uw, pue_ppm)
    return {
        "start": iso(window.start_ns),
        "end": iso(window.end_ns),
        "starts_in_s": (window.start_ns - asked_ns) // NS_PER_S,
        "intensity_g_per_kwh": float(window.mean_ug_per_kwh / UG_PER_G),
        "co2e_g": None if co2e_ug is None else grams(co2e_ug),
        "co2e_ug": None if co2e_ug is None else str(co2e_ug),
    }


def _print(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    load, now, cleanest = answer["load"], answer["now"], answer["cleanest"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("", "from (UTC)", "to (UTC)"):
        table.add_column(title, no_wrap=True)
    for title in ("gCO2e/kWh", *(["CO2e g"] if load else []), ""):
        table.add_column(title, justify="right", no_wrap=True)
    soon = "now" if now["starts_in_s"] <= 0 else "soonest"
    for name, window, more in (
        (soon, now, ""),
        ("cleanest", cleanest, f"{answer['difference_percent'] + 0.0:+.1f} %"),
    ):
        table.add_row(
            name,
            _minute(window["start"]),
            _minute(window["end"]),
            f"{window['intensity_g_per_kwh']:.1f}",
            *([f"{window['co2e_g']:,.1f}"] if load else []),
            more,
        )
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(_advice(answer), style="bold", soft_wrap=True)
    age = format_duration(answer["age_s"] * NS_PER_S)
    period = format_duration(answer["period_s"] * NS_PER_S)
    whose = f"{answer['source']} for {answer['zone']} ({answer['basis']})"
    reach = f"up to {_minute(answer['forecast_until'])} UTC"
    told = [f"Forecast of {whose}, {age} old, in periods of {period}, {reach}."]
    if answer["ends_early"]:
        told.append("It ends before the time asked for: what comes after was not looked at.")
    if answer["gaps_s"]:
        gaps = format_duration(answer["gaps_s"] * NS_PER_S)
        told.append(f"It has gaps of {gaps}: no window that touches one was looked at.")
    if load:
        told.append(
            f"{load['energy_kwh']:,.3f} kWh of IT energy at {load['power_w']:,g} W; CO2e with PUE "
            f"{load['pue']:g}."
        )
    if answer["marginal"]:
        told.append(_MARGINAL)
    told += [f"{tried['source']} gave none: {tried['message']}." for tried in answer["skipped"]]
    for text in told:
        console.print(text, style="dim", soft_wrap=True)


def _advice(answer: dict[str, Any]) -> str:
    wait_s = answer["cleanest"]["starts_in_s"]
    if answer["cleanest"]["start"] == answer["now"]["start"]:
        when = "now" if wait_s <= 0 else f"in {format_duration(wait_s * NS_PER_S)}"
        return f"Start {when}: nothing ahead is cleaner."
    wait = format_duration(wait_s // 60 * 60 * NS_PER_S)
    return f"Start in {wait}, at {answer['cleanest']['start']}."


def _minute(instant: str) -> str:
    return instant[:16].replace("T", " ")
