"""Whose job a cgroup's path is: every layout, and every imitation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgroups import CID, CID2, POD_UID
from wattledger.jobs.paths import Paths

PATHS = Paths()
UNDERSCORED = POD_UID.replace("-", "_")
LAYOUTS = {
    "/slurm/uid_20821/job_10/step_batch/task_0": ("slurm", "10", "/slurm/uid_20821/job_10"),
    "/slurm_node7/uid_1001/job_2/step_batch": ("slurm", "2", "/slurm_node7/uid_1001/job_2"),
    "/system.slice/slurmstepd.scope/job_4/step_0/user/task_0": (
        "slurm",
        "4",
        "/system.slice/slurmstepd.scope/job_4",
    ),
    "/system.slice/node-1.lab_slurmstepd.scope/job_1/step_batch/user/task_0": (
        "slurm",
        "1",
        "/system.slice/node-1.lab_slurmstepd.scope/job_1",
    ),
    "/system.slice/slurmstepd.scope/s01J9ZK3W4Q7XM/step_0": (
        "slurm",
        "s01J9ZK3W4Q7XM",
        "/system.slice/slurmstepd.scope/s01J9ZK3W4Q7XM",
    ),
    f"/kubepods/burstable/pod{POD_UID}/{CID}": (
        "pod",
        POD_UID,
        f"/kubepods/burstable/pod{POD_UID}",
    ),
    f"/kubepods/pod{POD_UID}": ("pod", POD_UID, f"/kubepods/pod{POD_UID}"),
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice/"
    f"cri-containerd-{CID}.scope": (
        "pod",
        POD_UID,
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice",
    ),
    f"/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-{CID}.scope": (
        "pod",
        POD_UID,
        f"/kubepods.slice/kubepods-pod{UNDERSCORED}.slice",
    ),
    f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
    f"kubelet-kubepods-besteffort-pod{UNDERSCORED}.slice/cri-containerd-{CID}.scope": (
        "pod",
        POD_UID,
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
            f"kubelet-kubepods-besteffort-pod{UNDERSCORED}.slice"
        ),
    ),
    # A static pod's UID is a hash without dashes.
    f"/kubepods/burstable/pod{'ab' * 16}/{CID}": (
        "pod",
        "ab" * 16,
        f"/kubepods/burstable/pod{'ab' * 16}",
    ),
    f"/docker/{CID}": ("docker", CID[:12], f"/docker/{CID}"),
    f"/system.slice/docker-{CID}.scope": ("docker", CID[:12], f"/system.slice/docker-{CID}.scope"),
    f"/machine.slice/libpod-{CID}.scope/container": (
        "podman",
        CID[:12],
        f"/machine.slice/libpod-{CID}.scope",
    ),
    f"/machine.slice/machine-libpod_pod_{CID2}.slice/libpod-{CID}.scope": (
        "podman",
        CID[:12],
        f"/machine.slice/machine-libpod_pod_{CID2}.slice/libpod-{CID}.scope",
    ),
    f"/libpod_parent/libpod-{CID}": ("podman", CID[:12], f"/libpod_parent/libpod-{CID}"),
    f"/libpod_parent/{CID2}/libpod-{CID}/x": (
        "podman",
        CID[:12],
        f"/libpod_parent/{CID2}/libpod-{CID}",
    ),
    "/user.slice/user-1001.slice/session-3.scope": ("user", "1001", "/user.slice/user-1001.slice"),
}


@pytest.mark.parametrize("path", LAYOUTS)
def test_each_layout(path: str) -> None:
    manager, job_id, cgroup = LAYOUTS[path]
    place = PATHS.places(path)[0]

    assert (place.manager, place.job_id, place.cgroup) == (manager, job_id, cgroup)
    assert PATHS.at(cgroup) == place
    above = cgroup
    while above := above.rpartition("/")[0]:  # the walk gets there
        assert PATHS.leads_to_jobs(above), above


SESSION = "/user.slice/user-1001.slice/user@1001.service"


@pytest.mark.parametrize(
    "path",
    [
        f"{SESSION}/app.slice/slurm/job_99999",
        f"{SESSION}/system.slice/slurmstepd.scope/job_1",
        f"{SESSION}/slurm_n/uid_0/job_1",
        f"{SESSION}/app.slice/kubepods.slice/kubepods-pod{UNDERSCORED}.slice",
        f"/user.slice/user-1001.slice/session-1.scope/libpod-{CID}",
        f"{SESSION}/app.slice/x.scope/docker-{CID}.scope",
        f"{SESSION}/user.slice/libpod-conmon-{CID}.scope",
        f"{SESSION}/user.slice/libpod-{CID[:-1]}.scope",
        f"{SESSION}/a.slice/b.slice/c.slice/d.slice/e.slice/libpod-{CID}.scope",
        f"/user.slice/user-1001.slice/user@1002.service/user.slice/libpod-{CID}.scope",
        f"{SESSION}/app.slice/train.service",
    ],
)
def test_what_a_user_makes_stays_the_users(path: str) -> None:
    assert [(p.manager, p.job_id) for p in Paths(units=["*"]).places(path)] == [("user", "1001")]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/init.scope",
        "/slurm/uid_1/job_1x",
        "/slurm/uid_1/job_12345678901",
        "/slurm/uid_1/job_",
        "/system.slice/slurmstepd.scope/system",
        "/system.slice/slurmstepd.scope/job_٣",
        "/system.slice/evilslurmstepd.scope/job_1",
        "/foo/system.slice/slurmstepd.scope/job_1",
        "/docker/0123",
        f"/kubepods/../pod{POD_UID}x",
        "/system.slice/slurmstepd.scope/s01J9ZK3W4Q7Xl",
    ],
)
def test_what_is_no_job(path: str) -> None:
    assert PATHS.places(path) == []


def test_precedence_and_what_lies_inside_a_container() -> None:
    inner = f"/docker/{CID}/docker/{CID2}"
    assert [p.job_id for p in PATHS.places(inner)] == [CID[:12]]  # not the inner one's


OWN = "/user.slice/user-1001.slice/user@1001.service"
ROOTLESS = {
    f"{OWN}/user.slice/libpod-{CID}.scope": "podman",
    f"{OWN}/user.slice/user-libpod_pod_{CID2}.slice/libpod-{CID}.scope": "podman",
    f"{OWN}/app.slice/my-quadlet.service/libpod-payload-{CID}": "podman",
    f"{OWN}/user.slice/podman-6696.scope/libpod_parent/libpod-{CID}": "podman",
    f"{OWN}/user.slice/podman-6696.scope/libpod_parent/{CID2}/libpod-{CID}": "podman",
    f"{OWN}/user.slice/docker-{CID}.scope": "docker",
    f"{OWN}/app.slice/docker.service/docker/{CID}": "docker",
}


@pytest.mark.parametrize("cgroup", ROOTLESS)
def test_a_rootless_container_is_its_users_job(cgroup: str) -> None:
    first, second = PATHS.places(f"{cgroup}/container/deeper")

    assert (first.manager, first.cgroup) == (ROOTLESS[cgroup], cgroup)
    assert (first.job_id, first.uid) == (f"{CID[:12]}@1001", 1001)
    assert first.rootless and first.rank < second.rank
    assert (second.manager, second.job_id) == ("user", "1001")
    above = cgroup
    while above := above.rpartition("/")[0]:
        assert PATHS.leads_to_jobs(above), above
    assert not Paths(managers=("slurm", "user")).leads_to_jobs(OWN)


def test_no_user_makes_a_container_of_root_or_of_another() -> None:
    roots = PATHS.places(f"/machine.slice/libpod-{CID}.scope")[0]
    mine = PATHS.places(f"{OWN}/user.slice/libpod-{CID}.scope")[0]
    theirs = PATHS.places(f"{OWN.replace('1001', '1002')}/user.slice/libpod-{CID}.scope")[0]

    assert len({roots.job_id, mine.job_id, theirs.job_id}) == 3


@pytest.mark.parametrize("cgroup", [p for p in LAYOUTS if p.count("/") < 4])
def test_a_newline_at_the_end_is_part_of_a_name(cgroup: str) -> None:
    assert all(place.cgroup != cgroup for place in PATHS.places(cgroup + "\n"))
    assert PATHS.at(cgroup + "\n") is None


def test_a_unit_whose_name_is_no_text_is_named_in_text() -> None:
    """systemd escapes such names, a mkdir below its slices does not: the books take text only."""
    (place,) = PATHS.places("/system.slice/tr\udcff.service", any_unit=True)

    assert place.job_id.encode() == rb"tr\xff.service"


def test_units_are_jobs_where_they_are_named_or_hold_a_gpu() -> None:
    path = "/system.slice/system-train.slice/train@7.service/worker"
    assert PATHS.places(path) == []
    named = Paths(units=["train@*.service"])
    assert named.places(path)[0].cgroup == "/system.slice/system-train.slice/train@7.service"
    assert PATHS.places(path, any_unit=True)[0].job_id == "train@7.service"
    assert named.places("/batch.slice/train@1.service")[0].manager == "unit"


def test_a_slurmd_in_a_pod() -> None:
    pod = f"/kubepods/pod{POD_UID}"
    paths = Paths(slurm_roots=["/kubepods/*/*"])
    path = f"{pod}/{CID}/system.slice/slurmstepd.scope/job_5/step_0"

    assert [p.manager for p in paths.places(path)] == ["slurm", "pod"]
    assert [p.manager for p in PATHS.places(path)] == ["pod"]
    above = paths.places(path)[0].cgroup
    while above := above.rpartition("/")[0]:
        assert paths.leads_to_jobs(above), above
    assert not PATHS.leads_to_jobs(pod)


def test_managers_that_are_switched_off() -> None:
    paths = Paths(managers=("slurm",))
    assert paths.places("/user.slice/user-1.slice") == []
    assert paths.places("/slurm/uid_1/job_1")[0].uid == 1


@given(st.text(max_size=300))
def test_no_path_can_hurt(path: str) -> None:
    for place in PATHS.places("/" + path, any_unit=True):
        assert ("/" + path).startswith(place.cgroup)
    PATHS.leads_to_jobs("/" + path)
