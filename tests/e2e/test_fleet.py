"""One job on three nodes, asked of a real Prometheus and a real VictoriaMetrics that scraped them.

Its receipt is the sum of the nodes' own, to the microjoule: over a requeue, missed scrapes, a
ledger that was begun anew and a node that is gone.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from e2e.daemon import Daemon
from e2e.scraping import Scraper
from waiting import wait_until
from wattledger.units import UJ_PER_KWH

HOOKS = Path(__file__).parents[2] / "deploy/slurm"
CONFIG = """
sampling = {{ interval = "0.2s", commit_interval = "0.4s", allow_fine_grained = true }}
jobs.slurm.hooks_dir = "{hooks}"
jobs.labels = ["user", "account"]
meters.rapl.enabled = false
meters.hwmon.enabled = false
"""
SCENARIO = """
[[gpu]]
model = "H100 SXM"
waveform = {{ kind = "constant", watts = {watts} }}
"""
JOB = "4711"
EXACT = (
    *("energy_uj", "energy_uj_gpu", "energy_uj_cpu", "energy_uj_dram", "energy_uj_other"),
    *("co2e_ug", "water_onsite_ul", "water_grid_ul", "held_ms", "held_idle_ms", "held_idle_uj"),
)


class Node:
    """A daemon with a cgroup tree of its own, and the job on it."""

    def __init__(self, home: Path, watts: int) -> None:
        self.hooks = home / "hooks"
        self.daemon = Daemon(
            home, CONFIG.format(hooks=self.hooks), scenario=SCENARIO.format(watts=watts)
        )
        tree = home / "sys/fs/cgroup"
        tree.mkdir(parents=True)
        (tree / "cgroup.controllers").write_text("")
        self._scope = tree / "system.slice/slurmstepd.scope"
        self._scope.mkdir(parents=True)

    @property
    def instance(self) -> str:
        return f"127.0.0.1:{self.daemon.port}"

    def begin(self, job: str) -> None:
        self._hook("prolog.sh", job)
        (self._scope / f"job_{job}").mkdir()
        (self._scope / f"job_{job}/cpu.stat").write_text("usage_usec 100000\n")
        wait_until(lambda: self._running(job), what=f"{job} runs on {self.instance}")

    def end(self, job: str) -> None:
        (self._scope / f"job_{job}/cpu.stat").unlink()
        (self._scope / f"job_{job}").rmdir()
        self._hook("epilog.sh", job)
        wait_until(lambda: not self._running(job), what=f"{job} has ended on {self.instance}")
        self.daemon.next_commit()

    def receipt(self, job: str) -> Any:
        done = self.daemon.cli("job", job, "--json", "--ledger", str(self.daemon.ledger))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _running(self, job: str) -> bool:
        page = self.daemon.scrape()
        return bool(page.all("job_power_watts", job_id=job))

    def _hook(self, name: str, job: str) -> None:
        env = {"SLURM_JOB_ID": job, "SLURM_JOB_UID": "1234", "SLURM_JOB_USER": "ann",
               "SLURM_JOB_ACCOUNT": "physics", "SLURM_JOB_GPUS": "0",
               "WATTLEDGER_JOBS_DIR": str(self.hooks)}  # fmt: skip
        subprocess.run(["sh", HOOKS / name], env=env, check=True, cwd=self.hooks.parent)


@pytest.fixture
def nodes(tmp_path: Path, as_root: None) -> Iterator[list[Node]]:
    made = [Node(tmp_path / f"n{number}", 100 * (number + 1)) for number in range(3)]
    with ExitStack() as stack:
        for node in made:
            stack.enter_context(node.daemon)
        yield made
        for node in made:
            node.daemon.assert_no_traceback()


def shows(node: Node, receipt: Any) -> str:
    """PromQL that finds something once the last of a job's energy on a node was scraped."""
    selector = f'{{instance="{node.instance}",job_id="{JOB}",kind="gpu"}}'
    energy_uj = receipt["totals"]["exact"]["energy_uj_gpu"]
    return f"round(wattledger_job_energy_kwh_total{selector} * {UJ_PER_KWH}) == {energy_uj}"


