"""The daemon over the unmodified nvidia-ml-py and a C library that stands for the driver's.

`tests/nvml_stub` is built with `cc` as libnvidia-ml.so.1; its GPUs' energy is known in closed form
of the wall clock, its faults are switched while the daemon runs.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.books import assert_exact, balanced, checkpoints
from e2e.daemon import FINE, Daemon
from e2e.page import Page
from nvml_stub import Stub, StubConfig, build, constant, square
from sysfs import RaplTree

Start = Callable[..., Daemon]

GPU_IS_LOST = 15
NO_PERMISSION = 4
LIB_RM_VERSION_MISMATCH = 18
PEAK_W = 700
TICK_S = 0.1
LIBRARY_ENV = ("LD_LIBRARY_PATH", "NVML_STUB_CONFIG", "NVML_STUB_STATS")


@pytest.fixture
def over(
    daemon: Start, need: Callable[..., None], tmp_path: Path
) -> Callable[..., tuple[Daemon, Stub]]:
    """A daemon (not started) over a stub."""
    need("cc")

    def make(config: StubConfig, settings: str = FINE, **more: bool) -> tuple[Daemon, Stub]:
        stub = Stub(tmp_path, config, **more)
        env = {name: stub.env()[name] for name in LIBRARY_ENV}
        return daemon(settings, env=env), stub

    return make


def assert_true(node: Daemon, stub: Stub, first: dict, now: dict) -> None:  # type: ignore[type-arg]
    """Each counter's books against the closed form, at the instants of its own readings."""
    uuids = [gpu.uuid for gpu in stub.config.gpus]
    for name, end in now.items():
        gpu, begin = uuids.index(name), first[name]
        true_uj = stub.true_energy_uj(gpu, end.wall_ns, begin.wall_ns)
        booked_uj = end.booked_uj - begin.booked_uj
        assert true_uj > 0
        assert abs(booked_uj - true_uj) <= PEAK_W * TICK_S * 1e6, name


def of(page: Page, name: str, stub: Stub, gpu: int) -> float:
    return page.one(name, device=stub.config.gpus[gpu].uuid)


def test_counters_are_true_and_cost_what_they_may(over: Callable[..., tuple[Daemon, Stub]]) -> None:
    config = StubConfig(
        [
            square(60, 600, period_s=0.3),
            constant(300),
            square(80, 700, period_s=1.0, duty=0.08),
            constant(250, counter=0, samples=120),
        ]
    )
    # The default settings: 1 Hz, a commit each 5 s.
    node, stub = over(config, "")
    node.start()
    node.scrape_when(lambda page: page.one("ledger_commits_total") >= 2)
    node.terminate()
    before = checkpoints(node)
    assert len(before) == 3  # the fourth has no counter
    node.start()
    calls, begun = stub.stats(), time.monotonic()
    time.sleep(11)
    page = node.scrape()
    spent_s = time.monotonic() - begun
    after_calls = stub.stats()
    for gpu in range(3):
        made = after_calls.gpu_calls[gpu] - calls.gpu_calls[gpu]
        assert made <= 1.5 * (spent_s + 1) + 1, f"GPU {gpu}: {made} calls in {spent_s:.1f} s"
    assert after_calls.refcount == 1
    assert of(page, "power_watts", stub, 1) == pytest.approx(300, rel=0.03)
    assert of(page, "power_watts", stub, 3) == pytest.approx(250, rel=0.03)
    assert page.sum("energy_quality_joules_total", kind="gpu", quality="metered") > 0
    assert page.sum("energy_quality_joules_total", kind="gpu", quality="recovered") > 0
    assert page.sum("energy_quality_joules_total", kind="gpu", quality="integrated") > 0
    assert {dict(series[1])["meter"] for series in page.all("device_info", kind="gpu")} == {"nvml"}
    balanced(node)
    node.terminate()
    assert stub.stats().refcount == 0
    now = checkpoints(node)
    assert_exact(before, now)
    assert_true(node, stub, before, now)
    node.assert_no_traceback()
    node.assert_books_balance()


def test_a_lost_gpu_and_its_return(over: Callable[..., tuple[Daemon, Stub]]) -> None:
    node, stub = over(StubConfig([constant(400), square(60, 600, period_s=0.7)]))
    node.start()
    first = node.next_commit()
    assert of(first, "device_present", stub, 0) == 1

    stub.config.gpus[0].error = GPU_IS_LOST
    stub.write()
    gone = node.scrape_when(
        lambda page: of(page, "device_present", stub, 0) == 0, what="it is lost"
    )
    gone.assert_not_below(first)
    assert gone.sum("meter_errors_total", meter="nvml", reason="gpu_lost") > 0
    assert not gone.all("power_watts", device=stub.config.gpus[0].uuid)
    time.sleep(2)
    later = node.next_commit()
    assert of(later, "energy_joules_total", stub, 0) == of(gone, "energy_joules_total", stub, 0)
    assert of(later, "energy_joules_total", stub, 1) > of(gone, "energy_joules_total", stub, 1)
    assert later.one("meter_up", meter="nvml") == 1

    stub.config.gpus[0].error = 0
    stub.write()
    back = node.scrape_when(
        lambda page: of(page, "device_present", stub, 0) == 1, what="it is back"
    )
    back = node.next_commit()
    back.assert_not_below(later)
    # Its counter went on: what it used while it was lost is booked.
    grown_j = of(back, "energy_joules_total", stub, 0) - of(gone, "energy_joules_total", stub, 0)
    assert grown_j > 400 * 2
    assert back.sum("counter_resets_total") == 0
    assert node.log().count("has left; its totals stay") == 1
    assert node.log().count("is back") == 1
    node.terminate()
    node.assert_no_traceback()
    node.assert_books_balance()


