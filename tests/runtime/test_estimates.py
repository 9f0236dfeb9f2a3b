"""`wattledger estimate`: the published cases, one's own figures, and the command."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from wattledger.cli import main
from wattledger.core.estimate.cases import rows
from wattledger.estimates import files
from wattledger.estimates.page import page
from wattledger.estimates.showing import readable

ROOT = Path(__file__).parents[2]
KEYS = ["case", "quantity", "unit", "published", "computed", "difference_percent", "note"]


def computed(case: str, quantity: str, unit: str, estimate: str = "") -> float:
    """The one figure of a case; `estimate` begins its estimate's name."""
    (value,) = {
        row.computed
        for row in rows(files.load(case))
        if row.estimate.startswith(estimate) and (row.quantity, row.unit) == (quantity, unit)
    }
    return float(value)


# ── the published cases ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", files.names())
def test_a_case_says_where_it_is_from_and_why_it_differs(name: str) -> None:
    case = files.load(name)

    assert case.title != name and case.source
    assert case.url.startswith("https://") or case.source.startswith("Not found")
    judged = [figure for estimate in case.estimates for figure in estimate.published]
    found = list(rows(case))
    assert len(judged) == len(found) > 0
    for figure, row in zip(judged, found, strict=True):
        if figure.value is None:
            assert row.reproduced is None
        elif figure.differs_because:  # a reason that is no longer needed has to go
            assert row.reproduced is False
            assert abs(row.difference_percent or 0) > 5
        else:
            assert row.reproduced is True, row


@pytest.mark.parametrize(
    ("case", "estimate", "quantity", "unit", "expected", "within"),
    [
        # Patterson et al. 2021 (arXiv 2104.10350), table 4
        ("gpt-3-training", "", "facility_energy", "MWh", 1287, 12.9),
        ("gpt-3-training", "", "co2e", "t", 552.1, 5.5),
        ("gpt-3-training", "", "net_co2e", "t", 552.1, 5.5),
        ("t5", "", "facility_energy", "MWh", 85.7, 0.86),
        ("t5", "", "co2e", "t", 46.7, 0.47),
        ("meena", "", "facility_energy", "MWh", 232, 2.3),
        ("meena", "", "co2e", "t", 96.4, 0.96),
        ("gshard-600b", "", "facility_energy", "MWh", 24.1, 0.24),
        ("gshard-600b", "", "co2e", "t", 4.8, 0.05),
        ("gshard-600b", "", "net_co2e", "t", 4.3, 0.05),
        ("switch-transformer", "", "facility_energy", "MWh", 179, 1.8),
        ("switch-transformer", "", "co2e", "t", 72.2, 0.7),
        ("switch-transformer", "", "net_co2e", "t", 59.1, 0.6),
        ("evolved-transformer-nas", "", "facility_energy", "MWh", 7.5, 0.075),
        ("evolved-transformer-nas", "", "co2e", "t", 3.2, 0.05),
        # a day of ChatGPT, and its range
        ("chatgpt-day", "as published", "gpu_hours", "h", 29_167, 1),
        ("chatgpt-day", "as published", "facility_energy", "kWh", 11_870, 2),
        ("chatgpt-day", "as published", "co2e", "t", 3.82, 0.01),
        ("chatgpt-day", "with PUE", "co2e", "t", 4.53, 0.005),
        ("chatgpt-day", "half load", "facility_energy", "kWh", 6606, 0.5),
        ("chatgpt-day", "half load", "co2e", "t", 2.13, 0.005),
        ("chatgpt-day", "no load", "facility_energy", "kWh", 29_166.667 * 0.046, 0.01),
        ("chatgpt-day-americans", "", "persons_for_a_day", "1", 93, 0.5),
        # water
        ("gpt-3-training-water", "as published", "water_onsite", "L", 707_850, 0.5),
        ("gpt-3-training-water", "as published", "water_grid", "ML", 4.731, 0.001),
        ("gpt-3-training-water", "as published", "water", "ML", 5.439, 0.001),
        ("gpt-3-training-water", "PUE counted once", "water_onsite", "L", 643_500, 0.5),
        ("gpt-3-training-water", "PUE counted once", "water_grid", "ML", 4.044, 0.001),
        ("gpt-3-training-water", "185,000", "water_volume", "L", 700_301, 0.5),
        ("gpt-3-request-water", "US", "water", "mL", 16.905, 0.002),
        ("gpt-3-request-water", "US", "water_onsite", "mL", 2.2, 0.001),
        ("gpt-3-request-water", "US", "requests_per_bottle", "1", 29.6, 0.05),
        ("gpt-3-request-water", "US", "requests_per_bottle_onsite", "1", 227, 0.5),
        ("gpt-3-request-water", "Ireland", "water", "mL", 7.1, 0.05),
        ("gpt-3-request-water", "Ireland", "requests_per_bottle", "1", 70.4, 0.05),
        ("gpt-3-request-water", "Washington", "water", "mL", 47.5, 0.05),
        ("gpt-3-request-water", "Washington", "requests_per_bottle", "1", 10.5, 0.05),
        ("google-water-2022", "all", "water_volume", "GL", 21.198, 0.001),
        ("google-water-2022", "data", "water_volume", "GL", 19.684, 0.001),
        ("google-water-2022", "data", "water_share", "%", 92.9, 0.05),
        ("lbnl-us-2023", "on site", "water_intensity", "L/kWh", 0.375, 0.0005),
        ("lbnl-us-2023", "of the grid", "water_intensity", "L/kWh", 4.538, 0.0005),
        ("meta-off-site-water", "", "water_intensity", "L/kWh", 3.704, 0.0005),
        ("data-centre-401-t-day", "a day", "water_volume", "US gal", 105_933, 0.5),
        ("data-centre-401-t-day", "a day", "implied_it_power", "MW", 44.6, 0.05),
        ("data-centre-401-t-day", "a year", "water_volume", "m3", 146_365, 0.5),
        # making chips
        ("chip-water", "", "water_per_chip", "L", 32, 0.001),
        ("chip-water", "", "water_per_chip_mass", "1", 16_000, 0.1),
        ("wafer-water", "8-inch", "water_per_wafer", "US gal", 1659.8, 0.1),  # 314.16 cm² × 20 L
        ("wafer-water", "12-inch, by a", "water_per_wafer", "US gal", 3734.6, 0.1),
        ("wafer-water", "12-inch, by m", "water_per_wafer", "m3", 7.2, 0.001),
        # in homes
        ("gpt-3-homes", "as published", "co2e", "kg", 84_738.48, 0.5),
        ("gpt-3-homes", "as published", "implied_home_energy", "kWh", 188_701.92 / 126, 0.01),
        ("gpt-3-homes", "homes of 3,500 kWh a year, energy", "homes_for_a_year", "1", 367.7, 0.1),
    ],
)  # fmt: skip
def test_a_published_figure_is_computed_again(
    case: str, estimate: str, quantity: str, unit: str, expected: float, within: float
) -> None:
    assert computed(case, quantity, unit, estimate) == pytest.approx(expected, abs=within)


