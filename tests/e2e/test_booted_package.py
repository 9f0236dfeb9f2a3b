"""The Debian package in a booted Debian: installed, used, upgraded, removed, purged, with apt.

The tests run in the order in which they stand here, on one boot: the life of a node. GPUs are
simulated, RAPL is a tree of files that only root may read.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.booted import REPOSITORY, UNIT, Machine, copied
from e2e.packages import EARLIER, build, build_stand_in, copy_checkout
from e2e.page import Page
from sysfs import RaplTree
from waiting import wait_until
from wattledger import __version__
from wattledger.config import load_config

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

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: where this one is edited meanwhile, two packages of it differ."""
    return copy_checkout(tmp_path_factory.mktemp("this") / "checkout")


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory,
    bare_debian: Path,
    checkout: Path,
    need: Callable[..., None],
) -> Iterator[Machine]:
    need("dpkg-deb", "make")
    folder = tmp_path_factory.mktemp("package")
    root = copied(bare_debian, folder / "root")
    earlier = copy_checkout(folder / "earlier", EARLIER)
    build(earlier, folder / "dist").rename(root / "srv/earlier.deb")
    build(checkout, folder / "dist").rename(root / "srv/this.deb")
    (root / "srv/hammer.py").write_text(HAMMER)
    with RaplTree(root / "srv/sys", packages=1) as tree:
        for zone in tree.counted:
            tree.set_mode(zone, 0o400)
        with tree.follow(0.02):
            booted = Machine(root, folder / "boot.log")
            try:
                yield booted
            finally:
                booted.close()


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
    return all(page.sum("energy_joules_total", kind=kind) > 0 for kind in ("cpu", "gpu"))