def test_a_reset_counter_is_a_reset(over: Callable[..., tuple[Daemon, Stub]]) -> None:
    node, stub = over(StubConfig([constant(400)]))
    begun_s = time.monotonic()
    node.start()
    before = node.next_commit()
    stub.config.gpus[0].zero_ns = time.time_ns()
    stub.write()
    after = node.scrape_when(lambda page: page.sum("counter_resets_total") == 1)
    after.assert_not_below(before)
    time.sleep(1)
    later = node.next_commit()
    grown_j = later.sum("energy_joules_total", kind="gpu") - before.sum(
        "energy_joules_total", kind="gpu"
    )
    assert 400 * 0.9 < grown_j < 400 * (time.monotonic() - begun_s)
    assert later.one("counter_resets_total", device=stub.config.gpus[0].uuid) == 1
    assert of(later, "unobserved_seconds_total", stub, 0) > 0  # possibly: it cannot be told
    node.terminate()
    node.assert_books_balance()


def test_the_library_may_come_later(over: Callable[..., tuple[Daemon, Stub]]) -> None:
    node, stub = over(StubConfig([constant(350)]), library=False)
    node.start()
    page = node.next_commit()
    assert not page.all("energy_joules_total", kind="gpu")
    assert node.log().count("libnvidia-ml.so.1 is not installed") == 1
    build(stub.library_dir)
    # It is looked for once a minute.
    page = node.scrape_when(lambda page: page.all("energy_joules_total", kind="gpu"), 150)
    page = node.next_commit()
    assert of(page, "energy_joules_total", stub, 0) > 0
    assert page.one("meter_up", meter="nvml") == 1
    assert node.terminate() < 2
    node.assert_no_traceback()


def test_who_mends_the_driver_need_not_wait(over: Callable[..., tuple[Daemon, Stub]]) -> None:
    node, stub = over(StubConfig([constant(350)]), library=False)
    node.start()
    build(stub.library_dir)
    done = node.cli("release", "--end", "--socket", str(node.home / "ledger.sock"))
    assert done.returncode == 0, done.stderr
    node.scrape_when(lambda page: page.all("energy_joules_total", kind="gpu"), 15)


def test_another_version_of_the_library(over: Callable[..., tuple[Daemon, Stub]]) -> None:
    config = StubConfig([constant(350)])
    config.init_error = LIB_RM_VERSION_MISMATCH
    node, _ = over(config, FINE + "meters.nvml.enabled = true")
    node.start()
    page = node.next_commit()
    assert page.one("meter_up", meter="nvml") == 0
    assert page.one("meter_errors_total", meter="nvml", reason="driver_mismatch") >= 1
    (meter,) = [m for m in node.api("status")["meters"] if m["meter"] == "nvml"]
    assert "different versions" in meter["message"]
    assert "systemctl restart wattledger" in meter["hint"]
    assert node.terminate() < 2
    node.assert_no_traceback()


def test_a_driver_upgraded_under_the_daemon(over: Callable[..., tuple[Daemon, Stub]]) -> None:
    """Only a new process can load the new library: it ends in order, systemd starts it again."""
    node, stub = over(StubConfig([constant(350)]))
    node.start()
    before = node.next_commit()
    stub.config.init_error = stub.config.error = LIB_RM_VERSION_MISMATCH
    stub.write()
    assert node.process is not None
    assert node.process.wait(60) not in (0, 2, None)  # Restart=on-failure, and not a usage error
    node.assert_no_traceback()
    node.assert_books_balance()
    stub.config.init_error = stub.config.error = 0
    stub.write()
    node.start()
    after = node.next_commit()
    after.assert_not_below(before)
    assert after.sum("energy_quality_joules_total", quality="recovered", kind="gpu") > 0