def test_the_page_is_what_the_code_says() -> None:
    """To mend: python -m wattledger.estimates.page > configs/estimates/README.md."""
    assert (ROOT / "configs/estimates/README.md").read_text() == page()


def test_the_wheel_has_the_cases_where_they_are_looked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    into = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]

    inside = files.PACKAGED.relative_to(ROOT / "agent").as_posix()
    assert into == {files.CHECKOUT.relative_to(ROOT).as_posix(): inside}
    assert not files.PACKAGED.exists()  # in the checkout the files are one place only


# ── the command ─────────────────────────────────────────────────────────────────────────────────


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["estimate", *arguments, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert all(list(row) == KEYS for row in found)
    return found


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    listed = run(capsys, "--list")
    assert {row["case"] for row in listed} == set(files.names())
    assert len(files.names()) >= 16
    for row in listed:
        if row["published"] is None:
            assert row["difference_percent"] is None
        else:
            off = (row["computed"] - row["published"]) / row["published"] * 100
            assert row["difference_percent"] == pytest.approx(off, abs=1e-6)

    assert main(["estimate", "--list"]) == 0
    said = capsys.readouterr().out
    for name in files.names():
        assert f"\n{name} " in said
    assert "4.5319  t        +18.64 % *" in said
    assert "chatgpt-day, with PUE 1.185, co2e: The published figure leaves the PUE out." in said

    assert main(["estimate", "--list", "--csv"]) == 0
    table = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [float(row["computed"]) for row in table] == [row["computed"] for row in listed]
    # What tells a case's estimates apart has a column, and no key but the note.
    for row, other in zip(table, listed, strict=True):
        assert row["note"] or not row["published"] or abs(float(row["difference_percent"])) <= 6
        assert other["note"] == ": ".join(filter(None, (row["estimate"], row["note"])))


def test_one_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "chatgpt-day"]) == 0
    said = capsys.readouterr().out

    assert "https://medium.com/@chrispointon/" in said
    assert "  idle_watts = 46\n  full_watts = 407\n" in said
    assert "11,870  11,870.8  kWh      +0.01 %" in said
    assert {row["case"] for row in run(capsys, "chatgpt-day")} == {"chatgpt-day"}


