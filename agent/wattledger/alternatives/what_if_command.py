"""`wattledger report --what-if`: the energy that the ledger holds, at other prices."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple

from wattledger.alternatives.scenario import HOUR_NS, OPTION, STATED, Mix, Shift, Zone, parse
from wattledger.alternatives.showing import print_lines
from wattledger.alternatives.sources import sources_of
from wattledger.config import Config
from wattledger.core.what_if import Alternative, Line, booked_price, line, merged
from wattledger.core.windows import Curve, periods_of
from wattledger.errors import ConfigError, GridError, WattledgerError
from wattledger.grid.source import History, HistorySource, Relay, Source
from wattledger.grid.table import CountryTable
from wattledger.model import Amounts, Basis, GridSignal, TotalsRow
from wattledger.units import NS_PER_S
from wattledger_exporters.when import iso

Ask = Callable[[Mapping[str, str]], Mapping[str, Any]]
PriceOf = Callable[[TotalsRow], Alternative | None]
_BY_HOUR = ("all", "day", "hour")


class Priced(NamedTuple):
    """A report at other prices.

    Attributes:
        answer: what `/api/v1/totals` answered about the energy.
        by: how the lines are grouped.
        lines: in order.
        about: the scenario in words.
        fixed: the one price of all of it; None: it changes by the hour.
        notes: what a reader must know besides.
    """

    answer: Mapping[str, Any]
    by: str
    lines: list[Line]
    about: str
    fixed: Alternative | None
    notes: tuple[str, ...]


def what_if_command(
    options: argparse.Namespace,
    config: Callable[[], Config],
    ask: Ask,
    clock: Callable[[], int] = time.time_ns,
) -> int:
    """The exit code.

    Args:
        options: of `report`.
        config: the settings.
        ask: answers as `/api/v1/totals`.
        clock: wall clock in ns.

    Raises:
        ConfigError: an option that cannot be.
        WattledgerError: the energy or the other prices cannot be had.
    """
    scenario = parse(options.what_if)
    if isinstance(scenario, Mix) or (isinstance(scenario, Zone) and not scenario.source):
        priced = _at_once(options, scenario, ask)
    else:
        priced = _by_hour(options, scenario, config, ask, clock)
    print_lines(priced, options.what_if, options.format, options.limit)
    return 0


# ── one price for all of it ─────────────────────────────────────────────────────────────────────


def _at_once(options: argparse.Namespace, scenario: Mix | Zone, ask: Ask) -> Priced:
    notes: tuple[str, ...]
    if isinstance(scenario, Mix):
        other = Alternative(scenario.intensity_ug_per_kwh, scenario.ewif_ul_per_kwh, scenario.basis)
        parts = (
            f"{float(100 * part.share):g} % {part.fuel} ({float(part.g_per_kwh):g} g/kWh)"
            for part in scenario.parts
        )
        about = f"electricity made of {', '.join(parts)}"
        notes = (_water_of_mix(scenario),)
    else:
        other, about, notes = _of_table(scenario.zone)
    by = options.by or "kind"
    answer = ask(_asked(options, by))
    return Priced(answer, by, [line(row, other) for row in _rows(answer)], about, other, notes)


def _water_of_mix(mix: Mix) -> str:
    """Whose word the grid's water is."""
    if mix.dry:
        fuels = ", ".join(mix.dry)
        return (
            f"Nothing is known of the water of {fuels}, so that there is none of the mix: state "
            f"L/kWh after g/kWh, as in {mix.dry[0]}=share@12@2.5."
        )
    words = {part.fuel: part.wet_by for part in mix.parts}
    stated = ", ".join(
        f"{float(part.l_per_kwh or 0):g} L/kWh of {part.fuel}"
        for part in mix.parts
        if part.wet_by == STATED
    )
    table = "the medians of the fuel table, all plants taken to have wet towers"
    if all(word == STATED for word in words.values()):
        return f"Its grid water is as stated: {stated}."
    return f"Its grid water is by {table}{f'; stated: {stated}' if stated else ''}."


