"""Draws the dashboards by Grafana's own components, without a Grafana.

    make pictures

writes those that deploy/grafana/README.md shows, of the fleet that the tests play (`fleet_nodes`).
Each carries the hash of the dashboard it is of, so that a test can tell when it is out of date.

    make pictures PROMETHEUS=http://localhost:9090

draws what a Prometheus knows of the last hour into `build/pictures/`.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import dashboards
from dashboards import GRAFANA, NAMES
from e2e.chromium import Chromium
from e2e.fleet_history import END_S, SHOWN_S, serve
from e2e.grafana_pages import Pages
from e2e.grafana_values import values_of
from e2e.history import PrometheusApi

PICTURES = GRAFANA / "pictures"
PICTURED: Mapping[str, Mapping[str, Sequence[str]]] = {
    "node": {"instance": ("gpu03",)},
    "job": {"manager": ("slurm",), "job_id": ("4711", "4712")},
}
"""What is chosen in the pictures; everything otherwise."""
_OF = b"dashboard"

# The picture in 256 colours: those it has most of, then those that are the farthest from all of
# these (a legend's colour has few pixels), the others by their nearest. 24-bit screenshots of
# anti-aliased text are three times as large.
_REDUCE = """
(async () => {
  const image = await createImageBitmap(await (await fetch('data:image/png;base64,%s')).blob());
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext('2d').drawImage(image, 0, 0);
  const { data } = canvas.getContext('2d').getImageData(0, 0, image.width, image.height);
  const counts = new Map();
  for (let i = 0; i < data.length; i += 4) {
    const color = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
    counts.set(color, (counts.get(color) ?? 0) + 1);
  }
  const parts = (color) => [color >> 16, (color >> 8) & 255, color & 255];
  const known = [];
  const rest = [...counts].sort((a, b) => b[1] - a[1]).map(([color, count]) => (
    { color, rgb: parts(color), weight: Math.sqrt(count), best: 0, least: Infinity }
  ));
  const all = [...rest];
  const take = (at) => {
    const [{ rgb }] = rest.splice(at, 1);
    for (const one of all) {
      const far = one.rgb.reduce((sum, part, i) => sum + (part - rgb[i]) ** 2, 0);
      if (far < one.least) [one.best, one.least] = [known.length, far];
    }
    known.push(rgb);
  };
  while (known.length < 128 && rest.length) take(0);
  while (known.length < 256 && rest.length) {
    const worth = rest.map(({ least, weight }) => least * weight);
    take(worth.indexOf(Math.max(...worth)));
  }
  const index = new Map(all.map(({ color, best }) => [color, best]));
  const pixels = new Uint8Array(image.width * image.height);
  for (let i = 0; i < pixels.length; i++) {
    const at = 4 * i;
    pixels[i] = index.get((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
  }
  let text = '';
  for (let i = 0; i < pixels.length; i += 32768) {
    text += String.fromCharCode(...pixels.subarray(i, i + 32768));
  }
  return { width: image.width, height: image.height, palette: known.flat(), pixels: btoa(text) };
})()
"""


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def reduced(browser: Chromium, png: bytes, of: str) -> bytes:
    """A PNG of 256 colours that says what it is of; section 11 of https://www.w3.org/TR/png-3/."""
    shot = browser.evaluate(_REDUCE % base64.b64encode(png).decode())
    width, height = shot["width"], shot["height"]
    pixels = base64.b64decode(shot["pixels"])
    rows = b"".join(b"\0" + pixels[y * width : (y + 1) * width] for y in range(height))
    return b"".join([
        b"\x89PNG\r\n\x1a\n",
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        _chunk(b"PLTE", bytes(shot["palette"])),
        _chunk(b"tEXt", _OF + b"\0" + of.encode()),
        _chunk(b"IDAT", zlib.compress(rows, 9)),
        _chunk(b"IEND", b""),
    ])  # fmt: skip


def hash_of(name: str) -> str:
    """What a picture carries of its dashboard: all of it but the explanations."""
    board = dashboards.load(name)
    for one in (board, *board["panels"]):
        one.pop("description", None)
    return hashlib.sha256(json.dumps(board, sort_keys=True).encode()).hexdigest()


def pictured(picture: bytes) -> str:
    """The hash that a picture carries; empty: none."""
    at = 8
    while at < len(picture):
        length, kind = struct.unpack(">I4s", picture[at : at + 8])
        body = picture[at + 8 : at + 8 + length]
        if kind == b"tEXt" and body.startswith(_OF + b"\0"):
            return body.partition(b"\0")[2].decode()
        at += 12 + length
    return ""


def draw_known(out: Path) -> None:
    """Those of the fleet that the tests play."""
    rules = sorted((GRAFANA.parent / "prometheus" / "rules").glob("*.yml"))
    with tempfile.TemporaryDirectory() as folder:
        prometheus, _ = serve(Path(folder), rules, dashboards.recorded())
        try:
            _draw(Path(folder), prometheus, out, PICTURED, (SHOWN_S, END_S))
        finally:
            prometheus.stop()


def draw_of(url: str, minutes: int, out: Path) -> None:
    """Those of a Prometheus that is there, up to now."""
    now_s = int(time.time())
    with tempfile.TemporaryDirectory() as folder:
        _draw(Path(folder), PrometheusApi(url), out, {}, (now_s - 60 * minutes, now_s))


def _draw(
    home: Path,
    prometheus: PrometheusApi,
    out: Path,
    choices: Mapping[str, Mapping[str, Sequence[str]]],
    shown: tuple[int, int],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    step_s = max(15, (shown[1] - shown[0]) // 225 // 15 * 15)  # scrapes are at whole ones
    with Pages(home / "browser", prometheus.url) as pages:
        for name in NAMES:
            board = dashboards.load(name)
            try:
                given = values_of(board, prometheus, choices.get(name, {}), shown)
            except LookupError as error:
                sys.stdout.write(f"{name}: not drawn, {error}\n")
                continue
            _, png = pages.draw(name, given, *shown, step_s)
            path = out / f"{name}.png"
            path.write_bytes(reduced(pages.browser, png, hash_of(name)))
            sys.stdout.write(f"{path}: {path.stat().st_size} bytes\n")


def main() -> int:
    """Draws all of them."""
    parser = argparse.ArgumentParser(prog="make pictures")
    parser.add_argument("--prometheus", metavar="URL", default="")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--out", type=Path, default=PICTURES)
    options = parser.parse_args()
    if options.prometheus:
        draw_of(options.prometheus, options.minutes, options.out)
    else:
        draw_known(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
