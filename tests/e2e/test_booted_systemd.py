"""The unit under a real systemd: a Debian booted in a container, the program installed as a wheel.

The root file system is made by mmdebstrap and booted by systemd-nspawn without a network of its
own; the program is installed from the wheel that the checkout builds, its libraries come from the
tests' own environment. GPUs are simulated, RAPL is a tree of files that only root may read. The
tests run in the order in which they stand here, on one boot.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.booted import DEPLOY, PROGRAM, UNIT, Machine, copied
from sysfs import RaplTree
from waiting import wait_until

CANARY = "s3cr3t-canary-token"
SETTINGS = """
path.sysfs = "/srv/sys"
sampling = { interval = "1s", commit_interval = "1s" }
meters.nvml = { backend = "simulated", scenario = "/etc/wattledger/scenario.toml" }
meters.rapl.enabled = true
site = { pue = PUE }
"""
SCENARIO = """
[[gpu]]
model = "H100 SXM"
count = 2
waveform = { kind = "square", low_w = 100, high_w = 600, period_s = 3 }
"""
# The watchdog of the unit waits for 30 s; a test needs not wait as long.
WATCHDOG_S = 6  # the daemon feeds it each second
QUICK = f"[Service]\nWatchdogSec={WATCHDOG_S}\n"
# Messages of systemd, sd-messages.h.
STOPPING, STOPPED = "de5b426a63be47a7b6ac3eaac82e2f6f", "9d1aaa27d60140bd96365438aad20286"

# Stops one thread of a process and nothing else of it, until the process is killed (ptrace(2)).
HOLD = """
import ctypes, os, sys
SEIZE, INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
libc, thread = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
for request in (SEIZE, INTERRUPT):
    if libc.ptrace(request, thread, None, None):
        sys.exit(os.strerror(ctypes.get_errno()))
while os.WIFSTOPPED(os.waitpid(thread, WALL)[1]):
    print("held", flush=True)