def test_otlp_is_in_unless_told_otherwise(need: Callable[..., None]) -> None:
    """What `make install` and `make deb` hand to deploy/install.sh."""
    need("make")

    def handed(*given: str) -> str:
        return subprocess.run(
            ["make", "--silent", "--eval", 'shown:;@echo "$$EXTRAS"', "shown", *given],
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout

    assert handed() == "otlp\n"
    assert handed("EXTRAS=otlp,parquet") == "otlp,parquet\n"
    assert handed("EXTRAS=") == "\n"


def test_installed_it_is_enabled_and_runs_with_the_settings_it_brings(machine: Machine) -> None:
    apt(machine, "install", "/srv/earlier.deb")
    assert machine.show("ActiveState") == "active"
    assert machine.run("systemctl", "is-enabled", UNIT).stdout == "enabled\n"
    assert machine.run("systemctl", "is-enabled", "wattledger.socket", check=False).stdout in (
        "disabled\n"
    )
    load_config(machine.root / CONFIG)
    assert machine.run(PROGRAM, "--version").stdout == f"wattledger {EARLIER}\n"
    assert machine.run("dpkg", "--verify", "wattledger").stdout == ""
    machine.scrape()


def test_it_belongs_to_its_user_and_the_group_that_sees_all_jobs(machine: Machine) -> None:
    uid = machine.run("id", "-u", "wattledger").stdout.strip()
    status = machine.run("cat", f"/proc/{machine.show('MainPID')}/status").stdout
    assert f"\nUid:\t{uid}\t" in status
    assert machine.run("getent", "group", "wattledger").returncode == 0
    assert machine.run("stat", "-Lc", "%u %a", "/var/lib/wattledger").stdout == f"{uid} 700\n"


def test_with_settings_of_ones_own(machine: Machine) -> None:
    (machine.root / "etc/wattledger/scenario.toml").write_text(SCENARIO)
    (machine.root / CONFIG).write_text(SETTINGS)
    machine.run("systemctl", "restart", UNIT)
    page = machine.scrape_when(moved)
    assert page.one("meter_up", meter="rapl") == 1  # by the capability


def test_anybody_asks_the_doctor(machine: Machine) -> None:
    told = machine.run(*AS_NOBODY, PROGRAM, "doctor", "--json", check=False)
    assert told.stderr == ""
    findings = json.loads(told.stdout)
    assert findings[0]["area"] == "daemon" and f"version {EARLIER} runs" in findings[0]["message"]
    # The daemon is asked, which alone can read this RAPL.
    [cpu] = [one for one in findings if one["message"].startswith("cpu0")]
    assert (cpu["level"], "by its energy counter" in cpu["message"]) == ("ok", True), findings


def test_killed_it_comes_back_with_all_it_had(machine: Machine) -> None:
    before = machine.scrape()
    pid = machine.show("MainPID")
    machine.run("kill", "-KILL", pid)
    wait_until(lambda: machine.show("MainPID") not in ("0", pid), 15, "a restart")
    wait_until(lambda: machine.show("ActiveState") == "active", 15, "ready")
    machine.scrape().assert_not_below(before)


def test_an_upgrade_restarts_it_and_keeps_settings_and_books(machine: Machine) -> None:
    before = machine.scrape_when(moved)
    assert before.all("build_info", version=EARLIER)
    pid = machine.show("MainPID")
    told = apt(machine, "install", "/srv/this.deb")
    assert f"Unpacking wattledger ({__version__})" in told
    assert machine.show("ActiveState") == "active"
    assert machine.show("MainPID") != pid
    after = machine.scrape_when(lambda page: bool(page.all("build_info", version=__version__)))
    after.assert_not_below(before)
    epochs = [page.labels("ledger_info", "epoch") for page in (before, after)]
    assert epochs[0] == epochs[1]
    assert (machine.root / CONFIG).read_text() == SETTINGS
    assert machine.run("systemctl", "is-enabled", UNIT).stdout == "enabled\n"


# ── drop-ins ──────────────────────────────────────────────────────────────────────────────────────


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


def test_without_socket_activation_a_restart_refuses_scrapes(machine: Machine) -> None:
    """So the next test can fail."""
    with hammering(machine) as told:
        machine.run("systemctl", "restart", UNIT)
    assert told["tcp ConnectionRefusedError"] > 0, told


def test_with_it_a_restart_loses_no_scrape(machine: Machine) -> None:
    before = machine.scrape()
    drop_in(machine, "socket-activation.conf")
    machine.run("systemctl", "restart", UNIT)
    assert "systemd listens on http://127.0.0.1:19400" in machine.journal()
    with hammering(machine) as told:
        for _ in range(3):
            machine.run("systemctl", "restart", UNIT)
        machine.run("kill", "-KILL", machine.show("MainPID"))  # may cost those in hand
        wait_until(lambda: machine.show("NRestarts") == "1", 15, "a restart")
        wait_until(lambda: machine.show("ActiveState") == "active", 15, "ready")
    lost = {what: count for what, count in told.items() if "200 True" not in what}
    # One at the most on each socket was in the hands of the daemon that was killed.
    assert sum(lost.values()) <= 2 and "ConnectionRefusedError" not in str(lost), told
    assert all(told[f"{kind} 200 True"] > 20 for kind in ("tcp", "unix")), told
    report = json.loads(machine.run(*AS_NOBODY, PROGRAM, "report", "--json").stdout)
    assert int(report["total"]["energy_uj"]) > 0
    machine.scrape().assert_not_below(before)


def test_stopped_with_its_socket_it_stays_stopped(machine: Machine) -> None:
    machine.run("systemctl", "stop", "wattledger.socket", UNIT)
    assert not (machine.root / "run/wattledger/wattledger.sock").exists()
    assert machine.show("ActiveState") == "inactive"
    take_away(machine, "socket-activation.conf")
    machine.run("systemctl", "start", UNIT)  # without it the daemon listens by itself again
    machine.scrape()
    machine.run(*AS_NOBODY, PROGRAM, "report")


def test_a_quiet_node(machine: Machine) -> None:
    drop_in(machine, "quiet.conf")
    quiet = (machine.root / "usr/share/wattledger/quiet.toml").read_text()
    ours = "\n".join(line for line in SETTINGS.splitlines() if "sampling" not in line)
    (machine.root / CONFIG).write_text(ours + "\n" + quiet)
    machine.run("systemctl", "restart", UNIT)
    status = machine.run("cat", f"/proc/{machine.show('MainPID')}/status").stdout
    assert "\nCpus_allowed_list:\t0\n" in status
    assert machine.run("ps", "-o", "ni=", machine.show("MainPID")).stdout.strip() == "19"
    settings = machine.run(PROGRAM, "config", "show", "--config", f"/{CONFIG}").stdout
    assert 'interval = "10s"' in settings and 'commit_interval = "1m"' in settings
    machine.scrape()
    take_away(machine, "quiet.conf")
    (machine.root / CONFIG).write_text(SETTINGS)
    machine.run("systemctl", "restart", UNIT)


# ── hooks that let the GPUs go ────────────────────────────────────────────────────────────────────

# Writes down whether the daemon holds the GPUs, in the middle of what a hook stands around.
LOOK = (
    "import urllib.request as r;"
    "lines = r.urlopen('http://127.0.0.1:19400/metrics', timeout=5).read().decode().splitlines();"
    "open('/srv/held', 'w').write("
    "next(l for l in lines if 'meter_up' in l and 'nvml' in l).split()[-1])"
)


def held_meanwhile(machine: Machine) -> float:
    file = machine.root / "srv/held"
    held = float(file.read_text())
    file.unlink()
    return held


def takes_up(machine: Machine) -> None:
    machine.scrape_when(lambda page: page.one("meter_up", meter="nvml") == 1)


def test_the_gpus_are_let_go_while_migs_layout_changes(machine: Machine) -> None:
    (machine.root / "srv/look.py").write_text(LOOK)
    takes_up(machine)
    folder = machine.root / "etc/systemd/system"
    (folder / "nvidia-mig-manager.service").write_text(
        "[Service]\nType=oneshot\nExecStart=-/usr/bin/python3 /srv/look.py\n"
    )
    (folder / "nvidia-mig-manager.service.d").mkdir()
    hook = machine.root / SHARE[1:] / "mig-manager.conf"
    (folder / "nvidia-mig-manager.service.d/wattledger.conf").write_text(hook.read_text())
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "nvidia-mig-manager.service")
    assert held_meanwhile(machine) == 0
    takes_up(machine)


