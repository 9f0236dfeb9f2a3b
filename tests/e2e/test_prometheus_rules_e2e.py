"""promtool's verdict on deploy/prometheus, and 2,000 nodes that have one alert each event."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from documents import chosen

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
    # It can fail: the first case, with other values.
    text = (FOLDER / "tests" / name).read_text().replace("../rules", str(FOLDER / "rules"))
    file = yaml.safe_load(
        re.sub(r"value: \d+", "value: 3", text).replace("severity: ", "severity: x")
    )
    (tmp_path / name).write_text(yaml.safe_dump(file | {"tests": file["tests"][:1]}))
    assert promtool("test", "rules", str(tmp_path / name)).returncode == 1


def test_the_documents_queries_of_a_month_and_of_a_job(tmp_path: Path) -> None:
    """Over what the rules recorded in 40 days, an hour a step; the month is days 10 to 40.

    a has two names, b was found old on day 20, c began on day 25, d left on day 15. Job 4711 ran on
    a and, on day 20, on b; no page shows it any more.
    """
    month, job = (
        block.text for block in chosen("promql") if block.document == "deploy/prometheus/README.md"
    )
    began, energy = "ledger:start_timestamp_seconds:last", "ledger:energy_kwh:last"
    series = {
        f'{began}{{instance="a",epoch="a1"}}': "-90000x960",
        f'{began}{{instance="a.example",epoch="a1"}}': "-90000x960",
        f'{energy}{{instance="a",epoch="a1",kind="gpu"}}': "5000+1x960",
        f'{energy}{{instance="a.example",epoch="a1",kind="gpu"}}': "5000+1x960",
        f'{began}{{instance="b",epoch="b1"}}': "_x480 -90000x480",
        f'{energy}{{instance="b",epoch="b1",kind="gpu"}}': "_x480 7000+1x480",
        f'{began}{{instance="c",epoch="c1"}}': f"_x600 {600 * 3600}x360",
        f'{energy}{{instance="c",epoch="c1",kind="cpu"}}': "_x600 3+1x360",
        f'{began}{{instance="d",epoch="d1"}}': "-90000x960",
        f'{energy}{{instance="d",epoch="d1",kind="cpu"}}': "100+2x360 820x600",
    }
    of_job = 'manager="slurm",job_id="4711",'
    series[f'ledger_job:energy_kwh:last{{instance="a",epoch="a1",{of_job}}}'] = "_x300 1+1x20 stale"
    series[f'ledger_job:energy_kwh:last{{instance="b",epoch="b1",{of_job}}}'] = "_x480 1+1x9 stale"
    expected = [
        (month, [('{kind="gpu"}', 720 + 480), ('{kind="cpu"}', 363 + 240)]),
        (job, [(f"{{{of_job}}}", 21 + 10)]),
    ]
    case = {
        "interval": "1h",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": "960h",
                "exp_samples": [{"labels": labels, "value": value} for labels, value in told],
            }
            for query, told in expected
        ],
    }
    (tmp_path / "month.yml").write_text(yaml.dump({"evaluation_interval": "1h", "tests": [case]}))
    tested = promtool("test", "rules", "month.yml", cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


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
        others: series of `NODES - nodes` other nodes that it spares.
    """

    series: dict[str, str]
    at: str
    severity: str
    more: str = ""
    counted: int = NODES
    nodes: int = NODES
    others: dict[str, str] = {}  # noqa: RUF012 - nobody changes it


EVENTS = {
    "WattledgerDown": Event(
        {'up{{job="wattledger",instance="n{i}"}}': "1x10 0x80"},
        "20m",
        "warning",
        counted=NODES // 10,
        nodes=NODES // 10,
        others={'up{{job="wattledger",instance="m{i}"}}': "1x90"},
    ),
    "WattledgerManyDown": Event(
        {'up{{job="wattledger",instance="n{i}"}}': "1x10 0x80"}, "20m", "critical"
    ),
    "WattledgerBooksStale": Event(
        {'wattledger_books_timestamp_seconds{{instance="n{i}"}}': "0+60x10 600x80"},
        "30m",
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
        {'wattledger_ledger_commit_errors_total{{instance="n{i}"}}': "0x10 3x80"}, "22m", "warning"
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
    "WattledgerLedgerInTwoClusters": Event(
        {
            'ledger:start_timestamp_seconds:last{{cluster="a",instance="{i}",epoch="{i}"}}': "0x90",
            'ledger:start_timestamp_seconds:last{{instance="{i}",epoch="{i}"}}': "_x10 0x80",
            'up{{job="wattledger",cluster="a",instance="n{i}"}}': "1x90",
        },
        "30m",
        "warning",
        counted=1000,
        nodes=1000,
    ),
    "WattledgerNameTwice": Event(
        {'wattledger_ledger_info{{instance="n{half}",rack="{i}",epoch="e{i}"}}': "_x10 1x80"},
        "30m",
        "warning",
        counted=NODES // 2,
    ),
    "WattledgerRulesFail": Event(
        {
            'prometheus_rule_evaluation_failures_total{{rule_group="{i};wattledger_totals"}}': (
                "0x10 0+9x80"
            )
        },
        "30m",
        "warning",
    ),
    "WattledgerExporterDown": Event(
        {'wattledger_exporter_up{{instance="n{i}",exporter="otlp"}}': "1x10 0x80"},
        "40m",
        "warning",
        'exporter="otlp",',
        counted=500,  # a quarter of an hour of more is more than 10,000 samples
        nodes=500,
    ),
    "WattledgerRunsRefused": Event(
        {'wattledger_exporter_runs_refused{{instance="n{i}",exporter="otlp"}}': "0x10 1x80"},
        "40m",
        "warning",
        'exporter="otlp",',
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
        {
            'job:held_idle_seconds:increase1h{{manager="slurm",job_id="{i}"}}': "_x10 3600x80",
            'wattledger_job_device_info{{manager="slurm",job_id="{i}",device="g"}}': "1x90",
        },
        "20m",
        "info",
        counted=1000,
        nodes=1000,
    ),
    "WattledgerJobsOverLimit": Event(
        {'wattledger_jobs_over_limit_total{{instance="n{i}"}}': "0x10 5x80"}, "20m", "info"
    ),
}


def test_one_event_on_2000_nodes_is_one_alert(tmp_path: Path) -> None:
    files = [FOLDER / "rules" / name for name in ("alerts.yml", "books.yml")]
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
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
                ]
                + [
                    {"series": series.format(i=i), "values": values}
                    for series, values in event.others.items()
                    for i in range(NODES - event.nodes)
                ],
                "promql_expr_test": [
                    {"expr": f"{alert}}}", "eval_time": "9m", "exp_samples": []},
                    {"expr": f"{alert}}}", "eval_time": event.at, "exp_samples": fired},
                    {"expr": expressions[name], "eval_time": event.at, "exp_samples": count},
                ],
            }
        )
    test = {
        "rule_files": [str(path) for path in files],
        "evaluation_interval": "1m",
        "tests": cases,
    }
    (tmp_path / "fleet.yml").write_text(yaml.dump(test, Dumper=yaml.CSafeDumper))
    tested = promtool("test", "rules", "fleet.yml", cwd=tmp_path)
    assert tested.returncode == 0, (tested.stdout + tested.stderr)[:5000]
