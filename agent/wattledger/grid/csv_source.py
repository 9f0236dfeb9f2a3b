"""A CSV file on this machine: the hours of a contract (PPA), or of a plant of one's own.

    start,end,value
    2024-03-06T19:00:00Z,2024-03-06T20:00:00Z,12.5

Instants in UTC, in any order; columns beyond these are skipped, lines that begin with # as well.
The file is read anew each time, so that it may be replaced; rows that lie ahead are its forecast.
What the numbers count cannot be seen, so that the basis has to be stated.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wattledger.errors import GridError
from wattledger.grid.checks import instant_ns, intensity_ug_per_kwh
from wattledger.grid.outcome import Outcome, failure
from wattledger.grid.provider import DAY_NS, HOUR_NS, coming
from wattledger.grid.quantity import UNITS, in_g_per_kwh
from wattledger.model import Basis, GridSignal

_MAX_BYTES = 16 * 1024 * 1024  # the quarter hours of several years
_WINDOW_NS = 6 * HOUR_NS
_AHEAD_NS = 3 * DAY_NS
_LONGEST_NS = 31 * DAY_NS
_COLUMNS = {"start", "end", "value"}
_HINT = "write rows of start,end,value with instants such as 2024-03-06T19:00:00Z"


class CsvSource:
    """The source `csv`.

    Args:
        zone: what the site calls the place or the contract; a label.
        file: the file.
        basis: what its values count.
        unit: a key of `quantity.UNITS`.
        interval_ns: how often to look into it.
        name: the `source` label.

    Raises:
        ValueError: there is no file, or the unit is not known.
    """

    def __init__(
        self,
        *,
        zone: str,
        file: str,
        basis: Basis,
        unit: str = "g/kWh",
        interval_ns: int,
        name: str = "csv",
    ) -> None:
        if not file:
            raise ValueError("csv needs file, the path of the file to read")
        if unit not in UNITS:
            raise ValueError(f"unit is one of {', '.join(UNITS)}")
        self.name = name
        self.zone = zone
        self.basis = basis
        self.cadence_ns = interval_ns
        self._unit = unit
        self._path = Path(file)

    def latest(self, now_wall_ns: int) -> list[GridSignal]:
        """The rows of the last hours that have begun. See `Source.latest`."""
        rows = self._read(now_wall_ns - _WINDOW_NS, now_wall_ns + 1, now_wall_ns)
        if not rows:
            raise failure(Outcome.NO_DATA, f"{self._path} has no row for now", hint=_HINT)
        return rows

    def between(self, start_ns: int, end_ns: int, now_wall_ns: int) -> list[GridSignal]:
        """The rows of a span. See `History.between`."""
        if start_ns >= end_ns:
            raise ValueError("a span ends after it starts")
        return self._read(start_ns, end_ns, now_wall_ns)

    def forecast(self, now_wall_ns: int) -> list[GridSignal]:
        """The rows of the next three days. See `Outlook.forecast`."""
        rows = self._read(now_wall_ns, now_wall_ns + _AHEAD_NS, now_wall_ns, estimated=True)
        return coming(rows, now_wall_ns)

    def _read(
        self, start_ns: int, end_ns: int, now_wall_ns: int, *, estimated: bool = False
    ) -> list[GridSignal]:
        """The rows that reach into a span, oldest first; a row that is wrong costs itself."""
        found: dict[int, GridSignal] = {}
        problem: GridError | None = None
        for row in self._rows():
            try:
                from_ns, to_ns = instant_ns(row["start"], "start"), instant_ns(row["end"], "end")
                if not from_ns < to_ns <= from_ns + _LONGEST_NS:
                    raise failure(Outcome.BAD_VALUE, "a row does not end after it starts")
                if to_ns <= start_ns or from_ns >= end_ns:
                    continue
                value = in_g_per_kwh(row["value"], self._unit, texts=True)
                intensity = intensity_ug_per_kwh(value, self.basis)
            except GridError as error:
                problem = failure(Outcome.BAD_VALUE, f"{self._path}: {error.message}", hint=_HINT)
                continue
            found[from_ns] = GridSignal(
                intensity_ug_per_kwh=intensity,
                zone=self.zone,
                source=self.name,
                basis=self.basis,
                valid_from_ns=from_ns,
                valid_to_ns=to_ns,
                estimated=estimated,
                fetched_at_ns=now_wall_ns,
                cadence_ns=self.cadence_ns,
            )
        if problem is not None and not found:
            raise problem
        return [found[key] for key in sorted(found)]

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The rows below the line that names the columns."""
        try:
            # A FIFO would be waited for, and a device may never end.
            if not self._path.is_file() or self._path.stat().st_size > _MAX_BYTES:
                raise OSError("it is no file, or it is too large")
            with self._path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(line for line in file if not line.startswith("#"))
                if not set(reader.fieldnames or ()) >= _COLUMNS:
                    raise failure(
                        Outcome.BAD_VALUE, f"{self._path} lacks a column of its own", hint=_HINT
                    )
                yield from reader
        except (OSError, ValueError, csv.Error) as error:
            raise failure(
                Outcome.NO_DATA, f"{self._path} cannot be read: {error}", hint=_HINT
            ) from None
