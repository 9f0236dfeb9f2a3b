"""A real Prometheus and a real VictoriaMetrics that scrape daemons once a second."""

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


class Scraper:
    """A server over a directory of its own; it runs within the `with` block.

    Args:
        kind: `prometheus` or `victoria-metrics`.
        home: its directory.
        targets: addresses that it scrapes, each with more labels.
    """

    def __init__(
        self, kind: str, home: Path, targets: Sequence[tuple[str, Mapping[str, str]]]
    ) -> None:
        self.kind = kind
        self.url = f"http://127.0.0.1:{free_port()}"
        self._home = home
        home.mkdir(parents=True)
        (home / "scrape.yml").write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                    "scrape_configs": [
                        {
                            "job_name": "wattledger",
                            "honor_labels": True,
                            "static_configs": [
                                {"targets": [address], "labels": dict(labels)}
                                for address, labels in targets
                            ],
                        }
                    ],
                }
            )
        )
        listen = self.url.removeprefix("http://")
        if kind == "prometheus":
            self._command = ["prometheus", "--config.file=scrape.yml", "--storage.tsdb.path=data",
                             f"--web.listen-address={listen}"]  # fmt: skip
        else:
            self._command = ["victoria-metrics", "-promscrape.config=scrape.yml",
                             "-storageDataPath=data", f"-httpListenAddr={listen}",
                             "-retentionPeriod=1y", "-memory.allowedBytes=64MiB"]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Scraper:
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._home
            )
        wait_until(lambda: self.query("vector(1)"), 30, f"{self.kind} answers")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query now; none while it does not answer."""
        asked = urllib.parse.urlencode({"query": expression, "nocache": "1"})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{asked}", timeout=10) as reply:
                found: list[dict[str, Any]] = json.load(reply)["data"]["result"]
        except (OSError, urllib.error.URLError):
            return []
        return found
