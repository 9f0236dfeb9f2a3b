"""Carbon intensity over a real daemon: live, outage, last good, table; the token stays ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from e2e.daemon import FINE, Daemon, clear_of_the
from e2e.page import Page
from grid_server import GridServer, Script, drip_body, electricity_maps_body, neso_body, reply

Start = Callable[..., Daemon]

CANARY = "canary-0af5c1d7-token"
SCENARIO = """
[[gpu]]
model = "H100 SXM"
waveform = { kind = "constant", watts = 500 }
"""
HALF_HOUR_S = 1800
HOUR_S = 3600


def iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def neso_for(start_s: float, actual: float) -> dict[str, object]:
    return neso_body(iso(start_s), iso(start_s + HALF_HOUR_S), actual=actual)


def last_half_hour_s() -> float:
    """When the last complete one began; the present one ends later than the test."""
    clear_of_the(HALF_HOUR_S)
    return time.time() // HALF_HOUR_S * HALF_HOUR_S - HALF_HOUR_S


def maps_for(start_s: float, intensity: float, **more: object) -> dict[str, object]:
    return electricity_maps_body(
        zone="DE",
        carbonIntensity=intensity,
        datetime=iso(start_s),
        isEstimated=False,
        **more,
    )


def live_for(live_s: float, intensity: float) -> Script:
    """A signal that ceases to be live so long after it was asked for first."""
    start_s = 0.0

    def play(*arguments: Any) -> None:
        nonlocal start_s
        # An hourly source's signal is live for two hours after its end.
        start_s = start_s or time.time() - HOUR_S - 2 * HOUR_S + live_s
        reply(body=maps_for(start_s, intensity))(*arguments)

    return play


def maps_source(node: Daemon, server: GridServer) -> str:
    token = node.home / "token"
    token.write_text(CANARY + "\n")
    token.chmod(0o600)
    return (
        f'[[grid.source]]\nkind = "electricity_maps"\nzone = "DE"\n'
        f'url = "{server.url}/v3"\ntoken_file = "{token}"\n'
    )


def assert_secret_kept(node: Daemon, page: Page) -> None:
    """The token is nowhere but in its file and in the request."""
    shown = [
        page.text,
        node.get("/").body.decode(),
        node.get("/api/v1/status").body.decode(),
        node.log(),
        Path(f"/proc/{node.pid}/cmdline").read_text(),
        Path(f"/proc/{node.pid}/environ").read_text(),
    ]
    for command in (
        ("config", "show", "--config", str(node.config_file)),
        ("doctor", "--json", "--socket", str(node.home / "ledger.sock")),
    ):
        done = node.cli(*command)
        shown += [done.stdout, done.stderr]
    assert not [text for text in shown if CANARY in text]
    for path in node.home.glob("ledger.sqlite*"):
        assert CANARY.encode() not in path.read_bytes(), path


def entries(node: Daemon) -> dict[tuple[str, int], tuple[int, int, int, int]]:
    """(source, level) → (µg per kWh, µJ, µg, how many) of the GPU's entries so priced."""
    rows = node.query(
        "SELECT source, level, max(intensity_ug_per_kwh), sum(energy_uj), sum(co2e_ug),"
        " count(*)"
        " FROM entry JOIN price ON price.id = price_id JOIN device ON device.id = device_id"
        " WHERE device.kind = 'gpu' GROUP BY 1, 2"
    )
    return {(row[0], row[1]): row[2:] for row in rows}


def test_neso_live(daemon: Start) -> None:
    start_s = last_half_hour_s()
    with GridServer(reply(body=neso_for(start_s, 263))) as server:
        node = daemon(
            FINE + f'site = {{ zone = "GB", pue = 1.0 }}\n'
            f'[[grid.source]]\nkind = "neso"\nurl = "{server.url}"',
            scenario=SCENARIO,
        ).start()
        page = node.scrape_when(lambda page: page.one("grid_fallback_level") == 0)
        # It lies behind us: live, and an estimate for now.
        labels = {"grid_zone": "GB", "source": "neso", "basis": "generation", "estimated": "true"}
        assert page.one("grid_carbon_intensity_grams_per_kwh", **labels) == 263
        assert page.one("grid_signal_timestamp_seconds", **labels) == start_s
        assert page.one("grid_requests_total", source="neso", outcome="ok") == 1
        assert [request.target for request in server.requests] == ["/intensity"]
        later = node.next_commit()
        grown_j = later.sum("energy_joules_total", kind="gpu") - page.sum(
            "energy_joules_total", kind="gpu"
        )
        grown_g = later.sum("co2e_grams_total", basis="generation", kind="gpu") - page.sum(
            "co2e_grams_total", basis="generation", kind="gpu"
        )
        assert grown_g == pytest.approx(grown_j / 3.6e6 * 263, rel=0.01, abs=2e-5)
        node.terminate()
        node.assert_books_balance()

        # Over a restart the signal is remembered, and the provider is left alone.
        page = node.start().scrape()
        assert page.one("grid_fallback_level") == 0
        time.sleep(2)
        assert len(server.requests) == 1


