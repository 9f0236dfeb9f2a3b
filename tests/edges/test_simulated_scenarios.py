"""Scenario files: what is read, on which lines, and those that are shipped."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeClock
from wattledger.meters.simulated import SimulatedNvml, load_scenario, parse_scenario
from wattledger.meters.simulated.describe import describe
from wattledger.meters.simulated.locate import key_lines
from wattledger.meters.simulated.models import MODELS
from wattledger.units import NS_PER_S

SCENARIOS = Path(__file__).parents[2] / "configs" / "scenarios"
SHIPPED = sorted(SCENARIOS.glob("*.toml"))

GPU = '[[gpu]]\nmodel = "H100 SXM"\n'


# ── what is read ────────────────────────────────────────────────────────────────────────────────


def test_a_trace_file_is_played(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t_s,watts\n10,100\n# a note\n11,300\n12,0\n")
    text = GPU + 'waveform = {{ kind = "trace", file = "t.csv", interpolation = "{}" }}'
    step = parse_scenario(text.format("step"), "x", tmp_path).gpus[0].waveform
    linear = parse_scenario(text.format("linear"), "x", tmp_path).gpus[0].waveform

    assert step.energy_uwns(2 * NS_PER_S) == 400_000_000 * NS_PER_S
    assert linear.energy_uwns(2 * NS_PER_S) == 350_000_000 * NS_PER_S
    assert step.power_uw(3_500_000_000) == 300_000_000  # it repeats after 2 s


def test_cards_of_one_entry_are_staggered_and_numbered_on() -> None:
    scenario = parse_scenario(
        GPU + 'count = 3\nwaveform = { kind = "square", low_w = 0, high_w = 100, period_s = 4, '
        "stagger_s = 1 }\n" + GPU,
        "node.toml",
    )

    assert scenario.name == "node"
    assert [gpu.number for gpu in scenario.gpus] == [0, 1, 2, 3]
    assert [gpu.minor for gpu in scenario.gpus] == [0, 1, 2, 3]
    assert [gpu.waveform.power_uw(0) for gpu in scenario.gpus] == [10**8, 10**8, 0, 70_000_000]


def test_uuids_follow_from_the_seed() -> None:
    one, same, other = (
        [g.uuid for g in parse_scenario(f"seed = {seed}\n{GPU}count = 8", "x").gpus]
        for seed in (1, 1, 2)
    )

    assert one == same
    assert len({*one, *other}) == 16


def test_random_gain_and_offset_differ_from_card_to_card() -> None:
    text = GPU + 'count = 32\nsensor = { gain = "random", offset_w = "random" }'
    sensors = [gpu.sensor for gpu in parse_scenario(text, "x").gpus]
    gains = [s.gain_ppm for s in sensors]

    assert len(set(gains)) == 32
    assert 940_000 < sum(gains) / 32 < 980_000
    assert max(abs(s.offset_uw) for s in sensors) <= 5_000_000


@pytest.mark.parametrize("model", MODELS)
def test_every_model_can_be_simulated(model: str) -> None:
    driver = SimulatedNvml(parse_scenario(f'[[gpu]]\nmodel = "{model}"', "x"), FakeClock())
    driver.nvmlInit()
    handle = driver.nvmlDeviceGetHandleByIndex(0)

    assert driver.nvmlDeviceGetPowerUsage(handle) == pytest.approx(
        MODELS[model].idle_w * 1000, abs=500
    )


# ── lines ───────────────────────────────────────────────────────────────────────────────────────

INTRICATE = '''# [[gpu]] in a comment
"quoted key" = 'a # b [x]'
dotted.inner."deep" = 1
text = """
[[not.a.table]]
key = 1 \\"""  # still text
"""
literal = \'\'\'
x = [
\'\'\'
list = [ # comment ]
  1, "]", { a = 1, b = { c = [2, 3] } },

  4,
]

[ table . sub ]
date = 1979-05-27 07:32:00
[[many]]
a = 1
[[many.inner]]
b = 2
[[many.inner]]
b = 3
[many.single]
d = 1
[[many]]
a = 2
[[many.inner]]
b = 4
'''


def paths_in(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_in(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from paths_in(inner, (*path, place))


@pytest.mark.parametrize("text", [INTRICATE, *(path.read_text() for path in SHIPPED)])
def test_every_key_has_a_line_and_no_line_a_stranger(text: str) -> None:
    found = key_lines(text)
    document = tomllib.loads(text)

    assert set(found) == set(paths_in(document))
    lines = text.splitlines()
    for path, line in found.items():
        if isinstance(path[-1], str):
            assert path[-1] in lines[line - 1], path


def test_lines_by_hand() -> None:
    found = key_lines(INTRICATE)

    assert found["dotted", "inner", "deep"] == 3
    assert found["list", 2, "b", "c", 1] == 12
    assert found["list", 3] == 14
    assert found["table", "sub", "date"] == 18
    assert found["many", 0, "inner", 1, "b"] == 24
    assert found["many", 0, "single", "d"] == 26
    assert found["many", 1, "inner", 0] == 29


# ── shipped ─────────────────────────────────────────────────────────────────────────────────────


def test_the_page_is_the_schemas() -> None:
    """To mend: python -m wattledger.meters.simulated.describe > configs/scenarios/README.md."""
    assert (SCENARIOS / "README.md").read_text() == describe()


def test_the_page_names_every_shipped_scenario() -> None:
    assert len(SHIPPED) >= 4
    for path in SHIPPED:
        assert f"`{path.name}`" in describe()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios_play(path: Path) -> None:
    """Five minutes at 1 Hz; whatever fails, fails as an NVML error, and what answers is true."""
    clock = FakeClock()
    scenario = load_scenario(path)
    driver = SimulatedNvml(scenario, clock, clock.advance)
    numbers = {gpu.uuid: gpu.number for gpu in scenario.gpus}
    faulty = {fault.gpu for fault in scenario.faults}
    read = 0
    for _ in range(300):
        clock.advance(1)
        try:
            driver.nvmlInit()
        except driver.NVMLError:
            continue
        for index in range(len(numbers)):
            try:
                handle = driver.nvmlDeviceGetHandleByIndex(index)
                uuid = driver.nvmlDeviceGetUUID(handle)
                energy = driver.nvmlDeviceGetFieldValues(handle, [83, 186])[0]
            except driver.NVMLError:
                continue
            gpu = scenario.gpus[numbers[uuid]]
            if energy.nvmlReturn == 0 and gpu.number not in faulty and None not in faulty:
                truth_mj = driver.true_energy_uj(uuid) / 1000 * gpu.sensor.gain_ppm / 1e6
                assert 0 <= truth_mj - energy.value.ullVal <= 100_000
            read += 1
        driver.nvmlShutdown()

    assert read > 200 * len(numbers)


def test_truth_can_be_asked_by_number_uuid_boot_and_wall_time() -> None:
    clock = FakeClock()
    driver = SimulatedNvml(load_scenario(SCENARIOS / "eight-h100.toml"), clock)
    uuid = driver.scenario.gpus[7].uuid
    boot_ns, wall_ns = clock.boottime_ns, clock.wall_ns
    clock.advance(60)

    assert driver.true_energy_uj(7, boottime_ns=boot_ns) == 70_000 * 1_000_000
    assert driver.true_energy_uj(uuid, wall_ns=wall_ns) == 70_000 * 1_000_000
    assert driver.true_energy_uj(7) == 70 * 1_060 * 1_000_000
    assert driver.true_power_uw(7) == 70_000_000
    assert driver.calls == 0
    with pytest.raises(KeyError):
        driver.true_energy_uj(8)
