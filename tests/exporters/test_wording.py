"""Figures in words: readable, and never nothing where there is something."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger_exporters import wording
from wattledger_exporters.wording import CO2E, ENERGY, WATER, Units


@pytest.mark.parametrize(
    ("kwh", "said"),
    [
        (0, "0 kWh"),
        (4.916e-9, "0.01770 J"),
        (0.99996 / 3.6e6, "1.000 J"),
        (2 / 3.6e12, "0.000002 J"),
        (3.21e-5, "0.03210 Wh"),
        (0.0321, "0.03210 kWh"),
        (1_234.5678, "1,235 kWh"),
    ],
)
def test_energies(kwh: float, said: str) -> None:
    assert wording.energy(kwh) == said


def test_masses_and_volumes() -> None:
    masses = [wording.co2e(grams) for grams in (0, 3e-6, 7.4219, 4_920, 12_340, 2.5e7)]
    assert masses == ["0 g", "0.003 mg", "7.422 g", "4,920 g", "12.34 kg", "25.00 t"]
    assert [wording.water(liters) for liters in (0, 0.06494, 1.5)] == ["0 L", "64.94 mL", "1.500 L"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (7.5, "7.5 s"),
        (119.96, "120.0 s"),
        (600, "10 min"),
        (3599.7, "1 h"),
        (7384, "2 h 3 min 4 s"),
        (86_399.9, "1 d"),
        (273_901, "3 d 4 h 5 min"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert wording.duration(seconds) == said


def test_parts_stand_in_the_unit_of_the_whole_and_to_its_last_digit() -> None:
    kinds = [("GPU", 0.0100600), ("CPU", 2.854e-8), ("DRAM", 0.0)]
    assert wording.parts(kinds, 0.01006002854, ENERGY) == "GPU 0.01006, CPU <0.00001, DRAM 0"
    assert wording.parts([("grid", 5e-5), ("on site", 1e-5)], 6e-5, WATER) == (
        "grid 0.050, on site 0.010"
    )
    assert wording.parts([("GPU", 123456.7)], 123456.7, ENERGY) == "GPU 123,457"
    assert wording.parts([], 0.0, ENERGY) == ""


@given(st.floats(1e-5, 1e12), st.sampled_from([ENERGY, CO2E, WATER]))
def test_any_amount_can_be_read_back(value: float, units: Units) -> None:
    unit = wording.unit_for(value, units)
    said = wording.number(value * unit.per_base, unit.decimals)
    assert re.fullmatch(r"[0-9,]+(\.[0-9]+)?", said)
    least = 10.0**-unit.decimals / unit.per_base
    read = float(said.replace(",", "")) / unit.per_base
    assert read == pytest.approx(value, rel=1e-3, abs=least)


@given(st.floats(0.01, 1e9))
def test_no_duration_is_empty_or_far_off(seconds: float) -> None:
    said = wording.duration(seconds)
    sizes = {"d": 86_400, "h": 3600, "min": 60, "s": 1}
    words = said.split()
    total = sum(float(n) * sizes[u] for n, u in zip(words[::2], words[1::2], strict=True))
    assert total == pytest.approx(seconds, rel=0.006, abs=0.01)


@given(st.text())
def test_an_escaped_id_is_one_line_and_is_known_again(text: str) -> None:
    shown = wording.escaped(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()
    if "\\" not in text:
        assert wording.unescaped(shown) == text
