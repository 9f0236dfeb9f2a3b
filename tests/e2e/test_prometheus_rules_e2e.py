"""promtool's verdict on deploy/prometheus, and 2,000 nodes that have one alert each event."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy/prometheus"
NODES = 2000


def promtool(*arguments: str, cwd: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=100, cwd=cwd
    )


@pytest.fixture(autouse=True)
def _promtool(need: Callable[..., None]) -> None:
    need("promtool")


def test_the_files_are_what_they_should_be(tmp_path: Path) -> None:
    for path in (FOLDER / "rules").glob("*.yml"):
        checked = promtool("check", "rules", "--lint-fatal", str(path))
        assert checked.returncode == 0, checked.stdout + checked.stderr
    config = (FOLDER / "prometheus.yml").read_text()
    for name in ("rules", "targets"):
        (tmp_path / name).symlink_to(FOLDER / name)
    (tmp_path / "tls").mkdir()
    for name in ("ca.crt", "password"):
        (tmp_path / "tls" / name).write_text("")
    (tmp_path / "prometheus.yml").write_text(config)
    checked = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", sorted(path.name for path in (FOLDER / "tests").glob("*.yml")))
def test_cases(name: str, tmp_path: Path) -> None:
    tested = promtool("test", "rules", f"tests/{name}")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    # It can fail.
    text = (FOLDER / "tests" / name).read_text().replace("../rules", str(FOLDER / "rules"))
    (tmp_path / name).write_text(
        re.sub(r"value: \d+", "value: 3", text).replace("severity: ", "severity: x")
    )
    assert promtool("test", "rules", str(tmp_path / name)).returncode == 1


class Event(NamedTuple):
    """Something that befalls every node at the tenth minute.

    Attributes:
        series: of a node; `{i}` is its number. What is recorded is given as recorded: promtool
            lets no query touch more than 10,000 samples.
        at: when the alert has to be there.
        severity: of the alert.
        more: labels of the alert.
        counted: what it counts.
        nodes: how many there are.
    """

    series: dict[str, str]
    at: str
    severity: str
    more: str = ""
    counted: int = NODES
    nodes: int = NODES


EVENTS = {
    "WattledgerDown": Event(
        {'up{{job="wattledger",instance="n{i}"}}': "1x10 0x80"}, "20m", "critical"
    ),
    "WattledgerBooksStale": Event(
        {'wattledger_books_timestamp_seconds{{instance="n{i}"}}': "0+60x10 600x80"},
        "20m",
        "warning",
    ),
    "WattledgerSimulated": Event(
        {'wattledger_build_info{{instance="n{i}",simulated="x"}}': "_x10 1x80"}, "20m", "warning"
    ),
    "WattledgerCertificateEnds": Event(
        {'wattledger_web_certificate_expiry_timestamp_seconds{{instance="n{i}"}}': "9e9x10 6e5x80"},
        "80m",
        "warning",
    ),
    "WattledgerWebConfigFault": Event(
        {'wattledger_web_config_current{{instance="n{i}"}}': "1x10 0x80"}, "30m", "warning"
    ),
    "WattledgerMeterDown": Event(
        {'wattledger_meter_up{{instance="n{i}",meter="nvml"}}': "1x10 0x80"},
        "20m",
        "warning",
        'meter="nvml",',
    ),
    "WattledgerUnobserved": Event(
        {
            'wattledger_unobserved_seconds_total{{instance="n{i}",device="g0"}}': "0x10 600x80",
        },
        "20m",
        "warning",
    ),
    "WattledgerCounterPowerRatio": Event(
        {
            'wattledger_gpu_counter_power_ratio{{instance="n{i}",device="g0"}}': "1x10 1.5x80",
        },
        "80m",
        "warning",
    ),
    "WattledgerLedgerErrors": Event(
        {'wattledger_ledger_commit_errors_total{{instance="n{i}"}}': "0x10 3x80"}, "20m", "warning"
    ),
    "WattledgerLedgerNotWritten": Event(
        {'wattledger_ledger_pending_entries{{instance="n{i}"}}': "0x10 9x80"}, "20m", "critical"
    ),
    "WattledgerNewLedgerEpoch": Event(
        {
            'ledger:start_timestamp_seconds:last{{instance="n{i}",epoch="a"}}': "-9000x90",
            'ledger:start_timestamp_seconds:last{{instance="n{i}",epoch="b"}}': "_x11 660x80",
        },
        "20m",
        "warning",
        counted=1000,  # it has two series of each
        nodes=1000,
    ),
    "WattledgerLedgerTwice": Event(
        {'wattledger_ledger_info{{instance="n{i}",epoch="e{half}"}}': "_x10 1x80"},
        "30m",
        "warning",
        counted=NODES // 2,
    ),
    "WattledgerGridSignalStale": Event(
        {
            'wattledger_grid_fallback_level{{instance="n{i}"}}': "0x10 1x80",
            'wattledger_grid_basis_fallbacks_total{{instance="n{i}",source="s"}}': "0x90",
        },
        "60m",
        "info",
    ),
    "WattledgerGridOnTable": Event(
        {
            'wattledger_grid_fallback_level{{instance="n{i}"}}': "0x10 2x80",
            'wattledger_grid_basis_fallbacks_total{{instance="n{i}",source="s"}}': "0x90",
        },
        "60m",
        "warning",
    ),
    "WattledgerGpuHeldIdle": Event(
        {'job:held_idle_seconds:increase1h{{manager="slurm",job_id="{i}"}}': "_x10 3600x80"},
        "20m",
        "info",
    ),
    "WattledgerJobsOverLimit": Event(
        {'wattledger_jobs_over_limit_total{{instance="n{i}"}}': "0x10 5x80"}, "20m", "info"
    ),
}


def test_one_event_on_2000_nodes_is_one_alert(tmp_path: Path) -> None:
    rules = yaml.safe_load((FOLDER / "rules/alerts.yml").read_text())["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} == {*EVENTS, "WattledgerAbsent"}
    expressions = {rule["alert"]: rule["expr"] for rule in rules}
    cases = []
    for name, event in EVENTS.items():
        alert = f'ALERTS{{alertname="{name}",alertstate="firing"'
        labels = f'{event.more}severity="{event.severity}"'
        fired = [{"labels": f"{alert},{labels}}}", "value": 1}]
        count = [{"labels": f"{{{event.more}}}", "value": event.counted}]
        cases.append(
            {
                "name": name,
                "interval": "1m",
                "input_series": [
                    {"series": series.format(i=i, half=i // 2), "values": values}
                    for series, values in event.series.items()
                    for i in range(event.nodes)
                ],
                "promql_expr_test": [
                    {"expr": f"{alert}}}", "eval_time": "9m", "exp_samples": []},
                    {"expr": f"{alert}}}", "eval_time": event.at, "exp_samples": fired},
                    {"expr": expressions[name], "eval_time": event.at, "exp_samples": count},
                ],
            }
        )
    test = {
        "rule_files": [str(FOLDER / "rules/alerts.yml")],
        "evaluation_interval": "1m",
        "tests": cases,
    }
    (tmp_path / "fleet.yml").write_text(yaml.dump(test, Dumper=yaml.CSafeDumper))
    tested = promtool("test", "rules", "fleet.yml", cwd=tmp_path)
    assert tested.returncode == 0, (tested.stdout + tested.stderr)[:5000]
