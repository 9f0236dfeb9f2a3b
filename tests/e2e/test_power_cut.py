"""Twenty power cuts: no acknowledged commit is lost, and what is there balances.

A file system in a file; the ioctl EXT4_IOC_SHUTDOWN with NOLOGFLUSH stops it as a power cut would:
nothing that was not synced reaches the image any more
(https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/fs/ext4/ioctl.c).
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ledgers
from fakes import FakeClock
from ledgers import DEVICES, energy_uj, expected_uj, opened
from waiting import wait_until
from wattledger.core.footprint import footprint
from wattledger.ledger import LedgerReader

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NO_LOG_FLUSH = 2
CUTS = 20


def require_root_and_ext4() -> None:
    """Skips where it cannot be shown, except in CI, which must show it."""
    lacking = "root" if os.geteuid() else "" if shutil.which("mkfs.ext4") else "mkfs.ext4"
    if lacking:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {lacking}")


@contextmanager
def mounted(image: Path, where: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-o", "loop", image, where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)
        # Another mount namespace that was made meanwhile (a container's) may hold it a while
        # longer, and mounting the image then gives the file system that was shut down again.
        wait_until(lambda: not loops_of(image), 60, "the file system is let go")


def loops_of(image: Path) -> str:
    """The loop devices that stand for the image."""
    asked = ["losetup", "--noheadings", "--associated", image]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout


def cut_power(where: Path) -> None:
    handle = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(handle)


def said_so_far(writer: subprocess.Popen[bytes]) -> list[int]:
    """The acknowledgements that are out, and none of those to come.

    What is acknowledged once the power is off is no promise of ours: the shut-down ext4 may answer
    an fsync that was under way with success (jbd2 finds its transaction gone, not committed).
    """
    assert writer.stdout is not None
    os.set_blocking(writer.stdout.fileno(), False)
    text = writer.stdout.read() or b""
    return [int(line) for line in text.split(b"\n")[:-1]]


@pytest.mark.root
@pytest.mark.timeout(600)
def test_a_power_cut_loses_no_acknowledged_commit(tmp_path: Path) -> None:
    require_root_and_ext4()
    image, where = tmp_path / "disk.img", tmp_path / "disk"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    chance = random.Random(4)
    acknowledged, epoch = 0, ""
    for cut in range(CUTS):
        with mounted(image, where):
            writer = subprocess.Popen(
                [sys.executable, ledgers.__file__, where / "books" / "ledger.sqlite"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert writer.stdout is not None
            # The first cut comes right after the first commit of a fresh file, later ones
            # between others, some of them after the log was written back.
            for _ in range(1 if cut == 0 else chance.randrange(1, 700)):
                acknowledged = int(writer.stdout.readline())
            acknowledged = max([acknowledged, *said_so_far(writer)])
            cut_power(where)
            writer.kill()
            writer.communicate()
        with mounted(image, where):
            path = where / "books" / "ledger.sqlite"
            ledger = opened(path, FakeClock())
            reader = LedgerReader(path)
            try:
                books = ledger.books
                assert ledger.status.quarantined == ""
                assert epoch in ("", books.epoch)
                epoch = books.epoch
                assert books.commits >= acknowledged
                assert energy_uj(books) == {d.name: expected_uj(books.commits) for d in DEVICES}
                assert reader.check(footprint) == []
            finally:
                reader.close()
                ledger.close()


@pytest.mark.root
@pytest.mark.timeout(120)
def test_this_cut_does_lose_what_was_not_synced(tmp_path: Path) -> None:
    """The instrument itself: a file that was written and not synced is gone or empty."""
    require_root_and_ext4()
    image, where = tmp_path / "disk.img", tmp_path / "disk"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(32 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    with mounted(image, where):
        (where / "unsynced").write_bytes(b"x" * 4096)
        cut_power(where)
    with mounted(image, where):
        file = where / "unsynced"
        assert not file.exists() or file.stat().st_size == 0
