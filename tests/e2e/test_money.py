"""Prices change while the daemon runs and is killed: what was booked stays as it was priced."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from e2e.daemon import FINE, Daemon
from e2e.page import Page
from wattledger.units import PPM, UJ_PER_KWH

SCENARIO = """
[[gpu]]
model = "H100 SXM"
count = 2
waveform = { kind = "constant", watts = 500 }
"""
CHEAP = 'price_per_kwh = 100\ncurrency = "EUR"\n'
DEAR = 'price_per_kwh = 700\ncurrency = "EUR"\nmarket_intensity = 50\n'
FOREIGN = 'price_per_kwh = 300\ncurrency = "CHF"\n'


def settings(price: str) -> str:
    return f"{FINE}\n[site]\npue = 1.25\n{price}"


def counters(page: Page) -> dict[str, float]:
    names = ("energy_cost_total", "market_co2e_grams_total", "embodied_co2e_grams_total")
    return {str(key): value for name in names for key, value in page.all(name).items()}


def test_each_joule_costs_what_it_was_booked_at(tmp_path: Path) -> None:
    with Daemon(tmp_path, settings(CHEAP), scenario=SCENARIO) as daemon:
        daemon.start()
        seen: dict[str, float] = {}
        for price in (DEAR, FOREIGN, CHEAP):
            page = daemon.next_commit()
            now = counters(page)
            assert all(now[name] >= value for name, value in seen.items())
            daemon.configure(settings(price))
            daemon.reload()
            page = daemon.next_commit()
            seen = counters(page)
            daemon.kill()
            daemon.start()
        page = daemon.next_commit()
        now = counters(page)
        assert all(now[name] >= value for name, value in seen.items())
        assert page.labels("energy_cost_total", "currency") == {"CHF", "EUR"}
        assert page.one("embodied_co2e_grams_total", kind="gpu") > 0
        assert page.one("embodied_co2e_grams_total", kind="other") > 0
        daemon.terminate()

        # Σ over the entries, by hand, of what the last page of all showed at least.
        costs: dict[str, Fraction] = {}
        for energy_uj, pue_ppm, cost_u, currency in daemon.query(
            "SELECT energy_uj, pue_ppm, cost_u_per_kwh, currency "
            "FROM entry JOIN price ON price.id = price_id"
        ):
            of_entry = Fraction(energy_uj * pue_ppm * cost_u, UJ_PER_KWH * PPM * PPM)
            costs[currency] = costs.get(currency, Fraction()) + of_entry
        daemon.assert_books_balance()
        report = daemon.cli("report", "--by", "all", "--json", "--ledger", str(daemon.ledger))
        [row] = json.loads(report.stdout)["rows"]
        assert row["cost"] is None and row["costs"].count("EUR") == row["costs"].count("CHF") == 1
        assert row["priced_kwh"] == pytest.approx(row["energy_kwh"])
        assert 0 < row["market_kwh"] < row["energy_kwh"]
        for currency in ("EUR", "CHF"):
            shown = page.one("energy_cost_total", currency=currency)
            assert 0 < shown <= float(costs[currency]) * (1 + 1e-12)
        [(note,)] = daemon.query("SELECT body FROM note WHERE name = 'sums'")
        kept: dict[str, int] = {}
        for sums in json.loads(note).values():
            for currency, (product, _) in sums["costs"].items():
                kept[currency] = kept.get(currency, 0) + int(product)
        assert {c: Fraction(p, UJ_PER_KWH * PPM * PPM) for c, p in kept.items()} == costs
        daemon.assert_no_traceback()
