"""What the documents tell an administrator to type, typed: on a booted Debian, as root, in order.

Each document is followed from its first line to its last, and what is printed is held against what
the document shows. deploy/README.md begins on a Debian that has no wattledger yet; the others share
one that begins where its second step ends. The hardware is a scenario's.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from documents import ROOT, Block, Command, blocks, chosen, commands, fits
from e2e.booted import Machine, copied, make_root
from e2e.checkouts import run, working_copy
from e2e.conftest import lacking
from e2e.grafana_pages import bundle
from e2e.grafana_pictures import hash_of, pictured
from e2e.packages import copy_checkout
from waiting import wait_until

PAGE = "deploy/README.md"
NODE = ("console node", "sh node")
DESK = ("console desk", "sh desk")
INSTALLED = ("console installed", "sh installed")
CHECKOUT = "/root/wattledger"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 150
"""How long a document may wait for what it shows: two evaluations of rules, and a busy machine."""
ASKS = ("curl ", "promtool query ", "wattledger doctor", "wattledger report", "wattledger jobs",
        "wattledger job ", "wattledger top ", "systemctl is-active ")  # fmt: skip
"""Commands that only ask; they are asked again until they answer what is shown."""
SCONTROL = """#!/bin/sh
case "$*" in
    reconfigure) cp /etc/slurm/slurm.conf /var/lib/slurm.in-force ;;
    "show config") cat /var/lib/slurm.in-force ;;
    *) exit 1 ;;
esac
"""
"""Of Slurm no more than this: it runs what slurm.conf was when it was last told to read it."""
JOB = """
set -e
job=/sys/fs/cgroup/system.slice/slurmstepd.scope/job_4711
mkdir -p $job
(echo $BASHPID >$job/cgroup.procs; exec sleep infinity) >/dev/null 2>&1 &
"""

pytestmark = pytest.mark.timeout(900)


def followed(*kinds: str) -> list[str]:
    """The documents with commands of these kinds."""
    return sorted({block.document for block in chosen(*kinds)})


@pytest.fixture(scope="module")
def node_root(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None], as_root: None
) -> Path:
    """A Debian with what the page has apt install, a checkout, and the package in it."""
    need("systemd-nspawn", "mmdebstrap", "nsenter", "make", "dpkg-deb")
    if not Path("/etc/debian_version").exists():
        lacking("the container's Debian is made from the host's")
    folder = tmp_path_factory.mktemp("documents")
    wanted = {
        word
        for block in chosen(*NODE)
        for command in commands(block)
        if command.typed.startswith("apt-get install") and "./dist/" not in command.typed
        for word in command.typed.split()[2:]
        if not word.startswith("-")
    }
    root = folder / "root"
    make_root(root, *wanted)
    checkout = copy_checkout(folder / "wattledger")
    made = subprocess.run(
        ["make", "--silent", "deb"], cwd=checkout, capture_output=True, text=True, timeout=300
    )
    assert made.returncode == 0, made.stderr
    shutil.copytree(checkout, root / CHECKOUT.lstrip("/"), symlinks=True)
    prepare(root)
    return root


def prepare(root: Path) -> None:
    """What Debian's installer writes, and the files that a document takes for granted."""
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 gpu01\n::1 localhost\n")
    (root / "etc/hostname").write_text("gpu01\n")
    (root / "etc/slurm").mkdir(exist_ok=True)
    for file in ("etc/slurm/slurm.conf", "var/lib/slurm.in-force"):
        (root / file).write_text(chosen("conf slurm")[0].text)
    scontrol = root / "usr/local/sbin/scontrol"
    scontrol.write_text(SCONTROL)
    scontrol.chmod(0o755)
    checkout = root / CHECKOUT.lstrip("/")
    checkout.mkdir(parents=True, exist_ok=True)
    (checkout / "mine.toml").write_text(chosen("toml estimate")[0].text)


@pytest.fixture
def booted(tmp_path: Path) -> Iterator[Callable[[Path], Machine]]:
    """Boots a copy of a root."""
    machines: list[Machine] = []

    def boot(root: Path) -> Machine:
        machines.append(Machine(copied(root, tmp_path / "root"), tmp_path / "boot.log"))
        return machines[0]

    yield boot
    for machine in machines:
        machine.close()


