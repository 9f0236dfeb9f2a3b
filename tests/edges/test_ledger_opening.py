"""Where a ledger may lie, who may open it, and what becomes of a damaged one."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import ledgers
from fakes import START_WALL_NS
from ledgers import filled, opened
from wattledger.errors import LedgerError, LedgerLocked
from wattledger.ledger import open_reader_offline
from wattledger.units import NS_PER_S

SLOT_S = START_WALL_NS // NS_PER_S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


# ── file systems ────────────────────────────────────────────────────────────────────────────────


def mounts(tmp_path: Path, *lines: tuple[str, str]) -> Path:
    """A proc file system whose mountinfo holds these (mount point, type)."""
    folder = tmp_path / "proc" / "self"
    folder.mkdir(parents=True)
    text = "".join(
        f"{n} 1 0:{n} / {point} rw,relatime shared:{n} - {kind} source rw\n"
        for n, (point, kind) in enumerate(lines, start=20)
    )
    (folder / "mountinfo").write_text(text)
    return tmp_path / "proc"


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "fuse.sshfs", "gpfs", "9p", "ceph"])
@pytest.mark.parametrize("volatile", [False, True])
def test_network_file_systems_are_refused_by_name(
    tmp_path: Path, kind: str, volatile: bool
) -> None:
    procfs = mounts(tmp_path, ("/", "ext4"), (str(tmp_path / "shared"), kind))

    with pytest.raises(LedgerError, match=kind) as refusal:
        opened(tmp_path / "shared" / "x" / "ledger.sqlite", procfs=procfs, volatile=volatile)

    assert "local disk" in refusal.value.hint
    assert not (tmp_path / "shared").exists(), "nothing is touched there"


def test_memory_is_refused_unless_it_was_declared(tmp_path: Path, path: Path) -> None:
    procfs = mounts(tmp_path, ("/", "overlay"), (str(tmp_path), "tmpfs"))

    with pytest.raises(LedgerError, match="next boot") as refusal:
        opened(path, procfs=procfs)
    assert "ledger.volatile = true" in refusal.value.hint

    ledger = opened(path, procfs=procfs, volatile=True)
    assert ledger.status.storage == "volatile"
    ledger.close()


def test_the_deepest_and_latest_mount_decides(tmp_path: Path) -> None:
    home = tmp_path / "a b\\c"
    escaped = str(home).replace("\\", "\\134").replace(" ", "\\040")
    procfs = mounts(
        tmp_path,
        ("/", "nfs4"),
        (escaped, "autofs"),
        (escaped, "xfs"),
        (f"{escaped}/data", "nfs4"),
        (str(tmp_path / "a"), "nfs4"),
    )

    opened(home / "ledger.sqlite", procfs=procfs).close()
    opened(home / "database" / "ledger.sqlite", procfs=procfs).close()
    with pytest.raises(LedgerError, match="nfs4"):
        opened(home / "data" / "ledger.sqlite", procfs=procfs)
    with pytest.raises(LedgerError, match="nfs4"):
        opened(tmp_path / "elsewhere.sqlite", procfs=procfs)


def test_without_mountinfo_the_ledger_opens(tmp_path: Path, path: Path) -> None:
    opened(path, procfs=tmp_path / "nothing").close()


# ── permissions and paths ───────────────────────────────────────────────────────────────────────


def test_a_missing_directory_is_made_for_the_owner_alone(tmp_path: Path) -> None:
    opened(tmp_path / "state" / "wattledger" / "ledger.sqlite").close()

    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / "wattledger").stat().st_mode & 0o777 == 0o700


def as_nobody(action: Callable[[], object]) -> str:
    """What the action raises for a user without rights, as text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        text = "nothing was raised"
        try:
            if os.geteuid() == 0:
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            action()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def test_missing_permissions_are_named_with_the_remedy() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        top = Path(made)
        top.chmod(0o755 if os.geteuid() == 0 else 0o555)
        locked = top / "locked"
        text = as_nobody(lambda: opened(locked / "ledger.sqlite"))
        assert text.startswith("LedgerError") and str(locked) in text and "chown" in text

        text = as_nobody(lambda: opened(top / "ledger.sqlite"))
        assert text.startswith("LedgerError") and "chown" in text
        top.chmod(0o777)
        foreign = top / "ledger.sqlite"
        filled(foreign, 1)
        foreign.chmod(0o400)
        foreign.with_name("ledger.sqlite.lock").chmod(0o666)
        text = as_nobody(lambda: opened(foreign))
        assert text.startswith("LedgerError") and "chown" in text
        text = as_nobody(lambda: open_reader_offline(foreign))
        assert text.startswith("LedgerError") and "chown" in text


def test_a_directory_a_file_or_nothing_in_the_way(tmp_path: Path, path: Path) -> None:
    with pytest.raises(LedgerError, match="is not a file"):
        opened(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(LedgerError, match="cannot be made") as refused:
        opened(path / "below" / "ledger.sqlite")
    assert "chown" not in str(refused.value)  # that would not help
    with pytest.raises(LedgerError, match="no ledger"):
        open_reader_offline(tmp_path / "absent.sqlite")
    opened(path).close()


# ── the lock ────────────────────────────────────────────────────────────────────────────────────


def test_a_second_process_is_told_who_keeps_the_ledger(tmp_path: Path, path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, ledgers.__file__, path], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "1\n"
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    for name in (path, link):
        with pytest.raises(LedgerLocked, match=f"pid {writer.pid}") as refusal:
            opened(name)
        assert "--ledger" in refusal.value.hint
    writer.kill()
    writer.communicate()

    ledger = opened(link)
    assert ledger.books.commits >= 1, "the lock goes with its process"
    assert ledger.status.path == str(path)
    ledger.close()


def test_a_failed_opening_leaves_no_lock(path: Path) -> None:
    sqlite3.connect(path).execute("CREATE TABLE mine (x)").connection.close()
    for _ in range(2):
        with pytest.raises(LedgerError, match="not a wattledger ledger"):
            opened(path)
    path.unlink()
    opened(path).close()
