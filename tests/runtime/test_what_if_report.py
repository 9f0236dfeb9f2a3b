"""`wattledger report --what-if` over a real ledger and a provider that plays a history."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import grid_server as play
from fakes import START_WALL_NS, FakeClock
from grid_server import GridServer
from ledgers import CPU, GPU, PRICE, batch, key, opened
from wattledger.alternatives.scenario import Mix, Shift, Zone, parse
from wattledger.alternatives.what_if_command import what_if_command
from wattledger.cli import _parser, main
from wattledger.config import Config
from wattledger.errors import ConfigError
from wattledger.grid.table import CountryTable
from wattledger.model import Basis
from wattledger.model.jobs import JobRun, job_payee

S = 10**9
FIRST_S = START_WALL_NS // S  # 2027-01-15T08:00Z
KWH = 3_600_000_000_000
HOURS = 12
ALICE = job_payee("slurm", "4711", START_WALL_NS)
SPAN = ("--since", "2027-01-15", "--until", "2027-01-16")
TABLE = CountryTable.load()


def level(hour: int) -> int:
    """µg/kWh of the books in an hour of the day: dirty by day, clean by night."""
    return (100 + 50 * hour) * 1_000_000


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """1 kWh of a job and 0.5 kWh of idle in each of twelve hours, at twelve prices and two PUEs."""
    path, clock = tmp_path / "l.sqlite", FakeClock()
    energy = {}
    for hour in range(HOURS):
        price = PRICE._replace(
            intensity_ug_per_kwh=level(hour),
            source="grid",
            zone="GB",
            basis=Basis.GENERATION,
            pue_ppm=1_200_000 if hour < 6 else 1_500_000,
            signal_from_ns=hour,
        )
        at = FIRST_S + 3600 * hour
        energy[key(at, GPU.name, ALICE, price=price)] = KWH
        energy[key(at + 300, CPU.name, price=price)] = KWH // 2
    books = opened(path, clock)
    run = JobRun(ALICE, uid=1001, labels={}, last_seen_ns=START_WALL_NS)
    books.commit(batch(energy, runs=(run,)), clock.now())
    books.close()
    return str(path)


def asked(capsys: pytest.CaptureFixture[str], ledger: str, *arguments: str) -> dict[str, Any]:
    command = ["report", "--ledger", ledger, *SPAN, "--json", "--what-if", *arguments]
    assert main(command) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


REAL_UG = sum(int(1.5 * level(h) * (1.2 if h < 6 else 1.5)) for h in range(HOURS))
FACILITY = Fraction(3, 2) * (6 * Fraction(12, 10) + 6 * Fraction(15, 10))  # kWh


def test_another_zone(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = asked(capsys, ledger, "zone=FR")
    france, total = TABLE.signal("FR"), answer["total"]
    assert abs(int(total["co2e_ug"]) - REAL_UG) <= HOURS
    # Each hour at the PUE that it was booked with.
    assert int(total["what_if_co2e_ug"]) == FACILITY * france.intensity_ug_per_kwh
    assert total["what_if_water_grid_l"] == pytest.approx(
        float(FACILITY) * TABLE.ewif("FR").ul_per_kwh / 1e6
    )
    assert (total["basis"], total["what_if_basis"]) == ("generation", "lifecycle")
    assert total["priced_uj"] == total["energy_uj"] == str(18 * KWH)
    assert answer["what_if"]["intensity_g_per_kwh"] == france.intensity_ug_per_kwh / 1e6
    assert sum(int(row["what_if_co2e_ug"]) for row in answer["rows"]) == int(
        total["what_if_co2e_ug"]
    )
    assert [row["group"] for row in answer["rows"]] == ["cpu", "gpu"]
    more = total["what_if_co2e_g"] - total["co2e_g"]
    assert total["difference_g"] == pytest.approx(more)
    assert total["difference_percent"] == pytest.approx(more / total["co2e_g"] * 100)

    assert main(["report", "--ledger", ledger, *SPAN, "--what-if", "zone=FR"]) == 0
    said = capsys.readouterr().out
    assert "UNLIKE: the real figure counts generation, the other one lifecycle." in said
    assert "41.4 g/kWh" in said and "yearly mean" in said and "what if L" in said


@pytest.mark.parametrize("by", ["all", "device", "kind", "payee", "job", "user", "hour", "day"])
def test_by_anything(by: str, ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = asked(capsys, ledger, "mix=coal=1", "--by", by)
    assert answer["by"] == by and answer["rows"]
    for name in ("energy_uj", "what_if_co2e_ug"):
        assert sum(int(row[name]) for row in answer["rows"]) == int(answer["total"][name])
    assert int(answer["total"]["what_if_co2e_ug"]) == FACILITY * 820_000_000


def test_a_mix_with_a_value_of_ones_own(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = asked(capsys, ledger, "mix=fusion=0.5@12,gas=0.5")
    assert answer["what_if"]["intensity_g_per_kwh"] == 251  # (12 + 490) / 2
    assert int(answer["total"]["what_if_co2e_ug"]) == FACILITY * 251_000_000
    assert answer["total"]["what_if_basis"] == "lifecycle+stated"
    assert answer["total"]["what_if_water_grid_l"] is None
    assert "50 % fusion (12 g/kWh), 50 % gas (490 g/kWh)" in answer["what_if"]["meaning"]
    assert asked(capsys, ledger, "mix=nuclear=1@3")["what_if"]["intensity_g_per_kwh"] == 3
    assert asked(capsys, ledger, "mix=x=1@0")["total"]["what_if_co2e_g"] == 0


def test_the_water_of_a_mix(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Litres by the fuel table (Macknick et al. 2012), or as stated; never of a part of the mix."""
    answer = asked(capsys, ledger, "mix=nuclear=0.5,gas=0.25,wind=0.25")
    assert answer["what_if"]["ewif_l_per_kwh"] == pytest.approx(0.5 * 2.54 + 0.25 * 0.78)
    total = answer["total"]
    assert total["what_if_water_grid_l"] == pytest.approx(float(FACILITY) * 1.465)
    assert answer["what_if"]["notes"] == [
        "Its grid water is by the medians of the fuel table, all plants taken to have wet towers."
    ]
    dry = asked(capsys, ledger, "mix=wind=1")
    assert dry["total"]["what_if_water_grid_l"] == 0  # a figure, and not one that is missing

    missing = asked(capsys, ledger, "mix=ocean=0.5,fusion=0.25@12,gas=0.25")
    assert missing["what_if"]["ewif_l_per_kwh"] is missing["total"]["what_if_water_grid_l"] is None
    (note,) = missing["what_if"]["notes"]
    assert "the water of ocean, fusion" in note and "ocean=share@12@2.5" in note

    stated = asked(capsys, ledger, "mix=fusion=0.5@12@2.5,gas=0.5")
    assert stated["what_if"]["ewif_l_per_kwh"] == pytest.approx(0.5 * 2.5 + 0.5 * 0.78)
    assert "stated: 2.5 L/kWh of fusion" in stated["what_if"]["notes"][0]
    assert asked(capsys, ledger, "mix=hydro=1@24@0")["what_if"]["ewif_l_per_kwh"] == 0


