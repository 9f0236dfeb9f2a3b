"""The Debian package in a booted Debian: installed, used, upgraded, removed, purged, with apt.

The tests run in the order in which they stand here, on one boot: the life of a node.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from e2e.booted import REPOSITORY, UNIT, Machine
from e2e.installed import (
    AS_NOBODY,
    CONFIG,
    DROP_INS,
    PROGRAM,
    SETTINGS,
    SHARE,
    apt,
    booted,
    configure,
    moved,
)
from e2e.packages import EARLIER, build, build_stand_in, copy_checkout, give
from waiting import wait_until
from wattledger import __version__
from wattledger.config import load_config
from wattledger.ledger.migrations import SCRIPTS

LEDGER = "var/lib/private/wattledger/simulated.sqlite"
READABLE = ("rw-r--r--", "rwxr-xr-x")

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, bare_debian: Path, package: Path
) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("package")
    earlier = build(copy_checkout(folder / "earlier", EARLIER), folder / "dist")
    with booted(bare_debian, folder, this=package, earlier=earlier) as node:
        yield node


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
    told = machine.run("systemctl", "is-enabled", "wattledger.socket", check=False).stdout
    assert told == "disabled\n"
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
    configure(machine)
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


def test_and_brings_an_older_ledger_up_to_date(machine: Machine) -> None:
    before = machine.scrape_when(moved)
    machine.run("systemctl", "stop", UNIT)
    with closing(sqlite3.connect(machine.root / LEDGER)) as ledger:
        (newest,) = ledger.execute("PRAGMA user_version").fetchone()
        assert newest == len(SCRIPTS) == 6  # else what is taken back here is not the last step
        ledger.execute("DROP TABLE run_export")
        ledger.execute("PRAGMA user_version = 5")
        ledger.commit()
    apt(machine, "install", "--reinstall", "/srv/this.deb")  # a checkout whose version is the same
    assert machine.show("ActiveState") == "active"
    after = machine.scrape_when(moved)
    after.assert_not_below(before)
    assert before.labels("ledger_info", "epoch") == after.labels("ledger_info", "epoch")
    with closing(sqlite3.connect(machine.root / LEDGER)) as ledger:
        assert ledger.execute("PRAGMA user_version").fetchone() == (newest,)
    assert "The books balance" in machine.run(PROGRAM, "verify").stdout


def test_otlp_is_in_and_everybody_may_read_what_is_installed(machine: Machine) -> None:
    file = machine.root / "srv/otlp.toml"
    file.write_text('[exporters.otlp]\nendpoint = "https://collector.example.org"\n')
    assert machine.run(*AS_NOBODY, PROGRAM, "config", "check", "/srv/otlp.toml").returncode == 0
    listed = machine.run("dpkg-deb", "--contents", "/srv/this.deb").stdout.splitlines()
    assert len(listed) > 1000
    assert [line for line in listed if line[0] == "-" and line[1:10] not in READABLE] == []
    assert [line for line in listed if line[0] == "d" and line[1:10] != "rwxr-xr-x"] == []


# ── the end ───────────────────────────────────────────────────────────────────────────────────────


def test_removed_it_leaves_settings_and_books_and_apt_works(
    machine: Machine, tmp_path: Path
) -> None:
    before = machine.scrape_when(moved)
    for role in ("--node", "--controller"):
        machine.run("sh", "/usr/share/wattledger/slurm/install.sh", role)
    told = apt(machine, "remove", "wattledger")
    # First the lines, and Slurm without them: it drains a node whose prolog is gone.
    assert re.search(r"slurm\.conf.*scontrol reconfigure.*install\.sh --uninstall", told, re.DOTALL)
    assert machine.show("ActiveState") == "inactive"
    left = [path.name for path in (machine.root / "usr/lib/wattledger").iterdir()]
    assert left == ["slurm"]  # which Slurm's installer put there
    assert not (machine.root / "usr/bin/wattledger").is_symlink()
    assert (machine.root / CONFIG).read_text() == SETTINGS
    driver = build_stand_in("nvidia-kernel-dkms", tmp_path)
    (machine.root / "srv/driver.deb").write_bytes(driver.read_bytes())
    apt(machine, "install", "/srv/driver.deb")  # the hook for it is still there
    apt(machine, "install", "/srv/this.deb")
    machine.scrape_when(moved).assert_not_below(before)


def test_purged_it_asks_nothing_and_says_what_stays(machine: Machine) -> None:
    folder = machine.root / DROP_INS[1:]
    folder.mkdir()
    (folder / "mine.conf").write_text("[Service]\nNice=1\n")
    hook = "/etc/systemd/system/nvidia-mig-manager.service.d/wattledger.conf"
    machine.run("install", "-D", "-m", "644", f"{SHARE}/mig-manager.conf", hook)
    told = apt(machine, "purge", "wattledger")
    assert not (machine.root / CONFIG).exists()
    assert not (machine.root / "etc/apt/apt.conf.d/80wattledger").exists()
    assert (machine.root / "var/lib/private/wattledger/simulated.sqlite").exists()
    assert (machine.root / DROP_INS[1:] / "mine.conf").exists()
    # What it says is all there is.
    commands = re.findall(r"^  [^:]+:  (.+)$", told, re.MULTILINE)
    assert len(commands) == 7, told
    assert re.search(r"slurm\.conf and `scontrol reconfigure` was run.*:  rm -rf /etc/slurm", told)
    for command in commands:
        machine.run(*command.split())
    find = ("find", "/etc", "/usr", "/opt", "/var", "/root", "/home", "-name", "*wattledger*")
    assert machine.run(*find).stdout == ""
    assert machine.run("getent", "passwd", "wattledger", check=False).stdout == ""
    machine.run("systemctl", "daemon-reload")
    assert machine.run("systemctl", "is-system-running", check=False).stdout == "running\n"


def test_the_same_checkout_gives_the_same_bytes(
    machine: Machine, checkout: Path, tmp_path: Path
) -> None:
    """To whoever builds it, wherever their temporary files lie."""
    give(checkout, others=True)
    memory = Path("/dev/shm") / tmp_path.name  # a file system whose directories have other sizes
    memory.mkdir()
    try:
        again = build(checkout, tmp_path, umask=0o022, tmpdir=memory)
    finally:
        shutil.rmtree(memory)
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