def test_live_then_last_good_then_the_table(daemon: Start) -> None:
    """A signal that lapses as live in seconds, and as last good some seconds later."""
    node = daemon(scenario=SCENARIO)
    with GridServer(live_for(10, 321)) as server:
        node.configure(
            FINE + 'site = { zone = "DE", pue = 1.0 }\n'
            'grid.max_age = "2h10s"\n' + maps_source(node, server)
        )
        node.start()
        live = node.scrape_when(lambda page: page.one("grid_fallback_level") == 0)
        server.script = reply(503)
        assert server.requests[0].headers["auth-token"] == CANARY
        labels = {"source": "electricity_maps", "basis": "lifecycle", "grid_zone": "DE"}
        assert live.one("grid_carbon_intensity_grams_per_kwh", **labels) == 321

        good = node.scrape_when(lambda page: page.one("grid_fallback_level") == 1)
        assert good.one("grid_carbon_intensity_grams_per_kwh", estimated="true", **labels) == 321
        table = node.scrape_when(lambda page: page.one("grid_fallback_level") == 2)
        assert table.labels("grid_carbon_intensity_grams_per_kwh", "source") == {"table"}
        table_g = table.one("grid_carbon_intensity_grams_per_kwh", grid_zone="DE")
        assert table_g != 321
        table.assert_not_below(good)
        good.assert_not_below(live)
        end = node.next_commit()
        assert_secret_kept(node, end)
        node.terminate()
    node.assert_no_traceback()
    node.assert_books_balance()
    # Each part of the energy was priced with what was in force in its time.
    booked = entries(node)
    assert {("electricity_maps", 0), ("electricity_maps", 1), ("table", 2)} <= set(booked)
    for intensity_ug, energy_uj, co2e_ug, count in booked.values():
        assert energy_uj > 0
        # Of each entry less than a microgram is cut off.
        assert 0 <= energy_uj * intensity_ug / 3_600_000_000_000 - co2e_ug < count
    assert node.log().count("carbon intensity: live from electricity_maps") == 1


def test_the_next_source_is_asked_when_the_first_refuses(daemon: Start) -> None:
    with (
        GridServer(reply(401)) as refusing,
        GridServer(reply(body=neso_for(last_half_hour_s(), 150))) as neso,
    ):
        node = daemon(scenario=SCENARIO)
        token = maps_source(node, refusing).replace('zone = "DE"', 'zone = "GB"')
        node.configure(
            FINE + f'site.zone = "GB"\n{token}[[grid.source]]\nkind = "neso"\nurl = "{neso.url}"'
        )
        node.start()
        page = node.scrape_when(lambda page: page.one("grid_fallback_level") == 0)
        assert page.labels("grid_carbon_intensity_grams_per_kwh", "source") == {"neso"}
        assert page.one("grid_requests_total", source="electricity_maps", outcome="http_401") == 1
        (status,) = [
            source
            for source in node.api("status")["grid_sources"]
            if source["source"] == "electricity_maps"
        ]
        assert status["message"] and status["hint"]
        assert_secret_kept(node, page)


def test_a_token_follows_no_redirect(daemon: Start) -> None:
    with GridServer(reply(body={})) as thief:
        elsewhere = reply(302, headers={"Location": f"{thief.url}/v3/carbon-intensity/latest"})
        with GridServer(elsewhere) as server:
            node = daemon(scenario=SCENARIO)
            node.configure(FINE + 'site.zone = "DE"\n' + maps_source(node, server))
            node.start()
            page = node.scrape_when(
                lambda page: page.sum("grid_requests_total", source="electricity_maps") > 0
            )
            assert page.one("grid_fallback_level") == 2
            time.sleep(1)
            assert len(server.requests) == 1
        assert thief.requests == []


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(drip_body(), id="drip"),
        pytest.param(reply(body=b"\xff\xfe" * 100), id="noise"),
        pytest.param(reply(body=b"[" * 100_000), id="nesting"),
        pytest.param(reply(body=b'{"zone":"DE","carbonIntensity":1e999}'), id="infinity"),
        pytest.param(reply(body=b" " * 20_000_000), id="big"),
    ],
)
def test_a_hostile_provider_changes_nothing_else(daemon: Start, script: object) -> None:
    with GridServer(script) as server:  # type: ignore[arg-type]
        node = daemon(scenario=SCENARIO)
        node.configure(FINE + 'site.zone = "DE"\n' + maps_source(node, server))
        node.start()
        before = node.scrape()
        page = node.scrape_when(
            lambda page: page.sum("grid_requests_total", source="electricity_maps") > 0
        )
        assert page.one("grid_fallback_level") == 2
        assert not page.all("grid_requests_total", outcome="ok")
        grown_j = page.sum("energy_joules_total") - before.sum("energy_joules_total")
        assert grown_j >= 0
        assert page.one("meter_up", meter="nvml") == 1
        assert page.sum("unobserved_seconds_total") == 0
        assert node.terminate() < 2
        node.assert_no_traceback()


def test_reload_takes_up_a_new_source_and_token(daemon: Start) -> None:
    clear_of_the(HOUR_S)
    start_s = time.time() // HOUR_S * HOUR_S
    with GridServer(reply(body=maps_for(start_s, 99))) as server:
        node = daemon(FINE + 'site.zone = "DE"\ngrid.source = []', scenario=SCENARIO).start()
        first = node.next_commit()
        assert first.one("grid_fallback_level") == 2
        node.configure(FINE + 'site.zone = "DE"\n' + maps_source(node, server))
        node.reload()
        page = node.scrape_when(lambda page: page.one("grid_fallback_level") == 0)
        assert page.one("grid_carbon_intensity_grams_per_kwh", estimated="false") == 99
        page.assert_not_below(first)
        # A token that has become readable for others: the old settings stay in force.
        (node.home / "token").chmod(0o644)
        node.reload()
        assert "chmod 600" in node.log()
        assert node.next_commit().one("grid_fallback_level") == 0