def test_a_country_without_an_intensity(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = asked(capsys, ledger, "zone=CF")
    assert answer["what_if"]["intensity_g_per_kwh"] == 473  # the world's, not 0
    assert "the grid of WORLD" in answer["what_if"]["meaning"]
    said = "Of CF (Central African Republic) no intensity is published: the world's stands in."
    assert said in answer["what_if"]["notes"]


def test_another_time(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = asked(capsys, ledger, "shift=-6h", "--by", "hour")
    rows = {row["group"][11:13]: row for row in answer["rows"]}
    # The first six hours have no earlier price in these books.
    for hour in range(6):
        row = rows[f"{8 + hour:02}"]
        assert row["what_if_co2e_ug"] is row["difference_g"] is None and row["priced_uj"] == "0"
    for hour in range(6, HOURS):  # at the intensity of six hours before, and their own PUE
        row = rows[f"{8 + hour:02}"]
        assert int(row["what_if_co2e_ug"]) == Fraction(9, 4) * level(hour - 6)
        assert row["difference_g"] == -Fraction(9, 4) * 300
    total = answer["total"]
    assert total["priced_kwh"] == 9 and total["energy_kwh"] == 18
    assert total["difference_g"] == -6 * 2.25 * 300
    assert (total["basis"], total["what_if_basis"]) == ("generation", "generation")

    later = asked(capsys, ledger, "shift=6h", "--by", "day")
    assert later["rows"][0]["group"] == "2027-01-15"
    assert later["total"]["difference_g"] == 6 * 1.8 * 300
    nothing = asked(capsys, ledger, "shift=30d")["total"]
    assert nothing["what_if_co2e_g"] is nothing["difference_percent"] is None
    assert main(["report", "--ledger", ledger, *SPAN, "--what-if", "shift=-6h"]) == 0
    said = capsys.readouterr().out
    assert "Only 9.000000 kWh have another price" in said and "Both count generation." in said


def test_no_other_time_is_no_difference(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    total = asked(capsys, ledger, "shift=0h")["total"]
    assert total["what_if_co2e_ug"] == total["co2e_ug"] and total["difference_g"] == 0
    assert total["what_if_water_grid_l"] == pytest.approx(total["priced_water_grid_l"])


@pytest.mark.parametrize("scenario", ["mix=wind=1@10", "shift=0h"])
def test_the_real_figure_is_the_settled_one(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "group": "2027-01-15T08:00:00Z",
        "energy_uj": str(KWH),
        "facility_uj": str(KWH),
        "estimated_uj": "0",
        "co2e_ug": "40",
        "water_onsite_ul": "1",
        "water_grid_ul": "20",
        "co2e_settled_ug": "50000000",
        "water_grid_settled_ul": "30",
        "basis": "direct",
    }
    answer = {"rows": [row], "since": None, "until": None, "books_complete_until": None}
    options = _parser().parse_args(["report", "--json", "--by", "hour", "--what-if", scenario])
    assert what_if_command(options, Config, lambda _: answer) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert total["co2e_g"] == 50 and total["priced_water_grid_l"] == 30 / 1e6
    assert total["what_if_co2e_g"] == (50 if scenario == "shift=0h" else 10)


# ── a source's history ──────────────────────────────────────────────────────────────────────────


def history(levels: dict[int, int]) -> dict[str, Any]:
    """NESO's half hours by their number from the first hour of the books."""

    def at(number: int) -> str:
        return datetime.fromtimestamp(FIRST_S + 1800 * number, UTC).strftime("%Y-%m-%dT%H:%MZ")

    rows = [
        {"from": at(n), "to": at(n + 1), "intensity": {"forecast": 999, "actual": value}}
        for n, value in levels.items()
    ]
    return {"data": rows}


def config(tmp_path: Path, server: GridServer) -> str:
    path = tmp_path / "c.toml"
    path.write_text(f'[site]\nzone = "DE"\n[[grid.source]]\nkind = "neso"\nzone = "GB"\n'
                    f'url = "{server.url}"\n')  # fmt: skip
    return str(path)


def test_what_a_source_has_published(
    ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of the last hour nothing is known, of the one before a half.
    levels = {n: 10 * (n + 1) for n in range(2 * (HOURS - 2) + 1)}
    with GridServer(play.reply(body=history(levels))) as server:
        more = ("--config", config(tmp_path, server), "--by", "hour")
        answer = asked(capsys, ledger, "zone=GB,source=neso", *more)
        assert [request.target for request in server.requests] == [
            "/intensity/2027-01-15T08:00Z/2027-01-15T20:00Z"
        ]
    for hour, row in enumerate(answer["rows"]):
        facility = Fraction(3, 2) * (Fraction(12, 10) if hour < 6 else Fraction(3, 2))
        if hour < HOURS - 2:  # the mean of both half hours
            mean = (levels[2 * hour] + levels[2 * hour + 1]) * 500_000
            assert int(row["what_if_co2e_ug"]) == facility * mean
        elif hour == HOURS - 2:
            assert int(row["what_if_co2e_ug"]) == facility * levels[2 * hour] * 1_000_000
        else:
            assert row["what_if_co2e_ug"] is None
    assert answer["total"]["what_if_basis"] == "generation"
    assert answer["total"]["priced_kwh"] == pytest.approx(1.5 * (HOURS - 1))
    assert "published by neso" in answer["what_if"]["meaning"]
    assert answer["what_if"]["notes"] == ["Its grid water is the yearly mean of the country table."]


@pytest.mark.parametrize("script", [play.reply(500), play.reset(), play.reply(body=[])])
def test_a_source_that_fails(
    script: Any, ledger: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with GridServer(script) as server:
        settings = ("--config", config(tmp_path, server), "--ledger", ledger)
        command = ["report", *settings, *SPAN, "--what-if", "zone=GB,source=neso"]
        assert main(command) == 1
    said = capsys.readouterr()
    assert "no history" in said.err and not said.out


# ── forms and bad input ─────────────────────────────────────────────────────────────────────────


def test_csv(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["report", "--ledger", ledger, *SPAN, "--csv", "--what-if"]
    assert main([*command, "mix=gas=1", "--by", "payee"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["group"] for row in rows] == ["idle", "jobs"]
    for row in rows:
        assert int(row["what_if_co2e_ug"]) / 1e6 == float(row["what_if_co2e_g"]) > 0
    assert main([*command, "shift=-1d", "--by", "day"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["what_if_co2e_g"] == row["difference_percent"] == ""


def test_an_empty_time(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["report", "--ledger", ledger, "--since", "2020-01-01", "--until", "2020-01-02"]
    for scenario in ("zone=FR", "shift=-6h", "mix=wind=1"):
        assert main([*command, "--what-if", scenario]) == 0
        assert "hold no energy" in capsys.readouterr().out
        assert main([*command, "--what-if", scenario, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["rows"] == [] and answer["total"] is None


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("mix=fusion=1@12@", "L/kWh of fusion"),
        ("mix=fusion=1@12@-1", "L/kWh of fusion"),
        ("mix=fusion=1@12@1001", "above 1000"),
        ("mix=fusion=1@12@1@1", "L/kWh of fusion"),
        ("mix=fusion=1@@2", "g/kWh of fusion"),
        ("", "zone=FR"),
        ("FR", "zone=FR"),
        ("zone=", "zone=FR"),
        ("zone=FR,", "source=rte"),
        ("zone=FR,source=", "source=rte"),
        ("zone=FR,kind=rte", "source=rte"),
        ("zone=UK", "did you mean GB"),
        ("zone=XX", "country table"),
        ("zone=FR,source=nothing", "known are neso"),
        ("zone=FR,source=electricity_maps", "[[grid.source]]"),
        ("zone=XX,source=rte", "does not serve"),
        ("mix=", "fuel=share"),
        ("mix=gas", "fuel=share"),
        ("mix=gas=", "share of gas"),
        ("mix=gas=0.5", "sum to 0.5"),
        ("mix=gas=0.7,wind=0.7", "sum to 1.4"),
        ("mix=gas=-1,wind=2", "share of gas"),
        ("mix=gas=0,wind=1", "above 0"),
        ("mix=gas=nan", "share of gas"),
        ("mix=gas=1e999", "share of gas"),
        ("mix=gas=0.5,gas=0.5", "twice"),
        ("mix=fusion=1", "fusion=1@12"),
        ("mix=fusion=1@", "g/kWh of fusion"),
        ("mix=fusion=1@-3", "g/kWh of fusion"),
        ("mix=fusion=1@2001", "above 2000"),
        ("mix=Gas\x1b=1", "fuel=share"),
        ("shift=", "shift=-6h"),
        ("shift=--6h", "shift=-6h"),
        ("shift=90m", "whole hours"),
        ("shift=-31d", "30d"),
    ],
)
def test_what_is_no_scenario(
    scenario: str, said: str, ledger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--ledger", ledger, *SPAN, "--what-if", scenario]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("--what-if: ") and said in told.err and not told.out
    assert "\x1b" not in told.err


def test_prices_by_the_hour_know_no_devices(
    ledger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for scenario in ("shift=-6h", "zone=FR,source=rte"):
        command = ["report", "--ledger", ledger, *SPAN, "--what-if", scenario, "--by", "device"]
        assert main(command) == 2
        assert "all, day, hour" in capsys.readouterr().err


def test_scenarios() -> None:
    assert parse(" zone=FR,source=rte ") == Zone("FR", "rte") and parse("zone=FR") == Zone("FR", "")
    assert parse("shift=1d") == parse("shift=+24h") == Shift(24) and parse("shift=-1h") == Shift(-1)
    mix = parse("mix=nuclear=0.7, fusion=0.3@12.5")
    assert isinstance(mix, Mix)
    assert mix.intensity_ug_per_kwh == Fraction("12.15") * 1_000_000
    with pytest.raises(ConfigError):
        parse("shift")


def test_it_stands_alone(ledger: str) -> None:
    command = ["report", "--ledger", ledger, *SPAN, "--what-if", "mix=nuclear=1"]
    done = subprocess.run(
        [sys.executable, "-m", "wattledger.cli", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "nuclear (12 g/kWh): 12.0 g/kWh" in done.stdout
