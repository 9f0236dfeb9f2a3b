"""The settings of weather, live PUE and water stress: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from wattledger import build
from wattledger.config import parse_config
from wattledger.config.check import check_tokens
from wattledger.errors import ConfigError

PLACE = "[site.weather]\nlatitude = 52.52\nlongitude = 13.41\n"


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("[site.weather]\nlatitude = 5", "site.weather.longitude", "a place has both"),
        ("[site.weather]\nlongitude = 5", "site.weather.latitude", "a place has both"),
        ("[site.weather]\nlatitude = 91\nlongitude = 0", "site.weather.latitude", "-90 to 90"),
        ("[site.weather]\nlatitude = 1\nlongitude = 181", "site.weather.longitude", "180"),
        ("[site.weather]\nlatitude = nan\nlongitude = 1", "site.weather.latitude", "range"),
        (PLACE + 'url = "http://weather.local/v1"', "site.weather.url", "loopback"),
        (PLACE + 'kind = "moon"', "site.weather.kind", "open_meteo"),
        (PLACE + "cycles_of_concentration = 1.0", "site.weather.cycles_of_concentration", "1.5"),
        ('[site.live_pue]\nkind = "neso"', "site.live_pue.kind", "prometheus"),
        ('[site.live_pue]\nkind = "json"', "site.live_pue", "url is missing"),
        (
            '[site.live_pue]\nkind = "json"\nurl = "https://h/"',
            "site.live_pue",
            "pointer is missing",
        ),
        ('[site.live_pue]\nkind = "prometheus"\nurl = "https://h"', "site.live_pue", "query"),
        ('[site.live_pue]\nkind = "csv"', "site.live_pue", "file"),
        ('[site.live_pue]\ninterval = "5s"', "site.live_pue.interval", '"1m" to "1d"'),
        ("[site.live_pue]\nunit = 1", "site.live_pue.unit", "unknown key"),
        ("[site]\nwater_stress_factor = 0.01", "site.water_stress_factor", "0.1 to 100"),
    ],
)
def test_what_is_refused(text: str, path: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert [fault[0] for fault in caught.value.faults] == [path]
    assert words in caught.value.faults[0][1]


def test_tokens_are_looked_for(tmp_path: Path) -> None:
    missing, open_to_all = tmp_path / "missing", tmp_path / "open"
    open_to_all.write_text("secret")
    open_to_all.chmod(0o644)
    config = parse_config(
        PLACE + f'token_file = "{missing}"\n'
        f'[site.live_pue]\nkind = "json"\nurl = "https://h/"\npointer = "/a"\n'
        f'token_file = "{open_to_all}"\n'
    )
    with pytest.raises(ConfigError) as caught:
        check_tokens(config)
    assert [fault[0] for fault in caught.value.faults] == [
        "site.weather.token_file",
        "site.live_pue.token_file",
    ]
    assert "secret" not in str(caught.value)
    check_tokens(parse_config(PLACE + 'token_file = "%d/open_meteo"'))  # systemd's to make


def test_all_is_off_by_default() -> None:
    config = parse_config("")
    assert config.site.weather.latitude is None
    assert config.site.live_pue.kind == ""
    assert build.site_factors(config).water_stress_factor is None
    stressed = parse_config("[site]\nwater_stress_factor = 2")
    assert build.site_factors(stressed).water_stress_factor == 2.0
