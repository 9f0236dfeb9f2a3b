"""The users' dashboard where users are not known: no bar without a name, and no figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import dashboards
from e2e.history import Prometheus

BEGIN_S, LENGTH_S = 1_800_000_000, 1200
OF_USERS = {
    "Energy of all users",
    "CO2e of all users",
    "Energy by user",
    "CO2e by account",
    "Users",
}
NODE = 'cluster="{cluster}",job="wattledger",instance="gpu01"'
OWNER = 'manager="slurm",user="{user}",account="{account}"'
COUNTERS = (
    "wattledger_user_energy_kwh_total{{{node},{owner}}} {value}",
    'wattledger_user_co2e_grams_total{{{node},{owner},basis="direct"}} {value}',
    'wattledger_job_held_idle_joules_total{{{node},manager="slurm",job_id="7"}} {value}',
    'wattledger_job_held_idle_seconds_total{{{node},manager="slurm",job_id="7"}} {value}',
)
GAUGES = (
    'wattledger_build_info{{{node},version="1"}} 1',
    'wattledger_job_info{{{node},manager="slurm",job_id="7",user="{user}"}} 1',
    'user:energy_kwh:increase1h{{cluster="{cluster}",user="{user}",account="{account}"}} 1',
    'user:energy_kwh:total{{cluster="{cluster}",user="{user}",account="{account}"}} {value}',
)
CLUSTERS = {"nobody": ("", ""), "alone": ("ann", ""), "known": ("ann", "physics")}


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, need: Callable[..., None]
) -> Iterator[Prometheus]:
    need("prometheus", "promtool")
    lines = []
    for cluster, (user, account) in CLUSTERS.items():
        known = {
            "node": NODE.format(cluster=cluster),
            "owner": OWNER.format(user=user, account=account),
            "cluster": cluster,
            "user": user,
            "account": account,
        }
        for text in (*COUNTERS, *GAUGES):
            for at_s in range(0, LENGTH_S + 1, 60):
                sample = text.format(**known, value=1 + at_s / 60)
                lines.append(f"{sample} {BEGIN_S + at_s}")
    made = Prometheus(tmp_path_factory.mktemp("nobody"))
    samples = made.home / "samples"
    samples.write_text("\n".join([*lines, "# EOF", ""]))
    made.ingest(samples)
    with made:
        yield made


@pytest.mark.parametrize(
    ("cluster", "empty"),
    [("nobody", OF_USERS), ("alone", {"CO2e by account"}), ("known", set[str]())],
)
def test_what_is_of_nobody_known_is_no_user_s(
    cluster: str, empty: set[str], prometheus: Prometheus
) -> None:
    given = {"cluster": cluster, "job": ".+", "instance": ".+", "manager": ".+", "user": ".*"}
    shown = dict.fromkeys(OF_USERS, False)
    for found in dashboards.targets(dashboards.load("users")):
        if found.panel in OF_USERS:
            expr = dashboards.filled(found.expr, given, range_s=LENGTH_S)
            series = prometheus.at(expr, BEGIN_S + LENGTH_S)
            shown[found.panel] |= bool(series)
            if cluster != "nobody" and found.panel == "Users":
                assert [labels.get("user") for labels, _ in series] == ["ann"], found.ref
    assert {panel for panel, there in shown.items() if not there} == empty
