"""The country table: yearly carbon intensities and water factors, packaged with their provenance.

The last resort of every zone, and the default. The figures and their sources are in
`data/country_factors.csv`, whose leading comment lines are the provenance shown to people.
"""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime
from typing import NamedTuple

from wattledger.errors import ConfigError
from wattledger.model import Basis, GridSignal
from wattledger.units import NS_PER_S, micro

WORLD = "WORLD"
YEAR_NS = 365 * 86_400 * NS_PER_S
_RETRIEVED = re.compile(r"retrieved (\d{4}-\d\d-\d\d)")
# Bidding zones, which are written without their country's code before them.
_AREAS = {
    f"{country}{number}": country
    for country, count in (("DK", 2), ("NO", 5), ("SE", 4))
    for number in range(1, count + 1)
}
_COMMON = {"UK": "GB", "EL": "GR", "EU": WORLD}  # what people write for an ISO 3166 code


class CountryRow(NamedTuple):
    """A country's factors.

    Attributes:
        zone: ISO 3166-1 alpha-2, or `WORLD`.
        alpha3: ISO 3166-1 alpha-3, or empty.
        name: for people.
        year: of the carbon intensity.
        intensity_ug_per_kwh: None where nothing usable is published. An exact 0 is such a case: no
            grid has a life-cycle intensity of 0, it is a gap or a rounding.
        ewif_ul_per_kwh: water consumed per kWh of facility energy; None: not published.
    """

    zone: str
    alpha3: str
    name: str
    year: int
    intensity_ug_per_kwh: int | None
    ewif_ul_per_kwh: int | None


class Ewif(NamedTuple):
    """A water factor and the zone it was published for: `WORLD` where the country's own is not."""

    ul_per_kwh: int
    zone: str


class CountryTable:
    """The packaged table; `provenance` holds its sources, licences and dates, one line each."""

    def __init__(self, text: str) -> None:
        lines = text.splitlines()
        self.provenance = tuple(line[1:].strip() for line in lines if line.startswith("#"))
        retrieved = _RETRIEVED.search(text)
        if retrieved is None:
            raise ValueError("the table does not say when it was retrieved")
        self._retrieved_ns = _midnight_ns(retrieved[1])
        self._rows = {
            fields["zone"]: _row(fields)
            for fields in csv.DictReader(line for line in lines if not line.startswith("#"))
        }

    @classmethod
    def load(cls) -> CountryTable:
        """The table that comes with the program."""
        import pkgutil  # a third of the memory of importlib.resources

        raw = pkgutil.get_data("wattledger.grid", "data/country_factors.csv")
        if raw is None:
            raise FileNotFoundError("wattledger/grid/data/country_factors.csv")
        return cls(raw.decode("utf-8"))

    @property
    def zones(self) -> tuple[str, ...]:
        """Every zone that has a row of its own."""
        return tuple(self._rows)

    def __contains__(self, zone: str) -> bool:
        return _country(zone) in self._rows

    def row(self, zone: str) -> CountryRow:
        """The factors of a zone's country: `US-CAR-DUK` is in `US`.

        Raises:
            ConfigError: no such country; names the ones that may be meant.
        """
        found = self._rows.get(_country(zone))
        if found is None:
            near = ", ".join(f"{row.zone} ({row.name})" for row in self._near(zone))
            meant = f"; did you mean {near}?" if near else "; write an ISO 3166 code such as DE"
            text = f"{zone[:60]!r} is not in the country table{meant} ({WORLD} is the world's mean)"
            raise ConfigError([("site.zone", text)])
        return found

    def stand_in(self, zone: str) -> str:
        """The row that stands in for a zone that a provider serves: its country, else `WORLD`.

        Raises:
            ConfigError: the zone is another spelling of a country that is here, as `UK` and `DEU`
                are: no provider is asked for those.
        """
        if zone not in self and self._spelt(zone) is None:
            return WORLD
        return self.row(zone).zone

    def signal(self, zone: str) -> GridSignal:
        """The country's yearly mean as a signal: valid for its year, used beyond it.

        Its `zone` is the table's: `US` for `US-CAR-DUK`, and `WORLD` where nothing usable is
        published for the country. `fetched_at_ns` is when the table was retrieved.

        Raises:
            ConfigError: no such country.
        """
        row = self.row(zone)
        if row.intensity_ug_per_kwh is None:
            row = self._rows[WORLD]
        assert row.intensity_ug_per_kwh is not None  # noqa: S101 - a test holds the packaged file
        return GridSignal(
            intensity_ug_per_kwh=row.intensity_ug_per_kwh,
            zone=row.zone,
            source="table",
            basis=Basis.LIFECYCLE,
            valid_from_ns=_midnight_ns(f"{row.year:04d}-01-01"),
            valid_to_ns=_midnight_ns(f"{row.year + 1:04d}-01-01"),
            estimated=True,
            fetched_at_ns=self._retrieved_ns,
            cadence_ns=YEAR_NS,
        )

    def ewif(self, zone: str) -> Ewif:
        """The water factor of a zone's country, the world's where the country's is not published.

        Raises:
            ConfigError: no such country.
        """
        for row in (self.row(zone), self._rows[WORLD]):
            if row.ewif_ul_per_kwh is not None:
                return Ewif(row.ewif_ul_per_kwh, row.zone)
        raise AssertionError("the world row has a water factor")

    def _spellings(self) -> dict[str, CountryRow]:
        """What people write for each row, in capitals: its code, alpha-3, a name, a common word."""
        rows = self._rows.values()
        spellings = {text: row for row in rows for text in (row.zone, row.alpha3, row.name.upper())}
        spellings.pop("", None)
        return spellings | {word: self._rows[zone] for word, zone in _COMMON.items()}

    def _spelt(self, text: str) -> CountryRow | None:
        """The row that a text is another spelling of, or a part of its country."""
        spellings = self._spellings()
        word = text.strip().upper()
        return spellings.get(word) or spellings.get(word.partition("-")[0])

    def _near(self, text: str) -> list[CountryRow]:
        """The rows that may be meant by a text."""
        if exact := self._spelt(text):
            return [exact]
        import difflib

        spellings = self._spellings()
        word = text.strip().upper()[:60]
        close = difflib.get_close_matches(word, spellings, n=3, cutoff=0.7)
        return list(dict.fromkeys(spellings[spelling] for spelling in close))


def _country(zone: str) -> str:
    """What a zone is looked up by: `US` for `US-CAR-DUK`, `DK` for `DK1`."""
    head = zone.partition("-")[0]
    return _AREAS.get(head, head)


def _row(fields: dict[str, str]) -> CountryRow:
    intensity, ewif = fields["gco2e_per_kwh"], fields["ewif_l_per_kwh"]
    return CountryRow(
        zone=fields["zone"],
        alpha3=fields["alpha3"],
        name=fields["name"],
        year=int(fields["year"]),
        intensity_ug_per_kwh=(micro(intensity) or None) if intensity else None,
        ewif_ul_per_kwh=micro(ewif) if ewif else None,
    )


def _midnight_ns(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * NS_PER_S
