"""The packaged country table: complete, plausible, and clear about what it does not know."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from wattledger.errors import ConfigError
from wattledger.grid.table import WORLD, CountryTable
from wattledger.model import Basis
from wattledger.units import NS_PER_S

TABLE = CountryTable.load()

HEADER = (
    "# carbon: a source, retrieved 2026-09-26\nzone,alpha3,name,year,gco2e_per_kwh,ewif_l_per_kwh\n"
)


def _ns(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * NS_PER_S


@pytest.mark.parametrize(
    ("zone", "year", "intensity_ug", "ewif_ul"),
    [
        # Ember via Our World in Data; WRI 2020.
        ("WORLD", 2024, 473_000_000, 3_908_000),
        ("US", 2025, 384_400_000, 3_132_100),
        ("FR", 2025, 41_400_000, 3_673_700),
        ("GB", 2025, 217_400_000, 2_329_000),
        ("BR", 2025, 110_000_000, 18_603_300),
        ("AE", 2024, 467_500_000, None),
    ],
)
def test_rows(zone: str, year: int, intensity_ug: int, ewif_ul: int | None) -> None:
    row = TABLE.row(zone)
    assert (row.zone, row.year) == (zone, year)
    assert row.intensity_ug_per_kwh == intensity_ug
    assert row.ewif_ul_per_kwh == ewif_ul


def test_a_part_of_a_country_is_the_country() -> None:
    assert TABLE.row("US-CAR-DUK") == TABLE.row("US")
    assert TABLE.signal("US-CAR-DUK").zone == "US"
    assert "US-CAR-DUK" in TABLE
    assert "XX-YY" not in TABLE


def test_the_signal_is_a_yearly_estimate() -> None:
    signal = TABLE.signal("DE")
    assert signal.source == "table"
    assert signal.basis is Basis.LIFECYCLE
    assert signal.estimated
    assert (signal.valid_from_ns, signal.valid_to_ns) == (_ns(2025), _ns(2026))
    assert signal.fetched_at_ns == int(datetime(2026, 9, 26, tzinfo=UTC).timestamp()) * NS_PER_S


def test_a_water_factor_that_is_not_published_is_the_worlds_and_says_so() -> None:
    assert TABLE.ewif("DE") == (1_947_000, "DE")
    assert TABLE.ewif("AE") == (3_908_000, WORLD)


def test_an_intensity_of_zero_is_a_gap_and_the_world_stands_in() -> None:
    row = TABLE.row("CF")
    assert row.intensity_ug_per_kwh is None
    assert TABLE.signal("CF").zone == WORLD
    assert TABLE.signal("CF").intensity_ug_per_kwh == 473_000_000


def test_every_row_gives_a_plausible_signal_and_water_factor() -> None:
    zones = list(TABLE.zones)
    assert len(zones) >= 200
    for zone in zones:
        signal = TABLE.signal(zone)
        assert 10_000_000 <= signal.intensity_ug_per_kwh <= 1_500_000_000, zone
        assert 1_000_000 <= TABLE.ewif(zone).ul_per_kwh <= 20_000_000, zone
        assert 2020 <= TABLE.row(zone).year <= 2026
        assert zone == WORLD or (len(zone) == 2 and len(TABLE.row(zone).alpha3) == 3)


def test_provenance_names_sources_licences_and_the_date() -> None:
    carbon, water = TABLE.provenance
    assert "Ember" in carbon and "CC BY 4.0" in carbon and "retrieved 2026-09-26" in carbon
    assert "WRI 2020" in water and "CC BY 4.0" in water


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("de", "DE (Germany)"),
        ("UK", "GB (United Kingdom)"),
        ("USA", "US (United States)"),
        ("germany", "DE (Germany)"),
        ("Deutschland", "ISO 3166"),
        ("Untied States", "US (United States)"),
        ("world", "WORLD (World)"),
        ("us-CAR-DUK", "US (United States)"),
        ("", "ISO 3166"),
        ("-", "ISO 3166"),
        ("x" * 100_000, "ISO 3166"),
    ],
)
def test_an_unknown_zone_names_what_may_be_meant(text: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TABLE.row(text)
    [(path, sentence)] = caught.value.faults
    assert path == "site.zone"
    assert meant in sentence
    assert "WORLD" in sentence


def test_a_table_without_a_date_is_refused() -> None:
    with pytest.raises(ValueError, match="retrieved"):
        CountryTable(HEADER.replace("retrieved", "of"))


def test_a_changed_figure_is_a_changed_signal() -> None:
    table = CountryTable(HEADER + "WORLD,,World,2024,473.0,3.9\nXX,XXX,X,2023,0.5,\n")
    assert table.signal("XX").intensity_ug_per_kwh == 500_000
    assert table.ewif("XX") == (3_900_000, WORLD)
