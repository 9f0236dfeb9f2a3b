"""`wattledger estimate CASE --option …`: figures of one's own in the place of a case's."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from documents import chosen
from wattledger.cli import main
from wattledger.config.estimate_file import parse_case
from wattledger.core.estimate.cases import Row, rows
from wattledger.core.estimate.inputs import INPUTS
from wattledger.errors import ConfigError
from wattledger.estimates import files

ROOT = Path(__file__).parents[2]
PATTERSON = (
    "evolved-transformer-nas",
    "gpt-3-training",
    "gshard-600b",
    "meena",
    "switch-transformer",
    "t5",
)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["estimate", *arguments, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("case", PATTERSON)
def test_a_run_on_another_grid(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What was net of purchases says nothing about another grid; the energy stays as it was."""
    before = {row["quantity"]: row for row in run(capsys, case)}
    after = {row["quantity"]: row for row in run(capsys, case, "--zone", "FR")}

    assert before.keys() - after.keys() == {"net_co2e"}
    assert after["facility_energy"] == before["facility_energy"]
    assert after["co2e"]["note"].endswith("With zone = FR.")
    assert 0 < after["co2e"]["computed"] < before["co2e"]["computed"] / 4
    assert after["co2e"]["published"] == before["co2e"]["published"]


def test_an_option_is_of_the_estimates_that_can_use_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, after = run(capsys, "meena"), run(capsys, "meena", "--watts", "100")
    changed = [row["quantity"] for row in after if "With watts = 100." in row["note"]]
    assert changed == ["facility_energy"]
    assert after[0]["computed"] == pytest.approx(1024 * 30 * 24 * 1e-4 * 1.09)
    assert after[1:] == before[1:]  # to the letter: nothing is claimed of them

    assert main(["estimate", "meena", "--watts", "100"]) == 0
    table = capsys.readouterr().out
    assert table.count("watts = 100") == 2  # the input, and the note of the one figure
    both = run(capsys, "meena", "--watts", "100", "--zone", "FR")
    told = {row["quantity"]: row["note"].partition(": ")[2] for row in both}
    assert told == {"facility_energy": "With watts = 100.", "co2e": "With zone = FR."}


@pytest.mark.parametrize(
    ("option", "value", "changed"),
    [
        ("--zone", "FR", {"water_grid", "water"}),
        ("--pue", "1.1", {"water_onsite", "water_grid", "water"}),
        ("--wue", "0.1", {"water_onsite", "water"}),
        ("--ewif", "1", {"water_grid", "water"}),
    ],
)
def test_an_estimate_of_the_same_case_that_cannot_use_it_stays(
    option: str, value: str, changed: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One of these is of gallons, which no PUE makes more of."""
    found = run(capsys, "gpt-3-training-water", option, value)
    assert {row["quantity"] for row in found if "With " in row["note"]} == changed
    (gallons,) = (row for row in found if row["quantity"] == "water_volume")
    assert gallons["computed"] == pytest.approx(700_301, abs=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gpt-3-request-water", "--requests", "0"], "--requests: gpt-3-request-water cannot use"),
        (["google-water-2022", "--zone", "FR"], "--zone: google-water-2022 cannot use it: "),
        (["meena", "--wue", "0.3"], "--wue: no figure of meena follows from it"),
        (["meena", "--kwh", "5"], "it_energy follows as kwh, and also as"),
        (["meena", "--watts", "100", "--wue", "0.3"], "--wue: no figure of meena follows from it"),
        (["t5", "--pue", "0.9"], "--pue: 0.9 is out of range; it lies from 1 to 10"),
        (["t5", "--zone", "UK"], "--zone: 'UK' is not in the country table; did you mean"),
    ],
)
def test_what_no_estimate_of_a_case_can_use_is_refused_once(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", *arguments]) == 2
    told = capsys.readouterr()
    assert said in told.err and told.out == ""
    assert len(told.err.splitlines()) == 1
    assert told.err.count("divides by 0") <= 1


def test_a_file_may_wait_for_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[[estimate]]\ninputs = { chips = 2, days = 1, pue = 1.5 }\n")
    found = {row["quantity"]: row for row in run(capsys, str(path), "--watts", "500")}
    assert found["facility_energy"]["computed"] == 36
    assert found["facility_energy"]["note"] == "With watts = 500."
    assert found["gpu_hours"]["note"] == ""
    # A figure that never follows is a fault of the file, with an option or without.
    text = '[[estimate.published]]\nquantity = "net_co2e"\n'
    path.write_text(path.read_text().replace("days = 1", "days = 1, watts = 5") + text)
    for more in ([], ["--watts", "500"]):
        assert main(["estimate", str(path), *more]) == 2
        assert "net_co2e does not follow" in capsys.readouterr().err


OPTIONS = {name: known for name, known in INPUTS.items() if known.option}
VALUES = {
    name: st.sampled_from([known.low, max(known.low, Decimal(1)), min(known.high, Decimal(7))])
    for name, known in OPTIONS.items()
}


def rows_or_none(case: str, asked: dict[str, Decimal | str]) -> list[Row] | None:
    """None: refused with a sentence; anything else that is raised is a fault of the program."""
    try:
        return files.rows_of(files.load(case, asked), asked)
    except ConfigError:
        return None


@settings(deadline=None)
@given(
    st.sampled_from(files.names()),
    st.lists(st.sampled_from(list(VALUES)), unique=True, max_size=4).flatmap(
        lambda names: st.fixed_dictionaries({name: VALUES[name] for name in names})
    ),
    st.sampled_from(["", "FR"]),
)
def test_a_note_says_what_a_figure_follows_from(
    case: str, overrides: dict[str, Decimal], zone: str
) -> None:
    """Any options on any case: refused with a sentence, or each change is told, and no other."""
    asked: dict[str, Decimal | str] = {**overrides, **({"zone": zone} if zone else {})}
    found = rows_or_none(case, asked)
    if found is None:
        return
    before = {
        (row.estimate, row.quantity, row.unit): row.computed for row in rows(files.load(case))
    }
    for row in found:
        told = row.note.startswith("With ")
        assert told == bool(row.changed)
        if before[row.estimate, row.quantity, row.unit] != row.computed:
            assert told
    assert {name for row in found for name in row.changed} == asked.keys()


def test_the_example_of_the_page_holds() -> None:
    (example,) = chosen("toml estimate")
    found = list(rows(parse_case(example.text, "mine", "mine.toml")))
    assert [row.reproduced for row in found] == [True]
