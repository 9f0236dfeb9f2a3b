"""A real Prometheus over hours that were written before it started."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from e2e.daemon import free_port
from waiting import wait_until

FOREVER = "100y"


class PrometheusApi:
    """What a Prometheus that is there answers.

    Args:
        url: its address.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, asked: Mapping[str, str | float | Sequence[str]]) -> Any:
        """The data of an answer of the API; fails with its error."""
        body = urllib.parse.urlencode(asked, doseq=True).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}", body, timeout=30) as reply:
                answer = json.load(reply)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{asked}: {error.read().decode()}") from None
        assert answer["status"] == "success", answer
        return answer["data"]

    def at(self, query: str, at_s: float) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series at an instant."""
        data = self.ask("query", {"query": query, "time": at_s})
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(row["metric"], float(row["value"][1])) for row in data["result"]]

    def over(
        self, query: str, begin_s: int, end_s: int, step_s: int
    ) -> list[tuple[dict[str, str], list[float]]]:
        """Labels and values of each series over a time."""
        asked = {"query": query, "start": begin_s, "end": end_s, "step": step_s}
        data = self.ask("query_range", asked)
        return [(r["metric"], [float(v) for _, v in r["values"]]) for r in data["result"]]

    def label_values(self, series: str, label: str, begin_s: int, end_s: int) -> list[str]:
        """What a label is of the series that fit."""
        found: list[dict[str, str]] = self.ask(
            "series", {"match[]": series, "start": begin_s, "end": end_s}
        )
        return sorted({row[label] for row in found if row.get(label)})


class Prometheus(PrometheusApi):
    """`prometheus` over blocks in a directory; scrapes nothing."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / "data"
        self.port = free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        self._process: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)
        (home / "prometheus.yml").write_text("{}\n")

    def ingest(self, openmetrics: Path) -> None:
        """Make blocks of a file of samples; while it does not run."""
        self._promtool("tsdb", "create-blocks-from", "openmetrics", str(openmetrics))

    def replay(self, rules: Path, begin_s: int, end_s: int) -> None:
        """Make blocks of what recording rules would have recorded, and start again with them."""
        at = [f"--start={begin_s}", f"--end={end_s}", f"--url={self.url}", "--output-dir=data"]
        self._promtool("tsdb", "create-blocks-from", "rules", *at, str(rules), out=False)
        self.stop()
        self.start()

    def _promtool(self, *arguments: str, out: bool = True) -> None:
        done = subprocess.run(
            ["promtool", *arguments, *(["data"] if out else [])],
            cwd=self.home, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> Prometheus:
        """Start it, and wait until it answers."""
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                 f"--storage.tsdb.retention.time={FOREVER}", "--web.enable-admin-api",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home,
            )  # fmt: skip
        wait_until(self._ready, 30, "Prometheus answers")
        return self

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)

    def __enter__(self) -> Prometheus:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.stop()