def test_a_case_on_another_grid(capsys: pytest.CaptureFixture[str]) -> None:
    before, after = run(capsys, "chatgpt-day"), run(capsys, "chatgpt-day", "--zone", "FR")
    changed = {row["quantity"] for row, other in zip(before, after, strict=True)
               if row["computed"] != other["computed"]}  # fmt: skip

    assert changed == {"co2e"}
    assert after[2]["published"] == 3.82 and after[2]["computed"] < 1
    assert after[2]["note"].endswith(": With zone = FR.")


def test_figures_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    own = run(
        capsys, "--gpu-hours", "29167", "--watts", "407", "--pue", "1", "--intensity", "322.167",
        "--wue", "0.5", "--ewif", "3",
    )  # fmt: skip
    values = {row["quantity"]: row["computed"] for row in own}

    assert values == pytest.approx(
        {
            "gpu_hours": 29167,
            "gpu_power": 407,
            "it_energy": 11870.969,
            "facility_energy": 11870.969,
            "co2e": 3824.4345,
            "water_onsite": 5935.4845,
            "water_grid": 35612.907,
            "water": 41548.3915,
        }
    )
    assert main(["estimate", "--gpu-hours", "29167", "--watts", "407"]) == 0
    said = capsys.readouterr().out
    assert "gpu_hours" in said and "given" in said
    assert "pue = 1.56 (default)" in said and "wue_l_per_kwh = 0.36 (default)" in said
    assert "(country table, WORLD " in said


@pytest.mark.parametrize(
    ("arguments", "kwh"),
    [
        (["--chips", "64", "--days", "12", "--watts", "700"], 12902.4),
        (["--tokens", "1e6", "--wh-per-1000-tokens", "0.3"], 0.3),
        (["--requests", "1000", "--wh-per-request", "4"], 4),
        (["--facility-kwh", "12", "--pue", "1.2"], 10),
        (["--kwh", "5", "--zone", "DE"], 5),
    ],
)
def test_ways_to_an_energy(
    capsys: pytest.CaptureFixture[str], arguments: list[str], kwh: float
) -> None:
    values = {row["quantity"]: row["computed"] for row in run(capsys, *arguments)}

    assert values["it_energy"] == pytest.approx(kwh)
    assert {"facility_energy", "co2e", "water_onsite", "water_grid", "water"} <= set(values)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "estimate: of what? Name a case"),
        (["chatgpt-dya"], "chatgpt-dya: is no published case; did you mean chatgpt-day"),
        (["--list", "t5"], "--list: stands alone"),
        (["--list", "--pue", "1.2"], "--list: stands alone"),
        (["--pue", "2"], "estimate: these figures give no energy; add --kwh"),
        (["--watts", "2"], "estimate: these figures give no energy; add --kwh"),
        (["--gpu-hours", "2"], "gpu_hours alone says nothing"),
        (["--kwh", "much"], "--kwh: 'much' is not a number"),
        (["--kwh", "5", "--pue", "0.9"], "--pue: 0.9 is out of range; it lies from 1 to 10"),
        (["--kwh", "-5"], "--kwh: -5 is out of range"),
        (["--kwh", "nan"], "--kwh: NaN is out of range"),
        (["--kwh", "1e-400000000"], "--kwh: 1E-400000000 is too small"),
        (["--kwh", "5", "--zone", "UK"], "--zone: 'UK' is not in the country table; did you mean"),
        (["--kwh", "5", "--watts", "3", "--gpu-hours", "1"], "leave one of them out"),
        (["google-water-2022", "--zone", "FR"], "--zone: google-water-2022 cannot use it: "),
        (["no/such.toml"], "no/such.toml: cannot be read: No such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_estimated(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["estimate", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_it_stands_alone(tmp_path: Path) -> None:
    """In a process of its own, elsewhere, without a terminal, and into a pipe that ends."""
    env = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "40"}
    command = [sys.executable, "-m", "wattledger.cli", "estimate", "--list"]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "data-centre-401-t-day" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0", "0"),
        ("29166.66667", "29,166.7"),
        ("1e12", "1,000,000,000,000"),
        ("0.0000123456789", "0.0000123457"),
        ("100", "100"),
        ("5439040.02", "5,439,040"),
    ],
)
def test_numbers_for_people(number: str, text: str) -> None:
    assert readable(Fraction(number)) == text
