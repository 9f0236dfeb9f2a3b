"""Two users hold GPUs, one for nothing: who may see what, and what it cost, over a daemon."""

from __future__ import annotations

import grp
import http.client
import json
import os
import pwd
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from e2e.daemon import FINE, Daemon
from waiting import wait_until

SCENARIO = """
[[gpu]]
model = "H100 SXM"
waveform = { kind = "constant", watts = 500 }

[[gpu]]
model = "H100 SXM"
count = 2
waveform = { kind = "constant", watts = 70 }
"""
SETTINGS = (
    FINE
    + 'site = { pue = 2.0, price_per_kwh = 1000, currency = "CHF" }\n'
    + 'jobs.slurm = { hooks_dir = "/nonexistent", names_dir = "/nonexistent" }\n'
    + 'http.operators_group = "%s"\n'
)


class User(NamedTuple):
    """An account of the system."""

    name: str
    uid: int
    gid: int

    def ask(self, path: Path, *targets: str, hold_s: float = 0.0) -> list[tuple[int, Any]]:
        """Requests over the socket in a process of this user's; `hold_s` after the first."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setresgid(self.gid, self.gid, self.gid)
                os.setresuid(self.uid, self.uid, self.uid)
                answers = [request(path, targets[0])]
                time.sleep(hold_s)
                answers += [request(path, target) for target in targets[1:]]
                os.write(write, json.dumps(answers).encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        return [(status, body) for status, body in json.loads(text)]


def request(path: Path, target: str) -> tuple[int, Any]:
    method, _, target = target.partition(" ")
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(path))
    connection.request(method, target)
    reply = connection.getresponse()
    body = json.loads(reply.read())
    connection.close()
    return reply.status, body


def user(name: str) -> User:
    account = pwd.getpwnam(name)
    return User(name, account.pw_uid, account.pw_gid)


@pytest.fixture
def daemon(as_root: None) -> Iterator[Daemon]:
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    home.chmod(0o755)
    group = grp.getgrgid(user("daemon").gid).gr_name
    try:
        with Daemon(home / "node", SETTINGS % group, scenario=SCENARIO) as one:
            yield one.start()
            one.assert_no_traceback()
    finally:
        shutil.rmtree(home)


def test_who_held_what_for_nothing(daemon: Daemon) -> None:
    path = daemon.ledger.with_suffix(".sock")
    worker, sleeper, operator = user("nobody"), user("games"), user("daemon")
    for one, gpu in ((worker, 0), (sleeper, 1)):
        (begun, ticket), *_ = one.ask(path, f"POST /api/v1/runs?gpus={gpu}", hold_s=1.0)
        assert begun == 201, ticket

    def waste(one: User, by: str = "user") -> Any:
        ((status, body),) = one.ask(path, f"GET /api/v1/waste?by={by}")
        assert status == 200
        return body

    # Whether a GPU was used is told every few seconds: of a run's last instants after it ended.
    def over_and_told() -> bool:
        ((_, listed),) = operator.ask(path, "GET /api/v1/jobs?state=ended")
        rows = {row["group"]: row for row in waste(operator)["rows"]}
        return len(listed["jobs"]) == 2 and (
            rows[sleeper.name]["held_idle_kwh"] == rows[sleeper.name]["held_kwh"] > 0
        )

    wait_until(lambda: over_and_told() and daemon.all_until_now() and over_and_told(), what="rest")
    seen = waste(operator)
    assert seen["restricted_to_uid"] is None
    assert [row["group"] for row in seen["rows"]] == ["games", "nobody"]
    worst, busy = seen["rows"]
    assert worst["held_idle_kwh"] == worst["held_kwh"] and busy["held_idle_kwh"] == 0
    ((_, listed),) = operator.ask(path, "GET /api/v1/jobs?state=ended")
    held_s = {job["uid"]: job["duration_s"] for job in listed["jobs"]}
    busy_kw, worst_kw = (
        row["held_kwh"] / held_s[one.uid] for row, one in ((busy, worker), (worst, sleeper))
    )
    assert busy_kw > 3 * worst_kw > 0
    assert worst["held_idle_cost"]["amount"] == pytest.approx(worst["held_idle_kwh"] * 2000)
    assert seen["idle"]["energy_kwh"] > 0, "the third GPU, and the others before and after"

    own = waste(sleeper)
    assert own["restricted_to_uid"] == sleeper.uid and own["rows"] == [worst]
    ((_, listed),) = worker.ask(path, "GET /api/v1/jobs")
    (run,) = listed["jobs"]
    mine = f"GET /api/v1/jobs/run/{run['job_id']}"
    assert [one.ask(path, mine)[0][0] for one in (worker, sleeper, operator)] == [200, 404, 200]
    release = "POST /api/v1/release?seconds=0"
    assert [one.ask(path, release)[0][0] for one in (worker, operator)] == [403, 200]

    # People see the same, with the daemon and, once it is stopped, without.
    said = daemon.cli("waste", "--socket", str(path))
    assert said.returncode == 0 and "idle cost" in said.stdout and "CHF" in said.stdout, said.stderr
    assert said.stdout.splitlines()[1].split()[0] == "games"
    receipt = daemon.cli("job", f"run/{run['job_id']}", "--socket", str(path))
    assert "The GPUs that it held were in use" in receipt.stdout
    daemon.terminate()
    offline = daemon.cli("waste", "--json", "--config", str(daemon.config_file), *daemon.arguments)
    assert json.loads(offline.stdout)["rows"] == seen["rows"]
    daemon.assert_books_balance()
