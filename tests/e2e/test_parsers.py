"""The page of a running daemon, read by parsers that are not ours.

promtool checks the text format and its conventions, prometheus_client's strict parser OpenMetrics;
a Pushgateway and a VictoriaMetrics take every line, and a Prometheus that scrapes the daemon stores
what the daemon shows.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from e2e.daemon import FINE, Daemon, free_port
from e2e.engines import counters, no_line_was_refused, running
from e2e.page import PREFIX, Page
from sysfs import RaplTree
from waiting import wait_until

SCENARIO = """
[[gpu]]
model = "H100 SXM"
count = 2
waveform = { kind = "square", low_w = 100, high_w = 600, period_s = 1.3 }
processes = [{ pid = "self" }]

[[gpu]]
model = "A100"
sensor = { counter = false }

[[fault]]
kind = "lost"
gpu = 2
at_s = 3
"""
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@pytest.fixture
def node(daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon with a bit of everything on its page: kinds, payees, qualities, a lost GPU."""
    made = daemon(
        FINE + "meters.other.watts = 100\nhttp.created_timestamps = true", scenario=SCENARIO
    )
    with RaplTree(made.home / "sys", packages=2) as tree, tree.follow(0.02):
        made.start()
        made.next_commit()
        made.kill()
        made.start()
        made.scrape_when(
            lambda page: 0 in page.all("device_present").values(), 20, "a GPU has left"
        )
        yield made


def promtool(page: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, timeout=30
    )


@pytest.mark.parametrize("name", ["metrics.txt", "metrics.jobs.txt"])
def test_promtool_finds_nothing_on_the_golden_pages(name: str, need: Callable[..., None]) -> None:
    need("promtool")
    checked = promtool((Path(__file__).parents[1] / "golden" / name).read_bytes())
    found = {line.split(" ", 1)[1] for line in checked.stderr.decode().splitlines() if line}
    assert found <= {"metric name should not include type 'counter'"}


def test_promtool_finds_nothing(node: Daemon, need: Callable[..., None]) -> None:
    need("promtool")
    page = node.get("/metrics").body
    checked = promtool(page)
    assert checked.stdout == b""
    found = {line.split(" ", 1)[1] for line in checked.stderr.decode().splitlines() if line}
    # A counter of what happens to counters may say so; of all the lints it is the only one.
    assert found <= {"metric name should not include type 'counter'"}
    assert checked.stderr.count(b"wattledger_counter_resets_") == len(
        checked.stderr.decode().split("\n")[:-1]
    )
    # It can find something.
    assert promtool(page.replace(b"# HELP wattledger_power_watts", b"# x")).returncode == 3
    assert promtool(page + b'broken{label="x} 1\n').returncode == 1


def test_openmetrics_is_strict(node: Daemon) -> None:
    reply = node.get("/metrics", {"Accept": OPENMETRICS})
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert reply.body.endswith(b"# EOF\n")
    families = {f.name: f for f in text_string_to_metric_families(reply.body.decode())}
    assert f"{PREFIX}energy_joules" in families


def test_created_is_the_first_booking_and_survives(node: Daemon) -> None:
    def created() -> dict[str, str]:
        text = node.get("/metrics", {"Accept": OPENMETRICS}).body.decode()
        pairs = (line.rsplit(" ", 1) for line in text.splitlines())
        return {name: value for name, value in pairs if "energy_joules_created{" in name}

    before = created()
    assert len(before) >= 5
    written_s = node.config_file.stat().st_mtime
    assert all(written_s < float(value) < time.time() for value in before.values())
    node.terminate()
    node.start()
    assert before.items() <= created().items()


def test_every_encoding_tells_the_same(node: Daemon) -> None:
    def numbers(page: bytes) -> dict[str, str]:
        lines = (line for line in page.decode().splitlines() if line and line[0] != "#")
        pairs = (line.rsplit(" ", 1) for line in lines)
        return {
            name: value
            for name, value in pairs
            if not name.startswith("process_") and "_created" not in name
        }

    accepts = [{}, {"Accept": OPENMETRICS}, {"Accept-Encoding": "gzip"},
               {"Accept": OPENMETRICS, "Accept-Encoding": "gzip"}]  # fmt: skip

    def all_of_one_commit() -> list[dict[str, str]] | None:
        pages = [node.get("/metrics", headers) for headers in accepts]
        assert [reply.headers.get("content-encoding") for reply in pages] == [
            None, None, "gzip", "gzip"
        ]  # fmt: skip
        found = [numbers(reply.body) for reply in pages]
        commits = {page[f"{PREFIX}ledger_commits_total"] for page in found}
        return found if len(commits) == 1 else None

    first, *others = wait_until(all_of_one_commit, 60, "four scrapes between two commits")
    assert len(first) > 80
    assert all(other == first for other in others)