def _of_table(zone: str) -> tuple[Alternative, str, tuple[str, ...]]:
    """A country's yearly mean."""
    table = CountryTable.load()
    try:
        signal, ewif = table.signal(zone), table.ewif(zone)
    except ConfigError as error:
        text = f"{error.faults[0][1]}; a zone of a live source is asked with zone=…,source=KIND"
        raise ConfigError([(OPTION, text)]) from error
    other = Alternative(
        Fraction(signal.intensity_ug_per_kwh), Fraction(ewif.ul_per_kwh), str(signal.basis)
    )
    year = (iso(signal.valid_from_ns) or "")[:4]
    notes = []
    if (own := table.row(zone)).zone != signal.zone:
        notes.append(
            f"Of {own.zone} ({own.name}) no intensity is published: the world's stands in."
        )
    if ewif.zone != signal.zone:
        notes.append(f"Its grid water is that of {ewif.zone}.")
    about = f"the grid of {signal.zone}, yearly mean of {year} of the country table"
    return other, about, tuple(notes)


# ── a price for each hour ───────────────────────────────────────────────────────────────────────


def _by_hour(
    options: argparse.Namespace,
    scenario: Zone | Shift,
    config: Callable[[], Config],
    ask: Ask,
    clock: Callable[[], int],
) -> Priced:
    by = options.by or "all"
    if by not in _BY_HOUR:
        text = f"these prices change by the hour, so that --by is one of {', '.join(_BY_HOUR)}"
        raise ConfigError([("--by", text)])
    # By hour, whatever is shown, is asked for 7 days where nothing is said.
    answer = ask(_asked(options, "hour"))
    rows = _rows(answer)
    if isinstance(scenario, Shift):
        price_of, about = _shifted(scenario.hours, rows, ask)
        notes: tuple[str, ...] = ()
    else:
        price_of, about, notes = _history(scenario, rows, config(), clock)
    lines = merged(
        (line(row, price_of(row)) for row in rows),
        lambda hour: {"all": "all", "day": hour[:10], "hour": hour}[by],
    )
    return Priced(answer, by, lines, about, None, notes)


def _shifted(hours: int, rows: list[TotalsRow], ask: Ask) -> tuple[PriceOf, str]:
    """The prices that the books hold of other hours."""
    prices: dict[int, Alternative | None] = {}
    if rows:
        first_ns, last_ns = (_start_ns(row) + hours * HOUR_NS for row in (rows[0], rows[-1]))
        span = {"since": iso(max(first_ns, 0)), "until": iso(last_ns + HOUR_NS)}
        asked = {"by": "hour", **{name: at or "0" for name, at in span.items()}}
        prices = {_start_ns(row): booked_price(row) for row in _rows(ask(asked))}
    when = f"{abs(hours)} h {'earlier' if hours < 0 else 'later'}"
    return (
        lambda row: prices.get(_start_ns(row) + hours * HOUR_NS),
        f"the same energy {when}, at the prices of the books by the hour",
    )


def _history(
    scenario: Zone, rows: list[TotalsRow], config: Config, clock: Callable[[], int]
) -> tuple[PriceOf, str, tuple[str, ...]]:
    """What a source has published for the hours."""
    (asked, *_) = sources_of(config, scenario.zone, scenario.source, OPTION)
    now_ns = clock()
    try:
        source = _who_knows(asked, now_ns)
        signals = _published(source, rows, now_ns)
    except GridError as error:
        raise WattledgerError(f"no history: {error.message}", error.hint) from error
    means = _hourly_means(Curve(periods_of(signals)), rows, now_ns)
    water = _hourly_means(Curve(periods_of(signals, lambda s: s.ewif_ul_per_kwh)), rows, now_ns)
    yearly: Fraction | None = None
    table = CountryTable.load()
    if source.zone in table:
        yearly = Fraction(table.ewif(source.zone).ul_per_kwh)
    basis = str(source.basis)

    def price_of(row: TotalsRow) -> Alternative | None:
        mean = means.get(start := _start_ns(row))
        return None if mean is None else Alternative(mean, water.get(start, yearly), basis)

    notes = _water_of_hours(len(means), len(means.keys() & water.keys()), yearly is not None)
    if source.basis is Basis.MARGINAL:
        notes.append("MARGINAL: what one kWh more would cause; no books hold such a figure.")
    through = "" if source.name == asked.name else f" and passed on by {asked.name}"
    about = f"the grid of {source.zone}, as published by {source.name}{through}, by the hour"
    return price_of, about, tuple(notes)


