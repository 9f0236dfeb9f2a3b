"""A really running daemon: started, watched, asked, killed, always cleaned up.

    with Daemon(tmp_path, 'site.pue = 1.2', scenario=SCENARIO) as daemon:
        daemon.start()                       # returns when it has told systemd that it is ready
        daemon.scrape()["energy_joules_total", "device"]
        daemon.kill()
        daemon.start()                       # another process over the same files

All of it lies in one directory: `wattledger.toml`, `ledger.sqlite`, the sockets, the log.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from e2e.notify import NotifySocket
from e2e.page import Page
from serving import Client
from waiting import wait_until
from wattledger.core.footprint import footprint
from wattledger.ledger import open_reader_offline

READY_S = 60.0  # how long a start may take on a machine that is busy with other tests
FINE = 'sampling = { interval = "0.1s", commit_interval = "0.2s", allow_fine_grained = true }\n'


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


_held: list[socket.socket] = []


def free_port() -> int:
    """A port of loopback that nobody is given until this process ends.

    A socket stays bound to it and never listens: the kernel then takes it neither for a listener
    that asks for any port nor for the near end of a connection, also while the server that it is
    meant for is down. Servers set SO_REUSEADDR, and so may listen beside it.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _held.append(holder)
    return int(holder.getsockname()[1])


def clear_of_the(period_s: float, span_s: float = 90.0) -> None:
    """Returns when no period of the wall clock (the hour) ends within the next `span_s`."""
    left_s = period_s - time.time() % period_s
    if left_s < span_s:
        time.sleep(left_s)


