"""Units and users of a real systemd, with real processes that burn CPU time.

The fixture RAPL draws `FLOOR_W` and besides `WATTS_PER_CORE` for each second of CPU time that the
kernel counts. So what a unit has to pay is known: the CPU time that its cgroup counts, read here
by itself, times `WATTS_PER_CORE`, whatever else the machine does. The floor is in the ledger from
the start, as if learnt in a quiet minute. The tests run in the order in which they stand here, on
one boot.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.booted import PROGRAM, UNIT, Machine, copied
from e2e.page import Page
from ledgers import batch, opened
from sysfs import RaplTree
from waiting import wait_until
from wattledger.clock import SystemClock
from wattledger.core.footprint import footprint
from wattledger.ledger import open_reader_offline
from wattledger.procfs import busy_and_total_ticks
from wattledger.sampler import FLOORS_NOTE

FLOOR_W = 40
WATTS_PER_CORE = 50
ZONE = "package-0"
SETTINGS = """
path.sysfs = "/srv/sys"
sampling = { interval = "1s", commit_interval = "1s" }
meters.nvml.enabled = false
meters.rapl.enabled = true
jobs = { units = ["burn@*.service"], labels = ["user", "unit"] }
"""
# Burns so many percent of a CPU: what was missed in one moment is made up for in the next.
BURN = """
import sys, time
rate = float(sys.argv[1]) / 100
begun = time.monotonic() - time.process_time() / rate
while True:
    while time.process_time() < rate * (time.monotonic() - begun):
        pass
    time.sleep(0.005)
