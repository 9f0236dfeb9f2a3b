"""A daemon in a cgroup namespace, as in a container, still knows whose a process is."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cgroups import CID, POD_UID, FakeNode
from wattledger.jobs.hierarchy import process_cgroups
from wattledger.jobs.namespaces import from_top, own_root
from wattledger.jobs.paths import Paths
from wattledger.jobs.runs import where_is

OWN = f"/kubepods.slice/kubepods-burstable.slice/own.slice/cri-containerd-{CID}.scope"
BEST = "/kubepods.slice/kubepods-besteffort.slice"
POD = f"{BEST}/kubepods-besteffort-pod{POD_UID.replace('-', '_')}.slice"

names = st.text(
    st.characters(blacklist_characters="/\0\n", blacklist_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))
trees = st.lists(names, max_size=6)


def as_the_kernel_writes(target: list[str], root: list[str]) -> str:
    """kernfs_path_from_node(): up to what both share, then down (cgroup_namespaces(7))."""
    shared = 0
    while shared < min(len(target), len(root)) and target[shared] == root[shared]:
        shared += 1
    return "/" + "/".join([".."] * (len(root) - shared) + target[shared:])


@given(trees, trees)
def test_from_wherever_it_is_read_it_is_the_same_place(target: list[str], root: list[str]) -> None:
    written = as_the_kernel_writes(target, root)
    place = from_top(written, "".join(f"/{name}" for name in root))
    assert place == "/" + "/".join(target)


@given(st.lists(st.one_of(names, st.just(".."))), trees)
def test_no_path_leads_above_the_top(path: list[str], root: list[str]) -> None:
    place = from_top("/" + "/".join(path), "".join(f"/{name}" for name in root))
    assert place is None or (place.startswith("/") and ".." not in place.split("/"))


def test_one_above_the_top_tells_nothing() -> None:
    assert from_top("/../pod", "") is None
    assert from_top("/../../pod", "/own") is None
    assert from_top("/../pod", "/own") == "/pod"
    assert from_top("/", "/own/scope") == "/own/scope"
    assert from_top("/", "") == "/"
    assert from_top("/..hidden/x", "/own") == "/own/..hidden/x"


@given(trees)
@example(["user.slice", "user@7.service", "x\f0::", "slurmstepd.scope", "job_9"])
def test_a_cgroup_is_where_the_kernel_says_whatever_it_is_called(target: list[str]) -> None:
    """Whoever owns a cgroup names those below it; the kernel refuses a newline only."""
    place = "/" + "/".join(target)
    with tempfile.TemporaryDirectory() as procfs:
        Path(procfs, "7").mkdir()
        Path(procfs, "7/cgroup").write_bytes(f"0::{place}\n".encode())
        assert process_cgroups(Path(procfs), 7, lambda path: path) == (place,)


def test_its_own_place_is_found_by_the_inode(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    node.make(POD)
    node.make(OWN)
    # What a runtime mounts in a container is the same directory; here a link leads to it.
    mounted = tmp_path / "mounted"
    mounted.symlink_to(node.cgroup / OWN.lstrip("/"))
    assert own_root(node.sysfs, mounted) == OWN
    # Without a namespace it is the whole tree; and what is elsewhere is nowhere in it.
    assert own_root(node.sysfs, node.cgroup) == ""
    assert own_root(node.sysfs, tmp_path / "nowhere") == ""
    (tmp_path / "other").mkdir()
    assert own_root(node.sysfs, tmp_path / "other") == ""


@pytest.mark.parametrize("version", ["v1", "hybrid"])
def test_with_v1_there_is_none(tmp_path: Path, version: str) -> None:
    node = FakeNode(tmp_path, version)
    node.make(OWN)
    assert own_root(node.sysfs, node.cgroup / "systemd" / OWN.lstrip("/")) == ""


def test_a_process_of_another_pod_is_that_pods(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    (node.procfs / "7").mkdir()
    theirs = as_the_kernel_writes(f"{POD}/scope".split("/")[1:], OWN.split("/")[1:])
    assert theirs.startswith("/../../../kubepods-besteffort.slice/")
    (node.procfs / "7" / "cgroup").write_text(f"0::{theirs}\n")

    place = where_is(node.procfs, Paths(own_root=OWN), 7).place
    assert place is not None
    assert (place.manager, place.job_id, place.cgroup) == ("pod", POD_UID, POD)
    # Where its own place is not known, nobody is made to pay.
    assert where_is(node.procfs, Paths(), 7).place is None


def test_v1_paths_are_told_as_they_are(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, "hybrid")
    (node.procfs / "7").mkdir()
    lines = ["3:memory:/docker/a", "2:cpu,cpuacct:/../x", "1:name=systemd:/a:b", "0::/../x", "junk"]
    (node.procfs / "7" / "cgroup").write_text("\n".join(lines))
    locate = Paths(own_root="/own").locate
    assert process_cgroups(node.procfs, 7, locate) == ("/docker/a", "/a:b", "/x")
    assert process_cgroups(node.procfs, 8, locate) == ()
