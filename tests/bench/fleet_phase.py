"""2,000 nodes in a VictoriaMetrics: how many series, and what taking in, rules and boards cost.

Scaled down from a fleet that runs for months: a few scrapes half a minute apart instead of a
history, one VictoriaMetrics on this machine that others share, pages handed to it one after the
other over one connection instead of scraped.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

import dashboards
from bench import fleet_anew
from bench.fleet_pages import GPUS, WIDE, Fleet, Page, cardinality, name_of, series_of, wide_job
from bench.table import Result
from e2e.daemon import free_port
from e2e.fleet_history import recording_levels
from e2e.fleet_nodes import TURN_S
from waiting import wait_until

NODES = 2_000
SCRAPES = 11  # five minutes
EVALUATED = (4, 7, 10)  # at these scrapes the recording rules are evaluated
PANEL_S = 10.0  # what VictoriaMetrics lets a query wait before it refuses it
JOBS_S = 30.0
DIGITS = 1e-12
"""VictoriaMetrics keeps 12 to 13 digits of a fraction, such as a counter in kWh."""
CLUSTER = "bench"
_SECONDS = {"30s": 30, "1m": 60, "2m": 120}
_RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules"
RULES = [_RULES / "recording.yml", _RULES / "hours.yml"]
CHOICES = {
    "node": {"instance": name_of(7)},
    "job": {"manager": "slurm", "job_id": wide_job(0)},
}
"""What somebody has chosen in a dashboard of one thing; the other boards show all of the fleet."""


def measure(directory: Path, result: Result) -> None:
    """Runs all of it and adds its rows.

    Raises:
        FileNotFoundError: VictoriaMetrics is not installed.
        RuntimeError: what it answers is wrong or empty.
    """
    directory.mkdir(exist_ok=True)
    begin_s = int(time.time()) // TURN_S * TURN_S - SCRAPES * TURN_S
    for name, value in cardinality(directory, begin_s).items():
        result.add(name, value, "")
    fleet = Fleet(directory, NODES, begin_s)
    server = _Server(directory)
    try:
        _say(f"{NODES:,} nodes, {SCRAPES} scrapes, rules")
        _take_in(server, fleet, result)
        end_s = begin_s + SCRAPES * TURN_S
        _check(server, fleet, end_s)
        _say("dashboards")
        _dashboards(server, begin_s + TURN_S, end_s, result)
        _say("wattledger jobs --from")
        _commands(server, fleet, result)
        _commands_anew(server, end_s, result)
    finally:
        server.stop()
        fleet.close()


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


class _Server:
    """A VictoriaMetrics, asked over one connection that is kept."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "vm"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        with (directory / "victoria-metrics.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["victoria-metrics", f"-storageDataPath={self.data}", "-retentionPeriod=1y",
                 f"-httpListenAddr=127.0.0.1:{self.port}", "-search.latencyOffset=1ms",
                 "-search.maxQueryDuration=2m"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._answers, 30, "VictoriaMetrics answers")
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=180)

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError("VictoriaMetrics has ended")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def cpu_s(self) -> float:
        """User and system time so far."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / 100

    def rss_mib(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def write(self, text: str, at_s: int, labels: Mapping[str, str]) -> None:
        """A page with its target's labels, as of a time."""
        asked = [("timestamp", str(at_s * 1000))]
        asked += [("extra_label", f"{name}={value}") for name, value in labels.items()]
        self._send("POST", f"import/prometheus?{urllib.parse.urlencode(asked)}", text.encode())

    def write_series(self, lines: str) -> None:
        """Whole series, as of `fleet_anew`."""
        self._send("POST", "import", lines.encode())

    def flush(self) -> None:
        """What was written can be found from here on."""
        self._send("GET", "", path="/internal/force_flush")

    def ask(self, path: str, **asked: str | int) -> Any:
        """The `data` of an answer; nothing is answered out of a cache."""
        return self.timed(path, **asked)[0]

    def timed(self, path: str, **asked: str | int) -> tuple[Any, float]:
        """The same, and how many seconds it took until all of it was here."""
        body = urllib.parse.urlencode({**asked, "nocache": "1"}, doseq=True).encode()
        begin_s = time.perf_counter()
        text = self._send("POST", path, body, form=True)
        took_s = time.perf_counter() - begin_s
        answer = json.loads(text)
        if answer["status"] != "success":
            raise RuntimeError(f"{asked}: {answer}")
        return answer["data"], took_s

    def _send(
        self, method: str, query: str, body: bytes = b"", *, path: str = "", form: bool = False
    ) -> bytes:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        self._connection.request(method, path or f"/api/v1/{query}", body, headers)
        reply = self._connection.getresponse()
        text = reply.read()
        if reply.status // 100 != 2:
            raise RuntimeError(f"{query[:200]}: {reply.status} {text[:500]!r}")
        return text


