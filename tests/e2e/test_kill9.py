"""Killed two hundred times: no counter falls, no joule is lost, none is booked twice.

Four simulated GPUs, whose counters follow the time since boot and so move on while the daemon is
down, and two RAPL packages with DRAM that this test keeps moving. `KILLS` is the number of kills.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from e2e.books import Checkpoint, assert_exact, balanced, checkpoints
from e2e.daemon import FINE, Daemon
from e2e.page import Page
from sysfs import RANGE_AMD_UJ, RaplTree, Wave
from wattledger.clock import SystemClock
from wattledger.meters.simulated import SimulatedNvml, load_scenario
from wattledger.units import NS_PER_S

KILLS = int(os.environ.get("KILLS", "200"))
OTHER_W = 90
INTERVAL_S = 0.1
SCENARIO = """
[[gpu]]
model = "H100 SXM"
count = 3
waveform = { kind = "square", low_w = 60, high_w = 600, period_s = 0.7, stagger_s = 0.2 }
processes = [{ pid = "self" }]

[[gpu]]
model = "A100"
waveform = { kind = "square", low_w = 50, high_w = 390, period_s = 7.3 }
"""
CONFIG = f"""
{FINE}
meters.other.watts = {OTHER_W}
"""
GPU_PEAK_W = 600
GPU_TICK_S = 0.1
# Far below what the packages might draw: the thread that moves the counters may be late on a busy
# machine and then catches up, which near the limit would be taken for a broken counter, rightly.
CPU_WAVES = {
    "package-0": Wave(30_000_000, 10_000_000, 900_000_000, 300_000_000),
    "package-1": Wave.constant(20),
    "package-0/dram": Wave.constant(4),
    "package-1/dram": Wave(5_000_000, 1_000_000, 500_000_000, 250_000_000),
}
CPU_DEVICES = {
    "cpu0": "package-0",
    "cpu1": "package-1",
    "dram0": "package-0/dram",
    "dram1": "package-1/dram",
}
CPU_PEAK_W = 30
RAPL_STEP_S = 0.2


@pytest.mark.timeout(3600)
def test_no_counter_falls_and_no_joule_is_lost_over_kills(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    chance = random.Random(20)
    node = daemon(CONFIG, scenario=SCENARIO)
    tree = RaplTree(
        node.home / "sys",
        packages=2,
        waves=CPU_WAVES,
        range_uj=RANGE_AMD_UJ,
        start_uj=RANGE_AMD_UJ - 400_000_000,  # they wrap on the way, DRAM later
    )
    for package in ("package-0", "package-1"):
        tree.drop_constraints(package)  # the kernel states no limit, as on AMD
    with tree, tree.follow(0.005):
        # The counters' own clock starts with `follow`; the simulated GPUs' is the machine's.
        truth = SimulatedNvml(load_scenario(node.home / "scenario.toml"), SystemClock())
        node.start()
        node.next_commit()
        node.kill()
        first = checkpoints(node)
        assert len(first) == 8  # 4 GPUs, 2 packages, 2 DRAMs; `other` has no counter
        first_page: Seen | None = None
        last: Page | None = None
        for kill in range(KILLS):
            node.start()
            page = node.scrape()
            first_page = first_page or Seen(page, time.time_ns())
            last = last or page
            page.assert_not_below(last)
            # At least one commit of this process, then any moment of the next three.
            last = node.scrape_when(
                lambda now, at=page: (
                    now.one("ledger_commits_total") > at.one("ledger_commits_total")
                )  # type: ignore[misc]
            )
            last.assert_not_below(page)
            if kill % 20 == 0:
                balanced(node)
            time.sleep(chance.uniform(0, 0.6))
            page = node.scrape()
            page.assert_not_below(last)
            last = page
            node.kill()
            _nothing_went_unseen(node)
            assert_exact(first, checkpoints(node))
            if kill % 10 == 5:  # and some that die while they start
                node.spawn()
                time.sleep(chance.uniform(0.05, 0.7))
                node.kill()
                assert_exact(first, checkpoints(node))
        node.start()
        end_page = node.next_commit()
        seen_end = Seen(end_page, time.time_ns())
        assert last is not None and first_page is not None
        end_page.assert_not_below(last)
        booked = balanced(node)
        node.terminate()
        node.assert_no_traceback()
        node.assert_books_balance()

        now = checkpoints(node)
        assert_exact(first, now)
        _compare_with_truth(truth, tree, first, now)
        _compare_pages_with_truth(truth, tree, first_page, seen_end)

        assert all(end_page.one("counter_resets_total", device=name) == 0 for name in now)
        assert all(end_page.one("unobserved_seconds_total", device=name) == 0 for name in now)
        assert end_page.sum("energy_quality_joules_total", quality="recovered") > 0
        _constant_is_booked_or_said(end_page, booked["other"]["energy_uj"], first, now)


class Seen(NamedTuple):
    """A page, and when it was there to be seen (wall clock)."""

    page: Page
    at_ns: int


def _nothing_went_unseen(node: Daemon) -> None:
    """The log says what was not booked; of a counter that may be nothing."""
    said = [line for line in node.log().splitlines() if " unobserved, " in line]
    assert not [line for line in said if " other: " not in line]


def _compare_with_truth(
    truth: SimulatedNvml,
    tree: RaplTree,
    first: dict[str, Checkpoint],
    now: dict[str, Checkpoint],
) -> None:
    """Each device's books against the closed form, at the instants of its own readings."""
    for name, end in now.items():
        begin = first[name]
        true_uj = _truth_uj(truth, tree, name, begin.boottime_ns, end.boottime_ns)
        assert true_uj > 0
        assert abs(end.booked_uj - begin.booked_uj - true_uj) <= _tick_uj(name), name


