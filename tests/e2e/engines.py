"""deploy/prometheus as it is shipped, run by a real Prometheus and by VictoriaMetrics' programs.

Only what a test cannot wait for is changed: intervals, and where it is said that nodes serve TLS.
"""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from e2e.daemon import free_port
from waiting import wait_until

SHIPPED = Path(__file__).parents[2] / "deploy/prometheus"
INTERVAL = re.compile(r"(interval): (?:30s|1m|2m)$", re.MULTILINE)
LOSSES = (
    "vm_rows_invalid_total",
    "vm_promscrape_scrapes_gunzip_failed_total",
    "vm_promscrape_scrapes_skipped_by_sample_limit_total",
    "vm_protoparser_unmarshal_errors_total",
    "vm_protoparser_parse_errors_total",
    "vmagent_remotewrite_packets_dropped_total",
)
TAKEN = "vm_protoparser_rows_read_total"
Labels = tuple[tuple[str, str], ...]


def configuration(home: Path, *, tls: bool = False) -> None:
    """A copy of deploy/prometheus in a directory, once a second; its list of nodes is empty."""
    shutil.copytree(SHIPPED / "rules", home / "rules")
    for rules in (home / "rules").iterdir():
        text, changed = INTERVAL.subn(r"\1: 1s", rules.read_text())
        assert changed
        rules.write_text(text)
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    (job,) = (one for one in config["scrape_configs"] if one["job_name"] == "wattledger")
    config["scrape_configs"] = [job]  # of itself it tells at a port of its own
    job["scrape_timeout"] = "1s"
    if not tls:
        del job["scheme"], job["tls_config"], job["basic_auth"]
    (home / "prometheus.yml").write_text(yaml.safe_dump(config))
    (home / "targets").mkdir()


class Engine:
    """Scrapes and evaluates; the address of its query API."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{free_port()}"
        self.rules_url = self.url
        self.labels = {"cluster": "alpha"}  # of all targets
        self.own_pages: list[str] = []  # where programs of VictoriaMetrics tell of themselves

    def watch(self, nodes: Mapping[str, int]) -> None:
        """Replaces the list of nodes: names and ports of loopback. A name becomes `instance`."""
        groups = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name, **self.labels}}
            for name, port in nodes.items()
        ]
        new = self.home / "targets/.new"
        new.write_text(yaml.safe_dump(groups))
        new.rename(self.home / "targets/nodes.yml")

    def ask(self, path: str, *, url: str = "", **more: str) -> Any:
        """The `data` of an answer; None while there is none."""
        asked = f"{url or self.url}/api/v1/{path}?{urllib.parse.urlencode(more)}"
        try:
            with urllib.request.urlopen(asked, timeout=10) as reply:
                return json.load(reply)["data"]
        except (OSError, urllib.error.URLError):
            return None

    def vector(self, expression: str) -> dict[Labels, float]:
        """The series of an instant query now, without `cluster` and name."""
        data = self.ask("query", query=expression, nocache="1")
        return {
            tuple(
                sorted((k, v) for k, v in row["metric"].items() if k not in ("__name__", "cluster"))
            ): float(row["value"][1])
            for row in (data or {"result": []})["result"]
        }

    def value(self, expression: str) -> float | None:
        """The one value of a query; None: no series."""
        found = list(self.vector(expression).values())
        assert len(found) <= 1, f"{expression}: {found}"
        return found[0] if found else None

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their state."""
        data = self.ask("rules", url=self.rules_url)
        return [rule for group in data["groups"] for rule in group["rules"]]


@contextmanager
def running(command: list[str], home: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (home / f"{command[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextmanager
def prometheus(home: Path, *, tls: bool = False) -> Iterator[Engine]:
    """One Prometheus that does all."""
    configuration(home, tls=tls)
    engine = Engine(home)
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
               "--web.enable-admin-api",
               f"--web.listen-address={engine.url.removeprefix('http://')}"]  # fmt: skip
    with running(command, home):
        wait_until(lambda: engine.value("vector(1)"), 30, "Prometheus answers")
        yield engine


@contextmanager
def victoria(home: Path) -> Iterator[Engine]:
    """vmagent scrapes, victoria-metrics keeps, vmalert evaluates."""
    configuration(home)
    engine = Engine(home)
    agent = f"127.0.0.1:{free_port()}"
    engine.rules_url = f"http://127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        alertmanager = stack.enter_context(_alertmanager())
        for command in (
            ["victoria-metrics", "-storageDataPath=data", "-retentionPeriod=1y",
             f"-httpListenAddr={engine.url.removeprefix('http://')}",
             "-memory.allowedBytes=64MiB", "-search.latencyOffset=1ms"],
            ["vmagent", "-promscrape.config=prometheus.yml", f"-httpListenAddr={agent}",
             "-promscrape.config.strictParse=false",
             "-promscrape.fileSDCheckInterval=1s", "-memory.allowedBytes=32MiB",
             f"-remoteWrite.url={engine.url}/api/v1/write", "-remoteWrite.flushInterval=200ms",
             "-remoteWrite.tmpDataPath=queue"],
            ["vmalert", "-rule=rules/*.yml", f"-datasource.url={engine.url}",
             f"-remoteRead.url={engine.url}", f"-remoteWrite.url={engine.url}",
             "-remoteWrite.flushInterval=200ms", f"-notifier.url={alertmanager}",
             f"-httpListenAddr={engine.rules_url.removeprefix('http://')}"],
        ):  # fmt: skip
            stack.enter_context(running(command, home))
            wait_until(lambda: engine.value("vector(1)"), 30, "VictoriaMetrics answers")
        engine.labels = {}  # a site with one cluster need not name it
        engine.own_pages = [f"http://{agent}/metrics", f"{engine.url}/metrics"]
        yield engine


def no_line_was_refused(url: str) -> float:
    """Fails the test where a program of VictoriaMetrics lost a line; how many it took.

    While a daemon starts it answers 503, whose body vmagent 1.79 reads as lines, too.
    """
    found = counters(url)
    lost = {name: value for name, value in found.items() if value and name.startswith(LOSSES)}
    assert not lost, f"{url}: {lost}"
    # victoria-metrics counts a row again where it inserts it.
    return max(value for name, value in found.items() if name.startswith(TAKEN))


def counters(url: str) -> dict[str, float]:
    """Metrics of VictoriaMetrics' programs: name with labels → value."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[:1] not in ("", "#"))
    }


@contextmanager
def _alertmanager() -> Iterator[str]:
    """Takes alerts; vmalert does not start without somebody who does."""

    class Taker(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5)
