"""`wattledger run` among closed streams, closed directories and names of any bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wattledger
from wattledger.metering import Wanted
from wattledger.remote import Remote
from wattledger.wrapping import CommandFailed, find_command

NOBODY = 65534
PROGRAM = f"{sys.executable} -m wattledger.cli run --socket /nonexistent"


@pytest.fixture
def closed_directory(tmp_path: Path) -> Iterator[Path]:
    """One that this process may not enter, whoever runs it."""
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "tool").write_text("#!/bin/sh\n")
    (closed / "tool").chmod(0o755)
    closed.chmod(0)
    tmp_path.chmod(0o755)
    if os.geteuid() != 0:
        yield closed
    else:
        os.seteuid(NOBODY)
        try:
            yield closed
        finally:
            os.seteuid(0)
    closed.chmod(0o700)


def test_a_directory_of_the_path_that_may_not_be_entered_is_passed_over(
    closed_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{closed_directory}:/usr/bin:/bin")
    assert find_command("sh") in ("/usr/bin/sh", "/bin/sh")
    with pytest.raises(CommandFailed, match="command not found") as failure:
        find_command("tool")
    assert failure.value.exit_code == 127
    with pytest.raises(CommandFailed, match="may not be executed") as failure:
        find_command(str(closed_directory / "tool"))
    assert failure.value.exit_code == 126


@pytest.mark.parametrize("name", ["x" * 300, "/tmp/" + "x" * 300, "/" + "x/" * 4000])
def test_a_name_that_no_file_can_have_is_not_found(name: str) -> None:
    with pytest.raises(CommandFailed, match="command not found") as failure:
        find_command(name)
    assert failure.value.exit_code == 127


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_stay_closed_and_change_no_exit_code(tmp_path: Path, closed: str) -> None:
    # What the command sees of the three: open or not.
    look = "for n in 0 1 2; do [ -e /proc/$$/fd/$n ] && printf $n >> seen; done; exit 3"
    command = f"{PROGRAM} --json {tmp_path}/receipt.json -- sh -c '{look}' {closed}"
    (tmp_path / "seen").touch()
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    still_open = {"2>&-": "01", "1>&-": "02", ">&- 2>&-": "0", "<&- >&- 2>&-": ""}[closed]
    assert (tmp_path / "seen").read_text() == still_open
    assert json.loads((tmp_path / "receipt.json").read_text())["exit_code"] == 3
    assert ("exit code 3" in done.stderr) == ("2" in still_open)


def test_what_cannot_be_started_says_so_to_nobody(tmp_path: Path) -> None:
    for command, code in (("/nonexistent", 127), ("/", 126)):
        done = subprocess.run(
            ["sh", "-c", f"{PROGRAM} -- {command} 2>&-"], cwd=tmp_path, check=False, timeout=60
        )
        assert done.returncode == code


def test_a_name_of_any_bytes_is_sent_as_text(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM.split(), "--name", b"a\xff", "--json", tmp_path / "r.json", "--", "true"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0 and "wattledger: a? took" in done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["name"] == "a?"
    assert "does not understand" not in done.stderr


def test_what_is_wanted_and_what_is_asked_can_be_sent() -> None:
    assert Wanted.of("a\udcff", ("\udcff0",)) == Wanted("a?", ("?0",))
    with pytest.raises(wattledger.errors.DaemonUnreachable):  # and no UnicodeEncodeError
        Remote([Path("/nonexistent")]).request("/api/v1/jobs", {"name": "\udcff"})
