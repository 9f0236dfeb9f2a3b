"""What the documents have people type in a checkout: built, run, made again, on this machine.

A copy is made of the checkout, with the virtual environment of these tests. `build` needs a package
registry. What does not end by itself runs on a network of its own, so that its port is free.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from documents import Block, Command, chosen, commands, fits
from e2e.checkouts import environment, run, working_copy
from waiting import wait_until

LOOPBACK_UP = (
    "import fcntl, socket, struct;"  # SIOCSIFFLAGS: IFF_UP and IFF_RUNNING
    "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x41))"
)
STAYS = ("make run",)
"""What does not end by itself: it is ended after its block."""
METERED = any(Path("/sys/class/powercap").glob("intel-rapl:*"))
"""The documents show a machine without a meter; on others only that it works is looked at."""

pytestmark = pytest.mark.timeout(900)


def _ids(block: Block) -> str:
    return block.where


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return working_copy(tmp_path / "wattledger")


BUILT: dict[str, list[Command]] = {}
for each in (c for block in chosen("console build", "sh build") for c in commands(block)):
    BUILT.setdefault(each.typed.partition("#")[0].strip(), []).append(each)


@pytest.mark.parametrize("typed", BUILT)
def test_it_is_built_and_installed(typed: str, checkout: Path) -> None:
    """Several documents may say the same; it takes a while."""
    done = run(typed, checkout)
    assert done.returncode == 0, done.stdout
    for command in BUILT[typed]:
        assert not command.shown or fits(command.shown, done.stdout) == ""
    if typed == "make deb":
        (package,) = (checkout / "dist").glob("wattledger_*.deb")
        assert run(f"dpkg-deb --info {package}", checkout).returncode == 0
    else:
        home = checkout.parent / "installed/usr/local/lib/wattledger"
        assert (home / "bin/wattledger").exists()
        assert ("parquet" in typed) == bool(list(home.rglob("pyarrow")))


@pytest.mark.parametrize("block", chosen("sh checkout"), ids=_ids)
def test_what_is_made_again_is_what_is_there(
    block: Block, checkout: Path, need: Callable[..., None]
) -> None:
    need("prometheus", "promtool", "chromium", "npm", "node")
    before = _committed(checkout)
    for command in commands(block):
        done = run(command.typed, checkout)
        assert done.returncode == 0, done.stdout
    after = _committed(checkout)
    assert before.keys() == after.keys()
    # A picture is never the same twice, by a pixel or two.
    changed = {path for path in before if before[path] != after[path]}
    assert {path.suffix for path in changed} <= {".png"}


def _committed(checkout: Path) -> dict[Path, bytes]:
    found = (path for path in (checkout / "deploy").rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in found if "__pycache__" not in path.parts}


@pytest.fixture
def alone(as_root: None, need: Callable[..., None]) -> Iterator[tuple[str, ...]]:
    """What starts a command on a network of its own."""
    need("unshare", "nsenter", "curl", "make")
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    ours = Path("/proc/self/ns/net").readlink()
    theirs = Path(f"/proc/{holder.pid}/ns/net")
    wait_until(lambda: theirs.readlink() != ours, 10, "a network of its own")
    enter = ("nsenter", "-t", str(holder.pid), "-n", "--")
    subprocess.run([*enter, "python3", "-c", LOOPBACK_UP], check=True)
    yield enter
    holder.kill()
    holder.wait(10)


@pytest.mark.parametrize("block", chosen("console checkout"), ids=_ids)
def test_it_starts_and_answers(
    block: Block, checkout: Path, alone: tuple[str, ...], tmp_path: Path
) -> None:
    first, *others = commands(block)
    assert first.typed.startswith(STAYS)
    log = tmp_path / "log"
    with log.open("wb") as out:
        started = subprocess.Popen(
            [*alone, "bash", "-c", first.typed],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.DEVNULL,
            cwd=checkout,
            env=environment(checkout),
            start_new_session=True,
        )
    try:
        _wait(first, log.read_text)
        for command in others:
            _wait(command, lambda typed=command.typed: run(typed, checkout, *alone).stdout)  # type: ignore[misc]
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        started.wait(20)


def _wait(command: Command, printed: Callable[[], str]) -> None:
    told = [""]

    def good() -> bool:
        text = printed()
        told[0] = fits(command.shown, text)
        return not told[0] or (METERED and bool(text))

    try:
        wait_until(good, 60, command.typed)
    except AssertionError as error:
        error.add_note(told[0])
        raise
