"""Totals by the shipped rules equal the ledgers', whatever happened to daemons and scrapes.

Two nodes run one job. One daemon is killed, scrapes are missed, the job is requeued, a ledger is
destroyed under it, a node leaves and is forgotten. Each ledger is read when its GPUs are released,
so that nothing moves any more: its integers are compared with what PromQL says, to the precision
of a float64.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import trustme

from e2e.daemon import Daemon
from e2e.engines import Engine, counters, no_line_was_refused, prometheus, victoria
from waiting import wait_until

HOOKS = Path(__file__).parents[2] / "deploy/slurm"
FORGET = Path(__file__).parents[2] / "deploy/prometheus/forget.sh"
SCENARIO = """
[[gpu]]
model = "H100 SXM"
count = 2
waveform = { kind = "square", low_w = 100, high_w = 600, period_s = 1.3 }
"""
CONFIG = """
sampling = {{ interval = "0.2s", commit_interval = "0.5s", allow_fine_grained = true }}
meters = {{ rapl.enabled = false, hwmon.enabled = false, estimate.enabled = false }}
jobs = {{ labels = ["user", "account"], slurm.hooks_dir = "{home}/hooks" }}
site = {{ price_per_kwh = 0.25, currency = "EUR" }}
"""
REL = 1e-12  # sums of a few float64
Books = Counter[tuple[str, ...]]
QUANTITIES = (
    ("energy_kwh", "energy_uj"),
    ("co2e_grams", "co2e_ug"),
    ("onsite", "water_onsite_ul"),
    ("grid", "water_grid_ul"),
)


class Node:
    """A daemon, and Slurm's part of its machine."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.name = daemon.home.name
        self._cgroups = daemon.home / "sys/fs/cgroup"
        self._scope = self._cgroups / "system.slice/slurmstepd.scope"
        self._scope.mkdir(parents=True)
        (self._cgroups / "cgroup.controllers").write_text("")
        daemon.configure(CONFIG.format(home=daemon.home))

    def begin(self, job: int, gpu: int, user: str, restart: int = 0) -> None:
        cgroup = self._scope / f"job_{job}"
        cgroup.mkdir()
        (cgroup / "cpu.stat").write_text("usage_usec 0\n")
        self._hook("prolog.sh", job, gpu, user, restart)

    def end(self, job: int, gpu: int, user: str) -> None:
        cgroup = self._scope / f"job_{job}"
        (cgroup / "cpu.stat").unlink()
        cgroup.rmdir()
        self._hook("epilog.sh", job, gpu, user)

    def _hook(self, name: str, job: int, gpu: int, user: str, restart: int = 0) -> None:
        environment = {
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_UID": "1234",
            "SLURM_JOB_USER": user,
            "SLURM_JOB_ACCOUNT": "physics",
            "SLURM_JOB_GPUS": str(gpu),
            "SLURM_JOB_RESTART_COUNT": str(restart),
            "WATTLEDGER_JOBS_DIR": str(self.daemon.home / "hooks"),
        }
        subprocess.run(["sh", HOOKS / name], env=environment, check=True, cwd=self.daemon.home)

    def run_on(self) -> None:
        """Until a hundred more joules are in the books."""
        now = self.daemon.scrape().sum("energy_joules_total")
        self.daemon.scrape_when(lambda page: page.sum("energy_joules_total") > now + 100)

    def books_at_rest(self) -> Books:
        """The ledger's own totals, once nothing moves any more, in kWh, grams and liters."""
        socket = ["--socket", str(self.daemon.ledger.with_suffix(".sock"))]
        done = self.daemon.cli("release", "--for", "15m", *socket)
        assert done.returncode == 0, done.stderr
        self.daemon.next_commit()
        books: Books = Counter()

        def told(*arguments: str) -> list[dict[str, Any]]:
            done = self.daemon.cli(*arguments, "--json", *socket)
            assert done.returncode == 0, done.stderr
            answer = json.loads(done.stdout)
            rows: list[dict[str, Any]] = answer["jobs" if "jobs" in answer else "rows"]
            return rows

        def add(key: tuple[str, ...], row: dict[str, Any]) -> None:
            for quantity, micro in QUANTITIES:
                unit = 3.6e12 if quantity == "energy_kwh" else 1e6
                books[(*key, quantity)] += int(str(row[micro])) / unit

        (node,) = told("report", "--by", "all")
        add(("node", self.name), node)
        for row in told("report", "--by", "payee"):
            books["payee", str(row["group"])] += int(str(row["energy_uj"])) / 1e6
        for run in told("jobs", "--manager", "slurm"):
            totals, labels = run["totals"], run["labels"]
            add(("job", str(run["job_id"])), totals["exact"])
            add(("user", str(labels["user"])), totals["exact"])
        assert self.daemon.next_commit().sum("energy_kwh_total") == pytest.approx(
            books["node", self.name, "energy_kwh"], rel=REL
        )
        return books


