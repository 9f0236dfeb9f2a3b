"""What a scenario file may not say: refused, at its line, with what to write instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeClock
from wattledger.errors import ScenarioError
from wattledger.meters.simulated import SimulatedNvml, load_scenario, parse_scenario, schema


def faults_of(text: str, folder: Path | None = None) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "x.toml", folder)
    assert caught.value.hint
    return caught.value.message.splitlines()


_FAULT_KEYS = sorted({key for _, keys in schema.FAULTS.values() for key in keys})
_WORDS = {
    "kind",
    *(key for keys in schema.WAVEFORMS.values() for key in keys),
    *schema.SENSOR,
    *schema.PROCESS,
    *schema.MIG,
    *schema.MIG_INSTANCE,
}
GPU = '[[gpu]]\nmodel = "H100 SXM"\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "x.toml:1: gpu: is missing"),
        ("gpu = []", "x.toml:1: gpu: is empty"),
        ("gpu = 3", "x.toml:1: gpu: 3 is not an array"),
        ("[gpu]\nmodel = 1", "x.toml:1: gpu: {'model': 1} is not an array"),
        (GPU + "colour = 1", "x.toml:3: gpu[0].colour: unknown; use one of model, count"),
        ("[[gpu]]\ncount = 1", "x.toml:1: gpu[0].model: is missing"),
        ('[[gpu]]\nmodel = "H100"', 'x.toml:2: gpu[0].model: "H100" is none of V100, T4, A100'),
        (GPU + "count = 0", "x.toml:3: gpu[0].count: 0 is out of range; it must be 1 to 64"),
        (GPU + "count = 1.5", "x.toml:3: gpu[0].count: 1.5 is not a whole number"),
        (GPU + "count = true", "x.toml:3: gpu[0].count: True is not a whole number"),
        (GPU + GPU + "count = 64", "x.toml:1: gpu: 65 cards; at most 64"),
        (GPU + "power_limit_w = -1", "x.toml:3: gpu[0].power_limit_w: -1 is out of range"),
        (GPU + "power_limit_w = nan", "x.toml:3: gpu[0].power_limit_w: nan is not a finite number"),
        (GPU + 'power_limit_w = "1"', 'x.toml:3: gpu[0].power_limit_w: "1" is not a number'),
        (GPU + 'persistence = "on"', 'x.toml:3: gpu[0].persistence: "on" is not true or false'),
        (GPU + 'uuid = "GPU-1"', 'x.toml:3: gpu[0].uuid: "GPU-1" is not a UUID'),
        (GPU + "minor = 1\n" + GPU, "x.toml:1: gpu: two cards have minor 1"),
        (GPU + "waveform = 1", "x.toml:3: gpu[0].waveform: 1 is not a table"),
        (GPU + "waveform = {}", "x.toml:3: gpu[0].waveform.kind: is missing; use one of constant"),
        (
            GPU + GPU + '# a comment\nwaveform = { kind = "zigzag" }',
            'x.toml:6: gpu[1].waveform.kind: "zigzag" is unknown; use one of constant, square',
        ),
        (
            GPU + '[gpu.waveform]\nkind = "constant"\nwatts = -3',
            "x.toml:5: gpu[0].waveform.watts: -3 is out of range",
        ),
        (
            GPU + 'waveform = { kind = "constant", watts = 900 }',
            "x.toml:3: gpu[0].waveform: draws up to 900 W, more than the power limit of 700 W",
        ),
        (
            GPU + 'waveform = { kind = "square", low_w = 9, high_w = 8, period_s = 1 }',
            "x.toml:3: gpu[0].waveform.low_w: is above high_w",
        ),
        (
            GPU + 'waveform = { kind = "square", low_w = 1, high_w = 8, period_s = 0 }',
            "x.toml:3: gpu[0].waveform.period_s: 0 is out of range",
        ),
        (
            GPU + 'waveform = { kind = "sine", mean_w = 1, amplitude_w = 8, period_s = 1 }',
            "x.toml:3: gpu[0].waveform.amplitude_w: is more than the mean",
        ),
        (
            GPU + 'waveform = { kind = "burst", low_w = 1, high_w = 8, width_s = 2, every_s = 1 }',
            "x.toml:3: gpu[0].waveform.width_s: is longer than every_s",
        ),
        (
            GPU + 'waveform = { kind = "trace" }',
            "x.toml:3: gpu[0].waveform: a trace has either file or points",
        ),
        (
            GPU + 'waveform = { kind = "trace", file = "no.csv" }',
            "x.toml:3: gpu[0].waveform.file: cannot read the trace: [Errno 2]",
        ),
        (
            GPU + 'waveform = { kind = "trace", points = [[0, 1], [0, 2]] }',
            "x.toml:3: gpu[0].waveform.points: point 1: the time does not increase",
        ),
        (
            GPU + 'waveform = { kind = "trace", points = [[0, 1]] }',
            "x.toml:3: gpu[0].waveform.points: points: a trace has at least two points",
        ),
        (
            GPU + 'waveform = { kind = "trace", points = [[0, 1], 7] }',
            "x.toml:3: gpu[0].waveform.points: point 1: a point is a time",
        ),
        (GPU + 'sensor = { mode = "x" }', 'x.toml:3: gpu[0].sensor.mode: "x" is none of full'),
        (GPU + "sensor = { gain = 0 }", "x.toml:3: gpu[0].sensor.gain: 0 is out of range; it must"),
        (GPU + 'sensor = { gain = "x" }', 'x.toml:3: gpu[0].sensor.gain: "x" is not a number; or'),
        (GPU + "sensor = { offset_w = -90 }", "x.toml:3: gpu[0].sensor.offset_w: makes the shown"),
        (
            GPU
            + 'sensor = { mode = "window" }\n'
            + 'waveform = { kind = "square", low_w = 1, high_w = 2, period_s = 1.000001 }',
            'x.toml:3: gpu[0].sensor.mode: with "window", counter tick and waveform must meet',
        ),
        (
            GPU + "processes = [\n  { pid = 1 },\n  { pid = 0 },\n]",
            "x.toml:5: gpu[0].processes[1].pid: 0 is out of range",
        ),
        (GPU + "[[gpu.processes]]\nname = 1", "x.toml:4: gpu[0].processes[0].name: unknown"),
        (
            '[[gpu]]\nmodel = "T4"\nmig = { instances = [] }',
            "x.toml:3: gpu[0].mig: Tesla T4 has",
        ),
        (
            GPU + 'mig = { instances = [{ profile = "big" }] }',
            "x.toml:3: gpu[0].mig.instances[0].profile: is no profile",
        ),
        (
            GPU + 'mig = { instances = [{ profile = "4g.40gb" }, { profile = "4g.40gb" }] }',
            "x.toml:3: gpu[0].mig.instances: take 8 slices; the card has 7",
        ),
        (GPU + "[[fault]]\ngpu = 0", "x.toml:3: fault[0].kind: is missing; use one of library"),
        (
            GPU + '[[fault]]\nkind = "hang"',
            "x.toml:3: fault[0].for_s: is missing: lasts so long",
        ),
        (
            GPU + '[[fault]]\nkind = "lost"\ngpu = 1',
            "x.toml:5: fault[0].gpu: there is no card 1; numbers run to 0",
        ),
        (
            GPU + '[[fault]]\nkind = "reorder"\nindices = [1]',
            "x.toml:5: fault[0].indices: must name each card 0 to 0 once",
        ),
        (
            GPU + '[[fault]]\nkind = "reorder"\nindices = ["0"]',
            "x.toml:5: fault[0].indices: must name each card 0 to 0 once",
        ),
        (
            GPU + '[[fault]]\nkind = "library_missing"\ngpu = 0',
            "x.toml:5: fault[0].gpu: unknown; use one of at_s, for_s, since",
        ),
        (
            '[[gpu]]\nmodel = "T4"\n[[fault]]\nkind = "mig_on"',
            "x.toml:3: fault[0].gpu: the card has no MIG",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, fault: str) -> None:
    found = faults_of(text)

    assert len(found) == 1
    assert found[0].startswith(fault)


def test_all_mistakes_come_at_once_in_order() -> None:
    found = faults_of(
        'seed = "x"\n[[fault]]\nkind = "melt"\n[[gpu]]\nmodel = "T4"\ncount = 4\n'
        "sensor = { gain = -1, tick_ms = 0 }\ncolour = 1\n"
    )

    assert [line.split(": ")[:2] for line in found] == [
        ["x.toml:1", "seed"],
        ["x.toml:3", "fault[0].kind"],
        ["x.toml:7", "gpu[0].sensor.gain"],
        ["x.toml:7", "gpu[0].sensor.tick_ms"],
        ["x.toml:8", "gpu[0].colour"],
    ]


@pytest.mark.parametrize(
    ("text", "line"), [("[[gpu]]\nmodel = H100\n", 2), ("[[gpu]]\nmodel = [\n", 3)]
)
def test_what_is_not_toml_is_named_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ScenarioError, match=f"^x.toml:{line}: not TOML"):
        parse_scenario(text, "x.toml")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")

    for name in ("absent.toml", "binary.toml", "."):
        with pytest.raises(ScenarioError, match="cannot read the scenario"):
            load_scenario(tmp_path / name)


@pytest.mark.parametrize(
    ("csv", "fault"),
    [
        ("t_s,watts\n0,1\n1,-2\n", "t.csv:3: -2.0 is out of range"),
        ("0,1\n1\n", "t.csv:2: a point is a time in seconds and a power in watts"),
        ("0,1\n1,x\n", "t.csv:2: could not convert"),
        ("0,1\n\n0,2\n", "t.csv:3: the time does not increase"),
        ("", "t.csv: a trace has at least two points"),
    ],
)
def test_a_bad_trace_is_named_with_its_own_line(tmp_path: Path, csv: str, fault: str) -> None:
    (tmp_path / "t.csv").write_text(csv)
    found = faults_of(GPU + 'waveform = { kind = "trace", file = "t.csv" }', tmp_path)

    assert found[0].startswith(f"x.toml:3: gpu[0].waveform.file: {fault}")


_ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 40)
    | st.sampled_from([0.5, -1.0, 1e300])
    | st.sampled_from(
        ["H100 SXM", "A100", "square", "burst", "trace", "hang", "self", "random", ""]
    )
    | st.sampled_from(["reorder", "mig_on", "1g.10gb", "window", "sine", "no.csv", "linear"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(_WORDS)), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_written_is_read_or_refused(data: st.DataObject) -> None:
    """Any value at any key: a scenario that plays, or a ScenarioError."""
    gpu = {"model": "A100"} | data.draw(st.dictionaries(st.sampled_from([*schema.GPU]), _ODD))
    fault = data.draw(st.dictionaries(st.sampled_from(["kind", *_FAULT_KEYS]), _ODD, max_size=4))
    document = {"gpu": [gpu], "fault": [fault]} if fault else {"gpu": [gpu]}
    faults, scenario = "", None
    try:
        scenario = parse_scenario(as_toml(document), "x.toml", Path("/nonexistent"))
    except ScenarioError as error:
        faults = error.message
    assert all(line.startswith("x.toml:") for line in faults.splitlines())
    if scenario is None:
        assert faults
        return
    clock = FakeClock()
    driver = SimulatedNvml(scenario, clock, clock.advance)
    clock.advance(1)
    try:
        driver.nvmlInit()
        handle = driver.nvmlDeviceGetHandleByIndex(0)
        driver.nvmlDeviceGetFieldValues(handle, [83, 185, 186])
        driver.nvmlDeviceGetComputeRunningProcesses(handle)
    except driver.NVMLError:
        pass


def as_toml(value: Any, top: bool = True) -> str:
    """Inline TOML of plain values; what TOML cannot say (null) becomes a text."""
    if isinstance(value, dict) and top:
        return "".join(f"{json.dumps(k)} = {as_toml(v, False)}\n" for k, v in value.items())
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(k)} = {as_toml(v, False)}" for k, v in value.items())
        return "{ " + inner + " }"
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(v, False) for v in value) + "]"
    return json.dumps("null" if value is None else value)
