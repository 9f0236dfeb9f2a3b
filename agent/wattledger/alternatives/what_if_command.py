"""`wattledger report --what-if`: the energy that the ledger holds, at other prices."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from fractions import Fraction
from typing import Any, NamedTuple

from wattledger.alternatives.scenario import HOUR_NS, OPTION, Mix, Shift, Zone, parse
from wattledger.alternatives.showing import print_lines
from wattledger.alternatives.sources import sources_of
from wattledger.config import Config
from wattledger.core.what_if import Alternative, Line, booked_price, line, merged
from wattledger.core.windows import Curve, periods_of
from wattledger.errors import ConfigError, GridError, WattledgerError
from wattledger.grid.source import History
from wattledger.grid.table import CountryTable
from wattledger.model import Amounts, Basis, TotalsRow
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
    print_lines(priced, options.what_if, options.format)
    return 0


# ── one price for all of it ─────────────────────────────────────────────────────────────────────


def _at_once(options: argparse.Namespace, scenario: Mix | Zone, ask: Ask) -> Priced:
    notes: tuple[str, ...]
    if isinstance(scenario, Mix):
        other = Alternative(scenario.intensity_ug_per_kwh, None, scenario.basis)
        parts = (
            f"{float(100 * share):g} % {fuel} ({float(g):g} g/kWh)"
            for fuel, share, g in scenario.parts
        )
        about = f"electricity made of {', '.join(parts)}"
        notes = ("The fuel table holds no water.",)
    else:
        other, about, notes = _of_table(scenario.zone)
    by = options.by or "kind"
    answer = ask(_asked(options, by))
    return Priced(answer, by, [line(row, other) for row in _rows(answer)], about, other, notes)


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
    notes = () if ewif.zone == signal.zone else (f"Its grid water is that of {ewif.zone}.",)
    return other, f"the grid of {signal.zone}, yearly mean of {year} of the country table", notes


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
    (source, *_) = sources_of(config, scenario.zone, scenario.source, OPTION)
    if not isinstance(source, History):
        raise WattledgerError(f"{source.name} publishes no history", "name another source")
    basis = str(source.basis)
    means = _hourly_means(source, rows, clock())
    ewif: Fraction | None = None
    table = CountryTable.load()
    if source.zone in table:
        ewif = Fraction(table.ewif(source.zone).ul_per_kwh)
    notes = ["Its grid water is the yearly mean of the country table."] if ewif is not None else []
    if source.basis is Basis.MARGINAL:
        notes.append("MARGINAL: what one kWh more would cause; no books hold such a figure.")

    def price_of(row: TotalsRow) -> Alternative | None:
        mean = means.get(_start_ns(row))
        return None if mean is None else Alternative(mean, ewif, basis)

    about = f"the grid of {source.zone}, as published by {source.name}, by the hour"
    return price_of, about, tuple(notes)


def _hourly_means(source: History, rows: list[TotalsRow], now_ns: int) -> dict[int, Fraction]:
    """Hour → its mean intensity, of those hours of which at least a half is known."""
    if not rows:
        return {}
    starts = [_start_ns(row) for row in rows]
    try:
        curve = Curve(periods_of(source.between(starts[0], starts[-1] + HOUR_NS, now_ns)))
    except GridError as error:
        raise WattledgerError(f"no history: {error.message}", error.hint) from error
    known = {start: curve.known(start, start + HOUR_NS) for start in starts}
    return {
        start: Fraction(exposure, covered_ns)
        for start, (exposure, covered_ns) in known.items()
        if 2 * covered_ns >= HOUR_NS
    }


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