@pytest.fixture(params=["prometheus", "victoria-metrics"])
def engine(
    request: pytest.FixtureRequest, tmp_path: Path, need: Callable[..., None], as_root: None
) -> Iterator[Engine]:
    home = tmp_path / "engine"
    home.mkdir()
    if request.param == "prometheus":
        need("prometheus")
        with prometheus(home) as one:
            yield one
    else:
        need("victoria-metrics", "vmagent", "vmalert")
        with victoria(home) as one:
            yield one


def recorded(engine: Engine, operation: str) -> dict[tuple[str, ...], float]:
    """What the rules say, with the keys of `Node.books_at_rest`."""
    found: dict[tuple[str, ...], float] = {}
    for level, label in (("node", "instance"), ("job", "job_id"), ("user", "user")):
        for quantity in ("energy_kwh", "co2e_grams", "water_liters"):
            for labels, value in engine.vector(f"{level}:{quantity}:{operation}").items():
                by = dict(labels)
                key = (level, by[label], by.get("origin", quantity))
                found[key] = found.get(key, 0.0) + value
    for labels, value in engine.vector(f"cluster:payee_energy_joules:{operation}").items():
        found["payee", dict(labels)["payee"]] = value
    return found


def same(
    engine: Engine, operation: str, books: Books, of: tuple[str, ...] = ()
) -> Callable[[], bool]:
    """Whether what is in the books is recorded, and nothing else: all of it, or of one node."""

    def check() -> bool:
        found, told = (
            {key: value for key, value in amounts.items() if value and key[: len(of)] == of}
            for amounts in (recorded(engine, operation), books)
        )
        return found == pytest.approx(told, rel=REL, abs=1e-12)

    return check


def shows(engine: Engine, expression: str, amount: float) -> Callable[[], bool]:
    """Whether a query has this one value."""
    return lambda: bool(engine.value(expression) == pytest.approx(amount, rel=REL))


