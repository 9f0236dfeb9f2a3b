"""A relay and a daemon, two processes: live, settled, out, and both end in good order."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.daemon import FINE, READY_S, Daemon, clear_of_the, free_port
from e2e.notify import NotifySocket
from e2e.test_grid_live import CANARY, SCENARIO, assert_secret_kept, maps_for, maps_source
from e2e.test_settle_e2e import HOUR_S, history
from grid_server import GridServer, Request, message

Start = Callable[..., Daemon]


@contextmanager
def relay_of(node: Daemon, server: GridServer) -> Iterator[str]:
    """A relay's address; at the end SIGTERM, to which it has to end with 0."""
    home = node.home / "relay"
    home.mkdir()
    (home / "relay.toml").write_text(maps_source(node, server))
    notify = NotifySocket(home / "notify")
    port = free_port()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            node.command(
                *("grid", "serve", "--config", str(home / "relay.toml")),
                *("--listen", f"127.0.0.1:{port}"),
            ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home,
            env={**node.env, "NOTIFY_SOCKET": str(notify.path)},
        )
    try:
        ready = notify.wait_for("READY=1", READY_S, lambda: process.poll() is None)
        said = (home / "log").read_text
        assert ready, said()
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, said()
        assert "Traceback" not in said() and CANARY not in said(), said()
        assert "STOPPING=1" in notify.lines()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        notify.close()


def provider(now_s: float) -> Callable[..., None]:
    """Electricity Maps: 42 g now, and 11 published for the last day."""

    def play(connection: Any, request: Request, _stop: Any) -> None:
        past = "/history" in request.target
        body = history(11) if past else maps_for(now_s // HOUR_S * HOUR_S, 42)
        connection.sendall(message(body=json.dumps(body).encode()))

    return play


def test_a_node_books_and_settles_by_way_of_a_relay(daemon: Start) -> None:
    clear_of_the(HOUR_S)  # a new one would be asked for
    node = daemon(scenario=SCENARIO)
    with GridServer(provider(time.time())) as server, relay_of(node, server) as url:
        source = f'[[grid.source]]\nkind = "wattledger"\nurl = "{url}"\n'
        node.configure(FINE + 'site = { zone = "DE", pue = 1.5 }\n' + source)
        node.start()
        page = node.scrape_when(lambda page: page.one("grid_fallback_level") == 0, what="live")
        labels = {"source": "electricity_maps", "grid_zone": "DE", "basis": "lifecycle"}
        assert page.one("grid_carbon_intensity_grams_per_kwh", **labels) == 42
        assert page.one("grid_requests_total", source="wattledger", outcome="ok") == 1
        node.next_commit()

        socket = ("--socket", str(node.home / "ledger.sock"))
        done = node.cli("settle", "--days", "1", "--json", *socket)
        assert done.returncode == 0, done
        report = json.loads(done.stdout)["report"]
        assert report["sources"] == ["electricity_maps"] and float(report["total"]["settled_kwh"])
        assert node.next_commit().one("co2e_settlement_grams") < 0
        assert node.cli("settle", "--days", "1", *socket).returncode == 0
        assert [request.target.split("?")[0] for request in server.requests] == [
            "/v3/carbon-intensity/latest",
            "/v3/carbon-intensity/history",
        ], "one request each, whoever asked how often"

        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        assert 'outcome="ok",source="electricity_maps",what="history"} 1.0' in text
        assert CANARY not in text
        assert_secret_kept(node, node.scrape())
        node.terminate()
    node.assert_no_traceback()
    node.assert_books_balance()


def test_a_relay_without_a_source_does_not_start(daemon: Start, tmp_path: Path) -> None:
    node = daemon()
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    out = node.cli("grid", "serve", "--config", str(empty))
    assert out.returncode == 2 and "grid.source: there is no source" in out.stderr, out
    out = node.cli("grid", "serve", "--config", str(empty), "--listen", "nowhere")
    assert out.returncode == 2, out
