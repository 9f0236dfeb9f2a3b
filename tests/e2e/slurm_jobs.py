"""Jobs of a real Slurm whose loads are known, and a daemon that watches them.

The GPUs of gres.conf are simulated ones. They draw what the jobs on them say in a file, a little
ahead of time, and nothing otherwise, so that the truth is known in closed form: watts times
seconds, summed over what a job said. CPU time is real; its power is the utilisation model's.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from typing import Any, NamedTuple

from e2e.daemon import FINE, Daemon
from e2e.page import Page
from e2e.slurm import Slurm
from waiting import wait_until

TICK_S = 0.1  # sampling.interval of FINE
COUNTER_TICK_S = 0.02
MAX_W = 200  # of all CPUs together, busy; nothing when idle
ROOT, ALICE, BOB = map(pwd.getpwnam, ("root", "games", "irc"))  # the latter run no daemon

GPUS = {"h100": 4, "waiting": 1}
# GPU n of Slurm is the n-th device file, so the card whose minor number is n: not the n-th card.
MINORS = (2, 0, 4, 3, 1)
WAITING = 4
CARD = """
[[gpu]]
model = "H100 SXM"
minor = {minor}
waveform = {{ kind = "live", file = "{load}/gpu{minor}.csv", idle_w = 0 }}
sensor = {{ tick_ms = {tick_ms} }}
"""
ON_IT = 'processes = [{ pid = "self" }]  # without one a card does nothing, whatever it draws\n'

# What a job runs: it announces its power before it draws it, and says at the end what it was.
LOAD = """#!/usr/bin/python3 -IS
import json, os, signal, time
watts, seconds, burn, home = {watts}, {seconds}, {burn}, "{home}"
env = os.environ
if "SLURM_RESTART_COUNT" not in env:
    seconds = {first_s}
gpus = [g for g in env.get("SLURM_JOB_GPUS", "").split(",") if g]
boottime = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
def draw(at_s, power_w):
    for gpu in gpus:
        with open(f"{{home}}/load/gpu{{gpu}}.csv", "a") as file:
            file.write(f"{{at_s:.6f}},{{power_w}}\\n")
class Ended(Exception): pass
def end(*_): raise Ended
signal.signal(signal.SIGTERM, end)
ahead_s = {ahead_s}
begin = boottime() + ahead_s
until = begin + seconds
try:
    draw(begin, watts)
    while boottime() < until - ahead_s:
        if not burn:
            time.sleep(max(0, until - ahead_s - boottime()))
except Ended:
    until = max(begin + 0.001, boottime() + ahead_s)
draw(until, 0)
time.sleep(max(0, until - boottime()))
report = dict(
    job_id=env["SLURM_JOB_ID"], restart=int(env.get("SLURM_RESTART_COUNT", 0)), uid=os.getuid(),
    array=env.get("SLURM_ARRAY_JOB_ID"), task=env.get("SLURM_ARRAY_TASK_ID"),
    gpus=gpus, watts=watts, begin_s=begin, end_s=until, cpu_s=time.process_time(),
)
name = f"{{report['job_id']}}.{{report['restart']}}"
with open(f"{{home}}/reports/.{{name}}", "w") as file:
    json.dump(report, file)
