"""A real Slurm of two nodes: what a job has cost on both is told in its output and in AdminComment.

Two slurmd on one machine, a daemon for each, a real Prometheus that scrapes both. The accounting
database is not there (it wants MariaDB): what sacctmgr is told is written down by a stand-in.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import lacking
from e2e.daemon import Daemon
from e2e.scraping import Scraper
from e2e.slurm import CGROUPS, HOOKS, PROGRAMS, USER, Slurm
from e2e.slurm_jobs import ALICE, ROOT
from waiting import wait_until
from wattledger.job_reports.line import MISSING
from wattledger_exporters.wording import co2e, energy

CONFIG = """
sampling = {{ interval = "0.2s", commit_interval = "0.4s", allow_fine_grained = true }}
meters.estimate.enabled = false
jobs.managers = ["slurm"]
jobs.slurm.hooks_dir = "{hooks}"
"""
SCENARIO = """
[[gpu]]
model = "H100 SXM"
waveform = {{ kind = "constant", watts = {watts} }}
processes = [{{ pid = "self" }}]
"""
TASK_EPILOG = "TaskEpilog={home}/hooks/task_epilog\n"
SACCTMGR = '#!/bin/sh\nfor word; do echo "$word"; done >{home}/sacctmgr\n'
ENOUGH_KWH = 300 * 2 / 3.6e6
"""Of one GPU in two seconds."""
SACCT = "#!/bin/sh\ncat {home}/comment\n"


class Two:
    """Two nodes, their daemons, their Prometheus."""

    def __init__(self, slurm: Slurm, daemons: list[Daemon], prometheus: Scraper) -> None:
        self.slurm = slurm
        self.daemons = dict(zip(slurm.nodes, daemons, strict=True))
        self.prometheus = prometheus
        self.output = slurm.home / "run" / "output"
        self.ended = slurm.home / "run" / "ended"
        self.ended.mkdir()
        os.chown(self.ended, pwd.getpwnam(USER).pw_uid, -1)
        (slurm.home / "receipts-from").write_text(f"{prometheus.url}\n")
        (slurm.home / "comment").touch()
        bin_ = slurm.home / "bin"
        bin_.mkdir()
        for name, text in {"sacctmgr": SACCTMGR, "sacct": SACCT}.items():
            (bin_ / name).write_text(text.format(home=slurm.home))
            (bin_ / name).chmod(0o755)
        os.chown(slurm.home, pwd.getpwnam(USER).pw_uid, -1)  # where the stand-in writes
        sockets = "".join(f"{n}) s={d.home}/ledger.sock;;" for n, d in self.daemons.items())
        program = slurm.home / "wattledger"
        program.write_text(
            f"#!/bin/sh\ns=/nowhere; case $SLURMD_NODENAME in {sockets} esac\nHOME=/nowhere "
            f'exec {sys.executable} -m wattledger.cli "$@" --socket $s\n'
        )
        program.chmod(0o755)

    def run(self, script: str, *nodes: str) -> str:
        """A job on both nodes, from its start to its end, which it waits for after its script.

        It ends once Prometheus knows of these nodes that it has drawn ENOUGH_KWH there.
        """
        end = self.slurm.home / "run" / "end"
        end.unlink(missing_ok=True)
        script = f"{script}\nwhile [ ! -e {end} ]; do sleep 0.1; done\necho done"
        self.output.write_text("")
        self.output.chmod(0o666)
        options = ("--nodes=2", "--gres=gpu:1", f"--output={self.output}")
        job = self.slurm.submit(self.somebody(), f"#!/bin/sh\n{script}\n", *options)
        for node in nodes:
            drawn = (
                f'wattledger_job_energy_kwh_total{{instance="{node}",job_id="{job}",kind="gpu"}}'
            )
            query = f"{drawn} > {ENOUGH_KWH}"
            wait_until(lambda q=query: self.prometheus.query(q), 60, f"scraped: {query}")
        end.touch()
        wait_until(lambda: self.slurm.job(job)["JobState"] == "COMPLETED", 40, f"{job} is through")
        wait_until(lambda: (self.ended / job).exists(), 10, "the controller's epilog")
        return job

    def somebody(self) -> pwd.struct_passwd:
        """A user, where users may read this checkout."""
        can = subprocess.run(
            [sys.executable, "-c", "import wattledger"],
            user=ALICE.pw_uid, group=ALICE.pw_gid, extra_groups=[], cwd="/", capture_output=True,
        )  # fmt: skip
        return ALICE if can.returncode == 0 else ROOT

    def receipt(self, node: str, job: str) -> dict[str, Any]:
        """A node's own, once the job has ended there and its end was scraped."""
        daemon = self.daemons[node]
        wait_until(lambda: self._ask(daemon, job).get("state") == "ended", 20, "it has ended")
        daemon.next_commit()
        found = self._ask(daemon, job)
        kwh = found["totals"]["energy_kwh"]["gpu"]
        labels = f'instance="{node}",job_id="{job}"'
        for query in (
            f'wattledger_job_energy_kwh_total{{{labels},kind="gpu"}} > {kwh * 0.999999}',
            f"absent(wattledger_job_power_watts{{{labels}}})",
        ):
            wait_until(lambda q=query: self.prometheus.query(q), 20, f"scraped: {query}")
        return found

    def _ask(self, daemon: Daemon, job: str) -> dict[str, Any]:
        done = daemon.cli("job", f"slurm/{job}", "--json", "--ledger", str(daemon.ledger))
        return {} if done.returncode else dict(json.loads(done.stdout))

    def write_comments(self, **env: str) -> str:
        """What the timer starts, as SlurmUser; returns what it says.

        The capability lets it read the program, wherever that lies.
        """
        (self.slurm.home / "sacctmgr").unlink(missing_ok=True)
        who = pwd.getpwnam(USER)
        done = subprocess.run(
            ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups",
             "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--",
             "sh", str(HOOKS / "admin_comments.sh")],
            env={
                "SLURM_CONF": str(self.slurm.home / "slurm.conf"),
                "WATTLEDGER_ENDED_DIR": str(self.ended),
                "WATTLEDGER_RECEIPTS_FROM": str(self.slurm.home / "receipts-from"),
                "WATTLEDGER_PROGRAM": str(self.slurm.home / "wattledger"),
                "WATTLEDGER_RECEIPTS_WAIT_S": "0",
                "WATTLEDGER_SLURM_BIN": str(self.slurm.home / "bin"),
                **env,
            },
            capture_output=True, text=True, cwd="/", timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    def comment(self) -> tuple[str, str]:
        """Job and comment that sacctmgr was told; empty: none."""
        told = self.slurm.home / "sacctmgr"
        if not told.exists():
            return "", ""
        words = told.read_text().splitlines()
        assert words[:-1] == ["--immediate", "--quiet", "modify", "job", "where", words[-3], "set"]
        return words[-3].removeprefix("jobid="), words[-1].removeprefix("AdminComment=")


