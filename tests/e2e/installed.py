"""A node on which the package is installed, with simulated GPUs and RAPL for root alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from e2e.booted import UNIT, Machine, copied
from e2e.page import Page
from sysfs import RaplTree
from waiting import wait_until

SETTINGS = """
path.sysfs = "/srv/sys"
sampling = { interval = "1s", commit_interval = "1s" }
meters.nvml = { backend = "simulated", scenario = "/etc/wattledger/scenario.toml" }
meters.rapl.enabled = true
"""
SCENARIO = '[[gpu]]\nmodel = "H100 SXM"\ncount = 2\nwaveform = { kind = "constant", watts = 300 }\n'
PROGRAM = "/usr/bin/wattledger"
CONFIG = Path("etc/wattledger/wattledger.toml")
DROP_INS = f"/etc/systemd/system/{UNIT}.d"
SHARE = "/usr/share/wattledger/systemd"
RELEASE = "/usr/lib/wattledger/bin/wattledger-release"
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
# Asks for the page on a new connection again and again, until a file appears; tells how it went.
HAMMER = """
import collections, http.client, json, pathlib, socket
told = collections.Counter()
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect("/run/wattledger/wattledger.sock")
def ask(name, connection):
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        complete = b"wattledger_books_timestamp_seconds " in answer.read()
        told[f"{name} {answer.status} {complete}"] += 1
    except Exception as error:
        told[f"{name} {type(error).__name__}"] += 1
    connection.close()
while not pathlib.Path("/srv/enough").exists():
    ask("tcp", http.client.HTTPConnection("127.0.0.1", 19400, timeout=30))
    ask("unix", Unix("localhost", timeout=30))
    pathlib.Path("/srv/asked").write_text(str(told.total()))
print(json.dumps(told))
"""


@contextlib.contextmanager
def booted(bare: Path, folder: Path, **packages: Path) -> Iterator[Machine]:
    """A copy of a Debian, running, with these packages at /srv/NAME.deb; none is installed."""
    root = copied(bare, folder / "root")
    for name, package in packages.items():
        (root / f"srv/{name}.deb").write_bytes(package.read_bytes())
    (root / "srv/hammer.py").write_text(HAMMER)
    with RaplTree(root / "srv/sys", packages=1) as tree:
        for zone in tree.counted:
            tree.set_mode(zone, 0o400)
        with tree.follow(0.02):
            machine = Machine(root, folder / "boot.log")
            try:
                yield machine
            finally:
                machine.close()


def configure(machine: Machine) -> None:
    """Settings of one's own, in force."""
    (machine.root / "etc/wattledger/scenario.toml").write_text(SCENARIO)
    (machine.root / CONFIG).write_text(SETTINGS)
    machine.run("systemctl", "restart", UNIT)


def apt(machine: Machine, *arguments: str) -> str:
    """apt-get, which nobody answers: a question of dpkg is an end of file and a failure."""
    done = machine.run("apt-get", "-q", "-y", "--no-install-recommends", *arguments, timeout_s=120)
    return done.stdout + done.stderr


def drop_in(machine: Machine, name: str) -> None:
    """As the papers say."""
    machine.run("install", "-D", "-m", "644", f"{SHARE}/{name}", f"{DROP_INS}/{name}")
    machine.run("systemctl", "daemon-reload")


def take_away(machine: Machine, name: str) -> None:
    machine.run("rm", f"{DROP_INS}/{name}")
    machine.run("systemctl", "daemon-reload")


def moved(page: Page) -> bool:
    """GPUs and CPUs have used something."""
    return all(page.sum("energy_joules_total", kind=kind) > 0 for kind in ("cpu", "gpu"))


@contextlib.contextmanager
def hammering(machine: Machine) -> Iterator[dict[str, int]]:
    """Scrapes without a pause on both sockets meanwhile; what they came to afterwards."""
    told: dict[str, int] = {}
    for name in ("enough", "asked"):
        (machine.root / "srv" / name).unlink(missing_ok=True)
    scraper = machine.start("python3", "/srv/hammer.py")
    try:
        wait_until(lambda: _asked(machine) > 20, 20, "it asks")
        yield told
        now = _asked(machine)
        wait_until(lambda: _asked(machine) > now + 20, 30, "it goes on asking")
    finally:
        (machine.root / "srv/enough").touch()
        out, err = scraper.communicate(timeout=60)
    assert scraper.returncode == 0, err
    told.update(json.loads(out))


def _asked(machine: Machine) -> int:
    file = machine.root / "srv/asked"
    return int(file.read_text() or 0) if file.exists() else 0
