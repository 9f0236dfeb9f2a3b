"""A real Slurm, its own hooks, and jobs whose loads are known: does each pay for what it drew?"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Callable, Iterator
from itertools import combinations

import pytest

from e2e.books import balanced
from e2e.conftest import lacking
from e2e.daemon import Daemon
from e2e.page import Page
from e2e.slurm import CGROUPS, PROGRAMS, Slurm
from e2e.slurm_jobs import ALICE, BOB, GPUS, MINORS, ROOT, Cluster, config, scenario
from waiting import wait_until

EVIL = b'"; DROP \'x\' \\n\n# HELP wattledger_x {a="b"} \xff\xfe \xc3\xbc \xe2\x82\xac'
EVIL_SHOWN = '"; DROP \'x\' \\n # HELP wattledger_x {a="b"} �� ü €'


@pytest.fixture
def cluster(as_root: None, need: Callable[..., None]) -> Iterator[Cluster]:
    need(*PROGRAMS, "setpriv")
    if not (CGROUPS / "freezer").is_dir():
        lacking("needs cgroup v1: Slurm's plugin for v2 wants systemd, or the whole tree")
    with Slurm(GPUS) as slurm:
        (slurm.home / "load").mkdir()
        (slurm.home / "reports").mkdir()
        (slurm.home / "reports").chmod(0o1777)
        for minor in MINORS:
            (slurm.home / "load" / f"gpu{minor}.csv").touch()
            (slurm.home / "load" / f"gpu{minor}.csv").chmod(0o666)
        with Daemon(slurm.home / "wattledger", config(slurm), scenario=scenario(slurm)) as node:
            (node.home / "sys" / "fs").mkdir()
            (node.home / "sys" / "fs" / "cgroup").symlink_to("/sys/fs/cgroup")
            node.start()
            yield Cluster(slurm, node)


def test_ten_jobs_of_two_users_pay_for_what_they_drew(cluster: Cluster) -> None:
    slurm, node = cluster.slurm, cluster.node
    gpu = "--gres=gpu:h100:{}".format
    # The first run goes on until it is requeued, however long the others take to submit.
    again = cluster.submit(ALICE, gpu(1), watts=350, s=3, first_s=300)
    two = cluster.submit(BOB, gpu(2), "--job-name=two", watts=500, s=4, burn=True)
    cpu = cluster.submit(ALICE, "--job-name=cpu only", watts=0, s=4, burn=True)
    idle = cluster.submit(BOB, "--gres=gpu:waiting:1", watts=60, s=6)
    evil = cluster.submit(ALICE, gpu(1), b"--job-name=" + EVIL, watts=640, s=3)
    array = cluster.submit(BOB, gpu(1), "--array=3,5,7", watts=420, s=2.5)
    short = cluster.submit(ALICE, gpu(1), watts=700, s=0.3)
    big = cluster.submit(ALICE, gpu(2), watts=280, s=2.5, burn=True)
    node.scrape_when(lambda page: page.all("job_device_info", job_id=again), what="it holds a GPU")
    wait_until((slurm.home / "load" / "gpu0.csv").read_text, what="it draws")
    slurm.requeue(again)
    truths = cluster.wait_for(11, 200)
    tasks = {truth.job_id: truth.task for truth in truths if truth.array}
    assert set(tasks.values()) == {"3", "5", "7"} and array in tasks
    assert {t.job_id for t in truths} == {again, two, cpu, idle, evil, short, big, *tasks}
    assert any(  # they did share the node
        one.uid != other.uid and max(one.begin_s, other.begin_s) < min(one.end_s, other.end_s) - 1
        for one, other in combinations([t for t in truths if t.gpus], 2)
    )
    node.all_until_now()
    held = node.scrape_when(  # the rest of what was held idle is told by the next look
        lambda page: (
            page.sum("job_held_idle_joules_total", job_id=idle)
            > 0.9999 * 3.6e6 * page.sum("job_energy_kwh_total", job_id=idle, kind="gpu")
        ),
        60,
        "all of it was held idle",
    )
    page = node.next_commit()
    page.assert_not_below(held)

    # Each run paid for what it drew.
    rows = cluster.jobs(ROOT)
    assert len(rows) == 11
    cards = cluster.cards(page)
    runs = {t: cluster.row_of(t, rows) for t in truths}
    for truth, row in runs.items():
        cluster.assert_paid(truth, row)
        assert {held["device"] for held in row["devices"]} == {cards[g] for g in truth.gpus}, (
            truth,
            row,
        )
        assert all(held["share"] == 1 and held["exact"] for held in row["devices"])
        assert (row["uid"], row["state"], row["manager"]) == (truth.uid, "ended", "slurm")
        assert row["labels"]["user"] == pwd.getpwuid(truth.uid).pw_name
        assert row["labels"].get("array_job_id") == (array if truth.array else None)
        assert row["labels"].get("array_task_id") == truth.task
    drawn_j = sum(truth.gpu_j for truth in truths)
    assert page.sum("energy_joules_total", kind="gpu") == pytest.approx(drawn_j, abs=0.1)

    # A requeued job is two runs and one series, an array's tasks are jobs of their own.
    both = cluster.job(ROOT, again)
    assert both["run_count"] == 2
    assert [row["start"] for row in both["runs"]] == sorted(
        (row["start"] for row in rows if row["job_id"] == again), reverse=True
    )
    for quantity, whole in both["totals"]["exact"].items():
        assert int(whole) == sum(int(row["totals"]["exact"][quantity]) for row in both["runs"])
    shown_kwh = page.one("job_energy_kwh_total", job_id=again, kind="gpu")
    assert shown_kwh == int(both["totals"]["exact"]["energy_uj_gpu"]) / 3.6e12
    for job_id, task in tasks.items():
        page.one("job_energy_kwh_total", job_id=job_id, kind="gpu")
        page.one("job_info", job_id=job_id, array_job_id=array, array_task_id=str(task))
    # A user's bytes are shown as one harmless line.
    (shown,) = page.all("job_info", job_id=evil)
    assert dict(shown[1])["name"] == EVIL_SHOWN
    # What was held in vain is told, and of nobody else.
    in_vain_j = int(cluster.job(ROOT, idle)["totals"]["exact"]["energy_uj_gpu"]) / 1e6
    assert page.one("job_held_idle_joules_total", job_id=idle) == in_vain_j
    assert page.sum("job_held_idle_joules_total") == in_vain_j
    assert "did nothing" in cluster.ask(BOB, "job", idle).stdout
    assert "did nothing" not in cluster.ask(BOB, "job", two).stdout

    # Each user sees their own.
    for user, own, other in ((ALICE, evil, two), (BOB, two, evil)):
        assert {row["job_id"] for row in cluster.jobs(user)} == {
            truth.job_id for truth in truths if truth.uid == user.pw_uid
        }
        assert cluster.jobs(user, "--user", "root") == []
        assert cluster.job(user, own)["job_id"] == own
        refused = cluster.ask(user, "job", other)
        assert refused.returncode == 1 and not refused.stdout
        assert f"there is no job '{other}' that you may see" in refused.stderr
    assert node.get("/api/v1/jobs").status == 403

    # All of it sums to the node, to the microjoule.
    balanced(node)
    by_job = {row["group"]: int(row["energy_uj"]) for row in cluster.report("job")["rows"]}
    for job_id in {t.job_id for t in truths}:
        of_runs = [r["totals"]["exact"]["energy_uj"] for r in rows if r["job_id"] == job_id]
        assert by_job.pop(f"slurm/{job_id}") == sum(map(int, of_runs))
    assert by_job.keys() <= {"(idle)", "(system)", "(unattributed)"}
    node.terminate()
    node.assert_no_traceback()
    node.assert_books_balance()


FORGED = """wattledger-job 1
id={job_id}
uid={uid}
gpus={gpu}
end
"""


def test_nobody_is_made_to_pay_by_a_forged_file(cluster: Cluster) -> None:
    slurm, node, jobs = cluster.slurm, cluster.node, cluster.slurm.jobs_dir
    # Both outlast the test.
    mine = cluster.submit(ALICE, "--gres=gpu:h100:1", watts=400, s=500)
    theirs = cluster.submit(BOB, "--job-name=victim", watts=0, s=500)
    wait_until(lambda: (jobs / mine).exists() and (jobs / theirs).exists(), what="both run")
    (gpu,) = re.findall(r"^gpus=(\d)$", (jobs / mine).read_text(), re.MULTILINE)
    node.scrape_when(lambda page: page.sum("job_device_info", job_id=mine) == 1, what="it holds")

    # A user cannot write there at all, nor where the names are.
    for directory in (slurm.jobs_dir, slurm.names_dir):
        for command in (
            f"echo x > {directory}/99",
            f"mv {directory}/{theirs} {directory}/99",
            f"ln -s /etc/passwd {directory}/99",
        ):
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                user=ALICE.pw_uid,
                group=ALICE.pw_gid,
                extra_groups=[],
                capture_output=True,
            )
            assert done.returncode != 0 and b"denied" in done.stderr, done

    # Were there one of a user's files, by whatever mistake: it says that Bob holds Alice's GPU.
    def lay(owner: int, mode: int = 0o644) -> None:
        new = jobs / ".new"
        new.write_text(FORGED.format(job_id=theirs, uid=BOB.pw_uid, gpu=gpu))
        new.chmod(mode)
        os.chown(new, owner, owner)
        new.rename(jobs / theirs)

    def holders(page: Page) -> set[str]:
        return page.labels("job_device_info", "job_id")

    def blamed() -> list[str]:
        return [fault["message"] for fault in node.api("status")["claim_faults"]]

    lay(ALICE.pw_uid)
    wait_until(lambda: any(f"user {ALICE.pw_uid}" in said for said in blamed()), what="named")
    assert holders(node.next_commit()) == {mine}
    lay(0, 0o666)
    wait_until(lambda: any("written to by others" in said for said in blamed()), what="named")
    assert holders(node.next_commit()) == {mine}
    (jobs / theirs).unlink()
    (jobs / theirs).symlink_to(jobs / mine)
    wait_until(lambda: any("symbolic link" in said for said in blamed()), what="named")
    assert holders(node.next_commit()) == {mine}
    # As long as others may write to the directory, nothing in it is believed.
    lay(0)
    jobs.chmod(0o777)
    node.scrape_when(lambda page: not holders(page), what="nobody is believed")
    before_uj = int(cluster.job(ROOT, theirs)["totals"]["exact"]["energy_uj_gpu"])
    assert before_uj == 0
    # The same words of root's own are believed: it was the owner and the mode that told.
    jobs.chmod(0o755)
    node.scrape_when(lambda page: holders(page) == {mine, theirs}, what="both hold it")
    assert not blamed()
    node.terminate()
    node.assert_no_traceback()
    node.assert_books_balance()
