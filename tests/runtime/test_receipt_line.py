"""A job's receipt as one line: what Slurm's users and controllers are shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattledger.job_reports.line import (
    CUT_SHORT,
    IN_PART,
    MISSING,
    lacking_nodes,
    print_line,
    receipt_line,
)

TOTALS = {
    "energy_kwh": {"gpu": 1.0, "cpu": 0.25, "dram": 0.0, "other": 0.0, "total": 1.25},
    "co2e_g": 512.0,
    "water_l": {"onsite": 1.0, "grid": 2.0, "total": 3.0},
    "held_device_hours": 8.0,
    "held_idle_device_hours": 2.0,
}


def answer(nodes: list[tuple[str, str]] | None = None, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"manager": "slurm", "job_id": "4711", "state": "ended"}
    if nodes is not None:
        told["nodes"] = [{"node": node, "state": state} for node, state in nodes]
    return {**told, "totals": TOTALS, **more}


def test_a_job_of_one_node() -> None:
    assert receipt_line(answer(), ["gpu01"], "gpu01") == (
        "wattledger: slurm/4711 on 1 of 1 nodes: 1.250 kWh, GPUs 1.000 kWh, 512.0 g CO2e, "
        "3.000 L of water, 8.000 GPU h held, 25% of it idle"
    )
    assert receipt_line(answer(state="running")).startswith("wattledger: slurm/4711 so far: ")


def test_missing_nodes_are_named_and_counted() -> None:
    nodes = [("gpu01:19400", "ended"), ("gpu02.lab.example.org", "silent")]
    line = receipt_line(answer(nodes), ["gpu01", "gpu02", "gpu03"])
    assert " on 2 of 3 nodes: " in line
    assert line.endswith(f"{MISSING}gpu03{CUT_SHORT}gpu02")
    many = [f"n{number}" for number in range(30)]
    assert receipt_line(answer([]), many).endswith("n18, n19 and 10 more")


def test_where_nobody_names_the_nodes_they_are_counted() -> None:
    assert " on 1 of 4 nodes: " in receipt_line(answer(), count=4)
    both = [("gpu01:19400", "ended"), ("gpu02:19400", "ended")]
    assert " on 2 of 4 nodes: " in receipt_line(answer(both), count=4)
    assert " on 2 of 2 nodes: " in receipt_line(answer(both), ["gpu01", "gpu02"], count=4)
    assert " nodes" not in receipt_line(answer(), count=1)


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "4"}, " on 1 of 4 nodes"),
        ({"SLURM_JOB_ID": "4712", "SLURM_JOB_NUM_NODES": "4"}, ""),  # another job's
        ({"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "4x"}, ""),
        ({"SLURM_JOB_ID": "4711"}, ""),
        ({}, ""),
    ],
)
def test_inside_the_job_slurm_tells_how_many_nodes_it_has(
    env: dict[str, str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_line(answer(), "", env)
    assert capsys.readouterr().out.startswith(f"wattledger: slurm/4711{told}: ")


def test_an_answer_in_part_says_so() -> None:
    nodes = [("gpu01:19400", "ended"), ("gpu02:19400", "silent")]
    silent = "gpu02:19400: nothing was scraped from it since 2026-11-23T16:02:10Z"
    absent = "gpu03: nothing of this job was scraped from it"
    named = answer(nodes, missing=[silent, absent], warnings=[], partial=False)
    line = receipt_line(named, ["gpu01", "gpu02", "gpu03"])
    assert line.endswith(f"{MISSING}gpu03{CUT_SHORT}gpu02"), "said once"
    partial = {**named, "warnings": ['store "a" did not answer'], "partial": True}
    line = receipt_line(partial, ["gpu01", "gpu02", "gpu03"])
    assert line.endswith(f"{CUT_SHORT}gpu02{IN_PART}the API answered in part")
    blind = "gpu02:19400: it shows no ledger_info, so that a new ledger could not be told"
    both = {**partial, "missing": [silent, absent, blind], "partial": False}
    assert receipt_line(both, []).endswith(f"{IN_PART}{absent}, and 1 more"), "nobody named it"
    assert receipt_line(both, ["gpu03"]).endswith(f"{IN_PART}{blind}")
    assert IN_PART not in receipt_line(answer(nodes, missing=[], warnings=[], partial=False))


def test_what_is_unknown_is_not_0() -> None:
    unknown = dict.fromkeys(TOTALS)
    line = receipt_line(answer([], totals=unknown))
    assert line == "wattledger: slurm/4711: energy unknown, CO2e unknown, water unknown"


@pytest.mark.parametrize(
    ("slurm", "prometheus"),
    [
        ("gpu01", "gpu01"),
        ("gpu01", "gpu01:19400"),
        ("gpu01", "GPU01.lab.example.org:9100"),
        ("gpu01.lab", "gpu01"),
        ("10.0.0.7", "10.0.0.7:19400"),
        ("10.0.0.7", "10.0.0.7"),
        ("fd00::7", "[fd00::7]:19400"),
        ("fd00::7", "[fd00::7]"),
        ("fd00::7", "FD00:0:0::7"),
        ("fd00::dead:7", "fd00::dead:7"),
    ],
)
def test_a_node_is_known_by_either_name(slurm: str, prometheus: str) -> None:
    assert lacking_nodes(answer([(prometheus, "ended")]), [slurm]) == ()


@pytest.mark.parametrize(
    ("slurm", "prometheus"),
    [
        ("gpu01", "gpu011"),
        ("10.0.0.7", "10.0.0.8"),
        ("10.0.0.7", "10.0.0.8:19400"),
        ("fd00::7", "[fd00::8]:19400"),
        ("fd00::7", "fd00::8"),
        ("fd00::7", "fd00::7:19400"),
        ("gpu01", ""),
    ],
)
def test_another_node_is_another(slurm: str, prometheus: str) -> None:
    assert lacking_nodes(answer([(prometheus, "ended")]), [slurm]) == (slurm,)


@given(st.text(min_size=1), st.lists(st.text(min_size=1), max_size=3))
def test_whatever_it_is_called_it_is_one_line_of_printable_characters(
    job_id: str, nodes: list[str]
) -> None:
    line = receipt_line(answer([], job_id=job_id), nodes)
    assert line.startswith("wattledger: slurm/")
    assert line.isprintable()


@given(st.lists(st.integers(0, 50), unique=True), st.lists(st.integers(0, 50)))
def test_missing_and_there_are_all_that_is_expected(there: list[int], wanted: list[int]) -> None:
    told = answer([(f"gpu{number}:19400", "ended") for number in there])
    lacking = lacking_nodes(told, [f"gpu{number}" for number in wanted])
    assert set(lacking) == {f"gpu{number}" for number in set(wanted) - set(there)}