def typed(machine: Machine, command: str) -> subprocess.CompletedProcess[str]:
    """At a shell of root's, in the checkout."""
    environment = ["env", f"PATH={PATH}", "HOME=/root", "COLUMNS=160", "SLURM_JOB_ID=4711"]
    script = f"cd {CHECKOUT}; exec 2>&1; {command}"
    return machine.run(*environment, "bash", "-c", script, check=False, timeout_s=240)


def follow(machine: Machine, block: Block) -> None:
    """Every command of a block."""
    for command in commands(block):
        where = f"{block.document}:{command.line}: {command.typed}"
        wrong = fault(machine, command)
        if wrong and command.typed.startswith(ASKS):
            told = [wrong]

            def good(command: Command = command, told: list[str] = told) -> bool:
                told[0] = fault(machine, command)
                return not told[0]

            try:
                wait_until(good, SECONDS, where)
                wrong = ""
            except AssertionError:
                wrong = told[0]
        assert not wrong, f"{where}\n{wrong}\n{machine.journal()[-3000:]}"


def fault(machine: Machine, command: Command) -> str:
    """What is wrong with what it printed and how it ended; empty: nothing."""
    done = typed(machine, command.typed)
    if done.returncode and "| grep" not in command.typed and "doctor" not in command.typed:
        return f"it ended with {done.returncode}: {done.stdout}"
    return fits(command.shown, done.stdout) if command.shown else ""


def test_the_page_is_followed_from_a_clean_debian(
    node_root: Path,
    booted: Callable[[Path], Machine],
    need: Callable[..., None],
    tmp_path: Path,
) -> None:
    need("chromium", "npm", "node")
    bundle()  # which needs a registry; the machine's network has none
    checkout = working_copy(tmp_path / "wattledger")
    machine = booted(node_root)
    assert not (machine.root / "usr/bin/wattledger").exists()
    for block in chosen(*NODE, *DESK):
        if block.document == PAGE and block.kind in NODE:
            follow(machine, block)
        elif block.document == PAGE:
            for command in commands(block):
                done = run(command.typed, checkout, "nsenter", "-t", str(machine.leader), "-n")
                assert done.returncode == 0, done.stdout
                assert not command.shown or fits(command.shown, done.stdout) == ""
    for picture in ("fleet", "node", "job"):
        png = (checkout / f"build/pictures/{picture}.png").read_bytes()
        assert pictured(png) == hash_of(picture)


@pytest.fixture(scope="module")
def node(node_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Where the page's second step ends; what a document leaves there the next one finds."""
    folder = tmp_path_factory.mktemp("node")
    machine = Machine(copied(node_root, folder / "root"), folder / "boot.log")
    try:
        assert typed(machine, "apt-get install -y ./dist/wattledger_*.deb").returncode == 0
        simulate(machine)
        assert typed(machine, JOB).returncode == 0
        yield machine
    finally:
        machine.close()


@pytest.mark.parametrize("document", [one for one in followed(*NODE) if one != PAGE])
def test_a_document_is_followed(document: str, node: Machine) -> None:
    for block in chosen(*NODE):
        if block.document == document:
            follow(node, block)


def simulate(machine: Machine) -> None:
    """As the page has it where there is no GPU."""
    (block,) = [
        block
        for block in blocks()
        if block.document == PAGE and 'backend = "simulated"' in block.text
    ]
    follow(machine, block)
    typed(machine, "systemctl restart wattledger")
    machine.scrape_when(lambda page: page.sum("energy_joules_total", kind="gpu") > 0)


@pytest.mark.parametrize("document", followed(*INSTALLED))
def test_a_document_is_followed_after_make_install(
    document: str, debian_root: Path, booted: Callable[[Path], Machine]
) -> None:
    machine = booted(debian_root)
    settings = machine.root / "etc/wattledger/wattledger.toml"  # other tests write their own
    shutil.copy(ROOT / "deploy/systemd/wattledger.toml", settings)
    shutil.copytree(ROOT / "deploy", machine.root / CHECKOUT.lstrip("/") / "deploy")
    for block in chosen(*INSTALLED):
        if block.document == document:
            follow(machine, block)
    assert typed(machine, "systemctl is-active wattledger").stdout == "active\n"