"""

pytestmark = pytest.mark.timeout(1800)  # the first of them makes the Debian


def configure(root: Path, pue: str = "1.25", more: str = "") -> None:
    (root / "etc/wattledger/wattledger.toml").write_text(SETTINGS.replace("PUE", pue) + more)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, debian_root: Path) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("booted")
    root = copied(debian_root, folder / "root")
    (root / f"etc/systemd/system/{UNIT}.d").mkdir()
    (root / f"etc/systemd/system/{UNIT}.d/quick.conf").write_text(QUICK)
    (root / "etc/wattledger/scenario.toml").write_text(SCENARIO)
    configure(root)
    # At its first boot it would make the user, and none would be dynamic.
    (root / "usr/local/lib/sysusers.d/wattledger.conf").rename(root / "srv/sysusers.conf")
    with RaplTree(root / "srv/sys", packages=1) as tree:
        for zone in tree.counted:
            tree.set_mode(zone, 0o400)
        with tree.follow(0.02):
            booted = Machine(root, folder / "boot.log")
            try:
                yield booted
            finally:
                booted.close()


def test_it_starts_and_is_ready(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)  # returns when the daemon has said READY
    assert machine.show("ActiveState") == "active"
    assert machine.show("StatusText").startswith("metering ")
    page = machine.scrape_when(
        lambda page: (
            page.one("meter_up", meter="nvml") == 1
            # energy_uj is root's alone (0400): the ambient capability reads it.
            and page.one("meter_up", meter="rapl") == 1
            and page.labels("device_info", "device") >= {"cpu0", "dram0"}
        )
    )
    assert page.one("pue_ratio", source="config") == 1.25
    # One meter may have had two turns when the other has had one.
    moved = machine.scrape_when(
        lambda now: all(now.sum("energy_joules_total", kind=kind) > 0 for kind in ("cpu", "gpu"))
    )
    moved.assert_not_below(page)


def test_it_is_confined(machine: Machine) -> None:
    pid = machine.show("MainPID")
    status = dict(
        line.split(":", 1) for line in machine.run("cat", f"/proc/{pid}/status").stdout.splitlines()
    )
    assert "0" not in status["Uid"].split()
    dac_read_search = f"{1 << 2:016x}"
    for held in ("CapEff", "CapBnd", "CapAmb", "CapPrm"):
        assert status[held].strip() == dac_read_search, held
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    books = machine.run("stat", "-Lc", "%a", "/var/lib/wattledger").stdout.strip()
    assert books == "700"
    inside = ["nsenter", "-t", pid, "-m", "--"]
    for place in ("/etc/x", "/usr/local/lib/wattledger/x", "/sys/x", "/home/x"):
        assert machine.run(*inside, "touch", place, check=False).returncode != 0, place


def test_users_reach_it_by_its_socket(machine: Machine) -> None:
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    report = json.loads(machine.run(*as_nobody, PROGRAM, "report", "--by", "kind", "--json").stdout)
    assert {row["group"] for row in report["rows"]} >= {"gpu", "cpu"}
    assert int(report["total"]["energy_uj"]) == sum(int(row["energy_uj"]) for row in report["rows"])
    assert machine.run(*as_nobody, "ls", "/var/lib/wattledger/", check=False).returncode != 0


def test_a_killed_daemon_comes_back_with_all_it_had(machine: Machine) -> None:
    before = machine.scrape_when(lambda page: page.one("ledger_commits_total") > 3)
    pid = machine.show("MainPID")
    machine.run("kill", "-KILL", pid)
    wait_until(
        lambda: (
            machine.show("MainPID") not in ("0", pid) and machine.show("ActiveState") == "active"
        ),
        what="a restart",
    )
    machine.scrape().assert_not_below(before)
    after = machine.scrape_when(
        lambda page: page.sum("energy_quality_joules_total", quality="recovered") > 0
    )
    assert after.sum("unobserved_seconds_total") == 0
    assert machine.show("NRestarts") == "1"


def test_the_watchdog_ends_one_that_hangs(machine: Machine) -> None:
    before = machine.scrape()
    pid = machine.show("MainPID")
    machine.run("kill", "-STOP", pid)
    wait_until(
        lambda: machine.show("NRestarts") == "2" and machine.show("ActiveState") == "active",
        what="the watchdog's restart",
    )
    assert "Watchdog timeout" in machine.run("journalctl", "-u", UNIT, "--no-pager").stdout
    assert machine.show("MainPID") != pid
    machine.scrape().assert_not_below(before)
    # One that works is left alone for longer than the watchdog waits.
    time.sleep(WATCHDOG_S + 1)
    assert machine.show("NRestarts") == "2"


def test_the_watchdog_ends_one_whose_sampling_hangs(machine: Machine) -> None:
    """The thread that samples stands still, as in a disk that hangs; all others go on."""
    before = machine.scrape()
    pid = machine.show("MainPID")
    restarts = int(machine.show("NRestarts"))
    holder = machine.start("python3", "-c", HOLD, pid)  # the first thread has the process's number
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        machine.scrape()  # what a watchdog that HTTP feeds would see
        wait_until(lambda: machine.show("NRestarts") == str(restarts + 1), 30, "the watchdog")
    finally:
        holder.kill()
        _, why = holder.communicate(timeout=10)
    assert why == ""
    wait_until(lambda: machine.show("ActiveState") == "active", 15, "ready")
    assert machine.show("MainPID") != pid
    machine.scrape().assert_not_below(before)


def test_reload(machine: Machine) -> None:
    before = machine.scrape()
    pid = machine.show("MainPID")
    configure(machine.root, pue="1.5")
    machine.run("systemctl", "reload", UNIT)
    page = machine.scrape_when(lambda page: page.one("pue_ratio", source="config") == 1.5)
    page.assert_not_below(before)
    configure(machine.root, pue="0.5")
    machine.run("systemctl", "reload", UNIT)
    wait_until(lambda: "site.pue: 0.5 is out of range" in machine.journal(), 10, "it is said")
    assert machine.scrape().one("pue_ratio", source="config") == 1.5
    assert machine.show("MainPID") == pid


def test_a_mistake_in_the_settings_is_said_once(machine: Machine) -> None:
    machine.run("systemctl", "stop", UNIT)
    configure(machine.root, pue="0.5")
    assert machine.run("systemctl", "start", UNIT, check=False).returncode != 0
    time.sleep(3)  # longer than RestartSec
    assert machine.show("ActiveState") == "failed"
    assert machine.show("ExecMainStatus") == "2"
    configure(machine.root)
    machine.run("systemctl", "reset-failed", UNIT)


def test_stopping_takes_less_than_two_seconds_and_keeps_all(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    before = machine.scrape_when(lambda page: page.sum("energy_joules_total", kind="gpu") > 0)
    machine.run("systemctl", "stop", UNIT)
    said = ("journalctl", "--no-pager", "-o", "json", "-n", "1", f"UNIT={UNIT}")
    asked_us, ended_us = (
        int(json.loads(machine.run(*said, f"MESSAGE_ID={which}").stdout)["__MONOTONIC_TIMESTAMP"])
        for which in (STOPPING, STOPPED)
    )
    assert 0 < ended_us - asked_us < 2_000_000
    assert machine.show("Result") == "success"
    machine.run("systemctl", "start", UNIT)
    machine.scrape().assert_not_below(before)


def test_a_token_comes_as_a_credential(machine: Machine) -> None:
    """A local server stands for the provider; the token reaches it and nothing else."""
    token = machine.root / "etc/wattledger/electricity_maps.token"
    token.write_text(CANARY + "\n")
    token.chmod(0o600)
    folder = machine.root / f"etc/systemd/system/{UNIT}.d"
    (folder / "credentials.conf").write_text((DEPLOY / "credentials.conf").read_text())
    provider = (
        "import datetime, http.server, json\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        now = datetime.datetime.now(datetime.timezone.utc)\n"
        "        at = now.replace(minute=0, second=0, microsecond=0).isoformat()\n"
        f"        ok = self.headers['auth-token'] == {CANARY!r}\n"
        "        body = json.dumps({'zone': 'DE', 'carbonIntensity': 321, 'datetime': at,\n"
        "            'updatedAt': at, 'emissionFactorType': 'lifecycle', 'isEstimated': False})\n"
        "        self.send_response(200 if ok else 401)\n"
        "        self.send_header('Content-Length', str(len(body)))\n"
        "        self.end_headers()\n"
        "        self.wfile.write(body.encode())\n"
        "http.server.HTTPServer(('127.0.0.1', 8123), H).serve_forever()\n"
    )
    (machine.root / "srv/provider.py").write_text(provider)
    machine.run("systemd-run", "--unit=provider", "python3", "/srv/provider.py")
    more = (
        '[[grid.source]]\nkind = "electricity_maps"\nzone = "DE"\n'
        'url = "http://127.0.0.1:8123/v3"\ntoken_file = "%d/electricity_maps.token"\n'
    )
    configure(machine.root, more=more)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", UNIT)
    page = machine.scrape_when(lambda page: page.one("grid_fallback_level") == 0, 150)
    assert page.one("grid_carbon_intensity_grams_per_kwh", source="electricity_maps") == 321
    everything = machine.journal() + page.text
    assert CANARY not in everything
    assert CANARY not in machine.run("cat", f"/proc/{machine.show('MainPID')}/environ").stdout


def test_books_of_a_dynamic_user_go_on_under_the_one_that_sysusers_makes(machine: Machine) -> None:
    before = machine.scrape()
    assert machine.run("getent", "passwd", "wattledger", check=False).returncode != 0
    machine.run("systemd-sysusers", "/srv/sysusers.conf")
    machine.run("systemctl", "restart", UNIT)
    machine.scrape().assert_not_below(before)
    uid = machine.run("id", "-u", "wattledger").stdout.strip()
    assert machine.run("stat", "-Lc", "%u %a", "/var/lib/wattledger").stdout == f"{uid} 700\n"


def test_the_journal_holds_no_traceback(machine: Machine) -> None:
    journal = machine.journal()
    assert "keeps the books of this node" in journal
    assert "Traceback" not in journal, journal
    machine.run("systemctl", "stop", UNIT)