os.rename(f"{{home}}/reports/.{{name}}", f"{{home}}/reports/{{name}}")
"""


class Truth(NamedTuple):
    """What a run of a job did, by itself."""

    job_id: str
    restart: int
    uid: int
    array: str | None
    task: str | None
    gpus: tuple[str, ...]
    watts: float
    begin_s: float
    end_s: float
    cpu_s: float

    @property
    def gpu_j(self) -> float:
        return len(self.gpus) * self.watts * (self.end_s - self.begin_s)

    @property
    def cpu_j(self) -> float:
        return self.cpu_s * MAX_W / (os.cpu_count() or 1)

    @property
    def edge_j(self) -> float:
        """What one tick at each edge may hold."""
        return 2 * len(self.gpus) * self.watts * (TICK_S + COUNTER_TICK_S)


class Cluster:
    """Slurm, a daemon that watches it, and what the jobs say."""

    def __init__(self, slurm: Slurm, node: Daemon) -> None:
        self.slurm = slurm
        self.node = node
        self.socket = str(node.home / "ledger.sock")

    def submit(
        self,
        user: pwd.struct_passwd,
        *options: str | bytes,
        watts: float,
        s: float,
        first_s: float | None = None,
        burn: bool = False,
    ) -> str:
        """A job that draws so many watts on each of its GPUs for so long, and may burn CPU.

        Its first run lasts `first_s`, where that is given.
        """
        ahead_s = 0.15 if s < 1 else 0.3
        script = LOAD.format(
            watts=watts,
            seconds=s,
            first_s=s if first_s is None else first_s,
            burn=burn,
            home=self.slurm.home,
            ahead_s=ahead_s,
        )
        return self.slurm.submit(user, script, *options)

    def truths(self) -> list[Truth]:
        """The runs that are through."""
        reports = sorted((self.slurm.home / "reports").glob("[0-9]*"))
        found = [json.loads(report.read_text()) for report in reports]
        return [Truth(**{**report, "gpus": tuple(report["gpus"])}) for report in found]

    def wait_for(self, runs: int, timeout_s: float) -> list[Truth]:
        """Wait until so many runs are through, and their epilogs."""
        try:
            wait_until(lambda: len(self.truths()) >= runs, timeout_s, f"{runs} runs")
        except AssertionError as error:
            error.add_note(self.slurm.control("show", "job") + self.slurm.log())
            raise
        wait_until(
            lambda: not [f for f in self.slurm.jobs_dir.iterdir() if f.name.isdigit()],
            60,
            "epilogs",
        )
        return self.truths()

    def ask(self, user: pwd.struct_passwd, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `wattledger` command of a user, over the socket.

        The capability lets it read the program, wherever that lies; it opens no socket and makes
        nobody another.
        """
        can = "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"
        who = f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"
        return subprocess.run(
            ["setpriv", *who, *can, "--", *self.node.command(*arguments, "--socket", self.socket)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=self.node.env,
            timeout=60,
        )

    def jobs(self, user: pwd.struct_passwd, *more: str) -> list[dict[str, Any]]:
        """The runs that a user is shown."""
        found: list[dict[str, Any]] = self._json(user, "jobs", "--limit", "1000", *more)["jobs"]
        return found

    def job(self, user: pwd.struct_passwd, job_id: str) -> dict[str, Any]:
        """All about one job."""
        return self._json(user, "job", job_id)

    def report(self, by: str) -> dict[str, Any]:
        """The totals, as root sees them."""
        return self._json(ROOT, "report", "--by", by)

    def _json(self, user: pwd.struct_passwd, *arguments: str) -> dict[str, Any]:
        done = self.ask(user, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    # ── what was booked ─────────────────────────────────────────────────────────────────────────

    def cards(self, page: Page) -> dict[str, str]:
        """Slurm's number of a GPU → its UUID."""
        return {
            str(minor): dict(series[1])["device"]
            for index, minor in enumerate(MINORS)
            for series in page.all("device_info", kind="gpu", index=str(index))
        }

    def row_of(self, truth: Truth, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What the books say of a run."""
        runs = [row for row in rows if row["job_id"] == truth.job_id]
        return sorted(runs, key=lambda row: int(row["start_ns"]))[truth.restart]

    def assert_paid(self, truth: Truth, row: dict[str, Any]) -> None:
        """A run's energy is what it drew, within 1 % and one tick per edge."""
        booked = row["totals"]["exact"]
        gpu_j, cpu_j = int(booked["energy_uj_gpu"]) / 1e6, int(booked["energy_uj_cpu"]) / 1e6
        assert abs(gpu_j - truth.gpu_j) <= 0.01 * truth.gpu_j + truth.edge_j, (truth, gpu_j)
        # Slurm's own steward is in the job's cgroup, too, and /proc/stat counts in ticks.
        assert abs(cpu_j - truth.cpu_j) <= 0.05 * truth.cpu_j + 0.1 * MAX_W, (truth, cpu_j)


def config(slurm: Slurm) -> str:
    """The daemon's settings for this cluster."""
    return f"""
{FINE}
[meters.estimate]
idle_watts = 0
max_watts = {MAX_W}
[jobs]
managers = ["slurm"]
labels = ["name", "user", "array_job_id", "array_task_id"]
[jobs.slurm]
hooks_dir = "{slurm.jobs_dir}"
names_dir = "{slurm.names_dir}"
"""


def scenario(slurm: Slurm) -> str:
    """Its cards."""
    return "".join(
        CARD.format(minor=minor, load=slurm.home / "load", tick_ms=COUNTER_TICK_S * 1000)
        + (ON_IT if minor != WAITING else "")
        for minor in MINORS
    )
