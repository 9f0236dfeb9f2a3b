"""`report --what-if zone=…,source=…`: whose word it is, by relays and mixes; and what is shown."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import grid_bodies as bodies
import grid_server as play
from fakes import START_WALL_NS, FakeClock
from grid_feeds import HALF_HOUR
from grid_server import GridServer
from relays import Upstream, relayed
from wattledger.alternatives.what_if_command import what_if_command
from wattledger.cli import _parser, main
from wattledger.config import Config, load_config
from wattledger.errors import WattledgerError
from wattledger.grid.mix import water_factors
from wattledger.grid.table import CountryTable
from wattledger.model import Basis
from wattledger.units import NS_PER_S

KWH = 3_600_000_000_000
FIRST_S = START_WALL_NS // NS_PER_S  # 2027-01-15T08:00Z
GB_UL = CountryTable.load().ewif("GB").ul_per_kwh


def text_of(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def books(groups: Iterable[str]) -> dict[str, Any]:
    """What `/api/v1/totals` answers: 1 kWh in each group, with a PUE of 1.5."""
    rows = [
        {
            "group": group,
            "energy_uj": str(KWH),
            "facility_uj": str(KWH * 3 // 2),
            "estimated_uj": "0",
            "co2e_ug": "300000000",
            "water_onsite_ul": "0",
            "water_grid_ul": "900000",
            "basis": "generation",
        }
        for group in groups
    ]
    return {"rows": rows, "since": None, "until": None, "books_complete_until": None}


def hours(count: int, first_s: int = FIRST_S) -> list[str]:
    return [text_of(first_s + 3600 * number) for number in range(count)]


def settings(tmp_path: Path, listed: str) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(f'[site]\nzone = "DE"\n[[grid.source]]\n{listed}\n')
    return path


def asked(
    capsys: pytest.CaptureFixture[str],
    path: Path | None,
    scenario: str,
    groups: Iterable[str],
    *more: str,
    now_ns: int = START_WALL_NS + 10**15,
) -> dict[str, Any]:
    options = _parser().parse_args(["report", "--json", "--what-if", scenario, *more])
    config = Config() if path is None else load_config(path)
    done = what_if_command(options, lambda: config, lambda _: books(groups), lambda: now_ns)
    assert done == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


# ── relays ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("site", ["GB", "FR"])
def test_behind_a_relay_the_one_who_knows_is_named(
    site: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its basis too: the relay's own is not known before somebody is asked."""
    clock = FakeClock()
    clock.advance(4 * 3600)
    upstream = Upstream("neso")
    upstream.past = {START_WALL_NS + n * HALF_HOUR: 100 + 10 * n for n in range(8)}
    upstream.ewif_ul_per_kwh = 2_000_000
    with relayed(upstream, clock=clock) as served:
        listed = f'kind = "wattledger"\nurl = "{served.relay.url}"\nzone = "{site}"'
        path = settings(tmp_path, listed)
        scenario = "zone=GB,source=wattledger"
        now_ns = clock.now().wall_ns
        answer = asked(capsys, path, scenario, hours(4), "--by", "hour", now_ns=now_ns)
        with pytest.raises(WattledgerError, match="may not serve zone XX") as caught:
            asked(capsys, path, "zone=XX,source=wattledger", hours(1), now_ns=now_ns)
    assert "relay's settings" in caught.value.hint
    assert answer["total"]["what_if_basis"] == "generation"
    said = "the grid of GB, as published by neso and passed on by wattledger, by the hour"
    assert answer["what_if"]["meaning"] == said
    for hour, row in enumerate(answer["rows"]):
        assert row["what_if_co2e_g"] == 1.5 * (105 + 20 * hour)
        assert row["what_if_water_grid_l"] == 1.5 * 2
    told = "Its grid water is that of the generation mix, by the hour."
    assert answer["what_if"]["notes"] == [told]