@pytest.fixture
def two(as_root: None, need: Callable[..., None], tmp_path: Path) -> Iterator[Two]:
    need(*PROGRAMS, "setpriv", "prometheus")
    if not (CGROUPS / "freezer").is_dir():
        lacking("needs cgroup v1: Slurm's plugin for v2 wants systemd, or the whole tree")
    with ExitStack() as stack:
        slurm = stack.enter_context(Slurm({"h100": 1}, 2, TASK_EPILOG))
        daemons = []
        for number, node in enumerate(slurm.nodes):
            daemon = Daemon(
                slurm.home / f"daemon-{node}",
                CONFIG.format(hooks=slurm.jobs_dir_of(node)),
                scenario=SCENARIO.format(watts=300 + 200 * number),
            )
            daemons.append(stack.enter_context(daemon))
            (daemon.home / "sys" / "fs").mkdir()
            (daemon.home / "sys" / "fs" / "cgroup").symlink_to("/sys/fs/cgroup")
            daemon.start()
        targets = [
            (f"127.0.0.1:{daemon.port}", {"instance": node})
            for node, daemon in zip(slurm.nodes, daemons, strict=True)
        ]
        prometheus = stack.enter_context(Scraper("prometheus", tmp_path / "prometheus", targets))
        yield Two(slurm, daemons, prometheus)


def test_a_job_of_two_nodes_is_told_what_it_has_cost(two: Two) -> None:
    slurm, (a, b) = two.slurm, two.slurm.nodes
    job = two.run("srun sleep 1", a, b)

    # Once, after the job's own output, though srun's tasks have ended, too; by what was scraped.
    own, line = two.output.read_text().splitlines()
    assert own == "done"
    assert line.startswith(f"wattledger: slurm/{job} on 2 of 2 nodes so far: "), line

    # When all is over, the whole of it goes to the database.
    receipts = [two.receipt(node, job) for node in (a, b)]
    two.write_comments()
    called, comment = two.comment()
    energies = [receipt["totals"]["energy_kwh"]["gpu"] for receipt in receipts]
    assert min(energies) > ENOUGH_KWH
    grams = sum(receipt["totals"]["co2e_g"] for receipt in receipts)
    assert called == job
    assert comment.startswith(
        f"wattledger: slurm/{job} on 2 of 2 nodes: SIMULATED (scenario on {a}, {b}), "
        f"{energy(sum(energies))}, GPUs "
        f"{energy(sum(energies))}, {co2e(grams)} CO2e, "
    ), comment
    assert MISSING not in comment
    assert not list(two.ended.iterdir())

    # A node that is not there is named: at once in the output, after a while in the comment.
    two.daemons[b].terminate()
    wait_until(lambda: two.prometheus.query(f'up{{instance="{b}"}} == 0'), 20, "it is down")
    job = two.run("", a)
    _, line = two.output.read_text().splitlines()
    assert line.startswith(f"wattledger: slurm/{job} on 1 of 2 nodes so far: ")
    assert line.endswith(f"{MISSING}{b}")
    two.receipt(a, job)
    assert "1 to be tried again" in two.write_comments()
    assert two.comment() == ("", "") and (two.ended / job).exists()
    two.write_comments(WATTLEDGER_RECEIPTS_GIVE_UP_S="0")
    called, comment = two.comment()
    assert called == job and comment.endswith(f"{MISSING}{b}")

    # What somebody else has written stays; without a Prometheus the node tells what it knows.
    (slurm.home / "receipts-from").write_text("http://127.0.0.1:9\n")
    job = two.run("", a)
    _, line = two.output.read_text().splitlines()
    assert line.startswith(f"wattledger: slurm/{job} on 1 of 2 nodes so far: ")
    assert line.endswith(f"{MISSING}{b}")
    two.receipt(a, job)
    (slurm.home / "receipts-from").write_text(f"{two.prometheus.url}\n")
    (slurm.home / "comment").write_text("JS1:H4sI\n")
    assert "somebody else's" in two.write_comments(WATTLEDGER_RECEIPTS_GIVE_UP_S="0")
    assert two.comment() == ("", "") and not list(two.ended.iterdir())
    for node in slurm.nodes:
        assert slurm.control("show", "node", node).count("State=IDLE ") == 1
