"""The command line: reports with and without a daemon, settings, help."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.daemon import FINE, Daemon
from wattledger.config import Config, parse_config

SCENARIO = """
[[gpu]]
model = "H100 SXM"
count = 2
waveform = { kind = "constant", watts = 400 }
"""
EXACT = ("energy_uj", "co2e_ug", "water_onsite_ul", "water_grid_ul")


@pytest.fixture
def node(daemon: Callable[..., Daemon]) -> Daemon:
    made = daemon(FINE + "meters.other.watts = 100", scenario=SCENARIO)
    made.start()
    made.next_commit()
    return made


def report(node: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`report` of this daemon, found by its ledger's path as an operator would name it."""
    done = node.cli("report", "--ledger", str(node.ledger), *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done


def test_reports_sum_to_the_same(node: Daemon) -> None:
    for daemon_runs in (True, False):
        if not daemon_runs:
            node.terminate()
        totals = {}
        for by in ("all", "device", "kind", "payee", "hour", "day"):
            answer = json.loads(report(node, "--by", by, "--json").stdout)
            assert answer["by"] == by
            assert [sum(int(row[q]) for row in answer["rows"]) for q in EXACT] == [
                int(answer["total"][q]) for q in EXACT
            ]
            totals[by] = int(answer["total"]["energy_uj"])
        assert totals["all"] > 0
        if not daemon_runs:  # nothing moves any more
            assert len(set(totals.values())) == 1
            (booked,) = node.query("SELECT sum(energy_uj) FROM total")
            assert booked == (totals["all"],)


def test_forms_of_a_report(node: Daemon) -> None:
    node.terminate()
    table = report(node, "--by", "kind").stdout
    assert "energy kWh" in table and "gpu" in table and "CO2e and grid water include PUE" in table
    as_json = json.loads(report(node, "--by", "kind", "--json").stdout)
    rows = list(csv.DictReader(io.StringIO(report(node, "--by", "kind", "--csv").stdout)))
    assert [row["group"] for row in rows] == [row["group"] for row in as_json["rows"]]
    for row, same in zip(rows, as_json["rows"], strict=True):
        assert all(row[quantity] == same[quantity] for quantity in EXACT)
        assert float(row["energy_kwh"]) == same["energy_kwh"]
        assert same["energy_kwh"] == pytest.approx(int(same["energy_uj"]) / 3.6e12)
    kinds = {row["group"]: row for row in rows}
    assert int(kinds["other"]["estimated_uj"]) == int(kinds["other"]["energy_uj"])
    assert int(kinds["gpu"]["estimated_uj"]) == 0


def test_spans_of_a_report(node: Daemon) -> None:
    whole = json.loads(report(node, "--json", "--since", "2d").stdout)
    assert int(whole["total"]["energy_uj"]) > 0
    past = json.loads(
        report(node, "--json", "--since", "2020-01-01", "--until", "2021-01-01").stdout
    )
    assert past["rows"] == [] and past["total"]["energy_uj"] == "0"
    refused = node.cli("report", "--ledger", str(node.ledger), "--since", "yesterday")
    assert refused.returncode != 0
    assert "yesterday" in refused.stderr and "24h" in refused.stderr
    assert "Traceback" not in refused.stderr
    node.terminate()
    offline = node.cli("report", "--ledger", str(node.ledger), "--since", "yesterday")
    assert offline.returncode != 0
    assert "yesterday" in offline.stderr and "24h" in offline.stderr


def test_a_report_without_socket_says_who_keeps_the_ledger(daemon: Callable[..., Daemon]) -> None:
    node = daemon(FINE + 'http.socket = "none"', scenario=SCENARIO).start()
    done = node.cli("report", "--ledger", str(node.ledger))
    assert done.returncode == 1
    assert f"pid {node.pid}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_of_nothing(tmp_path: Path, daemon: Callable[..., Daemon]) -> None:
    node = daemon()
    done = node.cli("report", "--ledger", str(tmp_path / "none.sqlite"))
    assert done.returncode == 1
    assert "there is no ledger" in done.stderr
    assert not (tmp_path / "none.sqlite").exists()


def test_config_default_is_the_default(node: Daemon) -> None:
    default = node.cli("config", "default")
    assert default.returncode == 0
    assert parse_config(default.stdout) == Config()
    (node.home / "default.toml").write_text(default.stdout)
    checked = node.cli("config", "check", str(node.home / "default.toml"))
    assert (checked.returncode, checked.stdout) == (0, f"{node.home / 'default.toml'}: ok\n")


def test_config_show_is_what_is_in_force(node: Daemon) -> None:
    settings = ("--config", str(node.config_file), "--ledger", "/elsewhere.sqlite")
    shown = node.cli("config", "show", *settings)
    assert shown.returncode == 0
    tree = tomllib.loads(shown.stdout)
    assert tree["meters"]["other"]["watts"] == 100
    assert tree["sampling"]["commit_interval"] == "200ms"
    assert tree["ledger"]["path"] == "/elsewhere.sqlite"
    # What it shows is itself a configuration, and the same one.
    again = parse_config(shown.stdout)
    assert again.sampling == parse_config(node.config_file.read_text()).sampling


def test_the_page_names_the_scenario(node: Daemon) -> None:
    assert node.scrape().labels("build_info", "simulated") == {"scenario"}


def test_doctor_asks_the_daemon(node: Daemon) -> None:
    done = node.cli("doctor", "--json", *node.arguments)
    found = json.loads(done.stdout)
    areas = {finding["area"] for finding in found}
    assert areas >= {"daemon", "meter", "grid", "clock", "ledger"}
    assert done.returncode == int(any(finding["level"] == "problem" for finding in found))
    assert next(f["level"] for f in found if f["area"] == "daemon") == "ok"
    assert (
        len([f for f in found if "simulated, metered by its energy counter" in f["message"]]) == 2
    )
    text = node.cli("doctor", *node.arguments)
    assert text.returncode == done.returncode
    for finding in found:
        if finding["area"] == "meter":
            assert finding["message"].split(":")[0] in text.stdout


def test_version_and_help(node: Daemon) -> None:
    version = node.cli("--version")
    assert version.returncode == 0
    assert version.stdout.split()[0] == "wattledger"
    page = node.scrape()
    assert page.labels("build_info", "version") == {version.stdout.split()[1]}
    for command in ("serve", "release", "doctor", "config", "report"):
        done = node.cli(command, "--help")
        assert done.returncode == 0 and "usage: wattledger" in done.stdout


def test_release_needs_gpus(daemon: Callable[..., Daemon]) -> None:
    node = daemon(FINE + "meters.nvml.enabled = false").start()
    done = node.cli("release", "--for", "1m", "--socket", str(node.home / "ledger.sock"))
    assert done.returncode == 1
    assert "switched off" in done.stderr
    assert "Traceback" not in done.stderr
