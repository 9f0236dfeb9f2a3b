"""Jobs that come and go between two surveys, and what is learnt of them afterwards."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cgroups import CID, POD_UID
from watching import JOB, V1_JOB, Watched, used_s
from wattledger.jobs.claims.records import JobFacts
from wattledger.jobs.hierarchy import find_layout
from wattledger.jobs.names import UserNames
from wattledger.jobs.newcomers import SHARE, Newcomers, Sighting
from wattledger.jobs.paths import Paths, Place
from wattledger.jobs.roll import Roll
from wattledger.jobs.tree import Found
from wattledger.jobs.watch import Description
from wattledger.model import Instant
from wattledger.model.jobs import UNIT, Claim, Holding, JobKey
from wattledger.units import NS_PER_S

PLACES = {
    "slurm": "/system.slice/slurmstepd.scope/job_{}",
    "node": "/system.slice/n1_slurmstepd.scope/job_{}",
    "v1": "/slurm_n1/uid_1001/job_{}",
}


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("v2", JOB),
        ("v1", V1_JOB),
        ("hybrid", V1_JOB),
        ("hybrid", JOB),
        ("v2", f"/kubepods/burstable/pod{POD_UID}"),
        ("v2", f"/docker/{CID}"),
        ("v2", f"/machine.slice/libpod-{CID}.scope"),
    ],
)
def test_a_job_of_300_ms_is_in_the_survey(tmp_path: Path, version: str, path: str) -> None:
    w = Watched(tmp_path, version)
    w.node.make(path.rpartition("/")[0])
    w.look()
    w.step()
    w.node.make(path, cpu_s=0.01)
    w.step()
    begun_ns = w.clock.wall_ns
    w.node.make(path, cpu_s=0.11)
    w.step()
    w.node.make(path, cpu_s=0.21)
    w.step()
    alive_ns = w.clock.wall_ns
    w.node.remove(path)
    w.step()
    survey = w.look(0.5)

    assert survey.runs == {}
    (run,) = survey.ended
    assert run.payee.start_ns == begun_ns
    assert (run.end_ns, run.last_seen_ns) == (alive_ns, alive_ns)
    assert survey.cpu_ns == {run.payee: 210_000_000}
    assert w.look().ended == () and w.look().cpu_ns == {}


def test_the_last_sign_of_life_is_finer_than_the_surveys(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(JOB, cpu_s=1)
    w.look()
    for _ in range(9):
        w.look()  # no longer young
    w.step()
    w.step()
    alive_ns = w.clock.wall_ns
    w.node.remove(JOB)
    w.step()
    (run,) = w.look(0.7).ended

    assert run.end_ns == alive_ns


def test_a_young_job_is_paid_up_to_its_last_reading(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.look()
    w.node.make(JOB, cpu_s=0.1)
    (payee,) = w.look(0.2).runs
    w.node.make(JOB, cpu_s=0.4)
    w.step()
    w.node.remove(JOB)
    survey = w.look(0.9)

    assert survey.cpu_ns == {payee: 400_000_000}
    assert [run.payee for run in survey.ended] == [payee]


def test_three_runs_of_one_job_between_two_surveys(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make("/system.slice/slurmstepd.scope/job_1", cpu_s=1)
    w.look()
    for cpu_s in (0.1, 0.2):
        w.node.make(JOB, cpu_s=cpu_s)
        w.step()
        w.node.remove(JOB)
        w.step()
    w.node.make(JOB, cpu_s=0.3)
    w.step()
    survey = w.look(0.4)

    first, second = survey.ended
    (third,) = [payee for payee in survey.runs if payee.job_id == "7"]
    starts = [first.payee.start_ns, second.payee.start_ns, third.start_ns]
    assert starts == sorted(set(starts))
    used = [survey.cpu_ns[payee] // 1_000_000 for payee in (first.payee, second.payee, third)]
    assert used == [100, 200, 300]


def test_one_that_comes_as_another_goes_is_not_missed(tmp_path: Path) -> None:
    """The link count stays the same; the counter that cannot be read tells."""
    w = Watched(tmp_path)
    for number in range(200):  # too many to look at each
        w.node.make(PLACES["slurm"].format(number), cpu_s=1)
    w.look()
    w.step()
    w.node.make(PLACES["slurm"].format(1000), cpu_s=0.1)
    w.step()
    w.node.remove(PLACES["slurm"].format(1000))
    w.node.make(PLACES["slurm"].format(1001), cpu_s=0.1)
    w.step()
    w.step()
    survey = w.look(0.3)

    assert [run.payee.job_id for run in survey.ended] == ["1000"]
    assert "1001" in {payee.job_id for payee in survey.runs}


def test_an_old_one_of_many_that_was_replaced_ends_when_it_was_last_read(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    for number in range(200):
        w.node.make(PLACES["slurm"].format(number), cpu_s=1)
    w.look()
    for second in range(4):
        w.node.make(PLACES["slurm"].format(5), cpu_s=2 + second)
        alive = w.look()
    w.node.remove(PLACES["slurm"].format(5))
    w.node.make(PLACES["slurm"].format(777))
    surveys = [w.look(), w.look()]

    (run,) = [run for survey in surveys for run in survey.ended]
    assert (run.payee.job_id, run.end_ns) == ("5", alive.at.wall_ns)
    assert "777" in {payee.job_id for payee in surveys[-1].runs}


def test_a_run_ends_before_the_next_of_its_job_begins() -> None:
    """A look can be later than the change: the next run's directory tells when it was made."""
    place = Place("/system.slice/burn@1.service", UNIT, "burn@1.service")
    old, new = (
        Found(place, 1, 90 * NS_PER_S, fresh=True),
        Found(place, 2, 95 * NS_PER_S, fresh=True),
    )
    now = Instant(10 * NS_PER_S, 100 * NS_PER_S, 100 * NS_PER_S)
    roll = Roll("boot-1")
    roll.take([Sighting(0, old, True, 91 * NS_PER_S)], now)
    (ended,) = roll.take(
        [Sighting(0, old, False, 97 * NS_PER_S), Sighting(0, new, True, 98 * NS_PER_S)], now
    )
    (running,) = roll.running.values()
    assert running.payee.start_ns == ended.end_ns == 95 * NS_PER_S
    assert ended.record("boot-1", ended.end_ns).last_seen_ns == 95 * NS_PER_S


