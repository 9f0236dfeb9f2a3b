"""A full disk: counting goes on in memory, the page says so, and afterwards nothing is missing."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.books import assert_exact, balanced, checkpoints
from e2e.daemon import FINE, Daemon

SCENARIO = """
[[gpu]]
model = "H100 SXM"
count = 2
waveform = { kind = "square", low_w = 100, high_w = 600, period_s = 1.3 }
"""
FULL_S = 4.0


@pytest.fixture
def small_disk(as_root: None, need: Callable[..., None], tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    need("mount", "umount")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(place)]
    subprocess.run(mount, check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Takes all the space there is, to the last page."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        size = 65536
        while size >= 512:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return ballast


def test_a_full_disk_loses_nothing(daemon: Callable[..., Daemon], small_disk: Path) -> None:
    config = FINE + "ledger.volatile = true"
    node = daemon(config, scenario=SCENARIO, ledger=small_disk / "ledger.sqlite")
    node.start()
    node.next_commit()
    node.terminate()
    before = checkpoints(node)
    assert len(before) == 2

    node.start()
    first = node.next_commit()
    ballast = fill(small_disk)
    failing = node.scrape_when(lambda page: page.one("ledger_commit_errors_total") > 0)
    failing.assert_not_below(first)

    # The counters stand, the page stays, and it says what is wrong.
    time.sleep(FULL_S)
    still = node.scrape_when(
        lambda page: (
            page.one("ledger_commit_errors_total") > failing.one("ledger_commit_errors_total") + 3
        )
    )
    assert still.counters() == failing.counters()
    assert still.one("ledger_pending_entries") > 0
    assert all(value > 0 for value in still.all("power_watts", kind="gpu").values())
    assert node.get("/healthz").status == 200
    ledger = node.api("status")["ledger"]
    assert "full" in ledger["message"]
    assert ledger["hint"]
    doctor = node.cli("doctor", "--json", "--socket", str(node.ledger.with_suffix(".sock")))
    (finding,) = [found for found in json.loads(doctor.stdout) if found["area"] == "ledger"]
    assert doctor.returncode == 1
    assert finding["level"] == "problem" and "full" in finding["message"]
    # Said once, not with each of the dozens of attempts.
    assert node.log().count("counting on in memory") == 1

    # Space returns: all that was kept in memory is written.
    ballast.unlink()
    after = node.scrape_when(lambda page: page.one("ledger_pending_entries") == 0)
    after = node.next_commit()
    after.assert_not_below(still)
    gained_j = after.sum("energy_joules_total") - still.sum("energy_joules_total")
    assert gained_j > 2 * 100 * FULL_S
    assert all(after.one("unobserved_seconds_total", device=name) == 0 for name in before)
    assert node.log().count("nothing was lost") == 1
    assert node.api("status")["ledger"]["message"] is None
    balanced(node)

    node.terminate()
    node.assert_no_traceback()
    node.assert_books_balance()
    assert_exact(before, checkpoints(node))


def test_killed_while_the_disk_is_full(daemon: Callable[..., Daemon], small_disk: Path) -> None:
    """What was not written is found again in the hardware's counters."""
    config = FINE + "ledger.volatile = true"
    node = daemon(config, scenario=SCENARIO, ledger=small_disk / "ledger.sqlite")
    node.start()
    node.next_commit()
    node.kill()
    before = checkpoints(node)
    node.start()
    ballast = fill(small_disk)
    failing = node.scrape_when(lambda page: page.one("ledger_commit_errors_total") > 0)
    time.sleep(1)
    node.kill()
    assert_exact(before, checkpoints(node))
    ballast.unlink()
    page = node.start().scrape()
    page.assert_not_below(failing)
    assert all(page.one("unobserved_seconds_total", device=name) == 0 for name in before)
    node.terminate()
    node.assert_books_balance()
    assert_exact(before, checkpoints(node))


def test_a_start_on_a_full_disk_is_refused_in_one_line(
    daemon: Callable[..., Daemon], small_disk: Path
) -> None:
    config = FINE + "ledger.volatile = true"
    node = daemon(config, ledger=small_disk / "ledger.sqlite")
    fill(small_disk)
    done = node.cli("serve", "--config", str(node.config_file), "--ledger", str(node.ledger),
                    "--listen", "127.0.0.1:0")  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "full" in done.stderr or "No space" in done.stderr