"""
BURN_UNIT = "[Service]\nExecStart=/usr/bin/python3 /srv/burn.py %i\n"
ALICE = "alice:x:1001:1001::/:/usr/sbin/nologin\n"
TWO, ONE = "burn@30.service", "burn@15.service"
BURNS = "system.slice/system-burn.slice"
ALICES, STRANGER = "user-1001.slice/alices.service", "system.slice/stranger.service"
ALICES_PERCENT, STRANGERS_PERCENT = 10, 20
WINDOW_S = 12.0
SURVEY_S = 1.0

pytestmark = pytest.mark.timeout(1800)  # the first of them makes the Debian


@contextlib.contextmanager
def drawing(tree: RaplTree) -> Iterator[None]:
    """Let the package draw power as busy as the machine is."""
    over = threading.Event()
    begun_ns, ticks_per_s = time.monotonic_ns(), os.sysconf("SC_CLK_TCK")
    begun_ticks, _ = busy_and_total_ticks(Path("/proc"))

    def move() -> None:
        while not over.wait(0.01):
            busy_ticks = busy_and_total_ticks(Path("/proc"))[0] - begun_ticks
            floor_uj = FLOOR_W * (time.monotonic_ns() - begun_ns) // 1000
            tree.set_energy_uj(ZONE, floor_uj + WATTS_PER_CORE * busy_ticks * 10**6 // ticks_per_s)

    thread = threading.Thread(target=move, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, debian_root: Path) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("jobs")
    root = copied(debian_root, folder / "root")
    (root / "etc/wattledger/wattledger.toml").write_text(SETTINGS)
    (root / "etc/systemd/system/burn@.service").write_text(BURN_UNIT)
    (root / "srv/burn.py").write_text(BURN)
    with (root / "etc/passwd").open("a") as users:
        users.write(ALICE)
    learn_floor(ledger_of(root))
    (root / "srv/sys/fs/cgroup").mkdir(parents=True)
    with RaplTree(root / "srv/sys", packages=1, dram=False) as tree:
        tree.set_mode(ZONE, 0o400)
        with drawing(tree):
            booted = Machine(root, folder / "boot.log")
            try:
                # The RAPL of the fixture, and the cgroups that the container's own systemd makes.
                booted.run("mount", "--bind", "/sys/fs/cgroup", "/srv/sys/fs/cgroup")
                yield booted
            finally:
                booted.close()


def ledger_of(root: Path) -> Path:
    return root / "var/lib/private/wattledger/ledger.sqlite"


def learn_floor(ledger: Path) -> None:
    ledger.parent.mkdir(parents=True, mode=0o700)
    ledger.parent.parent.chmod(0o700)
    with contextlib.closing(opened(ledger, SystemClock())) as books:  # type: ignore[arg-type]
        note = json.dumps({"cpu0": FLOOR_W * 10**6})
        books.commit(batch(devices=(), notes={FLOORS_NOTE: note}), SystemClock().now())


class CpuTimes:
    """What cgroups of the container have used, followed through its root by a thread.

    Args:
        machine: the container.
        paths: name → its cgroup there.
    """

    def __init__(self, machine: Machine, paths: dict[str, str]) -> None:
        base = Path(f"/proc/{machine.leader}/root/sys/fs/cgroup")
        self._files = {name: base / path / "cpu.stat" for name, path in paths.items()}
        self._seen: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        while not self._over.wait(0.05):
            for name, file in self._files.items():
                used_us = dict(line.split() for line in file.read_text().splitlines())["usage_usec"]
                self._seen[name].append((time.time(), int(used_us) / 1e6))

    def __enter__(self) -> CpuTimes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def between(self, name: str, begun_s: float, ended_s: float) -> float:
        """CPU time in s from one instant of the wall clock to another."""
        return self._at(name, ended_s) - self._at(name, begun_s)

    def _at(self, name: str, wall_s: float) -> float:
        seen = self._seen[name]
        after = bisect.bisect(seen, (wall_s, 0.0))
        (early_s, early), (late_s, late) = seen[after - 1], seen[after]
        assert early_s <= wall_s <= late_s
        return early + (late - early) * (wall_s - early_s) / (late_s - early_s)


def ask(machine: Machine, *arguments: str, uid: int = 0) -> Any:
    who = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"] if uid else []
    return json.loads(machine.run(*who, PROGRAM, *arguments, "--json").stdout)


def job_joules(page: Page, manager: str, job_id: str) -> float:
    return page.sum("job_energy_kwh_total", manager=manager, job_id=job_id) * 3.6e6


def test_each_pays_for_its_cpu_time_above_the_idle_floor(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    machine.run("systemctl", "start", TWO, ONE)
    burn = ["/usr/bin/python3", "/srv/burn.py"]
    own = ["--unit=alices", "--slice=user-1001.slice", "--uid=alice"]
    machine.run("systemd-run", *own, *burn, str(ALICES_PERCENT))
    machine.run("systemd-run", "--unit=stranger", *burn, str(STRANGERS_PERCENT))
    paid = {
        ("unit", TWO): f"{BURNS}/{TWO}",
        ("unit", ONE): f"{BURNS}/{ONE}",
        ("user", "1001"): f"user.slice/{ALICES}",
    }
    with CpuTimes(machine, {path: path for path in (*paid.values(), STRANGER)}) as used:
        time.sleep(SURVEY_S)
        followed_s = time.time()
        first = machine.scrape_when(
            lambda page: (
                page.one("books_timestamp_seconds") > followed_s
                and all(job_joules(page, *job) > 0 for job in paid)
            )
        )
        begun_s = first.one("books_timestamp_seconds")
        time.sleep(WINDOW_S)
        last = machine.scrape_when(
            lambda page: page.one("books_timestamp_seconds") >= begun_s + WINDOW_S
        )
    ended_s = last.one("books_timestamp_seconds")
    passed_s = ended_s - begun_s

    grown = {job: job_joules(last, *job) - job_joules(first, *job) for job in paid}
    true = {
        job: WATTS_PER_CORE * used.between(path, begun_s, ended_s) for job, path in paid.items()
    }
    assert grown["unit", TWO] / grown["unit", ONE] == pytest.approx(
        true["unit", TWO] / true["unit", ONE], rel=0.02
    )
    assert grown == pytest.approx(true, rel=0.05)
    payees = {
        payee: last.one("payee_energy_joules_total", kind="cpu", payee=payee)
        - first.one("payee_energy_joules_total", kind="cpu", payee=payee)
        for payee in ("jobs", "idle", "system", "unattributed")
    }
    assert payees["jobs"] == pytest.approx(sum(grown.values()), rel=1e-6)
    assert payees["idle"] == pytest.approx(FLOOR_W * passed_s, rel=0.02)
    # A unit that nobody named is no job, whatever it uses.
    strangers_s = used.between(STRANGER, begun_s, ended_s)
    assert payees["system"] > WATTS_PER_CORE * strangers_s * 0.95 > 0
    assert payees["unattributed"] == 0
    assert last.labels("job_info", "job_id") == {TWO, ONE, "1001"}
    last.assert_not_below(first)


def test_sums_are_exact(machine: Machine) -> None:
    report = ask(machine, "report", "--by", "job", "--since", "1h")
    kinds = ask(machine, "report", "--by", "kind", "--since", "1h")
    assert {row["group"] for row in report["rows"]} >= {f"unit/{TWO}", f"unit/{ONE}", "user/1001"}
    for quantity in ("energy_uj", "co2e_ug"):
        whole = sum(int(row[quantity]) for row in report["rows"])
        assert whole == int(report["total"][quantity])
        assert kinds["total"][quantity] != "0"


def test_a_user_is_paid_for_and_sees_only_that(machine: Machine) -> None:
    page = machine.scrape()
    assert page.one("user_energy_kwh_total", manager="user", user="alice") > 0
    (seen,) = ask(machine, "jobs", uid=1001)["jobs"]
    assert (seen["manager"], seen["job_id"], seen["labels"]["user"]) == ("user", "1001", "alice")
    everybodys = ask(machine, "jobs")["jobs"]
    assert {(one["manager"], one["job_id"]) for one in everybodys} >= {
        ("unit", TWO),
        ("unit", ONE),
        ("user", "1001"),
    }
    refused = machine.run(
        "setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", "--",
        PROGRAM, "job", f"unit/{TWO}", check=False,
    )  # fmt: skip
    assert refused.returncode != 0


def test_a_restart_is_two_runs_of_one_series(machine: Machine) -> None:
    before = machine.scrape()
    machine.run("systemctl", "restart", ONE)
    wait_until(lambda: ask(machine, "job", f"unit/{ONE}")["run_count"] == 2, what="two runs")
    page = machine.scrape_when(
        lambda page: job_joules(page, "unit", ONE) > job_joules(before, "unit", ONE) + 5
    )
    assert len(page.all("job_info", job_id=ONE)) == 1
    page.assert_not_below(before)
    job = ask(machine, "job", f"unit/{ONE}")
    new, old = job["runs"]
    assert job["state"] == new["state"] == "running" and old["state"] == "ended"
    assert old["end"] <= new["start"]
    whole = sum(int(run["totals"]["exact"]["energy_uj"]) for run in job["runs"])
    assert whole == int(job["totals"]["exact"]["energy_uj"])


def test_a_unit_that_ends_is_paid_to_its_end_and_stays(machine: Machine) -> None:
    begun_s = time.monotonic()
    used_s = cpu_s_of(machine, TWO)
    machine.run("systemctl", "stop", TWO)
    # It is one process, so that meanwhile it used no more than that; on busy cores this takes long.
    most_s = used_s + time.monotonic() - begun_s
    page = machine.scrape_when(lambda page: not page.all("job_power_watts", job_id=TWO))
    paid_s = job_joules(page, "unit", TWO) / WATTS_PER_CORE
    # Its whole life: what it used since the last survey, a second before, may be nobody's.
    assert 0.95 * used_s - SURVEY_S <= paid_s <= 1.05 * most_s
    paid_j = job_joules(page, "unit", TWO)
    begun = page.one("ledger_commits_total")
    later = machine.scrape_when(lambda page: page.one("ledger_commits_total") >= begun + 2)
    assert job_joules(later, "unit", TWO) == paid_j
    assert later.one("job_info", job_id=TWO) == 1
    (ended,) = [one for one in ask(machine, "jobs", "--state", "ended")["jobs"]
                if one["job_id"] == TWO]  # fmt: skip
    assert ended["state"] == "ended" and ended["end"]
    table = machine.run(PROGRAM, "jobs").stdout
    assert TWO in table


def cpu_s_of(machine: Machine, unit: str) -> float:
    text = machine.run("cat", f"/sys/fs/cgroup/{BURNS}/{unit}/cpu.stat")
    fields = dict(line.split() for line in text.stdout.splitlines())
    return int(fields["usage_usec"]) / 1e6


def test_the_books_balance_after_it_all(machine: Machine) -> None:
    machine.run("systemctl", "stop", UNIT)
    assert "Traceback" not in machine.journal()
    reader = open_reader_offline(ledger_of(machine.root))
    try:
        assert reader.check(footprint) == []
    finally:
        reader.close()
