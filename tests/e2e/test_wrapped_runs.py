"""Commands that register over the Unix socket of a running daemon, as `wattledger run` does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.books import balanced
from e2e.daemon import FINE, Daemon
from serving import Answer, Client
from sysfs import RaplTree, Wave
from waiting import wait_until
from wattledger.procfs import busy_and_total_ticks
from wattledger.units import UJ_PER_J

CPU_W, GPU_W = 40, 300
PROC = Path("/proc")
CONFIG = f"""
{FINE}
jobs.managers = ["run"]
"""
# Registers itself, burns CPU in itself and in a child until told to stop, and asks for its receipt.
COMMAND = """
import http.client, json, os, signal, socket, sys, threading

class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])

def post(path):
    connection = Unix("localhost", timeout=20)
    connection.request("POST", path)
    answer = connection.getresponse()
    print(json.dumps([answer.status, json.loads(answer.read())]), flush=True)

post(sys.argv[2])
child = os.fork()
if not child:
    while True:
        pass
burning = True
def burn():
    while burning:
        pass
thread = threading.Thread(target=burn, daemon=True)
thread.start()
path = sys.stdin.readline().strip()
burning = False
thread.join()
os.kill(child, signal.SIGKILL)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
post(path)
"""


class Command:
    """A process that is measured."""

    def __init__(self, path: Path, query: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(path), f"/api/v1/runs?{query}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.status, self.begun = self.answer()

    def answer(self) -> tuple[int, dict[str, Any]]:
        assert self.process.stdout is not None
        status, body = json.loads(self.process.stdout.readline())
        return status, body

    def finish(self, code: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(
            f"/api/v1/runs/{self.begun['id']}/finish?exit_code={code}",
            file=self.process.stdin,
            flush=True,
        )
        status, receipt = self.answer()
        assert status == 200, receipt
        return receipt

    def cpu_ticks(self) -> int:
        """What it and its child have used, by another way than the daemon's."""
        pid = self.process.pid
        children = (PROC / f"{pid}/task/{pid}/children").read_text().split()
        used = 0
        for one in (pid, *children):
            fields = (PROC / f"{one}/stat").read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12])
        return used

    def kill(self) -> None:
        """Kill the root; what it started ends too, since nobody else would."""
        pid = self.process.pid
        children = (PROC / f"{pid}/task/{pid}/children").read_text().split()
        self.process.kill()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        self.process.wait(10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def command(node: Daemon) -> Iterator[Callable[[str], Command]]:
    started: list[Command] = []

    def start(query: str) -> Command:
        started.append(Command(node.home / "ledger.sock", query))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def node(daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    scenario = f"""
[[gpu]]
model = "H100 SXM"
count = 2
waveform = {{ kind = "constant", watts = {GPU_W} }}
"""
    made = daemon(CONFIG, scenario=scenario)
    tree = RaplTree(
        made.home / "sys", packages=1, waves={"package-0": Wave.constant(CPU_W)}, start_uj=10**9
    )
    tree.drop_constraints("package-0")
    with tree, tree.follow(0.005):
        made.start()
        yield made


def unix(node: Daemon, path: str, method: str = "GET") -> Answer:
    return Client(socket.AF_UNIX, str(node.home / "ledger.sock")).request(path, method)


def state_of(node: Daemon, run_id: str) -> str:
    jobs = unix(node, "/api/v1/jobs?manager=run").json["jobs"]
    return next((job["state"] for job in jobs if job["job_id"] == run_id), "unknown")


def test_a_command_is_measured_over_a_kill_of_the_daemon(
    node: Daemon, command: Callable[[str], Command]
) -> None:
    before_s = time.monotonic()
    one = command("name=burn&gpus=1")
    assert one.status == 201 and len(one.begun["gpus"]) == 1, one.begun
    begun_s, cpu_j = time.monotonic(), 0.0
    used, busy, at_s = one.cpu_ticks(), busy_and_total_ticks(PROC)[0], begun_s

    def measure(seconds: float) -> None:
        """What its part of the CPU's energy is, in steps: others come and go on this machine."""
        nonlocal used, busy, at_s, cpu_j
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            time.sleep(0.25)
            now_used, now_busy = one.cpu_ticks(), busy_and_total_ticks(PROC)[0]
            now_s = time.monotonic()
            share = (now_used - used) / max(now_busy - busy, now_used - used, 1)
            cpu_j += CPU_W * (now_s - at_s) * share
            used, busy, at_s = now_used, now_busy, now_s

    measure(1.5)
    node.kill()
    measure(0.75)
    node.start()
    measure(1.5)
    at_least_s = time.monotonic() - begun_s
    receipt = one.finish(3)
    assert at_least_s < receipt["duration_s"] < time.monotonic() - before_s

    kwh, exact = receipt["energy_kwh"], receipt["exact"]
    assert kwh["cpu"] * 3.6e6 == pytest.approx(cpu_j, rel=0.15)
    assert kwh["gpu"] * 3.6e6 == pytest.approx(GPU_W * receipt["duration_s"], rel=0.05)
    assert receipt["complete"] and receipt["since"] == receipt["start"]
    assert receipt["exit_code"] == 3 and receipt["name"] == "burn"
    assert {"metered", "recovered"} <= receipt["quality"].keys()
    assert [held["device"] for held in receipt["devices"]] == one.begun["gpus"]

    run_id = receipt["job_id"]
    wait_until(lambda: state_of(node, run_id) == "ended")
    job = unix(node, f"/api/v1/jobs/run/{run_id}").json
    # A GPU's counter moves once in a while: what it had not shown at the end comes a turn later.
    for name, most_j in (("energy_uj_cpu", 1), ("energy_uj_gpu", 1 + GPU_W * 0.15)):
        later_uj = int(job["totals"]["exact"][name]) - int(exact[name])
        assert 0 <= later_uj < most_j * UJ_PER_J, name
    again = unix(node, f"/api/v1/runs/{run_id}/finish", "POST")
    assert again.json["exact"] == exact  # who lost the answer asks again
    balanced(node)
    node.terminate()
    node.assert_books_balance()
    node.assert_no_traceback()


def test_a_killed_wrapper_ends_its_run(node: Daemon, command: Callable[[str], Command]) -> None:
    one = command("name=gone")
    run_id = one.begun["id"]
    wait_until(lambda: state_of(node, run_id) == "running")
    taken = command("gpus=0")
    refused = command("gpus=0")
    assert (taken.status, refused.status) == (201, 409), refused.begun
    one.kill()
    wait_until(lambda: state_of(node, run_id) == "ended")
    assert unix(node, f"/api/v1/runs/{run_id}").status == 404
    balanced(node)
    node.assert_no_traceback()
