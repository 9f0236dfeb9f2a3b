"""The hooks that let the GPUs go: what they ask for, when, and that they are in nobody's way."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
HOOK = DEPLOY / "systemd/wattledger-release"
PROGRAM = "/usr/lib/wattledger/bin/wattledger"
SCRIPTS = [
    file
    for file in sorted(DEPLOY.rglob("*"))
    if file.is_file() and file.read_bytes().startswith(b"#!/bin/sh\n")
]
# What apt writes for `DPkg::Pre-Install-Pkgs` in version 3 (apt.conf(5)).
HEAD = "VERSION 3\nAPT::Architecture=amd64\nDir::Log=var/log/nvidia-lists\n\n"


class Node:
    """The hook beside a program that writes down how it is called."""

    def __init__(self, home: Path) -> None:
        self.asked_file, self.owed = home / "asked", home / "end"
        program, self.hook = home / "wattledger", home / "hook"
        program.write_text(f'#!/bin/sh\necho "$*" >>{self.asked_file}\nexec 2>&1\n{self.body}\n')
        program.chmod(0o755)
        text = HOOK.read_text()
        assert text.count(f"{PROGRAM} release") == 1
        text = text.replace(PROGRAM, str(program))
        assert text.count("=/run/wattledger-release.") == 2
        self.hook.write_text(text.replace("=/run/wattledger-release.", f"={home}/"))
        self.socket = home / "s"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self.environment = {
            "PATH": os.environ["PATH"],
            "WATTLEDGER_SOCKET": str(self.socket),
        }

    body = "exit 0"

    def run(self, *words: str, given: str = "") -> str:
        """Its output; it must end with 0, and read all that it is given."""
        done = subprocess.run(
            ["sh", str(self.hook), *words],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            env=self.environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def asked(self) -> list[str]:
        """How the program was called since the last time."""
        if not self.asked_file.exists():
            return []
        lines = self.asked_file.read_text().splitlines()
        self.asked_file.unlink()
        return [line.replace(f" --socket {self.socket}", "") for line in lines]

    def close(self) -> None:
        self._listener.close()


class RefusingNode(Node):
    body = "echo 'wattledger: a driver call has not returned'; exit 1"


@pytest.fixture(params=[Node, RefusingNode])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="wl") as folder:  # a short path, for the socket
        made = request.param(Path(folder))
        yield made
        made.close()


def test_begin_and_end(node: Node) -> None:
    node.run("begin")
    node.run("begin", "45m")
    node.run("end")
    assert node.asked() == ["release --for 15m", "release --for 45m", "release --end"]


@pytest.mark.parametrize(
    "line",
    [
        "nvidia-kernel-dkms 535.1 amd64 none < 550.1 amd64 none /var/cache/x.deb",
        "libnvidia-compute-550:amd64 550.1 amd64 same > - - none **REMOVE**",
        "linux-modules-nvidia-550-open-6.8.0-1-generic - - none < 1 amd64 none **CONFIGURE**",
        "firmware-nvidia-gsp - - none < 535.1 amd64 none /x.deb",
        "libcuda1 535.1 amd64 same < 550.1 amd64 same /x.deb",
        "cuda-drivers - - none < 550 amd64 none /x.deb",
    ],
)
def test_apt_and_the_driver(node: Node, line: str) -> None:
    other = "bash 5.2 amd64 none < 5.3 amd64 none /var/cache/bash.deb\n"
    node.run("apt", given=HEAD + other + line + "\n")
    assert node.asked() == ["release --for 30m"]
    node.run("apt-done")
    assert node.asked() == ["release --end"]
    node.run("apt-done")  # the next run of apt, which is not ours
    assert node.asked() == []


def test_apt_and_all_else(node: Node) -> None:
    lines = "".join(
        f"{name} 1 amd64 none < 2 amd64 none /var/cache/{name}.deb\n"
        for name in ("bash", "xnvidia", "libcudart12", "python3-nvidia-ml-py")
    )
    # More than a pipe holds: who stops reading breaks apt's.
    node.run("apt", given=HEAD + lines * 3000)
    node.run("apt", given="")
    node.run("apt-done")
    assert node.asked() == []


def test_why_it_could_not_is_said(node: Node) -> None:
    told = node.run("begin")
    assert ("has not returned" in told) is isinstance(node, RefusingNode)


class BootedNode(Node):
    """A node that systemd has booted, and on which nothing names the socket.

    Attributes:
        body: a daemon that answers on a socket that is named, unless `refusal` says otherwise.
    """

    body = """case $* in *--socket*)
        if [ -e ${0%/*}/refusal ]; then cat ${0%/*}/refusal; exit 1; fi
        if [ -e ${0%/*}/hangs ]; then exit 124; fi ;;  # what timeout(1) says then
    esac"""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.settings, self._told = home / "wattledger.toml", home / "told"
        self.refusal = home / "refusal"
        text = self.hook.read_text()
        for theirs, ours in (
            ("/run/systemd/system", str(home)),
            ("/run/wattledger/wattledger.sock", str(self.socket)),
            ("/etc/wattledger/wattledger.toml", str(self.settings)),
            ("PATH=/usr/sbin:", f"PATH={home}:/usr/sbin:"),
        ):
            assert text.count(theirs) == 1, theirs
            text = text.replace(theirs, ours)
        self.hook.write_text(text)
        systemctl = home / "systemctl"
        systemctl.write_text(
            f"#!/bin/sh\nhead -n 1 {self._told}\n"
            f"[ $(wc -l <{self._told}) = 1 ] || sed -i 1d {self._told}\nexit 3\n"
        )
        sleep = home / "sleep"
        sleep.write_text("#!/bin/sh\n")
        for stub in (systemctl, sleep):
            stub.chmod(0o755)
        self.environment = {"PATH": os.environ["PATH"]}
        self.be("active")

    def be(self, *states: str) -> None:
        """The service's states, as `systemctl is-active` tells them; the last one lasts."""
        self._told.write_text("".join(f"{state}\n" for state in states))


@pytest.fixture
def booted() -> Iterator[BootedNode]:
    with tempfile.TemporaryDirectory(prefix="wl") as folder:
        made = BootedNode(Path(folder))
        yield made
        made.close()


@pytest.mark.parametrize("state", ["active", "reloading", "activating", ""])
def test_a_service_that_runs_is_asked(booted: BootedNode, state: str) -> None:
    """Nothing is known of it where systemctl does not answer: then it is asked, too."""
    booted.be(state)
    booted.run("begin")
    assert booted.asked() == ["release --for 15m"]


@pytest.mark.parametrize("state", ["inactive", "failed", "deactivating"])
def test_where_the_service_does_not_run_nobody_waits_for_it(booted: BootedNode, state: str) -> None:
    """systemd holds the socket already; the daemon starts after the very unit that asks."""
    booted.be(state)
    for words in (["begin"], ["end"]):
        assert "wattledger.service does not run" in booted.run(*words)
    assert booted.asked() == []


def test_a_service_that_is_about_to_end_is_waited_for(booted: BootedNode) -> None:
    """Until then it holds the GPUs, and a restart goes on from there."""
    booted.be("deactivating", "deactivating", "inactive")
    assert "does not run" in booted.run("begin")
    booted.be("deactivating", "deactivating", "activating")
    booted.run("begin")
    assert booted.asked() == ["release --for 15m"]


def test_an_end_that_nobody_heard_holds_when_the_service_starts(booted: BootedNode) -> None:
    booted.run("begin")
    booted.be("failed")
    booted.run("end")
    assert booted.owed.exists()
    booted.be("activating")  # its ExecStartPost=
    booted.run("started")
    assert booted.asked() == ["release --for 15m", "release --end"]
    assert not booted.owed.exists()
    booted.run("started")  # another start, behind which nobody waits
    assert booted.asked() == []


@pytest.mark.parametrize("words", [["begin"], ["apt"]])
def test_an_end_that_nobody_heard_ends_no_later_release(
    booted: BootedNode, words: list[str]
) -> None:
    booted.be("inactive")
    booted.run("end")
    assert booted.owed.exists()
    booted.run(*words, given=HEAD + "libcuda1 535.1 amd64 same < 550.1 amd64 same /x.deb\n")
    booted.be("activating")
    booted.run("started")
    assert booted.asked() == []


def test_an_end_that_was_heard_is_owed_no_more(booted: BootedNode) -> None:
    booted.run("end")
    assert not booted.owed.exists()

    booted.refusal.write_text("wattledger: You are uid 7.\n")
    assert "uid 7" in booted.run("end")
    assert booted.asked() == ["release --end"] * 2  # on that socket, and on no other
    assert not booted.owed.exists()  # or it would end a later release that is not the hooks'


def test_an_end_that_a_hung_daemon_was_asked_for_holds_when_the_service_starts(
    booted: BootedNode,
) -> None:
    (booted.socket.parent / "hangs").touch()
    booted.run("end")
    assert booted.owed.exists()


def test_of_a_daemon_of_ones_own_the_service_is_owed_nothing(node: Node) -> None:
    node.run("end")
    assert not node.owed.exists()


@pytest.mark.parametrize("settings", [True, False])
def test_a_socket_that_was_left_behind_hides_no_daemon(booted: BootedNode, settings: bool) -> None:
    """systemd's stays after `systemctl stop wattledger.socket` (RemoveOnStop=no)."""
    booted.refusal.write_text("wattledger: no running daemon found (s: Connection refused)\n")
    if settings:
        booted.settings.touch()
    told = booted.run("begin")
    other = f" --config {booted.settings}" if settings else ""
    assert booted.asked() == ["release --for 15m", f"release --for 15m{other}"]
    assert "no running daemon" not in told


def test_a_daemon_with_another_socket_is_found_by_its_settings(booted: BootedNode) -> None:
    booted.socket.unlink()
    booted.settings.touch()
    booted.run("end")
    assert booted.asked() == [f"release --end --config {booted.settings}"]


def test_without_a_daemon_the_command_says_so(booted: BootedNode) -> None:
    booted.socket.unlink()
    booted.run("begin")
    assert booted.asked() == ["release --for 15m"]


def test_what_it_does_not_know_is_no_failure(node: Node) -> None:
    assert "usage:" in node.run("bigin")
    assert "usage:" in node.run()
    assert node.asked() == []


def test_the_hooks_of_mig_parted() -> None:
    """Its format: for each stage a list of commands with arguments and a directory."""
    hooks = yaml.safe_load((DEPLOY / "systemd/mig-parted-hooks.yaml").read_text())
    assert hooks["version"] == "v1"
    calls = {
        stage: [(step["command"], *step["args"], step["workdir"]) for step in steps]
        for stage, steps in hooks["hooks"].items()
    }
    hook = f"{PROGRAM}-release"
    assert calls == {
        "pre-apply-mode": [(hook, "begin", "/")],
        "pre-apply-config": [(hook, "begin", "/")],
        "apply-exit": [(hook, "end", "/")],
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_read_by_sh(script: Path) -> None:
    done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
