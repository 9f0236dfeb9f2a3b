"""Zones that a live source knows and the country table does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes import FakeClock
from wattledger import build
from wattledger.config import Config, parse_config
from wattledger.doctor import examine
from wattledger.errors import ConfigError
from wattledger.grid.table import CountryTable
from wattledger.model import FallbackLevel
from wattledger.remote import Remote

KOSOVO = "XK"  # a zone of Electricity Maps; no ISO 3166 code, and no row of the table


def maps(zone: str, source_zone: str = "") -> str:
    asked = f'zone = "{source_zone}"' if source_zone else ""
    return f"""
        [site]
        zone = "{zone}"
        [[grid.source]]
        kind = "electricity_maps"
        token_file = "/run/credentials/token"
        {asked}
    """


def refusal(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return dict(caught.value.faults)


def last_resort(config: Config) -> tuple[str, int, FallbackLevel]:
    clock = FakeClock()
    choice = build.grid_feed(config, clock, ()).at(clock.now().wall_ns)
    return choice.signal.zone, choice.signal.intensity_ug_per_kwh, choice.level


def test_the_table_lacks_the_zone_that_these_tests_are_about() -> None:
    assert KOSOVO not in CountryTable.load()


@pytest.mark.parametrize("zone", [KOSOVO, f"{KOSOVO}-1"])
@pytest.mark.parametrize("named", [False, True])
def test_a_zone_that_a_source_serves_falls_back_to_the_world(zone: str, named: bool) -> None:
    config = parse_config(maps(zone, zone if named else ""))
    site = build.site_factors(config)
    world = CountryTable.load()

    assert last_resort(config) == (
        "WORLD",
        world.signal("WORLD").intensity_ug_per_kwh,
        FallbackLevel.TABLE,
    )
    assert (site.ewif_ul_per_kwh, site.ewif_source) == (world.ewif("WORLD").ul_per_kwh, "default")
    assert [status.source for status in build.grid_feed(config, FakeClock(), ()).statuses()] == [
        "electricity_maps"
    ]


def test_a_zone_of_both_keeps_its_country() -> None:
    config = parse_config(maps("US-CAR-DUK"))
    table = CountryTable.load()

    assert last_resort(config)[:2] == ("US", table.signal("US").intensity_ug_per_kwh)
    assert build.site_factors(config).ewif_ul_per_kwh == table.ewif("US").ul_per_kwh
    assert build.site_factors(config).ewif_source == "table"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f'[site]\nzone = "{KOSOVO}"', id="no-source"),
        pytest.param(f'[site]\nzone = "{KOSOVO}"\n[grid]\nsource = []', id="sources-off"),
        pytest.param(maps(KOSOVO, "RS"), id="source-of-another-zone"),
        pytest.param(f'[site]\nzone = "{KOSOVO}"\n[[grid.source]]\nkind = "neso"', id="not-its"),
        pytest.param(f'[site]\nzone = "{KOSOVO}"\n[[grid.source]]\nkind = "x"', id="no-such-kind"),
        pytest.param(maps("xk"), id="not-as-the-source-writes-it"),
    ],
)
def test_a_zone_that_nothing_serves_is_refused(text: str) -> None:
    assert "ISO 3166" in refusal(text)["site.zone"]


@pytest.mark.parametrize(
    ("zone", "meant"),
    [("UK", "GB (United Kingdom)"), ("DEU", "DE (Germany)"), ("EL-X", "GR (Greece)")],
)
def test_another_spelling_of_a_country_is_refused_whatever_the_source(
    zone: str, meant: str
) -> None:
    # Written as a zone of Electricity Maps is, but it has none of this name.
    assert f"did you mean {meant}" in refusal(maps(zone))["site.zone"]
    assert f"did you mean {meant}" in refusal(f'[site]\nzone = "{zone}"')["site.zone"]


def test_doctor_looks_at_such_a_zone_as_at_any_other(tmp_path: Path) -> None:
    config = parse_config(
        maps(KOSOVO).replace("/run/credentials", str(tmp_path))
        + f"""
        [meters]
        nvml.enabled = false
        [path]
        sysfs = "{tmp_path}"
        [ledger]
        path = "{tmp_path}/ledger.sqlite"
        """
    )
    found = [finding for finding in examine(config, Remote([])) if finding.area == "grid"]

    assert [finding.level for finding in found] == ["problem"]  # the token, asked of nobody
    assert "token" in found[0].message
