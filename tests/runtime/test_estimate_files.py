"""Estimates in files of one's own: what they say, and every mistake named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger.cli import main
from wattledger.config.estimate_file import parse_case
from wattledger.core.estimate.cases import Row, rows
from wattledger.core.estimate.inputs import INPUTS
from wattledger.core.estimate.quantities import QUANTITIES
from wattledger.errors import ConfigError

OWN = """
[inputs]
pue = 1.15
zone = "DE"

[[estimate]]
name = "from chips"
inputs = { chips = 64, days = 12, watts = 700 }

[[estimate.published]]
quantity = "facility_energy"
unit = "MWh"
value = 14.8
within_percent = 1
"""


def test_a_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)

    assert main(["estimate", str(path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["case"], row["note"]) == ("mine", "from chips")
    assert row["computed"] == pytest.approx(64 * 12 * 24 * 0.0007 * 1.15)
    assert main(["estimate", str(path)]) == 0
    assert "intensity_g_per_kwh = " in capsys.readouterr().out
    path.write_text(OWN.partition("[[estimate.published]]")[0])
    assert main(["estimate", str(path), "--json"]) == 0
    shown = {row["quantity"] for row in json.loads(capsys.readouterr().out)}
    assert shown == {"gpu_hours", "gpu_power", "it_energy", "facility_energy", "co2e", "water_grid"}


# Sound, but for its size; and cut off within a letter of several bytes.
LARGE = OWN.encode() + b"#" * (1 << 16)
CUT = "é".encode() * (1 << 16)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff\xfe", "is not UTF-8 text"), (LARGE, "larger than 64 KiB"), (CUT, "larger than 64")],
)
def test_a_file_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)

    assert main(["estimate", str(path)]) == 2
    told = capsys.readouterr().err
    assert str(path) in told and said in told
    path.write_bytes(OWN.encode() + b"#" * ((1 << 16) - len(OWN.encode())))
    assert main(["estimate", str(path)]) == 0  # as large as one may be


ONE = "[[estimate]]\ninputs = { kwh = 1, pue = 1.1 }\n"
FIGURE = ONE + '[[estimate.published]]\nquantity = "it_energy"\n'


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("", "estimate", "is missing; write at least one [[estimate]]"),
        ("a = ", "", "not valid TOML"),
        ("titel = 'a'\n" + ONE, "titel", "unknown key; did you mean title?"),
        ("title = 3\n" + ONE, "title", "3 is not a text"),
        ('note = "\\u001b[31m"\n' + ONE, "note", "holds a control character"),
        ("estimate = 3", "estimate", "3 is not a list; write [[…]] tables"),
        ("[[estimate]]\ninputs = { kwhh = 1 }", "estimate[0].inputs.kwhh", "did you mean kwh?"),
        ("[[estimate]]\ninputs = { kwh = 'a' }", "estimate[0].inputs.kwh", "'a' is not a number"),
        ("[[estimate]]\ninputs = { kwh = true }", "estimate[0].inputs.kwh", "is not a number"),
        ("[[estimate]]\ninputs = { kwh = 1e999 }", "estimate[0].inputs.kwh", "is out of range"),
        ("[[estimate]]\ninputs = { kwh = nan }", "estimate[0].inputs.kwh", "is out of range"),
        ("[[estimate]]\ninputs = 3", "estimate[0].inputs", "3 is not a table of inputs"),
        ("[[estimate]]\n", "estimate[0].inputs", "nothing follows from these"),
        ("[inputs]\npue = 0\n" + ONE, "inputs.pue", "it lies from 1 to 10"),
        ("[[estimate]]\ninputs = { kwh = 1, pue = 1, zone = 'UK' }", "estimate[0].inputs.zone",
         "did you mean GB"),
        ("[[estimate]]\ninputs = { chips = 1 }", "estimate[0].inputs", "with it goes days"),
        (ONE + ONE, "estimate[1].name", "'' is another's too"),
        (ONE + "[[estimate.published]]\n", "estimate[0].published[0].quantity", "is missing"),
        (ONE + "[[estimate.published]]\nquantity = 'co2'", "estimate[0].published[0].quantity",
         "'co2' is not possible here; write one of gpu_hours"),
        (ONE + "[[estimate.published]]\nquantity = 'co2e'", "estimate[0].published[0].quantity",
         "co2e does not follow"),
        (FIGURE + "unit = 'J'", "estimate[0].published[0].unit", "write one of kWh, Wh"),
        (FIGURE + "value = 3", "estimate[0].published[0]", "has a value without within_percent"),
        (FIGURE + "value = 0\nwithin = 1", "estimate[0].published[0].value", "is not above 0"),
        (FIGURE + "within = 1", "estimate[0].published[0].value", "is missing; a tolerance is of"),
        (FIGURE + "valu = 1", "estimate[0].published[0].valu", "did you mean value?"),
        (FIGURE + "value = -1", "estimate[0].published[0].value", "is out of range"),
    ],
)  # fmt: skip
def test_every_mistake_names_its_key_and_the_remedy(text: str, path: str, said: str) -> None:
    with pytest.raises(ConfigError) as failure:
        parse_case(text, "mine", "mine.toml")

    faults = dict(failure.value.faults)
    assert list(faults) == [f"mine.toml: {path}" if path else "mine.toml"]
    assert said in next(iter(faults.values()))


def test_all_mistakes_at_once() -> None:
    text = (
        "a = 1\n[[estimate]]\ninputs = { kwhh = 1, pue = 0 }\n"
        "[[estimate]]\nnote = 3\n[[estimate.published]]\nvalue = 'x'\n"
    )
    with pytest.raises(ConfigError) as failure:
        parse_case(text, "mine", "mine.toml")

    assert [path.removeprefix("mine.toml: ") for path, _ in failure.value.faults] == [
        "a",
        "estimate[0].inputs.kwhh",
        "estimate[0].inputs.pue",
        "estimate[1].note",
        "estimate[1].published[0].quantity",
        "estimate[1].published[0].value",
    ]


NUMBERS = st.one_of(
    st.integers(-5, 10**20),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["true", "'DE'", "[]", "{}", "1e400", "-0.0", "1e-320"]),
)


@given(
    st.dictionaries(st.sampled_from([*INPUTS, "zone", "kwhh"]), NUMBERS, max_size=6),
    st.sampled_from([*QUANTITIES, "joy"]),
    NUMBERS,
)
def test_no_file_breaks_the_reader(inputs: dict[str, Any], quantity: str, value: Any) -> None:
    """It is refused by name, or it is computed."""
    table = ", ".join(f"{name} = {number}" for name, number in inputs.items())
    text = (
        f"[[estimate]]\ninputs = {{ {table} }}\n[[estimate.published]]\n"
        f"quantity = '{quantity}'\nvalue = {value}\nwithin = 1\n"
    )
    case, faults = None, ()
    try:
        case = parse_case(text, "mine", "mine.toml")
    except ConfigError as error:
        faults = error.faults
    assert all(path.startswith("mine.toml") and said for path, said in faults)
    if case is None:
        assert faults
    else:
        (row,) = rows(case)
        assert isinstance(row, Row) and row.computed >= 0
