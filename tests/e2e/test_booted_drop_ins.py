"""What the package brings besides: drop-ins, systemd's sockets, and hooks that let the GPUs go.

The tests run in the order in which they stand here, on one machine, which is booted twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.booted import UNIT, Machine
from e2e.installed import (
    AS_NOBODY,
    CONFIG,
    PROGRAM,
    RELEASE,
    SETTINGS,
    SHARE,
    apt,
    booted,
    configure,
    drop_in,
    hammering,
    moved,
    take_away,
)
from e2e.packages import build_stand_in
from waiting import wait_until

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory,
    bare_debian: Path,
    package: Path,
) -> Iterator[Machine]:
    with booted(bare_debian, tmp_path_factory.mktemp("drop-ins"), this=package) as node:
        apt(node, "install", "/srv/this.deb")
        configure(node)
        node.scrape_when(moved)
        yield node


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


def test_an_address_may_be_named_before_the_network_has_it(machine: Machine) -> None:
    folder = machine.root / "etc/systemd/system/wattledger.socket.d"
    folder.mkdir()
    (folder / "address.conf").write_text("[Socket]\nListenStream=192.0.2.7:19400\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "stop", "wattledger.socket", UNIT)
    machine.run("systemctl", "start", UNIT)
    assert machine.run("systemctl", "is-active", "wattledger.socket").stdout == "active\n"
    machine.scrape()
    (folder / "address.conf").unlink()
    folder.rmdir()
    machine.run("systemctl", "daemon-reload")


def test_with_the_socket_unit_closed_under_it_it_is_found_all_the_same(machine: Machine) -> None:
    """As systemd closes it after a crash loop, sometimes just when the daemon comes up again."""
    machine.run("systemctl", "stop", "wattledger.socket")
    assert machine.show("ActiveState") == "active"
    machine.scrape()
    machine.run(*AS_NOBODY, PROGRAM, "report")
    machine.run("systemctl", "restart", UNIT)
    assert machine.run("systemctl", "is-active", "wattledger.socket").stdout == "active\n"


def test_stopped_with_its_socket_it_stays_stopped(machine: Machine) -> None:
    machine.run("systemctl", "stop", "wattledger.socket", UNIT)
    refused = machine.run(*AS_NOBODY, PROGRAM, "release", "--end", check=False)
    assert (refused.returncode, "no running daemon" in refused.stderr) == (1, True)
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
        # A package that restarts the daemon meanwhile, as this one's upgrade does, ends no release.
        restart = "" if expected else f"systemctl restart {UNIT}; "
        stand_in = build_stand_in(name, tmp_path, f"{restart}python3 /srv/look.py || true")
        stand_in.rename(machine.root / f"srv/{name}.deb")
        apt(machine, "install", f"/srv/{name}.deb")
        assert held_meanwhile(machine) == expected, name
        takes_up(machine)


def test_a_release_can_be_ended_while_the_daemon_is_down(machine: Machine) -> None:
    machine.run(RELEASE, "begin", "30m")
    machine.scrape_when(lambda page: page.one("meter_up", meter="nvml") == 0)
    machine.run("systemctl", "restart", UNIT)
    assert machine.scrape().one("meter_up", meter="nvml") == 0
    machine.run("systemctl", "stop", UNIT)
    machine.run(RELEASE, "end")
    machine.run("systemctl", "start", UNIT)
    takes_up(machine)


def test_no_hook_is_in_the_way_of_what_it_serves(machine: Machine) -> None:
    machine.run("systemctl", "stop", UNIT)
    for words in (("begin",), ("end",), ("apt-done",), ("nonsense",)):
        machine.run(RELEASE, *words)  # asserts that it ends with 0
    machine.run("systemctl", "start", "nvidia-mig-manager.service")
    machine.run("systemctl", "start", UNIT)


def test_at_boot_it_waits_for_the_migs_manager_which_does_not_wait_for_it(
    machine: Machine,
) -> None:
    """Although systemd holds the socket on which the manager's hook would ask."""
    manager = "nvidia-mig-manager.service"
    drop_in(machine, "socket-activation.conf")
    (machine.root / f"etc/systemd/system/{manager}").write_text(
        "[Unit]\nAfter=wattledger.socket sockets.target\n"
        "[Service]\nType=oneshot\n"
        # It takes a while: a daemon that does not wait would be up before the end of it.
        "ExecStart=/bin/sh -c 'sleep 2; "
        f"systemctl is-active wattledger.socket {UNIT} >/srv/states; true'\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", manager)
    machine.run("systemctl", "restart", UNIT)
    machine.reboot()
    assert (machine.root / "srv/states").read_text() == "active\ninactive\n"

    def instant_us(unit: str, name: str) -> int:
        """Of this boot; 0: it has not come."""
        name = f"{name}TimestampMonotonic"
        return int(machine.run("systemctl", "show", unit, f"--property={name}", "--value").stdout)

    assert 0 < instant_us(manager, "ExecMainExit") <= instant_us(UNIT, "ExecMainStart")
    said = machine.run("journalctl", "-u", manager, "--no-pager", "-o", "cat").stdout
    assert "wattledger.service does not run" in said
    takes_up(machine)
    machine.run("systemctl", "disable", manager)
    machine.run("systemctl", "stop", "wattledger.socket", UNIT)
    take_away(machine, "socket-activation.conf")
    machine.run("systemctl", "start", UNIT)
