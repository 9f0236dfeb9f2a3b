"""A Debian root with the program installed as an administrator would, booted by systemd-nspawn.

The root is made by mmdebstrap once for all tests (`debian_root` of conftest.py); each module boots
a copy of its own. On a host that is not Debian, or without those programs, the tests are skipped.
"""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from e2e.page import Page
from waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy/systemd"
UNIT = "wattledger.service"
PROGRAM = "/usr/local/bin/wattledger"
PACKAGES = "systemd,systemd-sysv,dbus,python3,procps,util-linux"


class Machine:
    """A booted container; commands run inside of all of its namespaces."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root = root
        self._log_file = log
        self._boot()

    def _boot(self) -> None:
        self._log = self._log_file.open("ab")
        self._nspawn = subprocess.Popen(
            [
                "systemd-nspawn", "--quiet", f"--directory={self.root}", "--register=no",
                "--keep-unit", "--link-journal=no", "--private-network", "--console=pipe", "--boot",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            # Without it, systemd 252 asks for the hierarchy that the host's is not.
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            start_new_session=True,
        )  # fmt: skip
        self.leader = 0
        try:
            self.leader = wait_until(self._find_leader, what="the container's first process")
            wait_until(self._running, 180, f"it boots; see {self._log_file}")
        except BaseException as error:
            if self.leader:
                failed = self.run("systemctl", "list-units", "--failed", "--no-pager", check=False)
                error.add_note(failed.stdout)
            self._kill()
            self._log.close()
            raise

    def _find_leader(self) -> int:
        """The container's PID 1; nspawn's first child only prepares its namespaces, and ends."""
        assert self._nspawn.poll() is None, "systemd-nspawn has ended"
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        for child in children.read_text().split():
            with suppress(OSError):
                status = Path(f"/proc/{child}/status").read_text()
                (in_namespaces,) = re.findall(r"^NSpid:(.*)$", status, re.MULTILINE)
                if in_namespaces.split()[1:] == ["1"]:
                    return int(child)
        return 0

    def _running(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() == "running"

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        started = self.start(*command)
        try:
            out, err = started.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            started.kill()
            started.communicate()
            raise
        assert not check or started.returncode == 0, f"{command}: {out}{err}"
        return subprocess.CompletedProcess(command, started.returncode, out, err)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """The same, without waiting for its end."""
        return subprocess.Popen(
            ["nsenter", "-t", str(self.leader), "-m", "-p", "-u", "-n", "-i", "-C", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )

    def show(self, name: str) -> str:
        return self.run("systemctl", "show", UNIT, f"--property={name}", "--value").stdout.strip()

    def journal(self) -> str:
        return self.run("journalctl", "-u", UNIT, "--no-pager", "-o", "cat").stdout

    def scrape(self) -> Page:
        """The page as a scrape from inside of the container gets it."""
        fetch = (
            "import sys, urllib.request as r;"
            "page = r.urlopen('http://127.0.0.1:19400/metrics', timeout=30).read();"
            "sys.stdout.write(page.decode())"
        )
        return Page(self.run("python3", "-c", fetch).stdout)

    def scrape_when(self, condition: Callable[[Page], bool], timeout_s: float = 60) -> Page:
        pages: list[Page] = []

        def fulfilled() -> bool:
            pages[:] = [self.scrape()]
            return condition(pages[0])

        wait_until(fulfilled, timeout_s, "the page shows it")
        return pages[0]

    def reboot(self) -> None:
        """Off and on again: nothing is left in /run, and all that is enabled is started."""
        self.close()
        self._boot()

    def close(self) -> None:
        try:
            self.run("systemctl", "poweroff", check=False)
            self._nspawn.wait(60)
        except subprocess.TimeoutExpired:
            self._kill()
        finally:
            self._log.close()

    def _kill(self) -> None:
        if self.leader:
            os.kill(self.leader, signal.SIGKILL)
        self._nspawn.kill()
        self._nspawn.wait(10)


def make_root(root: Path, *more: str) -> None:
    """A minimal Debian of the host's release with more packages, from the host's own mirror."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
    )
    mirrors = [
        line.split()[0] for line in targets.stdout.splitlines() if line.endswith(f" {release}")
    ]
    made = subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join((PACKAGES, *more))}",
         release, str(root), *mirrors[:1]],  # without one mmdebstrap takes its own default
        capture_output=True,
        text=True,
        timeout=900,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr


def install(root: Path) -> None:
    """`make install` into the root, with no settings yet."""
    made = subprocess.run(
        ["make", "--silent", "install", f"DESTDIR={root}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert made.returncode == 0, made.stderr
    (root / "etc/wattledger/wattledger.toml").unlink()  # each test writes its own


def copied(root: Path, to: Path) -> Path:
    """A root of one's own."""
    subprocess.run(["cp", "--archive", "--reflink=auto", str(root), str(to)], check=True)
    return to
