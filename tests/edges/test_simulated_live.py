"""Waveforms that follow a file: what is written ahead of its time is what is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger.errors import ScenarioError
from wattledger.meters.simulated import parse_scenario
from wattledger.meters.simulated.live import Live
from wattledger.units import NS_PER_MS, NS_PER_S, UW_PER_W

W = UW_PER_W


def append(file: Path, text: str) -> None:
    with file.open("a") as end:
        end.write(text)


def test_energy_is_the_sum_of_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "gpu0.csv"
    wave = Live(file, 50 * W, 700 * W)
    assert wave.energy_uwns(10 * NS_PER_S) == 500 * W * NS_PER_S

    append(file, "t_s,watts\n20,300\n")
    append(file, "22.5,80\n")

    assert wave.power_uw(19 * NS_PER_S) == 50 * W
    assert wave.power_uw(20 * NS_PER_S) == 300 * W
    truth_j = 20 * 50 + 2.5 * 300 + 7.5 * 80
    assert wave.energy_uwns(30 * NS_PER_S) == truth_j * W * NS_PER_S
    append(file, "40,0\n")
    assert wave.energy_uwns(30 * NS_PER_S) == truth_j * W * NS_PER_S
    assert wave.power_uw(41 * NS_PER_S) == 0


def test_what_is_no_later_point_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "gpu0.csv"
    wave = Live(file, 0, 700 * W)
    append(file, "5,100\n4,600\n5,600\nx,1\n6\n6,-1\n6,nan\n\n7,9000\n8,2")

    powers = [wave.power_uw(s * NS_PER_S) // W for s in (4, 5, 6, 7, 8)]

    assert powers == [0, 100, 100, 700, 700]  # a card draws no more than its limit
    append(file, "00\n")  # the line is complete now
    assert wave.power_uw(8 * NS_PER_S) == 200 * W


@given(
    st.lists(st.tuples(st.integers(1, 5_000), st.integers(0, 700)), max_size=30),
    st.lists(st.integers(0, 200_000), min_size=2, max_size=2),
)
def test_pieces_sum_to_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    points: list[tuple[int, int]],
    ends: list[int],
) -> None:
    file = tmp_path_factory.mktemp("live") / "gpu0.csv"
    wave = Live(file, 70 * W, 700 * W)
    at_ms, levels = 0, [(0, 70)]
    for step_ms, watts in points:
        at_ms += step_ms
        levels.append((at_ms, watts))
        append(file, f"{at_ms / 1000},{watts}\n")
    start, end = sorted(ends)
    bounds = [*(at for at, _ in levels[1:]), 10**9]
    truth = sum(
        watts * max(0, min(end, until) - max(start, since))
        for (since, watts), until in zip(levels, bounds, strict=True)
    )

    counted = wave.energy_uwns(end * NS_PER_MS) - wave.energy_uwns(start * NS_PER_MS)

    assert counted == truth * W * NS_PER_MS


def test_a_scenario_plays_it(tmp_path: Path) -> None:
    gpu = '[[gpu]]\nmodel = "H100 SXM"\nwaveform = { kind = "live", file = "gpu0.csv" }\n'
    wave = parse_scenario(gpu, "x.toml", tmp_path).gpus[0].waveform
    assert wave.power_uw(0) == 70 * W  # the model's idle power
    append(tmp_path / "gpu0.csv", "1,400\n")
    assert wave.power_uw(NS_PER_S) == 400 * W

    with pytest.raises(ScenarioError, match="must meet within"):  # it never repeats
        parse_scenario(gpu + 'sensor = { mode = "window" }\n', "x.toml", tmp_path)
