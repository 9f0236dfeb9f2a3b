"""`wattledger run` and `wattledger.measure` with a running daemon, and directly over a fixture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.daemon import FINE, Daemon
from sysfs import RaplTree
from waiting import wait_until

SCENARIO = """
[[gpu]]
model = "H100 SXM"
count = 2
waveform = { kind = "constant", watts = 300 }
"""
SITE = 'site = { pue = 2.0, price_per_kwh = 0.5, currency = "CHF" }\n'
NO_HOOKS = 'jobs.slurm = { hooks_dir = "/nonexistent", names_dir = "/nonexistent" }\n'
BUSY = "import time\nwhile time.thread_time() < 0.5: pass\n"
AMOUNTS = (
    *("energy_uj", "energy_uj_gpu", "energy_uj_cpu", "energy_uj_dram", "energy_uj_other"),
    *("co2e_ug", "water_onsite_ul", "water_grid_ul", "held_idle_uj"),
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "node", FINE + SITE + NO_HOOKS, scenario=SCENARIO) as one:
        yield one.start()
        one.assert_no_traceback()


def socket_of(daemon: Daemon) -> str:
    return str(daemon.ledger.with_suffix(".sock"))


def run(daemon: Daemon, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """A command under `wattledger run`, and its receipt."""
    file = daemon.home / "receipt.json"
    done = daemon.cli("run", "--socket", socket_of(daemon), "--json", str(file), *arguments)
    return done, json.loads(file.read_text())


def job(daemon: Daemon, receipt: Any) -> Any:
    done = daemon.cli("job", f"run/{receipt['job_id']}", "--socket", socket_of(daemon), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_agree(receipt: Any, known: Any) -> None:
    """The ledger says what the receipt says, to the microjoule."""
    told, booked = receipt["exact"], known["totals"]["exact"]
    assert {name: told[name] for name in AMOUNTS} == {name: booked[name] for name in AMOUNTS}


def test_the_receipt_is_what_the_ledger_says_to_the_microjoule(daemon: Daemon) -> None:
    done, receipt = run(
        daemon, "--name", "two words", "--gpus", "1", "--", sys.executable, "-c", BUSY
    )
    assert done.returncode == 0, done.stderr
    assert f"measured by the daemon as run/{receipt['job_id']}" in done.stderr
    assert receipt["complete"] is True
    assert receipt["energy_kwh"]["gpu"] > 0
    assert receipt["energy_kwh"]["cpu"] > 0
    known = job(daemon, receipt)
    assert_agree(receipt, known)
    assert (known["state"], known["labels"]["name"]) == ("ended", "two words")
    assert receipt["cost"] == {
        "amount": pytest.approx(receipt["energy_kwh"]["total"]),  # × PUE 2 × 0.5
        "currency": "CHF",
    }
    # All of the GPU for all of its time, give or take a tick of its counter at each edge.
    assert abs(int(receipt["exact"]["energy_uj_gpu"]) / 300e6 - receipt["duration_s"]) < 0.25


def test_a_held_gpu_is_another_jobs(daemon: Daemon) -> None:
    script = f'{sys.executable} -m wattledger.cli run --socket "$0" --gpus 0 -- true; echo $?'
    inside, _ = run(daemon, "--gpus", "0", "--", "sh", "-c", script, socket_of(daemon))
    assert inside.stdout == "0\n"  # its own to claim again
    holder = subprocess.Popen(
        daemon.command("run", "--socket", socket_of(daemon), "--gpus", "0", "--", "cat"),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=daemon.env,
        cwd=daemon.home,
    )
    wait_until(lambda: any(d["devices"] for d in daemon_runs(daemon)), what="it holds the GPU")
    refused = daemon.cli("run", "--socket", socket_of(daemon), "--gpus", "0", "--", "true")
    assert refused.returncode == 125
    assert "held by another job" in refused.stderr
    _, err = holder.communicate(b"")
    assert holder.returncode == 0, err


def daemon_runs(daemon: Daemon) -> list[Any]:
    command = ("jobs", "--manager", "run", "--state", "running", "--json")
    done = daemon.cli(*command, "--socket", socket_of(daemon))
    return list(json.loads(done.stdout)["jobs"])


def test_a_command_inside_a_command_is_a_step_that_the_outer_one_pays(daemon: Daemon) -> None:
    inner_file = daemon.home / "inner.json"
    inner = daemon.command("run", "--socket", socket_of(daemon), "--json", str(inner_file), "--")
    done, outer = run(daemon, "--", *inner, sys.executable, "-c", BUSY + "raise SystemExit(3)")
    step = json.loads(inner_file.read_text())
    assert done.returncode == 3
    assert step["step_of"] == {"manager": "run", "job_id": outer["job_id"]}
    assert 0 < int(step["exact"]["energy_uj"]) <= int(outer["exact"]["energy_uj"])
    assert_agree(outer, job(daemon, outer))
    nothing = daemon.cli("job", f"run/{step['job_id']}", "--socket", socket_of(daemon))
    assert nothing.returncode == 1


def test_a_program_measures_its_own_parts(daemon: Daemon) -> None:
    program = (
        "import json, sys, time, wattledger\n"
        f"with wattledger.measure('part', socket={socket_of(daemon)!r}) as m:\n"
        "    while time.thread_time() < 0.7: pass\n"
        "json.dump(m.receipt.json(), sys.stdout)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=daemon.env, check=True
    )
    receipt = json.loads(done.stdout)
    assert (receipt["name"], receipt["measured_by"]) == ("part", "daemon")
    assert receipt["energy_kwh"]["cpu"] > 0
    assert_agree(receipt, job(daemon, receipt))


def test_a_daemon_that_is_killed_and_comes_back_goes_on_measuring(daemon: Daemon) -> None:
    reader, writer = os.pipe()
    script = f"read -r x </dev/fd/{reader}; exit 5"
    command = daemon.command(
        *("run", "--socket", socket_of(daemon), "--gpus", "0", "--json", "late.json"),
        *("--", "sh", "-c", script),
    )
    wrapped = subprocess.Popen(
        command, stderr=subprocess.PIPE, env=daemon.env, cwd=daemon.home, pass_fds=[reader]
    )
    wait_until(lambda: any(d["devices"] for d in daemon_runs(daemon)), what="it is measured")
    daemon.next_commit()
    daemon.kill()
    daemon.start()
    os.write(writer, b"go\n")
    _, err = wrapped.communicate(timeout=30)
    os.close(reader)
    os.close(writer)
    assert wrapped.returncode == 5, err
    receipt = json.loads((daemon.home / "late.json").read_text())
    assert receipt["measured_by"] == "daemon"
    assert receipt["devices"], err
    assert_agree(receipt, job(daemon, receipt))
    # What the counter counted while the daemon was away is in it.
    assert abs(int(receipt["exact"]["energy_uj_gpu"]) / 300e6 - receipt["duration_s"]) < 0.25


def test_a_daemon_that_is_gone_at_the_end_is_told_and_knows_the_command_later(
    daemon: Daemon,
) -> None:
    reader, writer = os.pipe()
    command = daemon.command("run", "--socket", socket_of(daemon), "--name", "lost", "--")
    wrapped = subprocess.Popen(
        [*command, "sh", "-c", f"read -r x </dev/fd/{reader}; exit 5"],
        stderr=subprocess.PIPE,
        env=daemon.env,
        cwd=daemon.home,
        pass_fds=[reader],
        text=True,
    )
    wait_until(lambda: daemon_runs(daemon), what="it is measured")
    daemon.next_commit()
    daemon.kill()
    os.write(writer, b"go\n")
    _, err = wrapped.communicate(timeout=30)
    os.close(reader)
    os.close(writer)
    assert wrapped.returncode == 5
    assert "not measured" in err
    assert "gives no receipt" in err
    daemon.start()
    [run_id] = [word.split("`")[0] for word in err.split("run/")[1:]]
    done = daemon.cli("job", f"run/{run_id}", "--socket", socket_of(daemon), "--json")
    assert done.returncode == 0, f"{done.stderr}\n{err}"
    assert json.loads(done.stdout)["labels"]["name"] == "lost"


def test_many_at_once_have_a_receipt_each_and_the_books_agree(daemon: Daemon) -> None:
    receipts: list[Any] = []

    def one(number: int) -> None:
        file = daemon.home / f"{number}.json"
        options = ("run", "--socket", socket_of(daemon), "--json", str(file))
        done = daemon.cli(*options, "--", sys.executable, "-c", "sum(range(10**6))")
        assert done.returncode == 0, done.stderr
        receipts.append(json.loads(file.read_text()))

    threads = [threading.Thread(target=one, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({receipt["job_id"] for receipt in receipts}) == 6
    for receipt in receipts:
        assert receipt["measured_by"] == "daemon"
        assert_agree(receipt, job(daemon, receipt))


def test_directly_over_a_fixtures_rapl(tmp_path: Path) -> None:
    with RaplTree(tmp_path / "sys", packages=1) as tree, tree.follow(0.005):
        command = [sys.executable, "-m", "wattledger.cli", "run"]
        options = ["--path.sysfs", str(tmp_path / "sys"), "--json", "receipt.json"]
        done = subprocess.run(
            [*command, *options, "--", sys.executable, "-c", BUSY.replace("0.5", "1.0")],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            check=False,
        )
    assert done.returncode == 0, done.stderr
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert (receipt["measured_by"], receipt["quality"]) == ("direct", {"metered": 1.0})
    # 100 W of the package by CPU time, 10 W of the memory by what is held of it.
    cpu_uj, dram_uj = (int(receipt["exact"][f"energy_uj_{kind}"]) for kind in ("cpu", "dram"))
    assert 0 < cpu_uj <= 100e6 * (receipt["duration_s"] + 0.1)
    assert 0 < dram_uj <= 10e6 * (receipt["duration_s"] + 0.1)
    assert "100% by energy counters" in done.stderr
