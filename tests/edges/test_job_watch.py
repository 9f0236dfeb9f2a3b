"""Jobs over a tree of files: their lives, their counters, their processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cgroups import CID, POD_UID
from fakes import FakeClock
from watching import JOB, V1_JOB, Watched, used_s
from wattledger.jobs.paths import Paths
from wattledger.jobs.watch import Description, JobWatch
from wattledger.model.jobs import Claim, JobKey
from wattledger.model.measuring import Process
from wattledger.units import NS_PER_S


@pytest.mark.parametrize(
    ("version", "path"), [("v2", JOB), ("v1", V1_JOB), ("hybrid", V1_JOB), ("hybrid", JOB)]
)
def test_a_jobs_life(tmp_path: Path, version: str, path: str) -> None:
    w = Watched(tmp_path, version)
    assert w.look().runs == {}
    w.node.make(path, cpu_s=0.5, memory=4096, cpus="0-1")
    first = w.look()
    w.node.make(path, cpu_s=2.5, memory=4096, cpus="0-1")
    second = w.look()
    w.node.remove(path)
    last = w.look()

    (payee,) = first.runs
    assert (payee.manager, payee.job_id) == ("slurm", "7")
    assert used_s(first) == {"7": 0.5}  # made since the last look: all of it is new
    assert used_s(second) == {"7": 2.5}
    assert second.memory_bytes == {payee: 4096}
    assert second.memory_total_bytes == 1_024_000_000
    assert second.cpuset_ppm[payee] > 0
    assert last.runs == {} and used_s(last) == {"7": 2.5}  # the last that was seen of it
    assert [(r.payee, r.end_ns) for r in last.ended] == [(payee, second.at.wall_ns)]
    assert w.look().ended == ()


def test_what_was_used_before_the_first_look_is_nobodys_news(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(JOB, cpu_s=1000)
    assert used_s(w.look()) == {"7": 0}
    w.node.make(JOB, cpu_s=1001)
    assert used_s(w.look()) == {"7": 1}


def test_a_requeue_between_two_looks_is_another_run(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.look()
    w.node.make(JOB, cpu_s=5)
    (first,) = w.look().runs
    w.node.remove(JOB)
    w.node.make(JOB, cpu_s=1)
    survey = w.look()

    (second,) = survey.runs
    assert first.job_id == second.job_id and first.start_ns != second.start_ns
    assert [run.payee for run in survey.ended] == [first]
    assert survey.cpu_ns == {first: 5 * NS_PER_S, second: NS_PER_S}


def test_a_restarted_daemon_knows_the_run_and_what_it_used_meanwhile(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(JOB, cpu_s=10)
    w.node.make("/slurm/uid_5/job_8", cpu_s=1)
    before = w.look()
    remembered = list(before.runs.values())
    w.node.make(JOB, cpu_s=14)
    w.node.remove("/slurm/uid_5/job_8")
    w.clock.advance(60)
    w.start(remembered=remembered)
    after = w.look()

    (payee,) = after.runs
    assert payee in before.runs and after.cpu_ns == {payee: 4 * NS_PER_S}
    assert [(r.payee.job_id, r.end_ns) for r in after.ended] == [("8", before.at.wall_ns)]

    w.start(remembered=[replace(run, boot_id="another") for run in remembered])
    assert used_s(w.look()) == {"7": 0}


def test_several_slurmds_make_one_job(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.look()
    one, two = (f"/system.slice/n{n}_slurmstepd.scope/job_7" for n in (1, 2))
    w.node.make(one, cpu_s=1)
    w.look()
    w.node.make(two, cpu_s=2)
    assert used_s(w.look()) == {"7": 3}
    w.node.remove(one)
    survey = w.look()
    assert used_s(survey) == {"7": 3} and survey.ended == ()


def test_a_job_inside_another_is_not_paid_twice(tmp_path: Path) -> None:
    w = Watched(tmp_path, paths=Paths(slurm_roots=["/kubepods/*/*"]))
    pod = f"/kubepods/pod{POD_UID}"
    w.look()
    w.node.make(pod, cpu_s=10, memory=10_000)
    w.node.make(f"{pod}/{CID}/system.slice/slurmstepd.scope/job_7", cpu_s=8, memory=6_000)
    survey = w.look()

    assert used_s(survey) == {POD_UID: 2, "7": 8}
    assert {p.manager: m for p, m in survey.memory_bytes.items()} == {"pod": 4000, "slurm": 6000}


def test_processes_on_a_gpu_are_traced_to_their_jobs(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(JOB)
    w.node.make("/system.slice/train.service")
    w.node.process(10, f"{JOB}/step_0/user/task_0")
    w.node.process(11, "/system.slice/train.service")
    w.node.process(12, "/init.scope")
    on_gpu = tuple(Process(pid, 100) for pid in (10, 11, 12))
    survey = w.look(G0=on_gpu, G1=on_gpu[:1], G2=())
    survey = w.look(G0=on_gpu, G1=on_gpu[:1], G2=())  # the unit is a job from now on

    holders = {g: [p.job_id for p in payees] for g, payees in survey.processes.items()}
    assert holders == {"G0": ["7", "train.service"], "G1": ["7"], "G2": []}
    assert survey.strangers == {"G0"}
    assert {p.job_id for p in survey.runs} == {"7", "train.service"}


def test_a_unit_that_takes_a_gpu_does_not_bring_its_past(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make("/system.slice/train.service", cpu_s=5000)
    w.node.process(11, "/system.slice/train.service")
    w.look()
    assert used_s(w.look(G0=(Process(11, 100),))) == {"train.service": 0}


def test_a_process_id_used_again_is_not_the_process(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(JOB)
    w.node.process(10, JOB, start_ticks=999)
    survey = w.look(G0=(Process(10, 100),), G1=(Process(10, 999),), G2=(Process(77, 5),))

    assert {g: len(p) for g, p in survey.processes.items()} == {"G0": 0, "G1": 1, "G2": 0}
    assert survey.strangers == frozenset()


def test_a_process_that_moves_is_found_again(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(JOB)
    w.node.process(10, "/system.slice/launcher.scope")

    def holder() -> list[str]:
        survey = w.look(10, G0=(Process(10, 100),))
        return [p.job_id for p in survey.processes["G0"]]

    holder()
    w.node.process(10, JOB)  # as a manager moves what it has just started
    assert holder() == ["7"]
    w.node.process(10, "/init.scope")
    assert [holder() for _ in range(8)][-1] == []


def test_who_it_is_and_what_others_say(tmp_path: Path) -> None:
    w = Watched(tmp_path, "v1")
    w.node.make(V1_JOB)
    w.start(
        describe=lambda key: (
            Description(None, {"name": "train", "account": ""})
            if key == JobKey("slurm", "7")
            else None
        ),
        claims=lambda: [Claim("slurm", "7", "G0", source="slurm")],
    )
    w.look()
    w.names.settle()
    survey = w.look()

    (run,) = survey.runs.values()
    assert run.uid == 1001
    assert run.labels == {"name": "train", "user": "alice"}
    assert survey.claims[0].device == "G0"


def test_slurm_v2_tells_no_uid_but_its_processes_do(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    task = f"{JOB}/step_0/user/task_0"
    w.node.make(task)
    w.node.make(JOB)
    w.node.process(50, task)
    (w.node.cgroup / task.lstrip("/") / "cgroup.procs").write_text("50\n")
    (w.node.procfs / "50").chmod(0o755)
    import os

    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    os.chown(w.node.procfs / "50", 1001, 1001)
    (run,) = w.look().runs.values()
    assert run.uid == 1001


def test_a_directory_that_outlived_its_job_holds_nothing(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(JOB, cpu_s=1)
    events = w.node.cgroup / JOB.lstrip("/") / "cgroup.events"
    w.look()
    events.write_text("populated 0\nfrozen 0\n")
    surveys = [w.look() for _ in range(40)]
    assert surveys[-1].runs == {}
    assert len([run for s in surveys for run in s.ended]) == 1
    w.node.make(JOB, cpu_s=2)
    assert used_s([w.look() for _ in range(12)][-1]) == {"7": 1}


def test_a_job_in_which_no_process_is_yet_has_not_ended(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.look()
    w.node.make(JOB)
    (w.node.cgroup / JOB.lstrip("/") / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    survey = w.look()
    assert len(survey.runs) == 1 and survey.ended == ()
    surveys = [w.look() for _ in range(15)]
    (run,) = [run for survey in surveys for run in survey.ended]
    assert run.end_ns > survey.at.wall_ns


def test_a_directory_that_had_outlived_its_job_before_the_daemon_is_no_job(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(JOB, cpu_s=100)
    events = w.node.cgroup / JOB.lstrip("/") / "cgroup.events"
    events.write_text("populated 0\nfrozen 0\n")
    for _ in range(2):
        w.start()
        for survey in [w.look() for _ in range(15)]:
            assert survey.runs == {} and survey.ended == () and survey.cpu_ns == {}
    w.node.make(JOB, cpu_s=101)  # somebody is in it after all
    assert used_s(w.look()) == {"7": 1}
    events.write_text("populated 0\nfrozen 0\n")
    assert len([run for survey in [w.look() for _ in range(15)] for run in survey.ended]) == 1
    w.node.remove(JOB)
    assert w.look().ended == ()


@pytest.mark.parametrize("used_meanwhile_s", [0, 3])
def test_a_job_that_ended_without_a_daemon_and_left_its_directory_ended_then(
    tmp_path: Path, used_meanwhile_s: int
) -> None:
    w = Watched(tmp_path)
    w.node.make(JOB, cpu_s=100)
    (known,) = w.look().runs.values()
    known = replace(known, last_seen_ns=known.last_seen_ns or w.clock.wall_ns, cpu_ns=100 * 10**9)
    w.node.make(JOB, cpu_s=100 + used_meanwhile_s)
    events = w.node.cgroup / JOB.lstrip("/") / "cgroup.events"
    events.write_text("populated 0\nfrozen 0\n")
    w.clock.advance(3600)
    w.start(remembered=[known])
    survey = w.look()
    assert survey.runs == {}
    assert [(run.payee, run.end_ns) for run in survey.ended] == [(known.payee, known.last_seen_ns)]
    assert used_s(survey) == {"7": used_meanwhile_s}
    assert w.look().ended == ()


def test_thousands_that_stand_still_are_not_listed_again(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    for number in range(2000):
        (w.node.cgroup / f"system.slice/slurmstepd.scope/job_{number}").mkdir(parents=True)
    assert len(w.look(0.01).runs) == 2000
    listings = w.watch.listings
    for _ in range(10):
        w.look(0.01)
    assert w.watch.listings == listings
    w.node.make("/system.slice/slurmstepd.scope/job_9999")
    assert len(w.look(0.01).runs) == 2001
    assert w.watch.listings == listings + 1


def test_half_a_tree_does_not_hurt(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    directory = w.node.cgroup / JOB.lstrip("/")
    directory.mkdir(parents=True)  # no files at all
    (w.node.cgroup / "system.slice" / "x.service").symlink_to("/")
    (w.node.cgroup / "docker").write_text("a file")
    pod = w.node.cgroup / f"kubepods/pod{POD_UID}"
    pod.mkdir(parents=True)
    (pod / "cpu.stat").write_bytes(b"usage_usec \xff\xfe\nusage_usec 12")
    (pod / "memory.stat").write_bytes(b"\0" * 100)
    (pod / "cpuset.cpus").write_text("0-999999999999999\n")
    survey = w.look()

    assert {p.manager for p in survey.runs} == {"slurm", "pod"}
    assert set(survey.cpu_ns.values()) == {0}


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    watch = JobWatch(Paths(), sysfs=tmp_path / "none", procfs=tmp_path / "none")
    clock = FakeClock()
    assert watch.survey(clock.now()).runs == {}
    assert watch.survey(clock.advance(100)).runs == {}
