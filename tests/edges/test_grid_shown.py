"""Every source, from its reply to the metric, the label and the ledger row that result."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import grid_bodies as bodies
import grid_server as play
import ledgers
import snapshots
from fakes import FakeClock
from grid_server import GridServer
from wattledger import build
from wattledger.config import parse_config
from wattledger.core.footprint import price_of
from wattledger.grid.feed import Feed
from wattledger.model import Basis, FallbackLevel
from wattledger.units import UJ_PER_KWH, slot_of
from wattledger_exporters.prometheus import Renderer

S = 10**9
CANARY = "canary-77e1"


class Case(NamedTuple):
    """A source that answers well: its settings, reply and time, and what comes of it."""

    kind: str
    zone: str
    body: Any
    now_s: int
    basis: Basis
    grams: float
    estimated: bool = False
    more: str = ""


JAN, MAR, SEP, OCT = 1_516_451_400, 1_709_751_660, 1_662_497_160, 1_728_410_460
STATED = 'emission_factor_type = "direct"\n'
CASES = [
    # The last complete half hour stands for the one that has begun: an estimate of it.
    Case("neso", "GB", play.neso_body(), JAN, Basis.GENERATION, 263, True),
    Case("neso", "GB-13", bodies.neso_region(), JAN - 600, Basis.GENERATION, 266, True),
    Case(
        *("electricity_maps", "US-CAR-DUK", play.electricity_maps_body(), MAR),
        *(Basis.LIFECYCLE, 216, True),
    ),
    Case("energy_charts", "DE", bodies.energy_charts([491.5], []), MAR, Basis.LIFECYCLE, 491.5),
    Case("energinet", "DK1", bodies.energinet(121), MAR, Basis.GENERATION, 121),
    Case("rte", "FR", {"results": bodies.rte(34)}, OCT, Basis.DIRECT, 34, True),
    Case(
        *("entsoe", "DE"),
        bodies.entsoe(bodies.entsoe_series("B05", {1: 5, 2: 5})),
        *(MAR, Basis.LIFECYCLE, 820, True),
    ),
    Case("eia", "US-CISO", bodies.eia({"NG": "5"}), MAR - 60, Basis.LIFECYCLE, 490, True),
    Case("carbon_aware", "eastus", bodies.carbon_aware(70), SEP, Basis.DIRECT, 70, False, STATED),
    Case(
        *("json", "plant", {"a": 55}, MAR, Basis.DIRECT, 55, False),
        STATED + 'pointer = "/a"\n',
    ),
    Case(
        *("prometheus", "ppa", bodies.prometheus(), MAR, Basis.DIRECT, 12.5, False),
        STATED + 'query = "ppa"\n',
    ),
]
CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.zone}")


def fed(case: Case, url: str, home: Path) -> tuple[Feed, FakeClock]:
    """The feed of a configuration that names the source, at its time."""
    token = home / "token"
    token.write_text(CANARY + "\n")
    token.chmod(0o600)
    text = f'[[grid.source]]\nkind = "{case.kind}"\nzone = "{case.zone}"\nurl = "{url}"\n'
    if case.kind in ("electricity_maps", "entsoe", "eia"):
        text += f'token_file = "{token}"\n'
    clock = FakeClock(case.now_s * S)
    return build.grid_feed(parse_config(text + case.more), clock, ()), clock


def page_of(grid: Feed, clock: FakeClock) -> str:
    choice = grid.at(clock.wall_ns)
    shown = snapshots.snapshot(grid=choice, sources=grid.statuses())
    return Renderer().render(shown, 1, process=False).text.decode()


def booked(path: Path, grid: Feed, clock: FakeClock) -> tuple[Any, ...]:
    """The row of table `price` that 1 kWh is booked with now, and its grams."""
    price = price_of(grid.at(clock.wall_ns), snapshots.snapshot().site)
    ledger = ledgers.opened(path / "ledger.sqlite", clock)
    entry = ledgers.key(slot_of(clock.wall_ns), price=price)
    ledger.commit(ledgers.batch({entry: UJ_PER_KWH}), clock.now())
    ledger.close()
    with closing(sqlite3.connect(path / "ledger.sqlite")) as connection:
        [row] = connection.execute(
            "SELECT zone, source, basis, estimated, level, intensity_ug_per_kwh, pue_ppm, co2e_ug "
            "FROM price JOIN entry ON entry.price_id = price.id"
        ).fetchall()
    return tuple(row)


@CASE
def test_a_good_reply_is_shown_and_booked_with_all_that_it_is(case: Case, tmp_path: Path) -> None:
    with GridServer(play.reply(body=case.body)) as server:
        grid, clock = fed(case, server.url, tmp_path)
        grid.poll_once()
        assert len(server.requests) == 1
    page = page_of(grid, clock)
    said = "true" if case.estimated else "false"
    labels = (
        f'{{basis="{case.basis}",estimated="{said}",grid_zone="{case.zone}",source="{case.kind}"}}'
    )
    assert f"wattledger_grid_carbon_intensity_grams_per_kwh{labels} {case.grams:.1f}" in page
    assert "wattledger_grid_fallback_level 0.0" in page
    assert f'wattledger_grid_requests_total{{outcome="ok",source="{case.kind}"}} 1.0' in page
    assert f'wattledger_grid_basis_fallbacks_total{{source="{case.kind}"}} 0.0' in page
    assert CANARY not in page
    ug = round(case.grams * 10**6)
    *row, pue_ppm, co2e_ug = booked(tmp_path, grid, clock)
    assert row == [case.zone, case.kind, case.basis, case.estimated, FallbackLevel.LIVE, ug]
    assert co2e_ug == ug * pue_ppm // 10**6
