"""From start to end: signals, systemd's messages, reloads, hung driver calls, a second daemon."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from e2e.daemon import FINE, Daemon, lines_of
from e2e.page import Page
from waiting import wait_until

Start = Callable[..., Daemon]

TWO_GPUS = """
[[gpu]]
model = "H100 SXM"
count = 2
waveform = { kind = "constant", watts = 300 }
"""
HANG = """
[[fault]]
kind = "hang"
gpu = 0
at_s = 2
for_s = 600
"""
END_S = 2.0


def test_sigterm_ends_in_time_with_everything_committed(daemon: Start) -> None:
    # The commit interval is long: what the last commit writes cannot be an earlier one's.
    config = 'sampling = { interval = "1s", commit_interval = "1m" }'
    begun_s = time.monotonic()
    node = daemon(config, scenario=TWO_GPUS).start()
    # Commits fall on whole minutes of the monotonic clock; none may in the next seconds.
    if time.monotonic() % 60 > 30:
        time.sleep(63 - time.monotonic() % 60)
    before_j = node.scrape().sum("energy_joules_total", kind="gpu")
    booked = (
        "SELECT sum(energy_uj) FROM total JOIN device ON device.id = device_id WHERE kind='gpu'"
    )
    time.sleep(4)
    first = node.scrape()
    assert first.sum("energy_joules_total", kind="gpu") == before_j
    assert node.terminate() < END_S
    most_s = time.monotonic() - begun_s
    (energy_uj,) = node.query(booked)[0]
    # 2 × 300 W, for the 4 s and the time around them.
    assert before_j + 3 * 600 <= energy_uj / 1e6 <= most_s * 600
    assert node.query("SELECT clean FROM meta") == [(1,)]
    assert "the books are closed" in node.log()
    assert node.notify.lines()[-1] == "STOPPING=1"
    node.assert_no_traceback()
    node.assert_books_balance()
    again = node.start().scrape()
    again.assert_not_below(first)
    assert again.sum("energy_joules_total", kind="gpu") >= energy_uj / 1e6


def test_sigint_ends_as_sigterm_does(daemon: Start) -> None:
    node = daemon(FINE).start()
    assert node.terminate(number=signal.SIGINT) < END_S
    node.assert_no_traceback()


def test_sigterm_while_starting_leaves_sound_books(daemon: Start) -> None:
    node = daemon(FINE, scenario=TWO_GPUS)
    for delay_s in (0.05, 0.2, 0.3, 0.4, 0.5):
        process = node.spawn()
        time.sleep(delay_s)
        process.terminate()
        # Before its handlers are there, the signal's default ends it; after, it ends in order.
        assert process.wait(60) in (0, -signal.SIGTERM)
    node.start().terminate()
    node.assert_books_balance()


def test_a_hung_driver_call_holds_up_nothing(daemon: Start) -> None:
    node = daemon(FINE + "meters.other.watts = 50", scenario=TWO_GPUS + HANG).start()
    node.scrape_when(lambda page: page.one("meter_up", meter="nvml") == 1, what="it answers")
    hung = node.scrape_when(lambda page: page.one("meter_up", meter="nvml") == 0, what="it hangs")
    gpu_j = hung.sum("energy_joules_total", kind="gpu")
    assert gpu_j > 0
    assert hung.one("meter_up", meter="constant") == 1

    begun = time.monotonic()
    later = node.next_commit()
    assert time.monotonic() - begun < 5
    assert later.sum("energy_joules_total", kind="other") > hung.sum(
        "energy_joules_total", kind="other"
    )
    assert later.sum("energy_joules_total", kind="gpu") == gpu_j
    assert not later.all("power_watts", kind="gpu")
    (meter,) = [m for m in node.api("status")["meters"] if m["meter"] == "nvml"]
    assert "has not returned" in meter["message"] and meter["hint"]
    assert node.log().count("a driver call does not return") == 1
    assert node.get("/healthz").status == 200

    refused = node.cli("release", "--for", "1m", "--socket", str(node.home / "ledger.sock"))
    assert refused.returncode == 1
    assert "has not returned" in refused.stderr

    assert node.terminate() < END_S
    node.assert_no_traceback()
    node.assert_books_balance()
    # The counter went on: the next process finds the energy of the hang.
    node.start().scrape().assert_not_below(later)
    again = node.scrape_when(
        lambda page: page.sum("energy_quality_joules_total", kind="gpu", quality="recovered") > 0
    )
    gpus = {dict(series[1])["device"] for series in again.all("energy_joules_total", kind="gpu")}
    assert len(gpus) == 2
    assert all(again.one("unobserved_seconds_total", device=gpu) == 0 for gpu in gpus)
    assert again.one("unobserved_seconds_total", device="other") > 0  # it has no counter


def test_a_hang_that_ends_is_booked(daemon: Start) -> None:
    # It hangs once a turn has taken 5 s; that is to be seen before it ends.
    short = HANG.replace("for_s = 600", "for_s = 12")
    node = daemon(FINE, scenario=TWO_GPUS + short).start()
    node.scrape_when(lambda page: page.one("meter_up", meter="nvml") == 0, what="it hangs")
    page = node.scrape_when(lambda page: page.one("meter_up", meter="nvml") == 1, what="it is back")
    page = node.next_commit()
    for series, joules in page.all("energy_joules_total", kind="gpu").items():
        assert joules > 300 * 12, series  # at least the hang
    assert page.sum("unobserved_seconds_total") == 0
    assert node.log().count("the driver call has returned") == 1


def test_systemd_is_told(daemon: Start) -> None:
    node = daemon(FINE).start()
    wait_until(lambda: node.notify.lines().count("WATCHDOG=1") >= 3, what="watchdog pings")
    assert node.notify.lines()[0] == "READY=1"
    assert node.notify.lines()[1].startswith("STATUS=metering ")
    # A process that is stopped (or whose sampling loop hangs) feeds the watchdog no more.
    node.send(signal.SIGSTOP)
    threads = Path(f"/proc/{node.pid}/task")
    wait_until(
        lambda: all(
            (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
            for thread in threads.iterdir()
        ),
        what="it is stopped",
    )
    node.notify.clear()
    time.sleep(1)
    assert node.notify.lines() == []
    node.send(signal.SIGCONT)
    wait_until(lambda: "WATCHDOG=1" in node.notify.lines(), what="it goes on")
    node.terminate()
    assert node.notify.lines()[-1] == "STOPPING=1"


def test_reload_takes_a_good_file_and_refuses_a_bad_one(daemon: Start) -> None:
    node = daemon(FINE + "site.pue = 1.2", scenario=TWO_GPUS).start()
    first = node.next_commit()
    assert first.one("pue_ratio", source="config") == 1.2

    node.notify.clear()
    node.configure(FINE + "site.pue = 1.8\nsite.zone = 'DE'")
    node.reload()
    # The reload is said before it begins and ended by READY.
    lines = [line for line in node.notify.lines() if line.startswith(("RELOADING", "READY"))]
    assert lines == ["RELOADING=1", "READY=1"]
    second = node.next_commit()
    assert second.one("pue_ratio", source="config") == 1.8
    assert second.labels("grid_carbon_intensity_grams_per_kwh", "grid_zone") == {"DE"}
    second.assert_not_below(first)

    node.configure("site.pue = 0.2\nsite.zome = 'DE'\nnonsense = 1")
    node.reload()
    third = node.next_commit()
    assert third.one("pue_ratio", source="config") == 1.8
    third.assert_not_below(second)
    refused = [line for line in lines_of(node.log()) if "was not reloaded" in line]
    assert len(refused) == 1
    for key in ("site.pue", "site.zome", "nonsense"):
        assert key in node.log()

    # What cannot be reloaded is named.
    node.configure('sampling = { interval = "2s", commit_interval = "4s" }\nsite.pue = 1.8')
    node.reload()
    assert "changes of sampling need a restart" in node.log()

    node.config_file.unlink()
    node.reload()
    node.next_commit().assert_not_below(third)
    assert node.process is not None and node.process.poll() is None

    node.terminate()
    node.assert_no_traceback()
    node.assert_books_balance()
    prices = node.query(
        "SELECT DISTINCT pue_ppm, zone FROM price JOIN entry ON price_id = price.id"
    )
    assert {(1_200_000, "WORLD"), (1_800_000, "DE")} <= set(prices)
    per_price = node.query("SELECT price_id, sum(energy_uj) FROM entry GROUP BY 1")
    assert len(per_price) >= 2 and all(energy_uj > 0 for _, energy_uj in per_price)


def test_sighup_without_a_file_ends_nothing(daemon: Start) -> None:
    node = daemon(FINE)
    node.config_file.write_text("")
    node.start()
    for _ in range(3):
        node.reload()
    assert node.terminate() < END_S


def test_a_second_daemon_is_refused(daemon: Start) -> None:
    node = daemon(FINE).start()
    other = node.cli("serve", "--ledger", str(node.ledger), "--listen", "127.0.0.1:0")
    assert other.returncode == 1
    message, hint = lines_of(other.stderr)
    assert f"{node.ledger} is kept by another process (pid {node.pid})" in message
    assert "--ledger" in hint
    # The first one has noticed nothing.
    before = node.scrape()
    node.next_commit().assert_not_below(before)
    assert node.cli("report", "--socket", str(node.home / "ledger.sock")).returncode == 0


def test_a_daemon_without_meters_serves(daemon: Start) -> None:
    config = (
        FINE
        + "meters = { "
        + ", ".join(
            f"{name} = {{ enabled = false }}" for name in ("nvml", "rapl", "hwmon", "estimate")
        )
    )
    node = daemon(config + " }").start()
    page = node.scrape()
    assert page.all("energy_joules_total") == {}
    assert page.one("grid_fallback_level") == 2
    assert node.get("/readyz").status == 200
    assert node.get("/").status == 200
    wait_until(lambda: "no meter answers yet" in node.log(), what="said once it is ready")
    assert node.terminate() < END_S
    node.assert_no_traceback()


def test_counters_are_the_same_over_a_clean_restart(daemon: Start) -> None:
    node = daemon(FINE, scenario=TWO_GPUS).start()
    node.next_commit()
    node.terminate()
    (stopped_uj,) = node.query("SELECT sum(energy_uj) FROM total")[0]
    time.sleep(1)
    page: Page = node.start().scrape_when(  # the second in which nobody looked, as recovered
        lambda page: page.sum("energy_quality_joules_total", quality="recovered") > 540
    )
    gained_j = page.sum("energy_joules_total") - stopped_uj / 1e6
    assert gained_j > 540