def asked(node: Node, *arguments: str) -> Any:
    done = node.daemon.cli(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_receipt_is_the_sum_of_the_nodes_own(
    nodes: list[Node], need: Callable[..., None], tmp_path: Path
) -> None:
    need("prometheus", "victoria-metrics")
    targets = [(node.instance, {"rack": f"r{number}"}) for number, node in enumerate(nodes)]
    kinds = ("prometheus", "victoria-metrics")
    with ExitStack() as stack:
        servers = [stack.enter_context(Scraper(kind, tmp_path / kind, targets)) for kind in kinds]
        for node in nodes:
            node.daemon.start()

        def scraped(query: str) -> None:
            for server in servers:
                wait_until(lambda s=server: s.query(query), 20, f"{server.kind}: {query}")

        steady, anew, leaving = nodes
        for node in nodes:
            node.begin(JOB)
        scraped(f'count(wattledger_job_power_watts{{job_id="{JOB}"}}) == 3')
        running = asked(steady, "job", JOB, "--from", servers[0].url)
        assert running["state"] == "running" and len(running["nodes"]) == 3

        # A requeue on the first node; a restart that misses scrapes on the third.
        steady.end(JOB)
        leaving.daemon.kill()
        scraped(f'up{{instance="{leaving.instance}"}} == 0')
        leaving.daemon.start()
        steady.begin(JOB)
        # The second node's ledger is lost after the job's first run there.
        anew.end(JOB)
        lost = anew.receipt(JOB)
        scraped(shows(anew, lost))
        anew.daemon.terminate()
        for file in anew.daemon.home.glob("ledger.sqlite*"):
            file.unlink()
        anew.daemon.start()
        anew.begin(JOB)
        for node in nodes:
            node.end(JOB)
        own = [lost, *(node.receipt(JOB) for node in nodes)]
        for node, receipt in zip(nodes, own[1:], strict=True):
            scraped(shows(node, receipt))
            scraped(f'absent(wattledger_job_power_watts{{instance="{node.instance}"}})')
        leaving.daemon.kill()  # after the end was scraped: nothing is missing
        scraped(f'up{{instance="{leaving.instance}"}} == 0')

        expected = {name: sum(int(one["totals"]["exact"][name]) for one in own) for name in EXACT}
        for server in servers:
            told = asked(steady, "job", f"slurm/{JOB}", "--from", server.url, "--since", "1h")
            exact = {name: int(told["totals"]["exact"][name]) for name in EXACT}
            assert exact == expected, server.kind
            assert told["missing"] == [] and told["partial"] is False
            assert told["state"] == "ended"
            assert told["labels"] == {"user": "ann", "account": "physics"}
            assert {row["node"] for row in told["nodes"]} == {node.instance for node in nodes}
            assert sum(row["share"] for row in told["nodes"]) == pytest.approx(1)
            assert told["cost"] is None and "cost" in told["unknown"]
            # 100, 200 and 300 W at once at most: never more, whatever the counters moved by.
            assert told["power"] and 0 < told["mean_watts"] < 660, server.kind
            assert all(0 < moment["watts"] < 660 for moment in told["power"])
            assert {grid["source"] for grid in told["grid_shown"]} == {"table"}

            listed = asked(steady, "jobs", "--from", server.url, "--user", "ann")
            (row,) = listed["jobs"]
            assert {name: int(row["totals"]["exact"][name]) for name in EXACT} == expected
            text = steady.daemon.cli("job", JOB, "--from", server.url, "--nodes", "127.0.0.1,far")
            assert "MISSING: far: nothing" in text.stdout, text

        # A node that is lost while a job runs there is named, with all that is known of it.
        steady.begin("4712")
        anew.begin("4712")
        scraped('count(wattledger_job_power_watts{job_id="4712"}) == 2')
        steady.daemon.kill()
        scraped(f'up{{instance="{steady.instance}"}} == 0')
        anew.end("4712")
        scraped('absent(wattledger_job_power_watts{job_id="4712"})')
        for server in servers:
            told = asked(steady, "job", "4712", "--from", server.url, "--since", "1h")
            states = {row["node"]: row["state"] for row in told["nodes"]}
            assert states == {steady.instance: "silent", anew.instance: "ended"}
            (sentence,) = told["missing"]
            assert sentence.startswith(f"{steady.instance}: nothing was scraped from it since")
            assert told["state"] == "silent"