def test_a_broken_client_breaks_nothing(node: Daemon) -> None:
    for accept in ("application/openmetrics-text;version=abc", "text/plain;q=x", "*/*;q=0", ","):
        reply = node.get("/metrics", {"Accept": accept})
        assert reply.status == 200
        assert "abc" not in reply.headers["content-type"]
    for path in ("/metrics/", "/nothing", "/api/v1/nothing", "/../etc/passwd", "/%00"):
        assert node.get(path).status == 404
    assert node.get("/metrics", method="POST").status == 405
    assert node.get("/metrics", method="HEAD").body == b""
    node.assert_no_traceback()


def test_prometheus_scrapes_it(node: Daemon, need: Callable[..., None], tmp_path: Path) -> None:
    need("prometheus")
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                "scrape_configs": [
                    {
                        "job_name": "wattledger",
                        "static_configs": [{"targets": [f"127.0.0.1:{node.port}"]}],
                    }
                ],
            }
        )
    )
    with (tmp_path / "prometheus.log").open("wb") as log:
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}",
             f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=tmp_path,
        )  # fmt: skip

    def query(expression: str) -> list[dict[str, object]]:
        asked = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{port}/api/v1/query?{asked}"
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                result: list[dict[str, object]] = json.load(reply)["data"]["result"]
        except OSError:
            return []  # it is still starting
        return result

    def value(expression: str) -> float:
        (row,) = query(expression)
        return float(row["value"][1])  # type: ignore[index]

    try:
        wait_until(lambda: query("up == 1"), 60, "Prometheus has scraped")
        wait_until(lambda: value("count_over_time(up[1m])") >= 5, 60, "and again")
        # One evaluation of both: two would see two scrapes.
        dropped = "scrape_samples_scraped - scrape_samples_post_metric_relabeling"
        assert value(dropped) == 0
        stored_j = value(f"sum({PREFIX}energy_joules_total)")
        page = Page(node.get("/metrics").body.decode())  # after what was stored: counters rise
        assert 0 < stored_j <= page.sum("energy_joules_total")
        for name in ("energy_joules_total", "co2e_grams_total", "water_liters_total"):
            assert value(f"count({PREFIX}{name})") == len(page.all(name))
        # 2 × 350 W, 2 × 110 W and 100 W: no reset is seen in the counters. However late scrapes are
        # on a busy machine, there are some in half a minute.
        watts = f"sum(rate({PREFIX}energy_joules_total[30s]))"
        wait_until(
            lambda: query(watts) and value(watts) == pytest.approx(1020, rel=0.3), 60, "the power"
        )
        assert value(f"sum(resets({PREFIX}energy_joules_total[1m]))") == 0
        # Names that Prometheus itself gives to its targets are not taken.
        assert query('{__name__=~"wattledger_.*", exported_job!=""}') == []
    finally:
        prometheus.terminate()
        prometheus.wait(20)


GOLDEN = ("metrics.txt", "metrics.jobs.txt")


def pages(node: Daemon) -> list[bytes]:
    """A running daemon's page and those with a bit of everything."""
    folder = Path(__file__).parents[1] / "golden"
    return [node.get("/metrics").body, *((folder / name).read_bytes() for name in GOLDEN)]


def posted(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def test_a_pushgateway_takes_it(node: Daemon, need: Callable[..., None], tmp_path: Path) -> None:
    need("prometheus-pushgateway")
    address = f"127.0.0.1:{free_port()}"
    with running(["prometheus-pushgateway", f"--web.listen-address={address}"], tmp_path):
        wait_until(lambda: answers(f"http://{address}/-/ready"), 20, "it is there")
        for number, page in enumerate(pages(node)):
            url = f"http://{address}/metrics/job/wattledger/page/{number}"
            assert posted(url, page) == 200
            line = next(line for line in page.splitlines() if line.startswith(b"wattledger_"))
            assert posted(url, page + line + b"\n") == 400, "a series that is there twice"


def test_victoriametrics_takes_every_line(
    node: Daemon, need: Callable[..., None], tmp_path: Path
) -> None:
    need("victoria-metrics")
    url = f"http://127.0.0.1:{free_port()}"
    command = ["victoria-metrics", "-storageDataPath=data", "-memory.allowedBytes=64MiB",
               f"-httpListenAddr={url.removeprefix('http://')}"]  # fmt: skip
    with running(command, tmp_path):
        wait_until(lambda: answers(f"{url}/health"), 20, "it is there")
        lines = 0
        for page in pages(node):
            assert posted(f"{url}/api/v1/import/prometheus", page) == 204
            lines += sum(not line.startswith(b"#") for line in page.splitlines())
        # It tells of itself a moment later.
        wait_until(lambda: no_line_was_refused(f"{url}/metrics") >= lines, 10, "all are counted")
        assert no_line_was_refused(f"{url}/metrics") == lines
        assert posted(f"{url}/api/v1/import/prometheus", b'broken{label="x} 1\n') == 204
        refused = 'vm_rows_invalid_total{type="prometheus"}'
        wait_until(lambda: counters(f"{url}/metrics")[refused] == 1, 10, "it can refuse one")