def test_release_closes_nvml_and_books_the_gap(over: Callable[..., tuple[Daemon, Stub]]) -> None:
    node, stub = over(StubConfig([constant(400), constant(200)]))
    node.start()
    node.next_commit()
    socket = ("--socket", str(node.home / "ledger.sock"))
    done = node.cli("release", "--for", "10m", *socket)
    assert done.returncode == 0, done.stderr
    assert "NVML is closed for 10m" in done.stdout
    assert stub.stats().refcount == 0
    released = node.scrape()
    assert released.one("meter_up", meter="nvml") == 0
    assert node.api("status")["released_until"]
    calls = stub.stats().calls
    energies = [of(released, "energy_joules_total", stub, gpu) for gpu in (0, 1)]
    time.sleep(3)
    during = node.next_commit()
    assert stub.stats().calls == calls  # not touched, not even looked at
    assert [of(during, "energy_joules_total", stub, gpu) for gpu in (0, 1)] == energies
    assert during.one("books_timestamp_seconds") >= released.one("books_timestamp_seconds")

    done = node.cli("release", "--end", *socket)
    assert done.returncode == 0
    back = node.scrape_when(lambda page: page.one("meter_up", meter="nvml") == 1)
    back = node.next_commit()
    for gpu, watts in ((0, 400), (1, 200)):
        grown_j = of(back, "energy_joules_total", stub, gpu) - energies[gpu]
        assert grown_j > watts * 3
        assert of(back, "unobserved_seconds_total", stub, gpu) == 0
    assert node.api("status")["released_until"] is None

    # A restart in the middle, as by an upgrade of this package, does not take it up.
    assert node.cli("release", "--for", "10m", *socket).returncode == 0
    node.terminate()
    refcount, calls = stub.stats().refcount, stub.stats().calls
    assert refcount == 0
    node.start()
    node.next_commit()
    assert node.api("status")["released_until"]
    assert stub.stats().calls == calls
    assert node.cli("release", "--end", *socket).returncode == 0
    node.scrape_when(lambda page: page.one("meter_up", meter="nvml") == 1)

    # And one that ends by itself.
    assert node.cli("release", "--for", "1s", *socket).returncode == 0
    node.scrape_when(lambda page: page.one("meter_up", meter="nvml") == 1)
    node.terminate()
    node.assert_no_traceback()
    node.assert_books_balance()


def findings(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(done.stdout)
    problems = [each for each in found if each["level"] == "problem"]
    assert done.returncode == (1 if problems else 0)
    return found


def test_doctor(over: Callable[..., tuple[Daemon, Stub]]) -> None:
    config = StubConfig(
        [constant(300), constant(300, counter=0, samples=120), constant(300, persistence=0)]
    )
    node, stub = over(config, "")
    common = ("--ledger", str(node.ledger), "--path.sysfs", str(node.home / "sys"))
    with RaplTree(node.home / "sys", packages=1):
        found = findings(node.cli("doctor", "--json", *common))
        # The clock of the machine the test runs on is its own affair.
        assert not [f for f in found if f["level"] == "problem" and f["area"] != "clock"], found
        gpus = [f for f in found if f["area"] == "meter" and "GPU" in f["message"]]
        assert len(gpus) >= 3
        assert [f["level"] for f in gpus if "no energy counter" in f["message"]] == ["note"]
        (persistence,) = [f for f in found if "persistence mode is off" in f["message"]]
        assert "nvidia-smi -i 2 -pm 1" in persistence["hint"]
        assert [f["message"] for f in found if f["area"] == "daemon"] == ["no daemon is running"]
        assert stub.stats().refcount == 0  # what it opened, it closed

        node.start()
        found = findings(node.cli("doctor", "--json", *common))
        assert [f["level"] for f in found if f["area"] == "daemon"] == ["ok"]
        assert [f["level"] for f in found if f["area"] == "ledger"] == ["ok"]
        text = node.cli("doctor", *common)
        assert "PROBLEM" in text.stdout or text.stdout.rstrip().endswith("all is well")

        stub.config.gpus[0].handle_error = NO_PERMISSION
        stub.write()
        done = node.cli("doctor", "--json", *common)
        assert done.returncode == 1
        assert [f for f in findings(done) if "no permission" in f["message"]]
        node.terminate()

    # Without any meter of the CPU: a problem, with the command that mends it.
    with Daemon(node.home / "bare", "meters.nvml.enabled = false") as bare:
        sysfs = ("--path.sysfs", str(bare.home / "sys"), "--ledger", str(bare.ledger))
        done = bare.cli("doctor", "--json", *sysfs)
        assert done.returncode == 1
        (cpu,) = [f for f in findings(done) if "no meter of the CPU answers" in f["message"]]
        assert cpu["level"] == "problem" and cpu["hint"]


def test_a_call_that_hangs_in_the_library(over: Callable[..., tuple[Daemon, Stub]]) -> None:
    """A driver call holds no lock of Python's: the page is served, and the end is in time."""
    node, stub = over(StubConfig([constant(300)]), FINE + "meters.other.watts = 50")
    node.start()
    node.next_commit()
    stub.config.gpus[0].hang_ms = 60_000
    stub.write()
    hung = node.scrape_when(lambda page: page.one("meter_up", meter="nvml") == 0, what="it hangs")
    assert hung.one("meter_up", meter="constant") == 1
    begun = time.monotonic()
    node.next_commit()
    assert time.monotonic() - begun < 5
    assert node.terminate() < 2
    node.assert_books_balance()
