"""The dashboards drawn by Grafana's own components (`grafana_render/`) in a browser."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import dashboards
from e2e.chromium import Chromium
from waiting import wait_until

SOURCES = Path(__file__).parent / "grafana_render"
WIDTH = 1424
INSTALL_S = 600


def bundle() -> Path:
    """A directory with the page and its script, built of the locked packages.

    The packages go beside the virtual environment, once for each lock file: they are 440 MB.
    """
    lock = (SOURCES / "package-lock.json").read_bytes()
    home = Path(sys.prefix) / "grafana-render" / hashlib.sha256(lock).hexdigest()[:16]
    if not (home / "complete").exists():
        shutil.rmtree(home.parent, ignore_errors=True)  # those of other lock files too
        home.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCES / name, home / name)
        # No package may run a script of its own here.
        _run(home, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps")
        shutil.rmtree(home / "cache")
        (home / "complete").touch()
    out = home / "out"
    out.mkdir(exist_ok=True)
    for path in SOURCES.glob("*.js"):
        shutil.copy(path, home / path.name)
    shutil.copy(SOURCES / "page.html", out / "page.html")
    _run(
        home, "node_modules/.bin/esbuild", "main.js", "--bundle", f"--outfile={out / 'main.js'}",
        "--loader:.ttf=empty", "--alias:react-custom-scrollbars-2=./scrollbars.js",
        '--define:process.env.NODE_ENV="production"', "--minify",
        "--log-level=warning",
    )  # fmt: skip
    return out


def _run(home: Path, *command: str) -> None:
    done = subprocess.run(
        command, cwd=home, capture_output=True, text=True, timeout=INSTALL_S,
        stdin=subprocess.DEVNULL, env={**os.environ, "npm_config_cache": str(home / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


class _Quiet(SimpleHTTPRequestHandler):
    shown: Mapping[str, Any] = {}

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path != "/shown.json":
            super().do_GET()
            return
        body = json.dumps(type(self).shown).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Pages:
    """Draws dashboards; a browser and a server for as long as it is open."""

    def __init__(self, home: Path, prometheus: str) -> None:
        """Args: home: an empty directory. prometheus: its address."""
        self._prometheus = prometheus
        self._handler = type("Handler", (_Quiet,), {})
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(self._handler, directory=str(bundle()))
        )
        self.browser = Chromium(home)

    def __enter__(self) -> Pages:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.browser.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.browser.__exit__(kind, error, trace)
        self._server.shutdown()
        self._server.server_close()

    def draw(
        self, name: str, given: Mapping[str, str], begin_s: int, end_s: int, step_s: int = 60
    ) -> tuple[list[dict[str, Any]], bytes]:
        """What each panel of a dashboard drew, and the picture.

        Args:
            name: of the dashboard.
            given: what stands for its variables.
            begin_s: of the time shown.
            end_s: of the time shown.
            step_s: between points.
        """
        board = copy.deepcopy(dashboards.load(name))
        queries = [target for panel in dashboards.panels(board) for target in panel["targets"]]
        for asked in (*queries, *board["annotations"].get("list", ())):
            asked["expr"] = dashboards.filled(asked["expr"], given, range_s=end_s - begin_s)
        self._handler.shown = {  # type: ignore[attr-defined]
            "prometheus": self._prometheus, "board": board,
            "begin": begin_s, "end": end_s, "step": step_s,
        }  # fmt: skip
        url = f"http://127.0.0.1:{self._server.server_address[1]}/page.html?{name}"
        self.browser.open(url, WIDTH, 900)
        self.browser.wait_for("window.drawn || window.failed", f"{name} is not drawn")
        assert self.browser.evaluate("window.failed") is None
        panels = wait_until(partial(self._settled, len(board["panels"])), 30, f"{name} settles")
        height = self.browser.evaluate("document.getElementById('page').scrollHeight")
        self.browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=WIDTH, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        assert self.browser.console == [], self.browser.console
        return panels, self.browser.picture(WIDTH, height)

    def _settled(self, number: int) -> list[dict[str, Any]] | None:
        """The panels, once all are there and two looks at them are alike."""
        first = self.browser.evaluate(LOOK)
        second = self.browser.evaluate(LOOK)
        return first if len(first) == number and first == second else None


LOOK = """
(() => {
// A heading that something hides a part of.
const isCut = (heading) => {
  const text = document.createRange();
  const node = document.createTreeWalker(heading, NodeFilter.SHOW_TEXT).nextNode();
  if (!node) return false;
  text.selectNodeContents(node);
  const { left, right } = text.getBoundingClientRect();
  for (let box = node.parentElement; !box.dataset.panel; box = box.parentElement) {
    const its = box.getBoundingClientRect();
    const hides = getComputedStyle(box).overflowX !== 'visible';
    if (hides && (left < its.left - 1 || right > its.right + 1)) return true;
  }
  return false;
};
return [...document.querySelectorAll('[data-panel]')].map((panel) => {
  const canvas = panel.querySelector('canvas');
  let inked = 0;
  if (canvas && canvas.width && canvas.height) {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const colors = new Set();
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] > 200) colors.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    }
    inked = colors.size;
  }
  return {
    title: panel.dataset.title,
    type: panel.dataset.type,
    text: panel.innerText,
    error: panel.querySelector('[data-error]')?.innerText ?? '',
    rows: panel.querySelectorAll('[role=row]').length,
    cut: [...panel.querySelectorAll('[role=columnheader]')].filter(isCut).map((h) => h.innerText),
    inked,
  };
});
})()
"""
