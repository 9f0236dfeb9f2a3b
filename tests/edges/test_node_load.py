"""How busy the node is, from /proc/stat."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysfs import ProcTree, put
from wattledger.jobs.node import NodeLoad
from wattledger.units import PPM


def test_the_first_call_cannot_tell(tmp_path: Path) -> None:
    assert NodeLoad(ProcTree(tmp_path).procfs).busy_ppm() is None


def test_it_is_the_share_since_the_last_call(tmp_path: Path) -> None:
    proc = ProcTree(tmp_path)
    proc.run(1000, 1)
    load = NodeLoad(tmp_path)
    load.busy_ppm()
    shares = []
    for busy in (0.0, 0.02, 0.5, 1.0):
        proc.run(10, busy)
        shares.append(load.busy_ppm())

    assert shares == [0, 20_000, 500_000, PPM]


def test_waiting_for_disks_and_for_the_hypervisor_is_not_busy(tmp_path: Path) -> None:
    put(tmp_path / "stat", "cpu  0 0 0 0 0 0 0 0 0 0\n")
    load = NodeLoad(tmp_path)
    load.busy_ppm()
    put(tmp_path / "stat", "cpu  100 50 30 400 200 15 5 200 100 50\n")  # guest is inside user

    assert load.busy_ppm() == 200_000


def test_no_time_passed_cannot_tell(tmp_path: Path) -> None:
    load = NodeLoad(ProcTree(tmp_path).procfs)

    assert [load.busy_ppm() for _ in range(3)] == [None, None, None]


@pytest.mark.parametrize("text", ["", "cpu \n", "cpu  x 1 2 3\n"])
def test_a_file_that_does_not_tell_is_none_and_then_begins_anew(tmp_path: Path, text: str) -> None:
    proc = ProcTree(tmp_path)
    load = NodeLoad(tmp_path)
    load.busy_ppm()
    put(tmp_path / "stat", text)
    assert load.busy_ppm() is None
    proc.run(1, 1)
    assert load.busy_ppm() is None
    proc.run(1, 1)
    assert load.busy_ppm() == PPM


def test_no_file_is_none(tmp_path: Path) -> None:
    assert NodeLoad(tmp_path).busy_ppm() is None


@given(st.lists(st.lists(st.integers(0, 10**12), min_size=8, max_size=10), min_size=2, max_size=6))
def test_it_is_always_a_share(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("proc")
    load = NodeLoad(folder)
    for fields in texts:
        put(folder / "stat", "cpu  " + " ".join(map(str, fields)) + "\n")
        share = load.busy_ppm()
        assert share is None or 0 <= share <= PPM