def test_steps_before_the_first_survey_see_nothing(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    w.node.make(JOB, cpu_s=1000)
    assert w.step() == pytest.approx(0.1)
    w.node.make(JOB, cpu_s=1001)
    assert used_s(w.look()) == {"7": 0}


def test_an_idle_node_is_listed_by_no_step(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    for number in range(64):
        w.node.make(PLACES["slurm"].format(number), cpu_s=number)
    w.look()
    w.step()
    w.step()  # once more, since nobody told of them before the first step
    listings = w.watch.listings
    for _ in range(40):
        w.step()
    assert w.watch.listings == listings


def test_a_flood_is_slowed_down_and_survived(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    scope = w.node.cgroup / "system.slice/slurmstepd.scope"
    scope.mkdir(parents=True)
    w.look()
    directories = [scope / f"job_{number}" for number in range(1000)]
    for directory in directories:
        directory.mkdir()
    spent_ns = -time.thread_time_ns()
    pause_s = w.step()
    for _ in range(400):  # each at once, as if no time had passed
        pause_s = max(pause_s, w.step(0))
    spent_ns += time.thread_time_ns()
    assert 0.1 < pause_s <= spent_ns * SHARE / NS_PER_S
    for directory in directories:
        directory.rmdir()
    w.step()
    survey = w.look()

    assert survey.runs == {}
    assert len({run.payee for run in survey.ended}) == 1000


def test_while_no_survey_takes_them_sightings_do_not_pile_up(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    scope = w.node.cgroup / "system.slice/slurmstepd.scope"
    scope.mkdir(parents=True)
    newcomers = Newcomers(find_layout(w.node.sysfs), Paths(), w.node.procfs, keep_most=50)
    newcomers.take(w.clock.now())
    for number in range(100):
        (scope / f"job_{number}").mkdir()
        newcomers.step(w.clock.advance(0.1))
        (scope / f"job_{number}").rmdir()
        newcomers.step(w.clock.advance(0.1))
    (scope / "job_1000").mkdir()
    seen = newcomers.take(w.clock.advance(0.1))

    assert 50 <= len(seen) <= 54
    assert [one.found.place.job_id for one in seen if one.came][-1] == "1000"
    for job in {one.found.place.job_id for one in seen}:  # whoever came either went or is there
        went = sum(1 - 2 * one.came for one in seen if one.found.place.job_id == job)
        assert went == (-1 if job == "1000" else 0)


def test_a_step_and_a_survey_at_once_tell_each_job_once(tmp_path: Path) -> None:
    w = Watched(tmp_path)
    scope = w.node.cgroup / "system.slice/slurmstepd.scope"
    scope.mkdir(parents=True)
    w.look()
    done = threading.Event()
    failed: list[BaseException] = []

    def step() -> None:
        try:
            while not done.is_set():
                w.watch.step(w.clock.now())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=step)
    thread.start()
    surveys = []
    for number in range(300):
        directory = scope / f"job_{number}"
        directory.mkdir()
        (directory / "cpu.stat").write_text("usage_usec 5\n")
        if number % 3 == 0:
            surveys.append(w.look(0.01))
        (directory / "cpu.stat").unlink()
        directory.rmdir()
    done.set()
    thread.join()
    surveys.append(w.look())

    assert failed == []
    told = [run.payee.job_id for survey in surveys for run in survey.ended]
    assert len(told) == len(set(told)) >= 100  # each that a survey saw, and maybe others
    assert surveys[-1].runs == {}


# ── what they held, and what they are called ────────────────────────────────────────────────────


def facts(job: str, begin_s: float, end_s: float, clock_ns: int, **more: object) -> JobFacts:
    since, end = (clock_ns + round(s * NS_PER_S) for s in (begin_s, end_s))
    return JobFacts("slurm", job, since_ns=since, end_ns=end, **more)  # type: ignore[arg-type]


class Schedule:
    """What a scheduler says."""

    def __init__(self) -> None:
        self.claims: tuple[Claim, ...] = ()
        self.past: tuple[tuple[JobFacts, tuple[Claim, ...]], ...] = ()
        self.names: dict[str, str] = {}
        self.sluids: dict[str, str] = {}

    def describe(self, key: JobKey) -> Description | None:
        name = self.names.get(key.job_id)
        return Description(1001, {"name": name}) if name else None

    def watched(self, root: Path, **more: object) -> Watched:
        w = Watched(root)
        self.start(w, **more)
        return w

    def start(self, w: Watched, **more: object) -> None:
        w.start(
            claims=lambda: self.claims,
            past=lambda: self.past,
            describe=self.describe,
            sluid=self.sluids.get,
            **more,
        )


def come_and_go(w: Watched, path: str = JOB) -> None:
    w.node.make(path, cpu_s=0.1)
    w.step()
    w.step()
    w.node.remove(path)
    w.step()


def test_a_short_job_brings_what_it_held_while_its_claim_is_there(tmp_path: Path) -> None:
    says = Schedule()
    w = says.watched(tmp_path)
    w.look()
    says.claims = (
        Claim("slurm", "7", "GPU-1", 250_000, "dcgm", exact=False),
        Claim("slurm", "7", "GPU-1", source="slurm"),
        Claim("slurm", "8", "GPU-2", source="slurm"),
    )
    says.names["7"] = "train"
    come_and_go(w)
    (run,) = w.look().ended

    assert run.holdings == (Holding("GPU-1", 1_000_000, True),)
    assert (run.uid, run.labels["name"]) == (1001, "train")


def test_what_is_learnt_later_is_told_later_and_once(tmp_path: Path) -> None:
    says = Schedule()
    w = says.watched(tmp_path)
    start_ns = w.look().at.wall_ns
    come_and_go(w)
    (first,) = w.look().ended
    assert w.look().ended == ()
    says.past = ((facts("7", 0.05, 0.35, start_ns), (Claim("slurm", "7", "GPU-1"),)),)
    says.names["7"] = "train"
    (second,) = w.look().ended

    assert first.holdings == () and first.uid is None
    assert second.payee == first.payee and second.end_ns == first.end_ns
    assert second.holdings == (Holding("GPU-1", 1_000_000),)
    assert (second.uid, second.labels["name"]) == (1001, "train")
    assert [w.look().ended for _ in range(3)] == [(), (), ()]


def test_a_user_whose_name_was_being_looked_up_is_told_after_the_end(tmp_path: Path) -> None:
    answers = threading.Event()
    names = UserNames(lambda _: "alice" if answers.wait(60) else "")
    w = Watched(tmp_path, "v1")
    w.node.make(V1_JOB)
    w.names = names
    w.start()
    assert w.look().runs
    w.node.remove(V1_JOB)
    (ended,) = w.look().ended
    assert ended.labels == {} and ended.uid == 1001
    answers.set()
    names.settle()
    (named,) = w.look().ended
    assert named == replace(ended, labels={"user": "alice"})
    assert [w.look().ended for _ in range(3)] == [(), (), ()]


def test_a_job_that_only_its_hooks_saw_is_a_run(tmp_path: Path) -> None:
    says = Schedule()
    w = says.watched(tmp_path)
    start_ns = w.look().at.wall_ns
    entry = facts("9", 0.2, 0.6, start_ns, uid=1002, user="bob", partition="gpu")
    says.past = ((entry, (Claim("slurm", "9", "GPU-1"), Claim("slurm", "9", "GPU-2"))),)
    (run,) = w.look().ended

    assert run.payee.start_ns == start_ns + NS_PER_S // 5
    assert run.end_ns == start_ns + NS_PER_S * 6 // 10
    assert (run.uid, run.labels) == (1002, {"user": "bob", "partition": "gpu"})
    assert {holding.device for holding in run.holdings} == {"GPU-1", "GPU-2"}
    says.past = (*says.past, (facts("10", 1.2, 1.5, start_ns), ()))
    assert [one.payee.job_id for one in w.look().ended] == ["10"]  # and the other not again


def test_what_ended_before_this_process_looked_is_not_its_to_tell(tmp_path: Path) -> None:
    says = Schedule()
    w = says.watched(tmp_path)
    says.past = ((facts("9", -5, 0.9, w.clock.wall_ns), (Claim("slurm", "9", "GPU-1"),)),)
    assert w.look(1.0).ended == ()
    says.past = (*says.past, (facts("8", -5, -1, w.clock.wall_ns), ()))
    assert w.look().ended == ()


def test_a_job_with_a_cgroup_is_not_told_again_by_its_hooks(tmp_path: Path) -> None:
    says = Schedule()
    w = says.watched(tmp_path)
    start_ns = w.look().at.wall_ns
    w.node.make(JOB)
    w.look()
    w.look()
    # The epilog has run, the directory is still there; then it goes; then the id is used again.
    says.past = ((facts("7", 0.9, 2.5, start_ns), (Claim("slurm", "7", "GPU-1"),)),)
    assert w.look().ended == ()
    w.node.remove(JOB)
    (run,) = w.look().ended
    says.past = (*says.past, (facts("7", 5.5, 5.8, start_ns), ()))
    (again,) = w.look(3).ended

    assert run.payee != again.payee
    assert again.end_ns == start_ns + round(5.8 * NS_PER_S)


def test_a_job_that_was_seen_as_its_prolog_ended_is_not_told_twice(tmp_path: Path) -> None:
    """A look is as old as its beginning: the directory seems older than the prolog's file."""
    says = Schedule()
    w = says.watched(tmp_path)
    start_ns = w.look().at.wall_ns
    w.node.make(JOB)
    w.step()
    w.node.remove(JOB)
    (run,) = w.look().ended
    says.past = ((facts("7", 0.15, 0.5, start_ns), (Claim("slurm", "7", "GPU-1"),)),)
    (again,) = w.look().ended

    assert again.payee == run.payee and again.holdings


def test_a_restarted_daemon_does_not_tell_again_what_it_knew_as_running(tmp_path: Path) -> None:
    says = Schedule()
    w = says.watched(tmp_path)
    start_ns = w.look().at.wall_ns
    w.node.make(JOB)
    remembered = list(w.look().runs.values())
    w.node.remove(JOB)
    says.start(w, remembered=remembered)
    (ended,) = w.look().ended
    says.past = ((facts("7", 0.5, 2.5, start_ns), ()),)  # its epilog took its time

    assert ended.payee == remembered[0].payee
    assert w.look().ended == ()


# ── SLUIDs ──────────────────────────────────────────────────────────────────────────────────────

SLUID = "s01J9ZK3W4Q7XM"
SLUID_JOB = f"/system.slice/slurmstepd.scope/{SLUID}"


def test_a_run_waits_for_its_number_and_loses_nothing(tmp_path: Path) -> None:
    says = Schedule()
    w = says.watched(tmp_path)
    w.look()
    w.node.make(SLUID_JOB, cpu_s=1)
    assert w.look().runs == {}
    w.node.make(SLUID_JOB, cpu_s=2)
    says.sluids[SLUID] = "4711"
    survey = w.look()

    (payee,) = survey.runs
    assert payee.job_id == "4711"
    assert survey.cpu_ns == {payee: 2 * NS_PER_S}
    says.sluids.clear()  # the epilog has taken the file away
    assert set(w.look().runs) == {payee}
    w.node.remove(SLUID_JOB)
    assert [run.payee for run in w.look().ended] == [payee]


def test_one_that_ends_while_it_waits_is_told_under_its_number(tmp_path: Path) -> None:
    says = Schedule()
    w = says.watched(tmp_path)
    w.look()
    come_and_go(w, SLUID_JOB)
    assert w.look().ended == ()
    says.sluids[SLUID] = "4711"
    survey = w.look()

    (run,) = survey.ended
    assert run.payee.job_id == "4711"
    assert survey.cpu_ns == {run.payee: 100_000_000}


def test_one_whose_number_never_comes_keeps_its_sluid_for_good(tmp_path: Path) -> None:
    says = Schedule()
    w = says.watched(tmp_path)
    w.node.make(SLUID_JOB, cpu_s=1)
    surveys = [w.look() for _ in range(8)]
    shown = [[payee.job_id for payee in survey.runs] for survey in surveys]
    assert shown[0] == [] and shown[-1] == [SLUID]
    says.sluids[SLUID] = "4711"  # too late: a job is not split
    assert [payee.job_id for payee in w.look().runs] == [SLUID]
    says.start(w, remembered=list(surveys[-1].runs.values()))
    assert set(w.look().runs) == set(surveys[-1].runs)


def test_a_restarted_daemon_knows_the_number_by_itself(tmp_path: Path) -> None:
    says = Schedule()
    says.sluids[SLUID] = "4711"
    w = says.watched(tmp_path)
    w.node.make(SLUID_JOB, cpu_s=1)
    before = w.look()
    says.sluids.clear()
    w.node.make(SLUID_JOB, cpu_s=5)
    says.start(w, remembered=list(before.runs.values()))
    after = w.look()

    (payee,) = before.runs
    assert after.cpu_ns == {payee: 4 * NS_PER_S} and after.ended == ()


def test_two_slurmds_of_which_one_learns_the_number_later_make_one_job(tmp_path: Path) -> None:
    says = Schedule()
    w = says.watched(tmp_path)
    w.look()
    w.node.make(f"/system.slice/n1_slurmstepd.scope/{SLUID}", cpu_s=1)
    w.look()
    w.node.make("/system.slice/n2_slurmstepd.scope/job_4711", cpu_s=2)
    assert used_s(w.look()) == {"4711": 2}
    says.sluids[SLUID] = "4711"
    assert used_s(w.look()) == {"4711": 3}
    w.node.remove("/system.slice/n2_slurmstepd.scope/job_4711")
    survey = w.look()
    assert [payee.job_id for payee in survey.runs] == ["4711"] and survey.ended == ()