def _compare_pages_with_truth(truth: SimulatedNvml, tree: RaplTree, first: Seen, end: Seen) -> None:
    """The same as a scrape shows it: a device was read between books_timestamp and the scrape."""
    offset_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    (first_ns, first_seen_ns), (end_ns, end_seen_ns) = (
        (
            round(seen.page.one("books_timestamp_seconds") * NS_PER_S) - offset_ns,
            seen.at_ns - offset_ns,
        )
        for seen in (first, end)
    )
    for name in end.page.labels("energy_joules_total", "device") - {"other"}:
        shown_uj = 1e6 * (
            end.page.one("energy_joules_total", device=name)
            - first.page.one("energy_joules_total", device=name)
        )
        least_uj = _truth_uj(truth, tree, name, first_seen_ns, end_ns)
        most_uj = _truth_uj(truth, tree, name, first_ns, end_seen_ns)
        assert least_uj - _tick_uj(name) <= shown_uj <= most_uj + _tick_uj(name), name


def _truth_uj(truth: SimulatedNvml, tree: RaplTree, name: str, begun_ns: int, ended_ns: int) -> int:
    """The energy of a device between two instants on CLOCK_BOOTTIME."""
    if name not in CPU_DEVICES:
        return truth.true_energy_uj(name, boottime_ns=ended_ns) - truth.true_energy_uj(
            name, boottime_ns=begun_ns
        )
    ahead_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    zone, zero_ns = CPU_DEVICES[name], tree.start_monotonic_ns + ahead_ns
    ended_uj = tree.true_energy_uj(zone, ended_ns - zero_ns)
    return ended_uj - tree.true_energy_uj(zone, begun_ns - zero_ns)


def _tick_uj(name: str) -> int:
    """What the counter may lag behind the truth."""
    if name in CPU_DEVICES:
        return round(CPU_PEAK_W * RAPL_STEP_S * 1e6)
    return round(GPU_PEAK_W * GPU_TICK_S * 1e6)


def _constant_is_booked_or_said(
    page: Page, booked_uj: int, first: dict[str, Checkpoint], now: dict[str, Checkpoint]
) -> None:
    """Of a meter that has no counter, the downtime is missing, and said in seconds."""
    starts, ends = [p.wall_ns for p in first.values()], [p.wall_ns for p in now.values()]
    elapsed_s = (max(ends) - min(starts)) / NS_PER_S
    unobserved_s = page.one("unobserved_seconds_total", device="other")
    observed_s = booked_uj / 1e6 / OTHER_W
    assert observed_s <= elapsed_s + 2 * INTERVAL_S
    assert 0 < unobserved_s < elapsed_s + 2
    assert observed_s + unobserved_s >= elapsed_s - 4 * INTERVAL_S - 2