@pytest.mark.timeout(300)
def test_totals_equal_the_ledgers(engine: Engine, daemon: Callable[..., Daemon]) -> None:
    a, b = Node(daemon(scenario=SCENARIO, name="a")), Node(daemon(scenario=SCENARIO, name="b"))
    ports = {node.name: node.daemon.port for node in (a, b)}
    for node in (a, b):
        node.begin(7, 0, "ann")
        node.daemon.start().next_commit()
    engine.watch(ports)
    wait_until(
        lambda: len(engine.vector('ledger_job:energy_kwh:last{job_id="7"} > 0')) == 2, 90, "seen"
    )
    for page in engine.own_pages:
        assert no_line_was_refused(page) > 0

    # Killed, not scraped for a while, back: the same ledger goes on.
    a.daemon.kill()
    wait_until(lambda: engine.value('up{instance="a"}') == 0, 90, "a scrape was missed")
    kept = lambda: engine.vector('node:energy_kwh:total{instance="a"} > 0')  # noqa: E731
    wait_until(kept, 90, "its total stays")
    a.daemon.start()
    a.run_on()

    # Ended and requeued on the same node, beside a job of another user.
    a.end(7, 0, "ann")
    a.daemon.scrape_when(lambda page: not page.all("job_power_watts", job_id="7"))
    a.begin(7, 0, "ann", restart=1)
    a.begin(8, 1, "ben")
    a.daemon.scrape_when(lambda page: len(page.all("job_power_watts")) == 2)
    a.run_on()

    # The ledger is destroyed under both jobs.
    books = a.books_at_rest()
    wait_until(
        same(engine, "total", books, of=("node", "a")),
        20,
        "the rules have seen what the epoch ended with",
    )
    # VictoriaMetrics shows a new series late: what it never showed of job 8, no rule could keep.
    for level, label in (("job", "job_id"), ("user", "user")):
        for name in {key[1] for key in books if key[0] == level}:
            last = f'sum(ledger_{level}:energy_kwh:last{{instance="a", {label}="{name}"}})'
            amount = books[level, name, "energy_kwh"]
            wait_until(shows(engine, last, amount), 90, f"what the epoch ended with: {last}")
    a.daemon.kill()
    a.daemon.ledger.write_bytes(b"SQLite format 3\0" + bytes(a.daemon.ledger.stat().st_size - 16))
    Path(f"{a.daemon.ledger}-wal").unlink(missing_ok=True)
    a.daemon.start()
    assert "a new epoch begins" in a.daemon.log()
    a.run_on()

    books.update(a.books_at_rest())  # adds
    of_a = books.copy()
    books.update(b.books_at_rest())
    wait_until(same(engine, "total", books), 90, f"{books}\n{recorded(engine, 'total')}")
    for quantity in ("energy_kwh", "co2e_grams"):
        whole = sum(v for k, v in books.items() if k[0] == "node" and k[2] == quantity)
        assert engine.value(f"sum(cluster:{quantity}:total)") == pytest.approx(whole, rel=REL)
    assert engine.value("count(count by (epoch) (ledger:energy_kwh:last))") == 3

    # Every line of the page is a series, once its lines are final: a power leaves the page one
    # commit after the last energy, and the engine sees that a scrape later.
    def every_line_is_a_series() -> bool:
        lines = len(b.daemon.scrape().samples)
        counted = 'count({__name__=~"(wattledger|process)_.*", instance="b"})'
        return (
            lines == engine.value('scrape_samples_scraped{instance="b"}') == engine.value(counted)
        )

    wait_until(every_line_is_a_series, 30, "every line is a series")
    # All of it happened within the hour.
    wait_until(same(engine, "increase1h", books), 90, f"{recorded(engine, 'increase1h')}")

    # The node leaves; what it did stays, and so does its part of the job.
    b.daemon.kill()
    engine.watch({"a": ports["a"]})
    wait_until(lambda: engine.value('up{instance="b"}') is None, 30, "b has left")
    assert same(engine, "total", books)()
    whole_job = """sum by (cluster, manager, job_id) (max by (cluster, epoch, manager, job_id) (
        last_over_time(ledger_job:energy_kwh:last{manager="slurm", job_id="7"}[30d])))"""
    assert engine.value(whole_job) == pytest.approx(books["job", "7", "energy_kwh"], rel=REL)

    # Every rule was evaluated without an error, as is told where WattledgerRulesFail looks for it,
    # and the one event is one alert.
    rules = engine.rules()
    assert len(rules) > 70
    assert [r["name"] for r in rules if r.get("lastError") or r["health"] != "ok"] == []
    pattern = re.compile(
        r'prometheus_rule_evaluation_failures_total{rule_group=".*;wattledger_ledgers"}'
        r'|vmalert_recording_rules_error{.*group="wattledger_ledgers".*}'
    )
    told = [v for name, v in counters(f"{engine.rules_url}/metrics").items() if pattern.match(name)]
    assert told
    assert set(told) == {0}

    def fired() -> list[dict[str, Any]]:
        return [
            alert
            for rule in engine.rules()
            for alert in rule.get("alerts") or ()
            if rule["name"] == "WattledgerNewLedgerEpoch"
        ]

    (alert,) = wait_until(fired, 90, "an alert")
    assert alert["labels"]["severity"] == "warning"
    assert alert["labels"].get("cluster") == engine.labels.get("cluster")
    assert alert["annotations"]["summary"] == "1 node(s) began a new ledger within the last hour"
    assert alert["annotations"]["nodes"].split() == ["a"]

    # It is not to be counted any more: forgotten while the rules go on, once a second.
    done = subprocess.run(
        ["sh", FORGET, engine.url, 'instance="b"'],
        env={**os.environ, "WATTLEDGER_FORGET_WAIT_S": "3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert re.fullmatch(r'[1-9][0-9]* series of instance="b" are deleted\n', done.stdout), done
    wait_until(same(engine, "total", of_a), 30, f"{of_a}\n{recorded(engine, 'total')}")
    for node in (a, b):
        node.daemon.assert_no_traceback()


def test_the_shipped_configuration_scrapes_over_tls(
    daemon: Callable[..., Daemon], tmp_path: Path, need: Callable[..., None]
) -> None:
    need("prometheus")
    node = daemon(scenario=SCENARIO, name="a")
    authority, password = trustme.CA(), "pass word"
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(node.home / "node.crt")
    certificate.private_key_pem.write_to_path(node.home / "node.key")
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    (node.home / "web-config.yml").write_text(
        "tls_server_config: {cert_file: node.crt, key_file: node.key}\n"
        f"basic_auth_users: {{prometheus: {hashed}}}\n"
    )
    node.configure(f"http.web_config = '{node.home}/web-config.yml'")
    node.start()
    home = tmp_path / "engine"
    (home / "tls").mkdir(parents=True)
    authority.cert_pem.write_to_path(home / "tls/ca.crt")
    (home / "tls/password").write_text("wrong")
    with prometheus(home, tls=True) as engine:
        engine.watch({"a": node.port})
        wait_until(lambda: engine.value("up") == 0, 90, "a wrong password is refused")
        (home / "tls/password").write_text(password)  # read again at each scrape
        wait_until(lambda: engine.value("up") == 1, 90, "the right one is not")
        wait_until(lambda: engine.vector("node:energy_kwh:total"), 90, "and the rules see it")