class Daemon:
    """`wattledger serve` in a directory of its own, on a free port of loopback.

    Args:
        home: the directory.
        config: TOML; a `[path]` of its own keeps the host's meters out where there is none.
        scenario: text of a simulated scenario, played in the place of NVML.
        env: more environment.
        prefix: a command that starts the command, such as `setpriv …`.
        ledger: another place for the ledger.
        cwd: the working directory.
    """

    def __init__(
        self,
        home: Path,
        config: str = "",
        *,
        scenario: str = "",
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        ledger: Path | None = None,
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.port = free_port()
        self.ledger = ledger or home / "ledger.sqlite"
        self.config_file = home / "wattledger.toml"
        self.log_file = home / "daemon.log"
        self.prefix = list(prefix)
        self.process: subprocess.Popen[bytes] | None = None
        self.notify = NotifySocket(home / "notify")
        (home / "sys").mkdir(exist_ok=True)
        self.arguments = ["--ledger", str(self.ledger), "--path.sysfs", str(home / "sys")]
        if scenario:
            (home / "scenario.toml").write_text(scenario)
            self.arguments += ["--simulate", str(home / "scenario.toml")]
        kept = {
            name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ
        }
        self.env = {
            **kept,
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        self.configure(config)

    # ── life ────────────────────────────────────────────────────────────────────────────────────

    def configure(self, config: str) -> None:
        """Write the settings; a running daemon takes them up at SIGHUP."""
        self.config_file.write_text(config)

    def command(self, *arguments: str) -> list[str]:
        """The command line of a `wattledger` command."""
        return [*self.prefix, sys.executable, "-m", "wattledger.cli", *arguments]

    def spawn(self, *more: str) -> subprocess.Popen[bytes]:
        """Start the process, without waiting for anything."""
        assert self.process is None or self.process.poll() is not None, "it still runs"
        self.notify.clear()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(
                    "serve",
                    "--config",
                    str(self.config_file),
                    "--listen",
                    f"127.0.0.1:{self.port}",
                    *self.arguments,
                    *more,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env={**self.env, "NOTIFY_SOCKET": str(self.notify.path)},
                start_new_session=True,
            )
        return self.process

    def start(self, *more: str) -> Daemon:
        """Start the process and wait until it is ready, and all meters have answered or failed."""
        process = self.spawn(*more)
        ready = self.notify.wait_for("READY=1", READY_S, lambda: process.poll() is None)
        assert ready, f"not ready (exit code {process.poll()}):\n{self.log()}"
        self._wait_for_first_turns()
        return self

    def _wait_for_first_turns(self) -> None:
        """It is ready a moment after its start, also where a meter is slow to open."""
        socket_file = self.ledger.with_suffix(".sock")
        if not socket_file.exists():
            return  # switched off; and over TCP there may be TLS and passwords

        def commits(*, all_read: bool) -> int:
            answer = Client(socket.AF_UNIX, str(socket_file)).request("/api/v1/status", "GET")
            status = answer.json
            unread = [m for m in status["meters"] if m["message"] == "not read yet"]
            return 0 if all_read and unread else int(status["ledger"]["commits"])

        if not commits(all_read=True):
            found = wait_until(lambda: commits(all_read=True), what="all meters were read")
            wait_until(lambda: commits(all_read=False) > found, what="that is booked")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def terminate(self, timeout_s: float = 60.0, number: int = signal.SIGTERM) -> float:
        """SIGTERM; returns how long it took to end, in s. The exit code must be 0."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(timeout_s)
        took_s = time.monotonic() - begun
        assert code == 0, f"exit code {code}:\n{self.log()}"
        return took_s

    def reload(self) -> None:
        """SIGHUP; returns when the daemon has said that it is through."""
        self.notify.clear()
        self.send(signal.SIGHUP)
        alive = lambda: self.process is not None and self.process.poll() is None  # noqa: E731
        assert self.notify.wait_for("READY=1", READY_S, alive), self.log()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def assert_no_traceback(self) -> None:
        assert "Traceback" not in self.log(), self.log()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(60)
        self.notify.close()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── questions ───────────────────────────────────────────────────────────────────────────────

    def get(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        method: str = "GET",
    ) -> Reply:
        """One request over TCP."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, headers=dict(headers or {}))
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        got = {name.lower(): value for name, value in answer.getheaders()}
        if got.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        return Reply(answer.status, got, body)

    def scrape(self, timeout_s: float = 30.0) -> Page:
        """The metrics page now."""
        reply = self.get("/metrics", timeout_s=timeout_s)
        assert reply.status == 200, reply
        return Page(reply.body.decode())

    def scrape_when(
        self, condition: Callable[[Page], Any], timeout_s: float = 60.0, what: str = ""
    ) -> Page:
        """The first page that fulfils a condition."""
        deadline = time.monotonic() + timeout_s
        while not condition(page := self.scrape()):
            assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}\n{page}"
            time.sleep(0.05)
        return page

    def next_commit(self, timeout_s: float = 60.0) -> Page:
        """A page of a commit that began after this call did."""
        now = self.scrape().one("ledger_commits_total")
        return self.scrape_when(
            lambda page: page.one("ledger_commits_total") >= now + 2, timeout_s, "two commits"
        )

    def all_until_now(self) -> Page:
        """A page of books that hold all that was used before this call.

        A meter may be late: its reading of what ended long ago may come commits later.
        """
        for _ in range(2):  # the turn that ends next may have begun before
            self._wait_for_turns(time.time())
        return self.next_commit()

    def _wait_for_turns(self, since_s: float) -> None:
        name = "meter_last_success_timestamp_seconds"
        self.scrape_when(
            lambda page: all(at_s > since_s for at_s in page.all(name).values()),
            what="all meters were read",
        )

    def api(self, path: str) -> Any:
        """The JSON of `/api/v1/…`."""
        reply = self.get(f"/api/v1/{path}")
        assert reply.status == 200, reply
        return reply.json

    def cli(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Another `wattledger` command, run to its end in the same surroundings."""
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self.home,
            env=self.env,
            timeout=timeout_s,
        )

    # ── the ledger, while no daemon runs ────────────────────────────────────────────────────────

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a copy of the ledger: what lies there is not touched, not even its log."""
        copy = self.home / "copy.sqlite"
        for suffix in ("", "-wal"):
            beside = Path(f"{self.ledger}{suffix}")
            target = Path(f"{copy}{suffix}")
            if beside.exists():
                target.write_bytes(beside.read_bytes())
            else:
                target.unlink(missing_ok=True)
        Path(f"{copy}-shm").unlink(missing_ok=True)
        connection = sqlite3.connect(copy)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def assert_books_balance(self) -> None:
        """The ledger's own check: every row recomputed, every total summed, with `==`."""
        reader = open_reader_offline(self.ledger)
        try:
            assert reader.check(footprint) == []
        finally:
            reader.close()


def lines_of(text: str) -> Iterator[str]:
    """Non-empty lines."""
    return (line for line in text.splitlines() if line.strip())
