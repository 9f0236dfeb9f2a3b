"""Weather and a measured PUE over a real daemon: taken up, reloaded, kept over a kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from e2e.daemon import FINE, Daemon
from e2e.test_grid_live import SCENARIO
from grid_server import GridServer, Script, reply

Start = Callable[..., Daemon]


def weather(temperature_c: float) -> dict[str, Any]:
    at = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() // 900 * 900))
    return {
        "latitude": 52.5,
        "longitude": 13.4,
        "utc_offset_seconds": 0,
        "current_units": {"temperature_2m": "°C", "relative_humidity_2m": "%"},
        "current": {"time": at, "temperature_2m": temperature_c, "relative_humidity_2m": 50},
    }


def site(temperature_c: float, pue: float) -> Script:
    """A server of both."""
    air, meter = reply(body=weather(temperature_c)), reply(body={"pue": pue})
    return lambda connection, request, stop: (
        air if request.target.startswith("/v1/forecast") else meter
    )(connection, request, stop)


def settings(server: GridServer, meter: bool = True) -> str:
    text = (
        '[site]\nzone = "WORLD"\nwue_l_per_kwh = 0.2\npue = 1.3\nwater_stress_factor = 2.0\n'
        f'[site.weather]\nlatitude = 52.5\nlongitude = 13.4\nurl = "{server.url}/v1"\n'
    )
    if meter:
        text += f'[site.live_pue]\nkind = "json"\nurl = "{server.url}/dcim"\npointer = "/pue"\n'
    return FINE + text


def test_the_factors_of_a_site_follow_what_is_told(daemon: Start) -> None:
    node = daemon(scenario=SCENARIO)
    with GridServer(site(20, 1.2104)) as server:
        node.configure(settings(server))
        node.start()
        page = node.scrape_when(lambda page: page.one("pue_ratio") == 1.21, what="the live PUE")
        assert page.one("wue_liters_per_kwh", source="weather") == 3.57
        assert page.one("water_stress_factor") == 2
        asked = page.one("grid_requests_total", source="open_meteo", outcome="ok")
        assert asked == 1
        assert [s["source"] for s in node.api("status")["site_sources"]] == [
            "open_meteo",
            "live_pue",
        ]
        node.next_commit()
        node.configure(settings(server, meter=False))  # the meter is taken off, the weather stays
        node.reload()
        page = node.scrape_when(lambda page: page.one("pue_ratio") == 1.3, what="the settings")
        assert page.one("wue_liters_per_kwh", source="weather") == 3.57
        node.next_commit()
        server.script = reply(503)
        node.kill()
        node.start()
        page = node.next_commit()
        # Nobody answers any more: what was known before the kill still holds.
        assert page.one("wue_liters_per_kwh", source="weather") == 3.57
        total = node.api("totals")
        weighted = total["total"]["water_onsite_l"] * 2
        assert abs(total["water_stress_weighted_l"] - weighted) < 1e-9
    node.terminate()
    node.assert_no_traceback()
    node.assert_books_balance()
    used = set(node.query("SELECT pue_ppm, pue_source, wue_ul_per_kwh, wue_source FROM price"))
    assert used >= {
        (1_210_000, "live", 3_570_000, "weather"),
        (1_300_000, "config", 3_570_000, "weather"),
    }