def _who_knows(source: Source, now_ns: int) -> HistorySource:
    """The source itself; of a relay the first one behind it that knows its past.

    A relay has no basis and no name of its own: those of whoever is behind it are told.

    Raises:
        GridError: the relay did not say who is behind it.
        WattledgerError: nobody knows it.
    """
    if isinstance(source, Relay):
        voices = source.voices(now_ns)
        if not voices:
            text = f"no source of {source.zone} behind {source.name} knows its past"
            raise WattledgerError(text, "name another source")
        return voices[0]
    if not isinstance(source, History):
        raise WattledgerError(f"{source.name} publishes no history", "name another source")
    return source


def _published(source: HistorySource, rows: list[TotalsRow], now_ns: int) -> list[GridSignal]:
    """What it has published for the hours of the rows.

    Raises:
        GridError: it could not be asked.
    """
    if not rows:
        return []
    return source.between(_start_ns(rows[0]), _start_ns(rows[-1]) + HOUR_NS, now_ns)


def _hourly_means(curve: Curve, rows: list[TotalsRow], now_ns: int) -> dict[int, Fraction]:
    """Hour → its mean, of those hours of which at least a half is known; of this one, so far."""
    means: dict[int, Fraction] = {}
    for start in map(_start_ns, rows):
        # Books of an hour that this clock has not reached are those of a clock that was put back.
        end = min(start + HOUR_NS, now_ns) if start < now_ns else start + HOUR_NS
        exposure, covered_ns = curve.known(start, end)
        if covered_ns > 0 and 2 * covered_ns >= end - start:
            means[start] = Fraction(exposure, covered_ns)
    return means


def _water_of_hours(hours: int, mixed_hours: int, has_yearly: bool) -> list[str]:
    """Whose word the grid's water is."""
    yearly = "the yearly mean of the country table"
    if not mixed_hours:
        return [f"Its grid water is {yearly}."] if has_yearly else []
    mix = "Its grid water is that of the generation mix, by the hour"
    if mixed_hours == hours:
        return [f"{mix}."]
    return [f"{mix}; of {hours - mixed_hours} h without one {yearly if has_yearly else 'unknown'}."]


# ── rows of the API ─────────────────────────────────────────────────────────────────────────────


def _asked(options: argparse.Namespace, by: str) -> dict[str, str]:
    given = {name: getattr(options, name) for name in ("since", "until")}
    return {"by": by, **{name: text for name, text in given.items() if text}}


def _rows(answer: Mapping[str, Any]) -> list[TotalsRow]:
    rows: Iterable[Mapping[str, Any]] = answer["rows"]
    if any(row.get("facility_uj") is None for row in rows):
        raise WattledgerError(
            "the running daemon does not say how much energy the facility used",
            "it is of an older version: restart it",
        )

    def final(row: Mapping[str, Any], quantity: str, unit: str) -> int:
        """By the prices published since and what was restated; else as booked."""
        booked = row[f"{quantity}_{unit}"]
        return int(row.get(f"{quantity}_settled_{unit}", booked))

    return [
        TotalsRow(
            str(row["group"]),
            Amounts(
                int(row["energy_uj"]),
                final(row, "co2e", "ug"),
                final(row, "water_onsite", "ul"),
                final(row, "water_grid", "ul"),
            ),
            int(row["estimated_uj"]),
            tuple(Basis(basis) for basis in _bases(row) if basis),
            int(row.get("facility_settled_uj") or row["facility_uj"]),
        )
        for row in rows
    ]


def _bases(row: Mapping[str, Any]) -> list[str]:
    """What the final CO2e of a row counts."""
    return str(row.get("basis_settled", row["basis"])).split("+")


def _start_ns(row: TotalsRow) -> int:
    """When an hour begins."""
    return int(datetime.fromisoformat(row.group).timestamp()) * NS_PER_S