def _take_in(server: _Server, fleet: Fleet, result: Result) -> None:
    """All pages, and what the rules record of them at some of the scrapes."""
    samples = 0
    wall_s = cpu_s = 0.0
    first_s = 0.0
    evaluations: list[dict[str, float]] = []
    recorded = 0
    for scrape in range(SCRAPES):
        pages = list(fleet.turn())
        before_s, before_cpu_s = time.perf_counter(), server.cpu_s()
        for page in pages:
            server.write(
                f"{page.text.removesuffix('# EOF' + chr(10))}up 1\n", page.at_s, _target(page)
            )
        server.flush()
        wall_s += time.perf_counter() - before_s
        cpu_s += server.cpu_s() - before_cpu_s
        samples += sum(len(series_of(page.text)) for page in pages)
        if scrape == 0:
            first_s = wall_s
        if scrape in EVALUATED:
            took, recorded = _evaluate(server, pages[0].at_s)
            evaluations.append(took)
    note = f"{samples:,} samples in {wall_s:.0f} s; the first scrape, all new, {first_s:.0f} s"
    result.add("taken in", samples / wall_s, "samples/s", note=note)
    needed = samples / SCRAPES / TURN_S
    result.add(
        f"CPU for a scrape each {TURN_S} s", 100 * cpu_s / samples * needed, "%", 100,
        "of one core, by the CPU time of taking in",
    )  # fmt: skip
    result.add("VictoriaMetrics after that", server.rss_mib(), "MiB")
    shown = sum(len(series_of(page.text)) for page in pages)
    result.add("series of the fleet", shown, "", note=f"{fleet.nodes:,} nodes, at the last scrape")
    result.add("series that the rules record", recorded, "")
    _rules(evaluations[-1], result)


def _rules(took: Mapping[str, float], result: Result) -> None:
    """Each group's rules are evaluated one after the other, once in its interval."""
    duty = 0.0
    for group in _groups():
        times = {rule["record"]: took[rule["record"]] for rule in group["rules"]}
        slowest = max(times, key=times.__getitem__)
        interval_s = _SECONDS[group["interval"]]
        duty += sum(times.values()) / interval_s
        note = f"{len(times)} rules; the slowest {slowest} {times[slowest]:.2f} s"
        result.add(f"rules {group['name']}", sum(times.values()), "s", interval_s, note)
    result.add("all rules, of the time", 100 * duty, "%", note="groups run beside one another")


def _groups() -> list[dict[str, Any]]:
    return [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]


def _target(page: Page) -> dict[str, str]:
    return {"job": "wattledger", "cluster": CLUSTER, "instance": name_of(page.node)}


def _evaluate(server: _Server, at_s: int) -> tuple[dict[str, float], int]:
    """Every rule once, those it is made of first.

    Returns:
        Seconds of each, and how many series they recorded.
    """
    names = [rule["record"] for group in _groups() for rule in group["rules"]]
    took: dict[str, float] = {}
    count = 0
    for level in recording_levels(RULES, names):
        for rule in level:
            data, took[rule["record"]] = server.timed("query", query=rule["expr"], time=at_s)
            found = data["result"]
            count += len(found)
            server.write("".join(_lines(rule["record"], found)), at_s, {})
        server.flush()
    return took, count


