"""Every layout as a whole tree of files: who is found in it, whose the CPU time is, who is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cgroups import CID, CID2, POD_UID, FakeNode
from watching import Watched, used_s
from wattledger.jobs.paths import Paths
from wattledger.jobs.tree import MAX_OF_A_USER, Tree
from wattledger.model.jobs import Survey
from wattledger.model.measuring import Process
from wattledger.units import NS_PER_S

DASHED = POD_UID
LOWERED = POD_UID.replace("-", "_")
STATIC = "0123456789abcdef" * 2
OWN = "/user.slice/user-1001.slice/user@1001.service"
POD_SLICE = "/kubepods.slice/kubepods-burstable.slice"

# layout → (version, settings, cgroup → what it is; "" for one that is nobody's)
LAYOUTS: dict[str, tuple[str, dict[str, object], dict[str, str]]] = {
    "slurm v1": (
        "v1",
        {},
        {
            "/slurm_n1/uid_1001/job_12": "slurm 12",
            "/slurm_n1/uid_1001/job_12/step_0/task_0": "",
            "/slurm_n1/uid_1001/job_12/step_extern": "",
            "/slurm_n1/uid_1002/job_13": "slurm 13",
            "/slurm_n1/system": "",
        },
    ),
    "slurm v1, one tree for all nodes": ("v1", {}, {"/slurm/uid_7/job_1": "slurm 1"}),
    "slurm v2": (
        "v2",
        {},
        {
            "/system.slice/slurmstepd.scope/job_4": "slurm 4",
            "/system.slice/slurmstepd.scope/job_4/step_0/user/task_0": "",
            "/system.slice/slurmstepd.scope/job_4/step_extern/slurm": "",
            "/system.slice/slurmstepd.scope/system": "",
            "/system.slice/slurmd.service": "",
        },
    ),
    "slurm hybrid": (
        "hybrid",
        {},
        {"/slurm_n1/uid_5/job_2": "slurm 2", "/user.slice/user-5.slice": "user 5"},
    ),
    "several slurmd": (
        "v2",
        {},
        {
            "/system.slice/n1_slurmstepd.scope/job_4": "slurm 4",
            "/system.slice/n2_slurmstepd.scope/job_5": "slurm 5",
        },
    ),
    "SLUIDs": (
        "v2",
        {"sluid": {"s01J9ZK3W4Q7XM": "4711"}.get},
        {"/system.slice/slurmstepd.scope/s01J9ZK3W4Q7XM": "slurm 4711"},
    ),
    "slurmd in a pod": (
        "v2",
        {"paths": Paths(slurm_roots=["/kubepods/*/*"])},
        {
            f"/kubepods/pod{DASHED}": f"pod {DASHED}",
            f"/kubepods/pod{DASHED}/{CID}/system.slice/slurmstepd.scope/job_9": "slurm 9",
        },
    ),
    "kubelet, systemd, containerd": (
        "v2",
        {},
        {
            f"{POD_SLICE}/kubepods-burstable-pod{LOWERED}.slice": f"pod {DASHED}",
            f"{POD_SLICE}/kubepods-burstable-pod{LOWERED}.slice/cri-containerd-{CID}.scope": "",
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{STATIC}.slice": (
                f"pod {STATIC}"
            ),
            "/system.slice/kubelet.service": "",
            "/system.slice/containerd.service": "",
        },
    ),
    "kubelet, systemd, CRI-O": (
        "v2",
        {},
        {
            f"/kubepods.slice/kubepods-pod{LOWERED}.slice": f"pod {DASHED}",
            f"/kubepods.slice/kubepods-pod{LOWERED}.slice/crio-{CID}.scope": "",
            f"/kubepods.slice/kubepods-pod{LOWERED}.slice/crio-conmon-{CID}.scope": "",
        },
    ),
    "kubelet, cgroupfs, containerd": (
        "v1",
        {},
        {
            f"/kubepods/burstable/pod{DASHED}": f"pod {DASHED}",
            f"/kubepods/burstable/pod{DASHED}/{CID}": "",
            f"/kubepods/besteffort/pod{STATIC}": f"pod {STATIC}",
        },
    ),
    "kubelet, cgroupfs, CRI-O": (
        "hybrid",
        {},
        {f"/kubepods/pod{DASHED}": f"pod {DASHED}", f"/kubepods/pod{DASHED}/crio-{CID}": ""},
    ),
    "docker": (
        "v2",
        {},
        {
            f"/system.slice/docker-{CID}.scope": f"docker {CID[:12]}",
            f"/docker/{CID2}": f"docker {CID2[:12]}",
            "/system.slice/docker.service": "",
        },
    ),
    "podman": (
        "v2",
        {},
        {
            f"/machine.slice/libpod-{CID}.scope": f"podman {CID[:12]}",
            f"/machine.slice/libpod-{CID}.scope/container": "",
            f"/machine.slice/libpod-conmon-{CID}.scope": "",
            f"/machine.slice/machine-libpod_pod_{STATIC * 2}.slice/libpod-{CID2}.scope": (
                f"podman {CID2[:12]}"
            ),
        },
    ),
    "podman, cgroupfs": (
        "v1",
        {},
        {
            f"/libpod_parent/libpod-{CID}": f"podman {CID[:12]}",
            f"/libpod_parent/{STATIC * 2}/libpod-{CID2}": f"podman {CID2[:12]}",
        },
    ),
    "rootless": (
        "v2",
        {},
        {
            "/user.slice/user-1001.slice": "user 1001",
            f"{OWN}/user.slice/libpod-{CID}.scope": f"podman {CID[:12]}@1001",
            f"{OWN}/user.slice/user-libpod_pod_{STATIC * 2}.slice/libpod-{CID2}.scope": (
                f"podman {CID2[:12]}@1001"
            ),
            f"{OWN}/app.slice/q.service/libpod-payload-{STATIC * 2}": (
                f"podman {STATIC[:12]}@1001"
            ),
            f"{OWN}/user.slice/docker-{CID}.scope": f"docker {CID[:12]}@1001",
            f"{OWN}/init.scope": "",
        },
    ),
    "imitations": (
        "v2",
        {},
        {
            "/user.slice/user-1001.slice": "user 1001",
            f"{OWN}/app.slice/slurmstepd.scope/job_1": "",
            f"{OWN}/app.slice/system.slice/slurmstepd.scope/job_1": "",
            f"{OWN}/kubepods.slice/kubepods-pod{LOWERED}.slice": "",
            f"{OWN}/docker.slice/docker/{CID[:-1]}": "",
            "/user.slice/user-1002.slice": "user 1002",
            f"/user.slice/user-1002.slice/user@1001.service/user.slice/libpod-{CID}.scope": "",
            f"/docker/{CID}": f"docker {CID[:12]}",
            f"/docker/{CID}/system.slice/slurmstepd.scope/job_1": "",
        },
    ),
    "units and sessions": (
        "v2",
        {"paths": Paths(units=["train@*.service", "batch-*.scope"])},
        {
            "/system.slice/system-train.slice/train@1.service": "unit train@1.service",
            "/batch.slice/batch-7.scope": "unit batch-7.scope",
            "/system.slice/ssh.service": "",
            "/user.slice/user-1003.slice": "user 1003",
            "/user.slice/user-1003.slice/session-4.scope": "",
        },
    ),
}


def owners(survey: Survey) -> dict[str, float]:
    return {f"{p.manager} {p.job_id}": ns / NS_PER_S for p, ns in survey.cpu_ns.items()}


def above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout(tmp_path: Path, layout: str) -> None:
    version, more, cgroups = LAYOUTS[layout]
    w = Watched(tmp_path, version, paths=more.get("paths"))
    w.start(sluid=more.get("sluid", lambda _: None))

    def use(seconds: float) -> None:
        """Each cgroup's own processes have used this; a cgroup's counter has all below in it."""
        for path in sorted({up for one in cgroups for up in (one, *above(one))}):
            inside = sum(one == path or one.startswith(path + "/") for one in cgroups)
            w.node.make(path, cpu_s=inside * seconds)

    use(100)
    before = w.look()
    for _ in range(6):
        before = w.look()
    use(101)
    after = w.look()

    # What is nobody's own is whose around it is, or nobody's.
    expected: dict[str, float] = {who: 0.0 for who in cgroups.values() if who}
    for path in cgroups:
        for up in (path, *above(path)):
            if cgroups.get(up):
                expected[cgroups[up]] += 1.0
                break
    assert owners(before) == dict.fromkeys(expected, 0.0)
    assert owners(after) == expected
    uids = {f"{run.payee.manager} {run.payee.job_id}": run.uid for run in after.runs.values()}
    for who in expected:
        if "@" in who and who.startswith(("podman", "docker")):
            assert uids[who] == int(who.rpartition("@")[2])


# ── rootless containers ─────────────────────────────────────────────────────────────────────────


def scope(number: int, uid: int = 1001) -> str:
    own = f"/user.slice/user-{uid}.slice/user@{uid}.service"
    return f"{own}/user.slice/libpod-{number:064x}.scope"


def test_of_a_flood_of_containers_some_are_jobs_and_the_rest_their_users(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make("/user.slice/user-1001.slice", cpu_s=0)
    w.node.make("/user.slice/user-1002.slice", cpu_s=0)
    w.look()
    numbers = [number << 224 for number in range(300)]
    for number in numbers:
        w.node.make(scope(number), cpu_s=0)
    w.node.make(scope(7, 1002))
    w.look(6)
    for number in numbers:
        w.node.make(scope(number), cpu_s=1)
    w.node.make("/user.slice/user-1001.slice", cpu_s=300)
    survey = w.look(6)

    containers = [p for p in survey.runs if p.manager == "podman"]
    assert sum(p.job_id.endswith("@1001") for p in containers) == MAX_OF_A_USER
    assert sum(p.job_id.endswith("@1002") for p in containers) == 1
    assert owners(survey)["user 1001"] == 300 - MAX_OF_A_USER
    assert sum(owners(survey).values()) == 300


def test_room_is_made_when_containers_end(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    numbers = [number << 224 for number in range(MAX_OF_A_USER + 10)]
    for number in numbers:
        w.node.make(scope(number))
    w.look()
    alive = {p.job_id for p in w.look(6).runs if p.manager == "podman"}
    for number in numbers:
        if f"{number:064x}"[:12] + "@1001" in alive:
            w.node.remove(scope(number))
    w.look(6)
    survey = w.look(6)

    left = {p.job_id for p in survey.runs if p.manager == "podman"}
    assert len(left) == 10 and left.isdisjoint(alive)


def test_a_deep_or_wide_tree_of_a_users_costs_a_bounded_look(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    own = w.node.cgroup / OWN.lstrip("/")
    for number in range(500):
        (own / f"x{number}.slice/y.slice/z.slice").mkdir(parents=True)
    w.look()
    w.look(6)
    listings = w.watch.listings
    for _ in range(4):
        w.look()
    assert w.watch.listings == listings
    w.look(6)
    assert w.watch.listings - listings < MAX_OF_A_USER + 20


def test_a_process_on_a_gpu_is_its_containers_and_beyond_the_limit_its_users(
    tmp_path: Path,
) -> None:
    w = Watched(tmp_path)
    w.node.make("/user.slice/user-1001.slice")
    w.look()
    numbers = [number << 224 for number in range(MAX_OF_A_USER + 1)]
    for pid, number in enumerate(numbers, 100):
        w.node.make(scope(number))
        w.node.process(pid, f"{scope(number)}/container")
    on_gpu = tuple(Process(pid, 100) for pid in range(100, 100 + len(numbers)))
    w.look(6)
    survey = w.look(1, G0=on_gpu)

    holders = [(p.manager, p.job_id) for p in survey.processes["G0"]]
    assert len(holders) == MAX_OF_A_USER + 1
    assert ("user", "1001") in holders
    assert survey.strangers == frozenset()


def test_a_container_on_a_gpu_is_known_before_its_users_tree_is_looked_at(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make("/user.slice/user-1001.slice", cpu_s=0)
    w.node.make(f"{OWN}/user.slice")
    w.look()
    w.node.make(scope(1), cpu_s=3)
    w.node.make("/user.slice/user-1001.slice", cpu_s=3)
    w.node.process(10, scope(1))
    first = w.look(0.5, G0=(Process(10, 100),))
    for _ in range(10):
        w.look()
    w.node.make(scope(1), cpu_s=5)
    w.node.make("/user.slice/user-1001.slice", cpu_s=6)
    survey = w.look()

    assert [p.manager for p in first.processes["G0"]] == ["podman"]
    assert owners(survey) == {"user 1001": 4.0, f"podman {0:012x}@1001": 2.0}  # 6 in all
    w.node.remove(scope(1))
    w.look(6)
    assert [p.manager for p in w.look().runs] == ["user"]


# ── what makes no sense ─────────────────────────────────────────────────────────────────────────


def test_names_that_are_no_text_or_have_newlines(tmp_path: Path) -> None:
    w = Watched(tmp_path, paths=Paths(units=["*"]))
    base = w.node.cgroup
    names = [b"caf\xe9.service", b"a\nb.service", b'q".service', b"x" * 200 + b".service", b"\xff"]
    for raw in names:
        name = raw.decode("utf-8", "surrogateescape")
        (base / "system.slice" / name).mkdir(parents=True)
    for name in ("job_1\n", "job_1\n2", "job_\udcff", "job_1 (deleted)", "job_1;x"):
        (base / "system.slice/slurmstepd.scope" / name).mkdir(parents=True)
    survey = w.look()

    ids = sorted(p.job_id for p in survey.runs)
    assert all(p.manager == "unit" for p in survey.runs) and len(ids) == 4
    assert r"caf\xe9.service" in ids
    for job_id in ids:
        job_id.encode()  # it is text


def test_files_that_vanish_or_lie_between_two_looks(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    job = "/system.slice/slurmstepd.scope/job_7"
    stat = w.node.cgroup / job.lstrip("/") / "cpu.stat"
    w.look()
    w.node.make(job, cpu_s=1)
    assert used_s(w.look()) == {"7": 1}
    for text in (None, b"", b"usage_usec -5\n", b"usage_usec 9" * 9999, b"\xff\xfe", b"x\n" * 9):
        if text is None:
            stat.unlink()
        else:
            stat.write_bytes(text)
        w.step()
        assert used_s(w.look()) == {"7": 1}
    w.node.make(job, cpu_s=0.5)  # it fell, in the same directory
    assert used_s(w.look()) == {"7": 1}
    w.node.make(job, cpu_s=2)
    assert used_s(w.look()) == {"7": 2.5}


def test_a_job_beyond_the_limit_does_not_bring_its_past_when_there_is_room(tmp_path: Path) -> None:
    node = FakeNode(tmp_path)
    jobs = [f"/docker/{number:064x}" for number in range(8)]
    for job in jobs:
        node.make(job)
    tree = Tree(str(node.cgroup), Paths(), most=5)
    first = [change.found.place.cgroup for change in tree.look(1)]
    for job in first:
        node.remove(job)
    changes = tree.look(10 * NS_PER_S)
    came = [change.found for change in changes if change.came]

    assert 0 < len(first) < len(jobs)
    assert {found.place.cgroup for found in came} == set(jobs) - set(first)
    assert not any(found.fresh for found in came)
    node.remove(came[0].place.cgroup)
    node.make(f"/docker/{CID}")
    went, new = tree.look(20 * NS_PER_S)
    assert went.found == came[0] and new.found.fresh


def test_a_unit_that_holds_a_gpu_is_known_again_after_a_restart(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    unit = "/system.slice/train.service"
    w.node.make(unit, cpu_s=50)
    w.node.process(11, unit)
    w.look(G0=(Process(11, 100),))
    before = w.look(G0=(Process(11, 100),))
    w.node.make(unit, cpu_s=60)
    w.start(remembered=list(before.runs.values()))
    after = w.look()  # the driver has not listed anything yet

    (payee,) = before.runs
    assert after.cpu_ns == {payee: 10 * NS_PER_S} and after.ended == ()
    w.node.remove(unit)
    w.node.make(unit, cpu_s=500)  # restarted, and adopted again: as it is now
    survey = w.look(1, G0=(Process(11, 100),))
    assert [run.payee for run in survey.ended] == [payee]
    assert survey.cpu_ns[next(iter(survey.runs))] == 0