def test_and_while_apt_exchanges_the_driver_and_for_nothing_else(
    machine: Machine, tmp_path: Path
) -> None:
    for name, expected in (("nvidia-kernel-dkms", 0), ("nvtop", 1)):
        stand_in = build_stand_in(name, tmp_path, "python3 /srv/look.py || true")
        stand_in.rename(machine.root / f"srv/{name}.deb")
        apt(machine, "install", f"/srv/{name}.deb")
        assert held_meanwhile(machine) == expected, name
        takes_up(machine)


def test_no_hook_is_in_the_way_of_what_it_serves(machine: Machine) -> None:
    machine.run("systemctl", "stop", UNIT)
    for words in (("begin",), ("end",), ("apt-done",), ("nonsense",)):
        machine.run(RELEASE, *words)  # asserts that it ends with 0
    machine.run("systemctl", "start", "nvidia-mig-manager.service")
    machine.run("systemctl", "start", UNIT)


# ── the end ───────────────────────────────────────────────────────────────────────────────────────


def test_removed_it_leaves_settings_and_books_and_apt_works(machine: Machine) -> None:
    before = machine.scrape_when(moved)
    apt(machine, "remove", "wattledger")
    assert machine.show("ActiveState") == "inactive"
    assert not (machine.root / "usr/lib/wattledger").exists()
    assert not (machine.root / "usr/bin/wattledger").is_symlink()
    assert (machine.root / CONFIG).read_text() == SETTINGS
    apt(machine, "install", "--reinstall", "/srv/nvidia-kernel-dkms.deb")  # its hook is still there
    apt(machine, "install", "/srv/this.deb")
    machine.scrape_when(moved).assert_not_below(before)


def test_purged_it_asks_nothing_and_says_what_stays(machine: Machine) -> None:
    folder = machine.root / DROP_INS[1:]
    folder.mkdir(exist_ok=True)
    (folder / "mine.conf").write_text("[Service]\nNice=1\n")
    told = apt(machine, "purge", "wattledger")
    assert "rm -rf /var/lib/private/wattledger /var/lib/wattledger" in told
    assert "rm -rf /etc/wattledger" in told  # the scenario is not the package's
    assert not (machine.root / CONFIG).exists()
    assert not (machine.root / "etc/apt/apt.conf.d/80wattledger").exists()
    assert (machine.root / "var/lib/private/wattledger/simulated.sqlite").exists()
    left = machine.run("find", "/etc/systemd/system", "-name", "wattledger*.*").stdout.split()
    ours = [path for path in left if "nvidia" not in path]
    assert ours == [DROP_INS]  # the administrator's; no link of ours
    assert f"rm -rf {DROP_INS}" in told
    assert machine.run("systemctl", "is-system-running", check=False).stdout == "running\n"


def test_the_same_checkout_gives_the_same_bytes(
    machine: Machine, checkout: Path, tmp_path: Path
) -> None:
    again = build(checkout, tmp_path)
    assert again.read_bytes() == (machine.root / "srv/this.deb").read_bytes()


def test_nothing_of_the_building_machine_is_in_it(
    machine: Machine, checkout: Path, tmp_path: Path
) -> None:
    subprocess.run(
        ["dpkg-deb", "--extract", str(machine.root / "srv/this.deb"), str(tmp_path)], check=True
    )
    names = [b"/tmp/tmp.", str(checkout).encode()]
    found: list[Any] = [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and not path.is_symlink()
        if any(name in path.read_bytes() for name in names)
    ]
    assert not found