def test_a_relay_whose_sources_have_no_past(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voice = {"source": "neso", "basis": "generation", "cadence_s": 1800}
    reply = {"zone": "GB", "sources": [{**voice, "history": False, "forecast": True}]}
    with GridServer(play.reply(body=reply)) as server:
        path = settings(tmp_path, f'kind = "wattledger"\nurl = "{server.url}"\nzone = "GB"')
        with pytest.raises(WattledgerError, match="no source of GB behind wattledger knows"):
            asked(capsys, path, "zone=GB,source=wattledger", hours(1))
        server.script = play.reply(503)
        with pytest.raises(WattledgerError, match=r"no history: .+ status 503"):
            asked(capsys, path, "zone=GB,source=wattledger", hours(1))


# ── the water of the history ────────────────────────────────────────────────────────────────────


def test_the_water_of_the_published_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the hour, of the hours of which it can be known; else the country's yearly mean."""
    token = tmp_path / "token"
    token.write_text("canary\n")
    token.chmod(0o600)
    # Half gas, half sun; then coal; then nothing is published.
    mixes = ({"NG": "500", "SUN": "500"}, {"COL": "9", "NG": "0", "SUN": "0"})
    body = bodies.eia(*mixes)
    first_s = int(datetime(2024, 3, 6, 18, tzinfo=UTC).timestamp())
    water = water_factors()
    with GridServer(play.reply(body=body)) as server:
        listed = f'kind = "eia"\nzone = "US-CISO"\nurl = "{server.url}"\ntoken_file = "{token}"'
        path = settings(tmp_path, listed)
        more = ("zone=US-CISO,source=eia", hours(3, first_s), "--by", "hour")
        answer = asked(capsys, path, *more)
    litres = [row["what_if_water_grid_l"] for row in answer["rows"]]
    assert litres[:2] == pytest.approx(
        [1.5 * (water["gas"] + water["solar"]) / 2, 1.5 * water["coal"]]
    )
    assert litres[2] is None and answer["rows"][2]["what_if_co2e_g"] is None
    assert answer["what_if"]["notes"] == [
        "Its grid water is that of the generation mix, by the hour."
    ]


def test_hours_without_a_mix_take_the_yearly_water(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    instants = [text_of(FIRST_S + 1800 * n) for n in range(5)]
    voice = {"source": "eia", "basis": "lifecycle", "cadence_s": 1800}
    signals = [
        {
            "valid_from": start, "valid_to": end, "fetched_at": instants[0], "estimated": False,
            "intensity_ug_per_kwh": "100000000", "ewif_ul_per_kwh": ewif,
        }
        for start, end, ewif in zip(
            instants, instants[1:], (None, None, "3000000", None), strict=False
        )
    ]  # fmt: skip
    replies = (
        {"zone": "GB", "sources": [{**voice, "history": True, "forecast": True}]},
        {"zone": "GB", **voice, "signals": signals},
    )
    with GridServer(play.in_turn(*(play.reply(body=body) for body in replies))) as server:
        path = settings(tmp_path, f'kind = "wattledger"\nurl = "{server.url}"\nzone = "GB"')
        more = ("zone=GB,source=wattledger", hours(2), "--by", "hour")
        answer = asked(capsys, path, *more)
    litres = [row["what_if_water_grid_l"] for row in answer["rows"]]
    assert litres == pytest.approx([1.5 * GB_UL / 1e6, 1.5 * 3])  # of half an hour, as of CO2e
    (note,) = answer["what_if"]["notes"]
    assert note.endswith("by the hour; of 1 h without one the yearly mean of the country table.")
    assert answer["total"]["what_if_basis"] == Basis.LIFECYCLE


@pytest.mark.parametrize(
    ("minute", "known"), [(16, True), (29, True), (30, True), (31, False), (0, False), (60, False)]
)
def test_the_present_hour_is_judged_by_what_has_passed_of_it(
    minute: int, known: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a quarter of an hour that is published, half past is the last minute that it suffices."""
    table = tmp_path / "grid.csv"
    table.write_text(f"start,end,value\n{text_of(FIRST_S)},{text_of(FIRST_S + 900)},80\n")
    path = settings(
        tmp_path,
        f'kind = "csv"\nzone = "GB"\nfile = "{table}"\nemission_factor_type = "direct"',
    )
    now_ns = (FIRST_S + 60 * minute) * NS_PER_S
    answer = asked(capsys, path, "zone=GB,source=csv", hours(1), now_ns=now_ns)
    assert answer["total"]["what_if_co2e_g"] == (1.5 * 80 if known else None)


def test_what_is_published_of_the_rest_of_this_hour_says_nothing_of_the_past(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "grid.csv"
    rows = [(0, 900, 80), (900, 3600, 900)]
    lines = [f"{text_of(FIRST_S + a)},{text_of(FIRST_S + b)},{value}" for a, b, value in rows]
    table.write_text("\n".join(["start,end,value", *lines]))
    listed = f'kind = "csv"\nzone = "GB"\nfile = "{table}"\nemission_factor_type = "direct"'
    path = settings(tmp_path, listed)
    now_ns = (FIRST_S + 900) * NS_PER_S
    answer = asked(capsys, path, "zone=GB,source=csv", hours(1), now_ns=now_ns)
    assert answer["total"]["what_if_co2e_g"] == 1.5 * 80


# ── what is shown ───────────────────────────────────────────────────────────────────────────────


def test_no_more_rows_than_were_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [f"slurm/{number}" for number in range(120)]
    total = Fraction(120 * 3, 2) * 490

    def shown(*more: str) -> str:
        options = _parser().parse_args(["report", "--what-if", "mix=gas=1", *more])
        assert what_if_command(options, Config, lambda _: books(jobs)) == 0
        told = capsys.readouterr()
        return told.out + told.err

    table = shown("--by", "job")
    assert table.count("slurm/") == 50 and "And 70 more, in the total; --limit N" in table
    assert f"{float(total):,.3f}" in table  # of all of them
    assert shown("--by", "job", "--limit", "7").count("slurm/") == 7
    answer = asked(capsys, None, "mix=gas=1", jobs, "--by", "job", "--limit", "3")
    assert (len(answer["rows"]), answer["rows_left_out"]) == (3, 117)
    assert answer["total"]["what_if_co2e_g"] == total
    assert "rows_left_out" not in asked(capsys, None, "mix=gas=1", jobs, "--by", "job")
    told = shown("--by", "job", "--csv", "--limit", "5")
    assert len(list(csv.DictReader(told.splitlines()[:-1]))) == 5
    assert told.endswith("wattledger: 115 more were left out by --limit\n")


def test_a_name_says_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["slurm/\x1b[31mred", "docker/a\nb", "x/\u202eevil", "[bold]plain"]
    options = _parser().parse_args(["report", "--what-if", "mix=gas=1", "--by", "job"])
    assert what_if_command(options, Config, lambda _: books(names)) == 0
    table = capsys.readouterr().out
    assert "\x1b" not in table and "\u202e" not in table
    for said in (r"slurm/\x1b[31mred", r"docker/a\nb", r"x/\u202eevil", "[bold]plain"):
        assert said in table


def test_an_export_has_no_what_if(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "books.jsonl"
    assert main(["report", "--export", str(file), "--what-if", "zone=FR"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("--export: writes what the books hold, which --what-if does not")
    assert not told.out and not file.exists()