def _lines(name: str, found: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for row in found:
        labels = ",".join(f'{k}="{v}"' for k, v in row["metric"].items() if k != "__name__")
        yield f"{name}{{{labels}}} {row['value'][1]}\n"


def _check(server: _Server, fleet: Fleet, at_s: int) -> None:
    """The figures are of the right thing: all nodes' energy, through pages and rules.

    Raises:
        RuntimeError: they are not.
    """
    (row,) = server.ask("query", query="sum(cluster:energy_kwh:total)", time=at_s)["result"]
    asked, true = float(row["value"][1]), fleet.kwh()
    if abs(asked - true) > 1e-9 * true:
        raise RuntimeError(f"the rules say {asked} kWh, the ledgers hold {true} kWh")


def _dashboards(server: _Server, since_s: int, until_s: int, result: Result) -> None:
    """Every query of every dashboard, as Grafana asks it when the board is opened."""
    for name in dashboards.NAMES:
        board = dashboards.load(name)
        begin_s = time.perf_counter()
        given = _values(server, board, CHOICES.get(name, {}), since_s, until_s)
        variables_s = time.perf_counter() - begin_s
        times: dict[str, float] = {}
        empty = 0
        for target in dashboards.targets(board):
            expr = dashboards.filled(target.expr, given, range_s=until_s - since_s)
            if target.instant:
                data, took_s = server.timed("query", query=expr, time=until_s)
            else:
                data, took_s = server.timed(
                    "query_range", query=expr, start=since_s, end=until_s, step=TURN_S
                )
            times[f"{target.panel} {target.ref}"] = took_s
            empty += not data["result"]
        slowest = max(times, key=times.__getitem__)
        note = (
            f"slowest of {len(times)}, {slowest!r}; median "
            f"{1000 * statistics.median(times.values()):.0f} ms, all {sum(times.values()):.1f} s; "
            f"variables {variables_s:.1f} s; {empty} empty"
        )
        result.add(f"dashboard {name}", times[slowest], "s", PANEL_S, note)
        if empty == len(times):
            raise RuntimeError(f"nothing is shown on {name}")


def _values(
    server: _Server, board: Mapping[str, Any], chosen: Mapping[str, str], since_s: int, until_s: int
) -> dict[str, str]:
    """What stands for each variable, found out as Grafana does."""
    given: dict[str, str] = {}
    for name, variable in dashboards.variables(board).items():
        if variable["type"] != "query":
            given[name] = variable["current"]["value"]
            continue
        series, label = dashboards.label_values(variable["query"]["query"])
        match = {"match[]": dashboards.filled(series, given)}
        values = server.ask(f"label/{label}/values", start=since_s, end=until_s, **match)
        choice = [chosen[name]] if name in chosen else []
        given[name] = dashboards.chosen(variable, values, choice)
    return given


def _commands(server: _Server, fleet: Fleet, result: Result) -> None:
    """The commands that ask the fleet, started anew each time.

    Raises:
        RuntimeError: an answer is not what the ledgers hold.
    """
    found, took_s = _wattledger("jobs", "--since", "1h", "--limit", "100", server=server)
    shown = len(found["jobs"])
    note = f"{shown} of {NODES // 2 * GPUS + -(-NODES // (2 * WIDE)):,} jobs shown, newest first"
    result.add("wattledger jobs --from", took_s, "s", JOBS_S, note)
    if shown != 100:
        raise RuntimeError(f"{shown} jobs were shown")
    job = wide_job(0)
    found, took_s = _wattledger("job", job, "--since", "1h", server=server)
    result.add("wattledger job --from", took_s, "s", JOBS_S, f"on {WIDE} nodes of 8 GPUs")
    told, true = int(found["totals"]["exact"]["energy_uj"]), fleet.job_uj(job)
    if abs(told - true) > DIGITS * true:
        raise RuntimeError(f"job {job}: {told} µJ were told, the ledgers hold {true} µJ")


def _commands_anew(server: _Server, end_s: int, result: Result) -> None:
    """The same where each node's ledger was begun anew in the span: all at once, or one by one.

    Raises:
        RuntimeError: an answer is not what was written.
    """
    for nodes, apart_s, how in ((NODES, 0, "at once"), (NODES // 4, 4, "each at its own time")):
        lines = list(fleet_anew.series(nodes, apart_s, end_s))
        for begin in range(0, len(lines), 2_000):
            server.write_series("\n".join(lines[begin : begin + 2_000]))
        server.flush()
        only = ("--since", "2h", "--match", f"cluster={fleet_anew.CLUSTER}{apart_s}")
        expected = 2 * nodes * fleet_anew.EPOCH_KWH
        for command in (("jobs",), ("job", fleet_anew.JOB_ID)):
            found, took_s = _wattledger(*command, *only, server=server)
            told = found["jobs"][0] if command == ("jobs",) else found
            name = f"wattledger {command[0]} --from, {nodes:,} ledgers begun anew {how}"
            result.add(name, took_s, "s", JOBS_S)
            kwh = told["totals"]["energy_kwh"]["total"]
            if kwh != expected:
                raise RuntimeError(f"{name}: {kwh} kWh were told, {expected} were written")


def _wattledger(*arguments: str, server: _Server) -> tuple[Any, float]:
    """Its JSON, and how long the command took, start included."""
    command = [sys.executable, "-m", "wattledger.cli", *arguments, "--json", "--from", server.url]
    begin_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    took_s = time.perf_counter() - begin_s
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
    return json.loads(done.stdout), took_s
