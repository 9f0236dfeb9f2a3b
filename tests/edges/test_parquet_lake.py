"""The directory that many nodes export into, again and again: whose files, and what is left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledgers import PRICE
from parquets import DAY, DAY_S, Pages, ask, content, export, two_days
from restating import Node, settlement
from wattledger.errors import WattledgerError


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with two_days(tmp_path) as made:
        yield made


class Settling(Pages):
    """Its books are settled while the first pages are read."""

    def __init__(self, node: Node, times: int) -> None:
        super().__init__(node.path)
        self.node, self.times = node, times

    def read(self) -> None:
        if self.times:
            self.times -= 1
            self.node.settle(settlement(DAY_S, PRICE, self.node.ledger.books.commits))


def test_a_day_whose_books_are_settled_while_it_is_read_is_read_again(
    node: Node, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    then = export(Settling(node, 2), lake)
    assert then == export(Pages(node.path), tmp_path / "after"), "of the moment after"
    assert ask(lake, "SELECT count(*) FROM lake WHERE settled_uj > 0") != [(0,)]


def test_the_same_books_under_another_name_are_not_written_beside(
    node: Node, tmp_path: Path
) -> None:
    """Whoever sums would count them twice."""
    lake = tmp_path / "lake"
    noon = str(DAY_S + DAY // 2)
    first = export(Pages(node.path), lake, node="pod-abc", until=noon)
    with pytest.raises(WattledgerError, match="the same books, as those of pod-abc") as caught:
        export(Pages(node.path), lake, node="pod-xyz")
    assert "--node pod-abc" in caught.value.hint
    assert content(lake) == first
    # From where they do not meet they may have another name, and then keep it.
    later = str(DAY_S + DAY)
    assert len(export(Pages(node.path), lake, node="pod-xyz", since=later)) == 2
    assert len(export(Pages(node.path), lake, node="pod-xyz", since=later)) == 2
    with pytest.raises(WattledgerError, match="of pod-xyz"):
        export(Pages(node.path), lake, node="pod-abc")


@pytest.mark.parametrize(
    ("environment", "named"), [({"NODE_NAME": "gpu-node-7"}, "gpu-node-7"), ({}, None)]
)
def test_a_pod_has_the_name_of_its_node(
    node: Node, tmp_path: Path, environment: dict[str, str], named: str | None
) -> None:
    """As Kubernetes tells it: the host's name is the pod's there, and goes with it."""
    node.ledger.close()
    own = {key: value for key, value in os.environ.items() if key != "NODE_NAME"}
    script = "import sys; from wattledger.cli import main; sys.exit(main(sys.argv[1:]))"
    where = ["--ledger", str(node.path), "--socket", str(tmp_path / "none")]
    asked = ["report", "--export", str(tmp_path / "lake"), "--format", "parquet", *where]
    done = subprocess.run(
        [sys.executable, "-c", script, *asked],
        env=own | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    names = {path.parts[1] for path in content(tmp_path / "lake")}
    assert names == {f"node={named or socket.gethostname()}"}


def test_what_an_export_left_that_was_killed_goes_when_it_is_old(
    node: Node, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    export(Pages(node.path), lake)
    old, new, other = (
        lake / name
        for name in (".wattledger-part-old", ".wattledger-part-new", ".wattledger-token")
    )
    for path in (old, new, other):
        path.write_bytes(b"half")
    now_s = time.time()
    os.utime(old, (now_s - 2 * DAY, now_s - 2 * DAY))
    os.utime(other, (now_s - 2 * DAY, now_s - 2 * DAY))
    export(Pages(node.path), lake)
    assert not old.exists() and new.exists() and other.exists(), "another one may be at work"
