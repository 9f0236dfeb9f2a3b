"""Exporters of a running daemon: OTLP through outages and kills, node_exporter, a stranger's."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from acme_exporter import install
from e2e.daemon import FINE, Daemon, free_port
from e2e.page import PREFIX, Page
from otlp_receiver import LOGS, METRICS, OK, Got, Receiver, Said
from waiting import wait_until
from wattledger_exporters.metrics import CATALOGUE

SCENARIO = """
[[gpu]]
model = "H100 SXM"
count = 1
waveform = { kind = "constant", watts = 300 }
"""
NO_HOOKS = 'jobs.slurm = { hooks_dir = "/nonexistent", names_dir = "/nonexistent" }\n'
Start = Callable[..., Daemon]


def otlp(receiver: Receiver | str, **more: str) -> str:
    url = receiver if isinstance(receiver, str) else receiver.url
    lines = {"endpoint": f'"{url}"', "interval": '"1s"', "timeout": '"1s"', **more}
    return "[exporters.otlp]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


def run(daemon: Daemon) -> Any:
    """A command under `wattledger run`; its receipt."""
    file = daemon.home / "receipt.json"
    socket = str(daemon.ledger.with_suffix(".sock"))
    code = "import time\nwhile time.thread_time() < 0.2: pass\n"
    how = ["--socket", socket, "--gpus", "0", "--json", str(file)]
    done = daemon.cli("run", *how, "--", sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


def all_delivered(page: Page) -> bool:
    """Each run was acknowledged, and that is written."""
    return page.sum("exporter_runs_delivered_total") > 0 == page.sum("exporter_runs_waiting")


def records(receiver: Receiver) -> dict[str, list[dict[str, Any]]]:
    """What was received, job by job."""
    found: dict[str, list[dict[str, Any]]] = {}
    for got in receiver.of(LOGS):
        for record in got.records:
            found.setdefault(record["wattledger.job_id"], []).append(record)
    return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one


def test_a_run_leaves_as_one_record_that_says_what_its_receipt_says(
    daemon: Start, receiver: Receiver
) -> None:
    node = daemon(FINE + NO_HOOKS + otlp(receiver), scenario=SCENARIO).start()
    receipt = run(node)
    receiver.wait(lambda: receiver.acknowledged, what="the record of the run")
    ((record,),) = records(receiver).values()
    told = {
        name.removeprefix("wattledger.exact."): value
        for name, value in record.items()
        if name.startswith("wattledger.exact.")
    }
    assert int(told["energy_uj"]) > 0
    names = [name for name in receipt["exact"] if not name.endswith("_ns")]
    assert {name: told[name] for name in names} == {name: receipt["exact"][name] for name in names}
    page = node.scrape_when(all_delivered)
    assert page.one("exporter_runs_delivered_total", exporter="otlp") == 1
    wait_until(lambda: node.query("SELECT count(*) FROM run_export") == [(0,)])
    # The metrics pushed are counters of the same books.
    receiver.wait(lambda: len(receiver.of(METRICS)) >= 2, what="two pushes of metrics")
    first, last = (
        got.metrics["wattledger.energy_joules"].sum.data_points for got in receiver.of(METRICS)[:2]
    )
    for before, after in zip(first, last, strict=True):
        assert after.as_double >= before.as_double
        assert after.start_time_unix_nano == before.start_time_unix_nano or not before.as_double
    assert node.terminate() < 3
    node.assert_no_traceback()


def test_what_ended_while_nobody_listened_leaves_once_somebody_does(daemon: Start) -> None:
    port = free_port()  # ours until the end: no other test may listen on it meanwhile
    node = daemon(FINE + NO_HOOKS + otlp(f"http://127.0.0.1:{port}"), scenario=SCENARIO).start()
    ids = {run(node)["job_id"] for _ in range(2)}
    page = node.scrape_when(
        lambda p: p.all("exporter_runs_waiting") and p.one("exporter_runs_waiting") == 2, 20
    )
    assert page.one("exporter_up", exporter="otlp") == 0
    assert page.one("exporter_errors_total", exporter="otlp", reason="unreachable") >= 1
    assert page.one("exporter_up", exporter="prometheus") == 1
    said = [line for line in node.log().splitlines() if "exporter otlp" in line]
    assert len(said) == 1, said
    node.kill()
    node.start()
    ids.add(run(node)["job_id"])
    with Receiver(port=port) as back:
        back.wait(lambda: set(records(back)) == ids, 30, "the records of all three")
        node.scrape_when(all_delivered)
    assert all(len(of_job) == 1 for of_job in records(back).values())


def test_killed_between_sending_and_acknowledgement_it_sends_again_with_the_same_id(
    daemon: Start, receiver: Receiver
) -> None:
    node = daemon(FINE + NO_HOOKS + otlp(receiver, metrics="false"), scenario=SCENARIO).start()

    def kill(got: Got) -> Said | None:
        """The receiver has taken it; the daemon never hears so."""
        if got.path == LOGS:
            receiver.behave = lambda _: OK
            node.kill()
        return OK

    receiver.behave = kill
    subprocess.run(
        node.command("run", "--socket", str(node.ledger.with_suffix(".sock")), "--", "true"),
        env=node.env,
        cwd=node.home,
        capture_output=True,
        timeout=60,
        check=False,
    )
    receiver.wait(lambda: receiver.of(LOGS), what="the first record")
    wait_until(lambda: node.process is not None and node.process.poll() is not None)
    node.start()
    receiver.wait(lambda: len(receiver.of(LOGS)) >= 2, what="the same record again")
    first, second = (got.records for got in receiver.of(LOGS)[:2])
    assert [r["log.record.uid"] for r in first] == [r["log.record.uid"] for r in second]
    wait_until(lambda: node.query("SELECT count(*) FROM run_export") == [(0,)])
    node.terminate()
    node.assert_books_balance()


def test_a_receiver_that_never_ends_its_answer_holds_up_nothing(daemon: Start) -> None:
    with Receiver(lambda _: Said(drip_s=0.05)) as slow:
        node = daemon(FINE + NO_HOOKS + otlp(slow), scenario=SCENARIO).start()
        page = node.scrape_when(lambda p: p.all("exporter_errors_total", reason="timeout"))
        commits = page.one("ledger_commits_total")
        node.scrape_when(lambda p: p.one("ledger_commits_total") > commits + 5, 5)
        assert node.terminate() < 3
        node.assert_no_traceback()


# ── the textfile ────────────────────────────────────────────────────────────────────────────────


def fetched(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == 200, body
    return body


@pytest.fixture
def node_exporter(tmp_path: Path, need: Callable[..., None]) -> Iterator[tuple[Path, int]]:
    """The real one, over a directory of textfiles, and nothing else."""
    need("prometheus-node-exporter")
    directory, port = tmp_path / "textfiles", free_port()
    directory.mkdir()
    process = subprocess.Popen(
        [
            "prometheus-node-exporter",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={directory}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        assert process.poll() is None
        try:
            return bool(fetched(port))
        except OSError:
            return False

    try:
        wait_until(answers, what="node_exporter answers")
        yield directory, port
    finally:
        process.kill()
        process.wait(10)


def test_node_exporter_shows_the_textfile_whole_and_without_an_error(
    daemon: Start, node_exporter: tuple[Path, int]
) -> None:
    directory, port = node_exporter
    file = directory / "wattledger.prom"
    config = f'[exporters.textfile]\nfile = "{file}"\ninterval = "0s"\n'
    node = daemon(FINE + NO_HOOKS + config, scenario=SCENARIO).start()
    scraped = node.next_commit()
    commits = scraped.one("ledger_commits_total")
    wait_until(lambda: Page(fetched(port)).sum("ledger_commits_total") >= commits)
    shown = Page(fetched(port))
    assert shown.one("node_textfile_scrape_error") == 0
    assert shown.all("process_cpu_seconds_total"), "its own, once"
    ours = {series for series in scraped.samples if series[0] in CATALOGUE}
    assert len(ours) > 50 and ours <= set(shown.samples)
    for series, value in scraped.all("energy_joules_total").items():
        assert 0 <= value <= shown.samples[series]
    for _ in range(20):  # while it is written anew all the time
        assert Page(fetched(port)).one("node_textfile_scrape_error") == 0
    node.terminate()
    assert not file.exists() and PREFIX not in fetched(port), "it goes with the daemon"
    node.start()
    wait_until(file.exists)
    node.kill()
    assert file.exists(), "what a killed daemon leaves grows old"
    assert Page(fetched(port)).one("books_timestamp_seconds") > 0


# ── a third party's ─────────────────────────────────────────────────────────────────────────────


def test_a_third_party_adds_an_exporter_by_an_entry_point(daemon: Start, tmp_path: Path) -> None:
    site = install(tmp_path / "site")
    diary = tmp_path / "diary"
    config = FINE + NO_HOOKS + f'[exporters.acme]\nfile = "{diary}"\n'
    node = daemon(config, scenario=SCENARIO, env={"PYTHONPATH": str(site)}).start()
    receipt = run(node)
    wait_until(lambda: f"run {receipt['job_id']} " in diary.read_text())
    node.scrape_when(all_delivered)
    node.terminate()
    lines = diary.read_text().splitlines()
    assert sum(line.startswith("run ") for line in lines) == 1
    assert lines[-1] == "closed"


@pytest.mark.parametrize("mode", ["raise", "exit", "hang"])
def test_a_broken_exporter_disturbs_nobody(daemon: Start, tmp_path: Path, mode: str) -> None:
    site = install(tmp_path / "site")
    file = tmp_path / "w.prom"
    config = (
        FINE
        + NO_HOOKS
        + f'[exporters.acme]\nfile = "/x"\nmode = "{mode}"\n'
        + f'[exporters.textfile]\nfile = "{file}"\ninterval = "0s"\n'
    )
    node = daemon(config, scenario=SCENARIO, env={"PYTHONPATH": str(site)}).start()
    wait_until(file.exists)
    if mode != "hang":  # a minute is too long for a test; test_exporting has it
        page = node.scrape_when(lambda p: p.all("exporter_errors_total", exporter="acme"))
        assert page.one("exporter_up", exporter="acme") == 0
    run(node)
    page = node.next_commit()
    assert page.one("exporter_up", exporter="textfile") == 1
    assert page.one("exporter_up", exporter="prometheus") == 1
    assert node.terminate() < 3
    node.assert_books_balance()
